"""What plans are made of: their inputs, and one planned object for each object. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from openfactory_common.errors import describe
from openfactory_common.registry import GroupLookup
from reconciler.domain.actions import Action
from reconciler.domain.demand import DemandReport
from reconciler.domain.installation import Claim
from reconciler.domain.readiness import Readiness
from reconciler.domain.status import Bug, Condition, ObjectStatus, Reason
from reconciler.ksqldb.statements import UNBOUND, Topology
from reconciler.planning.options import GroupFile
from reconciler.settings import Settings

T = TypeVar("T")
D = TypeVar("D")


@dataclass(frozen=True)
class Adoption:
    """What a person was shown of a group and wants to be ours; what has changed since is not meant.

    Attributes:
        group: whose names the objects have.
        service: id and version of a service without our label; None for none.
        stream: what identifies a stream of a user (`SourceState.identify`), which is dropped for the group's own;
            ``""`` for none.
    """

    group: str
    service: tuple[str, int] | None = None
    stream: str = ""


@dataclass(frozen=True)
class PlanInputs:
    """What a plan depends on besides the survey and the verdict.

    Attributes:
        settings: of the operator.
        topology: the SQL side's names and definitions.
        lookup: how the proxy finds an asset's group.
        aged: registry documents that became current longer than `REGISTRY_ROLL_AFTER` ago. (Not the time itself: it
            is never the same twice, and equal inputs give equal plans.)
        stalled: services that are not ready and have made no progress for `PROGRESS_DEADLINE`.
        failures: the last error of every object whose write failed and is retried.
        readiness: what the probes found, by the service's name in lower case; a service that is not in it has not been
            probed yet. None: nothing is probed, and the engine's view counts.
        starting: services that are not ready, and have been so for only as long as any image needs to start.
        baked: services that have been ready for `ROLLOUT_BAKE`.
        overdue: services that were changed `ROLLOUT_TIMEOUT` ago or earlier.
        on_trial: services that were changed lately, have not been seen ready for `ROLLOUT_BAKE` since, and that this
            operator has seen not ready for the whole `ROLLOUT_TIMEOUT`.
        past: services that were changed long ago, and have been seen ready for `ROLLOUT_BAKE` with their present spec.
        fallen: services that are not ready, and were so long ago or have not been seen before.
        surplus: services that have had more tasks than wanted for long, and may be written again now.
        silent: why streams are silent (see `reconciler.control.flow`), by group; that of the shared stream by "".
        query_limit: how many persistent queries ksqlDB allows; None where it is not known.
        waiting: objects that are in back-off now.
        contested: why each object that another writer keeps changing is not written now.
        offset_reset: the offset with which the server begins every query that names none; ``""`` where that is not
            known or left to Kafka.
        held: groups of which nothing is written, and whose entry in the registry stays as it is, each with the reason;
            one that sleeps still wakes.
        adoption: what a person wants to be ours in this run.
        claim: which installation this is, and whether that has to be recorded.
        options: what single groups have of their own.
        options_problem: why groups.toml is not in force as it is now; ``""`` where it is.
        demand: what the routing layer reports; None where it is not asked.
    """

    settings: Settings
    topology: Topology
    lookup: GroupLookup
    aged: frozenset[str] = frozenset()
    stalled: frozenset[str] = frozenset()
    failures: Mapping[str, str] = field(default_factory=dict)
    query_limit: int | None = None
    waiting: frozenset[str] = frozenset()
    contested: Mapping[str, str] = field(default_factory=dict)
    offset_reset: str = ""
    claim: Claim = field(default_factory=lambda: Claim(UNBOUND))
    silent: Mapping[str, str] = field(default_factory=dict)
    readiness: Mapping[str, Readiness] | None = None
    starting: frozenset[str] = frozenset()
    baked: frozenset[str] = frozenset()
    overdue: frozenset[str] = frozenset()
    on_trial: frozenset[str] = frozenset()
    past: frozenset[str] = frozenset()
    fallen: frozenset[str] = frozenset()
    surplus: frozenset[str] = frozenset()
    options: GroupFile = field(default_factory=GroupFile)
    options_problem: str = ""
    held: Mapping[str, str] = field(default_factory=dict)
    adoption: Adoption | None = None
    demand: DemandReport | None = None


@dataclass(frozen=True)
class PlannedObject:
    """What one object needs: its status, the actions for it, and what is changed of it only after it has woken."""

    item: ObjectStatus
    actions: tuple[Action, ...] = ()
    later: str = ""


def make_progressing(change: str, detail: str) -> ObjectStatus:
    """Return the status of an object that is being changed."""
    return ObjectStatus("", Condition.PROGRESSING, change, detail)


def make_degraded(item: ObjectStatus, detail: str, reason: Reason | None = None) -> ObjectStatus:
    """Return the status of an object that does not work."""
    return replace(item, condition=Condition.DEGRADED, change="!", detail=detail, reason=reason)


def make_conflict(group: str, detail: str) -> PlannedObject:
    """Return a group that cannot exist, without actions."""
    return PlannedObject(ObjectStatus(f"group {group}", Condition.CONFLICT, "x", detail, group=group))


def hold(planned: PlannedObject, why: str) -> PlannedObject:
    """Return a group of which nothing may be written, with what would be done or is wrong."""
    item = planned.item
    otherwise = "" if item.condition is Condition.ASLEEP else "otherwise: "
    detail = f"{why}; {otherwise}{item.detail}" if item.detail else why
    item = replace(item, condition=Condition.HELD, change="?", detail=detail, serves=False, reason=Reason.PAUSED)
    return PlannedObject(item)


def add_failure(item: ObjectStatus, actions: Iterable[Action], inputs: PlanInputs) -> ObjectStatus:
    """Say why a write that is still needed failed the last time; the failure of one that is done is history."""
    for action in actions:
        for texts, reason in ((inputs.contested, Reason.CONTESTED), (inputs.failures, Reason.WRITE_FAILED)):
            if action.key in texts:
                return replace(item, condition=Condition.DEGRADED, detail=texts[action.key], reason=reason)
    return item


@dataclass
class IsolatedPlanning:
    """Makes the parts of a plan; an unexpected exception in one leaves out that part and nothing else.

    Attributes:
        inputs: name what is in back-off: such a part is not tried.
        bugs: the exceptions.
        left_out: every part that was left out, now or because of its back-off, with the error.
    """

    inputs: PlanInputs
    bugs: list[Bug] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def plan_object(self, item: ObjectStatus, make: Callable[[], PlannedObject]) -> PlannedObject:
        """Plan one object; where that fails, nothing is done about the object and ``item`` says so."""
        made = self.plan_part(item.title, make, None)
        return made or PlannedObject(make_degraded(item, self.left_out[f"plan of {item.title}"], Reason.BUG))

    def plan_part(self, title: str, make: Callable[[], T], otherwise: D) -> T | D:
        """Make a part, or return ``otherwise`` in its place."""
        key = f"plan of {title}"  # for back-off; a write to the object has another key
        if key in self.inputs.waiting:
            self.left_out[key] = self.inputs.failures.get(key, "")
            return otherwise
        try:
            return make()
        except Exception as error:  # noqa: BLE001 - the controller logs it; the other objects must not suffer
            self.left_out[key] = describe(error)
            self.bugs.append(Bug(key, error))
            return otherwise
