"""The SQL of our streams: one shared join, one filter for each group.

Joining the assets with the UNS map once, and filtering the result, costs a topic and about 5 MB of memory for each
group; a join for each group costs three topics, a copy of the whole map and twice the time to create. Only a filter
can be replaced in place. The statements are the ones that were measured against a real server (see docs/ksqldb.md).

All text is made here; nothing here does I/O.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from reconciler.ksqldb.definition import Definition, definition_of
from reconciler.ksqldb.levels import Level, group_sql
from reconciler.ksqldb.statement import Statement
from reconciler.ksqldb.wire import identifier, literal, stored
from reconciler.names import GroupNames

Offset = Literal["earliest", "latest"]

PROPERTIES: dict[str, str | int | bool] = {
    "ksql.streams.num.stream.threads": 1,  # a topic of one partition never uses more; the default is 4 for each query
    "ksql.streams.cache.max.bytes.buffering": 0,  # a changed mapping counts at once, not at the next commit (2 s)
    "ksql.streams.producer.linger.ms": 0,  # 100 ms on every hop by default
    "ksql.streams.internal.leave.group.on.close": True,  # a replaced query is silent for 0.2 s, not for 45 s
}
"""Sent with every query of ours; event latency 300 -> 19 ms (measured, median)."""

VALUE_COLUMNS = ("id", "value", "type", "tag", "timestamp")
"""The columns of the assets' stream that events carry, besides ``asset_uuid``; the JSON keys of a record."""

GROUP_COLUMN = "UNS_GROUP"
KEY_COLUMN = "ASSET_KEY"


