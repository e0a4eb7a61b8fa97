"""What operators share in a directory: a lock, and words for a directory that refuses."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from openfactory_common.errors import PlatformRefused


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on a file, which is made with its directory; whoever holds it may remove it as the last thing.

    A file that was removed while we waited for it locks nobody out: then it is tried again with the new one.

    Raises:
        OSError: it cannot be made.
    """
    while (file := _acquired(path)) is None:
        continue
    with file:
        yield


def _acquired(path: Path) -> IO[str] | None:
    """Wait for the lock; None where the file is not the one of that name any more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = path.open("a")
    except FileNotFoundError:  # the directory was removed since
        return None
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    except FileNotFoundError:
        pass
    file.close()
    return None


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """Say of a directory that refuses which setting names it.

    Raises:
        PlatformRefused: something inside raised an `OSError`; ``what`` is what could not be read or written.
    """
    try:
        yield
    except OSError as problem:
        where = f"{what}: {problem.strerror}: {problem.filename}"
        raise PlatformRefused(f"{where}; REGISTRY_DIR must be a directory that the operator may write") from problem
