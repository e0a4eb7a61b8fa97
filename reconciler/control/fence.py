"""Adapters that write only while the lease is held: the check stands directly before each request that changes.

As with the read-only ones, the logic never asks: an action of several writes, or one that looks before it leaps, is
stopped between them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from reconciler.control.controller import Dependencies
from reconciler.domain.installation import NAME as INSTALLATION
from reconciler.domain.services import LiveRegistry, LiveService, PlatformState, Record, ServiceSpec
from reconciler.ksqldb.api import Ksqldb
from reconciler.ksqldb.entities import Statement
from reconciler.platforms.protocol import Platform

#: Enclosed in it, one write is done; raises `openfactory_common.errors.LeaseLost` instead.
Writing = Callable[[], AbstractContextManager[None]]


def guard_by_lease(world: Dependencies, writing: Writing) -> Dependencies:
    """Return the same world behind the fence."""
    return replace(
        world, ksqldb=LeaseGuardedKsqldb(world.ksqldb, writing), platform=LeaseGuardedPlatform(world.platform, writing)
    )


class LeaseGuardedKsqldb:
    """A ksqlDB that gets statements only while the lease is held; reads pass through."""

    def __init__(self, inner: Ksqldb, writing: Writing) -> None:
        """Ask ``writing`` before each statement."""
        self._inner = inner
        self._writing = writing

    def __getattr__(self, name: str) -> Any:
        """Pass every read through."""
        return getattr(self._inner, name)

    def execute(self, statement: Statement) -> None:
        """Send it."""
        with self._writing():
            self._inner.execute(statement)


class LeaseGuardedPlatform:
    """A platform that is written to only while the lease is held; records are what the lease itself is made of."""

    def __init__(self, inner: Platform, writing: Writing) -> None:
        """Ask ``writing`` before each write."""
        self._inner = inner
        self._writing = writing

    def observe(self) -> PlatformState:
        """Read everything."""
        return self._inner.observe()

    def create_service(self, spec: ServiceSpec) -> None:
        """Create it."""
        with self._writing():
            self._inner.create_service(spec)

    def update_service(self, live: LiveService, spec: ServiceSpec) -> None:
        """Update it."""
        with self._writing():
            self._inner.update_service(live, spec)

    def remove_service(self, live: LiveService) -> None:
        """Remove it."""
        with self._writing():
            self._inner.remove_service(live)

    def publish_registry(self, data: bytes, revision: str, sequence: int) -> None:
        """Publish it."""
        with self._writing():
            self._inner.publish_registry(data, revision, sequence)

    def remove_registry(self, registry: LiveRegistry) -> None:
        """Remove it."""
        with self._writing():
            self._inner.remove_registry(registry)

    def records(self) -> Mapping[str, Record]:
        """Read them all."""
        return self._inner.records()

    def write_record(self, name: str, fields: Mapping[str, str], before: Record | None) -> None:
        """Write it; which installation this is, only the holder of the lease says."""
        with self._writing() if name == INSTALLATION else nullcontext():
            self._inner.write_record(name, fields, before)

    def remove_record(self, record: Record) -> None:
        """Remove it."""
        self._inner.remove_record(record)

    def close(self) -> None:
        """Release connections."""
        self._inner.close()
