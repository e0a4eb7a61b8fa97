"""The service behind both proxies: an event a second on each stream, and a short JSON answer.

Prints nothing. ``python service.py PORT EVENTS_PER_SECOND``; 0: silent streams.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import cast

import uvloop

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
_STATE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 60\r\n\r\n"
    b'{"asset_uuid":"A1","id":"temperature","value":1E3,"tag":"x"}'
)


class Service(asyncio.Protocol):
    """One connection."""

    streams: set[asyncio.Transport] = set()  # noqa: RUF012 - one service a process

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        """Answer each request."""
        self.rest += data
        while b"\r\n\r\n" in self.rest:
            head, _, self.rest = self.rest.partition(b"\r\n\r\n")
            if head.startswith(b"GET /asset_state"):
                self.transport.write(_STATE)
            else:
                self.transport.write(_HEAD)
                self.streams.add(self.transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Forget it."""
        self.streams.discard(self.transport)


def event() -> bytes:
    """Return a chunk with one event of usual size that carries the time at which it was sent."""
    text = f'{{"sent":{time.monotonic():.6f},"id":"temperature","value":"21.5","tag":"Temperature","type":"Samples"}}'
    data = f"event: asset_update\ndata: {text}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


async def main(port: int, rate: float) -> None:
    """Serve; events are spread over each second in a hundred steps."""
    loop = asyncio.get_running_loop()
    await loop.create_server(Service, "127.0.0.1", port, backlog=8192)
    step = 0
    while True:
        await asyncio.sleep(0.01)
        if rate:
            step = (step + 1) % 100
            for index, transport in enumerate(list(Service.streams)):
                if index % 100 == step:
                    transport.write(event())


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2])))
