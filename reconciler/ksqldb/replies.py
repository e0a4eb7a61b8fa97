"""The replies of /ksql, /info, /healthcheck and /status: bytes to the values of ``entities``.

A reply of /ksql is an array with one entity per statement; INSERT and SET yield none. Each parser checks the members
that it uses and raises ``KsqlWrongShape`` for anything else, so that an incomplete reply is an error and not a small
reply. Not pydantic: its strings refuse lone surrogates, which the name of a group may have.
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
    QueryInfo,
    ServerInfo,
    StreamInfo,
)

Object = Mapping[str, Any]


def parse_info(body: bytes) -> ServerInfo:
    """Parse the answer of GET /info."""
    info = _member(_parse_object(body), "KsqlServerInfo", dict)
    return ServerInfo(
        _member(info, "version", str),
        _member(info, "kafkaClusterId", str),
        _member(info, "ksqlServiceId", str),
        _optional_text(info, "serverStatus") or RUNNING,
    )


def parse_health(body: bytes) -> Health:
    """Parse the answer of GET /healthcheck."""
    document = _parse_object(body)
    details = _member(document, "details", dict)
    return Health(
        healthy=_member(document, "isHealthy", bool),
        kafka=_member(_member(details, "kafka", dict), "isHealthy", bool),
        metastore=_member(_member(details, "metastore", dict), "isHealthy", bool),
        command_runner=_member(_member(details, "commandRunner", dict), "isHealthy", bool),
        server_state=_optional_text(document, "serverState"),
    )


def parse_status(body: bytes) -> CommandStatus:
    """Parse the answer of GET /status/{type}/{entity}/{action}."""
    return _status(_parse_object(body))


@lru_cache(maxsize=8)  # a cycle in which nothing happens reads the same lists again (1,000 groups: 0.4 MB each)
def parse_entities(body: bytes) -> tuple[Entity, ...]:
    """Parse the answer of POST /ksql.

    Raises:
        KsqlInBandFailure: an error object is among the entities.
        KsqlWrongShape: not an array of entities.
    """
    document = _parse_json(body)
    if not isinstance(document, list):
        raise KsqlWrongShape(f"not a list of entities: {body[:120]!r}", status=200)
    entities = []
    for entity in document:
        if is_error_object(entity):
            raise in_band(entity)
        kind = _member(entity, "@type", str)
        entities.append(Entity(kind, _PARSERS[kind](entity) if kind in _PARSERS else None))
    return tuple(entities)


def _status(document: Object) -> CommandStatus:
    return CommandStatus(_member(document, "status", str), _optional_text(document, "message"))


def _sources(lines: list[Any]) -> tuple[StreamInfo, ...]:
    return tuple(StreamInfo(_member(line, "name", str), _member(line, "topic", str)) for line in lines)


def _queries(lines: list[Any]) -> tuple[QueryInfo, ...]:
    queries = []
    for line in lines:
        counts = _member(line, "statusCount", dict)
        queries.append(
            QueryInfo(
                id=_member(line, "id", str),
                text=_member(line, "queryString", str),
                sinks=_texts(line, "sinks"),
                type=_optional_text(line, "queryType"),
                status_count={state: int(_member(counts, state, int)) for state in counts},
            )
        )
    return tuple(queries)


def _description(source: Object) -> Description:
    summaries, statistics = _objects(source, "queryOffsetSummaries"), _objects(source, "clusterStatistics")
    values = [one.get("value") for one in statistics if one.get("name") == "total-messages"]
    numbers = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
    return Description(
        name=_member(source, "name", str),
        kind=_optional_text(source, "type"),
        topic=_member(source, "topic", str),
        statement=_optional_text(source, "statement"),
        write_queries=_queries(_member(source, "writeQueries", list)),
        read_queries=_queries(_member(source, "readQueries", list)),
        constraints=_texts(source, "sourceConstraints"),
        consumed=_consumed(summaries),
        tells=bool(summaries),
        written=int(sum(numbers)) if numbers else None,
    )


def _consumed(summaries: list[Object]) -> dict[str, Consumed]:
    """Return how far queries have read; an unknown form has no entry and is not a failed read."""
    found: dict[str, Consumed] = {}
    for topic in [topic for summary in summaries for topic in _objects(summary, "topicSummaries")]:
        offsets = [(one.get("logEndOffset"), one.get("consumerOffset")) for one in _objects(topic, "offsets")]
        numbers = [(end, read) for end, read in offsets if type(end) is int and type(read) is int]
        if numbers and len(numbers) == len(offsets):
            found[str(topic.get("kafkaTopic"))] = Consumed(sum(end for end, _ in numbers), sum(at for _, at in numbers))
    return found


_PARSERS: Mapping[str, Callable[[Object], Any]] = {
    "currentStatus": lambda entity: Command(
        command_id=_member(entity, "commandId", str), status=_status(_member(entity, "commandStatus", dict))
    ),
    "streams": lambda entity: _sources(_member(entity, "streams", list)),
    "tables": lambda entity: _sources(_member(entity, "tables", list)),
    "queries": lambda entity: _queries(_member(entity, "queries", list)),
    "sourceDescription": lambda entity: _description(_member(entity, "sourceDescription", dict)),
    "kafka_topics": lambda entity: {
        _member(topic, "name", str): len(_member(topic, "replicaInfo", list))
        for topic in _member(entity, "topics", list)
    },
    "properties": lambda entity: {
        _member(line, "name", str): value
        for line in _member(entity, "properties", list)
        if (value := _optional_text(line, "value"))
    },
    "warning_entity": lambda entity: _member(entity, "message", str),
}


def _parse_json(body: bytes) -> Any:
    try:
        return parse_json(body)
    except ValueError as error:
        raise KsqlWrongShape(f"not JSON: {body[:120]!r}", status=200) from error


def _parse_object(body: bytes) -> Object:
    document = _parse_json(body)
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


def _optional_text(document: Any, name: str) -> str:
    """Return a text that may be missing or null, then ""."""
    missing = isinstance(document, dict) and document.get(name) is None
    return "" if missing else str(_member(document, name, str))


def _texts(document: Any, name: str) -> tuple[str, ...]:
    values = _member(document, name, list)
    if not all(isinstance(value, str) for value in values):
        raise KsqlWrongShape(f"member {name!r} is not a list of texts", status=200)
    return tuple(values)


def _objects(document: Object, name: str) -> list[Object]:
    value = document.get(name)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
