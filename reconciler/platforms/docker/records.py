"""Records as files, where no Swarm keeps configs: `<directory>/lease.json`, `<directory>/pause.json`.

The version stands in the file, and a lock on the directory makes compare and swap one step. Operators that are to
agree must share the directory: on one machine they do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from openfactory_common.errors import PlatformConflict
from reconciler.domain.services import Record
from reconciler.platforms.docker.lock import locked, refusals

_LOCK = ".records.lock"
_WHAT = "the operators' records"


@dataclass(frozen=True)
class RecordFiles:
    """The records of one owner in one directory, made at the first write."""

    directory: Path

    def read(self) -> Mapping[str, Record]:
        """Return all records by name; a file that is none is passed over.

        Raises:
            PlatformRefused: the directory cannot be read.
        """
        with refusals(_WHAT):
            found = [record for path in self._paths() for record in self._record(path)]
        return {record.name: record for record in found}

    def write(self, name: str, fields: Mapping[str, str], before: Record | None) -> None:
        """Replace what ``before`` says.

        Raises:
            PlatformConflict: it is not as ``before`` any more.
            PlatformRefused: the file cannot be written.
        """
        with self._locked():
            current = next(self._record(self.directory / f"{name}.json"), None)
            if current != before:
                raise PlatformConflict(f"the record {name} changed since it was read")
            version = before.version + 1 if before else 1
            passing = self.directory / f".{name}.json.new"
            passing.write_text(json.dumps({"record": name, "version": version, "fields": dict(fields)}, indent=2))
            passing.rename(self.directory / f"{name}.json")

    def remove(self, record: Record) -> None:
        """Remove it, with the last one the lock, and the directory if it is empty then.

        Raises:
            PlatformRefused: it cannot be removed.
        """
        if not self.directory.is_dir():
            return
        with self._locked():
            (self.directory / f"{record.name}.json").unlink(missing_ok=True)
            self._leave_no_lock()
        self._leave_no_directory()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Do what two operators of one machine must not do at once.

        Raises:
            PlatformRefused: the directory cannot be written.
        """
        with self._locked():
            try:
                yield
            finally:
                self._leave_no_lock()
        self._leave_no_directory()

    def _leave_no_lock(self) -> None:
        if not self.read():
            (self.directory / _LOCK).unlink(missing_ok=True)

    def _leave_no_directory(self) -> None:
        with suppress(OSError):  # something is in it
            self.directory.rmdir()

    def _paths(self) -> list[Path]:
        return sorted(self.directory.glob("[a-z]*.json")) if self.directory.is_dir() else []

    def _record(self, path: Path) -> Iterator[Record]:
        with suppress(
            FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError
        ):
            said = json.loads(path.read_text())
            if said["record"] == path.stem:
                texts = {name: text for name, text in said["fields"].items() if isinstance(text, str)}
                yield Record(path.name, int(said["version"]), path.stem, texts)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with refusals(_WHAT), locked(self.directory / _LOCK):
            yield
