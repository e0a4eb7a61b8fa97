"""From the engine's lists to what the plan reads. Pure."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from reconciler.domain.services import LiveRegistry, LiveService, Record, TaskEnd
from reconciler.platforms.answers import parse_time
from reconciler.platforms.protocol import FAILED, FAILURE, INSTALLATION, KIND, OWNER, STEADY_AFTER
from reconciler.platforms.swarm.spec import from_engine

#: The publication number of a registry document.
SEQUENCE = "org.openfactory.sequence"
#: The kind of a config that is a registry document.
REGISTRY_KIND = "registry"
#: The kind of a config whose labels are a record, and the prefix of the labels that are its fields.
RECORD_KIND = "record"
RECORD_FIELD = "org.openfactory.record."

Raw = Mapping[str, Any]
#: Tasks by the id of their service.
Tasks = Mapping[str, Sequence[Raw]]

#: The desired states of a task that should run.
_SHOULD_RUN = frozenset({"ready", "running"})
#: The states of a task before it runs, in their order.
_BEFORE_RUNNING = ("new", "allocated", "pending", "assigned", "accepted", "preparing", "ready", "starting")
#: This many tasks that ended with success are no accident; one may have been stopped.
_ENDS = 2
#: The exit code of what got a SIGKILL; the engine does not say whether for lack of memory.
_KILLED = "non-zero exit (137)"
_UNFINISHED_UPDATES = frozenset({"updating", "paused", "rollback_started", "rollback_paused"})
_DOCUMENT = re.compile(r".+_registry-[0-9a-z]+")
#: A number that an operator may have written; a longer one, which Python would refuse to read, is not ours.
_NUMBER = re.compile(r"[0-9]{1,18}")


def labels_of(raw: Raw) -> Mapping[str, str]:
    """Return the labels of a service or config."""
    return raw["Spec"].get("Labels") or {}


def is_relevant(raw: Raw, owner: str, prefix: str) -> bool:
    """Tell whether a service has our label, or a name that is reserved for us."""
    return labels_of(raw).get(OWNER) == owner or str(raw["Spec"]["Name"]).lower().startswith(f"{prefix.lower()}_")


def read_service(raw: Raw, owner: str, networks: Mapping[str, str], tasks: Tasks | None, now: datetime) -> LiveService:
    """Read one service of a list with status at the present time; only our own have a spec."""
    labels = labels_of(raw)
    is_ours = labels.get(OWNER) == owner
    own = tasks.get(raw["ID"], ()) if tasks and is_ours else ()
    running = _count_running(raw) - count_stale_tasks(own)
    settled = tasks is None or (running == _replicas(raw) and not _is_updating(raw))
    suspected = _find_last_ends(own, now) if settled else own
    error = find_error(raw, suspected) if running <= _replicas(raw) and (suspected or not settled) else ""
    return LiveService(
        id=raw["ID"],
        version=raw["Version"]["Index"],
        name=raw["Spec"]["Name"],
        owner=labels.get(OWNER),
        spec=from_engine(raw["Spec"], networks) if is_ours else None,
        running=running,
        update_state=_update_status(raw).get("State", ""),
        error=error,
        updated_at=parse_time(raw["UpdatedAt"]) if raw.get("UpdatedAt") else None,
        waits="" if settled else describe_waiting(own),
        since=None if settled else find_last_change(raw, own),
        installation=labels.get(INSTALLATION, ""),
        previous=from_engine(raw["PreviousSpec"], networks) if is_ours and raw.get("PreviousSpec") else None,
        failed=labels.get(FAILED, ""),
        failure=labels.get(FAILURE, ""),
    )


def _find_last_ends(tasks: Sequence[Raw], now: datetime) -> Sequence[Raw]:
    """Return the tasks that ended lately where one has just begun to run: it may be between two crashes."""

    def is_newer(task: Raw, seconds: float) -> bool:
        at = task["Status"].get("Timestamp")
        return bool(at) and abs((now - parse_time(at)).total_seconds()) < seconds  # clocks of other nodes may be ahead

    begins = any(
        task["Status"]["State"] == "running" == task["DesiredState"] and is_newer(task, STEADY_AFTER) for task in tasks
    )
    return [task for task in tasks if is_newer(task, 2 * STEADY_AFTER)] if begins else ()


def group_by_service(tasks: Iterable[Raw]) -> Tasks:
    """Group tasks by their service's id."""
    found: dict[str, list[Raw]] = {}
    for task in tasks:
        found.setdefault(task["ServiceID"], []).append(task)
    return found


