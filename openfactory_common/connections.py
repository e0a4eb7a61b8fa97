"""Limits for the connections of an HTTP server, so that no client can permanently take the place of others.

`ConnectionGuard` decides (no I/O, any clock); `GuardedHandler`, `GuardedServer` and `GuardedAppRunner` are aiohttp's
server with a guard for its connections. A connection is in one of four states: ``SILENT`` (accepted, no byte yet),
``HEAD`` (a part of a request's head has come), ``BUSY`` (a request is being answered) and ``IDLE`` (all requests are
answered). The first two end after ``head`` seconds, the last after ``idle``; a busy one whose client reads nothing of
what is pending ends after ``stall``.

Descriptors are counted before they run out: a reserve is kept for the process's own connections. Where a new client
does not fit, the connection that has been resting longest is ended, or else a head that takes long; where there is
none, the client is accepted as an excess one: its request is answered 503, except a request for the process's health.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import resource
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

#: A connection that has rested for less is not closed to make room: its request may be on the way.
REST_SECONDS = 0.5
#: Where there is no room, a head has less time: that of an excess connection, and one that others wait for.
_EXCESS_HEAD_SECONDS = 2.0
#: The largest part of the capacity that one address can take: others always find some.
_SHARE = 0.9
#: Seconds after which a client that was refused can try again.
RETRY_AFTER = 5
_TICK_SECONDS = 0.5
#: Bytes of one request, its head or its body. aiohttp alone takes heads of 1 MiB: 300 halves of them were 560 MiB.
LONGEST_REQUEST = 32 * 1024
_PIECE = LONGEST_REQUEST // 4
_END_OF_HEAD = b"\r\n\r\n"
#: The state of a socket whose other side has answered "reset" (linux/tcp_states.h).
_TCP_CLOSE = 7
#: What a client gets whose connection ends without an answer to its request.
REFUSALS = {
    HTTPStatus.SERVICE_UNAVAILABLE: "the server has no room for more clients",
    HTTPStatus.REQUEST_TIMEOUT: "the request was not complete in time",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: f"the head of the request has more than {LONGEST_REQUEST} bytes",
}


class State(StrEnum):
    """The state of a connection."""

    SILENT = "silent"
    HEAD = "head"
    BUSY = "busy"
    IDLE = "idle"


class Ending(StrEnum):
    """Why the guard ended a connection."""

    HEAD = "head_timeout"
    IDLE = "idle_timeout"
    STALLED = "write_timeout"
    ROOM = "made_room"
    REFUSED = "refused"


@dataclass(frozen=True)
class ConnectionLimits:
    """What a server allows.

    Attributes:
        capacity: descriptors for the clients, with what their requests open.
        excess: connections beyond the capacity that are still read.
        head: seconds for a request's head, from the connection's start and from the head's first byte.
        idle: seconds between two requests on one connection.
        stall: seconds for which a client may read nothing of what is pending for it.
        per_address: connections from one address (IPv6: from one /64 network); 0: as many as leave others a tenth.
        cost: descriptors that a request in progress needs besides its connection.
    """

    capacity: int
    excess: int = 64
    head: float = 10.0
    idle: float = 75.0
    stall: float = 45.0
    per_address: int = 0
    cost: int = 0


def descriptors() -> tuple[int, int]:
    """Return how many descriptors clients may take, and how many of the reserve may be taken by excess ones.

    The reserve is an eighth of the process's limit, 512 at most.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    reserve = min(512, limit // 8)
    return max(1, limit - reserve - len(list(Path("/proc/self/fd").iterdir()))), max(1, reserve // 4)


class Guarded(Protocol):
    """A connection as the guard sees it."""

    def end(self, why: Ending) -> None:
        """Close it."""

    def gone(self) -> bool:
        """Whether its client is known to have left (asked for half-closed connections)."""


@dataclass(eq=False)
class _Address:
    """The connections of one address; ``members`` are all of them, ``connections`` those that are not excess."""

    name: str
    members: int = 0
    connections: int = 0
    busy: int = 0
    resting: OrderedDict[Entry, float] = field(default_factory=OrderedDict)


@dataclass(eq=False, slots=True)
class Entry:
    """One connection in the guard's tables."""

    connection: Guarded
    address: _Address
    state: State
    excess: bool = False
    closed: bool = False
    queue: OrderedDict[Entry, float] | None = None


class ConnectionGuard:
    """Counts the connections of one server, and ends those that exceed a limit.

    Attributes:
        connections: how many there are, without excess ones.
        most: the largest number at once since it was last reset.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        on_end: Callable[[Ending], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without connections; ``on_end`` is called for each one that the guard ends."""
        self.limits = limits
        self.connections = self.most = 0
        self._busy = self._excess = 0
        self._resting: dict[State, OrderedDict[Entry, float]] = {
            state: OrderedDict() for state in (State.SILENT, State.HEAD, State.IDLE)
        }
        self._excess_heads: OrderedDict[Entry, float] = OrderedDict()
        self._stalled: OrderedDict[Entry, float] = OrderedDict()
        self._half_closed: set[Entry] = set()
        self._addresses: dict[str, _Address] = {}
        self._on_end = on_end
        self._clock = clock

    def open(self, connection: Guarded, address: str) -> Entry | None:
        """Accept a new connection; None where there is not even room to read it, so it has to be closed at once."""
        known = self._addresses.setdefault(address, _Address(address))
        entry = Entry(connection, known, State.SILENT)
        known.members += 1
        self._count(entry, 1)
        if self._make_room(known):
            self.most = max(self.most, self.connections)
            self._add_to_queue(entry)
            return entry
        self._count(entry, -1)
        self._on_end(Ending.REFUSED)
        entry.excess = True
        self._excess += 1
        if self._excess > self.limits.excess:
            self.close(entry)
            return None
        entry.queue = self._excess_heads
        entry.queue[entry] = self._clock()
        return entry

    def reading(self, entry: Entry) -> None:
        """A part of a head has come."""
        if entry.state in (State.SILENT, State.IDLE):
            self._move(entry, State.HEAD)

    def busy(self, entry: Entry) -> None:
        """A request is complete."""
        self._move(entry, State.BUSY)

    def idle(self, entry: Entry) -> None:
        """Everything is answered."""
        self._move(entry, State.IDLE)

    def close(self, entry: Entry) -> None:
        """The connection has ended."""
        if entry.closed:
            return
        entry.closed = True
        self._leave_queue(entry)
        self._stalled.pop(entry, None)
        self._half_closed.discard(entry)
        if entry.excess:
            self._excess -= 1
        else:
            self._count(entry, -1)
        entry.address.members -= 1
        if not entry.address.members:
            del self._addresses[entry.address.name]

    def has_room(self, entry: Entry) -> bool:
        """Whether the request on this connection may open the descriptors it needs; ends resting connections for it."""
        if entry.closed or not entry.excess:
            return not entry.closed and self._make_room(entry.address)
        self._count(entry, 1)
        if not self._make_room(entry.address):
            self._count(entry, -1)
            return False
        entry.excess = False
        self._excess -= 1
        return True

    def write_paused(self, entry: Entry) -> None:
        """The client reads less than is pending for it."""
        if not entry.closed:
            self._stalled[entry] = self._clock()

    def write_resumed(self, entry: Entry) -> None:
        """The client has read enough."""
        self._stalled.pop(entry, None)

    def half_closed(self, entry: Entry) -> None:
        """The client sends no more and may still read."""
        if not entry.closed:
            self._half_closed.add(entry)

    def expire(self) -> None:
        """End every connection whose time is over."""
        limits, now = self.limits, self._clock()
        for queue, seconds, why in (
            (self._excess_heads, min(limits.head, _EXCESS_HEAD_SECONDS), Ending.HEAD),
            (self._resting[State.SILENT], limits.head, Ending.HEAD),
            (self._resting[State.HEAD], limits.head, Ending.HEAD),
            (self._resting[State.IDLE], limits.idle, Ending.IDLE),
            (self._stalled, limits.stall, Ending.STALLED),
        ):
            while queue and next(iter(queue.values())) <= now - seconds:
                self._end(next(iter(queue)), why)
        for entry in [entry for entry in self._half_closed if entry.connection.gone()]:
            self._end(entry, Ending.STALLED)

    async def run(self) -> None:
        """Expire connections until cancelled."""
        while True:
            self.expire()
            await asyncio.sleep(_TICK_SECONDS)

    def _move(self, entry: Entry, state: State) -> None:
        if entry.closed or entry.state is state:
            return
        if entry.excess and state is State.HEAD:
            entry.state = state  # its time has begun with the connection
            return
        self._leave_queue(entry)
        more = (state is State.BUSY) - (entry.state is State.BUSY)
        entry.state = state
        if not entry.excess:
            self._busy += more
            entry.address.busy += more
        if state is not State.BUSY:
            self._add_to_queue(entry)

    def _add_to_queue(self, entry: Entry) -> None:
        entry.queue = self._resting[entry.state]
        entry.queue[entry] = now = self._clock()
        if entry.state is not State.HEAD and not entry.excess:
            entry.address.resting[entry] = now

    def _leave_queue(self, entry: Entry) -> None:
        if entry.queue is not None:
            entry.queue.pop(entry, None)
            entry.queue = None
            entry.address.resting.pop(entry, None)

    def _count(self, entry: Entry, sign: int) -> None:
        address = entry.address
        self.connections += sign
        address.connections += sign
        if entry.state is State.BUSY:
            self._busy += sign
            address.busy += sign

    def _make_room(self, address: _Address) -> bool:
        """End the longest resting connections until what is counted fits; False if that is not enough."""
        limits = self.limits
        most = limits.per_address or limits.capacity
        share = max(1, int(limits.capacity * _SHARE))
        while address.connections > most or address.connections + limits.cost * address.busy > share:
            if not self._end_oldest(address.resting):
                return False
        while self.connections + limits.cost * self._busy > limits.capacity:
            queues = [queue for queue in (self._resting[State.SILENT], self._resting[State.IDLE]) if queue]
            if queues and self._end_oldest(min(queues, key=lambda queue: next(iter(queue.values())))):
                continue
            # Half heads of many addresses would keep all others out, for `head` seconds and then again.
            if not self._end_oldest(self._resting[State.HEAD], _EXCESS_HEAD_SECONDS):
                return False
        return True

    def _end_oldest(self, queue: OrderedDict[Entry, float], least: float | None = None) -> bool:
        if not queue:
            return False
        entry, since = next(iter(queue.items()))
        if self._clock() - since < (REST_SECONDS if least is None else least):
            return False
        self._end(entry, Ending.ROOM)
        return True

    def _end(self, entry: Entry, why: Ending) -> None:
        self.close(entry)
        self._on_end(why)
        entry.connection.end(why)


def address_key(peer: object) -> str:
    """Return what counts as one address of a socket's peer: an IPv4 address or a /64 network of IPv6."""
    host = str(peer[0]) if isinstance(peer, tuple) and peer else ""
    host = host.removeprefix("::ffff:")
    if ":" not in host:
        return host
    try:
        return str(ipaddress.ip_network((host.partition("%")[0], 64), strict=False))
    except ValueError:
        return host


class GuardedHandler(web.RequestHandler):
    """One connection of aiohttp's server, with a guard.

    A client that closes its half of the connection after its request still gets the answer.
    """

    __slots__ = ("_guard", "_half_closed", "_incomplete", "_tail", "_wire", "entry")

    def __init__(self, manager: web.Server, *, guard: ConnectionGuard, **options: Any) -> None:
        """Wait for the connection."""
        super().__init__(manager, **options)
        self._guard = guard
        self.entry: Entry | None = None
        self._half_closed = False
        self._incomplete = 0  # bytes since a head was complete
        self._tail = b""
        self._wire: asyncio.Transport | None = None  # aiohttp drops its own before the socket is closed

    def refusal(self, status: HTTPStatus) -> bytes:
        """Return a whole response that ends the connection: 503 (no room), 408 (head too late) or 431 (too long)."""
        detail = REFUSALS[status]
        body = json.dumps({"type": "about:blank", "title": status.phrase, "status": int(status), "detail": detail})
        return whole_response(status, "application/problem+json", body.encode())

    def awaits_answer(self) -> bool:
        """Whether a client that sends no more still waits for the answer; False for a response that never ends."""
        return True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the guard."""
        super().connection_made(transport)
        self._wire = self.transport
        self.entry = self._guard.open(self, address_key(transport.get_extra_info("peername")))
        if self.entry is None and self.transport is not None:
            self.transport.write(self.refusal(HTTPStatus.SERVICE_UNAVAILABLE))
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell the guard."""
        if self.entry is not None:
            self._guard.close(self.entry)
        self._wire = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Tell the guard whether a request is complete."""
        if len(data) <= _PIECE:
            self._take(data)
            return
        # In pieces, so that little of a request that is too long is parsed: a chunk of one byte is 1 µs and 50 bytes.
        for start in range(0, len(data), _PIECE):
            self._take(data[start : start + _PIECE])

    def _take(self, data: bytes) -> None:
        before = self._request_count
        if data:
            self._tail = (self._tail + data[-len(_END_OF_HEAD) :])[-len(_END_OF_HEAD) :]
        super().data_received(data)
        entry = self.entry
        if entry is None:
            return
        if self._request_count != before:
            self._incomplete = 0
            self._guard.busy(entry)
        elif data:
            self._guard.reading(entry)
            if not self._buffer_paused:  # otherwise these are requests that wait to be answered
                self._incomplete += len(data)
                if self._incomplete > LONGEST_REQUEST:
                    self._read_no_more(entry)

    def _read_no_more(self, entry: Entry) -> None:
        """End the connection of a request that is too long; one that is being answered gets its answer first."""
        wire = self._wire
        if wire is None or wire.is_closing():
            return
        if entry.state is State.BUSY:
            self.close()
            wire.pause_reading()
        else:
            wire.write(self.refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
            self.force_close()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio asks for it; aiohttp never keeps a connection
        """Keep the connection for the answers that are pending; otherwise it ends."""
        entry = self.entry
        if entry is None or entry.closed or entry.state is not State.BUSY or not self.awaits_answer():
            return False
        self._half_closed = True
        self._guard.half_closed(entry)
        return True

    def pause_writing(self) -> None:
        """Tell the guard."""
        super().pause_writing()
        if self.entry is not None:
            self._guard.write_paused(self.entry)

    def resume_writing(self) -> None:
        """Tell the guard."""
        super().resume_writing()
        if self.entry is not None:
            self._guard.write_resumed(self.entry)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; after the last one the connection rests, or ends."""
        sent = await super().finish_response(request, resp, start_time)
        entry = self.entry
        if entry is not None and not self._messages:
            self._guard.idle(entry)
            if self._tail != _END_OF_HEAD and not request.body_exists:
                self._guard.reading(entry)  # a part of the next head came with this request, or behind it
            if self._half_closed or entry.excess:
                self.close()
        return sent

    def end(self, why: Ending) -> None:
        """Close the connection, with a 408 in the middle of a head."""
        wire, entry = self._wire, self.entry
        if wire is None:
            return
        pending = wire.get_write_buffer_size()
        if not pending and why is Ending.HEAD and entry is not None and entry.state is State.HEAD:
            wire.write(self.refusal(HTTPStatus.REQUEST_TIMEOUT))
        self.force_close()
        if pending:
            wire.abort()  # its client may never read what is pending

    def gone(self) -> bool:
        """Whether the client has answered with a reset: a closed socket does, a half-closed one does not."""
        found = self._wire.get_extra_info("socket") if self._wire is not None else None
        try:
            return found is not None and found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
        except OSError:
            return False


class GuardedServer(web.Server):
    """aiohttp's low-level server, with a guard for its connections.

    A chunked request is the last on its connection: aiohttp reads its trailers as fields of the next request, which
    behind a reverse proxy is another client's.
    """

    handler: type[GuardedHandler] = GuardedHandler

    def __init__(self, request_handler: Any, *, guard: ConnectionGuard, **options: Any) -> None:
        """Answer with ``request_handler``; ``options`` are those of ``web.Server`` and of its connections."""
        super().__init__(request_handler, **options)
        self.guard = guard
        make = self.request_factory
        self.request_factory = lambda message, *rest: make(
            message._replace(should_close=True) if message.chunked else message, *rest
        )

    def __call__(self) -> web.RequestHandler:
        """Make the handler of a new connection."""
        return self.handler(self, guard=self.guard, loop=self._loop, **self._kwargs)


class GuardedAppRunner(web.AppRunner):
    """aiohttp's runner of an application, with a guard for its connections; ``guard.run()`` has to run beside it."""

    server_class: type[GuardedServer] = GuardedServer

    def __init__(self, app: web.Application, *, guard: ConnectionGuard, **options: Any) -> None:
        """Run ``app``; ``options`` are those of ``web.AppRunner``."""
        super().__init__(app, **options)
        self._guard = guard

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        options = {**made._kwargs, "handler_cancellation": made.handler_cancellation}  # noqa: SLF001 - no other way in
        return self.server_class(
            made.request_handler, request_factory=made.request_factory, guard=self._guard, **options
        )


def whole_response(status: HTTPStatus, content_type: str, body: bytes) -> bytes:
    """Return a response, byte for byte, after which the connection ends."""
    retry = f"Retry-After: {RETRY_AFTER}\r\n" if status is HTTPStatus.SERVICE_UNAVAILABLE else ""
    head = (
        f"HTTP/1.1 {int(status)} {status.phrase}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        f"{retry}Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
