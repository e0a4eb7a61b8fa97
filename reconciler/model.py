"""The values that the operator thinks in: what was observed, what is to be done, how each group fares. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import ClassVar

from reconciler.installation import Installation
from reconciler.names import GroupNames
from reconciler.platforms.base import Drift, LiveRegistry, LiveService, PlatformState, Record, ServiceSpec
from reconciler.registry import Identity, Registry


@dataclass(frozen=True)
class Membership:
    """One complete read of the UNS map.

    Attributes:
        assets: how many assets the map has.
        groups: members by group; only groups with at least one.
        fresh: read now; False where the last scan is used again, which proves no absence.
        unknown_level: in words, that no asset has the level that groups are made from, and which levels there are;
            ``""`` where there are groups, or where it is not known.
    """

    assets: int
    groups: Mapping[str, int]
    fresh: bool = True
    unknown_level: str = ""

    @property
    def ungrouped(self) -> int:
        """Assets that have no value at the grouping level."""
        return self.assets - sum(self.groups.values())


@dataclass(frozen=True)
class Stream:
    """A ksqlDB stream as LIST STREAMS shows it."""

    name: str
    topic: str


@dataclass(frozen=True)
class Query:
    """The persistent query that writes a stream, as LIST QUERIES shows it."""

    id: str
    text: str
    paused: bool = False
    failed: bool = False


@dataclass(frozen=True)
class SourceState:
    """Everything of ksqlDB that a plan depends on, from one set of full reads.

    Attributes:
        identity: the Kafka cluster and the ksqlDB service that answered.
        version: of the server.
        trouble: why the server must not be given DDL now, nor believed about an absence; ``""`` when healthy.
        degraded: why no absence may be believed now, although statements may be sent: a query of ours or of the UNS
            map does not run on every server; ``""`` where all do.
        servers: on how many ksqlDB servers queries run; 0 where it is not known.
        streams: by exact name.
        queries: persistent queries by the name of the stream or table they write.
        topics: partitions of all Kafka topics, by name; None where they were not read at this look.
        partitions: the same as of the last look that read them; of an earlier look they prove no absence.
        strays: the statements that made streams which no query writes and no asset's group has, by the stream's name;
            ``""`` for one that ksqlDB does not let us see.
        unasked: such streams whose statement is not known yet, each with the error of the last question; ``""`` for
            one that has not been asked.
        inserts: statements of INSERT INTO queries, by the query's id: they read and write what others made.
    """

    identity: Identity
    version: str
    trouble: str
    streams: Mapping[str, Stream]
    queries: Mapping[str, Query]
    topics: Mapping[str, int] | None = None
    strays: Mapping[str, str] = field(default_factory=dict)
    unasked: Mapping[str, str] = field(default_factory=dict)
    inserts: Mapping[str, str] = field(default_factory=dict)
    degraded: str = ""
    servers: int = 0
    partitions: Mapping[str, int] = field(default_factory=dict)

    @property
    def statements(self) -> Mapping[str, str]:
        """Every statement that is known: by the source that it made, an INSERT INTO by its query's id."""
        made = {name: query.text for name, query in self.queries.items()}
        return {**self.strays, **made, **self.inserts}

    @property
    def unhealthy(self) -> str:
        """Why no absence may be believed now; ``""`` when healthy."""
        return self.trouble or self.degraded


@dataclass(frozen=True)
class Observed:
    """One full look at the world."""

    source: SourceState
    platform: PlatformState
    membership: Membership


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


class WriteResult(StrEnum):
    """How a write ended; the values of the label ``result`` of ``reconciler_actions_total``."""

    OK = "ok"
    ERROR = "error"
    SKIPPED = "skipped"
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


class BlockReason(StrEnum):
    """Why a removal does not happen now, where no `Guard` refuses it."""

    GRACE = "grace"
    QUESTION = "question"
    COLLAPSE = "collapse"


class Reason(StrEnum):
    """Why an object has its condition, as one word that programs can compare."""

    SILENT = "Silent"
    CONTESTED = "Contested"
    WRITE_FAILED = "WriteFailed"
    BUG = "InternalError"


class Part(StrEnum):
    """Parts of a cycle that are isolated: an unexpected exception in one ends neither the others nor the cycle."""

    CYCLE = "cycle"
    PLAN = "plan"
    WRITE = "write"
    QUESTION = "question"
    OWNERSHIP = "ownership"
    REPORT = "report"
    LOOP = "loop"


