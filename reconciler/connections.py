"""Connections to the operator's web server: how many there may be, and for how long one may say nothing.

Without limits a client that is silent, that stops in half a head or that does not read its answer keeps a descriptor
for ever (measured: 320 of them against 300 descriptors, and `/healthz` timed out while the operator's own sockets
failed). So a connection that nothing is being answered on is closed after a while, and when there are too many, the one
that has been idle for longest goes first: a new client is served as long as not all of them are at work.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web

log = structlog.get_logger()

#: Descriptors that are kept for ourselves: connections to ksqlDB and the engine, files, and those that are accepted
#: in one go before they can be counted (`BACKLOG`).
RESERVE = 96
BACKLOG = 32
#: Connections that the kernel keeps for us until then: one that finds no place tries again a second later.
QUEUE = 512
_MOST = 512
_FEWEST = 16
#: Seconds between two looks for connections whose time is over.
_SWEEP = 1.0


@dataclass(frozen=True)
class Bounds:
    """Limits for connections.

    Attributes:
        total: how many there may be.
        per_address: how many from one address.
        head: seconds for the head of the first request.
        idle: seconds from an answer to the end of the next request's head, also for reading the answer.
    """

    total: int
    per_address: int
    head: float = 10.0
    idle: float = 60.0

    @classmethod
    def of_process(cls) -> Bounds:
        """Return what this process's descriptors allow; the soft limit is raised to the hard one first."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError, OSError):  # a system that has less than its own limit says
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = _MOST if soft == resource.RLIM_INFINITY else soft - RESERVE
        total = max(_FEWEST, min(_MOST, room))
        return cls(total, max(_FEWEST, total // 2))


class Connections:
    """All connections of a server; used in its event loop alone."""

    def __init__(self, bounds: Bounds, clock: Callable[[], float]) -> None:
        """There is none yet; ``clock`` gives seconds."""
        self._bounds = bounds
        self._clock = clock
        self._open: dict[asyncio.BaseTransport, Connection] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._open)

    def protocol(self, inner: asyncio.Protocol) -> Connection:
        """Return the protocol of a new connection, which ``inner`` answers."""
        return Connection(self, inner, self._clock)

    def admit(self, new: Connection) -> bool:
        """Let a connection in, if need be instead of the one that has been idle for longest."""
        here = [one for one in self._open.values() if one.address == new.address]
        for there, most in ((here, self._bounds.per_address), (list(self._open.values()), self._bounds.total)):
            if len(there) >= most:
                idle = [one for one in there if not one.busy]
                if not idle:
                    log.warning("web server: too many requests at a time, a connection is refused", limit=most)
                    return False
                log.warning("web server: too many connections, the one that is idle for longest is closed", limit=most)
                self.close(min(idle, key=lambda one: one.since))
        self._open[new.transport] = new
        return True

    def close(self, one: Connection) -> None:
        """End a connection at once."""
        self._open.pop(one.transport, None)
        one.transport.abort()

    def forget(self, one: Connection) -> None:
        """A connection has ended."""
        self._open.pop(one.transport, None)

    @contextlib.contextmanager
    def answering(self, transport: asyncio.BaseTransport | None) -> Iterator[None]:
        """Answer a request inside: its connection is not idle."""
        one = self._open.get(transport) if transport is not None else None
        if one is None:
            yield
            return
        one.busy += 1
        try:
            yield
        finally:
            one.busy -= 1
            one.answered, one.since = True, self._clock()

    async def sweep(self) -> None:
        """Close connections whose time is over, until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP)
            now = self._clock()
            for one in [one for one in self._open.values() if not one.busy]:
                limit = self._bounds.idle if one.answered else self._bounds.head
                if (one.half_closed and one.answered) or now - one.since >= limit:
                    self.close(one)


class Connection(asyncio.Protocol):
    """One connection; everything is passed on to the protocol that answers."""

    transport: asyncio.Transport

    def __init__(self, connections: Connections, inner: asyncio.Protocol, clock: Callable[[], float]) -> None:
        """Pass everything on to ``inner``, if the connection is admitted."""
        self.busy = 0
        self.answered = False
        self.half_closed = False
        self.since = clock()
        self.address = ""
        self._connections = connections
        self._inner: asyncio.Protocol | None = inner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream's
        self.transport = transport
        self.address = str((transport.get_extra_info("peername") or [""])[0])
        if self._inner is not None and self._connections.admit(self):
            self._inner.connection_made(transport)
        else:
            self._inner = None
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Something came."""
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool:
        """The client sends no more; it may still read the answer."""
        self.half_closed = True
        return self._inner is not None

    def pause_writing(self) -> None:
        """The client does not read."""
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._connections.forget(self)
        if self._inner is not None:
            self._inner.connection_lost(exc)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def counted(connections: Connections) -> Any:
    """Return the middleware that says which connections are being answered on."""

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        with connections.answering(request.transport):
            return await handler(request)

    return count
