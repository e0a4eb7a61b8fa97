"""Applies planned actions in order: every write of the operator to streams and services happens here.

Actions re-check their preconditions right before writing where the observation may be stale: whether a topic exists,
whose a stream without a query is, whether a stream that is to be dropped has readers. One group's failure skips the
rest of that group's actions and nothing else; that of a resume skips nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property

from openfactory_common.errors import KsqlConflict, KsqlError, KsqlInUse, KsqlRefused, LeaseLost
from reconciler.domain.actions import (
    Action,
    AdoptStream,
    CreateService,
    CreateSharedStream,
    CreateStream,
    DropStream,
    PauseStream,
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
from reconciler.domain.installation import RECORD
from reconciler.domain.names import GroupNames
from reconciler.ksqldb.api import Ksqldb
from reconciler.ksqldb.definition import Definition, definition_of
from reconciler.ksqldb.entities import Description, QueryInfo
from reconciler.ksqldb.ownership import Whose
from reconciler.ksqldb.statements import Topology
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

    def apply(self, actions: Iterable[Action], must_wait: Callable[[Action], bool]) -> Iterator[Result]:
        """Do ``actions`` one after the other and yield what became of each.

        Args:
            actions: in the order of the plan.
            must_wait: whether an action may not be done yet; it and what follows from it is skipped.

        An unexpected exception fails its action, as any other error does.
        """
        broken: set[str | None] = set()
        unrecorded = shared_broken = False
        for action in actions:
            blocked = action.group in broken if action.group is not None else False
            if blocked or unrecorded or (shared_broken and isinstance(action, (CreateStream, RecreateStream))):
                result = Result(action, skipped=True)
            else:
                result = self._apply_one(action, must_wait)
            if result.outcome is not WriteResult.OK:
                if not isinstance(action, ResumeStream):  # a group that wakes needs its tasks all the same
                    broken.add(action.group)
                unrecorded = unrecorded or isinstance(action, RecordInstallation)
                shared_broken = shared_broken or isinstance(action, CreateSharedStream)
            yield result

    def _apply_one(self, action: Action, must_wait: Callable[[Action], bool]) -> Result:
        try:
            if must_wait(action):
                return Result(action, skipped=True)
            self._write(action)
        except LeaseLost:
            return Result(action, skipped=True)
        except Exception as error:  # noqa: BLE001 - reported with the result; the other objects must not suffer
            return Result(action, error)
        return Result(action)

    def _write(self, action: Action) -> None:  # noqa: C901, PLR0912 - one line a kind of action
        match action:
            case RecordInstallation():
                self._platform.write_record(RECORD, action.installation.fields, action.before)
            case CreateSharedStream():
                self._create_shared()
            case CreateStream():
                self._create(action.names, None)
            case ReplaceStream():
                self._replace_stream(action)
            case RecreateStream():
                self._recreate_stream(action)
            case AdoptStream():
                self._adopt_stream(action)
            case ResumeStream():
                self._ksqldb.execute(self._topology.resume(action.query_id))
            case PauseStream():
                self._ksqldb.execute(self._topology.pause(action.query_id))
            case DropStream():
                self._drop(action.name, delete_topic=action.delete_topic)
            case CreateService():
                self._platform.create_service(action.spec)
            case UpdateService():
                self._platform.update_service(action.live, action.spec, action.failed, action.failure)
            case RemoveService():
                self._platform.remove_service(action.live)
            case PublishRegistry():
                document = action.document
                self._platform.publish_registry(document.canonical(), document.revision, action.sequence)
            case RemoveRegistry():
                self._platform.remove_registry(action.registry)
            case _:
                raise TypeError(f"no write is known for {type(action).__name__}")

    @cached_property
    def _topics(self) -> Mapping[str, int]:
        return self._ksqldb.topics()

    def _create_shared(self) -> None:
        """Create it under a number that no stream and no topic has had; topics outlive their streams."""
        taken = [*(stream.name for stream in self._ksqldb.streams()), *self._topics]
        following = self._topology.after(taken)
        if following.generation > 1:
            last = replace(following, generation=following.generation - 1)
            found = self._ksqldb.describe_or_none(last.shared_name)
            if (
                found is not None
                and _find_own_query(found)
                and last.current({last.shared_name: found.statement}) == last
            ):
                raise KsqlConflict(f"stream {last.shared_name} is there after all, and has its query")
        self._topology = following
        self._ksqldb.execute(following.create_shared())

    def _create(self, names: GroupNames, retention_ms: int | None) -> None:
        """Create the stream, over a topic of another retention with that one: only Kafka can change it."""
        try:
            self._ksqldb.execute(self._topology.create_group(names, retention_ms))
        except KsqlError as error:
            kept = _KEPT_RETENTION.search(" ".join(str(error).split()))
            if kept is None or int(kept[1]) == retention_ms:
                raise
            self._ksqldb.execute(self._topology.create_group(names, int(kept[1])))

    def _replace_stream(self, action: ReplaceStream) -> None:
        """Give a stream that has lost its query another one, after checking that it has, and whose it is."""
        name = action.names.stream
        description = self._ksqldb.describe_or_none(name)
        if description is None:
            raise KsqlConflict(f"stream {name} is gone")
        if _find_own_query(description):
            raise KsqlConflict(f"stream {name} has its query after all")
        definition = self._need_group(description)
        if self._topology.group_differences(definition, action.names):
            self._recreate_stream(RecreateStream(action.names, action.why, definition.retention_ms))
            return
        self._ksqldb.execute(self._topology.replace_group(action.names, definition.retention_ms))

    def _need_group(self, description: Description) -> Definition:
        """Return the definition of a group's stream of ours."""
        ownership = self._topology.ownership(description.name, description.statement)
        definition = definition_of(description.statement)
        if ownership.whose is not Whose.GROUP or definition is None:
            raise KsqlRefused(f"stream {description.name} {ownership.text}: not touched")
        return definition

    def _recreate_stream(self, action: RecreateStream) -> None:
        """Drop and create, after checking what the lists said: a list can be older than our own last write."""
        names = action.names
        if action.topic_gone and names.topic in self._topics:
            raise KsqlConflict(f"topic {names.topic} is there after all")
        if not action.topic_gone:
            found = self._ksqldb.describe_or_none(names.stream)
            if (
                found is not None
                and _find_own_query(found)
                and not self._topology.group_differences(self._need_group(found), names)
            ):
                raise KsqlConflict(f"stream {names.stream} is as it should be after all")
        self._drop(names.stream, delete_topic=False)
        self._create(names, action.retention_ms)

    def _adopt_stream(self, action: AdoptStream) -> None:
        """Drop the stream that a person was shown, if it is still that one, and create ours; its topic stays."""
        name = action.names.stream
        description = self._ksqldb.describe_or_none(name)
        own = [query.id for query in _find_own_query(description)] if description is not None else []
        if description is None or (own or [description.statement]) != [action.shown]:
            raise KsqlConflict(f"stream {name} changed since it was shown")
        ownership = self._topology.ownership(name, description.statement)
        if not ownership.is_users:
            raise KsqlRefused(f"stream {name} {ownership.text}: not touched")
        shared = self._ksqldb.describe_or_none(self._topology.shared_name)
        if shared is None:
            raise KsqlConflict(f"stream {self._topology.shared_name} is gone, which ours reads")
        found, wanted = (self._topics.get(topic) for topic in (action.names.topic, shared.topic))
        if found not in (None, wanted):
            raise KsqlRefused(f"topic {action.names.topic} has {found} partitions, not {wanted}: {name} is not touched")
        self._drop_unread(description, delete_topic=False)
        self._create(action.names, None)

    def _drop(self, name: str, *, delete_topic: bool) -> None:
        """Drop a stream of ours that has no readers.

        ``DROP ... DELETE TOPIC`` of a stream with readers is refused by the server and deletes the topic all the same
        (measured), so readers are looked for first. A topic that another stream or table uses is kept.
        """
        description = self._ksqldb.describe_or_none(name)
        if description is None:
            return
        ownership = self._topology.ownership(name, description.statement)
        if ownership.whose not in (Whose.SHARED, Whose.GROUP):
            raise KsqlRefused(f"stream {name} {ownership.text}: not touched")
        self._drop_unread(description, delete_topic=delete_topic)

    def _drop_unread(self, description: Description, *, delete_topic: bool) -> None:
        name = description.name
        # Sources that were made from it, and queries that read it.
        readers = (*description.constraints, *(query.id for query in description.read_queries))
        if readers:
            raise KsqlInUse(f"stream {name} is read by {', '.join(readers)}: drop those first")
        own = _find_own_query(description)
        writers = [query.id for query in description.write_queries if query not in own]
        if writers:
            raise KsqlInUse(f"stream {name} is also written by {', '.join(writers)}: terminate those first")
        delete_topic = delete_topic and not any(
            one.topic == description.topic and one.name != name
            for one in (*self._ksqldb.streams(), *self._ksqldb.tables())
        )
        self._ksqldb.execute(self._topology.drop(name, delete_topic=delete_topic))


def _find_own_query(description: Description) -> tuple[QueryInfo, ...]:
    """Return the query that a source was made with, if it still runs; an INSERT INTO it is not that."""
    return tuple(query for query in description.write_queries if query.verb != "INSERT")
