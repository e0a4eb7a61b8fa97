"""Addresses of service names: short-lived answers, one lookup a name, and no name that blocks another.

The lookups of libuv share 16 threads, of which half serve names: 40 names without an answer stopped all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from routing_layer.ttl_cache import TtlCache

#: Swarm's names change with every replaced task; a second is short beside that and long beside a storm of clients.
_FRESH_SECONDS = 1.0
#: How long an answer serves when the next does not come. Swarm hands out a network's addresses in turn, so that one
#: which is free again is not soon the address of another service.
_STALE_SECONDS = 60.0
#: How long a lookup is waited for where there is an old answer.
_PATIENCE_SECONDS = 0.3
#: How long a lookup may take; the C library gives up after 10 s a server and search domain.
_LOOKUP_SECONDS = 10.0
#: Lookups that take longer count as hanging, and their names as slow for a minute.
_HANGS_SECONDS = 1.0
_SLOW_SECONDS = 60.0
#: Threads in which names are looked up, at most; and those of slow names.
_THREADS = 128
_THREADS_OF_SLOW = 64

Name = tuple[str, int]
#: Returns the addresses of a name, in any order; fails with ``socket.gaierror``.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass
class _Answer:
    addresses: tuple[str, ...]
    fresh_until: float


@dataclass(frozen=True)
class _Lookup:
    task: asyncio.Task[tuple[str, ...]]
    started: float


class AddressCache:
    """The addresses of names, as fresh as they can be had.

    Attributes:
        pending: the lookups that are under way.
    """

    def __init__(self, resolve: Resolve) -> None:
        """Look names up with ``resolve``."""
        self._resolve = resolve
        self._answers = TtlCache[Name, _Answer](_FRESH_SECONDS + _STALE_SECONDS)
        self.pending: dict[Name, _Lookup] = {}

    async def get(self, name: Name) -> tuple[str, ...]:
        """Return the addresses of a name; the last ones, for a minute, where a lookup takes long or fails.

        Raises:
            socket.gaierror: there is no such name, or no answer.
        """
        answer = self._answers.get(name)
        if answer is not None and answer.fresh_until > time.monotonic():
            return answer.addresses
        lookup = self.pending.get(name) or self._start(name)
        if answer is None:
            return await asyncio.shield(lookup.task)
        left = lookup.started + _PATIENCE_SECONDS - time.monotonic()
        done, _ = await asyncio.wait([lookup.task], timeout=max(0.0, left))
        if done and (lookup.task.exception() is None or self._answers.get(name) is None):
            return lookup.task.result()
        return answer.addresses

    def expire(self, name: Name) -> None:
        """Look the name up again at the next request."""
        answer = self._answers.get(name)
        if answer is not None:
            answer.fresh_until = 0.0

    def forget(self, name: Name) -> None:
        """Drop the addresses: they are another service's."""
        self._answers.discard(name)

    def _start(self, name: Name) -> _Lookup:
        def finish(task: asyncio.Task[tuple[str, ...]]) -> None:
            self.pending.pop(name, None)
            if not task.cancelled():
                task.exception()  # not an error of ours if all clients that waited have left

        task = asyncio.create_task(self._look_up(name))
        task.add_done_callback(finish)
        lookup = self.pending[name] = _Lookup(task, time.monotonic())
        return lookup

    async def _look_up(self, name: Name) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                addresses = tuple(dict.fromkeys(await self._resolve(*name)))
        except TimeoutError:
            raise socket.gaierror(socket.EAI_AGAIN, f"no answer within {_LOOKUP_SECONDS:g} s") from None
        except socket.gaierror as error:
            if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
                self._answers.discard(name)
            raise
        if not addresses:
            raise socket.gaierror(socket.EAI_NODATA, "the name has no address")
        self._answers.put(name, _Answer(addresses, time.monotonic() + _FRESH_SECONDS))
        return addresses


class SystemResolver:
    """Uses the resolver of the system (in a Swarm: the engine's own name server), each name in a thread.

    A thread is taken until the library gives up, so names wait for a thread when all are taken. Names that were slow
    the last time wait for threads of their own. The threads are daemons: the process can end while they hang.
    """

    def __init__(self, getaddrinfo: Callable[..., Any] = socket.getaddrinfo) -> None:
        """Call ``getaddrinfo``, which may block."""
        self._getaddrinfo = getaddrinfo
        self._busy = set[Name]()
        self._slow = TtlCache[Name, bool](_SLOW_SECONDS)
        self._threads = asyncio.Semaphore(_THREADS)
        self._threads_of_slow = asyncio.Semaphore(_THREADS_OF_SLOW)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host.

        Raises:
            socket.gaierror: there is no such name; or (``EAI_AGAIN``) no answer, or its last lookup still hangs.
        """
        with contextlib.suppress(ValueError):
            return [str(ipaddress.ip_address(host))]
        name = host, port
        if name in self._busy:
            raise socket.gaierror(socket.EAI_AGAIN, "the last lookup still hangs")
        threads = self._threads_of_slow if self._slow.get(name) else self._threads
        await threads.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[str]] = loop.create_future()

        def look_up() -> None:
            started = time.monotonic()
            result = self._call(name)
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(finish, result, time.monotonic() - started > _HANGS_SECONDS)

        def finish(result: Sequence[str] | socket.gaierror, slow: bool) -> None:
            threads.release()
            self._busy.discard(name)
            if slow:
                self._slow.put(name, True)
            else:
                self._slow.discard(name)
            if answer.done():  # the clients that waited have left
                return
            if isinstance(result, socket.gaierror):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        self._busy.add(name)
        try:
            threading.Thread(target=look_up, name=f"lookup {host}", daemon=True).start()
        except RuntimeError as error:  # the system allows no more
            finish(socket.gaierror(socket.EAI_AGAIN, str(error)), slow=False)
        return await answer

    def _call(self, name: Name) -> Sequence[str] | socket.gaierror:
        try:
            return [str(item[4][0]) for item in self._getaddrinfo(*name, type=socket.SOCK_STREAM)]
        except socket.gaierror as error:
            return error
        except Exception as error:  # noqa: BLE001 - ValueError for an invalid name ("a..b"); the caller waits
            code = socket.EAI_NONAME if isinstance(error, ValueError) else socket.EAI_AGAIN
            return socket.gaierror(code, f"{type(error).__name__}: {error}")
