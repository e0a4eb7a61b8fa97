"""From the names of services to addresses: short-lived answers, one lookup a name, and no name that holds up another.

The lookups of libuv share 16 threads, of which half serve names: 40 names without an answer stopped all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

#: Swarm's names change with every replaced task; a second is short beside that and long beside a storm of clients.
_DNS_SECONDS = 1.0
#: How long an answer serves when the next does not come. Swarm hands out a network's addresses in turn, so that one
#: which is free again is not soon the address of another service.
_STALE_SECONDS = 60.0
#: How long a lookup is waited for where there is an old answer.
_PATIENCE_SECONDS = 0.3
#: How long a lookup may take; the C library gives up after 10 s a server and search domain.
_LOOKUP_SECONDS = 10.0
#: Lookups that take longer count as hanging.
_HANGS_SECONDS = 1.0
#: Threads in which names are looked up, at most; and those of names that hung the last time.
_THREADS = 128
_THREADS_OF_HUNG = 64

#: What is remembered at most: a service that fails in ever new ways makes an entry of each.
_MOST = 20_000

Name = tuple[str, int]
#: Gives a name's addresses, in any order; fails with ``socket.gaierror``.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Remembers what was put in within the last ``seconds``, and forgets the rest."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start empty."""
        self._seconds = seconds
        self._clock = clock
        self._items = OrderedDict[K, tuple[float, V]]()  # the oldest first

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._items)

    def get(self, key: K) -> V | None:
        """Return what was put in last, None if that was too long ago."""
        found = self._items.get(key)
        return found[1] if found is not None and found[0] > self._clock() else None

    def put(self, key: K, value: V) -> None:
        """Remember from now, and drop whatever is too old or too much."""
        now = self._clock()
        self._items[key] = now + self._seconds, value
        self._items.move_to_end(key)
        while len(self._items) > _MOST or next(iter(self._items.values()))[0] <= now:
            self._items.popitem(last=False)

    def forget(self, key: K) -> None:
        """Drop one."""
        self._items.pop(key, None)


@dataclass
class _Answer:
    addresses: tuple[str, ...]
    until: float  # fresh, that is


@dataclass(frozen=True)
class _Lookup:
    task: asyncio.Task[tuple[str, ...]]
    began: float


class Addresses:
    """The addresses of names, as fresh as they can be had."""

    def __init__(self, resolve: Resolve) -> None:
        """Ask ``resolve``."""
        self._resolve = resolve
        self._answers = Recent[Name, _Answer](_DNS_SECONDS + _STALE_SECONDS)
        self._lookups: dict[Name, _Lookup] = {}

    async def of(self, name: Name) -> tuple[str, ...]:
        """Return the name's addresses; the last ones, for a minute, where a lookup takes long or fails.

        Raises:
            socket.gaierror: there is no such name, or no answer.
        """
        answer = self._answers.get(name)
        if answer is not None and answer.until > time.monotonic():
            return answer.addresses
        lookup = self._lookups.get(name) or self._start(name)
        if answer is None:
            return await asyncio.shield(lookup.task)
        left = lookup.began + _PATIENCE_SECONDS - time.monotonic()
        done, _ = await asyncio.wait([lookup.task], timeout=max(0.0, left))
        if done and (lookup.task.exception() is None or self._answers.get(name) is None):
            return lookup.task.result()
        return answer.addresses

    def doubt(self, name: Name) -> None:
        """Look the name up again when it is asked for next."""
        answer = self._answers.get(name)
        if answer is not None:
            answer.until = 0.0

    def looking_up(self, name: Name) -> bool:
        """Whether a lookup of the name is under way."""
        return name in self._lookups

    def _start(self, name: Name) -> _Lookup:
        task = asyncio.create_task(self._look_up(name))
        lookup = self._lookups[name] = _Lookup(task, time.monotonic())

        def over(task: asyncio.Task[tuple[str, ...]]) -> None:
            self._lookups.pop(name, None)
            if not task.cancelled():
                task.exception()  # it is no fault of ours if all who waited have left

        task.add_done_callback(over)
        return lookup

    async def _look_up(self, name: Name) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                addresses = tuple(dict.fromkeys(await self._resolve(*name)))
        except TimeoutError:
            raise socket.gaierror(socket.EAI_AGAIN, f"no answer within {_LOOKUP_SECONDS:g} s") from None
        except socket.gaierror as error:
            if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
                self._answers.forget(name)
            raise
        if not addresses:
            raise socket.gaierror(socket.EAI_NODATA, "the name has no address")
        self._answers.put(name, _Answer(addresses, time.monotonic() + _DNS_SECONDS))
        return addresses


class SystemResolver:
    """Asks the system, as it is configured (in a Swarm: the engine's own name server), each name in a thread.

    A thread has a name until the library gives up, so names wait for a thread when all are taken. Those that hung the
    last time have threads of their own to wait for. The threads are daemons: the process can end while they hang.
    """

    def __init__(self, getaddrinfo: Callable[..., Any] = socket.getaddrinfo) -> None:
        """Ask ``getaddrinfo``, which may block."""
        self._getaddrinfo = getaddrinfo
        self._busy = set[Name]()
        self._hung = Recent[Name, bool](60.0)
        self._threads = asyncio.Semaphore(_THREADS)
        self._threads_of_hung = asyncio.Semaphore(_THREADS_OF_HUNG)

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
        threads = self._threads_of_hung if self._hung.get(name) else self._threads
        await threads.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[str]] = loop.create_future()

        def ask() -> None:
            began = time.monotonic()
            found = self._ask(name)
            hung = time.monotonic() - began > _HANGS_SECONDS
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(over, found, hung)

        def over(found: Sequence[str] | socket.gaierror, hung: bool) -> None:
            threads.release()
            self._busy.discard(name)
            if hung:
                self._hung.put(name, True)
            else:
                self._hung.forget(name)
            if answer.done():  # nobody waits any more
                return
            if isinstance(found, socket.gaierror):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        self._busy.add(name)
        try:
            threading.Thread(target=ask, name=f"lookup {host}", daemon=True).start()
        except RuntimeError as error:  # the system allows no more
            over(socket.gaierror(socket.EAI_AGAIN, str(error)), hung=False)
        return await answer

    def _ask(self, name: Name) -> Sequence[str] | socket.gaierror:
        try:
            return [str(item[4][0]) for item in self._getaddrinfo(*name, type=socket.SOCK_STREAM)]
        except socket.gaierror as error:
            return error
        except Exception as error:  # noqa: BLE001 - ValueError for what can be no name ("a..b"); the caller waits
            code = socket.EAI_NONAME if isinstance(error, ValueError) else socket.EAI_AGAIN
            return socket.gaierror(code, f"{type(error).__name__}: {error}")
