"""Doing what was planned, in order: every write of the operator happens here.

Each action looks before it leaps where the plan's observation cannot be enough: whether a topic exists, whether
a stream without a query is ours, whether somebody reads what is to be dropped. One group's failure skips the rest of
that group's actions and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from reconciler.errors import KsqlConflict, KsqlError, KsqlRefused, LeaseLost, ReconcilerError
from reconciler.ksqldb.entities import Description
from reconciler.ksqldb.topology import Offset, Topology
from reconciler.model import (
    Action,
    CreateService,
    CreateSharedStream,
    CreateStream,
    DropStream,
    PublishRegistry,
    RebuildSharedStream,
    RecreateStream,
    RemoveRegistry,
    RemoveService,
    ReplaceStream,
    ResumeStream,
    UpdateService,
    WriteResult,
)
from reconciler.names import STREAM_PREFIX, GroupNames
from reconciler.platforms.base import Platform
from reconciler.ports import Ksqldb

#: How ksqlDB says which retention an existing topic has.
_KEPT_RETENTION = re.compile(r"retention \(topic has (-?[0-9]{1,18})\)")


@dataclass(frozen=True)
class Result:
    """What became of an action: done, failed with an error, or skipped because something before it failed."""

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


class Executor:
    """Applies the actions of one cycle."""

    def __init__(self, ksqldb: Ksqldb, platform: Platform, topology: Topology) -> None:
        """Write to ``ksqldb`` and ``platform``; an executor serves one cycle (it remembers the list of topics)."""
        self._ksqldb = ksqldb
        self._platform = platform
        self._topology = topology
        self._write: dict[type[Action], Callable[..., object]] = {
            CreateSharedStream: self._create_shared,
            RebuildSharedStream: self._rebuild_shared,
            CreateStream: self._create_stream,
            ReplaceStream: self._replace_stream,
            RecreateStream: self._recreate_stream,
            ResumeStream: self._resume_stream,
            DropStream: self._drop_stream,
            CreateService: lambda action: platform.create_service(action.spec),
            UpdateService: lambda action: platform.update_service(action.live, action.spec),
            RemoveService: lambda action: platform.remove_service(action.live),
            PublishRegistry: self._publish,
            RemoveRegistry: lambda action: platform.remove_registry(action.registry),
        }

    def apply(self, actions: Iterable[Action], held: Callable[[Action], bool]) -> Iterator[Result]:
        """Do ``actions`` one after the other and yield what became of each.

        Args:
            actions: in the order of the plan.
            held: whether an action must wait (back-off); it and what follows from it is skipped.

        An unexpected exception fails its action, as any other error does.
        """
        broken: set[str | None] = set()
        shared_broken = False
        for action in actions:
            blocked = action.group in broken if action.group is not None else False
            if blocked or (shared_broken and isinstance(action, (CreateStream, RecreateStream))):
                result = Result(action, skipped=True)
            else:
                result = self._one(action, held)
            if result.outcome is not WriteResult.OK:
                broken.add(action.group)
                shared_broken = shared_broken or isinstance(action, CreateSharedStream)
            yield result

    def _one(self, action: Action, held: Callable[[Action], bool]) -> Result:
        try:
            if held(action):
                return Result(action, skipped=True)
            self._write[type(action)](action)
        except LeaseLost:
            return Result(action, skipped=True)
        except Exception as error:  # noqa: BLE001 - who applies logs it; the other objects must not suffer
            return Result(action, error)
        return Result(action)

    @cached_property
    def _topics(self) -> frozenset[str]:
        return self._ksqldb.topics()

    def _create_shared(self, _: CreateSharedStream) -> None:
        self._ksqldb.execute(self._topology.create_shared(self._offset(self._topology.shared_name.lower())))

    def _rebuild_shared(self, action: RebuildSharedStream) -> None:
        """Drop the readers, then the stream; nothing is dropped unless everything that reads it is ours."""
        readers = self._prove_silent(action.name).constraints
        for reader in readers:
            found = self._describe(reader)
            if not reader.startswith(STREAM_PREFIX) or not self._reads_shared(found) or _readers(found):
                raise KsqlRefused(
                    f"stream {action.name} has lost its query, and {reader}, which reads it, is in the way"
                )
        for reader in readers:
            self._drop(reader, delete_topic=False)
        self._drop(action.name, delete_topic=False)

    def _create_stream(self, action: CreateStream) -> None:
        """Start at the beginning, unless the topic is already there.

        With ``earliest`` nothing is lost between an asset's mapping and the creation of its stream; over an existing
        topic it would write everything that the shared topic still holds a second time, into live clients.
        """
        self._create(action.names, self._offset(action.names.topic), None)

    def _create(self, names: GroupNames, offset: Offset, retention_ms: int | None) -> None:
        """Create the stream, over a topic of another retention with that one: only Kafka can change it."""
        try:
            self._ksqldb.execute(self._topology.create_group(names, offset, retention_ms))
        except KsqlError as error:
            kept = _KEPT_RETENTION.search(" ".join(str(error).split()))
            if kept is None or int(kept[1]) == retention_ms:
                raise
            self._ksqldb.execute(self._topology.create_group(names, offset, int(kept[1])))

    def _offset(self, topic: str) -> Offset:
        return "latest" if topic in self._topics else "earliest"

    def _replace_stream(self, action: ReplaceStream) -> None:
        retention = action.retention_ms
        if action.prove:
            description = self._prove_silent(action.names.stream)
            if not self._reads_shared(description):
                raise KsqlRefused(f"stream {action.names.stream} exists and is not ours, not touched")
            definition = self._topology.definition_of(description.statement)
            retention = definition.retention_ms if definition else None
            if definition and set(self._topology.group_differences(definition, action.names)) - {"filter"}:
                self._recreate_stream(RecreateStream(action.names, action.why, retention))
                return
        self._ksqldb.execute(self._topology.replace_group(action.names, retention))

    def _prove_silent(self, name: str) -> Description:
        """Ask ksqlDB directly whether the stream has lost its query."""
        description = self._describe(name)
        if description.write_queries:
            raise KsqlConflict(f"stream {name} has its query after all")
        return description

    def _recreate_stream(self, action: RecreateStream) -> None:
        """Drop and create; what the lists said is asked again, for a list can be older than our own last write."""
        if action.topic_gone and action.names.topic in self._topics:
            raise KsqlConflict(f"topic {action.names.topic} is there after all")
        if not action.topic_gone and self._is_as_planned(action.names):
            raise KsqlConflict(f"stream {action.names.stream} is as it should be after all")
        self._drop(action.names.stream, delete_topic=False)
        self._create(action.names, "latest", action.retention_ms)

    def _is_as_planned(self, names: GroupNames) -> bool:
        found = self._ksqldb.describe_or_none(names.stream)
        definition = self._topology.definition_of(found.statement) if found and found.write_queries else None
        return definition is not None and self._topology.group_matches(definition, names)

    def _resume_stream(self, action: ResumeStream) -> None:
        self._ksqldb.execute(self._topology.resume(action.query_id))

    def _drop_stream(self, action: DropStream) -> None:
        self._drop(action.name, delete_topic=action.delete_topic)

    def _drop(self, name: str, *, delete_topic: bool) -> None:
        """Drop a stream of ours that nobody reads.

        ``DROP ... DELETE TOPIC`` of a stream with readers is refused by the server and deletes the topic all the same
        (measured), so its readers are asked for first.
        """
        description = self._ksqldb.describe_or_none(name)
        if description is None:
            return
        if not (self._is_shared(description) or self._reads_shared(description)):
            raise KsqlRefused(f"stream {name} is not ours, not touched")
        readers = _readers(description)
        if readers:
            raise KsqlRefused(f"stream {name} is read by {', '.join(readers)}: drop those first")
        self._ksqldb.execute(self._topology.drop(name, delete_topic=delete_topic))

    def _describe(self, name: str) -> Description:
        description = self._ksqldb.describe_or_none(name)
        if description is None:
            raise KsqlConflict(f"stream {name} is gone")
        return description

    def _is_shared(self, description: Description) -> bool:
        """Whether this is a shared stream of ours: by its name and by its form."""
        return self._topology.makes_shared(description.name, description.statement)

    def _reads_shared(self, description: Description) -> bool:
        """Whether the stream's own definition reads from a shared stream of ours: lineage, not the name."""
        return self._topology.reads_shared(description.statement)

    def _publish(self, action: PublishRegistry) -> None:
        document = action.document
        self._platform.publish_registry(document.canonical(), document.revision, action.sequence)


def _readers(description: Description) -> tuple[str, ...]:
    """What keeps a source from being dropped: sources made from it, and queries that read it."""
    return (*description.constraints, *(query.id for query in description.read_queries))
