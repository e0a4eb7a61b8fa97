"""Clients: opens streams, counts and times events, or asks for states as fast as it is answered."""

from __future__ import annotations

import asyncio
import time
from typing import cast


class Client(asyncio.Protocol):
    """One stream."""

    def __init__(self, latencies: list[float], opened: asyncio.Event, left: list[int]) -> None:
        """Report into ``latencies``; set ``opened`` when ``left`` streams are open."""
        self.latencies, self.opened, self.left = latencies, opened, left
        self.headed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask at once."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(b"GET /asset_stream?asset_uuid=A1 HTTP/1.1\r\nHost: bench\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        """Take the head, then events."""
        if not self.headed:
            assert data.startswith(b"HTTP/1.1 200"), data[:200]
            self.headed = True
            self.left[0] -= 1
            if self.left[0] == 0:
                self.opened.set()
        at = data.find(b'{"sent":')
        if at >= 0:
            self.latencies.append(time.monotonic() - float(data[at + 8 : data.index(b",", at)]))


class Streams:
    """Many open streams."""

    def __init__(self) -> None:
        """Start with none."""
        self.latencies: list[float] = []
        self.clients: list[Client] = []

    async def open(self, port: int, count: int) -> float:
        """Open ``count`` at once; return the seconds until the last has its head."""
        loop = asyncio.get_running_loop()
        opened, left = asyncio.Event(), [count]
        started = time.monotonic()

        async def one() -> None:
            client = Client(self.latencies, opened, left)
            await loop.create_connection(lambda: client, "127.0.0.1", port)
            self.clients.append(client)

        await asyncio.gather(*(one() for _ in range(count)))
        async with asyncio.timeout(120):
            await opened.wait()
        return time.monotonic() - started

    def close(self) -> None:
        """Leave."""
        for client in self.clients:
            client.transport.abort()


class Asker(asyncio.Protocol):
    """Asks for a state again as soon as it was answered."""

    def __init__(self) -> None:
        """Start unasked."""
        self.answers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self.transport = cast("asyncio.Transport", transport)
        self.rest = b""
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Count whole answers (the body ends with a brace)."""
        self.rest += data
        if self.rest.endswith(b"}"):
            assert self.rest.startswith(b"HTTP/1.1 200"), self.rest[:200]
            self.rest = b""
            self.answers += 1
            self._ask()

    def _ask(self) -> None:
        self.transport.write(b"GET /asset_state?asset_uuid=A1 HTTP/1.1\r\nHost: bench\r\n\r\n")


async def states(port: int, connections: int, seconds: float) -> float:
    """Return the answers a second over ``connections``."""
    loop = asyncio.get_running_loop()
    askers = [(await loop.create_connection(Asker, "127.0.0.1", port))[1] for _ in range(connections)]
    await asyncio.sleep(0.5)
    before, started = sum(asker.answers for asker in askers), time.monotonic()
    await asyncio.sleep(seconds)
    rate = (sum(asker.answers for asker in askers) - before) / (time.monotonic() - started)
    for asker in askers:
        asker.transport.abort()
    return rate
