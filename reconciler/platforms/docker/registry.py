"""The registry as files, where no Swarm keeps configs.

    <directory>/registry.json                               the current document: what the routing layer reads
    <directory>/<prefix>_registry-<revision>.<sequence>.json   every document that is kept

A document is written under a temporary name and renamed, so a reader sees a whole one or none. `registry.json` is
written last and is authoritative: while it differs from the newest document (after a crash in between, or because a
person changed it), `RegistryFiles.read` lists an unreadable document as the newest, so that the next plan publishes
again.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from openfactory_common.errors import PlatformConflict, PlatformRefused
from reconciler.domain.services import LiveRegistry
from reconciler.platforms.docker.records import lock_file, translate_os_errors
from reconciler.platforms.docker.spec import REGISTRY_FILE, RegistryLocation

_LOCK = ".lock"
_WHAT = "the registry's files"
#: The routing layer runs as another user in its container.
_READABLE_BY_ALL, _ACCESSIBLE_BY_ALL = 0o644, 0o055


@dataclass(frozen=True)
class RegistryFiles:
    """The registry documents of one owner in one directory.

    Attributes:
        directory: of this owner alone; made at the first publication.
        prefix: what the documents' names start with.
    """

    directory: Path
    prefix: str

    def locate(self) -> RegistryLocation:
        """Return where the registry is and which document is current."""
        with translate_os_errors(_WHAT):
            documents = self._documents()
        return RegistryLocation(str(self.directory), documents[0].name if documents else "")

    def read(self, *, mounted: bool) -> tuple[LiveRegistry, ...]:
        """Return all documents, newest first; ``mounted`` says whether a container mounts the current one.

        Raises:
            PlatformRefused: the directory cannot be read.
        """
        with translate_os_errors(_WHAT):
            documents = self._documents()
            current = None
            with suppress(FileNotFoundError):
                current = (self.directory / REGISTRY_FILE).read_bytes()
        if not documents:
            return ()
        newest = replace(documents[0], mounted=mounted)
        if current == newest.data:
            return (newest, *documents[1:])
        broken = LiveRegistry("", 0, REGISTRY_FILE, newest.sequence + 1, b"", newest.updated_at)
        return (broken, newest, *documents[1:])

    def publish(self, data: bytes, revision: str, sequence: int) -> None:
        """Make the document current.

        Raises:
            PlatformConflict: another operator published at the same time.
            PlatformRefused: the files cannot be written.
        """
        name = f"{self.prefix}_registry-{revision}"
        with translate_os_errors(_WHAT), lock_file(self.directory / _LOCK):
            documents = self._documents()
            newest = documents[0].sequence if documents else 0
            if sequence < newest or (sequence == newest and documents[0].name != name):
                raise PlatformConflict(f"registry {newest} was published meanwhile, {sequence} is too old")
            self.directory.chmod(self.directory.stat().st_mode | _ACCESSIBLE_BY_ALL)
            _write(self.directory / f"{name}.{sequence}.json", data)
            _write(self.directory / REGISTRY_FILE, data)
            for old in documents:
                if old.name == name and old.sequence != sequence:
                    (self.directory / old.id).unlink(missing_ok=True)

    def remove(self, registry: LiveRegistry) -> None:
        """Remove a document; the last one with the current one's copy, and with the directory if it is empty then.

        Raises:
            PlatformRefused: the files cannot be removed, or a container mounts the document.
        """
        if registry.mounted:
            raise PlatformRefused(f"registry {registry.name} is mounted by a running container")
        if not self.directory.is_dir():
            return
        with translate_os_errors(_WHAT), lock_file(self.directory / _LOCK):
            if registry.id:
                (self.directory / registry.id).unlink(missing_ok=True)
            if not self._documents():
                for name in (REGISTRY_FILE, _LOCK):
                    (self.directory / name).unlink(missing_ok=True)
                with suppress(OSError):  # other files are in it
                    self.directory.rmdir()

    def _documents(self) -> list[LiveRegistry]:
        """Return the documents that are kept, newest first."""
        form = re.compile(rf"({re.escape(self.prefix)}_registry-[0-9a-z]+)\.([0-9]+)\.json")
        found = []
        for path in self.directory.iterdir() if self.directory.is_dir() else ():
            if name := form.fullmatch(path.name):
                with suppress(FileNotFoundError):  # removed since the directory was listed
                    written, sequence = datetime.fromtimestamp(path.stat().st_mtime, UTC), int(name[2])
                    found.append(LiveRegistry(path.name, sequence, name[1], sequence, path.read_bytes(), written))
        return sorted(found, key=lambda one: (one.sequence, one.updated_at, one.name), reverse=True)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.chmod(_READABLE_BY_ALL)
    temporary.rename(path)
