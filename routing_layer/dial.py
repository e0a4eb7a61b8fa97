"""Names to connections: short-lived lookups, several task addresses, one retry of a refused connection."""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from routing_layer import problems
from routing_layer.upstream import Exchange

#: Swarm's names change with every replaced task; a second is short beside that and long beside a storm of clients.
_DNS_SECONDS = 1.0


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

    def __str__(self) -> str:
        """Name it as people do: host and port."""
        return f"{self.host}:{self.port}"

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


@dataclass(frozen=True)
class _Answer:
    addresses: tuple[str, ...]
    until: float


#: Gives a name's addresses, in any order; fails with ``socket.gaierror``.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


async def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system, as it is configured (in a Swarm: the engine's own name server)."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(item[4][0]) for item in found]


class Dialer:
    """Opens connections to group services."""

    def __init__(self, timeout: float, replace_wait: float, resolve: Resolve = resolve) -> None:
        """Give each connection ``timeout`` seconds, its name lookup included.

        A service that was there within ``replace_wait`` seconds and cannot be connected to now is taken to be replaced.
        """
        self._timeout = timeout
        self._replace_wait = replace_wait
        self._resolve = resolve
        self._answers: dict[tuple[str, int], _Answer] = {}
        self._asking: dict[tuple[str, int], asyncio.Task[tuple[str, ...]]] = {}
        self._seen: dict[Target, float] = {}
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
            raise self._unreachable(target, f"no connection within {self._timeout:g} s") from error
        except socket.gaierror as error:
            raise self._unreachable(target, f"the name does not resolve: {error.strerror}") from error
        except OSError as error:
            raise self._unreachable(target, f"cannot connect: {error.strerror or error}") from error
        self.seen(target)
        return exchange

    def seen(self, target: Target) -> None:
        """The service is there, or was until now."""
        self._seen[target] = asyncio.get_running_loop().time()

    def _unreachable(self, target: Target, why: str) -> problems.Problem:
        age = asyncio.get_running_loop().time() - self._seen.get(target, float("-inf"))
        return problems.unreachable(str(target), why, passing=age < self._replace_wait)

    async def _connect(self, target: Target) -> Exchange:
        addresses = await self._addresses(target)
        address = addresses[next(self._turn) % len(addresses)]
        # Another address deserves a part of the time.
        share = self._timeout / 2 if len(addresses) > 1 else self._timeout
        try:
            async with asyncio.timeout(share):
                return await self._open(target, address)
        except (OSError, TimeoutError):
            self._answers.pop((target.host, target.port), None)
            fresh = await self._addresses(target)
            others = [other for other in fresh if other != address] or fresh
            return await self._open(target, others[next(self._turn) % len(others)])

    async def _open(self, target: Target, address: str) -> Exchange:
        loop = asyncio.get_running_loop()
        context = self._tls if target.tls else None
        name = target.host if target.tls else None
        exchange = Exchange(loop)
        await loop.create_connection(lambda: exchange, address, target.port, ssl=context, server_hostname=name)
        return exchange

    async def _addresses(self, target: Target) -> tuple[str, ...]:
        """Return the name's addresses; one lookup serves everybody who asks meanwhile."""
        key = (target.host, target.port)
        answer = self._answers.get(key)
        if answer is not None and answer.until > asyncio.get_running_loop().time():
            return answer.addresses
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._look_up(key))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    async def _look_up(self, key: tuple[str, int]) -> tuple[str, ...]:
        addresses = tuple(dict.fromkeys(await self._resolve(*key)))
        self._answers[key] = _Answer(addresses, asyncio.get_running_loop().time() + _DNS_SECONDS)
        return addresses
