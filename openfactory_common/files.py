"""Reads files that others write and replace while a program runs, and says when they have changed."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path

#: A file that was changed less than this many nanoseconds ago counts as changed each time: two changes within one tick
#: of the kernel's clock (4 ms) have the same time.
_SETTLED_NS = 1_000_000_000


def read_file(path: Path, limit: int) -> bytes:
    """Return the content of a file, at most ``limit`` bytes.

    Raises:
        OSError: it cannot be read, or is something else, of which a read might never return (a pipe).
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return file.read(limit)


class FileChanges:
    """Says whether a file may have another content than the one that was read last."""

    def __init__(self, path: Path) -> None:
        """Count the file as changed until `confirm` is called."""
        self._path = path
        self._found: tuple[int, ...] = ()
        self._confirmed: tuple[int, ...] = ()

    def changed(self) -> bool:
        """Return whether the file must be read; if so, and after an error, it stays so until `confirm` is called.

        Raises:
            OSError, ValueError: the file is not there, or its path has a NUL.
        """
        confirmed, self._confirmed, self._found = self._confirmed, (), ()
        status = self._path.stat()
        times = status.st_mtime_ns, status.st_ctime_ns
        version = (*times, status.st_size, status.st_ino)
        if version == confirmed:
            self._confirmed = confirmed
            return False
        if time.time_ns() - max(times) > _SETTLED_NS:
            self._found = version
        return True

    def confirm(self) -> None:
        """Note that the file has been read since the last call of `changed`."""
        self._confirmed = self._found
