"""Where the body of a response ends, byte by byte: the three framings of HTTP/1.1, without any I/O."""

from __future__ import annotations

import re
from functools import lru_cache

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
#: A field line of a head or a trailer without its CRLF (RFC 9112, section 5): no blank before the colon, no folded
#: line, no control character but the tab.
FIELD_LINE = _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*"
_FIELD_LINE = re.compile(FIELD_LINE)
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_EXTENSION = rb";[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?"
_DIGITS = 15  # of a chunk size: more than any body has, less than what overflows elsewhere
#: The line before a chunk without its CRLF (RFC 9112, section 7.1).
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,%d})(?:%b)*" % (_DIGITS, _EXTENSION))
_HEXADECIMAL = b"0123456789abcdefABCDEF"
#: Characters that no line contains; they are refused before the line is complete.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_MAX_LINE = 4096
_MAX_TRAILER = 16 * 1024


@lru_cache(1024)
def _canonical_size_line(size: int) -> bytes:
    """Return the size line, its CRLF included, that makes ``size`` bytes one whole chunk; empty if there is none.

    A size in lower case without leading zeros and extensions, as servers write it: one length, one line.
    """
    for digits in range(1, _DIGITS + 1):
        content = size - digits - 4
        if content > 0 and len(line := b"%x" % content) == digits:
            return line + b"\r\n"
    return b""


class MalformedBody(Exception):
    """The bytes do not follow the framing, so the end of the body is unknown."""


class PlainBody:
    """A body of announced length, or without one a body that ends with its connection.

    Attributes:
        done: the body is complete.
        ends_at_eof: the end of the connection is a proper end of the body.
    """

    __slots__ = ("_left", "done", "ends_at_eof")

    def __init__(self, length: int | None) -> None:
        """Expect ``length`` bytes; None: until the connection ends."""
        self._left = length
        self.done = length == 0
        self.ends_at_eof = length is None

    def feed(self, data: bytes) -> bytes:
        """Return what belongs to the body; bytes after its end are dropped."""
        if self._left is None:
            return data
        data = data[: self._left]
        self._left -= len(data)
        self.done = self._left == 0
        return data


class ChunkedBody:
    """A chunked body (RFC 9112, section 7.1), parsed strictly; reads may end anywhere in a chunk.

    Extensions and trailers are checked and dropped. The attributes are those of `PlainBody`.
    """

    __slots__ = ("_between", "_in_trailer", "_left", "_rest", "_trailer", "done")

    ends_at_eof = False  # the last chunk is the end

    def __init__(self) -> None:
        """Start before the first chunk."""
        self._between = True  # the next byte is the first of a chunk
        self._rest = b""
        self._left = 0  # of the current chunk, its CRLF included
        self._in_trailer = False
        self._trailer = 0  # bytes of the trailer so far
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """Return the content of the chunks.

        Raises:
            MalformedBody: the size or the end of a chunk, or a line of the trailer, is invalid.
        """
        if self._between:
            # An event is nearly always one whole chunk in one read. Three slices take half the time of the loop below,
            # and a quarter less than startswith() and endswith().
            line = _canonical_size_line(len(data))
            size = len(line)
            if size and data[:size] == line and data[-2:] == b"\r\n":
                return data[size:-2]
        pieces: list[bytes] = []
        position = self._read_whole_chunks(data, pieces) if self._between else 0
        if self._rest:
            data, self._rest = self._rest + data, b""
        size = len(data)
        while position < size and not self.done:
            position = self._read_content(data, position, pieces) if self._left else self._read_line(data, position)
        self._between = not (self._left or self._rest or self._in_trailer)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @staticmethod
    def _read_whole_chunks(data: bytes, pieces: list[bytes]) -> int:
        """Read the usual chunks at the start of ``data`` that are whole; return where the rest begins."""
        position = 0
        while True:
            start = data.find(b"\r\n", position, position + _DIGITS + 2) + 2
            digits = data[position : start - 2]
            if start < position + 3 or digits.strip(_HEXADECIMAL):
                return position
            end = start + int(digits, 16)
            if end == start or not data.startswith(b"\r\n", end):
                return position
            pieces.append(data[start:end])
            position = end + 2

    def _read_content(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        end = position + self._left
        content_end = min(end - 2, len(data))
        if content_end > position:
            pieces.append(data[position:content_end])
        line_end = data[max(position, end - 2) : end]
        if line_end != (b"\n" if self._left == 1 else b"\r\n")[: len(line_end)]:
            raise MalformedBody("a chunk is longer than its size")
        if end > len(data):  # noqa: PLR1730 - min() is 6 % of a split event
            end = len(data)
        self._left -= end - position
        return end

    def _read_line(self, data: bytes, position: int) -> int:
        end = data.find(b"\r\n", position)
        if end < 0:
            self._rest = data[position:]
            line = self._rest.removesuffix(b"\r")
            if len(line) > _MAX_LINE or _CONTROL.search(line):
                raise MalformedBody(f"a chunk line is too long or has control characters: {line[:20]!r}")
            return len(data)
        line = data[position:end]
        if self._in_trailer:
            self._trailer += len(line) + 2
            if self._trailer > _MAX_TRAILER or len(line) > _MAX_LINE:
                raise MalformedBody("the trailer is too long")
            if line and not _FIELD_LINE.fullmatch(line):
                raise MalformedBody(f"invalid trailer field: {line[:20]!r}")
            self.done = not line
            return end + 2
        if not line or len(line) > _DIGITS or line.strip(_HEXADECIMAL):  # not the usual form
            match = _SIZE_LINE.fullmatch(line)
            if match is None or len(line) > _MAX_LINE:
                raise MalformedBody(f"invalid chunk size: {line[:20]!r}")
            line = match[1]
        size = int(line, 16)
        if size:
            self._left = size + 2
        else:
            self._in_trailer = True
        return end + 2


Body = PlainBody | ChunkedBody
