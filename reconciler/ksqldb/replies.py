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
    info = _require(_parse_object(body), "KsqlServerInfo", dict)
    return ServerInfo(
        _require(info, "version", str),
        _require(info, "kafkaClusterId", str),
        _require(info, "ksqlServiceId", str),
        _optional_text(info, "serverStatus") or RUNNING,
    )


def parse_health(body: bytes) -> Health:
    """Parse the answer of GET /healthcheck."""
    document = _parse_object(body)
    details = _require(document, "details", dict)
    return Health(
        healthy=_require(document, "isHealthy", bool),
        kafka=_require(_require(details, "kafka", dict), "isHealthy", bool),
        metastore=_require(_require(details, "metastore", dict), "isHealthy", bool),
        command_runner=_require(_require(details, "commandRunner", dict), "isHealthy", bool),
        server_state=_optional_text(document, "serverState"),
    )


def parse_status(body: bytes) -> CommandStatus:
    """Parse the answer of GET /status/{type}/{entity}/{action}."""
    return _build_status(_parse_object(body))


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
        kind = _require(entity, "@type", str)
        entities.append(Entity(kind, _PARSERS[kind](entity) if kind in _PARSERS else None))
    return tuple(entities)


def _build_status(document: Object) -> CommandStatus:
    return CommandStatus(_require(document, "status", str), _optional_text(document, "message"))


def _parse_sources(lines: list[Any]) -> tuple[StreamInfo, ...]:
    return tuple(StreamInfo(_require(line, "name", str), _require(line, "topic", str)) for line in lines)


def _parse_queries(lines: list[Any]) -> tuple[QueryInfo, ...]:
    queries = []
    for line in lines:
        counts = _require(line, "statusCount", dict)
        queries.append(
            QueryInfo(
                id=_require(line, "id", str),
                text=_require(line, "queryString", str),
                sinks=_require_texts(line, "sinks"),
                type=_optional_text(line, "queryType"),
                status_count={state: int(_require(counts, state, int)) for state in counts},
            )
        )
    return tuple(queries)


def _parse_description(source: Object) -> Description:
    summaries, statistics = _list_objects(source, "queryOffsetSummaries"), _list_objects(source, "clusterStatistics")
    values = [one.get("value") for one in statistics if one.get("name") == "total-messages"]
    numbers = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
    return Description(
        name=_require(source, "name", str),
        kind=_optional_text(source, "type"),
        topic=_require(source, "topic", str),
        statement=_optional_text(source, "statement"),
        write_queries=_parse_queries(_require(source, "writeQueries", list)),
        read_queries=_parse_queries(_require(source, "readQueries", list)),
        constraints=_require_texts(source, "sourceConstraints"),
        consumed=_sum_offsets(summaries),
        tells=bool(summaries),
        written=int(sum(numbers)) if numbers else None,
        keys={
            _optional_text(one, "name"): str((one.get("schema") or {}).get("type"))
            for one in _list_objects(source, "fields")
            if one.get("type") == "KEY"
        },
    )


def _sum_offsets(summaries: list[Object]) -> dict[str, Consumed]:
    """Return how far queries have read; an unknown form has no entry and is not a failed read."""
    found: dict[str, Consumed] = {}
    for topic in [topic for summary in summaries for topic in _list_objects(summary, "topicSummaries")]:
        offsets = [(one.get("logEndOffset"), one.get("consumerOffset")) for one in _list_objects(topic, "offsets")]
        numbers = [(end, read) for end, read in offsets if type(end) is int and type(read) is int]
        if numbers and len(numbers) == len(offsets):
            found[str(topic.get("kafkaTopic"))] = Consumed(sum(end for end, _ in numbers), sum(at for _, at in numbers))
    return found


_PARSERS: Mapping[str, Callable[[Object], Any]] = {
    "currentStatus": lambda entity: Command(
        command_id=_require(entity, "commandId", str), status=_build_status(_require(entity, "commandStatus", dict))
    ),
    "streams": lambda entity: _parse_sources(_require(entity, "streams", list)),
    "tables": lambda entity: _parse_sources(_require(entity, "tables", list)),
    "queries": lambda entity: _parse_queries(_require(entity, "queries", list)),
    "sourceDescription": lambda entity: _parse_description(_require(entity, "sourceDescription", dict)),
    "kafka_topics": lambda entity: {
        _require(topic, "name", str): len(_require(topic, "replicaInfo", list))
        for topic in _require(entity, "topics", list)
    },
    "properties": lambda entity: {
        _require(line, "name", str): value
        for line in _require(entity, "properties", list)
        if (value := _optional_text(line, "value"))
    },
    "warning_entity": lambda entity: _require(entity, "message", str),
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


def _require(document: Any, name: str, kind: type) -> Any:
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, kind):
        raise KsqlWrongShape(f"member {name!r} is {type(value).__name__}, not {kind.__name__}", status=200)
    return value


def _optional_text(document: Any, name: str) -> str:
    """Return a text that may be missing or null, then ""."""
    missing = isinstance(document, dict) and document.get(name) is None
    return "" if missing else str(_require(document, name, str))


def _require_texts(document: Any, name: str) -> tuple[str, ...]:
    values = _require(document, name, list)
    if not all(isinstance(value, str) for value in values):
        raise KsqlWrongShape(f"member {name!r} is not a list of texts", status=200)
    return tuple(values)


def _list_objects(document: Object, name: str) -> list[Object]:
    value = document.get(name)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
