"""Connections to services: several task addresses, one retry of a refused connection, and one log line a failure."""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import structlog

from routing_layer.problems import Problem, ProblemType
from routing_layer.ttl_cache import TtlCache
from routing_layer.upstream.connection import UpstreamConnection
from routing_layer.upstream.resolver import AddressCache, Name, Resolve, SystemResolver

_log = structlog.get_logger(__name__)
#: Connections to one service that are opened at once. Of 2,000 that were opened together on a busy machine none was
#: ready within CONNECT_TIMEOUT: the loop had turned to each of them before it came back to the first.
_MAX_OPENING = 64
#: Seconds for which a connection waits until it is its turn to be opened.
_TURN_SECONDS = 10.0
#: Bytes of the kernel's buffer for what a service has sent and its client has no room for; it would grow to 6 MB.
_RECEIVE_BUFFER = 128 * 1024


@dataclass(frozen=True)
class Target:
    """One upstream: where to connect, which path to request."""

    host: str
    port: int
    path: str
    tls: bool = False
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the hash once: it is a key of several tables for each request."""
        object.__setattr__(self, "_hash", hash((self.host, self.port, self.path, self.tls)))

    def __hash__(self) -> int:
        """Return the hash."""
        return self._hash

    @classmethod
    def parse(cls, url: str) -> Target:
        """Parse a URL of the registry."""
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        return cls(parts.hostname or "", parts.port or (443 if tls else 80), parts.path or "/", tls)

    @property
    def name(self) -> Name:
        """What is looked up."""
        return self.host, self.port

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


class Dialer:
    """Opens connections to services."""

    def __init__(self, timeout: float, replace_wait: float, resolve: Resolve | None = None) -> None:
        """Give each connection ``timeout`` seconds, its name lookup included.

        A service that was reachable within ``replace_wait`` seconds and is not now is assumed to be replaced.
        """
        self._timeout = timeout
        self._addresses = AddressCache(resolve or SystemResolver())
        self._reachable = TtlCache[Target, bool](replace_wait)
        self._turn = itertools.count()
        self._openings = WeakValueDictionary[Target, asyncio.Semaphore]()
        self._tls = ssl.create_default_context()

    async def connect(self, target: Target) -> UpstreamConnection:
        """Connect; once more, with a fresh lookup, if the first address does not accept the connection.

        Raises:
            Problem: 502, the name does not resolve, the connection is refused, or it takes too long.
        """
        opening = self._openings.get(target)
        if opening is None:
            opening = self._openings[target] = asyncio.Semaphore(_MAX_OPENING)
        try:
            async with asyncio.timeout(_TURN_SECONDS):
                await opening.acquire()
            try:
                async with asyncio.timeout(self._timeout):
                    connection = await self._connect(target)
            finally:
                opening.release()
        except OSError as error:
            if isinstance(error, TimeoutError):
                hangs = target.name in self._addresses.pending
                cause = f"{'the lookup of its name hangs' if hangs else 'no connection'} after {self._timeout:g} s"
            elif isinstance(error, socket.gaierror):
                cause = f"the name does not resolve: {error.strerror}"
            else:
                cause = f"cannot connect: {error.strerror or error}"
            self.log_failure(target, cause)
            replaced = bool(self._reachable.get(target))
            detail = "the service cannot be reached"
            raise Problem(ProblemType.UPSTREAM_UNREACHABLE, detail, transient=replaced, cause=cause) from error
        self.mark_reachable(target)
        return connection

    def mark_reachable(self, target: Target) -> None:
        """Remember that the service is reachable, or was until now."""
        self._reachable.put(target, True)

    def forget_addresses(self, target: Target) -> None:
        """Look the service's name up anew at the next connection: another service has answered at its address."""
        self._addresses.forget(target.name)

    def log_failure(self, target: Target, cause: str) -> None:
        """Log why a service failed, if it did (the log drops equal lines for a minute); clients do not see it."""
        if cause:
            _log.warning("a service fails", service=f"{target.host}:{target.port}", cause=cause)

    async def _connect(self, target: Target) -> UpstreamConnection:
        addresses = await self._addresses.get(target.name)
        address = addresses[next(self._turn) % len(addresses)]
        # Another address deserves a part of the time.
        share = self._timeout / 2 if len(addresses) > 1 else self._timeout
        try:
            async with asyncio.timeout(share):
                return await self._open(target, address)
        except OSError:
            self._addresses.expire(target.name)
            fresh = await self._addresses.get(target.name)
            others = [other for other in fresh if other != address] or fresh
            connection = await self._open(target, others[next(self._turn) % len(others)])
            connection.retried = True
            return connection

    async def _open(self, target: Target, address: str) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        context, name = (self._tls, target.host) if target.tls else (None, None)
        connection = UpstreamConnection(loop)
        transport, _ = await loop.create_connection(
            lambda: connection, address, target.port, ssl=context, server_hostname=name
        )
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        return connection