def count_stale_tasks(tasks: Iterable[Raw]) -> int:
    """Count the tasks that are shown as running and should not run any more.

    On a node that is down they do not run, but until it comes back or is removed the engine continues to count them
    (measured); elsewhere they are about to end.
    """
    return sum(task["Status"]["State"] == "running" != task["DesiredState"] for task in tasks)


def network_names(tasks: Iterable[Raw]) -> Mapping[str, str]:
    """Return the names of the networks that tasks are in, by id."""
    joined = (one["Network"] for task in tasks for one in task.get("NetworksAttachments") or ())
    return {network["ID"]: network["Spec"]["Name"] for network in joined}


def needs_tasks(raw: Raw) -> bool:
    """Tell whether a service's tasks must be read: tasks are missing or too many, or an update is not finished."""
    return _count_running(raw) != _replicas(raw) or _is_updating(raw)


def find_error(raw: Raw, tasks: Iterable[Raw]) -> str:
    """Return why tasks of the service do not run, in the engine's own words; ``tasks`` are the service's.

    The newest error of a task with the present template counts, whatever happened to the tasks before it; a paused
    update without such an error has its own message.
    """
    own = list(tasks)
    present = [task for task in own if _comparable(task["Spec"]) == _comparable(raw["Spec"]["TaskTemplate"])]
    update = _update_status(raw)
    if update.get("State", "") == "updating":  # back to an earlier template, earlier tasks are not of this update
        began = update.get("StartedAt")
        present = [task for task in present if not began or parse_time(task["CreatedAt"]) >= parse_time(began)]
    elif not present:
        present = own
    failed = [task for task in present if task["Status"].get("Err") and not _is_history(task, present)]
    if failed:
        return str(max(failed, key=lambda task: parse_time(task["CreatedAt"]))["Status"]["Err"])
    if sum(task["Status"]["State"] == "complete" for task in present) >= _ENDS:
        return "its tasks end by themselves, with exit code 0: a service must not end"
    return update.get("Message", "") if "paused" in update.get("State", "") else ""


def _is_history(task: Raw, tasks: Iterable[Raw]) -> bool:
    """Whether another task in its place ran until the engine stopped it, later than this one failed."""
    failed = parse_time(task["Status"].get("Timestamp") or task["CreatedAt"])
    return any(
        one.get("Slot") == task.get("Slot")
        and one["Status"]["State"] == "shutdown"
        and not one["Status"].get("Err")
        and one["Status"].get("ContainerStatus", {}).get("ContainerID")
        and parse_time(one["Status"].get("Timestamp") or one["CreatedAt"]) > failed
        for one in tasks
    )


def find_ends(services: Iterable[Raw], tasks: Tasks) -> tuple[TaskEnd, ...]:
    """Return the tasks of services that ended by themselves, or in whose place the engine started others, oldest first.

    Those that an update has replaced are none.
    """
    found = [
        TaskEnd(
            id=task.get("ID") or f"{raw['ID']} {task['CreatedAt']}",
            service=raw["Spec"]["Name"],
            task=f"{raw['Spec']['Name']}.{task.get('Slot', '?')}",
            at=parse_time(task["Status"].get("Timestamp") or task["CreatedAt"]),
            reason=reason,
        )
        for raw in services
        for task in tasks.get(raw["ID"], ())
        if task["DesiredState"] not in _SHOULD_RUN and (reason := _explain_end(raw, task, tasks[raw["ID"]]))
    ]
    return tuple(sorted(found, key=lambda end: end.at))


def _explain_end(raw: Raw, task: Raw, tasks: Iterable[Raw]) -> str:
    """Return why a task ended, ``""`` for one that should; ``tasks`` are those of its service."""
    status = task["Status"]
    if error := status.get("Err"):
        return f"{error}: killed, often because its memory was used up" if _KILLED in error else str(error)
    if status["State"] in ("failed", "rejected", "orphaned", "complete"):
        return {"complete": "ended by itself, with exit code 0"}.get(status["State"], str(status["State"]))
    ended, changed = status.get("Timestamp"), raw.get("UpdatedAt")
    if status["State"] != "shutdown" or not ended or not changed or parse_time(ended) <= parse_time(changed):
        return ""
    # What a change stops has no successor (fewer tasks), or one with another template (measured also for a change that
    # was reverted before the old task had ended).
    created = parse_time(task["CreatedAt"])
    later = [one for one in tasks if one.get("Slot") == task.get("Slot") and parse_time(one["CreatedAt"]) > created]
    successor = min(later, key=lambda one: parse_time(one["CreatedAt"]), default=None)
    same = successor is not None and _comparable(successor["Spec"]) == _comparable(task["Spec"])
    return "stopped by the engine, not by an update: a node was drained, or lost" if same else ""


