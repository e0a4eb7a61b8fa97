"""The small ksqlDB client: bytes into rows, and every failure into one of two errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.ksql_rest import KsqlAway, KsqlRefused, KsqlRest, Row, StreamedItems, client_session, column_names, literal

from .ksql_standin import KsqlStandIn, refusal, running_ksql, streamed, until

ITEMS = st.lists(st.dictionaries(st.text(), st.one_of(st.none(), st.text(), st.lists(st.text()))), max_size=5)


def pulled(answer: Callable[[str], tuple[int, str]]) -> list[Row]:
    """Return what a pull query gives when the server answers like that."""

    async def ask() -> list[Row]:
        async with running_ksql() as ksql, client_session() as session:
            ksql.pull = answer
            return await KsqlRest(session, ksql.url).pull("SELECT * FROM t;")

    return asyncio.run(ask())


@given(items=ITEMS, step=st.integers(min_value=1, max_value=40))
def test_items_do_not_depend_on_where_the_network_cuts(items: list[dict[str, object]], step: int) -> None:
    """The same items come out however the bytes are cut, in the middle of a character as well."""
    body = ("[" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in items) + "]").encode("utf-8", "replace")
    expected = json.loads(body)
    cutter = StreamedItems()
    parts = [body[start : start + step] for start in range(0, len(body), step)]
    assert [item for part in parts for item in cutter.feed(part)] == expected


def test_an_item_is_given_before_its_separator() -> None:
    """An event is not held back until the next one comes."""
    cutter = StreamedItems()
    assert list(cutter.feed(b'[{"header":{}},\n{"row":{"columns":["a]"]}}')) == [
        {"header": {}},
        {"row": {"columns": ["a]"]}},
    ]


def test_bytes_that_are_no_items_are_an_error() -> None:
    """What a proxy in between says in HTML is not taken for a quiet stream."""
    with pytest.raises(KsqlAway):
        list(StreamedItems().feed(b"<html>"))


def test_columns_are_folded_and_fields_of_structs_are_not_columns() -> None:
    """Quoted lower-case and plain columns get the same names; types are skipped."""
    schema = "`ASSET_UUID` STRING KEY, `id` STRING, `S` STRUCT<`F` STRING, `G` MAP<STRING, STRING>>, `M` ARRAY<STRING>"
    assert column_names(schema) == ["asset_uuid", "id", "s", "m"]


def test_a_quote_is_doubled_in_a_literal() -> None:
    """User input ends no literal."""
    assert literal("O'Brien'; DROP") == "'O''Brien''; DROP'"


def test_pull_rows_by_name() -> None:
    """A pull's rows are dictionaries by lower-cased column."""
    assert pulled(lambda _sql: (200, streamed(("ASSET_UUID", "id"), [["A1", None]]))) == [
        {"asset_uuid": "A1", "id": None}
    ]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, streamed(("A",), [["1"]])[:-1]),
        (200, "[]"),
        (200, '{"error_code":50000,"message":"x"}'),
        (200, '[{"header":{"schema":"`A` STRING"}},{"errorMessage":{"error_code":50000,"message":"broken"}}]'),
        (200, streamed(("A",), [["1", "2"]])),
        (503, '{"@type":"generic_error","error_code":50302,"message":"KSQL is not yet ready to serve requests."}'),
        (500, "<html>"),
        (429, "{}"),
    ],
    ids=["truncated", "no header", "object in 200", "error row", "another width", "503", "html 500", "429"],
)
def test_an_unusable_answer_is_never_an_empty_result(status: int, body: str) -> None:
    """Truncated, headless, broken or not ready: the caller hears that ksqlDB is away, not that there is nothing."""
    with pytest.raises(KsqlAway):
        pulled(lambda _sql: (status, body))


def test_a_missing_source_differs_from_one_that_is_being_restored() -> None:
    """A refusal carries ksqlDB's words and code, and says whether the source is missing."""
    with pytest.raises(KsqlRefused, match="NOPE does not exist") as missing:
        pulled(lambda _sql: refusal("Exception while preparing statement: NOPE does not exist."))
    with pytest.raises(KsqlRefused) as restoring:
        pulled(lambda _sql: refusal("Error starting pull query: Cannot determine which host"))
    assert (missing.value.code, missing.value.source_is_missing) == (40001, True)
    assert not restoring.value.source_is_missing


def test_a_refused_connection_is_away() -> None:
    """No one listens: one error class, whatever was asked."""

    async def ask() -> None:
        ksql = KsqlStandIn()
        await ksql.start()
        await ksql.stop()
        async with client_session() as session:
            rest = KsqlRest(session, ksql.url)
            assert not await rest.is_ready()
            with pytest.raises(KsqlAway):
                await rest.execute("LIST STREAMS;")
            with pytest.raises(KsqlAway):
                async with rest.push("SELECT * FROM t EMIT CHANGES;"):
                    pass

    asyncio.run(ask())


def test_a_push_query_is_ended_on_the_server_when_it_is_left() -> None:
    """Leaving the context closes the connection, which is how ksqlDB notices; tombstones are not rows."""

    async def follow() -> list[Row]:
        async with running_ksql() as ksql, client_session() as session:
            ksql.push_columns = ("A",)
            async with KsqlRest(session, ksql.url).push("SELECT * FROM t EMIT CHANGES;") as rows:
                ksql.send_item({"row": {"columns": ["x"], "tombstone": True}})
                ksql.send_item({"row": {"columns": ["y"]}})
                seen = [await anext(rows)]
            await until(lambda: ksql.open_pushes == 0)
            return seen

    assert asyncio.run(follow()) == [{"a": "y"}]
