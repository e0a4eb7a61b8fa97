"""Whatever bytes ksqlDB, or what answers in its place, sends: values come out of a parser, or one of our own errors."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openfactory_common.errors import KsqlError
from openfactory_common.ksqldb.failures import error_of, in_band
from openfactory_common.ksqldb.wire import Column, PullReader, Row, RowFeed, columns_of
from reconciler.ksqldb.definition import definition_of
from reconciler.ksqldb.replies import parse_entities, parse_health, parse_info, parse_status

EXPECTED = (Column("ASSET_UUID", "STRING", key=True), Column("UNS_GROUP", "STRING"))
HEADER = b'[{"header":{"queryId":"q","schema":"`ASSET_UUID` STRING KEY, `UNS_GROUP` STRING"}}'
LONG_NUMBER, DEEP = b"1" * 5000, b"[" * 100_000 + b"]" * 100_000
BRACES = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
#: Deeper than a value can be shown, not deeper than it can be parsed, whatever the depth of the caller's own stack.
DEPTHS = [b"[" * depth + b"]" * depth for depth in range(700, 1000, 20)]


def pulled(data: bytes) -> list[tuple[Any, ...]]:
    """Return the rows of a whole answer to a pull query."""
    reader = PullReader(EXPECTED)
    rows = list(reader.feed(data))
    reader.close()
    return rows


PARSERS: dict[str, Callable[[bytes], object]] = {
    "rows": pulled,
    "feed": lambda data: RowFeed().feed(data),
    "info": parse_info,
    "health": parse_health,
    "status": parse_status,
    "entities": parse_entities,
    "error": lambda data: str(error_of(500, data)),
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
#: Every member that a parser looks at, and what each is somewhere.
MEMBERS = [
    "KsqlServerInfo",
    "version",
    "kafkaClusterId",
    "ksqlServiceId",
    "serverStatus",
    "isHealthy",
    "details",
    "kafka",
    "metastore",
    "commandRunner",
    "serverState",
    "status",
    "message",
    "queryId",
    "commandId",
    "commandStatus",
    "streams",
    "tables",
    "queries",
    "sourceDescription",
    "topics",
    "properties",
    "name",
    "topic",
    "id",
    "queryString",
    "sinks",
    "queryType",
    "statusCount",
    "type",
    "statement",
    "writeQueries",
    "readQueries",
    "sourceConstraints",
    "schema",
    "value",
    "error_code",
    "errorMessage",
    "header",
    "row",
    "columns",
    "tombstone",
    "finalMessage",
]
KINDS = [
    "currentStatus",
    "streams",
    "tables",
    "queries",
    "sourceDescription",
    "kafka_topics",
    "properties",
    "warning_entity",
    "other",
]
DOCUMENT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=6),
    max_leaves=20,
)
ENTITY = st.builds(
    lambda kind, members: {**members, "@type": kind},
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(MEMBERS), DOCUMENT, max_size=8),
)


def parsed(parse: Callable[[bytes], object], data: bytes) -> None:
    """Parse; nothing but a KsqlError may come out."""
    with contextlib.suppress(KsqlError):
        parse(data)


def hostile() -> list[bytes]:
    """Return what breaks a JSON parser in other ways than by not being JSON, at each place where a value can be."""
    values = [
        LONG_NUMBER,
        DEEP,
        BRACES,
        *DEPTHS,
        b"NaN",
        b"-Infinity",
        b'"\\ud800"',
        b'"\xff"',
        b"1e999999",
        b'"' + b"x" * 70_000 + b'"',
    ]
    frames = [
        b"%b",
        b"[%b]",
        HEADER + b',{"row":{"columns":[%b,"x"]}}]',
        HEADER + b',{"row":{"columns":["x",%b]}}]',
        HEADER + b',{"row":%b}]',
        HEADER + b',{"finalMessage":%b}]',
        HEADER + b',{"other":%b}]',
        HEADER + b',{"errorMessage":%b}]',
        b'[{"header":{"queryId":%b,"schema":"`A` STRING"}}]',
        b'[{"header":{"queryId":"q","schema":%b}}]',
        b'[{"header":%b}]',
        b'{"error_code":%b,"message":%b}',
        b'[{"@type":"warning_entity","message":"m","warnings":%b}]',
        b'[{"@type":"streams","streams":[%b]}]',
        b'[{"@type":"properties","properties":[%b]}]',
        b'[{"@type":"properties","properties":[{"name":"n","value":%b}]}]',
        b'{"KsqlServerInfo":{"version":"1","kafkaClusterId":"k","ksqlServiceId":"s","serverStatus":%b}}',
        b'{"commandStatuses":{"c":%b}}',
    ]
    return [frame.replace(b"%b", value) for frame in frames for value in values]


@pytest.mark.parametrize("name", PARSERS)
def test_hostile_values_are_errors_of_ours(name: str) -> None:
    """Numbers of 5,000 digits, nesting at and beyond the limit, NaN, half surrogate pairs, bytes that are no text."""
    for data in hostile():
        parsed(PARSERS[name], data)


@pytest.mark.parametrize("value", [LONG_NUMBER, DEEP, b"NaN"], ids=["number", "depth", "NaN"])
def test_a_row_that_no_number_or_depth_can_be_is_refused_at_once(value: bytes) -> None:
    """It is not taken for one that is still coming: the rows behind it would wait in memory for ever."""
    with pytest.raises(KsqlError, match="not JSON"):
        RowFeed().feed(HEADER + b',{"row":{"columns":["a",' + value + b"]}},")


@pytest.mark.parametrize("group", [b"1", b"true", b"[]", b"{}"])
def test_a_value_of_another_type_than_its_column_is_refused(group: bytes) -> None:
    """Assets and groups are texts or null; a list in their place would break anyone who counts them."""
    with pytest.raises(KsqlError, match="not a row of"):
        pulled(HEADER + b',{"row":{"columns":["a",' + group + b"]}}]")


@settings(max_examples=150)
@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes(data: bytes) -> None:
    """Random bytes and random JSON, to every parser."""
    for parse in PARSERS.values():
        parsed(parse, data)


@settings(max_examples=150)
@given(st.lists(DOCUMENT, max_size=3))
def test_any_items_of_an_array_of_rows(items: list[Any]) -> None:
    """Known members with unexpected values, after a good header."""
    parsed(PARSERS["rows"], HEADER + b"".join(b"," + json.dumps(item).encode() for item in items) + b"]")


@settings(max_examples=300)
@given(st.lists(ENTITY, max_size=2), DOCUMENT)
def test_any_entities_and_documents(entities: list[Any], document: Any) -> None:
    """Known kinds and members with unexpected values."""
    parsed(parse_entities, json.dumps(entities).encode())
    for name in ("info", "health", "status", "error"):
        parsed(PARSERS[name], json.dumps(document).encode())
    assert str(in_band(document))


@settings(max_examples=150)
@given(st.text(alphabet="`A, <>()'KEYSTRING\x00é", max_size=40))
def test_any_schema(text: str) -> None:
    """Columns, or an error of ours."""
    with contextlib.suppress(KsqlError):
        columns_of(text)


WORDS = [
    "CREATE",
    "OR",
    "REPLACE",
    "STREAM",
    "IF",
    "NOT",
    "EXISTS",
    "AS",
    "SELECT",
    "FROM",
    "WITH",
    "(",
    ")",
    "=",
    ",",
    ".",
    ";",
    "'x'",
    "`y`",
    "KAFKA_TOPIC",
    "RETENTION_MS",
    "JOIN",
    "ON",
    "WHERE",
    "GROUP",
    "EMIT",
    "CHANGES",
    "[",
    "]",
    "--",
    "/*",
    "*/",
    "\x00",
    "é",
    "1",
    "-",
]


@settings(max_examples=150)
@given(st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join) | st.text(max_size=40))
def test_any_statement(text: str) -> None:
    """A definition, or none."""
    definition_of(f"CREATE STREAM s WITH (RETENTION_MS={text}) AS SELECT {text} FROM t WHERE {text};")
    definition_of(text)


@pytest.mark.parametrize(
    "text",
    [
        f"CREATE STREAM s WITH (RETENTION_MS={'9' * 5000}) AS SELECT * FROM t;",
        f"CREATE STREAM s AS SELECT * FROM t WHERE {'(' * 2000}a = 'x'{')' * 2000};",
        f"CREATE STREAM s AS SELECT {'[' * 2000} FROM t;",
        "CREATE STREAM s WITH (RETENTION_MS=-) AS SELECT * FROM t;",
    ],
    ids=["digits", "brackets", "open brackets", "minus"],
)
def test_a_statement_at_the_limits(text: str) -> None:
    """Numbers that Python does not read, and nesting."""
    definition = definition_of(text)
    assert definition is None or definition.retention_ms is None


def test_a_row_is_passed_whatever_its_texts_are() -> None:
    """Half a surrogate pair is a text of JSON: it is data, and nothing breaks of it."""
    items = RowFeed().feed(HEADER + b',{"row":{"columns":["\\ud800","\\u0000"]}}]')
    assert items[1] == Row(["\ud800", "\x00"])
