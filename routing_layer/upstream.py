"""One request on one connection to a service behind the proxy, without a coroutine step per piece of the body.

aiohttp's client costs 20 KiB and two task switches per event of a stream; this passes what the transport read to
whoever takes it, in the same call. The head is read here, the body's framing in ``body``.
"""

from __future__ import annotations

import asyncio
import re
import select
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from routing_layer.body import FIELD_LINE, Body, BrokenBody, ChunkedBody, FixedBody, OpenBody

#: All heads before a response's body, interim ones included.
LONGEST_HEAD = 64 * 1024
#: Answers up to this size are taken as a whole, so that a failure in their middle is still a 502.
COLLECT = 1024 * 1024

#: A response's head without its final empty line (RFC 9112, sections 4 and 5).
_HEAD = re.compile(
    rb"HTTP/1\.(?P<minor>[01]) (?P<status>[1-5][0-9]{2}) (?P<reason>[\t\x20-\x7e\x80-\xff]*)(?:\r\n%b)*" % FIELD_LINE
)
_FIELD = re.compile(FIELD_LINE)
#: What no head contains, whatever is still to come of it: a control character, or half a line end.
_BROKEN_LINE = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
_START = b"HTTP/1."
#: Heads up to this size are remembered.
_SHORT_HEAD = 1024
#: More digits than any length has; Python refuses to read thousands of them.
_LENGTH = re.compile(rb"[0-9]{1,18}")
_SWITCHING = 101
_FIRST_FINAL = 200
_NO_CONTENT = 204
_NOT_MODIFIED = 304
#: Fields whose values are read here.
_READ = frozenset((b"connection", b"content-encoding", b"content-length", b"content-type", b"transfer-encoding"))
_DROPPED = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"content-length", b"x-accel-buffering"),
    )
)


class UpstreamBroke(Exception):
    """The connection ended, or said something that is not HTTP, before the response had begun.

    Attributes:
        untouched: it ended before the first byte of an answer.
        malformed: something came that is not HTTP/1.1.
    """

    def __init__(self, why: str, *, untouched: bool = False, malformed: bool = False) -> None:
        """Keep what the caller decides by."""
        super().__init__(why)
        self.untouched = untouched
        self.malformed = malformed


class UpstreamLate(Exception):
    """The head of the response did not come in time."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a response.

    Attributes:
        status: the status code.
        reason: the reason phrase as it came.
        fields: the header lines as they came, without those that concern only this connection.
        length: the announced length of the body; None: not announced.
        chunked: the body is chunked.
        reusable: the connection may carry another request.
        event_stream: the body is an uncompressed event stream.
    """

    status: int
    reason: bytes
    fields: tuple[bytes, ...]
    length: int | None
    chunked: bool
    reusable: bool
    event_stream: bool

    @property
    def bodiless(self) -> bool:
        """Whether such a response never has a body."""
        return self.status in (_NO_CONTENT, _NOT_MODIFIED)


def parse_head(data: bytes) -> Head:
    """Read a response's head, its final empty line excluded.

    Raises:
        UpstreamBroke: it is not HTTP/1.x to the letter, or where its body ends is in doubt (RFC 9112, section 6.3).
    """
    found = _HEAD.fullmatch(data)
    if found is None:
        raise _malformed(_what_is_wrong(data))
    fields: list[tuple[bytes, bytes]] = []
    read: dict[bytes, list[bytes]] = {}
    for line in data.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        name = name.lower()
        fields.append((name, line))
        if name in _READ:
            read.setdefault(name, []).append(value.strip())
    status = int(found["status"])
    length, chunked = _framing(status, found["minor"] == b"1", read)
    connection = {token.strip() for value in read.get(b"connection", ()) for token in value.lower().split(b",")}
    dropped = _DROPPED | connection
    plain = read.get(b"content-encoding", [b"identity"])[0].lower() == b"identity"
    return Head(
        status=status,
        reason=found["reason"],
        fields=tuple(line for name, line in fields if name not in dropped),
        length=length,
        chunked=chunked,
        # A response without a body that is announced in chunks: some send their last chunk, some do not.
        reusable=found["minor"] == b"1" and b"close" not in connection and not (chunked and status == _NOT_MODIFIED),
        event_stream=plain and read.get(b"content-type", [b""])[0].lower().startswith(b"text/event-stream"),
    )


