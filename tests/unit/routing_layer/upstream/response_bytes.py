"""Bytes of services: right, nearly right, and what real servers sent with a byte changed; cut anywhere."""

from __future__ import annotations

import itertools
import re

from hypothesis import strategies as st


def _chunks(*contents: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(content), content) for content in contents) + b"0\r\n\r\n"


#: Sent by real servers (aiohttp 3.14, HAProxy 2.6), or in the form of others (uvicorn, ksqlDB's Vert.x, nginx).
RECORDED = (
    (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
        b"X-OpenFactory-Group: Weld\r\nTransfer-Encoding: chunked\r\nDate: Sun, 29 Nov 2026 01:37:51 GMT\r\n"
        b"Server: Python/3.11 aiohttp/3.14.5\r\n\r\n"
        b"10\r\nid: 1\ndata: {}\n\n\r\ne\r\n: keep-alive\n\n\r\n0\r\n\r\n"
    ),
    (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 20\r\n"
        b"Date: Sun, 29 Nov 2026 01:37:53 GMT\r\nServer: Python/3.11 aiohttp/3.14.5\r\nConnection: close\r\n\r\n"
        b'{"asset_uuid": "A1"}'
    ),
    b"HTTP/1.1 204 No Content\r\nDate: Sun, 29 Nov 2026 01:37:53 GMT\r\nServer: Python/3.11 aiohttp/3.14.5\r\n\r\n",
    b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nDate: Sun, 29 Nov 2026 01:37:54 GMT\r\n\r\n',
    (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
        b"x-openfactory-group: Weld\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        b"10\r\nid: 1\ndata: {}\n\n\r\nE\r\n: keep-alive\n\n\r\n0\r\n\r\n"
    ),
    (
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 83\r\ncache-control: no-cache\r\ncontent-type: text/html\r\n\r\n"
        b"<html><body><h1>404 Not Found</h1>\nThe resource could not be found.\n</body></html>\n"
    ),
    b"HTTP/1.1 200 OK\r\ndate: Sun, 29 Nov 2026 01:37:57 GMT\r\nserver: uvicorn\r\nconnection: keep-alive\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    + _chunks(b"event: asset_update\ndata: {}\n\n", b":\n\n"),
    b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.ksql.v1+json\r\ntransfer-encoding: chunked\r\n\r\n"
    + _chunks(b'[{"header":{"queryId":"q","schema":"`A` INT"}}', b',\n{"row":{"columns":[1,2]}}', b"]"),
    (
        b"HTTP/1.1 502 Bad Gateway\r\nServer: nginx/1.22.1\r\nDate: Sun, 29 Nov 2026 01:37:57 GMT\r\n"
        b"Content-Type: text/html\r\nContent-Length: 9\r\nConnection: keep-alive\r\n"
        b"Keep-Alive: timeout=5, max=100\r\n\r\n<html>\r\n\n"
    ),
    b"HTTP/1.0 200 OK\r\nServer: SimpleHTTP/0.6 Python/3.11.7\r\nContent-type: text/plain\r\n\r\nuntil the end\n",
    (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nTrailer: X-Sum\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n4;n=1\r\nWiki\r\n0\r\nX-Sum: 4\r\n\r\n"
    ),
)
#: In place of bytes that are long: how many.
_LONG = re.compile(rb"<(\d+) bytes>")

