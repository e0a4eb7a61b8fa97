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


def _feed(body: ChunkedBody, data: bytes, size: int) -> bytes:
    """Feed the data in pieces of this size; return what it gives."""
    return b"".join(body.feed(data[start : start + size]) for start in range(0, len(data), size))


_NO_CHUNKS = [
    *(b"x\r\n", b"-1\r\n", b"+1\r\na\r\n", b"1_0\r\n", b"\r\n", b"0x9\r\n123456789\r\n", b" 9\r\n123456789\r\n"),
    *(
        b"9 \r\n123456789\r\n",
        b"\t9\r\n",
        b"\x0b9\r\n",
        b"9\x0c\r\n",
        b"9\x00\r\n",
        b"1 ;a\r\na\r\n",
        b"\xd9\xa1\r\na\r\n",
        b"1.0\r\na\r\n",
    ),
    *(b"9;a\nb\r\n123456789\r\n", b"1;a\rb\r\na\r\n", b"1\na\n", b"1\n", b"1\r\r\na\r\n", b"0\r\r\n\r\n", b"0\n\n"),
    *(
        b"1;\r\na\r\n",
        b"1;=x\r\na\r\n",
        b"1;a=\r\na\r\n",
        b'1;a="b\r\na\r\n',
        b"1,a\r\na\r\n",
        b"1 a\r\na\r\n",
        b"1;a b\r\na\r\n",
    ),
    *(
        b"1;a\x1b\r\na\r\n",
        b"f" * 16 + b"\r\n",
        b"0" * 5000 + b"1\r\na\r\n",
        b"1;" + b"a" * 5000 + b"\r\na\r\n",
        b"1" * 5000,
    ),
    *(
        b"2\r\nabc\r\n",
        b"1\r\na\rb",
        b"1\r\na\n",
        b"1\r\nab\r\n",
        b"1\r\na\r\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"1\r\na\r\n\r\n",
    ),
    *(b"0\r\nno colon\r\n\r\n", b"0\r\nA : 1\r\n\r\n", b"0\r\n A: 1\r\n\r\n", b"0\r\nA: 1\r\n b\r\n\r\n"),
    *(b"0\r\nA: \x00\r\n\r\n", b"0\r\nA: 1\nB: 2\r\n\r\n", b"0\r\nA: 1\rB\r\n\r\n", b"0\r\n: 1\r\n\r\n"),
    *(b"0\r\nA: " + b"a" * 5000 + b"\r\n\r\n", b"0\r\n" + b"A: b\r\n" * 5000 + b"\r\n"),
]


@pytest.mark.parametrize("data", _NO_CHUNKS, ids=lambda data: repr(data[:24]))
@pytest.mark.parametrize("size", [10_000_000, 1, 2, 3])
def test_what_is_not_a_chunk_is_refused(data: bytes, size: int) -> None:
    """Sizes, extensions, ends of chunks and trailers to the letter, also when they come in pieces."""
    with pytest.raises(BrokenBody):
        _feed(ChunkedBody(), data, size)


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"1\r\na\r\n0\r\n\r\n",
            b"001\r\na\r\n0\r\n\r\n",
            b"1;a\r\na\r\n0;z=1\r\n\r\n",
            b'1;a="b;\\"c"\r\na\r\n0\r\n\r\n',
        ),
        *(b"1; a = b;c\r\na\r\n0\r\n\r\n", b"1\r\na\r\n0\r\nX-Sum: 1\r\nEmpty:\r\n\r\n", b"1\r\na\r\n000\r\n\r\n"),
    ],
)
def test_every_form_of_a_chunk_is_taken(data: bytes) -> None:
    """Leading zeros, extensions with quoted values and trailers are legal."""
    for size in (len(data), 1):
        body = ChunkedBody()
        assert _feed(body, data, size) == b"a"
        assert body.done


def test_a_fixed_body_drops_what_follows_it() -> None:
    """Bytes after the announced length are not the body's."""
    body = FixedBody(3)
    assert body.feed(b"ab") + body.feed(b"cdef") == b"abc"
    assert body.done


def test_a_response_head_keeps_its_lines() -> None:
    """End-to-end fields stay byte for byte; those of the connection go, also the ones that any of its lines names."""
    head = parse_head(
        b"HTTP/1.1 200 OK\r\nX-A:  b \r\nTransfer-Encoding: chunked\r\nConnection: close, X-C\r\nX-C: 1\r\nx-d: 2\r\n"
        b"connection: X-D\r\ncontent-type: Text/Event-Stream; charset=utf-8"
    )
    assert head.fields == (b"X-A:  b ", b"content-type: Text/Event-Stream; charset=utf-8")
    assert (head.chunked, head.length, head.reusable, head.event_stream) == (True, None, False, True)


