"""What the server knows: sources, topics, persistent queries, and the outcome of every command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from demo.ksqldb.ast import SqlType
from demo.ksqldb.errors import ServerFault, StatementFault
from demo.ksqldb.topics import Record, Topic
from demo.ksqldb.values import PSEUDO_COLUMNS, BadValue, Key, Row, Schema, decoder

Properties = dict[str, Any]


class Consumer(Protocol):
    """Receives every decoded change of a source."""

    def change(self, key: Key, row: Row | None, record: Record) -> None:
        """Take one change; a `row` of None deletes the key of a table."""
        ...


@dataclass
class Source:
    """A stream or a table over a topic. A table keeps its newest rows, oldest change first."""

    name: str
    kind: str
    schema: Schema
    topic: Topic
    statement: str
    value_format: str = "JSON"
    key_format: str = "KAFKA"
    derived: bool = False
    read_only: bool = False
    state: dict[Key, Row] = field(default_factory=dict)
    consumers: list[Consumer] = field(default_factory=list)
    created_from: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Prepare how records are decoded."""
        self._cells: list[tuple[str, Callable[[Any], Any]] | None] = [
            None if each.key else (each.name, decoder(each.type)) for each in self.schema.columns
        ]
        key = self.schema.key_position
        self._key: Callable[[Any], Any] = (
            decoder(self.schema.columns[key].type) if key is not None else (lambda value: value)
        )

    @property
    def is_table(self) -> bool:
        """Whether this is a table."""
        return self.kind == "TABLE"

    @property
    def width(self) -> int:
        """The number of values in a row: pseudo columns and columns."""
        return len(PSEUDO_COLUMNS) + len(self.schema.columns)

    def find(self, name: str) -> tuple[int, SqlType] | None:
        """Where a column or pseudo column stands in a row, and its type; None without such a column."""
        columns = (*PSEUDO_COLUMNS, *self.schema.columns)
        return next(((index, each.type) for index, each in enumerate(columns) if each.name == name), None)

    def open(self) -> None:
        """Start to follow the topic; a table first reads what the topic still holds."""
        if self.is_table:
            for record in self.topic.since(0):
                self._keep(record)
        self.topic.readers.append(self)

    def become(self, other: Source) -> None:
        """Take another definition (CREATE OR REPLACE) and keep the identity: readers hold on to this object."""
        self.schema, self.statement = other.schema, other.statement
        self.created_from, self.derived = other.created_from, other.derived
        self.__post_init__()
        if self.is_table:
            self.state.clear()
            for record in self.topic.since(0):
                self._keep(record)

    def close(self) -> None:
        """Stop following the topic."""
        if self in self.topic.readers:
            self.topic.readers.remove(self)

    def decode(self, record: Record) -> tuple[Key, Row | None]:
        """The key and the row of a record; a row of None is a deletion.

        Raises:
            BadValue: the record does not fit the schema.
        """
        key = self._key(record.key)
        if record.value is None:
            return key, None
        value = record.value
        cells = (
            key if cell is None else cell[1](value[cell[0]] if cell[0] in value else _folded(value, cell[0]))
            for cell in self._cells
        )
        return key, (record.timestamp, 0, record.offset, *cells)  # a topic is one log: partition 0

    def _keep(self, record: Record) -> tuple[Key, Row | None] | None:
        """Decode and, for a table, apply; None when ksqlDB would skip the record."""
        try:
            key, row = self.decode(record)
        except BadValue:
            return None
        if not self.is_table:
            return None if row is None else (key, row)
        if key is None:
            return None
        known = self.state.pop(key, None)
        if row is not None:
            self.state[key] = row
        elif known is None:
            return None
        return key, row

    def accept(self, record: Record) -> None:
        """Take a record of the topic and tell every consumer."""
        change = self._keep(record)
        if change is None:
            return
        for consumer in tuple(self.consumers):
            consumer.change(*change, record)


def _folded(value: dict[str, Any], name: str) -> Any:
    """A member by its name in any case: ksqlDB matches JSON names case-insensitively."""
    wanted = name.upper()
    return next((each for member, each in value.items() if member.upper() == wanted), None)


class Runnable(Protocol):
    """A running persistent query."""

    id: str
    text: str
    sink: Source
    source_names: tuple[str, ...]
    internal_topics: tuple[str, ...]
    paused: bool
    properties: Properties
    written: int
    silent: str

    def consumed(self) -> list[tuple[Topic, int]]:
        """The topics that it reads, each with the offset of the next record that it will read."""
        ...

    def hush(self, how: str) -> None:
        """Let it run and write nothing (``drops``), or read nothing (``stuck``); ``""`` ends that."""
        ...

    def stop(self) -> None:
        """End for good."""
        ...

    def pause(self) -> None:
        """Stop reading and remember where."""
        ...

    def resume(self) -> None:
        """Read on, beginning with what came meanwhile."""
        ...


@dataclass(frozen=True)
class CommandStatus:
    """The outcome of a command as /status shows it."""

    status: str
    message: str
    query_id: str | None = None

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        return {"status": self.status, "message": self.message, "queryId": self.query_id}


@dataclass
class Catalog:
    """All state of the server."""

    sources: dict[str, Source] = field(default_factory=dict)
    topics: dict[str, Topic] = field(default_factory=dict)
    queries: dict[str, Runnable] = field(default_factory=dict)
    statuses: dict[str, CommandStatus] = field(default_factory=dict)
    next_sequence: int = 0
    last_plan: int = -1

    def source(self, name: str) -> Source:
        """A source by its stored name.

        Raises:
            StatementFault: no such source, in the words of FROM.
        """
        if name not in self.sources:
            raise StatementFault(f"Exception while preparing statement: {name} does not exist.{self.case_hint(name)}")
        return self.sources[name]

    def case_hint(self, name: str) -> str:
        """The hint where a source differs in case only; empty otherwise."""
        twin = next((each for each in self.sources if each.upper() == name.upper() and each != name), None)
        if twin is None:
            return ""
        if twin == twin.upper():
            return f"\nDid you mean {twin}? Hint: try removing double quotes from the source name."
        hint = "wrap the source name in double quotes to make it case-sensitive."
        return f'\nDid you mean "{twin}"? Hint: {hint}'

    def topic(self, name: str) -> Topic:
        """A topic by its name.

        Raises:
            ServerFault: it was deleted under a source.
        """
        if name not in self.topics:
            reason = "This server does not host this topic-partition."
            raise ServerFault(f"Failed to Describe Kafka Topic(s): [{name}]\nCaused by: {reason}")
        return self.topics[name]

    def readers(self, name: str) -> list[str]:
        """Sources that were created from this one; they block its DROP even when their query was terminated."""
        return [each.name for each in self.sources.values() if name in each.created_from]

    def reading(self, name: str) -> list[Runnable]:
        """Queries that read from a source."""
        return [each for each in self.queries.values() if name in each.source_names]

    def writing(self, name: str) -> list[Runnable]:
        """Queries that write into a source."""
        return [each for each in self.queries.values() if each.sink.name == name]

    def peek_query_number(self) -> int:
        """The number that the next query's id gets: the offset after the last command that changed the catalogue."""
        return self.last_plan + 1

    def advance(self, *, plan: bool) -> int:
        """Take the sequence number of a command; TERMINATE, PAUSE and RESUME do not move the query numbers."""
        sequence = self.next_sequence
        self.next_sequence += 2  # the transaction marker of each command takes an offset of its own
        if plan:
            self.last_plan = sequence
        return sequence
