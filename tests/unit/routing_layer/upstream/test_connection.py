"""Heads of responses, parsed strictly."""

from __future__ import annotations

import pytest

from routing_layer.upstream.connection import Failure, UpstreamFailed, parse_head


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
    *(b"HTTP/1.0 103 -\r\nLink: </a>", b"HTTP/1.0 100 "),
    *(b"HTTP/1.1 103 -\r\nContent-Length: 3", b"HTTP/1.1 100 -\r\nTransfer-Encoding: chunked"),
    *(b"HTTP/1.1 304 -\r\nContent-Length: 3\r\nTransfer-Encoding: chunked", b"HTTP/1.1 304 -\r\nContent-Length: x"),
]


@pytest.mark.parametrize("data", _NO_HEADS, ids=lambda data: repr(data[-36:]))
def test_a_head_that_is_malformed_or_in_doubt_is_refused(data: bytes) -> None:
    """RFC 9112 to the letter: nothing hidden in a line reaches a client, and where the body ends is not guessed."""
    with pytest.raises(UpstreamFailed) as refused:
        parse_head(data)
    assert refused.value.failure is Failure.MALFORMED


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
