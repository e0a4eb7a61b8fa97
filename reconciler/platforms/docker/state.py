"""From the containers of one service to what the plan reads. Pure.

A service has one container, and two while it is being replaced. The newest has the spec that was applied last; the
older one serves until the newest is healthy. An unfinished replacement is a difference from the desired spec
(``unexpected``), so that the plan updates the service until it is finished: no state is stored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from reconciler.domain.services import LiveService, ServiceSpec, TaskEnd
from reconciler.platforms.answers import parse_time
from reconciler.platforms.docker.spec import SERVICE, RegistryLocation, can_run_beside, from_engine, read_previous
from reconciler.platforms.protocol import FAILED, FAILURE, INSTALLATION, OWNER, STEADY_AFTER

#: Suffix of the temporary name of a container that replaces another one; no service's name has a dot.
NEXT = ".next"
#: Joins the ids of a service's containers in the id of the service.
ID_SEPARATOR = "+"

Raw = Mapping[str, Any]


class Fault(StrEnum):
    """What an update repairs without a new container; `spec.from_engine` finds the last."""

    STOPPED = "stopped"
    PAUSED = "paused"
    RENAMED = "renamed"
    REPLACED = "replaced"
    RESTART_POLICY = "restart_policy"


@dataclass(frozen=True)
class Containers:
    """The containers of one service of ours, oldest first; never empty.

    Attributes:
        all: as the engine shows them.
        proved: the newest is healthy and has been for long enough to replace an older one.
    """

    all: tuple[Raw, ...]
    proved: bool = True

    @property
    def newest(self) -> Raw:
        """The container with the spec that was applied last."""
        return self.all[-1]

    @property
    def older(self) -> tuple[Raw, ...]:
        """The containers that serve until the newest is healthy."""
        return self.all[:-1]

    @property
    def service(self) -> str:
        """The service's name."""
        return str(self.newest["Config"]["Labels"][SERVICE])

    @property
    def version(self) -> int:
        """A number that changes with everything that an update depends on."""
        state = [
            [raw["Id"], raw["Name"], raw["State"]["Status"], raw["HostConfig"], raw["NetworkSettings"]["Networks"]]
            for raw in self.all
        ]  # fmt: skip - one container a line
        digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode())
        return int.from_bytes(digest.digest()[:6])


def group_by_service(raws: Iterable[Raw], now: datetime, monitor: float) -> Mapping[str, Containers]:
    """Group containers of ours by the name of their service, without those that are being removed.

    A container that has all our labels and a name of its own is not in a service (see `read_copies`).

    Args:
        raws: the containers, in any order.
        now: the present time.
        monitor: seconds that a container without a healthcheck has to run before an older one is removed for it.
    """
    found: dict[str, list[Raw]] = {}
    for raw in sorted(raws, key=lambda one: parse_time(one["Created"])):
        if raw["State"]["Status"] != "removing" and _has_expected_name(raw):
            found.setdefault(raw["Config"]["Labels"][SERVICE], []).append(raw)
    return {
        name: Containers(tuple(group), proved=is_healthy(group[-1]) and _is_proved(group[-1], now, monitor))
        for name, group in found.items()
    }


def read_copies(raws: Iterable[Raw], images: Mapping[str, Raw | None], registry: RegistryLocation) -> list[LiveService]:
    """Read the containers that have our labels and not their service's name: copies of a person, only shown."""
    return [
        LiveService(
            id=raw["Id"],
            version=0,
            name=name_of(raw),
            owner=raw["Config"]["Labels"].get(OWNER),
            spec=from_engine(raw, images[raw["Image"]], registry),
            running=int(is_healthy(raw)),
        )
        for raw in raws
        if raw["State"]["Status"] != "removing" and not _has_expected_name(raw)
    ]


def _has_expected_name(raw: Raw) -> bool:
    """Whether a container has the name of its label, or the temporary name of a replacement."""
    service = raw["Config"]["Labels"][SERVICE]
    return name_of(raw) in (service, f"{service}{NEXT}")


def read_service(
    containers: Containers, images: Mapping[str, Raw | None], registry: RegistryLocation, now: datetime
) -> LiveService:
    """Read one service of ours; a container that is not proved yet beside an older one does not count as running.

    Args:
        containers: all that the service has.
        images: every image that they were made from, by id; None for one that is gone.
        registry: where it is, and which document is current.
        now: the present time.
    """
    newest = containers.newest
    labels = newest["Config"]["Labels"]
    spec = read_spec(containers, images, registry)
    running = containers.proved if containers.older else is_healthy(newest)
    state = "starting" if _health(newest) == "starting" else newest["State"]["Status"]
    # The engine reports year 1 for a container that never started.
    last_start = max(parse_time(newest["State"]["StartedAt"]), parse_time(newest["Created"]))
    return LiveService(
        id=ID_SEPARATOR.join(raw["Id"] for raw in containers.all),
        version=containers.version,
        name=containers.service,
        owner=labels.get(OWNER),
        spec=spec,
        running=int(running),
        update_state="updating" if containers.older else "",
        error=_find_crash(newest, now) if running else find_error(newest),
        installation=labels.get(INSTALLATION, ""),
        previous=read_previous(newest),
        failed=labels.get(FAILED, ""),
        failure=labels.get(FAILURE, ""),
        updated_at=parse_time(newest["Created"]),
        waits="" if running else f"1 task in state {state}",
        since=None if running else last_start,
    )


