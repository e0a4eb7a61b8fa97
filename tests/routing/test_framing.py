"""Where a body ends, whatever pieces it comes in."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing_layer.body import BrokenBody, ChunkedBody, FixedBody
from routing_layer.membership import UNKNOWN, Membership, NegativeCache
from routing_layer.upstream import UpstreamBroke, parse_head
from tests.routing.sse import EventParser

_CUTS = st.lists(st.integers(0, 400), max_size=12)


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=6), _CUTS, st.sampled_from([b"", b";x=1"]))
def test_chunks_cut_anywhere_give_the_same_body(chunks: list[bytes], cuts: list[int], extension: bytes) -> None:
    """Reads end inside of sizes, contents and line ends; the body is the same and its end is found."""
    data = b"".join(b"%X%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    data += b"0\r\nX-Trailer: 1\r\n\r\n"
    body = ChunkedBody()
    received = b"".join(body.feed(piece) for piece in _pieces(data, cuts))
    assert received == b"".join(chunks)
    assert body.done


@given(st.binary(max_size=40), _CUTS)
def test_a_chunked_body_without_its_last_chunk_is_not_complete(content: bytes, cuts: list[int]) -> None:
    """However much came: only the last chunk is the end."""
    body = ChunkedBody()
    for piece in _pieces(b"%x\r\n%b\r\n" % (len(content) + 1, content + b"."), cuts):
        body.feed(piece)
    assert not body.done
    assert not body.ends_with_connection()


@pytest.mark.parametrize(
    "data", [b"x\r\n", b"-1\r\n", b"1_0\r\n", b"\r\n", b"2\r\nabc\r\n", b"1\r\na\rb", b"+1\r\na\r\n"]
)
def test_what_is_not_a_chunk_is_refused(data: bytes) -> None:
    """A size that is none, or content longer than its size."""
    with pytest.raises(BrokenBody):
        ChunkedBody().feed(data)


def test_a_fixed_body_drops_what_follows_it() -> None:
    """Bytes after the announced length are not the body's."""
    body = FixedBody(3)
    assert body.feed(b"ab") + body.feed(b"cdef") == b"abc"
    assert body.done


def test_a_response_head_keeps_its_lines() -> None:
    """End-to-end fields stay byte for byte; those of the connection go, also the ones it names."""
    head = parse_head(
        b"HTTP/1.1 200 OK\r\nX-A:  b \r\nTransfer-Encoding: chunked\r\nConnection: close, X-C\r\nX-C: 1\r\n"
        b"Content-Length: 3\r\ncontent-type: Text/Event-Stream; charset=utf-8"
    )
    assert head.fields == (b"X-A:  b ", b"content-type: Text/Event-Stream; charset=utf-8")
    assert (head.chunked, head.length, head.reusable, head.event_stream) == (True, None, False, True)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/2 200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
    ],
)
def test_an_ambiguous_head_is_refused(data: bytes) -> None:
    """Where the body would end is not guessed."""
    with pytest.raises(UpstreamBroke):
        parse_head(data)


def test_the_negative_cache_is_bounded_and_forgets() -> None:
    """Invented names push each other out; time does the rest."""
    now = [0.0]
    cache = NegativeCache(3, 2.0, lambda: now[0])
    for name in "abcd":
        cache.add(name)
    assert len(cache) == 3
    assert "a" not in cache
    assert "d" in cache
    now[0] = 2.1
    assert "d" not in cache


def test_membership_tells_of_moves_alone() -> None:
    """The first group of an asset is no move, the same group again neither; a removal is."""
    moves: list[tuple[str, str | None]] = []
    members = Membership(lambda asset, group: moves.append((asset, group)))
    members.put("A", "Weld")
    members.put("A", str(b"Weld", "ascii"))
    assert moves == []
    members.put("A", "Paint")
    members.put("A", None)
    members.remove("A")
    members.remove("A")
    assert moves == [("A", "Paint"), ("A", None), ("A", None)]
    assert members.group_of("A") is UNKNOWN


@given(
    st.lists(st.sampled_from(["\n", "\r", "\r\n", "data: a", "data:b", ":c", "id: 1", "event: e", "\u2028", "x"])),
    _CUTS,
)
def test_the_tests_own_parser_does_not_depend_on_cuts(parts: list[str], cuts: list[int]) -> None:
    """Bytes one by one, or all at once: the same events."""
    data = "".join(parts).encode()
    whole, cut = EventParser(), EventParser()
    assert whole.feed(data) == [event for piece in _pieces(data, cuts) for event in cut.feed(piece)]
