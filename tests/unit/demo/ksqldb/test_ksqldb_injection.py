"""Hostile names and values: one statement, the value intact, whatever it holds."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demo.ksqldb import ast, rendering
from demo.ksqldb.parser import parse
from demo.ksqldb.server import Config, DevServer
from tests.unit.demo.ksqldb.running import TOPOLOGY, event, group_stream, mapping

NASTY = st.sampled_from(
    [
        "'",
        "''",
        '"',
        "`",
        ";",
        "${x}",
        "${x:-y}",
        "--",
        "/*",
        "*/",
        "\n",
        "\r\n",
        "\\",
        "\x00",
        "ö",
        "接",
        "%",
        "_",
    ]
)
HOSTILE = st.one_of(
    st.text(max_size=300),
    st.lists(NASTY, max_size=40).map("".join),
    st.tuples(st.text(max_size=40), NASTY, st.text(max_size=40)).map("".join),
    st.just("x'; DROP STREAM ofa_assets_with_uns; --"),
    st.just("n" * 300),
)


@pytest.fixture(scope="module")
def server() -> DevServer:
    """A server without a socket, with the shared topology."""
    found = DevServer(Config())
    for statement in TOPOLOGY:
        found.run(statement)
    return found


def _only(text: str) -> ast.Statement:
    statements = parse(text).statements
    assert len(statements) == 1
    return statements[0].statement


@given(HOSTILE)
def test_a_value_survives_the_parser(value: str) -> None:
    """A quoted value is one literal of one INSERT, character by character."""
    statement = _only(event("A1", value))
    assert isinstance(statement, ast.InsertValues)
    assert statement.values[-1] == ast.Literal(value)


@given(HOSTILE)
def test_a_group_survives_the_filter_and_its_rendering(group: str) -> None:
    """The WHERE literal of a group stream holds the group; the text that LIST QUERIES shows parses to the same."""
    statement = _only(group_stream("asset_stream_x", group))
    assert isinstance(statement, ast.Create)
    assert statement.query is not None
    assert isinstance(statement.query.where, ast.Comparison)
    assert statement.query.where.right == ast.Literal(group)
    again = _only(rendering.create(statement))
    assert isinstance(again, ast.Create)
    assert again.query is not None
    assert again.query.where == statement.query.where


@given(st.text(min_size=1, max_size=60).filter(lambda text: text.strip() == text))
def test_a_quoted_name_survives(name: str) -> None:
    """A column name in backticks is that name."""
    statement = _only(f"SELECT {rendering.quoted(name)} FROM t;")
    assert isinstance(statement, ast.Query)
    item = statement.items[0]
    assert isinstance(item, ast.SingleColumn)
    assert isinstance(item.expression, ast.Column)
    assert item.expression.name == name


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asset=HOSTILE, group=HOSTILE, value=HOSTILE)
def test_values_come_through_the_whole_dataflow(server: DevServer, asset: str, group: str, value: str) -> None:
    """A hostile asset of a hostile group with a hostile value arrives in its group's stream unchanged."""
    server.run(group_stream("hostile", group))
    try:
        server.run(mapping(asset, group))
        server.run(event(asset, value))
        topic = server.catalog.topics["hostile"]
        record = topic.records[-1]
        assert record.value is not None
        assert (record.key, record.value["asset_uuid"], record.value["value"]) == (asset, asset, value)
        assert len(server.catalog.sources) == len(TOPOLOGY) + 1
    finally:
        server.run("DROP STREAM `hostile` DELETE TOPIC;")
