"""The writes that a plan consists of, and how a write ended. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import ClassVar

from openfactory_common.errors import ReconcilerError
from openfactory_common.registry import Registry
from reconciler.domain.installation import Installation
from reconciler.domain.names import GroupNames
from reconciler.domain.services import Drift, LiveRegistry, LiveService, Record, ServiceSpec


class WriteResult(StrEnum):
    """How a write ended; the values of the label ``result`` of ``reconciler_actions_total``."""

    OK = "ok"
    ERROR = "error"
    SKIPPED = "skipped"
    BUG = "bug"


class Effect(Enum):
    """What kind of write an action is; policies allow writes by it."""

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
    """Record which installation this is, before anything carries its id."""

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
        """The stream without its generation: all attempts and all generations are the same object."""
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
    """Create a group's filter stream."""

    verb: ClassVar[str] = "create_stream"
    effect: ClassVar[Effect] = Effect.CREATE


@dataclass(frozen=True)
class ReplaceStream(StreamAction):
    """Give a group's stream that has lost its query another one; its lineage and its silence are checked first."""

    why: str
    verb: ClassVar[str] = "replace_stream"
    effect: ClassVar[Effect] = Effect.UPDATE


@dataclass(frozen=True)
class RecreateStream(StreamAction):
    """Drop a group's stream and create it again over its topic, where replacing in place is impossible.

    With ``topic_gone`` the reason is that its topic was not listed, which is checked again first.
    """

    why: str
    retention_ms: int | None = None
    topic_gone: bool = False
    verb: ClassVar[str] = "recreate_stream"
    effect: ClassVar[Effect] = Effect.UPDATE


@dataclass(frozen=True)
class AdoptStream(StreamAction):
    """Drop the stream that a user made under a group's name, as a person has asked for, and create the group's own.

    ``shown`` identifies the one that was shown (`SourceState.identify`): another one is not touched.
    """

    shown: str
    verb: ClassVar[str] = "adopt_stream"
    effect: ClassVar[Effect] = Effect.UPDATE


class _NamedStreamAction(Action):
    """A write to a group's stream or to a shared one."""

    name: str
    of_group: str | None
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
class QueryAction(_NamedStreamAction):
    """Let the query of a stream run, or not."""

    name: str
    query_id: str
    of_group: str | None
    effect: ClassVar[Effect] = Effect.UPDATE


class ResumeStream(QueryAction):
    """Resume the paused query of a stream."""

    verb: ClassVar[str] = "resume_stream"


class PauseStream(QueryAction):
    """Pause the query of a stream whose group sleeps."""

    verb: ClassVar[str] = "pause_stream"


@dataclass(frozen=True)
class DropStream(_NamedStreamAction):
    """Drop a stream of ours that nothing needs any more."""

    name: str
    of_group: str | None
    delete_topic: bool = False
    verb: ClassVar[str] = "drop_stream"
    effect: ClassVar[Effect] = Effect.REMOVE


class _SpecifiedServiceAction(Action):
    """A write that makes a service equal to a spec."""

    spec: ServiceSpec

    @property
    def key(self) -> str:
        """The service."""
        return f"service {self.spec.name}"

    @property
    def group(self) -> str | None:
        """The group it serves."""
        return self.spec.group


@dataclass(frozen=True)
class CreateService(_SpecifiedServiceAction):
    """Create a service."""

    spec: ServiceSpec
    verb: ClassVar[str] = "create_service"
    effect: ClassVar[Effect] = Effect.CREATE


@dataclass(frozen=True)
class UpdateService(_SpecifiedServiceAction):
    """Make a live service equal to its spec again; ``failed`` and ``failure`` as in `LiveService`."""

    live: LiveService
    spec: ServiceSpec
    drift: tuple[Drift, ...]
    failed: str = ""
    failure: str = ""
    verb: ClassVar[str] = "update_service"
    effect: ClassVar[Effect] = Effect.UPDATE


@dataclass(frozen=True)
class RollBackService(UpdateService):
    """Give a service its previous spec again, as it does not become ready with the present one."""

    verb: ClassVar[str] = "roll_back_service"


@dataclass(frozen=True)
class ResubmitService(UpdateService):
    """Write the spec of a service that has more tasks than wanted again: the engine then ends those that it kept.

    Measured on engine 20.10: after quick updates both tasks of one slot may stay. The engine looks at a slot again when
    its service is written, keeps one task of the present spec and ends the others, so no client of that one is cut.
    """

    verb: ClassVar[str] = "resubmit_service"

    @property
    def why(self) -> str:
        """How many tasks run, and how many should."""
        return f"{self.live.running} tasks run, {self.spec.replicas} wanted"


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
    """Make a registry document the current one; ``woken`` groups were marked asleep in the one before."""

    document: Registry
    sequence: int
    woken: int = 0
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


@dataclass(frozen=True)
class Result:
    """The result of an action: done, failed with an error, or skipped because an action before it failed."""

    action: Action
    error: Exception | None = None
    skipped: bool = False

    @property
    def outcome(self) -> WriteResult:
        """The value of the metric's label ``result``."""
        if self.skipped:
            return WriteResult.SKIPPED
        if self.error is None:
            return WriteResult.OK
        return WriteResult.ERROR if isinstance(self.error, ReconcilerError) else WriteResult.BUG