def describe_waiting(tasks: Iterable[Raw]) -> str:
    """Return in which states tasks are that should run and do not: ``1 task in state new``."""
    states = Counter(task["Status"]["State"] for task in tasks if task["DesiredState"] in _SHOULD_RUN)
    shown = [(state, states[state]) for state in _BEFORE_RUNNING if states[state]]
    return ", ".join(f"{number} {'task' if number == 1 else 'tasks'} in state {state}" for state, number in shown)


def find_last_change(raw: Raw, tasks: Iterable[Raw]) -> datetime | None:
    """Return when the service was changed or, if later, when a task that should run entered its state."""
    times = [raw.get("UpdatedAt"), _update_status(raw).get("StartedAt")]
    for task in tasks:
        if task["DesiredState"] in _SHOULD_RUN:
            times += [task["CreatedAt"], task["Status"].get("Timestamp")]
    return max((parse_time(time) for time in times if time), default=None)


def read_registries(configs: Iterable[Raw], services: Iterable[Raw]) -> tuple[LiveRegistry, ...]:
    """Return the registry documents among our configs, newest first; the time decides between equal numbers.

    A document has the kind and the form of name, with any prefix: what an earlier `RESOURCE_PREFIX` published says
    which cluster it was published for.
    """
    containers = (raw["Spec"]["TaskTemplate"].get("ContainerSpec") or {} for raw in services)
    mounted = {config["ConfigID"] for container in containers for config in container.get("Configs") or ()}
    found = [
        LiveRegistry(
            id=raw["ID"],
            version=raw["Version"]["Index"],
            name=raw["Spec"]["Name"],
            sequence=sequence_of(raw),
            data=base64.b64decode(raw["Spec"].get("Data") or "", validate=True),
            updated_at=parse_time(raw["UpdatedAt"]),
            mounted=raw["ID"] in mounted,
        )
        for raw in configs
        if is_of_kind(raw, REGISTRY_KIND) and _DOCUMENT.fullmatch(raw["Spec"]["Name"])
    ]
    return tuple(sorted(found, key=lambda item: (item.sequence, item.updated_at, item.name), reverse=True))


def read_records(configs: Iterable[Raw], prefix: str) -> Mapping[str, Record]:
    """Read the records among our configs; a copy under another name, which a person may have made, is not ours.

    The installation's id does not change with `RESOURCE_PREFIX`: its record is found under a longer prefix too.
    """
    found = {}
    for raw in configs:
        name: str = raw["Spec"]["Name"]
        if is_of_kind(raw, RECORD_KIND) and name.startswith(f"{prefix}_"):
            short = "installation" if name.endswith("_installation") else name.removeprefix(f"{prefix}_")
            fields = {
                label.removeprefix(RECORD_FIELD): text
                for label, text in labels_of(raw).items()
                if label.startswith(RECORD_FIELD)
            }
            found[short] = Record(raw["ID"], raw["Version"]["Index"], short, fields)
    return found


def is_of_kind(raw: Raw, kind: str) -> bool:
    """Tell whether one of our configs has this kind."""
    return labels_of(raw).get(KIND) == kind


def sequence_of(raw: Raw) -> int:
    """Return the publication number of a config, 0 where its label is missing or not a number."""
    text = labels_of(raw).get(SEQUENCE, "")
    return int(text) if _NUMBER.fullmatch(text) else 0


def _comparable(spec: Raw) -> Raw:
    """Return the part of a template that tasks and services show alike (measured: a task's spec lacks ``Runtime``)."""
    return {name: value for name, value in spec.items() if name != "Runtime"}


def _update_status(raw: Raw) -> Mapping[str, str]:
    return raw.get("UpdateStatus") or {}


def _is_updating(raw: Raw) -> bool:
    return _update_status(raw).get("State", "") in _UNFINISHED_UPDATES


def _count_running(raw: Raw) -> int:
    """Return how many tasks of a service the engine counts as running."""
    return int((raw.get("ServiceStatus") or {}).get("RunningTasks", 0))


def _replicas(raw: Raw) -> int:
    return int(((raw["Spec"].get("Mode") or {}).get("Replicated") or {}).get("Replicas", 0))
