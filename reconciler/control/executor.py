"""Doing what was planned, in order: every write of the operator happens here.

Each action looks before it leaps where the plan's observation cannot be enough: whether a topic exists, whether
a stream without a query is ours, whether somebody reads what is to be dropped. One group's failure skips the rest of
that group's actions and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property

from openfactory_common.errors import KsqlConflict, KsqlError, KsqlInUse, KsqlRefused, LeaseLost
from reconciler.domain.actions import (
    Action,
    CreateService,
    CreateSharedStream,
    CreateStream,
    DropStream,
    PublishRegistry,
    RecordInstallation,
    RecreateStream,
    RemoveRegistry,
    RemoveService,
    ReplaceStream,
    Result,
    ResumeStream,
    UpdateService,
    WriteResult,
)
from reconciler.domain.installation import NAME
from reconciler.domain.names import GroupNames
from reconciler.ksqldb.api import Ksqldb
from reconciler.ksqldb.definition import Definition, definition_of
from reconciler.ksqldb.entities import Description, QueryInfo
from reconciler.ksqldb.ownership import Whose
from reconciler.ksqldb.statements import Offset, Topology
from reconciler.platforms.protocol import Platform

#: How ksqlDB says which retention an existing topic has.
_KEPT_RETENTION = re.compile(r"retention \(topic has (-?[0-9]{1,18})\)")


class Executor:
    """Applies the actions of one cycle."""

    def __init__(self, ksqldb: Ksqldb, platform: Platform, topology: Topology) -> None:
        """Write to ``ksqldb`` and ``platform``; an executor serves one cycle (it remembers the list of topics)."""
        self._ksqldb = ksqldb
        self._platform = platform
        self._topology = topology
        self._began = False
        self._write: dict[type[Action], Callable[..., object]] = {
            RecordInstallation: lambda action: platform.write_record(NAME, action.installation.fields, action.before),
            CreateSharedStream: self._create_shared,
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
        unrecorded = shared_broken = False
        for action in actions:
            blocked = action.group in broken if action.group is not None else False
            if blocked or unrecorded or (shared_broken and isinstance(action, (CreateStream, RecreateStream))):
                result = Result(action, skipped=True)
            else:
                result = self._one(action, held)
            if result.outcome is not WriteResult.OK:
                broken.add(action.group)
                unrecorded = unrecorded or isinstance(action, RecordInstallation)
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
    def _topics(self) -> Mapping[str, int]:
        return self._ksqldb.topics()

    def _create_shared(self, _: CreateSharedStream) -> None:
        """Create it under a number that no stream and no topic has had; topics outlive their streams."""
        seen = [*(stream.name for stream in self._ksqldb.streams()), *self._topics]
        following = self._topology.after(seen)
        if following.generation > 1:
            last = replace(following, generation=following.generation - 1)
            found = self._ksqldb.describe_or_none(last.shared_name)
            if (
                found is not None
                and _made_by_query(found)
                and last.current({last.shared_name: found.statement}) == last
            ):
                raise KsqlConflict(f"stream {last.shared_name} is there after all, and has its query")
        self._topology = following
        self._ksqldb.execute(following.create_shared())
        self._began = True

    def _create_stream(self, action: CreateStream) -> None:
        """Start at the beginning, unless the topic may have had what is there.

        With ``earliest`` nothing is lost between an asset's mapping and the creation of its stream; over an existing
        topic it would write everything that the shared topic still holds a second time, into live clients. A shared
        stream that was made just now holds nothing of before.
        """
        kept = action.names.topic in self._topics and not (self._began or action.starved)
        self._create(action.names, "latest" if kept else "earliest", None)

    def _create(self, names: GroupNames, offset: Offset, retention_ms: int | None) -> None:
        """Create the stream, over a topic of another retention with that one: only Kafka can change it."""
        try:
            self._ksqldb.execute(self._topology.create_group(names, offset, retention_ms))
        except KsqlError as error:
            kept = _KEPT_RETENTION.search(" ".join(str(error).split()))
            if kept is None or int(kept[1]) == retention_ms:
                raise
            self._ksqldb.execute(self._topology.create_group(names, offset, int(kept[1])))

    def _replace_stream(self, action: ReplaceStream) -> None:
        """Give a stream that has lost its query another one; first it is asked whether it has, and whose it is."""
        definition = self._need_silent(action.names.stream)
        if self._topology.group_differences(definition, action.names):
            starved = not self._has_query(definition.source)
            self._recreate_stream(RecreateStream(action.names, action.why, definition.retention_ms, starved=starved))
            return
        self._ksqldb.execute(self._topology.replace_group(action.names, definition.retention_ms))

    def _need_silent(self, name: str) -> Definition:
        description = self._ksqldb.describe_or_none(name)
        if description is None:
            raise KsqlConflict(f"stream {name} is gone")
        if _made_by_query(description):
            raise KsqlConflict(f"stream {name} has its query after all")
        return self._need_group(description)

    def _need_group(self, description: Description) -> Definition:
        """Return the definition of a group's stream of ours."""
        whose = self._topology.ownership(description.name, description.statement)
        definition = definition_of(description.statement)
        if whose.whose is not Whose.GROUP or definition is None:
            raise KsqlRefused(f"stream {description.name} {whose.text}: not touched")
        return definition

    def _has_query(self, name: str) -> bool:
        description = self._ksqldb.describe_or_none(name)
        return description is not None and bool(_made_by_query(description))

    def _recreate_stream(self, action: RecreateStream) -> None:
        """Drop and create; what the lists said is asked again, for a list can be older than our own last write."""
        if action.topic_gone and action.names.topic in self._topics:
            raise KsqlConflict(f"topic {action.names.topic} is there after all")
        if not action.topic_gone and self._is_as_planned(action.names):
            raise KsqlConflict(f"stream {action.names.stream} is as it should be after all")
        self._drop(action.names.stream, delete_topic=False)
        self._create(action.names, "earliest" if action.starved else "latest", action.retention_ms)

    def _is_as_planned(self, names: GroupNames) -> bool:
        found = self._ksqldb.describe_or_none(names.stream)
        if found is None or not _made_by_query(found):
            return False
        return not self._topology.group_differences(self._need_group(found), names)

    def _resume_stream(self, action: ResumeStream) -> None:
        self._ksqldb.execute(self._topology.resume(action.query_id))

    def _drop_stream(self, action: DropStream) -> None:
        self._drop(action.name, delete_topic=action.delete_topic)

    def _drop(self, name: str, *, delete_topic: bool) -> None:
        """Drop a stream of ours that nobody reads.

        ``DROP ... DELETE TOPIC`` of a stream with readers is refused by the server and deletes the topic all the same
        (measured), so its readers are asked for first. A topic that another source is over stays.
        """
        description = self._ksqldb.describe_or_none(name)
        if description is None:
            return
        whose = self._topology.ownership(name, description.statement)
        if whose.whose not in (Whose.SHARED, Whose.GROUP):
            raise KsqlRefused(f"stream {name} {whose.text}: not touched")
        readers = _readers(description)
        if readers:
            raise KsqlInUse(f"stream {name} is read by {', '.join(readers)}: drop those first")
        writers = [query.id for query in description.write_queries if query not in _made_by_query(description)]
        if writers:
            raise KsqlInUse(f"stream {name} is also written by {', '.join(writers)}: terminate those first")
        delete_topic = delete_topic and not self._is_shared_topic(name, description.topic)
        self._ksqldb.execute(self._topology.drop(name, delete_topic=delete_topic))

    def _is_shared_topic(self, name: str, topic: str) -> bool:
        """Whether another stream or table is over the same topic."""
        sources = (*self._ksqldb.streams(), *self._ksqldb.tables())
        return any(one.topic == topic and one.name != name for one in sources)

    def _publish(self, action: PublishRegistry) -> None:
        document = action.document
        self._platform.publish_registry(document.canonical(), document.revision, action.sequence)


def _made_by_query(description: Description) -> tuple[QueryInfo, ...]:
    """Return the query that a source was made with, if it still runs; an INSERT INTO it is not that."""
    return tuple(query for query in description.write_queries if query.text.lstrip()[:6].upper() != "INSERT")


def _readers(description: Description) -> tuple[str, ...]:
    """What keeps a source from being dropped: sources made from it, and queries that read it."""
    return (*description.constraints, *(query.id for query in description.read_queries))