_OK = b"HTTP/1.1 200 OK\r\n"
_NO_HEADS = [
    *(
        b"",
        b"HTTP/2 200 OK",
        b"HTTP/1.2 200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 200OK",
        b"HTTP/1.1 200",
    ),
    *(
        b"HTTP/1.1  200 OK",
        b"http/1.1 200 OK",
        b" HTTP/1.1 200 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 600 OK",
        b"HTTP/1.1\t200 OK",
    ),
    *(
        b"\r\nHTTP/1.1 200 OK",
        b"HTTP/1.1 200 O\x00K",
        b"HTTP/1.1 200 O\rK",
        b"HTTP/1.1 200 OK\nX: 1",
        b"HTTP/1.1 200 \x1b[2J",
    ),
    *(
        _OK + b"X: 1\nTransfer-Encoding: chunked",
        _OK + b"X: 1\rY: 2",
        _OK + b"X: \x00",
        _OK + b"X: a\x7f",
        _OK + b"X: \x0b",
    ),
    *(
        _OK + b"no colon",
        _OK + b": no name",
        _OK + b"X : 1",
        _OK + b"X\t: 1",
        _OK + b"X Y: 1",
        _OK + b"X\xe9: 1",
        _OK + b"(X): 1",
    ),
    *(_OK + b" Content-Length: 3", _OK + b"X: 1\r\n Content-Length: 3", _OK + b"X: 1\r\n\tfolded", _OK + b"\x00X: 1"),
    *(
        _OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked",
        _OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3",
    ),
    *(_OK + b"Content-Length: 1\r\nContent-Length: 2", _OK + b"Content-Length: 1\r\ncontent-length: 1"),
    *(
        _OK + b"Content-Length: 1, 2",
        _OK + b"Content-Length: 1, 1",
        _OK + b"Content-Length: 1,",
        _OK + b"Content-Length:",
    ),
    *(
        _OK + b"Content-Length: +5",
        _OK + b"Content-Length: -1",
        _OK + b"Content-Length: 0x5",
        _OK + b"Content-Length: 5 5",
    ),
    *(
        _OK + b"Content-Length: 5.0",
        _OK + b"Content-Length: 1_0",
        _OK + b"Content-Length: \xb2",
        _OK + b"Content-Length: " + b"9" * 5000,
    ),
    *(
        _OK + b"Transfer-Encoding: gzip, chunked",
        _OK + b"Transfer-Encoding: chunked, gzip",
        _OK + b"Transfer-Encoding: gzip",
    ),
    *(_OK + b"Transfer-Encoding: chunked, chunked", _OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    *(_OK + b"Transfer-Encoding:", _OK + b"Transfer-Encoding: identity", _OK + b"Transfer-Encoding: chunked;q=1"),
    *(
        _OK + b"Transfer-Encoding: xchunked",
        _OK + b"Transfer-Encoding: ,chunked",
        _OK + b'Transfer-Encoding: "chunked"',
    ),
    *(_OK + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked"),
    *(b"HTTP/1.1 204 -\r\nContent-Length: 3", b"HTTP/1.1 204 -\r\nTransfer-Encoding: chunked"),
    *(b"HTTP/1.1 103 -\r\nContent-Length: 3", b"HTTP/1.1 100 -\r\nTransfer-Encoding: chunked"),
    *(b"HTTP/1.1 304 -\r\nContent-Length: 3\r\nTransfer-Encoding: chunked", b"HTTP/1.1 304 -\r\nContent-Length: x"),
]


@pytest.mark.parametrize("data", _NO_HEADS, ids=lambda data: repr(data[-36:]))
def test_a_head_that_is_malformed_or_in_doubt_is_refused(data: bytes) -> None:
    """RFC 9112 to the letter: nothing hidden in a line reaches a client, and where the body ends is not guessed."""
    with pytest.raises(UpstreamBroke) as refused:
        parse_head(data)
    assert refused.value.malformed


@pytest.mark.parametrize(
    ("data", "status", "length", "chunked"),
    [
        (_OK + b"Content-Length: 5", 200, 5, False),
        (_OK + b"content-length:\t0005 \t", 200, 5, False),
        (_OK + b"Transfer-Encoding: Chunked", 200, None, True),
        (b"HTTP/1.0 200 ", 200, None, False),
        (b"HTTP/1.1 404 Nicht gefunden \xe9\t!", 404, None, False),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0", 204, None, False),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 26", 304, 26, False),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked", 304, None, True),
        (_OK + b"X-Empty:\r\nX!#$%&'*+-.^_`|~9: \xff\t\"", 200, None, False),
    ],
)
def test_every_form_of_a_head_is_taken(data: bytes, status: int, length: int | None, chunked: bool) -> None:
    """What is legal and clear is read, whatever it looks like."""
    head = parse_head(data)
    assert (head.status, head.length, head.chunked) == (status, length, chunked)
    assert head.fields == tuple(
        line
        for line in data.split(b"\r\n")[1:]
        if not line.lower().startswith((b"content-length", b"transfer-encoding"))
    )


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