PIECES = st.one_of(st.just([]), st.lists(st.integers(0, 600), max_size=8))
_CRLF = st.sampled_from([b"\r\n"] * 100 + [b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\r\n "])
_STATUS = st.sampled_from(
    [
        *[b"HTTP/1.1 200 OK"] * 8,
        *(b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 503 \xe9 t"),
        *(b"HTTP/1.1 205 ", b"HTTP/1.1 200", b"HTTP/1.1 101 -", b"HTTP/1.1 600 -", b"HTTP/1.2 200 OK", b"ICY 200 OK"),
        *(b"HTTP/1.1 099 -", b"HTTP/1.1  200 OK", b"HTTP/1.1 200 \x00", b"\r\nHTTP/1.1 200 OK", b"http/1.1 200 OK"),
        *(b"HTTP/1.1 101 -\r\nUpgrade: x\r\nConnection: upgrade", b"HTTP/2.0 200 OK", b"HTTP/1.1 2000 OK"),
        *(b"HTTP/0.9 200 OK", b"HTTP/1.1 500", b"HTTP/1.1 205 Reset Content", b"HTTP/1.1 200 \xc3\xa9"),
    ]
)
_GOOD_LENGTHS = (b"0", b"1", b"5", b"005", b"12")
_BAD_LENGTHS = (b"5, 5", b"+5", b"5,6", b"", b"0x5", b"-1", b"5 ", b"5 5", b"5".zfill(19), b"9" * 50)
_CODINGS = (b"gzip", b"chunked, chunked", b"gzip, chunked", b"CHUNKED ", b"", b"identity", b"xchunked", b",chunked")
_LINES = st.sampled_from(
    [
        *[b"Content-Length: " + value for value in _GOOD_LENGTHS],
        *[b"content-length:" + value for value in _BAD_LENGTHS],
        *[b"Transfer-Encoding: chunked"] * 4,
        *[b"Transfer-Encoding:" + value for value in _CODINGS],
        *[b"X-A: 1", b"Set-Cookie: a=b; c", b"X:", b"Connection: close", b"Connection: X-A, keep-alive"] * 15,
        *[b"Connection: keep-alive", b"connection: Close , x", b"Content-Encoding: gzip"] * 5,
        *(b"X-A : 1", b" folded", b"no colon", b": 1", b"X-\xe9: 1", b"X: \xe9\t1 ", b"X: \x00", b"X: a\x0bb"),
        *(b"X\x00: 1", b"X: \x7f", b'"X": 1', b"Upgrade: h2c", b"X-Long: <70000 bytes>"),
    ]
)
_SIZES = st.sampled_from([*[b"%x", b"%X", b"%02x"] * 12, b"0x%x", b" %x", b"+%x", b"%x ", b"%016x", b"%017x"])
_EXTENSIONS = st.sampled_from(
    [
        *[b"", b"", b";a", b";a=b;c", b';a="b"'] * 10,
        *(b" ;a", b" ", b";", b";a\x00", b";a\nb", b";=", b'"', b";a b", b";a=", b"; a = b", b";a;", b';a="\\""'),
        b";a=<4100 bytes>",
    ]
)
_CHUNK = st.builds(
    lambda content, size, extension, end: size % len(content) + extension + b"\r\n" + content + end,
    st.binary(min_size=1, max_size=12),
    _SIZES,
    _EXTENSIONS,
    st.sampled_from([*[b"\r\n"] * 60, b"\n", b"", b"\r", b"x\r\n", b"\r\r\n", b"\n\n", b"\rx", b"x\n"]),
)
_TRAILERS = (b"X-T: 1\r\n a\r\n", b"no colon\r\n", b"X : 1\r\n", b"X: \x01\r\n", b"X: <5000 bytes>\r\n")
_CHUNKED = st.builds(
    lambda chunks, last, trailer, end: b"".join(chunks) + last + trailer + end,
    st.lists(_CHUNK, max_size=3),
    st.sampled_from([*[b"0\r\n"] * 12, b"000\r\n", b"0;a\r\n", b"0\n", b"0\r\r\n", b""]),
    st.sampled_from([*[b""] * 8, *[b"X-T: 1\r\n"] * 4, *_TRAILERS, b"X: <4000 bytes>\r\n" * 5]),
    st.sampled_from([*[b"\r\n"] * 12, b"", b"\n", b"\r\n\r\n", b"\r\nHTTP/1.1 200 OK\r\n\r\n"]),
)
_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
_INTERIM = st.sampled_from(
    [
        *[b""] * 20,
        *[_HINTS, _HINTS * 2] * 2,
        *(b"HTTP/1.1 100 -\r\nContent-Length: 3\r\n\r\n", b"HTTP/1.0 103 -\r\n\r\n"),
        *(b"HTTP/1.1 103 -\r\nConnection: close\r\n\r\n", b"HTTP/1.1 103 -\r\nConnection: keep-alive\r\n\r\n"),
    ]
)
_BYTES = b'\x00\t\n\x0b\r "+,-0159:;=Aax\x7f\x85\xff'


def _lengthen(data: bytes) -> bytes:
    return _LONG.sub(lambda found: b"l" * min(int(found[1]), 70_000), data)


def _change(draw: st.DrawFn, data: bytearray, times: int) -> bytes:
    """Remove, insert, replace or double a few bytes."""
    for _ in range(times):
        position, byte = draw(st.integers(0, len(data))), draw(st.sampled_from(_BYTES))
        piece = bytes(data[position : position + draw(st.integers(1, 30))])
        new = draw(st.sampled_from([b"", bytes([byte]), bytes([byte]), piece * 2]))
        data[position : position + draw(st.integers(0, 1))] = new
    return bytes(data)


@st.composite
def _made(draw: st.DrawFn) -> bytes:
    """A response that is nearly right, or right."""
    body = _lengthen(draw(st.one_of(_CHUNKED, st.binary(max_size=14))))
    extra = draw(st.sampled_from([b"", b"", b"", b"x", b"HTTP/1.1 200 OK\r\n\r\n"]))
    chunked, length = [b"Transfer-Encoding: chunked"], [b"Content-Length: %d" % len(body)]
    framing = draw(st.sampled_from([[], chunked, chunked, length, length]))
    lines = [draw(_STATUS), *draw(st.lists(_LINES, max_size=2)), *framing, *draw(st.lists(_LINES, max_size=2))]
    head = b"".join(line + draw(_CRLF) for line in lines) + draw(_CRLF)
    data = bytearray(draw(_INTERIM) + _lengthen(head) + body + extra)
    return _change(draw, data, draw(st.sampled_from([0, 0, 0, 1, 2])))


@st.composite
def _changed(draw: st.DrawFn) -> bytes:
    """What a real server sent, with some bytes changed, or two of them one after the other."""
    data = draw(st.sampled_from(RECORDED)) + draw(st.sampled_from([b""] * 9 + list(RECORDED)))
    return _change(draw, bytearray(data), draw(st.integers(0, 3)))


RESPONSES = st.one_of(_made(), _changed())


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return the bytes in pieces that end at these places; the places beyond the end do not count."""
    edges = sorted({0, len(data), *(place for place in cuts if place < len(data))})
    return [data[start:end] for start, end in itertools.pairwise(edges)]
