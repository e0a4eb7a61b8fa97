"""Hundreds of hostile clients of each kind: the others get every event, and a client that stalls costs little."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator

import pytest

from tests.harness.coroutines import PATIENCE, until
from tests.integration.routing_layer.proxy_system import Connection, Proxy, ProxySystem, chunk, start_system

#: Clients of each kind, from ten addresses.
_COUNT = 300
_GOOD = 20
_RESET = b"\1\0\0\0\0\0\0\0"
_STREAM = b"GET /asset_stream?asset_uuid=A2 HTTP/1.1\r\nHost: x\r\n\r\n"
_UNKNOWN = b"GET /asset_stream?asset_uuid=NONE-%d HTTP/1.1\r\nHost: x\r\n\r\n"
#: What one client that never reads may cost the process (300 KiB measured): more than 64 KiB pending pause its service,
#: and by then a read of 256 KiB is on its way.
_STALLED_BYTES = 1024 * 1024
#: What it may take from its service, with the kernel's buffers on both sides of the proxy (1.0 MiB measured; three
#: times as much where the kernel chooses their sizes).
_TAKEN_BYTES = 2 * 1024 * 1024


async def _connect(proxy: Proxy, number: int, *, receive: int | None = None) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    if receive is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    sock.bind((f"127.0.0.{2 + number % 10}", 0))
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", proxy.port))
    return sock


async def _slow_head(proxy: Proxy, number: int) -> None:
    sock, loop = await _connect(proxy, number), asyncio.get_running_loop()
    for byte in itertools.chain(b"GET / HTTP/1.1\r\nX: ", itertools.repeat(ord("x"))):
        await loop.sock_sendall(sock, bytes([byte]))
        await asyncio.sleep(0.5)


async def _slow_reader(proxy: Proxy, number: int) -> None:
    sock = await _connect(proxy, number, receive=4096)
    await asyncio.get_running_loop().sock_sendall(sock, _STREAM)
    await asyncio.Event().wait()


async def _flood(proxy: Proxy, number: int) -> None:
    sock, loop = await _connect(proxy, number), asyncio.get_running_loop()
    for asset in itertools.count(number * 1_000_000):
        await loop.sock_sendall(sock, _UNKNOWN % asset)
        if not await loop.sock_recv(sock, 4096):
            return
        await asyncio.sleep(0.2)


async def _half_closed(proxy: Proxy, number: int) -> None:
    sock = await _connect(proxy, number)
    await asyncio.get_running_loop().sock_sendall(sock, _STREAM)
    sock.shutdown(socket.SHUT_WR)
    await asyncio.Event().wait()


async def _reset(proxy: Proxy, number: int) -> None:
    for turn in itertools.count():
        sock = await _connect(proxy, number)
        await asyncio.get_running_loop().sock_sendall(sock, _STREAM[: 10 + turn % 60])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.close()
        await asyncio.sleep(0.3)


_KINDS = {kind.__name__.strip("_"): kind for kind in (_slow_head, _slow_reader, _flood, _half_closed, _reset)}


async def _again(kind: str, proxy: Proxy, number: int) -> None:
    """Be hostile, from the start again whenever the proxy ends it."""
    while True:
        with contextlib.suppress(OSError):
            await _KINDS[kind](proxy, number)
        await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def _hostile(proxy: Proxy, kind: str, count: int = _COUNT) -> AsyncIterator[None]:
    clients = [asyncio.create_task(_again(kind, proxy, number)) for number in range(count)]
    try:
        yield
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("per_address", [0, _GOOD + 5])
async def test_good_clients_do_not_notice(kind: str, per_address: int) -> None:
    """Each open stream gets every event in order, a new one is served; with and without a limit for each address."""
    limits = {"CONNECTIONS_PER_ADDRESS": str(per_address), "CLIENT_HEAD_TIMEOUT": "2"}
    async with start_system(IDLE_TIMEOUT="5", **(limits if per_address else {})) as system:
        good = [await system.stream("A1") for _ in range(_GOOD)]
        opened = list(system.weld.open)
        async with _hostile(system.proxy, kind), asyncio.timeout(PATIENCE):
            await _act(system, kind)
            for number in range(50):
                for connection in opened:
                    await connection.event(str(number))
                for stream in good:
                    assert (await stream.event()).data == str(number)
            new = await system.stream("A1")
            await system.weld.open[-1].event("new")
            assert (await new.event()).data == "new"
            assert await system.proxy.ready()
        for stream in [*good, new]:
            stream.leave()
        await until(lambda: not system.paint.open and not system.weld.open, "no stream of a client that has left stays")


async def test_half_heads_that_fill_the_proxy_do_not_keep_others_out() -> None:
    """More of them than there are descriptors, and a long time for each: a new client is served nevertheless."""
    async with start_system(descriptors=300, CLIENT_HEAD_TIMEOUT="600") as system, _hostile(system.proxy, "slow_head"):
        await system.proxy.wait_metric("routing_layer_connections", 200)
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    if (await system.proxy.get("/asset_stream?asset_uuid=A1")).status == 200:
                        break
                await asyncio.sleep(0.1)


async def _act(system: ProxySystem, kind: str) -> None:
    """Wait until the hostile ones are there; slow readers have something that they do not read."""
    if kind in ("slow_reader", "half_closed"):
        await until(lambda: bool(system.paint.connections), "they have asked for streams")
    else:
        await system.proxy.wait_metric("routing_layer_connections", _GOOD + 1 if kind == "reset" else _GOOD + 50)
    if kind == "slow_reader":
        for connection in system.paint.open:
            with contextlib.suppress(ConnectionError):
                connection.writer.write(chunk(b"x" * 10_000))


async def test_a_client_that_never_reads_costs_a_bounded_amount() -> None:
    """Twenty streams of 40 MB each to clients that read nothing: proxy and kernel hold a small part."""
    sent: list[int] = []

    async def pour(connection: Connection) -> None:
        index = len(sent)
        sent.append(0)
        # The service's own buffer, which is not the proxy's to limit.
        connection.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        await connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        piece = chunk(b"data: " + b"x" * 50_000 + b"\n\n")
        for _ in range(800):
            await connection.send(piece)
            sent[index] += len(piece)

    count = 20
    async with start_system() as system:
        system.paint.answer = pour
        before = system.proxy.memory()
        clients = [await _connect(system.proxy, number, receive=4096) for number in range(count)]
        for client in clients:
            await asyncio.get_running_loop().sock_sendall(client, _STREAM)
        taken = [0]

        def standing() -> bool:
            taken.append(sum(sent))
            return len(sent) == count and len(taken) > 100 and taken[-1] == taken[-100] > 0

        await until(standing, "their services are throttled")
        assert max(sent) < _TAKEN_BYTES, "what the services have got rid of"
        grown = (system.proxy.memory() - before) * 1024
        for client in clients:
            client.close()
        assert grown / count < _STALLED_BYTES, f"{grown / count / 1024:.0f} KiB for each of {count}"
