"""A platform in memory, see `fakes`."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from openfactory_common.errors import PlatformConflict, PlatformRefused
from openfactory_common.registry import LIMIT_BYTES
from reconciler.domain.installation import Installation
from reconciler.domain.services import LiveRegistry, LiveService, PlatformState, Record, ServiceSpec, TaskEnd

#: The installation of a plant that is there already; one that begins has no records.
INSTALLATION = Installation("0fa0fa00")
RECORD = Record("installation", 1, "installation", {"id": INSTALLATION.id, "adopted": ""})
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class FakePlatform:
    """A platform in memory.

    Attributes:
        owner: whose platform this is.
        calls: how often each method was called.
        healthy: whether tasks of a service come up; by service name, default yes.
        fault: called with the name of each method before it acts; may raise.
        crashing: the error of each service, in lower case, whose tasks end right after each start: between two ends
            they look as they should, so only the tasks that are read of suspects show it.
        keeping: how many tasks the engine keeps of before, by the name of the service in lower case, until the service
            is written.
        ended: what `PlatformState.ended` says.
        strangers: names of configs that another party made.
    """

    owner: str = "ofa"
    prefix: str = "ofa"
    services: dict[str, LiveService] = field(default_factory=dict)
    registries: dict[str, LiveRegistry] = field(default_factory=dict)
    kept_records: dict[str, Record] = field(default_factory=lambda: {"installation": RECORD})
    strangers: frozenset[str] = frozenset()
    ended: tuple[TaskEnd, ...] = ()
    calls: Counter[str] = field(default_factory=Counter)
    healthy: Callable[[str], bool] = lambda _name: True
    crashing: Mapping[str, str] = field(default_factory=dict)
    keeping: dict[str, int] = field(default_factory=dict)
    fault: Callable[[str], None] = lambda _call: None
    clock: Callable[[], datetime] = lambda: NOW
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def writes(self) -> int:
        """How many writes were asked for; the operators' own notes are none."""
        return sum(count for call, count in self.calls.items() if call != "observe" and "record" not in call)

    def clone(self) -> FakePlatform:
        """Return one that goes its own way from here; what it holds are values."""
        return replace(
            self,
            services=dict(self.services),
            keeping=dict(self.keeping),
            registries=dict(self.registries),
            kept_records=dict(self.kept_records),
            calls=Counter(self.calls),
            _ids=copy.copy(self._ids),
        )

    def observe(self, suspects: Collection[str] = ()) -> PlatformState:
        """Read everything; a task that can run does."""
        self._call("observe")
        mounted = self._mounted()
        live = {
            name: self._running(
                service, self.keeping.get(name, 0) + (service.spec.replicas if self.healthy(service.name) else 0)
            )
            if service.spec
            else service
            for name, service in self.services.items()
            if service.owner == self.owner or name.startswith(f"{self.prefix}_")
        }
        live |= {
            name: replace(live[name], error=error)
            for name, error in self.crashing.items()
            if name in suspects and name in live
        }
        documents = [replace(one, mounted=one.name in mounted) for one in self.registries.values()]
        documents.sort(key=lambda one: -one.sequence)
        return PlatformState(live, tuple(documents), dict(self.kept_records), self.ended)

    def create_service(self, spec: ServiceSpec) -> None:
        """Create it; a taken name is a conflict."""
        self._call("create_service")
        if spec.name.casefold() in self.services:
            raise PlatformConflict(f"service {spec.name} exists")
        self._need_configs(spec)
        number, now = next(self._ids), self.clock()
        self.services[spec.name.casefold()] = LiveService(
            f"id{number}",
            number,
            spec.name,
            self.owner,
            spec,
            0,
            installation=spec.installation,
            since=now,
            updated_at=now,
        )

    def update_service(self, live: LiveService, spec: ServiceSpec, failed: str = "", failure: str = "") -> None:
        """Replace the spec, at the version that was read."""
        self._call("update_service")
        current = self.services.get(live.name.casefold())
        if current is None or current.version != live.version:
            raise PlatformConflict(f"service {live.name}: update out of sequence")
        self._need_configs(spec)
        now = self.clock()
        self.keeping.pop(live.name.casefold(), None)
        self.services[live.name.casefold()] = replace(
            current,
            version=next(self._ids),
            owner=self.owner,
            spec=spec,
            installation=spec.installation,
            since=now,
            updated_at=now,
            previous=current.spec,
            failed=failed,
            failure=failure,
        )

    def remove_service(self, live: LiveService) -> None:
        """Remove it by id."""
        self._call("remove_service")
        for name, service in list(self.services.items()):
            if service.id == live.id:
                del self.services[name]

    def publish_registry(self, data: bytes, revision: str, sequence: int) -> None:
        """Create or renew a document; a name stands for its content."""
        self._call("publish_registry")
        name = f"{self.prefix}_registry-{revision}"
        if name in self.strangers:
            raise PlatformRefused(f"config {name} exists without our labels, not touched")
        if len(data) > LIMIT_BYTES:
            raise PlatformRefused(f"config {name} is too large")
        there = self.registries.get(name)
        if there is not None and there.data != data:
            raise PlatformRefused(f"config {name} exists with other content, not touched")
        if there is None or there.sequence != sequence:
            self.registries[name] = LiveRegistry(name, next(self._ids), name, sequence, data, self.clock())

    def remove_registry(self, registry: LiveRegistry) -> None:
        """Remove a document that nothing mounts."""
        self._call("remove_registry")
        if registry.name in self._mounted():
            raise PlatformRefused(f"config {registry.name} is in use")
        self.registries.pop(registry.name, None)

    def records(self) -> Mapping[str, Record]:
        """Read what operators agree on."""
        self._call("records")
        return dict(self.kept_records)

    def write_record(self, name: str, fields: Mapping[str, str], before: Record | None) -> None:
        """Write it, if it is as it was read."""
        self._call("write_record")
        current = self.kept_records.get(name)
        if (current.version if current else None) != (before.version if before else None):
            raise PlatformConflict(f"record {name}: update out of sequence")
        self.kept_records[name] = Record(name, next(self._ids), name, dict(fields))

    def remove_record(self, record: Record) -> None:
        """Remove it."""
        self._call("remove_record")
        self.kept_records.pop(record.name, None)

    def close(self) -> None:
        """Nothing to release."""

    def touch(self, name: str, **changes: object) -> None:
        """Change a live spec by hand, as a user with the engine's own command would."""
        live = self.services[name.casefold()]
        assert live.spec is not None
        self.services[name.casefold()] = replace(live, version=next(self._ids), spec=replace(live.spec, **changes))  # type: ignore[arg-type]

    def _running(self, service: LiveService, tasks: int) -> LiveService:
        """Show how many tasks run; where that is as it should be, nothing is waited for."""
        there = service.spec is not None and tasks == service.spec.replicas
        return replace(service, running=tasks, since=None if there else service.since)

    def _mounted(self) -> set[str]:
        return {mount.name for live in self.services.values() if live.spec for mount in live.spec.configs}

    def _need_configs(self, spec: ServiceSpec) -> None:
        for mount in spec.configs:
            if mount.name not in self.registries:
                raise PlatformConflict(f"config {mount.name} is not there")

    def _call(self, name: str) -> None:
        self.calls[name] += 1
        self.fault(name)
