"""The SQL of our streams: one shared join, one filter for each group.

Joining the assets with the UNS map once, and filtering the result, costs a topic and about 5 MB of memory for each
group; a join for each group costs three topics, a copy of the whole map and twice the time to create. Only a filter
can be replaced in place. The statements are the ones that were measured against a real server (see docs/ksqldb.md).

All text is made here; nothing here does I/O.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from openfactory_common.ksqldb.levels import Level, group_sql
from openfactory_common.ksqldb.wire import identifier, literal, stored
from reconciler.domain.installation import Installation
from reconciler.domain.names import GroupNames, SharedName, folded
from reconciler.ksqldb.definition import Definition, definition_of
from reconciler.ksqldb.ownership import GROUP_COLUMN, KEY_COLUMN, VALUE_COLUMNS, Ownership, Whose, ownership
from reconciler.ksqldb.statement import OFFSET_RESET, Statement

Offset = Literal["earliest", "latest"]

PROPERTIES: dict[str, str | int | bool] = {
    "ksql.streams.num.stream.threads": 1,  # a topic of one partition never uses more; the default is 4 for each query
    "ksql.streams.cache.max.bytes.buffering": 0,  # a changed mapping counts at once, not at the next commit (2 s)
    "ksql.streams.producer.linger.ms": 0,  # 100 ms on every hop by default
    "ksql.streams.internal.leave.group.on.close": True,  # a replaced query is silent for 0.2 s, not for 45 s
}
"""Sent with every query of ours; event latency 300 -> 19 ms (measured, median)."""

#: The installation of definitions that nothing is made from yet: the operator puts its own in its place.
UNBOUND = Installation("00000000")


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
        installation: which of those with this owner id.
        generation: of the shared stream that the groups are to read, see `current`.
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
        """The name of the shared stream that the groups are to read."""
        return SharedName(folded(self.owner), self.installation.id, self._digest, self.generation).text

    @cached_property
    def _digest(self) -> str:
        """Hash of the shared stream's definition: another definition stands beside it.

        The retention is part of it: ksqlDB refuses to use an existing topic that has another one.
        """
        made_of = f"{self.shared_retention_ms}\n{self._shared_select}"
        return hashlib.sha256(made_of.encode("utf-8", "surrogatepass")).hexdigest()[:8].upper()

    def current(self, made: Mapping[str, str | None]) -> Topology:
        """Return these definitions with the shared stream that there is: the newest of today's definition.

        Args:
            made: every stream with the statement that made it, None where no query writes it: such a one still
                counts, for a server that stops lists fewer queries than it has.
        """
        found = [
            (name.generation, one)
            for one, text in made.items()
            if (name := self._own(one)) is not None and (text is None or self._is_todays(one, text))
        ]
        return replace(self, generation=max(found)[0]) if found else self.after(made)

    def after(self, names: Iterable[str]) -> Topology:
        """Return these definitions with the next shared stream: above any that one of these streams or topics is of.

        A shared stream never takes over a topic: a join that is to go on where another one ended would need an
        explicit offset, and an explicit ``latest`` empties the table side of a join too (measured: it drops every
        event until each asset is mapped again).
        """
        seen = [name.generation for one in names if (name := self._own(one.upper())) is not None]
        return replace(self, generation=max(seen, default=0) + 1)

    def _own(self, name: str) -> SharedName | None:
        """Take a name apart that is one of today's definition in this installation."""
        parsed = SharedName.parse(name)
        ours = (folded(self.owner), self.installation.id, self._digest)
        return parsed if parsed and (parsed.owner, parsed.installation, parsed.digest) == ours else None

    def _is_todays(self, name: str, text: str) -> bool:
        definition = definition_of(text)
        return (
            definition is not None
            and self.ownership(name, text).whose is Whose.SHARED
            and not self.shared_differences(definition)
        )

    def ownership(self, name: str, text: str) -> Ownership:
        """Say whose a source is, from its name and the statement that made it."""
        return ownership(name, text, self.owner, self.installation)

    def is_shared(self, name: str) -> bool:
        """Whether this is the name of a shared stream of ours, of whatever definition; a name alone proves nothing."""
        parsed = SharedName.parse(name)
        return parsed is not None and parsed.owner == folded(self.owner) and self.installation.owns(parsed.installation)

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

    def create_shared(self) -> Statement:
        """Return the statement that creates the shared stream, without an offset.

        Without one its stream side begins now and its table side has the whole map; ``earliest`` would replay all
        that the events' topic still holds, ``latest`` would count for the table side too.
        """
        name = self.shared_name
        text = f"CREATE STREAM {identifier(name)} {self._with(name.lower(), self.shared_retention_ms)}"
        return Statement(
            f"{text} AS {self._shared_select};", dict(PROPERTIES), "create", name, f"stream/`{name}`/create"
        )

    def create_group(self, names: GroupNames, offset: Offset, retention_ms: int | None = None) -> Statement:
        """Return the statement that creates a group's stream.

        Args:
            names: the group's names.
            offset: ``earliest`` for a new one, and after a shared stream that had lost its query (nothing that came
                before the creation is lost); ``latest`` where the topic has had its events until now (no replay into
                live clients). A filter has no table side, so an explicit offset is safe here.
            retention_ms: that of a topic that exists, where it is known; None for the configured one.
        """
        text = f"CREATE STREAM {self._group(names, retention_ms)}"
        return _query(text, "create", names.stream, offset)

    def replace_group(self, names: GroupNames, retention_ms: int | None = None) -> Statement:
        """Return the statement that gives a group's stream our definition.

        While its query runs it goes on where that was. After a TERMINATE its query is a new one, which begins now
        (measured): what came in between is not forwarded, ``earliest`` would write all that the source holds again.

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
        readers: be sure that there are none.
        """
        text = f"DROP STREAM {identifier(stream)}{' DELETE TOPIC' if delete_topic else ''};"
        return Statement(text, verb="drop", target=stream, command_id=f"stream/{stream}/drop")

    def resume(self, query_id: str) -> Statement:
        """Return the statement that lets a paused query go on."""
        text = f"RESUME {identifier(query_id)};"
        return Statement(text, verb="resume", target=query_id, command_id=f"resume/{query_id}/execute")

    def group_differences(self, definition: Definition, names: GroupNames) -> tuple[str, ...]:
        """Return in what a group's stream of our form differs from the one that this group should have.

        Not the retention: a stream keeps that with which its topic was made, because ksqlDB cannot change it and
        refuses (500) every statement that names another.
        """
        pairs = {
            "source": (definition.source, self.shared_name),
            "group": (definition.filter_literal, names.group),
            "topic": (definition.topic, names.topic),
        }
        return tuple(what for what, (found, wanted) in pairs.items() if found != wanted)

    def shared_differences(self, definition: Definition) -> tuple[str, ...]:
        """Return in what a shared stream differs from ours; its name and source of events included."""
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


def _query(text: str, verb: str, name: str, offset: Offset) -> Statement:
    return Statement(text, {OFFSET_RESET: offset, **PROPERTIES}, verb, name, f"stream/`{name}`/create")
