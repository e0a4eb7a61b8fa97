"""Clients that close their half of the connection after the request, as ``printf … | nc -N`` does."""

from __future__ import annotations

import asyncio

from tests.routing.world import PATIENCE, Connection, Proxy, Response, until, world

_STATE = b'{"state": 1}'


async def _state(connection: Connection) -> None:
    await asyncio.sleep(0.2)
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(_STATE), _STATE))


async def _half(proxy: Proxy, *targets: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask and say that nothing more will come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write("".join(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n" for target in targets).encode())
    writer.write_eof()
    return reader, writer


_ANSWERS = {
    "/healthz": b'"alive"',
    "/metrics": b"routing_layer_streams",
    "/asset_state?asset_uuid=A1": _STATE,
    "/nothing": b"unknown-path",
    "/asset_stream?asset_uuid=nope": b"unknown-asset",
}


async def test_an_answer_reaches_a_client_that_sends_no_more() -> None:
    """Whole, of each of several requests, and the connection ends with it."""
    async with world(state=_state) as around:
        for target, body in _ANSWERS.items():
            reader, writer = await _half(around.proxy, target)
            async with asyncio.timeout(PATIENCE):
                assert body in await reader.read(), target
            writer.close()
        reader, writer = await _half(around.proxy, "/asset_state?asset_uuid=A1", "/healthz", "/nothing")
        async with asyncio.timeout(PATIENCE):
            answers = await reader.read()
        assert answers.count(b"HTTP/1.1 ") == 3
        assert answers.index(_STATE) < answers.index(b'"alive"') < answers.index(b"unknown-path")
        writer.close()


async def test_a_stream_is_served_to_a_client_that_sends_no_more() -> None:
    """Its events come; when it has left, its service is free, although the service says nothing."""
    proceed = asyncio.Event()

    async def late(connection: Connection) -> None:
        await proceed.wait()
        await connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )

    async with world() as around:
        around.weld.answer = late
        reader, writer = await _half(around.proxy, "/asset_stream?asset_uuid=A1")
        await until(lambda: bool(around.weld.connections), "the service is asked")
        proceed.set()
        client = Response(reader, writer, await reader.readuntil(b"\r\n\r\n"))
        await around.weld.open[0].event("one")
        assert (await client.event()).data == "one"
        await around.weld.open[0].event("two")
        assert (await client.event()).data == "two"
        client.leave()
        await around.weld.open[0].event("three")
        await until(lambda: not around.weld.open, "the service is free")


async def test_a_client_that_left_before_its_answer_is_found_out() -> None:
    """A closed connection looks half-closed until something is sent: it does not keep a silent service."""
    proceed = asyncio.Event()

    async def late(connection: Connection) -> None:
        await proceed.wait()
        await connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )

    async with world() as around:
        around.weld.answer = late
        asked = await around.proxy.ask("/asset_stream?asset_uuid=A1")
        await until(lambda: bool(around.weld.connections), "the service is asked")
        asked.writer.close()
        await asyncio.sleep(0.1)
        proceed.set()
        await until(lambda: not around.weld.open, "the service is free")


async def test_half_a_head_that_ends_is_no_request() -> None:
    """The connection is closed, and the next client is served."""
    async with world() as around:
        reader, writer = await asyncio.open_connection("127.0.0.1", around.proxy.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHos")
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
        writer.close()
        await around.stream("A1")
