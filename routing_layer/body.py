"""Where a response's body ends, byte by byte: the three framings of HTTP/1.1, without any I/O."""

from __future__ import annotations

from typing import Protocol


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


def _hexadecimal(digits: bytes) -> int:
    """Return the number, -1 for what is none."""
    try:
        return int(digits, 16)
    except ValueError:
        return -1


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
    """A chunked body (RFC 9112, section 7.1); chunks may be cut anywhere between two reads."""

    __slots__ = ("_in_trailer", "_left", "_rest", "done")

    _LONGEST_LINE = 4096

    def __init__(self) -> None:
        """Start before the first chunk."""
        self._rest = b""
        self._left = 0  # of the current chunk, its CRLF included
        self._in_trailer = False
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """Return the content of the chunks.

        Raises:
            BrokenBody: a chunk's size or end is not what it must be.
        """
        if not (self._left or self._rest or self._in_trailer):
            end = data.find(b"\r\n")
            digits = data[:end]
            # An event is nearly always one whole chunk in one read: no loop, one slice.
            if digits.isalnum() and data.endswith(b"\r\n") and _hexadecimal(digits) == len(data) - end - 4 > 0:
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
            if len(data) - position > self._LONGEST_LINE:
                raise BrokenBody("a chunk without a size")
            self._rest = data[position:]
            return len(data)
        if self._in_trailer:
            self.done = end == position
        else:
            self._size(data[position:end])
        return end + 2

    def _size(self, line: bytes) -> None:
        digits = line.split(b";", 1)[0].strip()
        size = _hexadecimal(digits) if digits.isalnum() else -1
        if size < 0:
            raise BrokenBody(f"not the size of a chunk: {line[:40]!r}")
        if size == 0:
            self._in_trailer = True
        else:
            self._left = size + 2
