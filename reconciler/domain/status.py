"""The result of planning: a plan, with the status of each object. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from openfactory_common.registry import Registry
from reconciler.domain.actions import Action
from reconciler.domain.names import GroupNames


class CycleResult(StrEnum):
    """How a cycle ended; the values of the label ``result`` of ``reconciler_reconcile_total``."""

    IN_SYNC = "in_sync"
    CHANGED = "changed"
    PROGRESSING = "progressing"
    REFUSED = "refused"
    READ_ERROR = "read_error"
    WRITE_ERROR = "write_error"
    PAUSED = "paused"
    STANDBY = "standby"
    BUG = "bug"


class Guard(StrEnum):
    """A safety rule that can refuse."""

    INSTALLATION = "installation"
    IDENTITY = "identity"
    LEVEL = "level"
    EMPTY = "empty"
    BUDGET = "budget"
    HEALTH = "health"
    OFFSET = "offset"
    LIMIT = "limit"
    SIZE = "size"
    OPTIONS = "options"


class BlockReason(StrEnum):
    """Why a removal does not happen now, where no `Guard` refuses it."""

    GRACE = "grace"
    QUESTION = "question"
    COLLAPSE = "collapse"


class Reason(StrEnum):
    """Why an object has its condition, as one word that programs can compare."""

    SILENT = "Silent"
    NOT_READY = "NotReady"
    ROLLOUT = "RolloutHalted"
    CONTESTED = "Contested"
    WRITE_FAILED = "WriteFailed"
    PAUSED = "Paused"
    BUG = "InternalError"


class Part(StrEnum):
    """Parts of a cycle that are isolated: an unexpected exception in one ends neither the others nor the cycle."""

    CYCLE = "cycle"
    PLAN = "plan"
    WRITE = "write"
    QUESTION = "question"
    OWNERSHIP = "ownership"
    PROBE = "probe"
    REPORT = "report"
    LOOP = "loop"


class Condition(StrEnum):
    """The condition of an object."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    CONFLICT = "Conflict"
    LEAVING = "Leaving"
    HELD = "Held"
    ASLEEP = "Asleep"


@dataclass(frozen=True)
class ObjectStatus:
    """One line of a plan or status: a group, or a service or stream that belongs to none.

    Attributes:
        title: ``group Weld``, ``service ofa_state_api``, ``stream OFA_ASSETS_WITH_UNS_...``.
        condition: whether it is as it should be.
        change: ``+ ~ ! - ? x`` or blank, as plans show it.
        detail: what is done about it, or why nothing is.
        group: the group's value, None for a service of none.
        names: the group's names, None for a service of none.
        members: assets in the group.
        running: healthy tasks.
        wanted: tasks asked for.
        url: where it is served, as registered; None where it is not.
        serves: all tasks run and are ready, perhaps those of before an update, and its stream has no problem.
        reason: why it has its condition; None where ``detail`` alone says it.
    """

    title: str
    condition: Condition
    change: str = " "
    detail: str = ""
    group: str | None = None
    names: GroupNames | None = None
    members: int = 0
    running: int = 0
    wanted: int = 0
    url: str | None = None
    serves: bool = False
    reason: Reason | None = None


@dataclass(frozen=True)
class Refusal:
    """A guard refuses: which one, what it observed and what to do. ``stops`` means that nothing at all is written."""

    guard: Guard
    text: str
    stops: bool = False


@dataclass(frozen=True)
class Bug:
    """An unexpected exception in the plan of one object, which is left as it is."""

    key: str
    error: Exception


@dataclass(frozen=True)
class Plan:
    """Everything that a cycle will do, in order, and the status of every object.

    Attributes:
        actions: in the order in which they are to be done.
        items: one a group, then the services of none.
        registry: the document that should be current after it; None while there is nothing to publish.
        registry_before: revision that is current now, None before the first.
        added: groups that enter the registry.
        removed: groups that leave it.
        refusals: what guards refuse.
        approval: id that approves exactly the refused removals; ``""`` where none are refused.
        notes: what else a person should know.
        unknown: number of streams without a query whose owner is not known yet.
        bugs: objects that could not be planned because of an unexpected exception.
        left_out: keys of everything that was not planned, because of `bugs` of this plan or an earlier one.
    """

    actions: tuple[Action, ...] = ()
    items: tuple[ObjectStatus, ...] = ()
    registry: Registry | None = None
    registry_before: str | None = None
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    approval: str = ""
    notes: tuple[str, ...] = field(default=())
    unknown: int = 0
    bugs: tuple[Bug, ...] = ()
    left_out: frozenset[str] = frozenset()

    @property
    def settled(self) -> bool:
        """Nothing to do, nothing progressing, and nothing left to find out."""
        progressing = (Condition.PROGRESSING, Condition.LEAVING)
        open_ends = self.actions or self.unknown or self.left_out
        waits = any(item.condition in progressing or item.reason is Reason.CONTESTED for item in self.items)
        return not open_ends and not waits

    @property
    def halted(self) -> str:
        """The object that a halted rollout holds, and why; ``""`` where none is halted."""
        return next((f"{one.title}: {one.detail}" for one in self.items if one.reason is Reason.ROLLOUT), "")

    @property
    def in_sync(self) -> bool:
        """Everything is as it should be, as far as the policy allows it."""
        good = (Condition.READY, Condition.HELD, Condition.ASLEEP)
        fine = not self.refusals and not self.halted
        return self.settled and fine and all(item.condition in good for item in self.items)
