"""One request on one connection to a service behind the proxy, without a coroutine step per piece of the body.

aiohttp's client costs 20 KiB and two task switches per event of a stream; this passes what the transport read to
the receiver in the same call. The head is parsed here, the framing of the body in ``framing``.
"""

from __future__ import annotations

import asyncio
import re
import select
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import lru_cache
from typing import cast

from routing_layer.upstream.framing import FIELD_LINE, Body, ChunkedBody, MalformedBody, PlainBody

#: All heads before the body of a response, interim ones included.
MAX_HEAD = 64 * 1024
#: Responses up to this size are collected as a whole, so that a failure in their middle is still a 502.
MAX_COLLECTED = 1024 * 1024

#: The head of a response without its final empty line (RFC 9112, sections 4 and 5).
_HEAD = re.compile(
    rb"HTTP/1\.(?P<minor>[01]) (?P<status>[1-5][0-9]{2}) (?P<reason>[\t\x20-\x7e\x80-\xff]*)(?:\r\n%b)*" % FIELD_LINE
)
_FIELD = re.compile(FIELD_LINE)
#: What no head contains, whatever follows: a control character, or half a line end.
_BROKEN_LINE = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
_START = b"HTTP/1."
#: Heads up to this size are cached.
_SHORT_HEAD = 1024
#: More digits than any length has; Python refuses to read thousands of them.
_LENGTH = re.compile(rb"[0-9]{1,18}")
_SWITCHING = 101
_OK = 200
_FIRST_FINAL = 200
_NO_CONTENT = 204
_NOT_MODIFIED = 304
#: Fields whose values are read here.
_GROUP = b"x-openfactory-group"
_SHAREABLE = b"x-openfactory-shareable"
_ALLOWED_ORIGIN = b"access-control-allow-origin"
_READ = frozenset(
    (
        *(b"connection", b"content-encoding", b"content-length", b"content-type", b"set-cookie", b"transfer-encoding"),
        *(_GROUP, _SHAREABLE, _ALLOWED_ORIGIN, b"vary"),
    )
)
_DROPPED = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"content-length", b"x-accel-buffering"),
    )
)


class Failure(Enum):
    """How a service failed before its response had begun."""

    UNTOUCHED = auto()  # the connection ended before the first byte of a response
    CUT = auto()  # the connection ended in the head
    MALFORMED = auto()  # the bytes are not HTTP/1.1
    LATE = auto()  # the head did not come in time


class UpstreamFailed(Exception):
    """There is no response; ``failure`` says what happened, the text why."""

    def __init__(self, failure: Failure, why: str) -> None:
        """Keep what the caller decides by."""
        super().__init__(why)
        self.failure = failure


@dataclass(frozen=True, slots=True, eq=False)
class ResponseHead:
    """The head of a response; equal only to itself, so that it is a quick key.

    Attributes:
        status: the status code.
        reason: the reason phrase as it came.
        fields: the header lines as they came, without those that concern only this connection.
        length: the announced length of the body; None: not announced.
        chunked: the body is chunked.
        reusable: the connection may carry another request.
        event_stream: the body is an uncompressed event stream.
        group: the group that the service says it serves, percent-encoded; None: it does not say.
        shareable: every client that asks the same at the same time may get this event stream.
    """

    status: int
    reason: bytes
    fields: tuple[bytes, ...]
    length: int | None
    chunked: bool
    reusable: bool
    event_stream: bool
    group: bytes | None
    shareable: bool

    @property
    def bodiless(self) -> bool:
        """Whether such a response never has a body."""
        return self.status in (_NO_CONTENT, _NOT_MODIFIED)

    def body(self) -> Body:
        """Return the framing of the body that follows, in answer to a GET."""
        if self.chunked and not self.bodiless:
            return ChunkedBody()
        return PlainBody(0 if self.bodiless else self.length)


def parse_head(data: bytes) -> ResponseHead:
    """Parse the head of a response, its final empty line excluded.

    Raises:
        UpstreamFailed: it does not follow HTTP/1.x, or the end of its body is ambiguous (RFC 9112, section 6.3).
    """
    match = _HEAD.fullmatch(data)
    lines = data.split(b"\r\n")
    if match is None:
        # Name the line that is wrong, but not the value of a field: it may be a secret.
        wrong = next((line for line in lines[1:] if not _FIELD.fullmatch(line)), None)
        if wrong is not None:
            raise _malformed(f"not a header line: {wrong.partition(b':')[0][:20]!r}")
        raise _malformed(f"not the status line of an HTTP/1.1 response: {lines[0][:40]!r}")
    fields: list[tuple[bytes, bytes]] = []
    read: dict[bytes, list[bytes]] = {}
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        name = name.lower()
        fields.append((name, line))
        if name in _READ:
            read.setdefault(name, []).append(value.strip())
    status = int(match["status"])
    length, chunked = _framing(status, match["minor"] == b"1", read)
    connection = {token.strip() for value in read.get(b"connection", ()) for token in value.lower().split(b",")}
    dropped = _DROPPED | connection
    plain = read.get(b"content-encoding", [b"identity"])[0].lower() == b"identity"
    event_stream = plain and read.get(b"content-type", [b""])[0].lower().startswith(b"text/event-stream")
    return ResponseHead(
        status=status,
        reason=match["reason"],
        fields=tuple(line for name, line in fields if name not in dropped),
        length=length,
        chunked=chunked,
        # A response without a body that is announced as chunked: some send the last chunk, some do not.
        reusable=match["minor"] == b"1" and b"close" not in connection and not (chunked and status == _NOT_MODIFIED),
        event_stream=event_stream,
        group=b", ".join(read[_GROUP]) if _GROUP in read else None,
        shareable=event_stream and status == _OK and read.get(_SHAREABLE) == [b"1"] and not _is_for_one(read),
    )