class Effect(Enum):
    """What an action does to the world; policies and guards choose by it."""

    CREATE = "create"
    UPDATE = "update"
    PUBLISH = "publish"
    REMOVE = "remove"


@dataclass(frozen=True)
class Action:
    """One write. ``key`` names its object, for back-off and messages; ``group`` is None where it serves all."""

    verb: ClassVar[str]
    effect: ClassVar[Effect]
    on_ksqldb: ClassVar[bool] = False

    @property
    def key(self) -> str:
        """The object that is written."""
        raise NotImplementedError

    @property
    def group(self) -> str | None:
        """The group it belongs to."""
        return None


@dataclass(frozen=True)
class RecordInstallation(Action):
    """Write down which installation this is, before anything carries its id."""

    installation: Installation
    before: Record | None
    verb: ClassVar[str] = "record_installation"
    effect: ClassVar[Effect] = Effect.PUBLISH

    @property
    def key(self) -> str:
        """The installation."""
        return f"installation {self.installation.id}"


@dataclass(frozen=True)
class CreateSharedStream(Action):
    """Create the pre-join stream that all group streams read; its number is chosen when the topics are known."""

    name: str
    verb: ClassVar[str] = "create_shared_stream"
    effect: ClassVar[Effect] = Effect.CREATE
    on_ksqldb: ClassVar[bool] = True

    @property
    def key(self) -> str:
        """The stream, whatever its generation: each attempt and each new one is of the same object."""
        return f"stream {re.sub(r'_[0-9]+$', '', self.name)}"


@dataclass(frozen=True)
class StreamAction(Action):
    """A write to one group's stream."""

    names: GroupNames
    on_ksqldb: ClassVar[bool] = True

    @property
    def key(self) -> str:
        """The stream."""
        return f"stream {self.names.stream}"

    @property
    def group(self) -> str:
        """The group."""
        return self.names.group


@dataclass(frozen=True)
class CreateStream(StreamAction):
    """Create a group's filter stream; ``starved`` as in `RecreateStream`, of which this is the second half."""

    starved: bool = False
    verb: ClassVar[str] = "create_stream"
    effect: ClassVar[Effect] = Effect.CREATE


@dataclass(frozen=True)
class ReplaceStream(StreamAction):
    """Give a group's stream that has lost its query another one; lineage and silence are asked for first."""

    why: str
    verb: ClassVar[str] = "replace_stream"
    effect: ClassVar[Effect] = Effect.UPDATE


@dataclass(frozen=True)
class RecreateStream(StreamAction):
    """Drop a group's stream and create it again over its topic, where replacing in place is impossible.

    With ``topic_gone`` the reason is that its topic was not listed, which is asked again first. With ``starved``
    nothing fed it any more, so it starts at the beginning of its new source: it has had none of that.
    """

    why: str
    retention_ms: int | None = None
    topic_gone: bool = False
    starved: bool = False
    verb: ClassVar[str] = "recreate_stream"
    effect: ClassVar[Effect] = Effect.UPDATE


@dataclass(frozen=True)
class ResumeStream(Action):
    """Resume the paused query of a group's stream, or of the shared one."""

    name: str
    query_id: str
    of_group: str | None
    verb: ClassVar[str] = "resume_stream"
    effect: ClassVar[Effect] = Effect.UPDATE
    on_ksqldb: ClassVar[bool] = True

    @property
    def key(self) -> str:
        """The stream."""
        return f"stream {self.name}"

    @property
    def group(self) -> str | None:
        """The group it serves, None for a shared stream."""
        return self.of_group


@dataclass(frozen=True)
class DropStream(Action):
    """Drop a stream of ours that nothing needs any more."""

    name: str
    of_group: str | None
    delete_topic: bool = False
    verb: ClassVar[str] = "drop_stream"
    effect: ClassVar[Effect] = Effect.REMOVE
    on_ksqldb: ClassVar[bool] = True

    @property
    def key(self) -> str:
        """The stream."""
        return f"stream {self.name}"

    @property
    def group(self) -> str | None:
        """The group it served, None for a shared stream."""
        return self.of_group


