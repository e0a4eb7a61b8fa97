"""What ksqlDB says about itself, as values: the replies of /ksql, /info, /healthcheck and /status.

A reply of /ksql is an array with one entity per statement; INSERT and SET yield none. Each parser checks the members
that it uses and raises ``KsqlWrongShape`` for anything else, so that no half-understood reply passes for a small one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.errors import KsqlWrongShape
from reconciler.ksqldb.failures import in_band, is_error_object

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
    """Any entity of a /ksql reply: the statement it answers and the server's warnings."""

    statement: str = ""
    warnings: tuple[str, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class CommandStatus:
    """How far a command has come. ``query_id`` is the started query's, where there is one."""

    status: str
    message: str
    query_id: str | None

    @property
    def final(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in FINAL_STATUSES


@dataclass(frozen=True)
class Command(Entity):
    """A statement that was written to the command topic."""

    command_id: str = ""
    status: CommandStatus = CommandStatus("", "", None)
    sequence: int = -1


@dataclass(frozen=True)
class Warned(Entity):
    """A statement that was not executed because of IF NOT EXISTS; no evidence of any definition."""

    message: str = ""


@dataclass(frozen=True)
class StreamInfo:
    """A line of LIST STREAMS or LIST TABLES."""

    name: str
    topic: str
    key_format: str
    value_format: str


@dataclass(frozen=True)
class Sources(Entity):
    """The answer to LIST STREAMS (``kind`` STREAM) or LIST TABLES (``kind`` TABLE)."""

    kind: str = ""
    sources: tuple[StreamInfo, ...] = ()


@dataclass(frozen=True)
class QueryInfo:
    """A query. ``status_count`` says on how many servers it is in which state; only it shows PAUSED."""

    id: str
    text: str
    sinks: tuple[str, ...]
    type: str
    status_count: Mapping[str, int]

    @property
    def running(self) -> bool:
        """Whether it is in no other state than RUNNING on any server (which does not say that it is consuming)."""
        return {state for state, servers in self.status_count.items() if servers} == {RUNNING}

    @property
    def paused(self) -> bool:
        """Whether it was paused on any server."""
        return self.status_count.get(PAUSED, 0) > 0


@dataclass(frozen=True)
class Queries(Entity):
    """The answer to LIST QUERIES; while a server stops it shrinks, so absence here proves nothing."""

    queries: tuple[QueryInfo, ...] = ()


@dataclass(frozen=True)
class Field:
    """A column of a source as DESCRIBE shows it."""

    name: str
    type: str
    key: bool


@dataclass(frozen=True)
class Description:
    """A source as DESCRIBE shows it.

    Attributes:
        name: as stored.
        kind: STREAM or TABLE.
        topic: the Kafka topic behind it.
        statement: the DDL that made it, as the server renders it.
        write_queries: the queries that write it; empty when its query was terminated.
        read_queries: the queries that read from it.
        constraints: the sources that were created from it, which block its DROP.
        fields: its columns.
        partitions: of the topic; 0 when the topic is gone.
    """

    name: str
    kind: str
    topic: str
    statement: str
    write_queries: tuple[QueryInfo, ...]
    read_queries: tuple[QueryInfo, ...]
    constraints: tuple[str, ...]
    fields: tuple[Field, ...]
    partitions: int


@dataclass(frozen=True)
class Descriptions(Entity):
    """The answer to DESCRIBE (one) or LIST STREAMS EXTENDED (many)."""

    sources: tuple[Description, ...] = ()


@dataclass(frozen=True)
class Topics(Entity):
    """The names of the Kafka topics (ksqlDB hides its internal ones)."""

    names: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Terminated(Entity):
    """The answer to TERMINATE of a push query; ``query_id`` comes back in upper case."""

    query_id: str = ""
    done: bool = False


@dataclass(frozen=True)
class QueryDescription(Entity):
    """The answer to EXPLAIN and to LIST QUERIES EXTENDED: the ids of the described queries."""

    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Remark(Entity):
    """An entity that carries nothing for us, by its ``@type`` (assert_topic, variables, properties, ...)."""

    kind: str = ""


def parse_info(body: bytes) -> ServerInfo:
    """Parse the answer of GET /info."""
    info = _member(_document(body), "KsqlServerInfo", dict)
    return ServerInfo(
        _text(info, "version"),
        _text(info, "kafkaClusterId"),
        _text(info, "ksqlServiceId"),
        str(info.get("serverStatus") or RUNNING),
    )


def parse_health(body: bytes) -> Health:
    """Parse the answer of GET /healthcheck."""
    document = _document(body)
    details = _member(document, "details", dict)

    def part(name: str) -> bool:
        return _member(_member(details, name, dict), "isHealthy", bool) is True

    return Health(
        healthy=_member(document, "isHealthy", bool) is True,
        kafka=part("kafka"),
        metastore=part("metastore"),
        command_runner=part("commandRunner"),
        server_state=str(document.get("serverState") or ""),
    )


def parse_status(body: bytes) -> CommandStatus:
    """Parse the answer of GET /status/{type}/{entity}/{action}."""
    return _command_status(_document(body))


def parse_statuses(body: bytes) -> Mapping[str, str]:
    """Parse the answer of GET /status: the status of every command that this server knows, by command id."""
    statuses = _member(_document(body), "commandStatuses", dict)
    return {str(name): str(status) for name, status in statuses.items()}


def parse_entities(body: bytes) -> tuple[Entity, ...]:
    """Parse the answer of POST /ksql.

    Raises:
        KsqlInBandFailure: an error object is among the entities.
        KsqlWrongShape: not an array of entities.
    """
    document = _json(body)
    if not isinstance(document, list):
        raise KsqlWrongShape(f"not a list of entities: {body[:120]!r}", status=200)
    return tuple(_entity(entity) for entity in document)


def _entity(document: Any) -> Entity:
    if is_error_object(document):
        raise in_band(document)
    kind = _text(document, "@type")
    entity = _PARSERS[kind](document) if kind in _PARSERS else Remark(kind=kind)
    return _labelled(entity, document)


def _labelled(entity: Entity, document: Mapping[str, Any]) -> Entity:
    """Add the members that every entity has."""
    object.__setattr__(entity, "statement", str(document.get("statementText") or ""))
    warnings = document.get("warnings") or ()
    object.__setattr__(entity, "warnings", tuple(_text(warning, "message") for warning in warnings))
    return entity


def _command(document: Mapping[str, Any]) -> Command:
    return Command(
        command_id=_text(document, "commandId"),
        status=_command_status(_member(document, "commandStatus", dict)),
        sequence=int(document.get("commandSequenceNumber") or 0),
    )


def _command_status(document: Mapping[str, Any]) -> CommandStatus:
    query = document.get("queryId")
    return CommandStatus(_text(document, "status"), str(document.get("message") or ""), str(query) if query else None)


def _sources(member: str, kind: str) -> Callable[[Mapping[str, Any]], Sources]:
    def parse(document: Mapping[str, Any]) -> Sources:
        lines = _member(document, member, list)
        return Sources(kind=kind, sources=tuple(_source(line) for line in lines))

    return parse


def _source(line: Mapping[str, Any]) -> StreamInfo:
    formats = (str(line.get("keyFormat") or ""), str(line.get("valueFormat") or ""))
    return StreamInfo(_text(line, "name"), _text(line, "topic"), *formats)


def _queries(document: Mapping[str, Any]) -> Queries:
    return Queries(queries=tuple(_query(query) for query in _member(document, "queries", list)))


def _query(document: Mapping[str, Any]) -> QueryInfo:
    return QueryInfo(
        id=_text(document, "id"),
        text=_text(document, "queryString"),
        sinks=_texts(document, "sinks"),
        type=str(document.get("queryType") or ""),
        status_count={str(state): int(count) for state, count in _member(document, "statusCount", dict).items()},
    )


def _description(document: Mapping[str, Any]) -> Descriptions:
    return Descriptions(sources=(_described(_member(document, "sourceDescription", dict)),))


def _descriptions(document: Mapping[str, Any]) -> Descriptions:
    return Descriptions(sources=tuple(_described(one) for one in _member(document, "sourceDescriptions", list)))


def _described(source: Mapping[str, Any]) -> Description:
    return Description(
        name=_text(source, "name"),
        kind=str(source.get("type") or ""),
        topic=_text(source, "topic"),
        statement=str(source.get("statement") or ""),
        write_queries=tuple(_query(query) for query in _member(source, "writeQueries", list)),
        read_queries=tuple(_query(query) for query in _member(source, "readQueries", list)),
        constraints=_texts(source, "sourceConstraints"),
        fields=tuple(_field(one) for one in _member(source, "fields", list)),
        partitions=int(source.get("partitions") or 0),
    )


def _field(document: Mapping[str, Any]) -> Field:
    schema = _member(document, "schema", dict)
    return Field(_text(document, "name"), _text(schema, "type"), document.get("type") == "KEY")


def _topics(document: Mapping[str, Any]) -> Topics:
    return Topics(names=frozenset(_text(topic, "name") for topic in _member(document, "topics", list)))


def _terminated(document: Mapping[str, Any]) -> Terminated:
    return Terminated(query_id=_text(document, "queryId"), done=document.get("wasTerminated") is True)


def _warned(document: Mapping[str, Any]) -> Warned:
    return Warned(message=_text(document, "message"))


def _explained(document: Mapping[str, Any]) -> QueryDescription:
    return QueryDescription(ids=(_text(_member(document, "queryDescription", dict), "id"),))


def _all_explained(document: Mapping[str, Any]) -> QueryDescription:
    return QueryDescription(ids=tuple(_text(one, "id") for one in _member(document, "queryDescriptions", list)))


_PARSERS: Mapping[str, Callable[[Mapping[str, Any]], Entity]] = {
    "currentStatus": _command,
    "streams": _sources("streams", "STREAM"),
    "tables": _sources("tables", "TABLE"),
    "queries": _queries,
    "query_descriptions": _all_explained,
    "queryDescription": _explained,
    "sourceDescription": _description,
    "source_descriptions": _descriptions,
    "kafka_topics": _topics,
    "terminate_query": _terminated,
    "warning_entity": _warned,
}


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise KsqlWrongShape(f"not JSON: {body[:120]!r}", status=200) from error


def _document(body: bytes) -> dict[str, Any]:
    document = _json(body)
    if is_error_object(document):
        raise in_band(document)
    if not isinstance(document, dict):
        raise KsqlWrongShape(f"not a JSON object: {body[:120]!r}", status=200)
    return document


def _member(document: Any, name: str, kind: type) -> Any:
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, kind):
        raise KsqlWrongShape(f"member {name!r} is {type(value).__name__}, not {kind.__name__}", status=200)
    return value


def _text(document: Any, name: str) -> str:
    return str(_member(document, name, str))


def _texts(document: Any, name: str) -> tuple[str, ...]:
    values = _member(document, name, list)
    if not all(isinstance(value, str) for value in values):
        raise KsqlWrongShape(f"member {name!r} is not a list of texts", status=200)
    return tuple(values)
