"""A group service that can resume, by the contract of all of them, and a client that reconnects like a browser."""

from __future__ import annotations

import asyncio
import contextlib
import time
from urllib.parse import quote

from tests.integration.routing_layer.proxy_system import HEAD, Connection, Proxy, Service, chunk
from tests.integration.routing_layer.sse_parser import EventParser


class ResumingService(Service):
    """The service of one group. Its topic outlives its tasks: what is produced while none runs is not lost.

    Attributes:
        asked: the ``Last-Event-ID`` of each request, None without one.
    """

    def __init__(self, group: str) -> None:
        """Start with an empty topic."""
        super().__init__(self._serve)
        self.group = group
        self.asked: list[str | None] = []
        self._topic: list[tuple[int, str]] = []

    async def produce(self, *values: str) -> None:
        """Write records now, and send them to every client that is there."""
        for value in values:
            self._topic.append((int(time.time() * 1000), value))
            for connection in self.open:
                with contextlib.suppress(ConnectionError):
                    await connection.send(self._event(len(self._topic) - 1))

    async def _serve(self, connection: Connection) -> None:
        self.asked.append(next(iter(connection.header("Last-Event-ID")), None))
        first = self._first(self.asked[-1])
        field = b"X-OpenFactory-Group: " + quote(self.group, safe="").encode()
        await connection.send(HEAD.removesuffix(b"\r\n") + field + b"\r\n\r\n" + chunk(b": here\n\n"))
        await connection.send(b"".join(self._event(offset) for offset in range(first, len(self._topic))))

    def _first(self, position: str | None) -> int:
        """The offset of the first record that a client gets: after its last event, or from a time on."""
        place, _, moment = (position or "").partition("@")
        if place:
            return int(place.rpartition("/")[2]) + 1
        end = len(self._topic)
        return next((at for at, (ms, _) in enumerate(self._topic) if ms >= int(moment)), end) if moment else end

    def _event(self, offset: int) -> bytes:
        ms, value = self._topic[offset]
        return chunk(f"id: {self.group}/0/{offset}@{ms}\nevent: asset_update\ndata: {value}\n\n".encode())


class Browser:
    """An event source: it comes back with its last ID after a stream that ended or broke, and gives up at an error.

    Attributes:
        values: the data of all events, in order.
        requests: how often it has sent its request.
    """

    def __init__(self, proxy: Proxy, target: str) -> None:
        """Follow ``target`` from now on."""
        self.values: list[str] = []
        self.requests = 0
        self._proxy, self._target = proxy, target
        self._last = ""
        self.task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Leave.

        Raises:
            AssertionError: it had given up.
        """
        if not self.task.done():
            self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                last = [f"Last-Event-ID: {self._last}"] if self._last else []
                asked = await self._proxy.ask(self._target, "Accept: text/event-stream", *last)
                self.requests += 1
                response = await asked.head()
                assert response.status == 200, f"it gives up: {await response.rest()!r}"
                parser = EventParser()
                try:
                    while piece := await response.piece():
                        for event in parser.feed(piece):
                            self.values.append(event.data)
                            self._last = event.last_id
                finally:
                    response.leave()
            await asyncio.sleep(0.05)
