"""The replies of /ksql, /info, /healthcheck and /status: bytes to the values of ``entities``.

A reply of /ksql is an array with one entity per statement; INSERT and SET yield none. Each parser checks the members
that it uses and raises ``KsqlWrongShape`` for anything else, so that no half-understood reply passes for a small one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from openfactory_common.errors import KsqlWrongShape
from openfactory_common.ksqldb.failures import in_band, is_error_object, parse_json
from reconciler.ksqldb.entities import (
    RUNNING,
    Command,
    CommandStatus,
    Consumed,
    Description,
    Entity,
    Health,
    Properties,
    Queries,
    QueryInfo,
    Remark,
    ServerInfo,
    Sources,
    StreamInfo,
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


@lru_cache(maxsize=8)  # a cycle in which nothing happens reads the same lists again (1,000 groups: 0.4 MB each)
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
    return _PARSERS[kind](document) if kind in _PARSERS else Remark(kind)


def _command(document: Mapping[str, Any]) -> Command:
    return Command(
        command_id=_text(document, "commandId"),
        status=_command_status(_member(document, "commandStatus", dict)),
    )


def _command_status(document: Mapping[str, Any]) -> CommandStatus:
    return CommandStatus(_text(document, "status"), _optional(document, "message"))


def _sources(member: str, kind: str) -> Callable[[Mapping[str, Any]], Sources]:
    def parse(document: Mapping[str, Any]) -> Sources:
        lines = _member(document, member, list)
        sources = tuple(StreamInfo(_text(line, "name"), _text(line, "topic")) for line in lines)
        return Sources(kind=kind, sources=sources)

    return parse


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


def _description(document: Mapping[str, Any]) -> Description:
    source = _member(document, "sourceDescription", dict)
    return Description(
        name=_text(source, "name"),
        kind=_optional(source, "type"),
        topic=_text(source, "topic"),
        statement=_optional(source, "statement"),
        write_queries=tuple(_query(query) for query in _member(source, "writeQueries", list)),
        read_queries=tuple(_query(query) for query in _member(source, "readQueries", list)),
        constraints=_texts(source, "sourceConstraints"),
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


def _topics(document: Mapping[str, Any]) -> Topics:
    topics = _member(document, "topics", list)
    return Topics({_text(topic, "name"): len(_member(topic, "replicaInfo", list)) for topic in topics})


def _warned(document: Mapping[str, Any]) -> Warned:
    return Warned(message=_text(document, "message"))


def _server_properties(document: Mapping[str, Any]) -> Properties:
    lines = _member(document, "properties", list)
    return Properties({_text(line, "name"): value for line in lines if (value := _optional(line, "value"))})


_PARSERS: Mapping[str, Callable[[Mapping[str, Any]], Entity]] = {
    "currentStatus": _command,
    "streams": _sources("streams", "STREAM"),
    "tables": _sources("tables", "TABLE"),
    "queries": _queries,
    "sourceDescription": _description,
    "kafka_topics": _topics,
    "properties": _server_properties,
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


def _counts(document: Mapping[str, Any]) -> dict[str, int]:
    return {state: int(_member(document, state, int)) for state in document}


def _texts(document: Any, name: str) -> tuple[str, ...]:
    values = _member(document, name, list)
    if not all(isinstance(value, str) for value in values):
        raise KsqlWrongShape(f"member {name!r} is not a list of texts", status=200)
    return tuple(values)
