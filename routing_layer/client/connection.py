"""Connections of clients: requests in order, one at a time, and limits for what a client may keep waiting.

aiohttp's server costs a task, a parser and a request object for each connection for as long as it is open, and about
100 µs for a request that is forwarded; this is a protocol and llhttp (httptools).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Protocol, cast

import httptools
import structlog

from openfactory_common.connections import LONGEST_REQUEST, REFUSALS, ConnectionGuard, Ending, Entry, State, address_key
from routing_layer.client.request import Field, Head, Request, check
from routing_layer.client.response import Response
from routing_layer.problems import NO_ROOM, Problem, ProblemType
from routing_layer.request_target import explain_refused_target

_log = structlog.get_logger(__name__)
_END_OF_HEAD = b"\r\n\r\n"
#: Header fields of one request: 8,000 short ones would be 1 MiB of objects from 32 KiB of bytes.
_MAX_FIELDS = 128
#: More than this pending for a client counts as one that does not read: its service is paused, or it is cut.
_HIGH_WATER = 64 * 1024
#: Bytes and seconds for which is read, and dropped, what a client sends after the last answer.
_MOST_DROPPED = 1024 * 1024
_DROP_SECONDS = 1.0
#: The state of a socket whose other side has answered "reset" (linux/tcp_states.h).
_TCP_CLOSE = 7

#: What heads say that have come before: a client that asks again and again sends the same bytes, and reading them is a
#: third of the cost of a short answer. Without credentials, so that none is kept.
_KNOWN_HEADS: dict[bytes, Head] = {}
_MOST_KNOWN = 1024
_NO_HEAD = Head("GET", "/", (), http11=True, keep_alive=True)
_LONGEST_KNOWN = 1024
_CREDENTIALS = frozenset((b"authorization", b"proxy-authorization", b"cookie"))


class Exchange(Protocol):
    """What answers a request, as its client's connection sees it."""

    @property
    def endless(self) -> bool:
        """Whether its response ends only with its client."""

    def client_left(self) -> None:
        """The connection has ended; nothing can be written."""

    def client_full(self) -> None:
        """More is pending than the client reads."""

    def client_ready(self) -> None:
        """What was pending has been read, but for a rest."""


class _Running:
    """A coroutine that answers."""

    __slots__ = ("_task",)
    endless = False

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def client_left(self) -> None:
        self._task.cancel()

    def client_full(self) -> None:
        """Nothing is written by the coroutine but its whole answer."""

    client_ready = client_full


class ClientServer:
    """Makes the connections of one port.

    Attributes:
        connections: those that are open.
        guard: limits them.
        scheme: what the clients speak.
        stall: seconds for which a client may read nothing of what is left for it when its connection ends.
        draining: each answer from now on ends its connection.
    """

    def __init__(self, handle: Callable[[Request], None], guard: ConnectionGuard, scheme: str = "http") -> None:
        """Answer each request with ``handle``, which calls `ClientConnection.reply`, `run` or takes it over."""
        self.handle = handle
        self.guard = guard
        self.scheme = scheme
        self.stall = guard.limits.stall
        self.draining = False
        self.connections: set[ClientConnection] = set()

    def __call__(self) -> ClientConnection:
        """Make the protocol of a new connection."""
        return ClientConnection(self)

    def retire(self) -> None:
        """End each connection: at once if no request is on it, otherwise with its answer."""
        self.draining = True
        for connection in list(self.connections):
            if connection.request is None:
                connection.rest()


