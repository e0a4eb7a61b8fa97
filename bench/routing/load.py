"""Clients: open streams, count and time events; ask for states as fast as they are answered."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from typing import cast


class Client(asyncio.Protocol):
    """One stream."""

    def __init__(self, crowd: Streams, asset: str) -> None:
        """Ask for ``asset`` and report to ``crowd``."""
        self.crowd, self.asset = crowd, asset
        self.headed = self.served = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask at once."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(b"GET /asset_stream?asset_uuid=%b HTTP/1.1\r\nHost: bench\r\n\r\n" % self.asset.encode())

    def data_received(self, data: bytes) -> None:
        """Take the head, then events."""
        if not self.headed:
            self.headed = True
            if not data.startswith(b"HTTP/1.1 200"):
                self.crowd.refused.append(data[:200])
            self.crowd.begun("heads")
        at = data.find(b'{"sent":')
        if at < 0:
            return
        if not self.served:
            self.served = True
            self.crowd.begun("events")
        now = time.monotonic()
        while at >= 0:
            end = data.find(b",", at)
            self.crowd.latencies.append(now - float(data[at + 8 : end]))
            at = data.find(b'{"sent":', end)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Count it: no stream ends by itself here."""
        self.crowd.lost += 1


class Streams:
    """Many open streams.

    Attributes:
        latencies: seconds from the service to the client, of each event.
        refused: the heads of responses that are not 200.
        seconds: how long the last opening took, until the last head and until the last first event.
        lost: streams that have ended, closed ones included.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.latencies: list[float] = []
        self.clients: list[Client] = []
        self.refused: list[bytes] = []
        self.seconds: dict[str, float] = {}
        self.lost = 0
        self._left = {"heads": 0, "events": 0}
        self._all = {"heads": asyncio.Event(), "events": asyncio.Event()}

    def begun(self, what: str) -> None:
        """One more client has its head, or its first event."""
        self._left[what] -= 1
        if self._left[what] == 0:
            self.seconds[what] = time.monotonic() - self._started
            self._all[what].set()

    async def open(self, port: int, assets: list[str], until: str = "heads") -> None:
        """Open a stream of each asset at once, and wait until the last has its head, or first event."""
        loop = asyncio.get_running_loop()
        self._left = dict.fromkeys(self._left, len(assets))
        self._started = time.monotonic()

        async def one(asset: str) -> None:
            client = Client(self, asset)
            await loop.create_connection(lambda: client, "127.0.0.1", port)
            self.clients.append(client)

        await asyncio.gather(*(one(asset) for asset in assets))
        async with asyncio.timeout(30):
            await self._all["heads"].wait()
            assert not self.refused, (len(self.refused), self.refused[0])
            await self._all[until].wait()

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
        self.transport.write(b"GET /asset_state?asset_uuid=S0 HTTP/1.1\r\nHost: bench\r\n\r\n")


async def states(port: int, connections: int, seconds: float) -> tuple[float, float]:
    """Return the answers and the seconds that they took, by ``wrk`` where it is installed (a fifth of the CPU)."""
    if shutil.which("wrk"):
        url = f"http://127.0.0.1:{port}/asset_state?asset_uuid=S0"
        command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", url]
        run = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        text = (await run.communicate())[0].decode()
        assert "Non-2xx" not in text, text
        done = re.search(r"(\d+) requests in ([\d.]+)s", text)
        assert done is not None, text
        return float(done[1]), float(done[2])
    loop = asyncio.get_running_loop()
    started = time.monotonic()
    askers = [(await loop.create_connection(Asker, "127.0.0.1", port))[1] for _ in range(connections)]
    await asyncio.sleep(seconds)
    for asker in askers:
        asker.transport.abort()
    return float(sum(asker.answers for asker in askers)), time.monotonic() - started
