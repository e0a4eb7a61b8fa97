"""Clients that close their half of the connection after the request, as ``printf … | nc -N`` does."""

from __future__ import annotations

import asyncio

from tests.harness.coroutines import PATIENCE, until
from tests.integration.routing_layer.proxy_system import HEAD, Connection, Proxy, Response, Service, start_system

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
    async with start_system(state=_state) as system:
        for target, body in _ANSWERS.items():
            reader, writer = await _half(system.proxy, target)
            async with asyncio.timeout(PATIENCE):
                assert body in await reader.read(), target
            writer.close()
        reader, writer = await _half(system.proxy, "/asset_state?asset_uuid=A1", "/healthz", "/nothing")
        async with asyncio.timeout(PATIENCE):
            answers = await reader.read()
        assert answers.count(b"HTTP/1.1 ") == 3
        assert answers.index(_STATE) < answers.index(b'"alive"') < answers.index(b"unknown-path")
        writer.close()


def _answer_later(service: Service) -> asyncio.Event:
    """Let the service send the head of a stream when the event is set."""
    proceed = asyncio.Event()

    async def answer(connection: Connection) -> None:
        await proceed.wait()
        await connection.send(HEAD)

    service.answer = answer
    return proceed


async def test_a_stream_is_served_to_a_client_that_sends_no_more() -> None:
    """Its events come; when it has left, its service is free, although the service says nothing."""
    async with start_system() as system:
        proceed = _answer_later(system.weld)
        reader, writer = await _half(system.proxy, "/asset_stream?asset_uuid=A1")
        await until(lambda: bool(system.weld.connections), "the service is asked")
        proceed.set()
        client = Response(reader, writer, await reader.readuntil(b"\r\n\r\n"))
        await system.weld.open[0].event("one")
        assert (await client.event()).data == "one"
        await system.weld.open[0].event("two")
        assert (await client.event()).data == "two"
        client.leave()
        await system.weld.open[0].event("three")
        await until(lambda: not system.weld.open, "the service is free")


async def test_a_client_that_left_before_its_answer_is_found_out() -> None:
    """A closed connection looks half-closed until something is sent: it does not keep a silent service."""
    async with start_system() as system:
        proceed = _answer_later(system.weld)
        asked = await system.proxy.ask("/asset_stream?asset_uuid=A1")
        await until(lambda: bool(system.weld.connections), "the service is asked")
        asked.writer.close()
        await asyncio.sleep(0.1)
        proceed.set()
        await until(lambda: not system.weld.open, "the service is free")


async def test_half_a_head_that_ends_is_no_request() -> None:
    """The connection is closed, and the next client is served."""
    async with start_system() as system:
        reader, writer = await asyncio.open_connection("127.0.0.1", system.proxy.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHos")
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
        writer.close()
        await system.stream("A1")
