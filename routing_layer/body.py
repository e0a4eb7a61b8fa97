"""Where a response's body ends, byte by byte: the three framings of HTTP/1.1, without any I/O."""

from __future__ import annotations

import re
from typing import Protocol

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
#: A field line of a head or a trailer, its CRLF excluded (RFC 9112, section 5): no blank before the colon, no folded
#: line, no control character but the tab.
FIELD_LINE = _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*"
_FIELD_LINE = re.compile(FIELD_LINE)
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_EXTENSION = rb";[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?"
_DIGITS = 15  # of a chunk's size: more than any body has, less than what overflows elsewhere
#: The line before a chunk (RFC 9112, section 7.1), its CRLF excluded.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,%d})(?:%b)*" % (_DIGITS, _EXTENSION))
_HEXADECIMAL = b"0123456789abcdefABCDEF"
#: What no line contains, whatever is still to come of it.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class BrokenBody(Exception):
    """The bytes do not follow the framing; nothing after this can be told apart."""


class Body(Protocol):
    """Takes the bytes of a connection and gives those of the body.

    Attributes:
        done: the body is complete.
    """

    done: bool

    def feed(self, data: bytes) -> bytes:
        """Return what ``data`` adds to the body."""

    def ends_with_connection(self) -> bool:
        """Whether the end of the connection is a proper end of the body."""


class FixedBody:
    """A body of announced length (``Content-Length``); a length of 0 for responses without a body."""

    __slots__ = ("_left", "done")

    def __init__(self, length: int) -> None:
        """Expect ``length`` bytes."""
        self._left = length
        self.done = length == 0

    def feed(self, data: bytes) -> bytes:
        """Return what belongs to the body; more than announced is dropped."""
        data = data[: self._left]
        self._left -= len(data)
        self.done = self._left == 0
        return data

    def ends_with_connection(self) -> bool:
        """Only if everything has come."""
        return self.done


class OpenBody:
    """A body that ends with its connection."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        """Expect anything."""
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """Return all of it."""
        return data

    def ends_with_connection(self) -> bool:
        """Yes: there is no other end."""
        return True


class ChunkedBody:
    """A chunked body (RFC 9112, section 7.1), read strictly; chunks may be cut anywhere between two reads.

    Extensions and trailers are checked and dropped.
    """

    __slots__ = ("_in_trailer", "_left", "_rest", "_trailer", "done")

    LONGEST_LINE = 4096
    LONGEST_TRAILER = 16 * 1024

    def __init__(self) -> None:
        """Start before the first chunk."""
        self._rest = b""
        self._left = 0  # of the current chunk, its CRLF included
        self._in_trailer = False
        self._trailer = 0  # bytes of it so far
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """Return the content of the chunks.

        Raises:
            BrokenBody: a chunk's size or end, or a line of the trailer, is not what it must be.
        """
        if not (self._left or self._rest or self._in_trailer):
            end = data.find(b"\r\n", 0, 17)  # _DIGITS and the line's end
            # An event is nearly always one whole chunk in one read: no loop, one slice.
            if (
                end > 0
                and not (digits := data[:end]).strip(_HEXADECIMAL)
                and data.endswith(b"\r\n")
                and int(digits, 16) == len(data) - end - 4 > 0
            ):
                return data[end + 2 : -2]
        if self._rest:
            data, self._rest = self._rest + data, b""
        pieces: list[bytes] = []
        position, size = 0, len(data)
        while position < size and not self.done:
            position = self._content(data, position, pieces) if self._left else self._line(data, position)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def ends_with_connection(self) -> bool:
        """Never: the last chunk is the end."""
        return self.done

    def _content(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        end = position + self._left
        content_end = min(end - 2, len(data))
        if content_end > position:
            pieces.append(data[position:content_end])
        if end <= len(data):
            mark = data[max(position, end - 2) : end]
        else:
            mark = data[max(position, end - 2) :]
            end = len(data)
        expected = b"\n" if self._left == 1 else b"\r\n"
        if mark != expected[: len(mark)]:
            raise BrokenBody("a chunk is longer than it says")
        self._left -= end - position
        return end

    def _line(self, data: bytes, position: int) -> int:
        end = data.find(b"\r\n", position)
        if end < 0:
            self._rest = data[position:]
            line = self._rest.removesuffix(b"\r")
            if len(line) > self.LONGEST_LINE or _CONTROL.search(line):
                raise BrokenBody(f"a line of the chunked coding is too long or has control characters: {line[:20]!r}")
            return len(data)
        line = data[position:end]
        if self._in_trailer:
            self._trailer_line(line)
        else:
            self._size(line)
        return end + 2

    def _trailer_line(self, line: bytes) -> None:
        self._trailer += len(line) + 2
        if self._trailer > self.LONGEST_TRAILER or len(line) > self.LONGEST_LINE:
            raise BrokenBody("the trailer is too long")
        if line and not _FIELD_LINE.fullmatch(line):
            raise BrokenBody(f"not a field of a trailer: {line[:20]!r}")
        self.done = not line

    def _size(self, line: bytes) -> None:
        if not line or len(line) > _DIGITS or line.strip(_HEXADECIMAL):  # not the usual form
            found = _SIZE_LINE.fullmatch(line)
            if found is None or len(line) > self.LONGEST_LINE:
                raise BrokenBody(f"not the size of a chunk: {line[:20]!r}")
            line = found[1]
        size = int(line, 16)
        if size == 0:
            self._in_trailer = True
        else:
            self._left = size + 2