@dataclass(frozen=True)
class CreateService(Action):
    """Create a service."""

    spec: ServiceSpec
    verb: ClassVar[str] = "create_service"
    effect: ClassVar[Effect] = Effect.CREATE

    @property
    def key(self) -> str:
        """The service."""
        return f"service {self.spec.name}"

    @property
    def group(self) -> str | None:
        """The group it serves."""
        return self.spec.group


@dataclass(frozen=True)
class UpdateService(Action):
    """Make a live service equal to its spec again."""

    live: LiveService
    spec: ServiceSpec
    drift: tuple[Drift, ...]
    verb: ClassVar[str] = "update_service"
    effect: ClassVar[Effect] = Effect.UPDATE

    @property
    def key(self) -> str:
        """The service."""
        return f"service {self.spec.name}"

    @property
    def group(self) -> str | None:
        """The group it serves."""
        return self.spec.group


@dataclass(frozen=True)
class RemoveService(Action):
    """Remove a service of ours."""

    live: LiveService
    of_group: str | None
    verb: ClassVar[str] = "remove_service"
    effect: ClassVar[Effect] = Effect.REMOVE

    @property
    def key(self) -> str:
        """The service."""
        return f"service {self.live.name}"

    @property
    def group(self) -> str | None:
        """The group it served."""
        return self.of_group


@dataclass(frozen=True)
class PublishRegistry(Action):
    """Make a registry document the current one."""

    document: Registry
    sequence: int
    verb: ClassVar[str] = "publish_registry"
    effect: ClassVar[Effect] = Effect.PUBLISH

    @property
    def key(self) -> str:
        """The registry."""
        return "registry"


@dataclass(frozen=True)
class RemoveRegistry(Action):
    """Remove a registry document that is neither among the newest nor mounted."""

    registry: LiveRegistry
    verb: ClassVar[str] = "remove_registry"
    effect: ClassVar[Effect] = Effect.REMOVE

    @property
    def key(self) -> str:
        """The document."""
        return f"config {self.registry.name}"


class Condition(StrEnum):
    """How a group, or a service that belongs to no group, fares."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    CONFLICT = "Conflict"
    LEAVING = "Leaving"
    HELD = "Held"


@dataclass(frozen=True)
class Item:
    """One line of a plan or status: a group, or a service or stream that belongs to none.

    Attributes:
        title: ``group Weld``, ``service ofa_state_api``, ``stream OFA_ASSETS_WITH_UNS_...``.
        condition: how it fares.
        mark: ``+ ~ ! - ? x`` or blank, as plans show it.
        detail: what is done about it, or why nothing is.
        group: the group's value, None for a service of none.
        names: the group's names, None for a service of none.
        members: assets in the group.
        running: healthy tasks.
        wanted: tasks asked for.
        url: where it is served, as registered; None where it is not.
        serves: as many tasks run as should, be it those of before an update, and nothing is wrong with its stream.
        reason: why it has its condition; None where ``detail`` alone says it.
    """

    title: str
    condition: Condition
    mark: str = " "
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
    """A guard's no: which rule, what it saw and how to go on. ``stops`` means that nothing at all is written."""

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
    """Everything that a cycle will do, in order, and what it thinks of every group.

    Attributes:
        actions: in the order in which they are to be done.
        items: one a group, then the services of none.
        registry: the document that should be current after it; None while there is nothing to publish.
        registry_before: revision that is current now, None before the first.
        added: groups that enter the registry.
        removed: groups that leave it.
        refusals: what guards said no to.
        approval: id by which exactly the refused deletes can be approved; ``""`` where none are refused.
        notes: what a person should know besides.
        unknown: number of streams without a query that are still to be asked whose they are.
        bugs: objects that could not be planned because of an unexpected exception.
        left_out: keys of everything that was not planned, because of `bugs` of this plan or an earlier one.
    """

    actions: tuple[Action, ...] = ()
    items: tuple[Item, ...] = ()
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
        """Nothing to do, nothing on its way, and nothing left to find out."""
        busy = (Condition.PROGRESSING, Condition.LEAVING)
        open_ends = self.actions or self.unknown or self.left_out
        return not open_ends and not any(item.condition in busy for item in self.items)

    @property
    def in_sync(self) -> bool:
        """The world is as it should be, as far as the policy lets it."""
        good = (Condition.READY, Condition.HELD)
        return self.settled and not self.refusals and all(item.condition in good for item in self.items)
