"""Names without an answer: they block no others, and the last addresses serve until then."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from routing_layer.problems import Problem
from routing_layer.upstream import resolver
from routing_layer.upstream.dialer import Dialer, Target
from routing_layer.upstream.resolver import AddressCache, SystemResolver
from tests.harness.coroutines import until
from tests.integration.routing_layer.test_dialer import Names, tasks

_HOST = "127.0.0.2"


class Library:
    """The C library's lookup, which blocks its thread: names that begin with ``hang`` have no answer until released.

    Attributes:
        hanging: how many threads hang now.
        asked: every name that was asked for.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.hanging = 0
        self.asked: list[str] = []
        self._go = threading.Event()

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        """Look a name up."""
        self.asked.append(host)
        if host.startswith("hang"):
            self.hanging += 1
            self._go.wait()
            self.hanging -= 1
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if ".." in host:
            host.encode("idna")
        return socket.getaddrinfo(_HOST, port, type=socket.SOCK_STREAM)

    def release(self) -> None:
        """Let all of them fail."""
        self._go.set()

    def hang(self) -> None:
        """Hang again."""
        self._go.clear()


@pytest.fixture
def library() -> Iterator[Library]:
    """One, whose threads end with the test."""
    made = Library()
    yield made
    made.release()


async def _connects(dialer: Dialer, target: Target) -> bool:
    try:
        (await dialer.connect(target)).abort()
    except Problem:
        return False
    return True


async def test_names_that_hang_do_not_stop_others(library: Library) -> None:
    """100 names hang, each looked up again and again: one thread each, and every other name is found."""
    async with tasks(_HOST) as service:
        dialer = Dialer(20.0, 1.0, SystemResolver(library))
        hanging = [Target(f"hang{number}", service.port, "/") for number in range(100)]
        stuck = [asyncio.create_task(_connects(dialer, target)) for target in hanging * 2]
        await until(lambda: library.hanging == len(hanging))
        others = [Target(f"group{number}", service.port, "/") for number in range(100)]
        assert all(await asyncio.gather(*(_connects(dialer, target) for target in others)))
        assert not any(task.done() for task in stuck)
        assert len(library.asked) == len(hanging) + len(others)
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)


async def test_names_that_hung_leave_room(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many hang: their threads are bounded, and once they are known they take none of the others'."""
    monkeypatch.setattr(resolver, "_THREADS", 8)
    monkeypatch.setattr(resolver, "_THREADS_OF_SLOW", 4)
    monkeypatch.setattr(resolver, "_HANGS_SECONDS", 0.3)
    resolve = SystemResolver(library)

    async def ask(host: str, limit: float = 0.2) -> str:
        try:
            async with asyncio.timeout(limit):
                return str((await resolve(host, 1))[0])
        except TimeoutError:
            return "hangs"
        except socket.gaierror as error:
            return str(error.strerror)

    hosts = [f"hang{number}" for number in range(8)]
    assert await asyncio.gather(*map(ask, hosts)) == ["hangs"] * 8
    assert await ask("hang0") == "the last lookup still hangs"
    assert await ask("group") == "hangs", "no thread is left this once"
    library.release()
    await until(lambda: not library.hanging)
    assert await ask("group", 20) == _HOST
    library.hang()
    assert await asyncio.gather(*map(ask, hosts)) == ["hangs"] * 8
    assert library.hanging == 4
    assert await ask("another group", 20) == _HOST


async def test_an_old_answer_serves_while_the_next_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lookup that hangs or fails for a time leaves the last addresses in use, for a minute; one that is gone not."""
    monkeypatch.setattr(resolver, "_FRESH_SECONDS", 0.0)
    names = Names(_HOST)
    go = asyncio.Event()
    outcome: Exception | None = None

    async def resolve(host: str, port: int) -> Sequence[str]:
        if names.asked and not go.is_set():
            names.asked += 1
            await go.wait()
        if outcome is not None:
            raise outcome
        return await names(host, port)

    addresses = AddressCache(resolve)
    assert await addresses.get(("a", 1)) == (_HOST,)
    for _ in range(5):
        assert await addresses.get(("a", 1)) == (_HOST,)
    assert names.asked == 2, "one lookup a name"
    outcome = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    go.set()
    assert await addresses.get(("a", 1)) == (_HOST,)
    outcome = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    for _ in range(2):
        with pytest.raises(socket.gaierror, match="not known"):
            await addresses.get(("a", 1))
    outcome = None
    assert await addresses.get(("a", 1)) == (_HOST,)


async def test_an_answer_is_not_used_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time an old address may be another service's: no answer is better."""
    monkeypatch.setattr(resolver, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(resolver, "_STALE_SECONDS", 0.05)
    monkeypatch.setattr(resolver, "_LOOKUP_SECONDS", 0.2)
    first = True

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        if not first:
            await asyncio.Event().wait()
        return [_HOST]

    addresses = AddressCache(resolve)
    await addresses.get(("a", 1))
    first = False
    await asyncio.sleep(0.1)
    with pytest.raises(socket.gaierror, match="no answer within"):
        await addresses.get(("a", 1))


async def test_a_refused_address_is_replaced_although_the_lookup_hangs() -> None:
    """The fresh lookup that follows a refusal is not waited for longer than there is another address."""
    async with tasks("127.0.0.3") as service:
        asked = 0

        async def resolve(_host: str, _port: int) -> Sequence[str]:
            nonlocal asked
            asked += 1
            if asked > 1:
                await asyncio.Event().wait()
            return [_HOST, "127.0.0.3"]

        dialer = Dialer(2.0, 1.0, resolve)
        for _ in range(4):
            assert await _connects(dialer, service.target)


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "\udcff", "a\x00b"])
async def test_what_can_be_no_name_does_not_resolve(host: str) -> None:
    """The library refuses it with errors of its own; clients get a 502, the lookup of others goes on."""
    dialer = Dialer(2.0, 1.0)
    with pytest.raises(Problem, match="does not resolve") as refused:
        await dialer.connect(Target(host, 1, "/"))
    assert refused.value.detail == "the service cannot be reached"


async def test_a_name_without_an_address_does_not_resolve() -> None:
    """An empty answer is a 502 like any other that leads nowhere."""

    async def nothing(_host: str, _port: int) -> Sequence[str]:
        return ()

    with pytest.raises(Problem, match="no address"):
        await Dialer(2.0, 1.0, nothing).connect(Target("a", 1, "/"))


async def test_the_system_is_asked() -> None:
    """Names of the hosts file, and addresses, which need no lookup."""
    resolve = SystemResolver()
    assert set(await resolve("localhost", 1)) <= {"127.0.0.1", "::1"}
    never = SystemResolver(lambda *_, **__: pytest.fail("an address was looked up"))
    assert [await never(host, 1) for host in ("127.0.0.1", "::1")] == [["127.0.0.1"], ["::1"]]