def _is_for_one(read: dict[bytes, list[bytes]]) -> bool:
    """Whether a head has what is meant for one client, whatever the service says of it."""
    return b"set-cookie" in read or b"vary" in read or read.get(_ALLOWED_ORIGIN, [b"*"]) != [b"*"]


#: Most responses of a service within a second have the same head, and parsing it is a fifth of a response's cost.
_parse_cached = lru_cache(256)(parse_head)


def _framing(status: int, can_chunk: bool, read: dict[bytes, list[bytes]]) -> tuple[int | None, bool]:
    """Return the announced length, None without one, and whether the body is chunked."""
    codings, lengths = read.get(b"transfer-encoding"), read.get(b"content-length")
    never_has_body = status < _FIRST_FINAL or status == _NO_CONTENT
    if status < _FIRST_FINAL and not can_chunk:
        raise _malformed("an interim response in HTTP/1.0, which has none")
    if codings is not None:
        if lengths is not None or not can_chunk or [coding.lower() for coding in codings] != [b"chunked"]:
            raise _malformed("a Transfer-Encoding that is not 'chunked' alone, in HTTP/1.1 and without a length")
        if never_has_body:
            raise _malformed(f"a {status} with a Transfer-Encoding")
        return None, True
    if lengths is None:
        return None, False
    if len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]):
        raise _malformed("a Content-Length that is not one number")
    length = int(lengths[0])
    if never_has_body:
        if length:
            raise _malformed(f"a {status} with a Content-Length")
        return None, False  # there is none to pass on, and many servers send this needless 0
    return length, False


def _malformed(why: str) -> UpstreamFailed:
    return UpstreamFailed(Failure.MALFORMED, why)


#: A head, and with it the whole body if that was collected; or why there is none.
Answer = tuple[ResponseHead, bytes | None] | UpstreamFailed
Answered = Callable[[Answer], None]


