"""Bytes to rows, wherever the bytes are cut, and values to SQL text, whatever the values are."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openfactory_common.errors import KsqlBadStatement, KsqlInBandFailure, KsqlTruncated, KsqlWrongShape
from openfactory_common.ksqldb.wire import (
    Column,
    Final,
    Header,
    Item,
    PullReader,
    Row,
    RowFeed,
    column,
    columns_of,
    fold_name,
    identifier,
    literal,
)

SCHEMA = "`A` STRING KEY, `M` MAP<STRING, STRING>"
COLUMNS = (Column("A", "STRING", key=True), Column("M", "MAP<STRING, STRING>"))
HEADER = {"header": {"queryId": "q", "schema": SCHEMA}}
ITEMS = [
    HEADER,
    {"row": {"columns": ["ä}],[€", {"k": 'quote " and \\'}]}},
    {"row": {"columns": ["gone", None], "tombstone": True}},
    {"sourceHost": "here"},
    {"finalMessage": "Query Completed"},
]
EXPECTED: list[Item] = [
    Header("q", COLUMNS),
    Row(["ä}],[€", {"k": 'quote " and \\'}]),
    Row(["gone", None], tombstone=True),
    Final("Query Completed"),
]


def body(separator: str = ",\n", *, ascii_only: bool = False) -> bytes:
    """Return the items as one array."""
    return ("[" + separator.join(json.dumps(item, ensure_ascii=ascii_only) for item in ITEMS) + "]").encode()


def pulled(answer: bytes, columns: tuple[Column, ...]) -> list[tuple[Any, ...]]:
    """Return the rows of a whole answer to a pull query."""
    reader = PullReader(columns)
    rows = list(reader.feed(answer))
    reader.close()
    return rows


LAYOUTS = [
    body(),
    body(","),
    body(" , "),
    body(",\n\n\n"),
    body("\n,"),
    b"\n\n" + body() + b"\n",
    body(ascii_only=True),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_body_reads_the_same_in_every_layout(layout: bytes) -> None:
    """One line or many, with empty lines between them or not."""
    feed = RowFeed()
    assert feed.feed(layout) == EXPECTED
    feed.close()


@given(st.sampled_from(LAYOUTS), st.lists(st.integers(0, 400), max_size=30))
def test_a_body_reads_the_same_wherever_it_is_cut(layout: bytes, cuts: list[int]) -> None:
    """Chunks end within names, numbers and characters; items come out once each and in order."""
    feed, items, start = RowFeed(), [], 0
    for cut in sorted({min(cut, len(layout)) for cut in cuts} | {len(layout)}):
        items += feed.feed(layout[start:cut])
        start = cut
    feed.close()
    assert items == EXPECTED


def test_an_item_comes_out_as_soon_as_it_is_complete() -> None:
    """A push query never ends: its rows must not wait for the next one."""
    feed = RowFeed()
    assert len(feed.feed(b"[" + json.dumps(HEADER).encode())) == 1
    assert feed.feed(b",\n") == []
    assert feed.feed(b'{"row":{"columns":["a",null]}}') == [Row(["a", None])]
    assert not feed.closed


@given(
    st.text(alphabet='a"\\\\{}[],é', max_size=40).map(lambda text: text * 4000),
    st.lists(st.integers(0, 300_000), max_size=8),
)
@settings(max_examples=30)
def test_a_long_item_reads_the_same_wherever_it_is_cut(text: str, cuts: list[int]) -> None:
    """Quotes, backslashes and braces in its text end nothing; it comes out with the chunk that has its last brace."""
    item = ("[" + json.dumps({"row": {"columns": ["a", text]}}, ensure_ascii=False)).encode()
    feed, start = RowFeed(), 0
    for cut in sorted({min(cut, len(item) - 1) for cut in cuts}):
        assert feed.feed(item[start:cut]) == []
        start = cut
    assert feed.feed(item[start:]) == [Row(["a", text])]
    assert feed.feed(b',{"row":{"columns":["b"]}}]') == [Row(["b"])]
    feed.close()


def test_an_item_without_an_end_is_not_read_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte is looked at a few times, however many chunks there are: the feed shares a thread with all streams."""
    looked_at = 0
    decode = json.JSONDecoder.raw_decode

    def counted(self: json.JSONDecoder, text: str, position: int = 0) -> tuple[object, int]:
        nonlocal looked_at
        looked_at += len(text) - position
        return decode(self, text, position)

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", counted)
    feed = RowFeed()
    feed.feed(b'[{"row":{"columns":[')
    for _ in range(1000):
        assert feed.feed(b'"aaaaaaaaaa",{},' * 64) == []
    assert looked_at < 10 * 1000 * 1024


