"""A service's bytes read by us and by h11, wherever they are cut: what we take, h11 takes and reads alike."""

from __future__ import annotations

import asyncio
import itertools
import re
from dataclasses import dataclass, field

import h11
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routing_layer.upstream.connection import MAX_COLLECTED, UpstreamConnection, UpstreamFailed

_EXAMPLES = 1000


@dataclass
class Reading:
    """What became of the bytes of one connection, up to its end.

    Attributes:
        complete: a whole response was read; otherwise something was refused, or missing.
        fields: lower-case names and values of what is passed on.
        open: after a response that was taken whole the connection could carry another request.
    """

    complete: bool = False
    status: int = 0
    reason: bytes = b""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    open: bool = False


class _Wire(asyncio.Transport):
    """The sending side of a connection: keeps nothing, and knows whether it was aborted."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Drop it."""

    def abort(self) -> None:
        """Give it up."""
        self.closed = True

    def is_closing(self) -> bool:
        """Whether it was."""
        return self.closed

    def pause_reading(self) -> None:
        """Do nothing: the test feeds what it wants."""

    def resume_reading(self) -> None:
        """Do nothing."""


async def _ours(pieces: list[bytes]) -> Reading:
    connection, wire = UpstreamConnection(asyncio.get_running_loop()), _Wire()
    connection.connection_made(wire)
    asking = asyncio.create_task(connection.request(b"", limit=60, collect=True))
    await asyncio.sleep(0)
    reading, ended, content = Reading(), list[bool](), list[bytes]()
    delivering = whole = False
    for piece in [*pieces, None]:
        if piece is None:
            reading.open = whole and connection.open
            connection.connection_lost(None)
        elif not wire.closed:
            connection.data_received(piece)
        await asyncio.sleep(0)
        if delivering or not asking.done():
            continue
        try:
            head, body = asking.result()
        except UpstreamFailed:
            return Reading()
        delivering = True
        reading.status, reading.reason = head.status, head.reason
        split = [line.partition(b":") for line in head.fields]
        reading.fields = [(name.lower(), value.strip(b" \t")) for name, _, value in split]
        if body is not None:
            ended, content, whole = [True], [body], True
        else:
            connection.pass_body(head.body(), content.append, ended.append)
    reading.complete, reading.body = ended == [True], b"".join(content)
    return reading


#: What h11 passes on and we do not, and what only frames the body.
_HOP = {
    *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    *(b"content-length", b"x-accel-buffering"),
}


def _reference(data: bytes) -> Reading:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    reading = Reading()
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(b"")
            elif isinstance(event, h11.Response):
                reading.status, reading.reason = event.status_code, bytes(event.reason)
                fields = [(bytes(name), bytes(value)) for name, value in event.headers]
                lines = [value.lower().split(b",") for name, value in fields if name == b"connection"]
                dropped = _HOP | {token.strip() for token in itertools.chain(*lines)}
                reading.fields = [pair for pair in fields if pair[0] not in dropped]
            elif isinstance(event, h11.Data):
                reading.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                reading.complete = True
                reading.open = not connection.trailing_data[0]
                return reading
            elif isinstance(event, h11.ConnectionClosed):
                return reading
    except h11.RemoteProtocolError:
        return reading


_HEAD = rb"(?is)\A(?:HTTP/1.1 1\d\d .*?\r\n\r\n)*HTTP/1.[01] \d\d\d(?:(?!\r\n\r\n).)*?"  # and a part of its fields
_WORD = rb"[\w!#$%&'*+.^`|~-]+"
_EXTENSION = rb";[ \t]*" + _WORD + rb"(?:[ \t]*=[ \t]*(?:" + _WORD + rb"|\"[^\"\r]*\"))?"
#: Why we may refuse what h11 takes: each is a rule of RFC 9112 or 9110 that h11 does not insist on.
_STRICTER = {
    "half a line end": rb"(?<!\r)\n|\r(?!\n)",
    "a control character": rb"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]",
    "a folded line": rb"\n[ \t]",
    "no blank after the status code": rb"HTTP/1\.[01] \d\d\d\r",
    "a status code that does not exist": rb"HTTP/\d\.\d [06-9]\d\d",
    "another version": rb"\A(?!HTTP/1\.[01] )|\nHTTP/(?!1\.[01] )",
    "interim with a length or a coding": rb"(?is)HTTP/1.1 1\d\d .*\n(?:content-length|transfer-encoding):",
    "without content, with a length or a coding": rb"(?is)HTTP/1.[01] 204 .*\n(?:content-length|transfer-encoding):",
    "a list of lengths": _HEAD + rb"\ncontent-length:[^\n]*,",
    "several lengths": _HEAD + rb"\ncontent-length:.*\ncontent-length:",
    "a length of too many digits": _HEAD + rb"\ncontent-length:[ \t]*\d{19}",
    "a length and a coding": _HEAD
    + rb"\n(?:content-length:.*\ntransfer-encoding|transfer-encoding:.*\ncontent-length):",
    "a coding in HTTP/1.0": rb"(?is)HTTP/1.0 .*\ntransfer-encoding:",
    "a blank after the size of a chunk": rb"\n[\da-fA-F]+[^\r\n]*[ \t]\r\n",
    "an extension that is none": rb"\n[\da-fA-F]+(?=[ \t]*;)(?!(?:" + _EXTENSION + rb")*\r\n)",
    "a size of too many digits": rb"\n[\da-fA-F]{16}",
}

