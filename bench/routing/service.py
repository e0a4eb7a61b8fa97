"""The service behind both proxies: streams of assets, all streams of one asset with the same bytes at the same time.

Prints nothing. ``python service.py PORT [shareable]``. The first letter of an asset says how often it has an event:
``S`` never, ``E`` and ``L`` once a second, ``B`` five times, ``F`` ten times; those of ``L`` have 16 KiB. The events of
all assets are spread evenly. With ``shareable`` each stream says that it is the same for all of its clients.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from typing import cast
from urllib.parse import unquote

import uvloop

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n%b"
    b"transfer-encoding: chunked\r\n\r\n"
)
_ASSET = re.compile(rb"[?&]asset_uuid=([^& ]*)")
#: Steps of a second in which one part of the assets has its events each.
_STEPS = 100
_PERIODS = {"E": _STEPS, "L": _STEPS, "B": _STEPS // 5, "F": _STEPS // 10}
_LARGE = "21.5" * 4096


class Service(asyncio.Protocol):
    """One connection."""

    streams: dict[str, set[asyncio.Transport]] = {}  # noqa: RUF012 - one service a process
    head = _HEAD % b""
    asset = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        """Answer the request; a stream is the last on its connection."""
        self.rest += data
        asked = _ASSET.search(self.rest) if self.rest.endswith(b"\r\n\r\n") else None
        if asked is not None and not self.asset:
            self.asset = unquote(asked[1].decode())
            self.transport.write(self.head)
            self.streams.setdefault(self.asset, set()).add(self.transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Forget it."""
        self.streams.get(self.asset, set()).discard(self.transport)


def event(value: str) -> bytes:
    """Return a chunk with one event that carries a value and the time at which it was sent."""
    text = (
        f'{{"sent":{time.monotonic():.6f},"id":"temperature","value":"{value}","tag":"Temperature","type":"Samples"}}'
    )
    data = f"event: asset_update\ndata: {text}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


async def main(port: int, *, shareable: bool) -> None:
    """Serve, and send what is due in each step."""
    Service.head = _HEAD % (b"x-openfactory-shareable: 1\r\n" if shareable else b"")
    loop = asyncio.get_running_loop()
    await loop.create_server(Service, "127.0.0.1", port, backlog=8192)
    step, started = 0, loop.time()
    while True:
        # A step that is late is left out: to catch up would be a load that no proxy has caused.
        step = max(step + 1, int((loop.time() - started) * _STEPS))
        await asyncio.sleep(started + step / _STEPS - loop.time())
        for asset, transports in list(Service.streams.items()):
            period = _PERIODS.get(asset[:1])
            if period and transports and step % period == int(asset[1:]) % period:
                data = event(_LARGE if asset[:1] == "L" else "21.5")
                for transport in transports:
                    transport.write(data)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), shareable="shareable" in sys.argv[2:]))
