"""The values of ksqlDB's API: statements, the entities of /ksql, the answers of /info, /healthcheck and /status.

`replies` makes the answers from bytes. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from openfactory_common.ksqldb.wire import fold_name
from reconciler.ksqldb.definition import sources_of

RUNNING, PAUSED, ERROR = "RUNNING", "PAUSED", "ERROR"
FINAL_STATUSES = frozenset({"SUCCESS", "ERROR", "TERMINATED"})
"""A command with any other status (QUEUED, EXECUTING, ...) is not finished."""

#: Offset reset of a query as a property of a request; the same name, set server-wide, applies to every query.
OFFSET_RESET = "ksql.streams.auto.offset.reset"
_TRANSIENT = ("PUSH", "PULL")
_CREATED_TABLE = re.compile(
    r"\s*CREATE\s+(?:OR REPLACE )?(?:SOURCE )?TABLE\s+(?:IF NOT EXISTS )?(`[^`]+`|[A-Za-z0-9_-]+)", re.IGNORECASE
)


@dataclass(frozen=True)
class Statement:
    """Exactly one statement for ksqlDB's command topic.

    Attributes:
        sql: the text with its semicolon.
        properties: its ``streamsProperties``.
        verb: for logs and metrics: create, replace, drop, resume.
        target: the source (or query) that it changes, as stored.
        command_id: its id in /status.
    """

    sql: str
    properties: Mapping[str, str | int | bool] = field(default_factory=dict, hash=False)
    verb: str = "statement"
    target: str = ""
    command_id: str = ""

    @property
    def summary(self) -> str:
        """A few words for messages."""
        return f"{self.verb} {self.target}".strip()


@dataclass(frozen=True)
class ServerInfo:
    """``kafka_cluster_id`` with ``ksql_service_id`` identify the cluster; status is RUNNING, ERROR or DEGRADED."""

    version: str
    kafka_cluster_id: str
    ksql_service_id: str
    status: str


@dataclass(frozen=True)
class Health:
    """The server's health report. ``server_state`` is empty before ksqlDB 7.4; an unhealthy server answers 200 too."""

    healthy: bool
    kafka: bool
    metastore: bool
    command_runner: bool
    server_state: str

    @property
    def ready(self) -> bool:
        """Whether everything is healthy and the server is neither starting nor stopping."""
        parts = (self.healthy, self.kafka, self.metastore, self.command_runner)
        return all(parts) and self.server_state in ("", "READY")


@dataclass(frozen=True)
class Entity:
    """One entity of a /ksql reply.

    Attributes:
        kind: its ``@type``.
        value: a `Command` (currentStatus), `StreamInfo` tuple (streams, tables), `QueryInfo` tuple (queries),
            `Description` (sourceDescription), the number of partitions by topic (kafka_topics), the settings by name
            without those that have no value (properties), or the message of a statement that IF NOT EXISTS suppressed,
            which proves nothing about the definition (warning_entity). None for any other kind.
    """

    kind: str
    value: Any


@dataclass(frozen=True)
class CommandStatus:
    """The progress of a command."""

    status: str
    message: str

    @property
    def final(self) -> bool:
        """Whether it does not change any more."""
        return self.status in FINAL_STATUSES


@dataclass(frozen=True)
class Command:
    """A statement that was written to the command topic."""

    command_id: str
    status: CommandStatus


@dataclass(frozen=True)
class StreamInfo:
    """A line of LIST STREAMS or LIST TABLES."""

    name: str
    topic: str


@dataclass(frozen=True)
class QueryInfo:
    """A query. ``status_count`` is the number of servers in each state; only it shows PAUSED."""

    id: str
    text: str
    sinks: tuple[str, ...]
    type: str
    status_count: Mapping[str, int]

    @property
    def verb(self) -> str:
        """``CREATE`` of a query that made its source, ``INSERT`` of one that only writes into it."""
        return self.text.lstrip()[:6].upper()

    @property
    def paused(self) -> bool:
        """Whether it was paused on any server."""
        return self.status_count.get(PAUSED, 0) > 0


