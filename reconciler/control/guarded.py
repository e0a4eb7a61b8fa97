"""Adapters that intercept writes: a dry run records them, an operator with a lease does them only while it holds it.

The logic never asks whether it may write. The check stands directly before each request that changes something, so an
action of several writes is stopped between them too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from reconciler.control.observe import Dependencies
from reconciler.domain.installation import RECORD as INSTALLATION
from reconciler.platforms.protocol import Checkable, Reference

#: A context in which one write is done; entering it raises `openfactory_common.errors.LeaseLost` where it may not be.
Writing = Callable[[], AbstractContextManager[None]]
#: The methods of `Ksqldb` and `Platform` that write, with what a dry run says of them. Everything else reads.
WRITES: Mapping[str, Callable[..., str]] = {
    "execute": lambda statement: str(statement.sql),
    "create_service": lambda spec: f"create service {spec.name}",
    "update_service": lambda live, spec, *_marks: f"update service {live.name} to {spec.image}",
    "remove_service": lambda live: f"remove service {live.name}",
    "publish_registry": lambda data, revision, sequence: (
        f"publish registry {revision} ({len(data)} bytes) as number {sequence}"
    ),
    "remove_registry": lambda registry: f"remove config {registry.name}",
    "write_record": lambda name, _fields, _before: f"write record {name}",
    "remove_record": lambda record: f"remove record {record.name}",
}


@dataclass
class DryRunLog:
    """The writes that would have been done, in order."""

    writes: list[str] = field(default_factory=list)


def withhold_writes(deps: Dependencies, log: DryRunLog) -> Dependencies:
    """Return dependencies that read the same; a write to them is recorded in ``log`` and not done."""

    def write(name: str, _method: Callable[..., object], *args: object) -> None:
        log.writes.append(WRITES[name](*args))

    return replace(deps, ksqldb=_Guarded(deps.ksqldb, write), platform=_Guarded(deps.platform, write))


def guard_by_lease(deps: Dependencies, writing: Writing) -> Dependencies:
    """Return the same dependencies; a write to them is done within ``writing``.

    The lease and the pause are records, so records are written without it, except the one that says which installation
    this is.
    """

    def write(name: str, method: Callable[..., object], *args: object) -> object:
        free = name == "remove_record" or (name == "write_record" and args[0] != INSTALLATION)
        with nullcontext() if free else writing():
            return method(*args)

    return replace(deps, ksqldb=_Guarded(deps.ksqldb, write), platform=_Guarded(deps.platform, write))


def guard_writes(inner: Any, names: Collection[str], writing: Writing) -> Any:
    """Return an adapter that does the same; its methods of these names are called within ``writing``."""

    def write(_name: str, method: Callable[..., object], *args: object) -> object:
        with writing():
            return method(*args)

    return _Guarded(inner, write, names)


class _Guarded:
    """An adapter whose writes, the methods ``names``, become calls of ``write``: name, method, arguments."""

    def __init__(self, inner: Any, write: Callable[..., object], names: Collection[str] = WRITES) -> None:
        """Read from ``inner``."""
        self._inner = inner
        self._write = write
        self._names = names

    def __getattr__(self, name: str) -> Any:
        """Pass reads through."""
        found = getattr(self._inner, name)
        return partial(self._write, name, found) if name in self._names else found

    def missing_references(self, kind: Reference, names: Collection[str]) -> Mapping[str, str]:
        """Pass the question on, where the platform can answer it (`Checkable` looks for methods of the class)."""
        return self._inner.missing_references(kind, names) if isinstance(self._inner, Checkable) else {}
