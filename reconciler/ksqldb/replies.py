"""The replies of /ksql, /info, /healthcheck and /status: bytes to the values of ``entities``.

A reply of /ksql is an array with one entity per statement; INSERT and SET yield none. Each parser checks the members
that it uses and raises ``KsqlWrongShape`` for anything else, so that no half-understood reply passes for a small one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from openfactory_common.errors import KsqlWrongShape
from openfactory_common.ksqldb.failures import in_band, is_error_object, parse_json
from reconciler.ksqldb.entities import (
    RUNNING,
    Command,
    CommandStatus,
    Consumed,
    Description,
    Descriptions,
    Entity,
    Field,
    Health,
    Properties,
    Queries,
    QueryDescription,
    QueryInfo,
    Remark,
    ServerInfo,
    Sources,
    StreamInfo,
    Terminated,
    Topics,
    Warned,
)


def parse_info(body: bytes) -> ServerInfo:
    """Parse the answer of GET /info."""
    info = _member(_document(body), "KsqlServerInfo", dict)
    return ServerInfo(
        _text(info, "version"),
        _text(info, "kafkaClusterId"),
        _text(info, "ksqlServiceId"),
        _optional(info, "serverStatus") or RUNNING,
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
        server_state=_optional(document, "serverState"),
    )


def parse_status(body: bytes) -> CommandStatus:
    """Parse the answer of GET /status/{type}/{entity}/{action}."""
    return _command_status(_document(body))


def parse_statuses(body: bytes) -> Mapping[str, str]:
    """Parse the answer of GET /status: the status of every command that this server knows, by command id."""
    statuses = _member(_document(body), "commandStatuses", dict)
    return {name: _text(statuses, name) for name in statuses}


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
    entity = _PARSERS[kind](document) if kind in _PARSERS else Remark(kind)
    warnings = () if document.get("warnings") is None else _member(document, "warnings", list)
    texts = tuple(_text(warning, "message") for warning in warnings)
    return replace(entity, statement=_optional(document, "statementText"), warnings=texts)


def _command(document: Mapping[str, Any]) -> Command:
    return Command(
        command_id=_text(document, "commandId"),
        status=_command_status(_member(document, "commandStatus", dict)),
        sequence=_count(document, "commandSequenceNumber"),
    )


def _command_status(document: Mapping[str, Any]) -> CommandStatus:
    query = _optional(document, "queryId")
    return CommandStatus(_text(document, "status"), _optional(document, "message"), query or None)


def _sources(member: str, kind: str) -> Callable[[Mapping[str, Any]], Sources]:
    def parse(document: Mapping[str, Any]) -> Sources:
        lines = _member(document, member, list)
        return Sources(kind=kind, sources=tuple(_source(line) for line in lines))

    return parse


def _source(line: Mapping[str, Any]) -> StreamInfo:
    formats = (_optional(line, "keyFormat"), _optional(line, "valueFormat"))
    return StreamInfo(_text(line, "name"), _text(line, "topic"), *formats)


def _queries(document: Mapping[str, Any]) -> Queries:
    return Queries(queries=tuple(_query(query) for query in _member(document, "queries", list)))


def _query(document: Mapping[str, Any]) -> QueryInfo:
    return QueryInfo(
        id=_text(document, "id"),
        text=_text(document, "queryString"),
        sinks=_texts(document, "sinks"),
        type=_optional(document, "queryType"),
        status_count=_counts(_member(document, "statusCount", dict)),
    )


def _description(document: Mapping[str, Any]) -> Descriptions:
    return Descriptions(sources=(_described(_member(document, "sourceDescription", dict)),))


def _descriptions(document: Mapping[str, Any]) -> Descriptions:
    return Descriptions(sources=tuple(_described(one) for one in _member(document, "sourceDescriptions", list)))


def _described(source: Mapping[str, Any]) -> Description:
    return Description(
        name=_text(source, "name"),
        kind=_optional(source, "type"),
        topic=_text(source, "topic"),
        statement=_optional(source, "statement"),
        write_queries=tuple(_query(query) for query in _member(source, "writeQueries", list)),
        read_queries=tuple(_query(query) for query in _member(source, "readQueries", list)),
        constraints=_texts(source, "sourceConstraints"),
        fields=tuple(_field(one) for one in _member(source, "fields", list)),
        partitions=_count(source, "partitions"),
        consumed=_consumed(source),
        tells=bool(_listed(source, "queryOffsetSummaries")),
        written=_written(source),
    )


def _consumed(source: Mapping[str, Any]) -> dict[str, Consumed]:
    """How far queries have read; another form than the recorded one tells nothing and is no failed read."""
    found: dict[str, Consumed] = {}
    for topic in [
        topic for summary in _listed(source, "queryOffsetSummaries") for topic in _listed(summary, "topicSummaries")
    ]:
        offsets = [(one.get("logEndOffset"), one.get("consumerOffset")) for one in _listed(topic, "offsets")]
        numbers = [(end, read) for end, read in offsets if type(end) is int and type(read) is int]
        if numbers and len(numbers) == len(offsets):
            found[str(topic.get("kafkaTopic"))] = Consumed(sum(end for end, _ in numbers), sum(at for _, at in numbers))
    return found


def _written(source: Mapping[str, Any]) -> int | None:
    statistics = _listed(source, "clusterStatistics")
    values = [one.get("value") for one in statistics if one.get("name") == "total-messages"]
    numbers = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
    return int(sum(numbers)) if numbers else None


def _listed(document: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = document.get(name)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _field(document: Mapping[str, Any]) -> Field:
    schema = _member(document, "schema", dict)
    return Field(_text(document, "name"), _text(schema, "type"), document.get("type") == "KEY")


def _topics(document: Mapping[str, Any]) -> Topics:
    topics = _member(document, "topics", list)
    return Topics({_text(topic, "name"): len(_member(topic, "replicaInfo", list)) for topic in topics})


def _terminated(document: Mapping[str, Any]) -> Terminated:
    return Terminated(query_id=_text(document, "queryId"), done=document.get("wasTerminated") is True)


def _warned(document: Mapping[str, Any]) -> Warned:
    return Warned(message=_text(document, "message"))


def _explained(document: Mapping[str, Any]) -> QueryDescription:
    return QueryDescription(ids=(_text(_member(document, "queryDescription", dict), "id"),))


def _server_properties(document: Mapping[str, Any]) -> Properties:
    lines = _member(document, "properties", list)
    return Properties({_text(line, "name"): value for line in lines if (value := _optional(line, "value"))})


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
    "properties": _server_properties,
    "terminate_query": _terminated,
    "warning_entity": _warned,
}


def _json(body: bytes) -> Any:
    try:
        return parse_json(body)
    except ValueError as error:
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


def _optional(document: Any, name: str) -> str:
    """Return a text that may be missing or null, then ""."""
    missing = isinstance(document, dict) and document.get(name) is None
    return "" if missing else _text(document, name)


def _count(document: Mapping[str, Any], name: str) -> int:
    value = document.get(name)
    return 0 if value is None else int(_member(document, name, int))


def _counts(document: Mapping[str, Any]) -> dict[str, int]:
    return {state: int(_member(document, state, int)) for state in document}


def _texts(document: Any, name: str) -> tuple[str, ...]:
    values = _member(document, name, list)
    if not all(isinstance(value, str) for value in values):
        raise KsqlWrongShape(f"member {name!r} is not a list of texts", status=200)
    return tuple(values)
