"""Clients that only hold connections: their time is limited, and the others, and the proxy itself, are served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from tests.harness.coroutines import PATIENCE, until
from tests.integration.routing_layer.proxy_system import Asked, Connection, Proxy, ProxySystem, Response, start_system

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
    """A silent connection ends without an answer, half a head (at once or in bytes) with 408, also after a request."""
    async with start_system(CLIENT_HEAD_TIMEOUT="1") as system:
        client = await system.stream("A1")
        silent = await _connect(system.proxy)
        assert await _rest(silent) == b""
        half = await _connect(system.proxy, _HEAD)
        second = await _connect(system.proxy, _HEAD + b"\r\n" + _HEAD)
        dripping = await _connect(system.proxy, _HEAD)
        drips = asyncio.create_task(_drip(dripping.writer))
        assert (await _rest(dripping)).startswith(b"HTTP/1.1 408 ")
        drips.cancel()
        answer = await _rest(half)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["type"] == "urn:openfactory:routing-layer:late-request"
        assert re.findall(rb"HTTP/1\.1 (\d+)", await _rest(second)) == [b"200", b"408"]
        await system.weld.open[0].event("a stream has no head to wait for")
        assert (await client.event()).data == "a stream has no head to wait for"
        ended = await system.proxy.metrics()
        assert ended['routing_layer_connections_ended_total{reason="head_timeout"}'] >= 3


async def _drip(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b"X")
            await asyncio.sleep(0.1)


async def test_an_idle_connection_has_its_time() -> None:
    """It ends after the limit; one that asks again does not, nor one that only begins with its next request."""
    async with start_system(state=_state, CLIENT_IDLE_TIMEOUT="1s", CLIENT_HEAD_TIMEOUT="600") as system:
        idle = await _connect(system.proxy, _HEAD + b"\r\n")
        busy = await system.proxy.get("/asset_state?asset_uuid=A1")
        for _ in range(8):
            await busy.rest()
            await asyncio.sleep(0.25)
            busy.writer.write(b"GET /asset_state?asset_uuid=A1 HTTP/1.1\r\nHost: x\r\n\r\n")
            busy = Response(busy.reader, busy.writer, await busy.reader.readuntil(b"\r\n\r\n"))
        assert b'"alive"' in await _rest(idle)


async def test_a_client_that_takes_nothing_does_not_stay() -> None:
    """It asks for more than the kernel keeps and reads nothing: its connection ends."""
    async with start_system(IDLE_TIMEOUT="1") as system:
        writer = (await _connect(system.proxy)).writer
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                while True:
                    writer.write((_HEAD + b"\r\n").replace(b"/healthz", b"/metrics") * 100)
                    await asyncio.sleep(0.05)
                    if writer.transport.is_closing():
                        break
        await system.proxy.wait_metric('routing_layer_connections_ended_total{reason="write_timeout"}', 1)


async def test_silent_and_idle_connections_make_room(tmp_path: Path) -> None:
    """More of them than there are descriptors: new clients, streams, the health check and a new asset are served.

    They go oldest first, streams stay, and the log says nothing a thousand times.
    """
    errors = tmp_path / "stderr"
    async with start_system(state=_state, descriptors=_LIMIT, errors=errors, LOG_LEVEL="info") as system:
        stream = await system.stream("A1")
        held = [await _connect(system.proxy, _HEAD + b"\r\n" if number % 2 else b"") for number in range(_LIMIT)]
        await asyncio.sleep(1)
        held += [await _connect(system.proxy) for _ in range(_LIMIT)]
        await asyncio.sleep(1)
        await system.ksql.put("A5", "Paint")
        for target in ("/healthz", "/asset_stream?asset_uuid=A2", "/asset_state?asset_uuid=A1", "/readyz"):
            answer = await system.proxy.get(target)
            assert answer.status == 200, target
            answer.leave()
        (await system.stream("A5")).leave()
        await system.weld.open[0].event("still here")
        assert (await stream.event()).data == "still here"
        assert system.proxy.descriptors() < _LIMIT
        for client in held:
            client.writer.transport.abort()
        assert len(errors.read_bytes()) < 20_000, errors.read_text()[-2000:]


@contextlib.asynccontextmanager
async def _full(system: ProxySystem) -> AsyncIterator[list[Response]]:
    """Open streams, from two addresses, until one is refused."""
    streams: list[Response] = []
    for source in ("127.0.0.1", "127.0.0.2"):
        while True:
            target = b"GET /asset_stream?asset_uuid=A1 HTTP/1.1\r\nHost: x\r\n\r\n"
            answer = await (await _connect(system.proxy, target, source=source)).head()
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
    async with start_system(state=_state, descriptors=_LIMIT) as system, _full(system) as streams:
        assert len(streams) > (_LIMIT // 2) * 0.7
        for _ in range(3):
            assert (await system.proxy.get("/healthz")).status == 200
            assert (await system.proxy.get("/asset_state?asset_uuid=A1")).status == 503
        for connection in system.weld.open:
            await connection.event("one")
        for stream in streams:
            assert (await stream.event()).data == "one"
        for _ in range(2):
            streams.pop(0).leave()
        await until(lambda: len(system.weld.open) == len(streams), "two have left")
        await system.stream("A2")


async def test_a_flood_of_connections_is_answered_or_closed_quickly(tmp_path: Path) -> None:
    """Full of streams, and many more come at once: each is answered or closed, and the log is short."""
    errors = tmp_path / "stderr"
    async with start_system(state=_state, descriptors=_LIMIT, errors=errors, LOG_LEVEL="info") as system, _full(system):
        flood = [_flood(system.proxy) for _ in range(500)]
        answers = await asyncio.gather(*flood)
        assert {answer[:13] for answer in answers} <= {b"HTTP/1.1 503 ", b""}
        assert sum(answer != b"" for answer in answers) >= 100
        assert (await system.proxy.get("/healthz")).status == 200
        assert len(errors.read_bytes()) < 20_000, errors.read_text()[-2000:]


async def _flood(proxy: Proxy) -> bytes:
    try:
        return await _rest(await _connect(proxy, b"GET /asset_state?asset_uuid=A1 HTTP/1.1\r\nHost: x\r\n\r\n"))
    except ConnectionError:
        return b""


async def test_an_address_has_its_number() -> None:
    """The setting's number of streams from one address; another address is served."""
    async with start_system(CONNECTIONS_PER_ADDRESS="3") as system:
        streams = [await system.stream("A1") for _ in range(3)]
        refused = await system.proxy.get("/asset_stream?asset_uuid=A1")
        assert refused.status == 503
        assert (await refused.problem())["type"] == "urn:openfactory:routing-layer:too-many-connections"
        other = await _connect(
            system.proxy, b"GET /asset_stream?asset_uuid=A1 HTTP/1.1\r\nHost: x\r\n\r\n", source="127.0.0.2"
        )
        assert (await other.head()).status == 200
        other.writer.transport.abort()
        streams.pop().leave()
        await until(lambda: len(system.weld.open) == 2, "one has left")
        await system.stream("A1")


