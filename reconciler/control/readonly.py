"""Adapters that read and never write: ``plan`` and ``--dry-run`` wrap the real ones in these.

The logic never asks whether it may write; a write that reaches one of these is recorded instead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.domain.services import LiveRegistry, LiveService, PlatformState, Record, ServiceSpec
from reconciler.ksqldb.api import Ksqldb
from reconciler.ksqldb.entities import Statement
from reconciler.platforms.protocol import Checkable, Platform, Reference


@dataclass
class DryRunLog:
    """The writes that would have been done, in order."""

    writes: list[str] = field(default_factory=list)


class DryRunKsqldb:
    """A ksqlDB whose statements are withheld; everything else passes through."""

    def __init__(self, inner: Ksqldb, withheld: DryRunLog) -> None:
        """Read from ``inner``; record statements in ``withheld``."""
        self._inner = inner
        self._withheld = withheld

    def __getattr__(self, name: str) -> Any:
        """Pass every read through."""
        return getattr(self._inner, name)

    def execute(self, statement: Statement) -> None:
        """Record the statement instead of sending it."""
        self._withheld.writes.append(statement.sql)


class DryRunPlatform:
    """A platform whose writes are withheld."""

    def __init__(self, inner: Platform, withheld: DryRunLog) -> None:
        """Read from ``inner``; record writes in ``withheld``."""
        self._inner = inner
        self._writes = withheld.writes

    def observe(self) -> PlatformState:
        """Read everything."""
        return self._inner.observe()

    def create_service(self, spec: ServiceSpec) -> None:
        """Record it."""
        self._writes.append(f"create service {spec.name}")

    def update_service(self, live: LiveService, spec: ServiceSpec) -> None:
        """Record it."""
        self._writes.append(f"update service {live.name} to {spec.image}")

    def remove_service(self, live: LiveService) -> None:
        """Record it."""
        self._writes.append(f"remove service {live.name}")

    def publish_registry(self, data: bytes, revision: str, sequence: int) -> None:
        """Record it."""
        self._writes.append(f"publish registry {revision} ({len(data)} bytes) as number {sequence}")

    def remove_registry(self, registry: LiveRegistry) -> None:
        """Record it."""
        self._writes.append(f"remove config {registry.name}")

    def records(self) -> Mapping[str, Record]:
        """Read them all."""
        return self._inner.records()

    def write_record(self, name: str, fields: Mapping[str, str], before: Record | None) -> None:  # noqa: ARG002 - as the port has it
        """Record it."""
        self._writes.append(f"write record {name}")

    def remove_record(self, record: Record) -> None:
        """Record it."""
        self._writes.append(f"remove record {record.name}")

    def missing_references(self, kind: Reference, names: Collection[str]) -> Mapping[str, str]:
        """Ask, where the platform can tell."""
        return self._inner.missing_references(kind, names) if isinstance(self._inner, Checkable) else {}

    def close(self) -> None:
        """Release connections."""
        self._inner.close()
