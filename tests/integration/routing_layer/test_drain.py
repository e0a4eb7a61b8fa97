"""Stopping: who is still served, how streams end, and what several processes on one port do."""

from __future__ import annotations

import asyncio

import pytest

from tests.harness.coroutines import until
from tests.integration.routing_layer.proxy_system import Connection, ProxySystem, Response, start_system

_EVENT_SOURCE = "Accept: text/event-stream"
_ALL = ("/asset_stream?asset_uuid=A1", "/group/Paint/asset_stream", "/asset_state?asset_uuid=A1")


async def _state(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


async def _told_to_stop(system: ProxySystem) -> int:
    """Send SIGTERM, and return the status with which `/readyz` says so, on a connection that was there before."""
    held = await system.proxy.get("/readyz")
    system.proxy.terminate()
    while held.status == 200:
        await held.rest()
        held.writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        held = Response(held.reader, held.writer, await held.reader.readuntil(b"\r\n\r\n"))
    return held.status


async def _never(_connection: Connection) -> None:
    return


async def test_sigterm_ends_every_stream_cleanly_and_exits_with_0() -> None:
    """Each client gets a whole response and a time to come back, not the same for all."""
    async with start_system(DRAIN_SECONDS="2") as system:
        clients = [await system.stream("A1") for _ in range(40)]
        system.proxy.terminate()
        for client in clients:
            await client.rest()
            assert client.complete
        assert await system.proxy.exit_code() == 0
        assert len({client.retry for client in clients}) > 10


async def test_after_sigterm_no_client_is_accepted() -> None:
    """The port is closed while the last streams still end."""
    async with start_system(DRAIN_SECONDS="10") as system:
        client, last = await system.stream("A1"), await system.stream("A1")
        system.proxy.terminate()
        await system.proxy.closed()
        assert system.weld.open
        await asyncio.gather(client.rest(), last.rest())
        assert await system.proxy.exit_code() == 0


async def test_who_gets_through_before_the_port_is_closed_is_served() -> None:
    """`/readyz` says 503 first; a browser, which would not come back after a 503, gets a stream that ends as all do."""
    for _ in range(10):  # the port is open for half a second: less than a busy machine may take to ask
        async with start_system(state=_state, DRAIN_SECONDS="2") as system:
            try:
                assert await _told_to_stop(system) == 503
                asset, group, state = await asyncio.gather(*map(system.proxy.get, _ALL))
            except (ConnectionError, asyncio.IncompleteReadError):
                continue
            assert [answer.status for answer in (asset, group, state)] == [200, 200, 200]
            assert [answer.header("Connection") for answer in (asset, group, state)] == ["close", "close", "close"]
            assert await state.rest() == b"{}"
            for stream in (asset, group):
                await stream.rest()
                assert stream.complete
                assert stream.retry is not None
            assert await system.proxy.exit_code() == 0
            return
    pytest.fail("no request got through")


async def test_what_was_asked_for_is_answered_after_the_port_is_closed() -> None:
    """An asset's state that takes its time, and an event source that was held while its service was replaced."""
    proceed = asyncio.Event()

    async def late(connection: Connection) -> None:
        await proceed.wait()
        await _state(connection)

    async with start_system(state=late, DRAIN_SECONDS="10") as system:
        (await system.stream("A1")).leave()
        await system.weld.stop()
        stream, state = [
            await system.proxy.ask(target, _EVENT_SOURCE)
            for target in ("/asset_stream?asset_uuid=A1", "/asset_state?asset_uuid=A1")
        ]
        await until(lambda: bool(system.state.connections), "the state is asked for")
        system.proxy.terminate()
        await system.proxy.closed()
        proceed.set()
        await system.weld.start()
        assert await (await state.head()).rest() == b"{}"
        served = await stream.head()
        assert served.status == 200
        await served.rest()
        assert served.complete
        assert served.retry is not None
        assert await system.proxy.exit_code() == 0


async def test_a_stream_that_never_began_is_cut_without_an_answer() -> None:
    """An event source comes back after a broken connection, and never after an error."""
    async with start_system(DRAIN_SECONDS="1") as system:
        system.weld.answer = _never
        asked = await system.proxy.ask("/asset_stream?asset_uuid=A1", _EVENT_SOURCE)
        await until(lambda: bool(system.weld.connections), "the service is asked")
        system.proxy.terminate()
        with pytest.raises(asyncio.IncompleteReadError) as cut:
            await asked.head()
        assert cut.value.partial == b""
        assert await system.proxy.exit_code() == 0


async def test_no_connection_stays_open_for_a_request_that_would_not_be_served() -> None:
    """Idle ones are closed with the port, a stream's with its end, while other streams still go on."""
    async with start_system(DRAIN_SECONDS="10") as system:
        clients = [await system.stream("A1") for _ in range(4)]
        idle = await system.proxy.get("/healthz")
        await idle.rest()
        system.proxy.terminate()
        assert await idle.reader.read() == b""
        assert system.weld.open
        ended, others = await asyncio.wait(
            [asyncio.create_task(_rest(client)) for client in clients], return_when=asyncio.FIRST_COMPLETED
        )
        assert await (await ended.pop()).reader.read() == b""
        assert system.weld.open
        for other in others:
            other.cancel()
        for client in clients:
            client.leave()
        assert await system.proxy.exit_code() == 0


async def _rest(client: Response) -> Response:
    await client.rest()
    return client


async def test_workers_share_the_port_and_stop_together() -> None:
    """Two processes serve; SIGTERM to the parent drains both."""
    async with start_system(ROUTING_LAYER_WORKERS="2", DRAIN_SECONDS="1") as system:
        await until(lambda: system.ksql.watchers == 2)
        for _ in range(10):
            await system.proxy.wait_ready()
        clients = [await system.stream("A1") for _ in range(20)]
        system.proxy.terminate()
        for client in clients:
            await client.rest()
        assert await system.proxy.exit_code() == 0


async def test_each_worker_spreads_the_ends_of_its_streams() -> None:
    """There is a time at which half of each worker's streams have ended and some still go on."""
    async with start_system(ROUTING_LAYER_WORKERS="2", DRAIN_SECONDS="20") as system:
        await until(lambda: system.ksql.watchers == 2)
        before = system.proxy.descriptors_of_each()[1:]

        def each() -> list[int]:
            """How many streams each worker has: a stream is two descriptors."""
            now = system.proxy.descriptors_of_each()[1:]
            return [(many - few) // 2 for many, few in zip(now, before, strict=True)]

        clients: list[Response] = []
        while min(each()) < 10:
            assert len(clients) < 1000, f"one worker takes them all: {each()}"
            clients.append(await system.stream("A1"))
        most = each()
        system.proxy.terminate()
        await until(
            lambda: all(2 < now <= had // 2 for now, had in zip(each(), most, strict=True)), "both are half way"
        )
        for client in clients:
            client.leave()
        assert await system.proxy.exit_code() == 0