@pytest.mark.parametrize("cut", [1, 70_000, 100_000])
def test_a_long_item_that_is_no_json_is_refused(cut: int) -> None:
    """Its braces are closed, and it cannot be read: nothing more of it will come."""
    feed = RowFeed()
    data = b'[{"row":' + b"a" * 100_000 + b"}"
    feed.feed(data[:cut])
    with pytest.raises(KsqlWrongShape):
        feed.feed(data[cut:] + b",\n")


@given(st.integers(0, len(body()) - 1))
def test_no_beginning_of_a_body_passes_for_the_whole(length: int) -> None:
    """Wherever a connection breaks, the body is known to be incomplete."""
    feed = RowFeed()
    feed.feed(body()[:length])
    with pytest.raises(KsqlTruncated):
        feed.close()


@pytest.mark.parametrize(
    "broken",
    [
        b"{}",
        b"<html>",
        b"null",
        b"[1]",
        b"[{}]",
        b'["row"]',
        b'[{"row":{}}]',
        b'[{"row":{"columns":"AB"}}]',
        b'[{"row":{"protobufBytes":"CgJB"}}]',
        b'[{"header":{"schema":1}}]',
        b'[{"header":{"schema":"A STRING"}}]',
        b'[{"header":\n{"schema":',
        b'[{"finalMessage":"x"},]',
        b'[{"finalMessage":"x"}{"finalMessage":"y"}]',
        b'[{"finalMessage":"x"}]]',
        b"[,]",
        b'[{"finalMessage":"\xff"}]',
    ],
)
def test_what_is_no_row_stream_is_refused(broken: bytes) -> None:
    """Another shape is an error at once, not an empty result."""
    with pytest.raises(KsqlWrongShape):
        RowFeed().feed(broken)


@pytest.mark.parametrize("wrapped", [True, False])
def test_an_error_object_ends_the_feed(wrapped: bool) -> None:
    """The server failed after it had begun: its code and its words are kept."""
    error = {"@type": "generic_error", "error_code": 50000, "message": "the\n\tstore is closed"}
    item = {"errorMessage": error} if wrapped else error
    with pytest.raises(KsqlInBandFailure, match="the store is closed") as caught:
        RowFeed().feed(("[" + json.dumps(HEADER) + ",\n" + json.dumps(item)).encode())
    assert caught.value.code == 50000


def test_a_pull_answer_has_the_expected_columns() -> None:
    """Names, types and keys are compared; the rows come as tuples."""
    text = ("[" + json.dumps(HEADER) + ',{"row":{"columns":["a",{"k":"v"}]}}]').encode()
    assert pulled(text, COLUMNS) == [("a", {"k": "v"})]
    with pytest.raises(KsqlWrongShape):
        pulled(text, COLUMNS[:1])
    assert pulled(("[" + json.dumps(HEADER) + "]").encode(), COLUMNS) == []


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ("", ()),
        ("`A` STRING", (Column("A", "STRING"),)),
        ("`A``B` DECIMAL(4, 2) KEY, `C` INTEGER", (Column("A`B", "DECIMAL(4, 2)", key=True), Column("C", "INTEGER"))),
        ("`S` STRUCT<`X, Y` INTEGER, `Z` ARRAY<STRING>>", (Column("S", "STRUCT<`X, Y` INTEGER, `Z` ARRAY<STRING>>"),)),
    ],
)
def test_schema_texts(schema: str, expected: tuple[Column, ...]) -> None:
    """Commas within types do not split columns; a doubled backtick is one."""
    assert columns_of(schema) == expected


@given(st.text(max_size=300))
def test_a_literal_is_one_token_with_the_value_intact(value: str) -> None:
    """A literal of ksqlDB goes from a quote to the next one that is not doubled."""
    text = literal(value)
    match = re.match(r"'((?:[^']|'')*)'", text)
    assert match is not None
    assert match.end() == len(text)
    assert match[1].replace("''", "'") == value


@given(st.text(max_size=40))
def test_an_identifier_is_whitelisted(name: str) -> None:
    """Whatever is not made of letters, digits, _ and - never reaches the server as a name."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        assert identifier(name) == f"`{name}`"
    else:
        with pytest.raises(KsqlBadStatement):
            identifier(name)


@pytest.mark.parametrize("name", ["", "a b", "a`; DROP STREAM x; --", "a.b", "ä", "a\n", "x" * 10 + "'"])
def test_hostile_names_are_refused(name: str) -> None:
    """The names that a person could try."""
    with pytest.raises(KsqlBadStatement):
        identifier(name)


def test_columns_and_stored_names() -> None:
    """Columns may hold anything but blanks around; names are folded unless in quotes."""
    assert column("a`b;") == "`a``b;`"
    for name in ("", " a", "a "):
        with pytest.raises(KsqlBadStatement):
            column(name)
    assert [fold_name(name) for name in ("Asset_Map", "`Asset_Map`", '"x""y"')] == ["ASSET_MAP", "Asset_Map", 'x"y']