_PIECES = st.lists(st.integers(0, 600), max_size=8)
_CRLF = st.sampled_from([b"\r\n"] * 100 + [b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\r\n "])
_STATUS = st.sampled_from(
    [
        *[b"HTTP/1.1 200 OK"] * 8,
        *(b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 503 \xe9 t"),
        *(b"HTTP/1.1 205 ", b"HTTP/1.1 200", b"HTTP/1.1 101 -", b"HTTP/1.1 600 -", b"HTTP/1.2 200 OK", b"ICY 200 OK"),
    ]
)
_GOOD_LENGTHS = (b"0", b"1", b"5", b"005", b"12")
_BAD_LENGTHS = (b"5, 5", b"+5", b"5,6", b"", b"0x5", b"-1", b"5 ", b"5 5", b"1" * 19, b"9" * 5000)
_CODINGS = (b"gzip", b"chunked, chunked", b"gzip, chunked", b"CHUNKED ", b"", b"identity", b"xchunked")
_LINES = st.sampled_from(
    [
        *[b"Content-Length: " + value for value in _GOOD_LENGTHS],
        *[b"content-length:" + value for value in _BAD_LENGTHS],
        *[b"Transfer-Encoding: chunked"] * 4,
        *[b"Transfer-Encoding:" + value for value in _CODINGS],
        *[b"X-A: 1", b"Set-Cookie: a=b; c", b"X:", b"Connection: close", b"Connection: X-A, keep-alive"] * 30,
        *(
            b"X-A : 1",
            b" folded",
            b"no colon",
            b": 1",
            b"X-\xe9: 1",
            b"X: \xe9\t1 ",
            b"X: \x00",
            b"X: a\x0bb",
            b"X\x00: 1",
        ),
    ]
)
_SIZES = st.sampled_from([*[b"%x", b"%X", b"%02x"] * 12, b"0x%x", b" %x", b"+%x", b"%x ", b"%016x"])
_EXTENSIONS = st.sampled_from(
    [*[b"", b"", b";a", b";a=b;c", b';a="b"'] * 10, b" ;a", b" ", b";", b";a\x00", b";a\nb", b";=", b'"', b";a b"]
)
_CHUNK = st.builds(
    lambda content, size, extension, end: size % len(content) + extension + b"\r\n" + content + end,
    st.binary(min_size=1, max_size=12),
    _SIZES,
    _EXTENSIONS,
    st.sampled_from([*[b"\r\n"] * 60, b"\n", b"", b"\r", b"x\r\n", b"\r\r\n"]),
)
_CHUNKED = st.builds(
    lambda chunks, last, trailer, end: b"".join(chunks) + last + trailer + end,
    st.lists(_CHUNK, max_size=3),
    st.sampled_from([*[b"0\r\n"] * 12, b"000\r\n", b"0;a\r\n", b"0\n", b"0\r\r\n", b""]),
    st.sampled_from(
        [*[b""] * 6, *[b"X-T: 1\r\n"] * 3, b"X-T: 1\r\n a\r\n", b"no colon\r\n", b"X : 1\r\n", b"X: \x01\r\n"]
    ),
    st.sampled_from([*[b"\r\n"] * 12, b"", b"\n", b"\r\n\r\n", b"\r\nHTTP/1.1 200 OK\r\n\r\n"]),
)
_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
_INTERIM = st.sampled_from([*[b""] * 10, _HINTS, _HINTS * 2, b"HTTP/1.1 100 -\r\nContent-Length: 3\r\n\r\n"])
_BYTES = b'\x00\t\n\x0b\r "+,-0159:;=Aax\x7f\x85\xff'


@st.composite
def _responses(draw: st.DrawFn) -> bytes:
    """A response that is nearly right, or right."""
    body = draw(st.one_of(_CHUNKED, st.binary(max_size=14)))
    extra = draw(st.sampled_from([b"", b"", b"", b"x", b"HTTP/1.1 200 OK\r\n\r\n"]))
    framing = draw(
        st.sampled_from(
            [
                [],
                [b"Transfer-Encoding: chunked"],
                [b"Transfer-Encoding: chunked"],
                *[[b"Content-Length: %d" % len(body)]] * 2,
            ]
        )
    )
    lines = [draw(_STATUS), *draw(st.lists(_LINES, max_size=2)), *framing, *draw(st.lists(_LINES, max_size=2))]
    head = b"".join(line + draw(_CRLF) for line in lines) + draw(_CRLF)
    body += extra
    data = bytearray(draw(_INTERIM) + head + body)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        position, byte = draw(st.integers(0, len(data))), draw(st.sampled_from(_BYTES))
        data[position : position + draw(st.integers(0, 1))] = draw(st.sampled_from([b"", bytes([byte])]))
    return bytes(data)


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


_settings = settings(max_examples=_EXAMPLES, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@_settings
@given(_responses(), _PIECES)
def test_we_read_what_h11_reads(data: bytes, cuts: list[int]) -> None:
    """Both read the same response; where only one takes it, it is h11, and for a reason that is listed."""
    loop = asyncio.new_event_loop()
    try:
        ours = loop.run_until_complete(_ours(_pieces(data, cuts)))
    finally:
        loop.close()
    reference = _reference(data)
    if ours.complete and reference.complete:
        assert (ours.status, ours.reason, ours.body) == (reference.status, reference.reason, reference.body)
        assert ours.fields == reference.fields
        assert ours.open <= reference.open  # nothing is left that the next request could take for its answer
    else:
        assert not ours.complete, "we take what h11 refuses"
        if reference.complete:
            assert [why for why, pattern in _STRICTER.items() if re.search(pattern, data)], "we refuse without a reason"


_VALUE = st.binary(max_size=20).map(lambda value: re.sub(rb"[^\t\x20-\x7e\x80-\xff]", b"", value))
_LEGAL_CHUNK = st.tuples(st.binary(min_size=1, max_size=40), st.sampled_from([b"", b";a", b';a="b;c"', b";a=b"]))


@_settings
@given(
    st.sampled_from([200, 201, 205, 304, 404, 500, 599]),
    st.lists(_VALUE, max_size=4),
    st.one_of(st.binary(max_size=60), st.lists(_LEGAL_CHUNK, max_size=4)),
    _PIECES,
)
def test_what_is_legal_is_taken(
    status: int, values: list[bytes], content: bytes | list[tuple[bytes, bytes]], cuts: list[int]
) -> None:
    """No legal response is refused, wherever it is cut, and all of its bytes are read."""
    lines = [b"HTTP/1.1 %d Any" % status, *(b"X-%d:%b" % (number, value) for number, value in enumerate(values))]
    if isinstance(content, bytes):
        lines.append(b"Content-Length: %d" % len(content))
        body, sent = content, content
    else:
        lines.append(b"Transfer-Encoding: chunked")
        body = b"".join(chunk for chunk, _ in content)
        sent = (
            b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk, extension in content) + b"0\r\n\r\n"
        )
    if status == 304:
        body = sent = b""
    data = b"\r\n".join(lines) + b"\r\n\r\n" + sent
    loop = asyncio.new_event_loop()
    try:
        ours = loop.run_until_complete(_ours(_pieces(data, cuts)))
    finally:
        loop.close()
    assert ours.complete
    assert (ours.status, ours.body) == (status, body)
    assert [value for _, value in ours.fields] == [value.strip(b" \t") for value in values]


def test_the_largest_answer_that_is_taken_whole() -> None:
    """An answer at the limit, and one that is a byte longer, are read in full."""
    for size in (MAX_COLLECTED, MAX_COLLECTED + 1):
        data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
        reading = asyncio.run(_ours(_pieces(data, [30, 100, MAX_COLLECTED // 2])))
        assert reading.complete
        assert len(reading.body) == size