#: Most answers of a service within a second have the same head, and reading it is a fifth of an answer's cost.
_parsed = lru_cache(256)(parse_head)


def _framing(status: int, can_chunk: bool, read: dict[bytes, list[bytes]]) -> tuple[int | None, bool]:
    """Return the announced length, None without one, and whether the body is chunked."""
    codings, lengths = read.get(b"transfer-encoding"), read.get(b"content-length")
    if codings is not None:
        if lengths is not None or not can_chunk or [coding.lower() for coding in codings] != [b"chunked"]:
            raise _malformed("a Transfer-Encoding that is not 'chunked' alone, in HTTP/1.1 and without a length")
        if status < _FIRST_FINAL or status == _NO_CONTENT:
            raise _malformed(f"a {status} with a Transfer-Encoding")
        return None, True
    if lengths is None:
        return None, False
    if len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]):
        raise _malformed("a Content-Length that is not one number")
    length = int(lengths[0])
    if status < _FIRST_FINAL or status == _NO_CONTENT:
        if length:
            raise _malformed(f"a {status} with a Content-Length")
        return None, False  # there is none to pass on, and many servers send this needless 0
    return length, False


def _malformed(why: str) -> UpstreamBroke:
    return UpstreamBroke(why, malformed=True)


def _what_is_wrong(data: bytes) -> str:
    """Name the line that is wrong, but not a field's value: it may be a secret."""
    line, *fields = data.split(b"\r\n")
    for field in fields:
        if not _FIELD.fullmatch(field):
            return f"not a header line: {field.partition(b':')[0][:20]!r}"
    return f"not the status line of an HTTP/1.1 response: {line[:40]!r}"


