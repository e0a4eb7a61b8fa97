"""Stopping: who is still served, how streams end, and what several processes on one port do."""

from __future__ import annotations

import asyncio

import pytest

from tests.routing.world import Connection, Response, World, until, world

_EVENT_SOURCE = "Accept: text/event-stream"
_ALL = ("/asset_stream?asset_uuid=A1", "/group/Paint/asset_stream", "/asset_state?asset_uuid=A1")


async def _state(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


async def _told_to_stop(around: World) -> int:
    """Send SIGTERM, and return the status with which `/readyz` says so, on a connection that was there before."""
    held = await around.proxy.get("/readyz")
    around.proxy.terminate()
    while held.status == 200:
        await held.rest()
        held.writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        held = Response(held.reader, held.writer, await held.reader.readuntil(b"\r\n\r\n"))
    return held.status


async def _never(_connection: Connection) -> None:
    return


async def test_sigterm_ends_every_stream_cleanly_and_exits_with_0() -> None:
    """Each client gets a whole response and a time to come back, not the same for all."""
    async with world(DRAIN_SECONDS="2") as around:
        clients = [await around.stream("A1") for _ in range(40)]
        around.proxy.terminate()
        for client in clients:
            await client.rest()
            assert client.complete
        assert await around.proxy.exit_code() == 0
        assert len({client.retry for client in clients}) > 10


async def test_after_sigterm_nobody_is_accepted() -> None:
    """The port is closed while the last streams still end."""
    async with world(DRAIN_SECONDS="10") as around:
        client, last = await around.stream("A1"), await around.stream("A1")
        around.proxy.terminate()
        await around.proxy.closed()
        assert around.weld.open
        await asyncio.gather(client.rest(), last.rest())
        assert await around.proxy.exit_code() == 0


async def test_who_gets_through_before_the_port_is_closed_is_served() -> None:
    """`/readyz` says 503 first; a browser, whom a 503 would end for good, gets its stream, and that ends as all do."""
    for _ in range(10):  # the port is open for half a second: less than a busy machine may take to ask
        async with world(state=_state, DRAIN_SECONDS="2") as around:
            try:
                assert await _told_to_stop(around) == 503
                asset, group, state = await asyncio.gather(*map(around.proxy.get, _ALL))
            except (ConnectionError, asyncio.IncompleteReadError):
                continue
            assert [answer.status for answer in (asset, group, state)] == [200, 200, 200]
            assert [answer.header("Connection") for answer in (asset, group, state)] == ["close", "close", "close"]
            assert await state.rest() == b"{}"
            for stream in (asset, group):
                await stream.rest()
                assert stream.complete
                assert stream.retry is not None
            assert await around.proxy.exit_code() == 0
            return
    pytest.fail("nobody got through")


async def test_what_was_asked_for_is_answered_after_the_port_is_closed() -> None:
    """An asset's state that takes its time, and an event source that was held while its service was replaced."""
    proceed = asyncio.Event()

    async def late(connection: Connection) -> None:
        await proceed.wait()
        await _state(connection)

    async with world(state=late, DRAIN_SECONDS="10") as around:
        (await around.stream("A1")).leave()
        await around.weld.stop()
        stream, state = [
            await around.proxy.ask(target, _EVENT_SOURCE)
            for target in ("/asset_stream?asset_uuid=A1", "/asset_state?asset_uuid=A1")
        ]
        await until(lambda: bool(around.state.connections), "the state is asked for")
        around.proxy.terminate()
        await around.proxy.closed()
        proceed.set()
        await around.weld.start()
        assert await (await state.head()).rest() == b"{}"
        served = await stream.head()
        assert served.status == 200
        await served.rest()
        assert served.complete
        assert served.retry is not None
        assert await around.proxy.exit_code() == 0


async def test_a_stream_that_never_began_is_cut_without_an_answer() -> None:
    """An event source comes back after a broken connection, and never after an error."""
    async with world(DRAIN_SECONDS="1") as around:
        around.weld.answer = _never
        asked = await around.proxy.ask("/asset_stream?asset_uuid=A1", _EVENT_SOURCE)
        await until(lambda: bool(around.weld.connections), "the service is asked")
        around.proxy.terminate()
        with pytest.raises(asyncio.IncompleteReadError) as cut:
            await asked.head()
        assert cut.value.partial == b""
        assert await around.proxy.exit_code() == 0


async def test_no_connection_stays_open_for_a_request_that_would_not_be_served() -> None:
    """Idle ones are closed with the port, a stream's with its end, while other streams still go on."""
    async with world(DRAIN_SECONDS="10") as around:
        clients = [await around.stream("A1") for _ in range(4)]
        idle = await around.proxy.get("/healthz")
        await idle.rest()
        around.proxy.terminate()
        assert await idle.reader.read() == b""
        assert around.weld.open
        ended, others = await asyncio.wait(
            [asyncio.create_task(_rest(client)) for client in clients], return_when=asyncio.FIRST_COMPLETED
        )
        assert await (await ended.pop()).reader.read() == b""
        assert around.weld.open
        for other in others:
            other.cancel()
        for client in clients:
            client.leave()
        assert await around.proxy.exit_code() == 0


async def _rest(client: Response) -> Response:
    await client.rest()
    return client


async def test_workers_share_the_port_and_stop_together() -> None:
    """Two processes serve; SIGTERM to the parent drains both."""
    async with world(ROUTING_LAYER_WORKERS="2", DRAIN_SECONDS="1") as around:
        await until(lambda: around.ksql.watchers == 2)
        for _ in range(10):
            await around.proxy.wait_ready()
        clients = [await around.stream("A1") for _ in range(20)]
        around.proxy.terminate()
        for client in clients:
            await client.rest()
        assert await around.proxy.exit_code() == 0


async def test_each_worker_spreads_the_ends_of_its_streams() -> None:
    """There is a time at which half of each worker's streams have ended and some still go on."""
    async with world(ROUTING_LAYER_WORKERS="2", DRAIN_SECONDS="20") as around:
        await until(lambda: around.ksql.watchers == 2)
        before = around.proxy.descriptors_of_each()[1:]

        def each() -> list[int]:
            """How many streams each worker has: a stream is two descriptors."""
            now = around.proxy.descriptors_of_each()[1:]
            return [(many - few) // 2 for many, few in zip(now, before, strict=True)]

        clients: list[Response] = []
        while min(each()) < 10:
            assert len(clients) < 1000, f"one worker takes them all: {each()}"
            clients.append(await around.stream("A1"))
        most = each()
        around.proxy.terminate()
        await until(
            lambda: all(2 < now <= had // 2 for now, had in zip(each(), most, strict=True)), "both are half way"
        )
        for client in clients:
            client.leave()
        assert await around.proxy.exit_code() == 0