@dataclass(frozen=True)
class Topology:
    """The streams of one installation.

    Attributes:
        assets_stream: the stream of asset events, as a person writes it (upper-case unless in backticks).
        join_table: the UNS map (or the raw table behind it) that events are joined with, likewise.
        level: the key in ``UNS_LEVELS`` by which assets are grouped, or several joined.
        shared_retention_ms: how long the shared topic keeps events, in milliseconds.
        group_retention_ms: how long a group's topic keeps events, in milliseconds.
        owner: whose streams these are; begins the shared stream's name.
    """

    assets_stream: str
    join_table: str
    level: Level
    shared_retention_ms: int
    group_retention_ms: int
    owner: str = "ofa"

    @cached_property
    def shared_prefix(self) -> str:
        """How the names of all our shared streams begin, whatever their definition."""
        return re.sub(r"[^A-Z0-9_]", "_", self.owner.upper()) + "_ASSETS_WITH_UNS_"

    @cached_property
    def shared_name(self) -> str:
        """The shared stream's name, with a hash of its definition: another definition stands beside it.

        The retention is part of it: ksqlDB refuses to use an existing topic that has another one.
        """
        made_of = f"{self.shared_retention_ms}\n{self._shared_select}"
        digest = hashlib.sha256(made_of.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        return self.shared_prefix + digest.upper()

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
        sides = f"FROM {identifier(stored(self.assets_stream))} S JOIN {identifier(stored(self.join_table))} H"
        return f"SELECT {', '.join(columns)} {sides} ON S.ASSET_UUID = H.ASSET_UUID EMIT CHANGES"

    def create_shared(self, offset: Offset = "earliest") -> Statement:
        """Return the statement that creates the shared stream.

        Args:
            offset: ``earliest`` for a new one (the first event that its source still has), ``latest`` over a topic
                that exists already (no replay into the groups' streams).
        """
        name = self.shared_name
        text = f"CREATE STREAM {identifier(name)} {self._with(name.lower(), self.shared_retention_ms)}"
        return _query(f"{text} AS {self._shared_select};", "create", name, offset)

    def is_shared(self, name: str) -> bool:
        """Whether this is the name of a shared stream of ours, of this or an earlier definition."""
        return self._shared_names.fullmatch(name) is not None

    @cached_property
    def _shared_names(self) -> re.Pattern[str]:
        return re.compile(re.escape(self.shared_prefix) + "[0-9A-F]{8}")

    def is_shared_form(self, text: str) -> bool:
        """Whether a statement joins as our shared streams do: with one table, and carrying the group."""
        definition = definition_of(text)
        return definition is not None and definition.join is not None and GROUP_COLUMN in text.upper()

    def makes_shared(self, name: str, text: str) -> bool:
        """Whether ``text`` made ``name`` as a shared stream of ours: a name alone never makes anything ours."""
        return self.is_shared(name) and self.is_shared_form(text)

    def reads_shared(self, text: str) -> bool:
        """Whether a statement reads from a shared stream of ours: lineage, whatever the name of what it makes."""
        definition = definition_of(text)
        return definition is not None and self.is_shared(definition.source)

    def create_group(self, names: GroupNames, offset: Offset, retention_ms: int | None = None) -> Statement:
        """Return the statement that creates a group's stream.

        Args:
            names: the group's names.
            offset: ``earliest`` for a new one (nothing between mapping and creation is lost), ``latest`` over a topic
                that exists already (no replay into live clients).
            retention_ms: that of a topic that exists, where it is known; None for the configured one.
        """
        text = f"CREATE STREAM {self._group(names, retention_ms)}"
        return _query(text, "create", names.stream, offset)

    def replace_group(self, names: GroupNames, retention_ms: int | None = None) -> Statement:
        """Return the statement that gives a group's stream our definition; it goes on where it was.

        Args:
            names: the group's names.
            retention_ms: as in the stream's present definition: the server refuses any other; None for the
                configured one.
        """
        text = f"CREATE OR REPLACE STREAM {self._group(names, retention_ms)}"
        return _query(text, "replace", names.stream, "latest")

    def drop(self, stream: str, *, delete_topic: bool = False) -> Statement:
        """Return the statement that drops a stream together with the query that writes it.

        With ``delete_topic`` the topic is deleted first, even where the server then refuses the DROP because of
        readers: be sure that there are none, and never say it of the shared stream.
        """
        text = f"DROP STREAM {identifier(stream)}{' DELETE TOPIC' if delete_topic else ''};"
        return Statement(text, verb="drop", target=stream, command_id=f"stream/{stream}/drop")

    def resume(self, query_id: str) -> Statement:
        """Return the statement that lets a paused query go on."""
        text = f"RESUME {identifier(query_id)};"
        return Statement(text, verb="resume", target=query_id, command_id=f"resume/{query_id}/execute")

    def definition_of(self, text: str) -> Definition | None:
        """Take a definition apart as the server shows it; None where it is not a CREATE STREAM ... AS SELECT."""
        return definition_of(text)

    def group_differences(self, definition: Definition, names: GroupNames) -> tuple[str, ...]:
        """Return in what a group's stream differs from ours: source, filter, columns, topic.

        Not the retention: a stream keeps that with which its topic was made, because ksqlDB cannot change it and
        refuses (500) every statement that names another; see ``retention_differs``.
        """
        wanted = _wanted(self, names)
        return _differences(definition, wanted) if wanted else ()

    def retention_differs(self, definition: Definition) -> bool:
        """Whether a group's topic was made with another retention than the configured one; only Kafka can change it."""
        return definition.retention_ms not in (None, self.group_retention_ms)

    def group_matches(self, definition: Definition, names: GroupNames) -> bool:
        """Whether a group's stream is defined as ours."""
        return not self.group_differences(definition, names)

    def shared_differences(self, definition: Definition) -> tuple[str, ...]:
        """Return in what the shared stream differs from ours."""
        wanted = definition_of(self.create_shared().sql)
        return _differences(definition, wanted) if wanted else ()

    def shared_matches(self, definition: Definition) -> bool:
        """Whether the shared stream is defined as ours."""
        return not self.shared_differences(definition)

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


@lru_cache(maxsize=4096)
def _wanted(topology: Topology, names: GroupNames) -> Definition | None:
    """Our own definition of a group's stream: the same in every cycle."""
    return definition_of(topology.create_group(names, "latest").sql)


def _query(text: str, verb: str, name: str, offset: Offset) -> Statement:
    properties = {"ksql.streams.auto.offset.reset": offset, **PROPERTIES}
    return Statement(text, properties, verb, name, f"stream/`{name}`/create")


def _differences(found: Definition, wanted: Definition) -> tuple[str, ...]:
    pairs = {
        "source": (found.source, wanted.source),
        "filter": (found.filter, wanted.filter),
        "columns": (
            (found.columns, found.join, found.rest, found.properties.get("VALUE_FORMAT", "JSON")),
            (wanted.columns, wanted.join, wanted.rest, "JSON"),
        ),
        "topic": (found.topic, wanted.topic),
    }
    return tuple(what for what, (one, other) in pairs.items() if one != other)
