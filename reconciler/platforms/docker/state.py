"""From the containers of one service to what the plan reads. Pure.

A service has one container, and while it is being replaced two. The newest is the service as it was last asked for;
the older one serves until the newest is well. What is left to be done shows as a difference from the wanted spec
(``unexpected``), so that the plan asks for an update for as long as anything is left: nothing has to be remembered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from reconciler.domain.services import LiveService, ServiceSpec
from reconciler.platforms.answers import moment
from reconciler.platforms.docker.spec import SERVICE, Shelf, from_engine, side_by_side
from reconciler.platforms.protocol import INSTALLATION, OWNER

#: Ends the passing name of a container that replaces another one; no service's name has a dot.
NEXT = ".next"
#: What joins the ids of a service's containers in the id of the service.
AND = "+"

Raw = Mapping[str, Any]


class Fault(StrEnum):
    """What an update repairs without a new container; the last is what `docker_spec` calls it."""

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
        proved: the newest is well and has been for long enough to take the place of an older one.
    """

    all: tuple[Raw, ...]
    proved: bool = True

    @property
    def newest(self) -> Raw:
        """The service as it was last asked for."""
        return self.all[-1]

    @property
    def older(self) -> tuple[Raw, ...]:
        """What serves until the newest is well."""
        return self.all[:-1]

    @property
    def service(self) -> str:
        """The service's name."""
        return str(self.newest["Config"]["Labels"][SERVICE])

    @property
    def id(self) -> str:
        """The ids of all of them."""
        return AND.join(raw["Id"] for raw in self.all)

    @property
    def version(self) -> int:
        """A number that is another one as soon as anything is that an update depends on."""
        said = [
            [raw["Id"], raw["Name"], raw["State"]["Status"], raw["HostConfig"], raw["NetworkSettings"]["Networks"]]
            for raw in self.all
        ]  # fmt: skip - one container a line
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
        return int.from_bytes(digest.digest()[:6])


def by_service(raws: Iterable[Raw], now: datetime, monitor: float) -> Mapping[str, Containers]:
    """Sort containers of ours into services, by the services' names; one that is on its way out is none any more.

    Neither is one that has all our labels under a name of its own (see `copies`).

    Args:
        raws: the containers, in any order.
        now: the present time.
        monitor: seconds that a container without a healthcheck has to run before an older one is removed for it.
    """
    found: dict[str, list[Raw]] = {}
    for raw in sorted(raws, key=lambda one: moment(one["Created"])):
        if raw["State"]["Status"] != "removing" and _is_named(raw):
            found.setdefault(raw["Config"]["Labels"][SERVICE], []).append(raw)
    return {
        name: Containers(tuple(group), proved=is_well(group[-1]) and _has_proved_itself(group[-1], now, monitor))
        for name, group in found.items()
    }


def copies(raws: Iterable[Raw], images: Mapping[str, Raw | None], shelf: Shelf) -> list[LiveService]:
    """Read the containers that have our labels and another name than their service's: a person's, and only shown."""
    return [
        LiveService(
            id=raw["Id"],
            version=0,
            name=name_of(raw),
            owner=raw["Config"]["Labels"].get(OWNER),
            spec=from_engine(raw, images[raw["Image"]], shelf),
            running=int(is_well(raw)),
        )
        for raw in raws
        if raw["State"]["Status"] != "removing" and not _is_named(raw)
    ]


def _is_named(raw: Raw) -> bool:
    """Whether a container is called as its label says, or has the passing name of its replacement."""
    service = raw["Config"]["Labels"][SERVICE]
    return name_of(raw) in (service, f"{service}{NEXT}")


