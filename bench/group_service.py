"""Measure what one event costs the group service: deliveries a second and core, and memory for each client.

    python bench/group_service.py [--clients 10000] [--events 600] [--rate 30]

The service's own application runs in this process, with a source that publishes events of one asset; another process
holds the clients' connections and reads. Only the processor time of this process is counted: other programs of the
machine matter little. The reading of Kafka is not in it: an event is read once, however many clients there are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import selectors
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # in place of this folder, where this file hides the package of its name

from group_service.app import ARCHIVE, HUB, make_app  # noqa: E402 - the path is set above
from group_service.events import Event  # noqa: E402 - the path is set above
from group_service.ksqldb import KsqldbReader  # noqa: E402 - the path is set above
from group_service.settings import Settings  # noqa: E402 - the path is set above
from openfactory_common.service_settings import load  # noqa: E402 - the path is set above

_REQUEST = b"GET /asset_stream?asset_uuid=A HTTP/1.1\r\nHost: bench\r\n\r\n"
_VALUE = json.dumps(
    {"asset_uuid": "A", "id": "temp", "value": "21.5", "type": "Samples", "tag": "Temperature"}
).encode()


def hold_clients(port: int, count: int, pipe: Connection) -> None:
    """Open the clients' connections and read until the service closes them; send how many bytes came."""
    selector = selectors.DefaultSelector()
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(_REQUEST)
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ)
    pipe.send(count)
    left, received = count, 0
    while left:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            with suppress(BlockingIOError):
                data = key.fileobj.recv(1 << 18)
                received += len(data)
                if not data:
                    selector.unregister(key.fileobj)
                    left -= 1
    pipe.send(received)


async def _no_source(app: web.Application) -> AsyncIterator[None]:
    app[ARCHIVE] = KsqldbReader(app[HUB], None, "NONE")  # type: ignore[arg-type]  # never opened: only its past is asked for
    app[HUB].restart({0: 0}, {0}, None)
    app[HUB].set_filled()
    yield


async def measure(clients: int, events: int, rate: float) -> dict[str, Any]:
    """Publish ``events`` events to ``clients`` clients, at ``rate`` events a second."""
    settings: dict[str, Any] = {"group_name": "Weld", "kafka_topic": "asset_stream_Weld", "kafka_broker": "none:1"}
    app = make_app(load(Settings, _env_file=None, **settings), _no_source)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=8192)
    await site.start()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=hold_clients, args=(runner.addresses[0][1], clients, theirs)
    )
    process.start()
    hub = app[HUB]
    await asyncio.to_thread(ours.recv)
    while len(hub._live.get("A", ())) < clients:  # noqa: ASYNC110, SLF001 - the bench looks at the service's inside
        await asyncio.sleep(0.05)
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / clients
    cpu, wall = time.process_time(), time.monotonic()
    number = batches = 0
    while number < events:
        # As the thread that reads Kafka does: what has come while the last events were written comes at once.
        due = min(events, 1 + int((time.monotonic() - wall) * rate))
        batch = [Event("Weld", b"A", _VALUE, 0, n, 1_764_370_800_000 + n) for n in range(number, due)]
        if batch:
            hub.publish(batch, {0: due})
            number, batches = due, batches + 1
        await asyncio.sleep(0 if batch else 0.001)
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    cut = hub.metrics.cut._value.get()  # noqa: SLF001 - as above
    hub.close()
    await asyncio.sleep(0.5)
    await runner.cleanup()
    received = await asyncio.to_thread(ours.recv)
    process.join()
    delivered = clients * events
    assert received > delivered * len(_VALUE), f"{cut:g} clients were cut"
    return {
        "clients": clients,
        "events": events,
        "events_per_second": round(events / wall, 1),
        "events_per_write": round(events / batches, 1),
        "deliveries_per_core_second": round(delivered / cpu),
        "kib_per_client": round(memory, 1),
    }


def main() -> None:
    """Measure and print a JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=600)
    parser.add_argument("--rate", type=float, default=30.0, help="events a second")
    parser.add_argument("--out", type=Path, help="write the document there as well")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        document = json.dumps(runner.run(measure(options.clients, options.events, options.rate)), indent=2)
    print(document)
    if options.out:
        options.out.write_text(document + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
