"""The registry as files, where no Swarm keeps configs.

    <directory>/registry.json                               the current document: what the routing layer reads
    <directory>/<prefix>_registry-<revision>.<sequence>.json   every document that is kept

A document is written under a passing name and renamed, so a reader sees a whole one or none. `registry.json` is written
last and is what counts: while it differs from the newest document (a crash came between, or somebody changed it), an
unreadable one stands above all others in what is read here, and so the next plan publishes again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from openfactory_common.errors import PlatformConflict, PlatformRefused
from reconciler.domain.services import LiveRegistry
from reconciler.platforms.docker.lock import locked, refusals
from reconciler.platforms.docker.spec import REGISTRY_FILE, Shelf

_LOCK = ".lock"
_WHAT = "the registry's files"
_PASSING = ".new"
#: The routing layer runs as another user in its container.
_EVERYBODY_READS, _EVERYBODY_ENTERS = 0o644, 0o055


@dataclass(frozen=True)
class RegistryFiles:
    """The registry documents of one owner in one directory.

    Attributes:
        directory: of this owner alone; made at the first publication.
        prefix: what the documents' names start with.
    """

    directory: Path
    prefix: str

    def shelf(self) -> Shelf:
        """Return where the registry is and which document is current."""
        with refusals(_WHAT):
            documents = self._documents()
        return Shelf(str(self.directory), documents[0].name if documents else "")

    def read(self, *, mounted: bool) -> tuple[LiveRegistry, ...]:
        """Return all documents, newest first; ``mounted`` says whether a container shows the current one.

        Raises:
            PlatformRefused: the directory cannot be read.
        """
        with refusals(_WHAT):
            documents = self._documents()
            shown = self._shown()
        if not documents:
            return ()
        newest = replace(documents[0], mounted=mounted)
        if shown == newest.data:
            return (newest, *documents[1:])
        broken = LiveRegistry("", 0, REGISTRY_FILE, newest.sequence + 1, b"", newest.updated_at)
        return (broken, newest, *documents[1:])

    def publish(self, data: bytes, revision: str, sequence: int) -> None:
        """Make the document current.

        Raises:
            PlatformConflict: somebody else published at the same time.
            PlatformRefused: the files cannot be written.
        """
        name = f"{self.prefix}_registry-{revision}"
        with self._locked():
            documents = self._documents()
            newest = documents[0].sequence if documents else 0
            if sequence < newest or (sequence == newest and documents[0].name != name):
                raise PlatformConflict(f"registry {newest} was published meanwhile, {sequence} comes too late")
            self.directory.chmod(self.directory.stat().st_mode | _EVERYBODY_ENTERS)
            self._write(self.directory / f"{name}.{sequence}.json", data)
            self._write(self.directory / REGISTRY_FILE, data)
            for old in documents:
                if old.name == name and old.sequence != sequence:
                    (self.directory / old.id).unlink(missing_ok=True)

    def remove(self, registry: LiveRegistry) -> None:
        """Remove a document; with the last one goes the current one's copy, and the directory if it is empty then.

        Raises:
            PlatformRefused: the files cannot be removed, or a container shows the document.
        """
        if registry.mounted:
            raise PlatformRefused(f"registry {registry.name} is shown by a running container")
        if not self.directory.is_dir():
            return
        with self._locked():
            if registry.id:
                (self.directory / registry.id).unlink(missing_ok=True)
            if not self._documents():
                for name in (REGISTRY_FILE, _LOCK):
                    (self.directory / name).unlink(missing_ok=True)
                with suppress(OSError):  # something of somebody else's is in it
                    self.directory.rmdir()

    def _documents(self) -> tuple[LiveRegistry, ...]:
        if not self.directory.is_dir():
            return ()
        found = [document for path in self.directory.iterdir() for document in self._document(path)]
        return tuple(sorted(found, key=lambda one: (one.sequence, one.updated_at, one.name), reverse=True))

    def _document(self, path: Path) -> Iterable[LiveRegistry]:
        form = re.fullmatch(rf"({re.escape(self.prefix)}_registry-[0-9a-z]+)\.([0-9]+)\.json", path.name)
        if form is None:
            return ()
        with suppress(FileNotFoundError):  # removed since the directory was listed
            written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            return (LiveRegistry(path.name, int(form[2]), form[1], int(form[2]), path.read_bytes(), written),)
        return ()

    def _shown(self) -> bytes | None:
        with suppress(FileNotFoundError):
            return (self.directory / REGISTRY_FILE).read_bytes()
        return None

    def _write(self, path: Path, data: bytes) -> None:
        passing = path.with_name(f".{path.name}{_PASSING}")
        with passing.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        passing.chmod(_EVERYBODY_READS)
        passing.rename(path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other operators of this owner out: the engine's own versions are missing here."""
        with refusals(_WHAT), locked(self.directory / _LOCK):
            yield
