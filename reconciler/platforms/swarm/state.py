"""From the engine's lists to what the plan reads. Pure."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from reconciler.domain.services import LiveRegistry, LiveService, Record
from reconciler.platforms.answers import moment
from reconciler.platforms.protocol import INSTALLATION, KIND, OWNER
from reconciler.platforms.swarm.spec import from_engine

#: Which publication a registry document is.
SEQUENCE = "org.openfactory.sequence"
#: The kind of a config that holds a registry document.
REGISTRY_KIND = "registry"
#: The kind of a config whose labels are a record; the part of their names before the field's.
RECORD_KIND = "record"
RECORD_FIELD = "org.openfactory.record."

Raw = Mapping[str, Any]
#: Tasks by the id of their service.
Tasks = Mapping[str, Sequence[Raw]]

#: What a task should be that is not meant to end.
_WANTED = frozenset({"ready", "running"})
#: The states of a task before it runs, in their order.
_ON_THE_WAY = ("new", "allocated", "pending", "assigned", "accepted", "preparing", "ready", "starting")
#: So many tasks that ended with success are no accident; one may have been told to end.
_ENDS = 2
_UNFINISHED = frozenset({"updating", "paused", "rollback_started", "rollback_paused"})
_DOCUMENT = re.compile(r".+_registry-[0-9a-z]+")
#: A number that an operator may have written; a longer one, which Python would refuse to read, is no number of ours.
_NUMBER = re.compile(r"[0-9]{1,18}")


def is_relevant(raw: Raw, owner: str, prefix: str) -> bool:
    """Tell whether a service has our label, or a name that is reserved for us."""
    return bool(_labels(raw).get(OWNER) == owner or raw["Spec"]["Name"].lower().startswith(f"{prefix.lower()}_"))


def live_service(raw: Raw, owner: str, networks: Mapping[str, str], tasks: Tasks | None) -> LiveService:
    """Read one service of a list with status; only our own have a spec."""
    holder = _labels(raw).get(OWNER)
    own = tasks.get(raw["ID"], ()) if tasks and holder == owner else ()
    running = counted(raw) - miscounted(own)
    rests = tasks is None or (running == _wanted(raw) and not _unfinished(raw))
    return LiveService(
        id=raw["ID"],
        version=raw["Version"]["Index"],
        name=raw["Spec"]["Name"],
        owner=holder,
        spec=from_engine(raw["Spec"], networks) if holder == owner else None,
        running=running,
        update_state=_update(raw).get("State", ""),
        error="" if rests or running > _wanted(raw) else trouble(raw, own),
        updated_at=moment(raw["UpdatedAt"]) if raw.get("UpdatedAt") else None,
        waits="" if rests else waits(own),
        since=None if rests else last_move(raw, own),
        installation=_labels(raw).get(INSTALLATION, ""),
    )


def by_service(tasks: Iterable[Raw]) -> Tasks:
    """Sort tasks by their service's id."""
    found: dict[str, list[Raw]] = {}
    for task in tasks:
        found.setdefault(task["ServiceID"], []).append(task)
    return found


def miscounted(tasks: Iterable[Raw]) -> int:
    """Count the tasks that are shown as running and should not be any more.

    On a node that is down they do not run, but until it comes back or is removed the engine goes on counting them
    (measured); elsewhere they are about to end.
    """
    return sum(task["Status"]["State"] == "running" != task["DesiredState"] for task in tasks)


def counted(raw: Raw) -> int:
    """Return how many tasks of a service the engine counts as running."""
    return int((raw.get("ServiceStatus") or {}).get("RunningTasks", 0))


def networks_of(tasks: Iterable[Raw]) -> Mapping[str, str]:
    """Return the names of the networks that tasks are in, by id."""
    joined = (one["Network"] for task in tasks for one in task.get("NetworksAttachments") or ())
    return {network["ID"]: network["Spec"]["Name"] for network in joined}


def is_down(node: Raw) -> bool:
    """Tell whether the Swarm has given a node up, and its tasks with it."""
    return bool(node["Status"]["State"] == "down")


def in_trouble(raw: Raw) -> bool:
    """Tell whether tasks are missing or too many, or an update is not through, so that its tasks are worth a look."""
    return counted(raw) != _wanted(raw) or _unfinished(raw)