def live_service(containers: Containers, images: Mapping[str, Raw | None], shelf: Shelf) -> LiveService:
    """Read one service of ours; a container that has yet to prove itself beside an older one does not count as running.

    Args:
        containers: all that the service has.
        images: every image that they were made from, by id; None for one that is gone.
        shelf: where the registry is, and which document is current.
    """
    newest = containers.newest
    spec = spec_of(containers, images, shelf)
    running = containers.proved if containers.older else is_well(newest)
    return LiveService(
        id=containers.id,
        version=containers.version,
        name=containers.service,
        owner=newest["Config"]["Labels"].get(OWNER),
        spec=spec,
        running=int(running),
        update_state="updating" if containers.older else "",
        error="" if running else trouble(newest),
        installation=newest["Config"]["Labels"].get(INSTALLATION, ""),
        waits="" if running else waits(newest),
        since=None if running else last_move(newest),
    )


def spec_of(containers: Containers, images: Mapping[str, Raw | None], shelf: Shelf) -> ServiceSpec | None:
    """Read the spec of the newest container, with what is left to be done about it."""
    newest = containers.newest
    spec = from_engine(newest, images[newest["Image"]], shelf)
    if spec is None:
        return None
    found = faults(containers, beside=side_by_side(spec))
    return replace(spec, unexpected=tuple(sorted({*spec.unexpected, *(fault.value for fault in found)})))


def faults(containers: Containers, *, beside: bool) -> frozenset[Fault]:
    """Return what an update has to repair; ``beside`` says whether an older container serves meanwhile."""
    newest, status = containers.newest, containers.newest["State"]["Status"]
    found = set()
    if status in ("created", "exited"):
        found.add(Fault.STOPPED)
    if status == "paused":
        found.add(Fault.PAUSED)
    if not containers.older:
        return frozenset(found | ({Fault.RENAMED} if name_of(newest) != containers.service else set()))
    # Unhealthy counts: after a start of the engine everything is for a moment, and the newest may never get well.
    served = any(raw["State"]["Status"] in ("running", "restarting") for raw in containers.older)
    if not (served and beside) or containers.proved:
        found.add(Fault.REPLACED)
    return frozenset(found)


def is_well(raw: Raw) -> bool:
    """Whether a container runs, and is healthy where it can tell."""
    return raw["State"]["Status"] == "running" and _health(raw) in ("none", "healthy")


def trouble(raw: Raw) -> str:
    """Return why a container does not run, in its own words where there are any."""
    state = raw["State"]
    health = state.get("Health") or {}
    if state.get("Error"):
        return str(state["Error"])
    if state["Status"] in ("restarting", "exited") and state.get("ExitCode"):
        return f"exited with code {state['ExitCode']}, started again {raw.get('RestartCount', 0)} times"
    if health.get("Status") == "unhealthy":
        said: Sequence[Raw] = health.get("Log") or ({},)
        return f"unhealthy: {str(said[-1].get('Output', '')).strip() or 'the healthcheck fails'}"
    return ""


def waits(raw: Raw) -> str:
    """Return what a container without an error waits for."""
    state = "starting" if _health(raw) == "starting" else raw["State"]["Status"]
    return f"1 task in state {state}"


def last_move(raw: Raw) -> datetime:
    """Return when a container was started last; one that never was says year 1."""
    return max(moment(raw["State"]["StartedAt"]), moment(raw["Created"]))


def name_of(raw: Raw) -> str:
    """Return a container's name, without the slash that the engine puts before it."""
    return str(raw["Name"]).removeprefix("/")


def foreign(raw: Raw) -> LiveService:
    """Read a container of somebody else (a row of the list) whose name is one that is reserved for us."""
    name = str(raw["Names"][0]).removeprefix("/")
    return LiveService(raw["Id"], 0, name, (raw.get("Labels") or {}).get(OWNER), None, 0)


def _health(raw: Raw) -> str:
    return str((raw["State"].get("Health") or {}).get("Status", "none"))


def _has_proved_itself(raw: Raw, now: datetime, monitor: float) -> bool:
    """Whether a container is healthy by its own word, or has run for a while; a clock that differs proves nothing."""
    if _health(raw) != "none":
        return True
    ran = (now - moment(raw["State"]["StartedAt"]).astimezone(UTC)).total_seconds()
    return ran >= monitor or ran < 0