async def test_connections_that_are_cut_leave_nothing() -> None:
    """Five hundred clients that are reset in the middle of their head: every descriptor is free again."""
    async with start_system() as system:
        before = system.proxy.descriptors()
        for _ in range(500):
            sock = socket.create_connection(("127.0.0.1", system.proxy.port))
            sock.send(b"GET /asset_st")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
        await until(lambda: system.proxy.descriptors() <= before, "every descriptor is free")
        assert await system.proxy.metric("routing_layer_connections") == 1


async def test_repeated_crowds_of_half_heads_do_not_grow_memory() -> None:
    """They were no streams, and keep as much as a head may have: the next crowd uses what the one before took."""
    head = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: %b\r\n" % (i, b"y" * 7000) for i in range(4))
    left_behind, all_heads = [], 300 * len(head) // 1024
    async with start_system() as system:
        at_rest, descriptors = system.proxy.memory(), system.proxy.descriptors()
        for _ in range(6):
            crowd = [await asyncio.open_connection("127.0.0.1", system.proxy.port) for _ in range(300)]
            for _, writer in crowd:
                writer.write(head)
            await until(lambda: system.proxy.memory() > at_rest + all_heads * 0.9, "the heads are there")
            for _, writer in crowd:
                writer.transport.abort()
            await until(lambda: system.proxy.descriptors() <= descriptors, "they have left")
            left_behind.append(system.proxy.memory() - at_rest)
        assert left_behind[-1] - left_behind[1] <= 2 * all_heads, f"{left_behind} KiB of {all_heads} KiB each time"