@dataclass(frozen=True)
class Consumed:
    """How far a query has read a topic, summed over its partitions: ``end`` records exist, ``read`` are read."""

    end: int
    read: int


@dataclass(frozen=True)
class Description:
    """The answer to DESCRIBE: a source.

    Attributes:
        name: as stored.
        kind: STREAM or TABLE.
        topic: the Kafka topic behind it.
        statement: its DDL, as the server renders it.
        write_queries: the queries that write it; empty when its query was terminated.
        read_queries: the queries that read from it.
        constraints: the sources that were created from it, which block its DROP.
        consumed: how far the queries that write it have read their topics; only with EXTENDED, and only complete sums.
        tells: the server reports how far its queries have read; a query that has read nothing is not in ``consumed``.
        keys: its key columns, each with its type.
        written: messages that the asked server wrote into it since its start; None where it does not report them.
    """

    name: str
    kind: str
    topic: str
    statement: str
    write_queries: tuple[QueryInfo, ...]
    read_queries: tuple[QueryInfo, ...]
    constraints: tuple[str, ...]
    consumed: Mapping[str, Consumed] = field(default_factory=dict)
    tells: bool = False
    written: int | None = None
    keys: Mapping[str, str] = field(default_factory=dict)


def find_not_running(listed: Iterable[QueryInfo], tables: Collection[str], is_ours: Callable[[QueryInfo], bool]) -> str:
    """Return which query of ours or of the UNS map does not run on every server, and how; ``""`` where all do.

    Of several servers each holds a part of the UNS map. While one is away the others answer a pull query with 200,
    complete and healthy, and only the rows of their own parts (measured: 1,371 of 2,000, for up to 64 s, 0 for some of
    them). Only LIST QUERIES shows it: ``statusCount`` has a server that does not answer (``UNRESPONSIVE``).

    Args:
        listed: LIST QUERIES.
        tables: names of the tables that groups are read from, as stored.
        is_ours: whether a query writes a stream of ours. One of ours may be paused on all servers: it is resumed.
    """
    queries = [query for query in listed if query.type not in _TRANSIENT]
    feeding = _find_feeding(queries, tables)
    found = []
    for query in queries:
        states = {state for state, number in query.status_count.items() if number}
        is_paused = states == {PAUSED} and query.id not in feeding
        if (query.id in feeding or is_ours(query)) and states != {RUNNING} and not is_paused:
            total, counts = sum(query.status_count.values()), sorted(query.status_count.items())
            wrong = [f"{state} on {number} of {total} servers" for state, number in counts if state != RUNNING]
            found.append(f"query {query.id} is {' and '.join(wrong) or 'on no server'}")
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{min(found)}{more}" if found else ""


def count_servers(listed: Iterable[QueryInfo]) -> int:
    """Return on how many servers queries run; a transient query runs on the one that was asked for it."""
    return max((sum(query.status_count.values()) for query in listed if query.type not in _TRANSIENT), default=0)


def _find_feeding(queries: Iterable[QueryInfo], tables: Collection[str]) -> set[str]:
    """Return the ids of the queries that write one of ``tables``, or what such a query reads, and so on."""
    rest = {query.id: (query.text, _sinks_of(query)) for query in queries}
    wanted, feeding = set(tables), set[str]()
    while new := {name for name, (_, sinks) in rest.items() if sinks & wanted}:
        feeding |= new
        wanted |= {source for name in new for source in sources_of(rest.pop(name)[0])}
    return feeding


def _sinks_of(query: QueryInfo) -> set[str]:
    """Return what a query writes; a source table's query has no sink, and its text has the table's name."""
    created = _CREATED_TABLE.match(query.text)
    return {*query.sinks, *([fold_name(created[1])] if created else ())}
