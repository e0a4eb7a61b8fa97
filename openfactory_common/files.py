"""Reads files that others write and replace while a program runs."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_file(path: Path, limit: int) -> bytes:
    """Return the content of a file, at most ``limit`` bytes.

    Raises:
        OSError: it cannot be read, or is something else, of which a read might never return (a pipe).
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return file.read(limit)
