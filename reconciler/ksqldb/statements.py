"""The SQL of our streams: one shared join, one filter for each group.

One join of the assets with the UNS map and a filter of its result cost a topic and about 5 MB of memory for each group;
a join for each group costs three topics, a copy of the whole map and twice the time to create. Only a filter can be
replaced in place. The statements were measured against a real server (see docs/ksqldb.md). Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from openfactory_common.ksqldb.levels import Level, group_sql
from openfactory_common.ksqldb.wire import fold_name, identifier, literal
from reconciler.domain.installation import Installation
from reconciler.domain.names import GroupNames, SharedName, fold
from reconciler.ksqldb.definition import Definition, definition_of
from reconciler.ksqldb.entities import OFFSET_RESET, Statement
from reconciler.ksqldb.ownership import GROUP_COLUMN, KEY_COLUMN, VALUE_COLUMNS, Ownership, Whose, ownership

PROPERTIES: dict[str, str | int | bool] = {
    "ksql.streams.num.stream.threads": 1,  # a topic with one partition never uses more; the default is 4 for each query
    "ksql.streams.cache.max.bytes.buffering": 0,  # a changed mapping takes effect at once, not at the next commit (2 s)
    "ksql.streams.producer.linger.ms": 0,  # 100 ms on every hop by default
    "ksql.streams.internal.leave.group.on.close": True,  # a replaced query is silent for 0.2 s, not for 45 s
}
"""Sent with every query of ours; event latency 300 -> 19 ms (measured, median)."""

_FROM_BEGINNING = {OFFSET_RESET: "earliest"}
#: The installation of definitions that are not used yet: the operator replaces it with its own.
UNBOUND = Installation("00000000")


@dataclass(frozen=True)
class Topology:
    """The streams of one installation.

    Attributes:
        assets_stream: the stream of asset events as in the settings (upper-case unless in backticks).
        join_table: the UNS map (or the raw table behind it) that events are joined with, likewise.
        level: the key in ``UNS_LEVELS`` by which assets are grouped, or several joined.
        shared_retention_ms: how long the shared topic keeps events, in milliseconds.
        group_retention_ms: how long a group's topic keeps events, in milliseconds.
        owner: of the streams; the shared stream's name begins with it.
        installation: id of the installation among those with this owner id.
        generation: of the shared stream that the groups should read, see `current`.
    """

    assets_stream: str
    join_table: str
    level: Level
    shared_retention_ms: int
    group_retention_ms: int
    owner: str = "ofa"
    installation: Installation = UNBOUND
    generation: int = 1

    @cached_property
    def shared_name(self) -> str:
        """The name of the shared stream that the groups should read."""
        return SharedName(fold(self.owner), self.installation.id, self._digest, self.generation).text

    @cached_property
    def _digest(self) -> str:
        """Hash of the shared stream's definition: a changed definition gets a stream of its own.

        The retention is part of it: ksqlDB refuses to use an existing topic that has another one.
        """
        made_of = f"{self.shared_retention_ms}\n{self._shared_select}"
        return hashlib.sha256(made_of.encode("utf-8", "surrogatepass")).hexdigest()[:8].upper()

    def current(self, made: Mapping[str, str | None]) -> Topology:
        """Return these definitions with the existing shared stream: the newest with the present definition.

        Args:
            made: every stream with the statement that made it, None where no query writes it: it still counts, because
                a server that stops lists fewer queries than it has.
        """
        found = [
            (name.generation, one)
            for one, text in made.items()
            if (name := self._parse_own(one)) is not None and (text is None or self._has_present_definition(one, text))
        ]
        return replace(self, generation=max(found)[0]) if found else self.after(made)

    def after(self, names: Iterable[str]) -> Topology:
        """Return these definitions with the next shared stream: a generation above all of these streams and topics.

        A shared stream never takes over a topic: a join that continues where another one ended would need an explicit
        offset, and an explicit ``latest`` empties the table side of a join too (measured: it drops every event until
        each asset is mapped again).
        """
        used = [name.generation for one in names if (name := self._parse_own(one.upper())) is not None]
        return replace(self, generation=max(used, default=0) + 1)

    def _parse_own(self, name: str) -> SharedName | None:
        """Parse the name of a shared stream with the present definition in this installation; None for any other."""
        parsed = SharedName.parse(name)
        ours = (fold(self.owner), self.installation.id, self._digest)
        return parsed if parsed and (parsed.owner, parsed.installation, parsed.digest) == ours else None

    def _has_present_definition(self, name: str, text: str) -> bool:
        definition = definition_of(text)
        return (
            definition is not None
            and self.ownership(name, text).whose is Whose.SHARED
            and not self.shared_differences(definition)
        )

    def ownership(self, name: str, text: str) -> Ownership:
        """Determine the owner of a source from its name and the statement that made it."""
        return ownership(name, text, self.owner, self.installation)

    def is_shared(self, name: str) -> bool:
        """Whether this is the name of a shared stream of ours, with any definition; a name alone proves nothing."""
        parsed = SharedName.parse(name)
        return parsed is not None and parsed.owner == fold(self.owner) and self.installation.owns(parsed.installation)

    @cached_property
    def _shared_select(self) -> str:
        # Explicit aliases: "SELECT s.*" in a join prefixes every column with S_. The key column is not part of the
        # record's value, so AS_VALUE puts the asset there a second time.
        columns = [
            f"S.ASSET_UUID AS {KEY_COLUMN}",
            "AS_VALUE(S.ASSET_UUID) AS `asset_uuid`",
            *(f"S.{name.upper()} AS `{name}`" for name in VALUE_COLUMNS),
            f"{group_sql(self.level, 'H.')} AS {GROUP_COLUMN}",
        ]
        sides = f"FROM {identifier(fold_name(self.assets_stream))} S JOIN {identifier(fold_name(self.join_table))} H"
        return f"SELECT {', '.join(columns)} {sides} ON S.ASSET_UUID = H.ASSET_UUID EMIT CHANGES"

    def create_shared(self) -> Statement:
        """Return the statement that creates the shared stream, without an offset.

        Without one its stream side begins now and its table side has the whole map; ``earliest`` would replay all
        that the events' topic still has, ``latest`` would apply to the table side too.
        """
        name = self.shared_name
        text = f"CREATE STREAM {identifier(name)} {self._with(name.lower(), self.shared_retention_ms)}"
        return create_statement(f"{text} AS {self._shared_select};", "create", name)

    def create_group(self, names: GroupNames, retention_ms: int | None = None) -> Statement:
        """Return the statement that creates a group's stream, from the beginning of the shared stream.

        So no event is lost, wherever another stream of the group has ended. What the group's topic has already is
        written a second time; the group service delivers it once. A filter has no table side, so an explicit offset is
        safe here.

        Args:
            names: the group's names.
            retention_ms: of an existing topic, if known; None for the configured one.
        """
        text = f"CREATE STREAM {self._group(names, retention_ms)}"
        return create_statement(text, "create", names.stream, _FROM_BEGINNING)

    def replace_group(self, names: GroupNames, retention_ms: int | None = None) -> Statement:
        """Return the statement that replaces the definition of a group's stream.

        A running query continues at its offset. After a TERMINATE the query is a new one (measured), which begins as
        that of a new stream does.

        Args:
            names: the group's names.
            retention_ms: of the stream's present definition: the server refuses any other; None for the configured
                one.
        """
        text = f"CREATE OR REPLACE STREAM {self._group(names, retention_ms)}"
        return create_statement(text, "replace", names.stream, _FROM_BEGINNING)

    def drop(self, stream: str, *, delete_topic: bool = False) -> Statement:
        """Return the statement that drops a stream together with the query that writes it.

        With ``delete_topic`` the topic is deleted first, even where the server then refuses the DROP because of
        readers: make sure that there are none.
        """
        text = f"DROP STREAM {identifier(stream)}{' DELETE TOPIC' if delete_topic else ''};"
        return Statement(text, verb="drop", target=stream, command_id=f"stream/{stream}/drop")

    def resume(self, query_id: str) -> Statement:
        """Return the statement that resumes a paused query."""
        text = f"RESUME {identifier(query_id)};"
        return Statement(text, verb="resume", target=query_id, command_id=f"resume/{query_id}/execute")

    def pause(self, query_id: str) -> Statement:
        """Return the statement that pauses a query; it loses nothing that its topic keeps until it is resumed."""
        text = f"PAUSE {identifier(query_id)};"
        return Statement(text, verb="pause", target=query_id, command_id=f"pause/{query_id}/execute")

    def group_differences(self, definition: Definition, names: GroupNames) -> tuple[str, ...]:
        """Return the differences between a group's stream of our form and the desired one of this group.

        Not the retention: a stream keeps that of its topic, because ksqlDB cannot change it and refuses (500) every
        statement with another one.
        """
        pairs = {
            "source": (definition.source, self.shared_name),
            "group": (definition.filter_literal, names.group),
            "topic": (definition.topic, names.topic),
        }
        return tuple(what for what, (found, wanted) in pairs.items() if found != wanted)

    def shared_differences(self, definition: Definition) -> tuple[str, ...]:
        """Return the differences between a shared stream and ours, its source of events included."""
        wanted = definition_of(self.create_shared().sql)
        assert wanted is not None  # noqa: S101 - our own text
        pairs = {
            "source": (definition.source, wanted.source),
            "columns": (definition.columns, wanted.columns),
            "join": (definition.join, wanted.join),
        }
        return tuple(what for what, (found, ours) in pairs.items() if found != ours)

    def _group(self, names: GroupNames, retention_ms: int | None) -> str:
        columns = ", ".join((KEY_COLUMN, "`asset_uuid`", *(f"`{name}`" for name in VALUE_COLUMNS)))
        retention = self.group_retention_ms if retention_ms is None else retention_ms
        head = f"{identifier(names.stream)} {self._with(names.topic, retention)} AS SELECT {columns}"
        where = f"{GROUP_COLUMN} = {literal(names.group)}"
        return f"{head} FROM {identifier(self.shared_name)} WHERE {where} EMIT CHANGES;"

    @staticmethod
    def _with(topic: str, retention_ms: int) -> str:
        # Explicit, because a derived topic otherwise inherits the retention of its source.
        return f"WITH (KAFKA_TOPIC={literal(topic)}, VALUE_FORMAT='JSON', RETENTION_MS={retention_ms})"


def create_statement(text: str, verb: str, name: str, offset: Mapping[str, str] | None = None) -> Statement:
    """Return a statement that creates or replaces a stream, with the properties of every query of ours."""
    return Statement(text, {**(offset or {}), **PROPERTIES}, verb, name, f"stream/`{name}`/create")
