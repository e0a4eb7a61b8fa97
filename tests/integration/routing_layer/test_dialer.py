"""Names with several addresses, as a Swarm's DNS answers them: on real sockets, one loopback address a task."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence

import pytest

from routing_layer.problems import Problem
from routing_layer.upstream.dialer import Dialer, Target
from tests.harness.ports import free_port

_FIRST, _SECOND, _THIRD = "127.0.0.2", "127.0.0.3", "127.0.0.4"


class Names:
    """The name server of a Swarm: answers a service's tasks, which change.

    Attributes:
        tasks: addresses of the service now; empty: its name is gone.
        asked: how many lookups there were.
    """

    def __init__(self, *tasks: str) -> None:
        """Start with these tasks."""
        self.tasks: Sequence[str] = tasks
        self.asked = 0

    async def __call__(self, _host: str, _port: int) -> Sequence[str]:
        """Answer a lookup."""
        self.asked += 1
        await asyncio.sleep(0)
        if not self.tasks:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.tasks


class Tasks:
    """Tasks of one service: each listens on an address of its own, all on one port."""

    def __init__(self) -> None:
        """Start with none."""
        self.port = free_port()
        self._servers: dict[str, asyncio.Server] = {}

    async def start(self, *addresses: str) -> None:
        """Start tasks."""
        for address in addresses:
            self._servers[address] = await asyncio.start_server(self._accept, address, self.port)

    async def stop(self, *addresses: str) -> None:
        """Stop tasks: their addresses refuse from now on."""
        for address in addresses:
            server = self._servers.pop(address)
            server.close()
            await server.wait_closed()

    @property
    def target(self) -> Target:
        """The service by its name."""
        return Target.parse(f"http://ofa_group_weld:{self.port}/asset_stream")

    @staticmethod
    async def _accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()


@contextlib.asynccontextmanager
async def tasks(*addresses: str) -> AsyncIterator[Tasks]:
    """Start tasks, and end all that there are."""
    made = Tasks()
    await made.start(*addresses)
    try:
        yield made
    finally:
        await made.stop(*made._servers)


async def _connect(dialer: Dialer, service: Tasks, times: int) -> list[str]:
    """Connect several times; return where to."""
    found = []
    for _ in range(times):
        connection = await dialer.connect(service.target)
        assert connection.transport is not None
        found.append(connection.transport.get_extra_info("peername")[0])
        connection.abort()
    return found


async def test_all_tasks_get_their_share() -> None:
    """Connections go round the addresses of the name."""
    async with tasks(_FIRST, _SECOND) as service:
        found = await _connect(Dialer(2.0, 1.0, Names(_FIRST, _SECOND)), service, 6)
        assert sorted(found) == [_FIRST] * 3 + [_SECOND] * 3


async def test_one_of_two_tasks_refuses() -> None:
    """Every connection is made, over the other address."""
    async with tasks(_SECOND) as service:
        found = await _connect(Dialer(2.0, 1.0, Names(_FIRST, _SECOND)), service, 6)
        assert found == [_SECOND] * 6


async def test_a_replaced_task_is_found_by_a_fresh_lookup() -> None:
    """The remembered address refuses: the name is looked up again, at once, and the new task is reached."""
    async with tasks(_FIRST) as service:
        names = Names(_FIRST)
        dialer = Dialer(2.0, 1.0, names)
        assert await _connect(dialer, service, 2) == [_FIRST] * 2
        assert names.asked == 1
        await service.stop(_FIRST)
        await service.start(_THIRD)
        names.tasks = (_THIRD,)
        connection = await dialer.connect(service.target)
        assert connection.retried
        connection.abort()
        assert await _connect(dialer, service, 1) == [_THIRD]
        assert names.asked == 2


async def test_forgotten_addresses_are_not_used_again() -> None:
    """Another service answers at the remembered address: the next connection waits for a new lookup."""
    async with tasks(_FIRST, _SECOND) as service:
        names = Names(_FIRST)
        dialer = Dialer(2.0, 1.0, names)
        assert await _connect(dialer, service, 1) == [_FIRST]
        names.tasks = (_SECOND,)
        dialer.forget_addresses(service.target)
        assert await _connect(dialer, service, 1) == [_SECOND]


async def test_a_refused_connection_is_tried_once_more_and_not_for_ever() -> None:
    """No task listens: two lookups, then 502."""
    async with tasks() as service:
        names = Names(_FIRST, _SECOND, _THIRD)
        with pytest.raises(Problem, match="cannot connect") as refused:
            await _connect(Dialer(2.0, 1.0, names), service, 1)
        assert (refused.value.type.status, names.asked) == (502, 2)


async def test_a_name_that_is_gone_is_a_502_at_once() -> None:
    """One lookup and no wait: also when it was there a moment ago and its task refuses now."""
    async with tasks(_FIRST) as service:
        names = Names()
        with pytest.raises(Problem, match="does not resolve") as gone:
            await _connect(Dialer(2.0, 1.0, names), service, 1)
        assert (gone.value.type.status, names.asked) == (502, 1)
        names.tasks = (_FIRST,)
        dialer = Dialer(2.0, 1.0, names)
        await _connect(dialer, service, 1)
        await service.stop(_FIRST)
        names.tasks = ()
        with pytest.raises(Problem, match="does not resolve"):
            await _connect(dialer, service, 1)


async def test_many_who_come_at_once_share_one_lookup() -> None:
    """A storm of clients is not a storm at the name server."""
    async with tasks(_FIRST) as service:
        names = Names(_FIRST)
        dialer = Dialer(2.0, 1.0, names)
        await asyncio.gather(*(_connect(dialer, service, 1) for _ in range(100)))
        assert names.asked == 1