@dataclass(eq=False, slots=True)
class UpstreamConnection(asyncio.Protocol):
    """A connection and the response that comes on it.

    Unexpected bytes (before a request, after a response, while the connection is kept) end the connection: the next
    request would take them for its own response.

    Attributes:
        fault: what was wrong with the bytes after the head; empty if nothing.
        retried: the first attempt to connect had failed.
    """

    _loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport = field(init=False)
    body: Body | None = None
    fault: str = ""
    retried: bool = False
    _answered: Answered | None = None
    _timer: asyncio.TimerHandle | None = None
    _deadline: float = 0.0
    _poll: select.poll | None = None
    _buffer: bytearray = field(default_factory=bytearray)
    _scanned: int = 0  # bytes of the buffer that were searched for the end of the head
    _heads: int = 0  # bytes of the heads so far
    _expecting: bool = False  # from a request until its response is complete, or passed on
    _collect: bool = False
    _head: ResponseHead | None = None
    _receive: Callable[[bytes], None] | None = None
    _finish: Callable[[bool], None] | None = None
    _closed_cleanly: bool | None = None  # None: the connection has not ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    @property
    def open(self) -> bool:
        """Whether the connection has not ended, as far as was read."""
        return not self.transport.is_closing() and self._closed_cleanly is None

    @property
    def reusable(self) -> bool:
        """Whether another request can be sent: it is open, and neither a byte nor the end waits to be read."""
        if not self.open:
            return False
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not self._poll.poll(0)

    def ask(self, data: bytes, answered: Answered, *, limit: float, collect: bool) -> None:
        """Send a request; ``answered`` gets the head, with ``collect`` the body too if it is announced and small.

        Instead it gets the failure if the connection ended, the bytes are not HTTP, or no head came within ``limit``
        seconds. It is called once, and not before this returns.
        """
        self._answered, self._collect = answered, collect
        self._head = self.body = None
        self._heads = self._scanned = 0
        self._expecting = True
        if self.open:
            self.transport.write(data)
            # One timer a connection that looks at the deadline, instead of one for each request.
            self._deadline = self._loop.time() + limit
            if self._timer is None:
                self._timer = self._loop.call_later(limit, self._check_deadline, limit)
        else:
            self._loop.call_soon(self._answer, UpstreamFailed(Failure.UNTOUCHED, "the connection was closed"))

    async def request(self, data: bytes, *, limit: float, collect: bool) -> tuple[ResponseHead, bytes | None]:
        """Like `ask`, but return what was answered.

        Raises:
            UpstreamFailed: there is no response.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()

        def settle(answer: Answer) -> None:
            if not future.done():
                future.set_result(answer)

        self.ask(data, settle, limit=limit, collect=collect)
        answer = await future
        if isinstance(answer, UpstreamFailed):
            raise answer
        return answer

    def pass_body(self, body: Body, receive: Callable[[bytes], None], finish: Callable[[bool], None]) -> None:
        """Pass the body on from now: ``receive`` each piece, ``finish`` once, True if the body is complete."""
        self._stop_timer()
        self.body, self._receive, self._finish = body, receive, finish
        self._expecting = False
        data, self._buffer = bytes(self._buffer), bytearray()
        if data or body.done:
            self.data_received(data)
        if self._closed_cleanly is not None:
            self._end(self._closed_cleanly and (body.done or body.ends_at_eof))
        else:
            self.resume()

    def pause(self) -> None:
        """Read nothing until ``resume``."""
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def abort(self) -> None:
        """Close the connection; nothing is called after this."""
        self._receive = self._finish = None
        self._expecting = False
        self._buffer.clear()
        self._stop_timer()
        self._answer(UpstreamFailed(Failure.CUT, "aborted"))
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Pass on what was read."""
        receive, body = self._receive, self.body
        if receive is not None and body is not None:
            try:
                payload = body.feed(data)
            except MalformedBody as error:
                self.fault = f"malformed body: {error}"
                self._end(complete=False)
                return
            if payload:
                receive(payload)
            if body.done:
                self._end(complete=True)
        elif self._expecting:
            self._buffer += data
            self._read_head()
        else:
            self._refuse_unexpected()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request, or end the body."""
        self._closed_cleanly = exc is None
        self._stop_timer()
        failure = Failure.CUT if self._heads or self._buffer else Failure.UNTOUCHED
        why = f"the connection was closed before the response ({exc or 'end of file'})"
        self._answer(UpstreamFailed(failure, why))
        if self.body is not None:
            self._end(exc is None and (self.body.done or self.body.ends_at_eof))

    def _end(self, complete: bool) -> None:
        finish, self._receive, self._finish = self._finish, None, None
        if finish is not None:
            finish(complete)

    def _read_head(self) -> None:
        try:
            while self._head is None and (end := self._buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))) >= 0:
                if self._heads + end + 4 > MAX_HEAD:
                    raise _malformed("the head of the response is too long")
                self._heads += end + 4
                data = bytes(self._buffer[:end])
                head = _parse_cached(data) if end <= _SHORT_HEAD else parse_head(data)
                del self._buffer[: end + 4]
                self._scanned = 0
                if head.status == _SWITCHING:
                    raise _malformed("a switch of protocols that was not requested")
                # What comes before the final response is not for the client.
                self._head = None if head.status < _FIRST_FINAL else head
            if self._head is None:
                self._check_partial_head()
        except UpstreamFailed as error:
            self._expecting = False
            self._answer(error)
        else:
            if self._head is not None:
                self._respond(self._head)

    def _check_partial_head(self) -> None:
        """Refuse what cannot become a head, instead of waiting for the rest of it."""
        if self._heads + len(self._buffer) > MAX_HEAD:
            raise _malformed("the head of the response has no end")
        if self._buffer[: len(_START)] != _START[: len(self._buffer)]:
            raise _malformed(f"not an HTTP/1.1 response: {bytes(self._buffer[:40])!r}")
        if _BROKEN_LINE.search(self._buffer, max(0, self._scanned - 1)):
            raise _malformed("a control character or half a line end in the head of the response")
        self._scanned = len(self._buffer)

    def _respond(self, head: ResponseHead) -> None:
        if self._answered is None:
            return
        length = 0 if head.bodiless else head.length
        if not self._collect or length is None or length > MAX_COLLECTED:
            self.pause()
            self._answer((head, None))
        elif len(self._buffer) >= length:
            self._expecting = False
            body, unexpected = bytes(self._buffer[:length]), len(self._buffer) > length
            self._buffer.clear()
            if unexpected:
                self._refuse_unexpected()
            self._answer((head, body))

    def _refuse_unexpected(self) -> None:
        self.fault = "it sent bytes that were not requested"
        self.transport.abort()

    def _check_deadline(self, limit: float) -> None:
        self._timer = None
        left = self._deadline - self._loop.time()
        if self._answered is not None and left > 0:
            self._timer = self._loop.call_later(left, self._check_deadline, limit)
        elif self._answered is not None:
            self._answer(UpstreamFailed(Failure.LATE, f"no answer within {limit:g} s"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _answer(self, answer: Answer) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(answer)
