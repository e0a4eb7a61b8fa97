"""What a client does not take is not kept for it: memory stays bounded, whatever is asked and never read."""

from __future__ import annotations

import asyncio
import socket

from tests.harness.coroutines import until
from tests.integration.routing_layer.proxy_system import Connection, ProxySystem, chunk, start_system

_LARGE = 1_000_000
_KIB = 1024


async def _never_reads(system: ProxySystem, requests: bytes) -> asyncio.StreamWriter:
    """Send requests on a connection with a small receive buffer, of which nothing is read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", system.proxy.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1)
    writer.transport.pause_reading()
    writer.write(requests)
    del reader
    return writer


async def _settles(count: list[int]) -> int:
    """Wait until a count has not changed for half a second; return it."""
    last = -1
    while count[0] != last:
        last = count[0]
        await asyncio.sleep(0.5)
    return last


async def _is_cut(system: ProxySystem) -> None:
    """Wait until a connection ends."""
    descriptors = system.proxy.descriptors()
    await until(lambda: system.proxy.descriptors() < descriptors, "the client is cut")


def _request(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def test_pipelined_requests_are_answered_as_they_are_read() -> None:
    """400 requests for 1 MB each, or 200 kB in one chunk, never read: a few are asked of the service, and few kept."""
    asked = [0]

    async def large(connection: Connection) -> None:
        asked[0] += 1
        if connection.target.endswith("?chunks"):
            await connection.send(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"x" * 200_000) + chunk(b"")
            )
        else:
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % _LARGE + b"x" * _LARGE)

    async with start_system(state=large, IDLE_TIMEOUT="2s") as system:
        for target in ("/asset_state", "/asset_state?chunks"):
            (await system.proxy.get(target)).leave()
            before = system.proxy.memory()
            asked[0] = 0
            client = await _never_reads(system, _request(target) * 400)
            assert 0 < await _settles(asked) < 40
            assert system.proxy.memory() - before < 16 * _KIB
            await _is_cut(system)
            client.transport.abort()
            assert asked[0] < 40


async def test_pipelined_requests_get_every_byte_when_they_are_read() -> None:
    """Held back is not lost: the answers come complete and in order."""

    async def large(connection: Connection) -> None:
        number = connection.target.partition("=")[2].encode()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % _LARGE + number.ljust(_LARGE))

    async with start_system(state=large) as system:
        asked = await system.proxy.ask("/asset_state?n=0")
        for number in range(1, 20):
            asked.writer.write(_request(f"/asset_state?n={number}"))
        await asyncio.sleep(0.5)
        for number in range(20):
            assert await (await asked.head()).rest() == str(number).encode().ljust(_LARGE)


async def test_a_huge_answer_is_read_from_the_service_as_the_client_takes_it() -> None:
    """A body of 300 MB to a client that never reads: the service is held back, then freed."""
    sent = [0]

    async def huge(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 300000000\r\n\r\n")
        for _ in range(300):
            await connection.send(b"x" * _LARGE)
            sent[0] += 1

    async with start_system(state=huge, IDLE_TIMEOUT="2s") as system:
        before = system.proxy.memory()
        client = await _never_reads(system, _request("/asset_state"))
        assert 0 < await _settles(sent) < 30
        assert system.proxy.memory() - before < 16 * _KIB
        await until(lambda: all(each.left.is_set() for each in system.state.connections), "the service is freed")
        client.transport.abort()