class ClientConnection(asyncio.Protocol):
    """One connection of a client.

    Attributes:
        transport: where answers are written.
        remote: the address of the peer.
        scheme: what it speaks.
        request: the one that is being answered.
    """

    __slots__ = (
        "_body_left", "_closer", "_closing", "_exchange", "_fields", "_full", "_guard", "_half_closed", "_has_head",
        "_keep_alive", "_loop", "_parser", "_parsing", "_rest", "_server", "_size", "_skipped", "_tail", "_target",
        "_unread", "entry", "remote", "request", "transport",
    )  # fmt: skip

    def __init__(self, server: ClientServer, entry: Entry | None = None) -> None:
        """Wait for the connection; the guard knows it already by ``entry``, or is asked."""
        self._server = server
        self._guard = server.guard
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.entry = entry
        self.remote = ""
        self.request: Request | None = None
        self._exchange: Exchange | None = None
        self._parser: httptools.HttpRequestParser | None = None
        self._target = b""
        self._fields: list[Field] = []
        self._has_head = False
        self._keep_alive = False
        self._parsing = False
        self._size = 0  # bytes of the head so far
        self._tail = b""  # the last of them
        self._body_left = 0  # of the current request's body: it is read past
        self._skipped = 0  # bytes that were read past
        self._unread = False  # the client is still sending what nothing reads
        self._closer: asyncio.TimerHandle | None = None
        self._rest = b""  # what came while a request was being answered
        self._closing = False  # the answer in progress is the last
        self._half_closed = False
        self._full = False

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return self._server.scheme

    @property
    def closing(self) -> bool:
        """Whether the answer in progress is the last on this connection."""
        return self._closing or self._server.draining

    @property
    def full(self) -> bool:
        """Whether more is pending than the client reads."""
        return self._full

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the guard."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(_HIGH_WATER)
        peer = transport.get_extra_info("peername")
        self.remote = str(peer[0]).removeprefix("::ffff:") if isinstance(peer, tuple) else "unknown"
        self._server.connections.add(self)
        if self.entry is None:
            self.entry = self._guard.open(self, address_key(peer))
        elif self.entry.closed:
            self.abort()
        else:
            self.entry.connection = self
        if self.entry is None:
            self._end_with(self._refusal(HTTPStatus.SERVICE_UNAVAILABLE))
        elif self.scheme == "https" and self._server.draining:  # its handshake has ended after the port was closed
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio gives it
        """Free everything."""
        self._server.connections.discard(self)
        if self.entry is not None:
            self._guard.close(self.entry)
        if self._closer is not None:
            self._closer.cancel()
        # Parser and entry refer to this: without these lines what it holds would wait for the garbage collector.
        self.entry = self._parser = None
        self._fields, self._rest = [], b""
        exchange, self._closing = self._exchange, True
        self._end_request()
        if exchange is not None:
            exchange.client_left()

    def data_received(self, data: bytes) -> None:
        """Read requests; what comes while one is being answered waits."""
        if self._closing and self.request is None:
            self._drop(data)
            return
        if self._body_left:
            data = self._skip_body(data)
        self._rest = self._rest + data if self._rest else data
        if self.request is None and self.entry is not None and not self._full:
            self._parse()
        elif len(self._rest) > LONGEST_REQUEST:
            self._closing, self._unread, self._rest = True, True, b""  # nothing more is answered after this
            if self._exchange is not None and self._exchange.endless:
                self.abort()  # it would never be answered, and a client that is not read cannot be seen to leave

    def _skip_body(self, data: bytes) -> bytes:
        """Take what belongs to the body of the request away; return what follows it."""
        skipped = min(self._body_left, len(data))
        self._body_left -= skipped
        self._skipped += skipped
        if self._skipped > LONGEST_REQUEST:
            self._closing = self._unread = True
            if self._exchange is not None and self._exchange.endless:
                self.abort()
        if not self._body_left:
            self._skipped = 0
        return data[skipped:]

    def _drop(self, data: bytes) -> None:
        """Read past what comes after the last answer: a connection that is closed before takes the answer back."""
        self._skipped += len(data)
        if self._skipped > _MOST_DROPPED:
            self.abort()

    def eof_received(self) -> bool:
        """Keep the connection for the answers that are pending; otherwise it ends."""
        entry = self.entry
        if entry is None or entry.closed or self.request is None or self.scheme == "https":
            return False  # TLS has no half of a connection
        if self._exchange is not None and self._exchange.endless:
            # It may be silent for long: a client that leaves must not keep its service until the next event.
            return False
        self._half_closed = True
        self._guard.half_closed(entry)
        return True

    def pause_writing(self) -> None:
        """Tell the guard and what answers."""
        self._full = True
        if self.entry is not None:
            self._guard.write_paused(self.entry)
        if self._exchange is not None:
            self._exchange.client_full()

    def resume_writing(self) -> None:
        """Tell the guard and what answers, or go on with the next request."""
        self._full = False
        if self.entry is not None:
            self._guard.write_resumed(self.entry)
        if self._exchange is not None:
            self._exchange.client_ready()
        elif self.request is None:
            self._proceed()

    def run(self, answer: Coroutine[Any, Any, None]) -> None:
        """Let a coroutine answer the request; it is cancelled when the client leaves."""
        self._exchange = _Running(self._loop.create_task(answer))

    def take_over(self, exchange: Exchange) -> None:
        """Let ``exchange`` answer the request from now on."""
        self._exchange = exchange

    def slim(self) -> None:
        """Drop what a long answer does not need."""
        self._parser = None
        if self.request is not None:
            self.request.raw_headers, self.request.head = (), _NO_HEAD

    def reply(self, response: Response) -> None:
        """Answer the request with a whole response."""
        request, transport = self.request, self.transport
        if request is None or transport is None or transport.is_closing():
            return
        keep = request.keep_alive and not response.closes and not self.closing
        transport.write(response.encode(keep_alive=keep, head_only=request.method == "HEAD"))
        self.finish(keep_alive=keep)

    def finish(self, *, keep_alive: bool) -> None:
        """Go on after the answer to the request, whose bytes have been written."""
        self._end_request()
        self._closing = self._closing or not keep_alive
        self._unread = self._unread or self._body_left > 0
        if not self._full:  # otherwise the next request waits until this answer has been read
            self._proceed()

    def close(self) -> None:
        """End the connection when what is pending has been read; a client that reads nothing is cut.

        One that is still sending gets a moment, because a socket that is closed with something unread resets the
        connection, and the client may lose the answer.
        """
        self._closing = True
        transport = self.transport
        if transport is None or transport.is_closing() or self._closer is not None:
            return
        patience = self._server.stall if transport.get_write_buffer_size() else 0.0
        if self._unread and transport.can_write_eof():
            transport.write_eof()
            patience += _DROP_SECONDS
        else:
            transport.close()
        if patience:
            self._closer = self._loop.call_later(patience, transport.abort)

    def rest(self) -> None:
        """End the connection, on which no request is: with TLS a close would wait for the client's."""
        if self.scheme == "https" and self.transport is not None and not self.transport.get_write_buffer_size():
            self.abort()
        else:
            self.close()

    def abort(self) -> None:
        """Cut the connection."""
        self._closing = True
        if self.transport is not None:
            self.transport.abort()

    def end(self, why: Ending) -> None:
        """Close the connection for the guard, with a 408 in the middle of a head."""
        transport, entry = self.transport, self.entry
        if transport is None or transport.is_closing():
            return
        tell = why is Ending.HEAD and entry is not None and entry.state is State.HEAD
        if transport.get_write_buffer_size() or (self.scheme == "https" and not tell):
            # Its client may never read what is pending; with TLS a close waits for the client as well.
            self.abort()
        elif tell:
            self._end_with(self._refusal(HTTPStatus.REQUEST_TIMEOUT))
        else:
            self.close()

    def gone(self) -> bool:
        """Whether the client has answered with a reset: a closed socket does, a half-closed one does not."""
        found = self.transport.get_extra_info("socket") if self.transport is not None else None
        try:
            return found is not None and found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
        except OSError:
            return False

    def on_url(self, url: bytes) -> None:
        """Keep a piece of the target (the parser calls this)."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field (the parser calls this), but for the trailers of a body."""
        if not self._has_head:
            self._fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Note that the head is complete, and what only now can be asked (the parser calls this)."""
        self._has_head = True
        self._keep_alive = self._parser is not None and self._parser.should_keep_alive()

    def _end_request(self) -> None:
        request = self.request
        self.request = self._exchange = None
        if request is not None and request.on_end is not None:
            request.on_end()

    def _proceed(self) -> None:
        entry = self.entry
        last = self.closing or (self._half_closed and not self._rest)
        if entry is None or entry.excess or last:
            self.close()
        else:
            self._guard.idle(entry)
            if self._rest and not self._parsing:
                self._parse()

    def _parse(self) -> None:
        """Read heads from what has come, until a request has to be answered first."""
        self._parsing = True
        try:
            self._parse_heads()
        finally:
            self._parsing = False
        if self._half_closed and self.request is None and not self._rest:
            self.close()

    def _parse_heads(self) -> None:
        while self._rest and self.request is None and not self._closing and not self._full:
            data = self._rest
            known = self._tail + data if self._tail else data
            found = known.find(_END_OF_HEAD)
            # The parser gets one head at a time: it would go on with the next, which has to wait for its turn.
            end = len(data) if found < 0 else found + len(_END_OF_HEAD) - len(self._tail)
            piece, self._rest = data[:end], data[end:]
            head = _KNOWN_HEADS.get(piece) if not self._size else None
            self._tail = known[-3:] if found < 0 else b""
            if head is not None:
                self._answer(head)
                continue
            self._size += len(piece)
            if found < 0 and self.entry is not None:
                self._guard.reading(self.entry)
            self._feed(piece)

    def _feed(self, piece: bytes) -> None:
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        upgrade = False
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            upgrade = True  # it is not done; what follows would be of another protocol
        except httptools.HttpParserError as error:
            self._refuse(
                Problem(ProblemType.BAD_REQUEST, explain_refused_target(piece) or str(error) or "not HTTP/1.1")
            )
            return
        if self._size > LONGEST_REQUEST or len(self._fields) > _MAX_FIELDS:
            self._unread = True
            self._refuse(Problem(ProblemType.LONG_REQUEST, REFUSALS[HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE]))
        elif self._has_head:
            self._begin(self._parser, piece, upgrade=upgrade)

    def _begin(self, parser: httptools.HttpRequestParser, piece: bytes, *, upgrade: bool) -> None:
        target, fields, whole = self._target, self._fields, self._size == len(piece)
        self._target, self._fields, self._has_head, self._size = b"", [], False, 0
        version = parser.get_http_version()
        method = parser.get_method().decode()
        try:
            path, headers, framing = check(method, target.decode("ascii"), version, fields)
        except Problem as problem:
            self._refuse(problem)
            return
        if framing.chunked and not self._read_chunks(parser):
            return
        self._unread = self._unread or framing.chunked
        # After chunks: what one takes for a trailer another takes for a field of the next request, which behind a
        # reverse proxy is another client's.
        self._closing = self._closing or framing.chunked or upgrade
        head = Head(method, path, tuple(headers), version == "1.1", version == "1.1" and self._keep_alive)
        if whole and not (framing.length or framing.chunked or upgrade):
            _remember(piece, head)
        self._answer(head, framing.length)

    def _answer(self, head: Head, body: int = 0) -> None:
        self.request = request = Request(self, head)
        if body:
            if body > LONGEST_REQUEST:
                self._closing = self._unread = True
            self._parser = None  # this one waits for the body
            self._body_left, self._skipped = body, 0
            self._rest = self._skip_body(self._rest)
        if self._closing:
            request.keep_alive = False
        if self.entry is not None:
            self._guard.busy(self.entry)
        try:
            self._server.handle(request)
        except Exception:  # noqa: BLE001 - a bug in one request must not reach the event loop, or others' streams
            _log.exception("a bug: %s %s", request.method, request.path)
            self.abort()

    def _read_chunks(self, parser: httptools.HttpRequestParser) -> bool:
        """Check the chunks that came with the head; False if they are malformed and the request is refused."""
        data, self._rest = self._rest, b""
        self._has_head = True  # what comes now is no field of a head
        try:
            parser.feed_data(data[:LONGEST_REQUEST])
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            self._refuse(Problem(ProblemType.BAD_REQUEST, str(error)))
            return False
        return True

    def _refuse(self, problem: Problem) -> None:
        """Answer what is no request, and end the connection."""
        self._end_with(problem.response().encode(keep_alive=False))

    def _end_with(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)
        self._rest = b""
        self.close()

    @staticmethod
    def _refusal(status: HTTPStatus) -> bytes:
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            problem = Problem(ProblemType.TOO_MANY_CONNECTIONS, NO_ROOM)
        else:
            problem = Problem(ProblemType.LATE_REQUEST, "the head was not complete in time")
        return problem.response().encode(keep_alive=False)


def _remember(data: bytes, head: Head) -> None:
    if len(data) > _LONGEST_KNOWN or any(name.lower() in _CREDENTIALS for name, _ in head.raw_headers):
        return
    if len(_KNOWN_HEADS) >= _MOST_KNOWN:
        _KNOWN_HEADS.clear()
    head.known = True
    _KNOWN_HEADS[data] = head
