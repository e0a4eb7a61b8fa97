"""Stopping, and several processes on one port."""

from __future__ import annotations

import asyncio
import contextlib

from tests.routing.world import Response, until, world


async def test_sigterm_ends_every_stream_cleanly_and_exits_with_0() -> None:
    """Not ready first; each client gets a whole response and a time to come back, not the same for all."""
    async with world(DRAIN_SECONDS="2") as around:
        clients = [await around.stream("A1") for _ in range(40)]
        held = await around.proxy.get("/readyz")
        around.proxy.terminate()
        while held.status == 200:
            await held.rest()
            held.writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            held = Response(held.reader, held.writer, await held.reader.readuntil(b"\r\n\r\n"))
        assert held.status == 503
        for client in clients:
            await client.rest()
            assert client.complete
        assert await around.proxy.exit_code() == 0
        assert len({client.retry for client in clients}) > 10


async def test_after_sigterm_nobody_is_accepted() -> None:
    """The port is closed while the last streams still end."""
    async with world(DRAIN_SECONDS="3") as around:
        client, last = await around.stream("A1"), await around.stream("A1")
        around.proxy.terminate()
        refused = False
        while not refused:
            with contextlib.suppress(TimeoutError):
                try:
                    (await around.proxy.get("/healthz")).leave()
                except (ConnectionError, asyncio.IncompleteReadError):
                    refused = True
        await asyncio.gather(client.rest(), last.rest())
        assert await around.proxy.exit_code() == 0


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
