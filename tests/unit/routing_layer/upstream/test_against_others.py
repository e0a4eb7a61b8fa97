"""A service's bytes read by us, by h11 and by httptools, wherever they are cut: each difference has its reason."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routing_layer.upstream.connection import MAX_COLLECTED
from tests.unit.routing_layer.upstream.disagreements import BOTH, H11, HTTPTOOLS, REASONS, judge
from tests.unit.routing_layer.upstream.response_bytes import PIECES, RECORDED, RESPONSES, cut
from tests.unit.routing_layer.upstream.response_readers import Reading, read_h11, read_httptools, read_ours

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
_settings = settings(max_examples=1500, derandomize=True, deadline=None, suppress_health_check=_SLOW)


def _read(data: bytes, cuts: list[int]) -> Reading:
    with asyncio.Runner() as runner:
        return runner.run(read_ours(cut(data, cuts)))


@_settings
@given(RESPONSES, PIECES)
def test_we_read_what_h11_and_httptools_read(data: bytes, cuts: list[int]) -> None:
    """What two take is the same response; what one refuses, or reads otherwise, is in the table."""
    ours = _read(data, cuts)
    for reader, theirs in ((H11, read_h11(data)), (HTTPTOOLS, read_httptools(data))):
        difference, reasons = judge(data, ours, reader, theirs)
        assert difference is None or reasons, f"{reader}: {difference}\n{ours}\n{theirs}"


@pytest.mark.parametrize("data", RECORDED, ids=lambda data: data[:60].decode().partition("\n")[0])
def test_what_servers_send_is_read_by_all_and_alike(data: bytes) -> None:
    """The recorded responses, before a byte is changed, cut after each byte."""
    theirs = read_httptools(data)
    for place in range(len(data)):
        ours = _read(data, [place])
        assert ours.complete
        assert judge(data, ours, HTTPTOOLS, theirs) == judge(data, ours, H11, read_h11(data)) == (None, [])


_OK, _CHUNKED = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_EXAMPLES = {
    "a bare LF in a head": {H11: _OK + b"X: 1\nY: 2\r\nContent-Length: 0\r\n\r\n"},
    "a control character in a phrase": dict.fromkeys(BOTH, b"HTTP/1.1 200 \x7f\r\nContent-Length: 0\r\n\r\n"),
    "a control character in a field": {H11: _OK + b"X: \x7f\r\nContent-Length: 0\r\n\r\n"},
    "a folded line": {H11: _OK + b"X: 1\r\n 2\r\nContent-Length: 0\r\n\r\n"},
    "no blank after the status code": dict.fromkeys(BOTH, b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"),
    "a status code that does not exist": dict.fromkeys(BOTH, b"HTTP/1.1 600 -\r\nContent-Length: 0\r\n\r\n"),
    "another version": dict.fromkeys(BOTH, b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "line ends before a status line": {HTTPTOOLS: b"\r\n" + _OK + b"Content-Length: 0\r\n\r\n"},
    "an interim response with a length or a coding": dict.fromkeys(
        BOTH, b"HTTP/1.1 100 -\r\nContent-Length: 3\r\n\r\n" + _OK + b"Content-Length: 0\r\n\r\n"
    ),
    "an interim response in HTTP/1.0": {H11: b"HTTP/1.0 103 -\r\n\r\n" + _OK + b"Content-Length: 0\r\n\r\n"},
    "an interim response with 'Connection: close'": {
        HTTPTOOLS: b"HTTP/1.1 103 -\r\nConnection: close\r\n\r\n" + _OK + b"Content-Length: 0\r\n\r\n"
    },
    "a 204 with a length or a coding": dict.fromkeys(BOTH, b"HTTP/1.1 204 -\r\nContent-Length: 3\r\n\r\n"),
    "several lengths, or a list of them": {H11: _OK + b"Content-Length: 1, 1\r\n\r\nx"},
    "a length of more than 18 digits": dict.fromkeys(BOTH, _OK + b"Content-Length: %019d\r\n\r\nx" % 1),
    "a length and a coding": {H11: _CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n0\r\n\r\n"},
    "a coding in HTTP/1.0": dict.fromkeys(BOTH, b"HTTP/1.0" + _CHUNKED[8:] + b"0\r\n\r\n"),
    "a coding that is not 'chunked' alone": {HTTPTOOLS: _OK + b"Transfer-Encoding: gzip\r\n\r\nx"},
    "heads of more than 64 KiB": dict.fromkeys(BOTH, _OK + b"X: " + b"x" * 70_000 + b"\r\n\r\n"),
    "half a line end in a chunked body": {H11: _CHUNKED + b"0\r\nX: 1\n\r\n"},
    "a control character in a chunked body's lines": {H11: _CHUNKED + b"0\r\nX: \x01\r\n\r\n"},
    "a folded line in a trailer": {H11: _CHUNKED + b"0\r\nX: 1\r\n 2\r\n\r\n"},
    "a blank after the size of a chunk": {H11: _CHUNKED + b"1 \r\nx\r\n0\r\n\r\n"},
    "an extension of a chunk that is none": dict.fromkeys(BOTH, _CHUNKED + b"1;a=\r\nx\r\n0\r\n\r\n"),
    "a size of more than 15 digits": dict.fromkeys(BOTH, _CHUNKED + b"%016x\r\nx\r\n0\r\n\r\n" % 1),
    "a line of a chunked body of more than 4 KiB": dict.fromkeys(
        BOTH, _CHUNKED + b"1;" + b"a" * 5000 + b"\r\nx\r\n0\r\n\r\n"
    ),
    "a trailer of more than 16 KiB": dict.fromkeys(BOTH, _CHUNKED + b"0\r\n" + b"X: 1\r\n" * 3000 + b"\r\n"),
    "blanks in an extension of a chunk": {HTTPTOOLS: _CHUNKED + b"1; a =\tb\r\nx\r\n0\r\n\r\n"},
    "a 304 with a coding is the last on its connection": dict.fromkeys(
        BOTH, b"HTTP/1.1 304 -\r\nTransfer-Encoding: chunked\r\n\r\n"
    ),
    "an HTTP/1.0 connection is used once": {
        HTTPTOOLS: b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n"
    },
}


@pytest.mark.parametrize("name", [reason.name for reason in REASONS])
def test_each_reason_is_needed(name: str) -> None:
    """Each has bytes that it alone explains, for each of its readers: the table has no rest of something mended."""
    reason = next(reason for reason in REASONS if reason.name == name)
    assert set(_EXAMPLES[name]) == reason.readers
    for reader, data in _EXAMPLES[name].items():
        theirs = read_h11(data) if reader == H11 else read_httptools(data)
        assert judge(data, _read(data, []), reader, theirs) == (reason.difference, [name])


_VALUE = st.binary(max_size=20).map(lambda value: re.sub(rb"[^\t\x20-\x7e\x80-\xff]", b"", value))
_LEGAL_CHUNK = st.tuples(st.binary(min_size=1, max_size=40), st.sampled_from([b"", b";a", b';a="b;c"', b";a=b"]))


@_settings
@given(
    st.sampled_from([200, 201, 205, 304, 404, 500, 599]),
    st.lists(_VALUE, max_size=4),
    st.one_of(st.binary(max_size=60), st.lists(_LEGAL_CHUNK, max_size=4)),
    PIECES,
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
    ours = _read(data, cuts)
    assert ours.complete
    assert (ours.status, ours.body) == (status, body)
    assert [value for _, value in ours.fields] == [value.strip(b" \t") for value in values]


def test_the_largest_answer_that_is_taken_whole() -> None:
    """An answer at the limit, and one that is a byte longer, are read in full."""
    for size in (MAX_COLLECTED, MAX_COLLECTED + 1):
        data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
        reading = _read(data, [30, 100, MAX_COLLECTED // 2])
        assert reading.complete
        assert len(reading.body) == size