def read_spec(
    containers: Containers, images: Mapping[str, Raw | None], registry: RegistryLocation
) -> ServiceSpec | None:
    """Read the spec of the newest container, with the faults that an update repairs."""
    newest = containers.newest
    spec = from_engine(newest, images[newest["Image"]], registry)
    if spec is None:
        return None
    found = _find_faults(containers, beside=can_run_beside(spec))
    return replace(spec, unexpected=tuple(sorted({*spec.unexpected, *(fault.value for fault in found)})))


def _find_faults(containers: Containers, *, beside: bool) -> frozenset[Fault]:
    """Return what an update must repair; ``beside`` says whether an older container serves meanwhile."""
    newest, status = containers.newest, containers.newest["State"]["Status"]
    found = set()
    if status in ("created", "exited"):
        found.add(Fault.STOPPED)
    if status == "paused":
        found.add(Fault.PAUSED)
    if not containers.older:
        return frozenset(found | ({Fault.RENAMED} if name_of(newest) != containers.service else set()))
    # Unhealthy counts: after a start of the engine everything is for a moment, and the newest may stay so for ever.
    served = any(raw["State"]["Status"] in ("running", "restarting") for raw in containers.older)
    if not (served and beside) or containers.proved:
        found.add(Fault.REPLACED)
    return frozenset(found)


def is_healthy(raw: Raw) -> bool:
    """Whether a container runs, and is healthy where it has a healthcheck."""
    return raw["State"]["Status"] == "running" and _health(raw) in ("none", "healthy")


def find_error(raw: Raw) -> str:
    """Return why a container does not run, in its own words where there are any."""
    state = raw["State"]
    health = state.get("Health") or {}
    if state.get("Error"):
        return str(state["Error"])
    if state["Status"] in ("restarting", "exited") and state.get("ExitCode"):
        return f"exited with code {state['ExitCode']}, restarted {raw.get('RestartCount', 0)} times"
    if health.get("Status") == "unhealthy":
        log: Sequence[Raw] = health.get("Log") or ({},)
        return f"unhealthy: {str(log[-1].get('Output', '')).strip() or 'the healthcheck fails'}"
    return ""


def _find_crash(raw: Raw, now: datetime) -> str:
    """Return that a container which runs may end as it did before: it was restarted, and only just."""
    restarts, age = raw.get("RestartCount", 0), (now - parse_time(raw["State"]["StartedAt"])).total_seconds()
    return f"its program ended, restarted {restarts} times" if restarts and 0 <= age < STEADY_AFTER else ""


def find_ends(groups: Iterable[Containers]) -> tuple[TaskEnd, ...]:
    """Return the last end of each container that the engine has started again, oldest first."""
    found = [
        TaskEnd(
            id=f"{raw['Id']} {raw['RestartCount']}",
            service=one.service,
            task=name_of(raw),
            at=parse_time(raw["State"]["StartedAt"]),
            reason=find_error(raw) or f"its program ended, restarted {raw['RestartCount']} times",
        )
        for one in groups
        for raw in one.all
        if raw.get("RestartCount")
    ]
    return tuple(sorted(found, key=lambda end: end.at))


def name_of(raw: Raw) -> str:
    """Return a container's name, without the slash that the engine puts before it."""
    return str(raw["Name"]).removeprefix("/")


def read_foreign(raw: Raw) -> LiveService:
    """Read a container of another owner (a row of the list) whose name is reserved for us."""
    name = str(raw["Names"][0]).removeprefix("/")
    return LiveService(raw["Id"], 0, name, (raw.get("Labels") or {}).get(OWNER), None, 0)


def _health(raw: Raw) -> str:
    return str((raw["State"].get("Health") or {}).get("Status", "none"))


def _is_proved(raw: Raw, now: datetime, monitor: float) -> bool:
    """Whether a healthy container has a healthcheck, or has run for ``monitor`` seconds (or our clocks differ)."""
    if _health(raw) != "none":
        return True
    ran = (now - parse_time(raw["State"]["StartedAt"]).astimezone(UTC)).total_seconds()
    return ran >= monitor or ran < 0