def trouble(raw: Raw, tasks: Iterable[Raw]) -> str:
    """Return why tasks of the service do not run, in the engine's own words; ``tasks`` are the service's.

    The newest error of a task with the present template counts, whatever became of the tasks before it; a paused
    update without one says itself why.
    """
    own = list(tasks)
    present = [task for task in own if _template(task["Spec"]) == _template(raw["Spec"]["TaskTemplate"])]
    update = _update(raw)
    if update.get("State", "") == "updating":  # back to a template of before, tasks of then are not of this update
        began = update.get("StartedAt")
        present = [task for task in present if not began or _created(task) >= moment(began)]
    elif not present:
        present = own
    failed = [task for task in present if task["Status"].get("Err")]
    if failed:
        return str(max(failed, key=_created)["Status"]["Err"])
    if sum(task["Status"]["State"] == "complete" for task in present) >= _ENDS:
        return "its tasks end by themselves, with exit code 0: a service must not end"
    return update.get("Message", "") if "paused" in update.get("State", "") else ""


def waits(tasks: Iterable[Raw]) -> str:
    """Return in which states tasks are that should run and do not: ``1 task in state new``."""
    states = Counter(task["Status"]["State"] for task in tasks if task["DesiredState"] in _WANTED)
    shown = [(state, states[state]) for state in _ON_THE_WAY if states[state]]
    return ", ".join(f"{number} {'task' if number == 1 else 'tasks'} in state {state}" for state, number in shown)


def last_move(raw: Raw, tasks: Iterable[Raw]) -> datetime | None:
    """Return when the service was changed or, if later, one of its tasks that should run came to its state."""
    times = [raw.get("UpdatedAt"), _update(raw).get("StartedAt")]
    for task in tasks:
        if task["DesiredState"] in _WANTED:
            times += [task["CreatedAt"], task["Status"].get("Timestamp")]
    return max((moment(time) for time in times if time), default=None)


def live_registry(raw: Raw, mounted: frozenset[str]) -> LiveRegistry:
    """Read one of our configs; ``mounted`` has the ids that current service specs refer to."""
    return LiveRegistry(
        id=raw["ID"],
        version=raw["Version"]["Index"],
        name=raw["Spec"]["Name"],
        sequence=sequence_of(raw),
        data=base64.b64decode(raw["Spec"].get("Data") or "", validate=True),
        updated_at=moment(raw["UpdatedAt"]),
        mounted=raw["ID"] in mounted,
    )


def is_of_kind(raw: Raw, kind: str) -> bool:
    """Tell whether one of our configs is for this."""
    return _labels(raw).get(KIND) == kind


def is_registry(raw: Raw) -> bool:
    """Tell whether one of our configs is a registry document: by its kind and by the form of its name.

    Of whatever prefix: what an earlier `RESOURCE_PREFIX` published says which cluster it was published for.
    """
    return is_of_kind(raw, REGISTRY_KIND) and _DOCUMENT.fullmatch(raw["Spec"]["Name"]) is not None


def live_record(raw: Raw, prefix: str) -> Record:
    """Read a record from a config's labels.

    Which installation this is does not change with `RESOURCE_PREFIX`, so that record is found under any.
    """
    fields = {
        label.removeprefix(RECORD_FIELD): text for label, text in _labels(raw).items() if label.startswith(RECORD_FIELD)
    }
    name = raw["Spec"]["Name"]
    short = "installation" if name.endswith("_installation") else name.removeprefix(f"{prefix}_")
    return Record(raw["ID"], raw["Version"]["Index"], short, fields)


def newest_first(registries: Iterable[LiveRegistry]) -> tuple[LiveRegistry, ...]:
    """Sort by publication; the time decides where two carry the same number."""
    return tuple(sorted(registries, key=lambda item: (item.sequence, item.updated_at, item.name), reverse=True))


def mounted_configs(services: Iterable[Raw]) -> frozenset[str]:
    """Return the ids of all configs that a current spec of any service refers to."""
    containers = (raw["Spec"]["TaskTemplate"].get("ContainerSpec") or {} for raw in services)
    return frozenset(config["ConfigID"] for item in containers for config in item.get("Configs") or ())


def sequence_of(raw: Raw) -> int:
    """Return the publication number of a config, 0 where its label is missing or no number."""
    text = _labels(raw).get(SEQUENCE, "")
    return int(text) if _NUMBER.fullmatch(text) else 0


def _template(spec: Raw) -> Raw:
    """Return what tasks and services show alike (measured: a task's spec lacks ``Runtime``)."""
    return {name: value for name, value in spec.items() if name != "Runtime"}


def _created(task: Raw) -> datetime:
    return moment(task["CreatedAt"])


def _labels(raw: Raw) -> Mapping[str, str]:
    return raw["Spec"].get("Labels") or {}


def _update(raw: Raw) -> Mapping[str, str]:
    return raw.get("UpdateStatus") or {}


def _unfinished(raw: Raw) -> bool:
    return _update(raw).get("State", "") in _UNFINISHED


def _wanted(raw: Raw) -> int:
    return int(((raw["Spec"].get("Mode") or {}).get("Replicated") or {}).get("Replicas", 0))
