"""Services to connections: several task addresses, one retry of a refused connection, and what is said of failures."""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from routing_layer import problems
from routing_layer.resolver import Addresses, Name, Recent, Resolve, SystemResolver
from routing_layer.upstream import Exchange

_log = structlog.get_logger(__name__)
#: A service's failure is logged once in this time for each cause: every client of it meets the same.
_SAID_SECONDS = 60.0


@dataclass(frozen=True)
class Target:
    """One upstream: where to connect, what to ask for."""

    host: str
    port: int
    path: str
    tls: bool = False

    @classmethod
    def of(cls, url: str) -> Target:
        """Take apart a URL of the registry."""
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        return cls(parts.hostname or "", parts.port or (443 if tls else 80), parts.path or "/", tls)

    @property
    def name(self) -> Name:
        """What is looked up."""
        return self.host, self.port

    def __str__(self) -> str:
        """Name it as people do: host and port."""
        return f"{self.host}:{self.port}"

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


class Dialer:
    """Opens connections to group services."""

    def __init__(self, timeout: float, replace_wait: float, resolve: Resolve | None = None) -> None:
        """Give each connection ``timeout`` seconds, its name lookup included.

        A service that was there within ``replace_wait`` seconds and cannot be connected to now is taken to be replaced.
        """
        self._timeout = timeout
        self._addresses = Addresses(resolve or SystemResolver())
        self._seen = Recent[Target, bool](replace_wait)
        self._said = Recent[tuple[Target, str], bool](_SAID_SECONDS)
        self._turn = itertools.count()
        self._tls = ssl.create_default_context()

    async def connect(self, target: Target) -> Exchange:
        """Connect; once more, with a fresh lookup, if nobody listens at the first address.

        Raises:
            Problem: 502, the name does not resolve or nobody listens; 504, no answer in time.
        """
        try:
            async with asyncio.timeout(self._timeout):
                exchange = await self._connect(target)
        except TimeoutError as error:
            doing = "the lookup of its name hangs" if self._addresses.looking_up(target.name) else "no connection"
            raise self._unreachable(target, f"{doing} after {self._timeout:g} s") from error
        except socket.gaierror as error:
            raise self._unreachable(target, f"the name does not resolve: {error.strerror}") from error
        except OSError as error:
            raise self._unreachable(target, f"cannot connect: {error.strerror or error}") from error
        self.seen(target)
        return exchange

    def seen(self, target: Target) -> None:
        """The service is there, or was until now."""
        self._seen.put(target, True)

    def failed(self, target: Target, cause: str) -> None:
        """Log why a service could not serve, once a minute for each cause; clients are not told."""
        if not self._said.get((target, cause)):
            self._said.put((target, cause), True)
            _log.warning("a service fails", service=str(target), cause=cause)

    def _unreachable(self, target: Target, cause: str) -> problems.Problem:
        self.failed(target, cause)
        return problems.unreachable("the service cannot be reached", cause, passing=bool(self._seen.get(target)))

    async def _connect(self, target: Target) -> Exchange:
        addresses = await self._addresses.of(target.name)
        address = addresses[next(self._turn) % len(addresses)]
        # Another address deserves a part of the time.
        share = self._timeout / 2 if len(addresses) > 1 else self._timeout
        try:
            async with asyncio.timeout(share):
                return await self._open(target, address)
        except (OSError, TimeoutError):
            self._addresses.doubt(target.name)
            fresh = await self._addresses.of(target.name)
            others = [other for other in fresh if other != address] or fresh
            return await self._open(target, others[next(self._turn) % len(others)])

    async def _open(self, target: Target, address: str) -> Exchange:
        loop = asyncio.get_running_loop()
        context = self._tls if target.tls else None
        name = target.host if target.tls else None
        exchange = Exchange(loop)
        await loop.create_connection(lambda: exchange, address, target.port, ssl=context, server_hostname=name)
        return exchange
