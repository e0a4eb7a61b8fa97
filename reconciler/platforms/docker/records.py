"""Records as files, where no Swarm keeps configs: `<directory>/lease.json`, `<directory>/pause.json`.

The version stands in the file, and a lock on the directory makes compare-and-swap one step. Operators of one owner
must share the directory: on one machine they do.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from openfactory_common.errors import PlatformConflict, PlatformRefused
from reconciler.domain.services import Record

_LOCK = ".records.lock"
_WHAT = "the operators' records"


@contextmanager
def translate_os_errors(what: str) -> Iterator[None]:
    """Name the setting of a directory that cannot be used.

    Raises:
        PlatformRefused: something inside raised an `OSError`; ``what`` could not be read or written.
    """
    try:
        yield
    except OSError as problem:
        where = f"{what}: {problem.strerror}: {problem.filename}"
        raise PlatformRefused(f"{where}; REGISTRY_DIR must be a directory that the operator may write") from problem


@contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Hold the lock on a file, which is made with its directory; the holder may remove it as the last step.

    A file that was removed while we waited for its lock protects nothing: then the new one is used.

    Raises:
        OSError: it cannot be made.
    """
    while (file := _try_lock(path)) is None:
        continue
    with file:
        yield


def _try_lock(path: Path) -> IO[str] | None:
    """Wait for the lock; None where the file was replaced meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = path.open("a")
    except FileNotFoundError:  # the directory was removed since
        return None
    fcntl.flock(file, fcntl.LOCK_EX)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    file.close()
    return None


@dataclass(frozen=True)
class RecordFiles:
    """The records of one owner in one directory, made at the first write."""

    directory: Path

    def read(self) -> Mapping[str, Record]:
        """Return all records by name; a file that is not a record is ignored.

        Raises:
            PlatformRefused: the directory cannot be read.
        """
        with translate_os_errors(_WHAT):
            paths = sorted(self.directory.glob("[a-z]*.json")) if self.directory.is_dir() else []
            found = [record for path in paths if (record := _read_record(path)) is not None]
        return {record.name: record for record in found}

    def write(self, name: str, fields: Mapping[str, str], before: Record | None) -> None:
        """Replace ``before``.

        Raises:
            PlatformConflict: the record is no longer equal to ``before``.
            PlatformRefused: the file cannot be written.
        """
        path = self.directory / f"{name}.json"
        with translate_os_errors(_WHAT), lock_file(self.directory / _LOCK):
            if _read_record(path) != before:
                raise PlatformConflict(f"the record {name} changed since it was read")
            version = before.version + 1 if before else 1
            temporary = path.with_name(f".{path.name}.new")
            temporary.write_text(json.dumps({"record": name, "version": version, "fields": dict(fields)}, indent=2))
            temporary.rename(path)

    def remove(self, record: Record) -> None:
        """Remove it, with the last one the lock, and the directory if it is empty then.

        Raises:
            PlatformRefused: it cannot be removed.
        """
        if self.directory.is_dir():
            with self.lock():
                (self.directory / f"{record.name}.json").unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Exclude other operators on this machine; without records, the lock and an empty directory are removed after.

        Raises:
            PlatformRefused: the directory cannot be written.
        """
        with translate_os_errors(_WHAT), lock_file(self.directory / _LOCK):
            try:
                yield
            finally:
                if not self.read():
                    (self.directory / _LOCK).unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            self.directory.rmdir()


def _read_record(path: Path) -> Record | None:
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        document = json.loads(path.read_text())
        if document["record"] == path.stem:
            texts = {name: text for name, text in document["fields"].items() if isinstance(text, str)}
            return Record(path.name, int(document["version"]), path.stem, texts)
    return None