class Exchange(asyncio.Protocol):
    """A connection and the response that comes on it.

    Bytes that were not asked for (before a request, after an answer, while the connection is kept) end the connection:
    the next request would take them for its own answer.

    Attributes:
        fault: what was wrong with the bytes after the head; empty if nothing.
    """

    __slots__ = (
        "_answer",
        "_buffer",
        "_collect",
        "_finished",
        "_head",
        "_heads",
        "_loop",
        "_lost",
        "_scanned",
        "_sink",
        "_timer",
        "_wanted",
        "body",
        "fault",
        "transport",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start unconnected."""
        self._loop = loop
        self.transport: asyncio.Transport | None = None
        self.body: Body | None = None
        self.fault = ""
        self._answer: asyncio.Future[tuple[Head, bytes | None]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._buffer = bytearray()
        self._scanned = 0  # bytes of the buffer that were searched for the head's end
        self._heads = 0  # bytes of the heads so far
        self._wanted = False  # from a request until its answer is complete, or passed on
        self._collect = False
        self._head: Head | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._finished: Callable[[bool], None] | None = None
        self._lost: bool | None = None  # whether the connection has ended, and how

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    @property
    def open(self) -> bool:
        """Whether the connection has not ended, as far as was read."""
        return self.transport is not None and not self.transport.is_closing() and self._lost is None

    @property
    def usable(self) -> bool:
        """Whether another request can be sent: it is open, and neither a byte nor the end waits to be read."""
        if self.transport is None or not self.open:
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    async def ask(self, request: bytes, *, limit: float, collect: bool) -> tuple[Head, bytes | None]:
        """Send a request and return the head; with ``collect`` the body too, if it is announced and small.

        Raises:
            UpstreamBroke: the connection ended, or what came is not HTTP.
            UpstreamLate: nothing within ``limit`` seconds.
        """
        if self.transport is None or not self.open:
            raise UpstreamBroke("the connection was closed", untouched=True)
        self._answer = self._loop.create_future()
        self._collect = collect
        self._head = None
        self._heads = self._scanned = 0
        self._wanted = True
        self.body = None
        self.transport.write(request)
        self._timer = self._loop.call_later(limit, self._late)
        try:
            return await self._answer
        finally:
            self._timer.cancel()
            self._answer = None

    def deliver(self, body: Body, sink: Callable[[bytes], None], finished: Callable[[bool], None]) -> None:
        """Pass the body on from now: ``sink`` for each piece, ``finished`` once, True if the body is complete."""
        self.body, self._sink, self._finished = body, sink, finished
        self._wanted = False
        data, self._buffer = bytes(self._buffer), bytearray()
        if data or body.done:
            self.data_received(data)
        if self._lost is not None:
            self._end(self._lost and body.ends_with_connection())
        else:
            self.resume()

    def pause(self) -> None:
        """Read nothing until ``resume``."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def abort(self) -> None:
        """Give the connection up; nothing is called after this."""
        self._sink = self._finished = None
        self._wanted = False
        self._buffer.clear()
        self._fail(UpstreamBroke("given up"))
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Pass on what was read."""
        sink, body = self._sink, self.body
        if sink is not None and body is not None:
            try:
                payload = body.feed(data)
            except BrokenBody as error:
                self.fault = f"malformed body: {error}"
                self._end(complete=False)
                return
            if payload:
                sink(payload)
            if body.done:
                self._end(complete=True)
        elif self._wanted:
            self._buffer += data
            self._read_head()
        else:
            self._refuse_unasked()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._lost = exc is None
        untouched = not self._heads and not self._buffer
        why = f"the connection was closed before the response ({exc or 'end of file'})"
        self._fail(UpstreamBroke(why, untouched=untouched))
        if self.body is not None:
            self._end(exc is None and self.body.ends_with_connection())

    def _end(self, complete: bool) -> None:
        finished, self._sink, self._finished = self._finished, None, None
        if finished is not None:
            finished(complete)

    def _read_head(self) -> None:
        try:
            while self._head is None and (end := self._buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))) >= 0:
                self._count(end + 4)
                data = bytes(self._buffer[:end])
                head = _parsed(data) if end <= _SHORT_HEAD else parse_head(data)
                del self._buffer[: end + 4]
                self._scanned = 0
                if head.status == _SWITCHING:
                    raise _malformed("a switch of protocols that was not asked for")
                # What comes before the final response is not for the client.
                self._head = None if head.status < _FIRST_FINAL else head
            if self._head is None:
                self._check_partial_head()
        except UpstreamBroke as error:
            self._wanted = False
            self._fail(error)
            return
        if self._head is not None:
            self._answered(self._head)

    def _count(self, size: int) -> None:
        if self._heads + size > LONGEST_HEAD:
            raise _malformed("the head of the response is too long")
        self._heads += size

    def _check_partial_head(self) -> None:
        """Refuse what cannot become a head, instead of waiting for the rest of it."""
        if self._heads + len(self._buffer) > LONGEST_HEAD:
            raise _malformed("the head of the response has no end")
        if self._buffer[: len(_START)] != _START[: len(self._buffer)]:
            raise _malformed(f"not an HTTP/1.1 response: {bytes(self._buffer[:40])!r}")
        if _BROKEN_LINE.search(self._buffer, max(0, self._scanned - 1)):
            raise _malformed("a control character or half a line end in the head of the response")
        self._scanned = len(self._buffer)

    def _answered(self, head: Head) -> None:
        if self._answer is None or self._answer.done():
            return
        length = 0 if head.bodiless else head.length
        if not self._collect or length is None or length > COLLECT:
            self.pause()
            self._answer.set_result((head, None))
        elif len(self._buffer) >= length:
            self._wanted = False
            self._answer.set_result((head, bytes(self._buffer[:length])))
            if len(self._buffer) > length:
                self._refuse_unasked()
            self._buffer.clear()

    def _refuse_unasked(self) -> None:
        self.fault = "it sent bytes that were not asked for"
        if self.transport is not None:
            self.transport.abort()

    def _late(self) -> None:
        self._fail(UpstreamLate())

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


def body_of(head: Head) -> Body:
    """Return the body that follows this head, in answer to a GET."""
    if head.bodiless:
        return FixedBody(0)
    if head.chunked:
        return ChunkedBody()
    return OpenBody() if head.length is None else FixedBody(head.length)
