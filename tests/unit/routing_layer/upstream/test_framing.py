"""Where a body ends, whatever pieces it comes in."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing_layer.upstream.framing import ChunkedBody, MalformedBody, PlainBody

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


@given(st.lists(st.integers(1, 300), min_size=1, max_size=5), st.sampled_from([b"%x", b"%X", b"0%x"]))
def test_whole_chunks_of_any_size_in_one_read(sizes: list[int], form: bytes) -> None:
    """The usual read is one or some whole chunks; the ways to read them and the way to read cut ones agree."""
    data = b"".join((form % size) + b"\r\n" + b"x" * size + b"\r\n" for size in sizes)
    body = ChunkedBody()
    for _ in range(2):
        assert body.feed(data) == b"x" * sum(sizes)
    assert body.feed(b"0\r\n\r\n") == b""
    assert body.done


@given(st.binary(max_size=40), _CUTS)
def test_a_chunked_body_without_its_last_chunk_is_not_complete(content: bytes, cuts: list[int]) -> None:
    """However much came: only the last chunk is the end."""
    body = ChunkedBody()
    for piece in _pieces(b"%x\r\n%b\r\n" % (len(content) + 1, content + b"."), cuts):
        body.feed(piece)
    assert not body.done
    assert not body.ends_at_eof


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
    *(
        b"\r\n\r\n",
        b"1\r\na\r\n+1\r\na\r\n",
        b"1\r\na\r\n0x1\r\na\r\n",
        b"1\r\na\r\n 1\r\na\r\n",
        b"1\r\na\r\n1\r\nab\r\n",
    ),
    *(b"0\r\nno colon\r\n\r\n", b"0\r\nA : 1\r\n\r\n", b"0\r\n A: 1\r\n\r\n", b"0\r\nA: 1\r\n b\r\n\r\n"),
    *(b"0\r\nA: \x00\r\n\r\n", b"0\r\nA: 1\nB: 2\r\n\r\n", b"0\r\nA: 1\rB\r\n\r\n", b"0\r\n: 1\r\n\r\n"),
    *(b"0\r\nA: " + b"a" * 5000 + b"\r\n\r\n", b"0\r\n" + b"A: b\r\n" * 5000 + b"\r\n"),
]


@pytest.mark.parametrize("data", _NO_CHUNKS, ids=lambda data: repr(data[:24]))
@pytest.mark.parametrize("size", [10_000_000, 1, 2, 3])
def test_what_is_not_a_chunk_is_refused(data: bytes, size: int) -> None:
    """Sizes, extensions, ends of chunks and trailers to the letter, also when they come in pieces."""
    with pytest.raises(MalformedBody):
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
    body = PlainBody(3)
    assert body.feed(b"ab") + body.feed(b"cdef") == b"abc"
    assert body.done
