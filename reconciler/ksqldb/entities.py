"""What ksqlDB says about itself, as values: the entities of /ksql, and what /info, /healthcheck and /status answer.

``replies`` makes them from bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

RUNNING, PAUSED, ERROR = "RUNNING", "PAUSED", "ERROR"
FINAL_STATUSES = frozenset({"SUCCESS", "ERROR", "TERMINATED"})
"""A command that says anything else (QUEUED, EXECUTING, ...) has not been decided."""


@dataclass(frozen=True)
class ServerInfo:
    """Who answers: the identity is ``kafka_cluster_id`` with ``ksql_service_id``; status RUNNING, ERROR or DEGRADED."""

    version: str
    kafka_cluster_id: str
    ksql_service_id: str
    status: str


@dataclass(frozen=True)
class Health:
    """How the server judges itself. ``server_state`` is empty before ksqlDB 7.4; a sick server answers 200 too."""

    healthy: bool
    kafka: bool
    metastore: bool
    command_runner: bool
    server_state: str

    @property
    def ready(self) -> bool:
        """Whether everything is well and the server is neither starting nor stopping."""
        parts = (self.healthy, self.kafka, self.metastore, self.command_runner)
        return all(parts) and self.server_state in ("", "READY")


@dataclass(frozen=True)
class Entity:
    """Any entity of a /ksql reply."""


@dataclass(frozen=True)
class CommandStatus:
    """How far a command has come."""

    status: str
    message: str

    @property
    def final(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in FINAL_STATUSES


@dataclass(frozen=True)
class Command(Entity):
    """A statement that was written to the command topic."""

    command_id: str
    status: CommandStatus


@dataclass(frozen=True)
class Warned(Entity):
    """A statement that was not executed because of IF NOT EXISTS; no evidence of any definition."""

    message: str


@dataclass(frozen=True)
class StreamInfo:
    """A line of LIST STREAMS or LIST TABLES."""

    name: str
    topic: str


@dataclass(frozen=True)
class Sources(Entity):
    """The answer to LIST STREAMS (``kind`` STREAM) or LIST TABLES (``kind`` TABLE)."""

    kind: str
    sources: tuple[StreamInfo, ...]


@dataclass(frozen=True)
class QueryInfo:
    """A query. ``status_count`` says on how many servers it is in which state; only it shows PAUSED."""

    id: str
    text: str
    sinks: tuple[str, ...]
    type: str
    status_count: Mapping[str, int]

    @property
    def paused(self) -> bool:
        """Whether it was paused on any server."""
        return self.status_count.get(PAUSED, 0) > 0


@dataclass(frozen=True)
class Queries(Entity):
    """The answer to LIST QUERIES; while a server stops it shrinks, so absence here proves nothing."""

    queries: tuple[QueryInfo, ...]


@dataclass(frozen=True)
class Consumed:
    """How far a query has read a topic, summed over its partitions: ``end`` records are there, ``read`` are read."""

    end: int
    read: int


@dataclass(frozen=True)
class Description(Entity):
    """The answer to DESCRIBE: a source.

    Attributes:
        name: as stored.
        kind: STREAM or TABLE.
        topic: the Kafka topic behind it.
        statement: the DDL that made it, as the server renders it.
        write_queries: the queries that write it; empty when its query was terminated.
        read_queries: the queries that read from it.
        constraints: the sources that were created from it, which block its DROP.
        consumed: how far the queries that write it have read their topics; only with EXTENDED, and only what was told.
        tells: the server says how far its queries have read, though one that has read nothing has no topic in it.
        written: messages that the asked server wrote into it since its start; None where it does not say.
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


@dataclass(frozen=True)
class Topics(Entity):
    """The Kafka topics (ksqlDB hides its internal ones): how many partitions each has, by name."""

    partitions: Mapping[str, int]


@dataclass(frozen=True)
class Properties(Entity):
    """The answer to LIST PROPERTIES: the server's settings by name; one without a value is left out."""

    values: Mapping[str, str]


@dataclass(frozen=True)
class Remark(Entity):
    """An entity that carries nothing for us, by its ``@type`` (assert_topic, variables, ...)."""

    kind: str
