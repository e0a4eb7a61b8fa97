"""One request on one connection to a service behind the proxy, without a coroutine step per piece of the body.

aiohttp's client costs 20 KiB and two task switches per event of a stream; this passes what the transport read to
whoever takes it, in the same call. The head is read here, the body's framing in ``body``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from routing_layer.body import Body, BrokenBody, ChunkedBody, FixedBody, OpenBody

_LONGEST_HEAD = 64 * 1024
#: Answers up to this size are taken as a whole, so that a failure in their middle is still a 502.
COLLECT = 1024 * 1024

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: (.*))?")
_FIRST_FINAL = 200
_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
)


class UpstreamBroke(Exception):
    """The connection ended, or said something that is not HTTP, before the response had begun."""


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
        return self.status in (204, 304)


def parse_head(data: bytes) -> Head:
    """Read a response's head, its final empty line excluded.

    Raises:
        UpstreamBroke: it is not HTTP/1.x, or its framing is ambiguous.
    """
    line, *rest = data.split(b"\r\n")
    status = _STATUS_LINE.fullmatch(line)
    if status is None:
        raise UpstreamBroke(f"not an HTTP/1.1 response: {line[:60]!r}")
    fields = [
        (name.strip().lower(), value.strip(), whole) for whole in rest for name, _, value in [whole.partition(b":")]
    ]
    named = dict[bytes, bytes]()
    for name, value, _ in fields:
        named[name] = named[name] + b"," + value if name in named else value
    return _head(status, fields, named)


def _head(status: re.Match[bytes], fields: list[tuple[bytes, bytes, bytes]], named: dict[bytes, bytes]) -> Head:
    connection = {token.strip().lower() for token in named.get(b"connection", b"").split(b",")}
    dropped = _HOP_BY_HOP | connection | {b"x-accel-buffering", b"content-length"}
    coding = named.get(b"transfer-encoding", b"").lower()
    if coding not in (b"", b"chunked"):
        raise UpstreamBroke(f"an unsupported transfer coding: {coding[:60]!r}")
    length = None if coding else _length(named.get(b"content-length"))
    plain = named.get(b"content-encoding", b"identity").lower() == b"identity"
    return Head(
        status=int(status[2]),
        reason=status[3] or b"",
        fields=tuple(whole for name, _, whole in fields if name not in dropped),
        length=length,
        chunked=bool(coding),
        reusable=status[1] == b"1" and b"close" not in connection,
        event_stream=plain and named.get(b"content-type", b"").lower().startswith(b"text/event-stream"),
    )


def _length(value: bytes | None) -> int | None:
    if value is None:
        return None
    different = {part.strip() for part in value.split(b",")}
    if len(different) != 1 or not (only := different.pop()).isdigit():
        raise UpstreamBroke(f"an ambiguous Content-Length: {value[:60]!r}")
    return int(only)


class Exchange(asyncio.Protocol):
    """A connection and the response that comes on it."""

    __slots__ = (
        "_answer",
        "_buffer",
        "_collect",
        "_finished",
        "_head",
        "_loop",
        "_lost",
        "_sink",
        "_timer",
        "body",
        "transport",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start unconnected."""
        self._loop = loop
        self.transport: asyncio.Transport | None = None
        self.body: Body | None = None
        self._answer: asyncio.Future[tuple[Head, bytes | None]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._buffer = b""
        self._collect = False
        self._head: Head | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._finished: Callable[[bool], None] | None = None
        self._lost: bool | None = None  # whether the connection has ended, and how

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    async def ask(self, request: bytes, *, limit: float, collect: bool) -> tuple[Head, bytes | None]:
        """Send a request and return the head; with ``collect`` the body too, if it is announced and small.

        Raises:
            UpstreamBroke: the connection ended, or what came is not HTTP.
            UpstreamLate: nothing within ``limit`` seconds.
        """
        if self.transport is None or self._lost is not None:
            raise UpstreamBroke("the connection was closed")
        self._answer = self._loop.create_future()
        self._collect = collect
        self._head = None
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
        data, self._buffer = self._buffer, b""
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
        self._fail(UpstreamBroke("given up"))
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Pass on what was read."""
        if self._sink is None or self.body is None:
            self._buffer += data
            self._read_head()
            return
        try:
            payload = self.body.feed(data)
        except BrokenBody:
            self._end(complete=False)
            return
        if payload:
            self._sink(payload)
        if self.body.done:
            self._end(complete=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._lost = exc is None
        self._fail(UpstreamBroke(f"the connection was closed before the response ({exc or 'end of file'})"))
        if self.body is not None:
            self._end(exc is None and self.body.ends_with_connection())

    def _end(self, complete: bool) -> None:
        finished, self._sink, self._finished = self._finished, None, None
        if finished is not None:
            finished(complete)

    def _read_head(self) -> None:
        if self._answer is None or self._answer.done():
            return
        try:
            while self._head is None and (end := self._buffer.find(b"\r\n\r\n")) >= 0:
                head = parse_head(self._buffer[:end])
                self._buffer = self._buffer[end + 4 :]
                # What comes before the final response is not for the client. Switching protocols was not asked for:
                # nothing final will follow it.
                self._head = None if head.status < _FIRST_FINAL else head
        except UpstreamBroke as error:
            self._fail(error)
            return
        if self._head is not None:
            self._answered(self._head)
        elif len(self._buffer) > _LONGEST_HEAD:
            self._fail(UpstreamBroke("the head of the response has no end"))

    def _answered(self, head: Head) -> None:
        if self._answer is None:
            return
        length = 0 if head.bodiless else head.length
        if not self._collect or length is None or length > COLLECT:
            self.pause()
            self._answer.set_result((head, None))
        elif len(self._buffer) >= length:
            body, self._buffer = self._buffer[:length], b""
            self._answer.set_result((head, body))

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
