"""Reads of what others write, with a limit of bytes."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import aiohttp


def read_file(path: Path, limit: int) -> bytes:
    """Return at most ``limit`` bytes of a file.

    Raises:
        OSError: it cannot be read, or is something else, of which a read might never return (a pipe).
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return file.read(limit)


async def read_response(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return at most ``limit`` bytes of a response's body."""
    body = bytearray()
    while len(body) < limit and (piece := await response.content.read(limit - len(body))):
        body += piece
    return bytes(body)
