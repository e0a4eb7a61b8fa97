"""What plans are made of: the facts they depend on, and one step for each object. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from openfactory_common.errors import describe
from openfactory_common.registry import GroupLookup
from reconciler.domain.actions import Action
from reconciler.domain.installation import Claim
from reconciler.domain.status import Bug, Condition, ObjectStatus, Reason
from reconciler.ksqldb.statements import UNBOUND, Topology
from reconciler.settings import Settings

T = TypeVar("T")
D = TypeVar("D")


@dataclass(frozen=True)
class PlanInputs:
    """What a plan depends on besides the survey and the verdict.

    Attributes:
        settings: of the operator.
        topology: the SQL side's names and definitions.
        lookup: how the proxy finds an asset's group.
        aged: registry documents that became current longer than `REGISTRY_ROLL_AFTER` ago. (Not the time itself: it
            is never the same twice, and a plan whose facts are the same is the same.)
        stalled: services of which nothing has moved for `PROGRESS_DEADLINE` although they are not as they should be.
        failures: the last error of every object whose write failed and is waited for.
        silent: why streams are silent (see `reconciler.control.flow`), by group; that of the shared stream by "".
        query_limit: how many persistent queries ksqlDB allows; None where it was not asked or does not say.
        waiting: objects that are in back-off now.
        contested: why each object that another writer keeps changing is not written now.
        offset_reset: with which offset the server begins every query that names none; ``""`` where it was not asked or
            leaves that to Kafka.
        claim: which installation this is, and whether that has to be written down.
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


@dataclass(frozen=True)
class PlannedObject:
    """What one object needs: actions, and how it fares meanwhile."""

    item: ObjectStatus
    actions: tuple[Action, ...] = ()


def failing(item: ObjectStatus, actions: Iterable[Action], inputs: PlanInputs) -> ObjectStatus:
    """Say why a write that is still wanted failed the last time; a failure of what is done meanwhile is history."""
    for action in actions:
        for texts, reason in ((inputs.contested, Reason.CONTESTED), (inputs.failures, Reason.WRITE_FAILED)):
            if action.key in texts:
                return replace(item, condition=Condition.DEGRADED, detail=texts[action.key], reason=reason)
    return item


@dataclass
class IsolatedPlanning:
    """Makes the parts of a plan; an unexpected exception in one leaves that part out and nothing else.

    Attributes:
        facts: name what is in back-off: such a part is not tried.
        bugs: the exceptions.
        left_out: every part that was left out, now or because of its back-off, with the error.
    """

    inputs: PlanInputs
    bugs: list[Bug] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def step(self, item: ObjectStatus, make: Callable[[], PlannedObject]) -> PlannedObject:
        """Make the step of one object; where that fails, nothing is done about the object and ``item`` says so."""
        made = self.part(item.title, make, None)
        if made is not None:
            return made
        detail = self.left_out[_key(item.title)]
        return PlannedObject(replace(item, condition=Condition.DEGRADED, change="!", detail=detail, reason=Reason.BUG))

    def part(self, title: str, make: Callable[[], T], otherwise: D) -> T | D:
        """Make a part, or return ``otherwise`` in its place."""
        key = _key(title)
        if key in self.inputs.waiting:
            self.left_out[key] = self.inputs.failures.get(key, "")
            return otherwise
        try:
            return make()
        except Exception as error:  # noqa: BLE001 - the controller logs it; the other objects must not suffer
            self.left_out[key] = describe(error)
            self.bugs.append(Bug(key, error))
            return otherwise


def _key(title: str) -> str:
    """Return the name for back-off; a write to the object has another one."""
    return f"plan of {title}"


def progressing(mark: str, detail: str) -> ObjectStatus:
    """Say of an object that something is being done about it."""
    return ObjectStatus("", Condition.PROGRESSING, mark, detail)


def conflict(group: str, detail: str) -> PlannedObject:
    """Say of a group that it cannot be, and do nothing."""
    return PlannedObject(ObjectStatus(f"group {group}", Condition.CONFLICT, "x", detail, group=group))
