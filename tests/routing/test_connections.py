"""Clients that only hold connections: their time is limited, and the others, and the proxy itself, are served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from tests.routing.world import PATIENCE, Asked, Connection, Proxy, Response, World, until, world

_LIMIT = 300
_HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


async def _state(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


async def _connect(proxy: Proxy, data: bytes = b"", *, source: str = "127.0.0.1") -> Asked:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, local_addr=(source, 0))
    writer.write(data)
    return Asked(reader, writer)


async def _rest(client: Asked) -> bytes:
    async with asyncio.timeout(PATIENCE):
        return await client.reader.read()


async def test_a_head_has_its_time() -> None:
    """Silence ends without a word; half a head, whole or byte by byte, with 408, also after an earlier request."""
    async with world(CLIENT_HEAD_TIMEOUT="1") as around:
        client = await around.stream("A1")
        silent = await _connect(around.proxy)
        assert await _rest(silent) == b""
        half = await _connect(around.proxy, _HEAD)
        second = await _connect(around.proxy, _HEAD + b"\r\n" + _HEAD)
        dripping = await _connect(around.proxy, _HEAD)
        drips = asyncio.create_task(_drip(dripping.writer))
        assert (await _rest(dripping)).startswith(b"HTTP/1.1 408 ")
        drips.cancel()
        told = await _rest(half)
        head, _, body = told.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["type"] == "urn:openfactory:routing-layer:late-request"
        assert re.findall(rb"HTTP/1\.1 (\d+)", await _rest(second)) == [b"200", b"408"]
        await around.weld.open[0].event("a stream has no head to wait for")
        assert (await client.event()).data == "a stream has no head to wait for"
        ended = await around.proxy.metrics()
        assert ended['routing_layer_connections_ended_total{reason="head_timeout"}'] >= 3


async def _drip(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b"X")
            await asyncio.sleep(0.1)


async def test_an_idle_connection_has_its_time() -> None:
    """It ends after the limit; one that asks again does not, nor one that only begins with its next request."""
    async with world(state=_state, CLIENT_IDLE_TIMEOUT="1s", CLIENT_HEAD_TIMEOUT="600") as around:
        idle = await _connect(around.proxy, _HEAD + b"\r\n")
        busy = await around.proxy.get("/asset_state?asset_uuid=A1")
        for _ in range(8):
            await busy.rest()
            await asyncio.sleep(0.25)
            busy.writer.write(b"GET /asset_state?asset_uuid=A1 HTTP/1.1\r\nHost: x\r\n\r\n")
            busy = Response(busy.reader, busy.writer, await busy.reader.readuntil(b"\r\n\r\n"))
        assert b'"alive"' in await _rest(idle)


async def test_a_client_that_takes_nothing_does_not_stay() -> None:
    """It asks for more than the kernel keeps and reads nothing: its connection ends."""
    async with world(IDLE_TIMEOUT="1") as around:
        writer = (await _connect(around.proxy)).writer
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                while True:
                    writer.write((_HEAD + b"\r\n").replace(b"/healthz", b"/metrics") * 100)
                    await asyncio.sleep(0.05)
                    if writer.transport.is_closing():
                        break
        await around.proxy.wait_metric('routing_layer_connections_ended_total{reason="write_timeout"}', 1)


async def test_silent_and_idle_connections_make_room(tmp_path: Path) -> None:
    """More of them than there are descriptors: new clients, streams, the health check and a new asset are served.

    They go oldest first, streams stay, and the log says nothing a thousand times.
    """
    errors = tmp_path / "stderr"
    async with world(state=_state, descriptors=_LIMIT, errors=errors, LOG_LEVEL="info") as around:
        stream = await around.stream("A1")
        held = [await _connect(around.proxy, _HEAD + b"\r\n" if number % 2 else b"") for number in range(_LIMIT)]
        await asyncio.sleep(1)
        held += [await _connect(around.proxy) for _ in range(_LIMIT)]
        await asyncio.sleep(1)
        await around.ksql.put("A5", "Paint")
        for target in ("/healthz", "/asset_stream?asset_uuid=A2", "/asset_state?asset_uuid=A1", "/readyz"):
            answer = await around.proxy.get(target)
            assert answer.status == 200, target
            answer.leave()
        (await around.stream("A5")).leave()
        await around.weld.open[0].event("still here")
        assert (await stream.event()).data == "still here"
        assert around.proxy.descriptors() < _LIMIT
        for client in held:
            client.writer.transport.abort()
        assert len(errors.read_bytes()) < 20_000, errors.read_text()[-2000:]


@contextlib.asynccontextmanager
async def _full(around: World) -> AsyncIterator[list[Response]]:
    """Open streams, from two addresses, until one is refused."""
    streams: list[Response] = []
    for source in ("127.0.0.1", "127.0.0.2"):
        while True:
            target = b"GET /asset_stream?asset_uuid=A1 HTTP/1.1\r\nHost: x\r\n\r\n"
            answer = await (await _connect(around.proxy, target, source=source)).head()
            if answer.status != 200:
                break
            streams.append(answer)
        assert answer.status == 503
        assert answer.header("Retry-After") == "5"
        assert (await answer.problem())["type"] == "urn:openfactory:routing-layer:too-many-connections"
    yield streams
    for stream in streams:
        stream.leave()


async def test_streams_are_not_reset_for_new_clients() -> None:
    """Full of streams: the next client gets 503 at once, the health check 200, each open stream its events."""
    async with world(state=_state, descriptors=_LIMIT) as around, _full(around) as streams:
        assert len(streams) > (_LIMIT // 2) * 0.7
        for _ in range(3):
            assert (await around.proxy.get("/healthz")).status == 200
            assert (await around.proxy.get("/asset_state?asset_uuid=A1")).status == 503
        for connection in around.weld.open:
            await connection.event("one")
        for stream in streams:
            assert (await stream.event()).data == "one"
        for _ in range(2):
            streams.pop(0).leave()
        await until(lambda: len(around.weld.open) == len(streams), "two have left")
        await around.stream("A2")


async def test_a_flood_of_connections_is_answered_or_closed_quickly(tmp_path: Path) -> None:
    """Full of streams, and many more come at once: each is answered or closed, and the log is short."""
    errors = tmp_path / "stderr"
    async with world(state=_state, descriptors=_LIMIT, errors=errors, LOG_LEVEL="info") as around, _full(around):
        flood = [_flood(around.proxy) for _ in range(500)]
        answers = await asyncio.gather(*flood)
        assert {answer[:13] for answer in answers} <= {b"HTTP/1.1 503 ", b""}
        assert sum(answer != b"" for answer in answers) >= 100
        assert (await around.proxy.get("/healthz")).status == 200
        assert len(errors.read_bytes()) < 20_000, errors.read_text()[-2000:]


async def _flood(proxy: Proxy) -> bytes:
    try:
        return await _rest(await _connect(proxy, b"GET /asset_state?asset_uuid=A1 HTTP/1.1\r\nHost: x\r\n\r\n"))
    except ConnectionError:
        return b""


async def test_an_address_has_its_number() -> None:
    """The setting's number of streams from one address; another address is served."""
    async with world(CONNECTIONS_PER_ADDRESS="3") as around:
        streams = [await around.stream("A1") for _ in range(3)]
        refused = await around.proxy.get("/asset_stream?asset_uuid=A1")
        assert refused.status == 503
        assert (await refused.problem())["type"] == "urn:openfactory:routing-layer:too-many-connections"
        other = await _connect(
            around.proxy, b"GET /asset_stream?asset_uuid=A1 HTTP/1.1\r\nHost: x\r\n\r\n", source="127.0.0.2"
        )
        assert (await other.head()).status == 200
        other.writer.transport.abort()
        streams.pop().leave()
        await until(lambda: len(around.weld.open) == 2, "one has left")
        await around.stream("A1")


async def test_connections_that_are_cut_leave_nothing() -> None:
    """Five hundred clients that are reset in the middle of their head: every descriptor is free again."""
    async with world() as around:
        before = around.proxy.descriptors()
        for _ in range(500):
            sock = socket.create_connection(("127.0.0.1", around.proxy.port))
            sock.send(b"GET /asset_st")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
        await until(lambda: around.proxy.descriptors() <= before, "every descriptor is free")
        assert await around.proxy.metric("routing_layer_connections") == 1


async def test_memory_returns_when_a_crowd_of_connections_leaves() -> None:
    """They were no streams: half heads, which keep as much as a head may have."""
    head = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: %b\r\n" % (i, b"y" * 7000) for i in range(4))
    async with world() as around:
        at_rest = around.proxy.memory()
        crowd = [await asyncio.open_connection("127.0.0.1", around.proxy.port) for _ in range(600)]
        for _, writer in crowd:
            writer.write(head)
        await until(lambda: around.proxy.memory() > at_rest + 16 * 1024, "the heads are there")
        for _, writer in crowd:
            writer.transport.abort()
        await until(lambda: around.proxy.memory() < at_rest + 6 * 1024, "their memory is given back")
