"""The small ksqlDB client: bytes into rows, and every failure into one of two errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from demo.ksql_rest import KsqlAway, KsqlRefused, KsqlRest, Row, client_session, column_names, literal

from .ksql_standin import KsqlStandIn, refusal, running_ksql, streamed


def pulled(answer: Callable[[str], tuple[int, str]]) -> list[Row]:
    """Return what a pull query gives when the server answers like that."""

    async def ask() -> list[Row]:
        async with running_ksql() as ksql, client_session() as session:
            ksql.pull = answer
            return await KsqlRest(session, ksql.url).pull("SELECT * FROM t;")

    return asyncio.run(ask())


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
                await rest.pull("SELECT * FROM t;")

    asyncio.run(ask())
