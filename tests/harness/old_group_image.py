"""A group service that behaves like the image of the old system, for tests: a program of one file.

    KAFKA_BROKER=… KAFKA_TOPIC=… KAFKA_CONSUMER_GROUP_ID=… [PORT=5555] [GIVE_UP_SECONDS=100] python old_group_image.py

What tests need of it are its weaknesses, each as observed on a real Kafka:

- It reads as a member of a consumer group: of two tasks with one group id on one partition, one gets nothing.
- It commits only while a client listens: what came without one comes again after a restart, to whoever listens then.
- Its events have no ids: what comes between two connections of a client is lost for that client.
- It answers HTTP before it reads, and whether it reads or not.
- `/ready` asks for the consumer in the event loop, while the reading thread holds it for as long as it runs: from then
  on the process answers no request, delivers no event and does not end by SIGTERM.
- Without a broker it gives up, 100 s after the last sign of one.

It prints a line for each record that it has read: `<partition>/<offset> <number of clients>`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time

from aiohttp import web
from confluent_kafka import Consumer, KafkaException

_PING_SECONDS = 15.0
_Client = tuple[str, asyncio.Queue[bytes]]


class OldGroupService:
    """The service of one process."""

    def __init__(self, broker: str, topic: str, group_id: str, give_up: float) -> None:
        """Read ``topic`` as a member of ``group_id``, and give up after ``give_up`` seconds without a broker."""
        self._topic, self._give_up = topic, give_up
        self._options = {
            "bootstrap.servers": broker,
            "group.id": group_id,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
            "reconnect.backoff.max.ms": 500,
            "log_level": 0,
        }
        self._clients: set[_Client] = set()
        self._consumer = threading.Lock()
        self._stopping = threading.Event()

    async def run(self, port: int) -> None:
        """Serve on every address until SIGTERM or SIGINT."""
        stopped, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        app = web.Application()
        app.router.add_get("/asset_stream", self._stream)
        app.router.add_get("/ready", self._ready)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, None, port).start()
        thread = threading.Thread(target=self._read, args=(loop,), daemon=True)
        thread.start()
        await stopped.wait()
        self._stopping.set()
        await runner.cleanup()
        await asyncio.to_thread(thread.join)

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._consumer:
            consumer = Consumer(self._options)
            consumer.subscribe([self._topic])
            seen = time.monotonic()
            while not self._stopping.is_set():
                message = consumer.poll(0.2)
                if message is None or message.error() is not None:
                    seen = self._look(consumer, seen)
                    continue
                seen = time.monotonic()
                clients = list(self._clients)
                print(f"{message.partition()}/{message.offset()} {len(clients)}", flush=True)  # noqa: T201 - its log
                loop.call_soon_threadsafe(self._deliver, clients, message.key() or b"", message.value() or b"")
                if clients:
                    consumer.commit(message)
            consumer.close()

    def _look(self, consumer: Consumer, seen: float) -> float:
        """Return when a broker was last seen; end the process if that is too long ago."""
        try:
            consumer.list_topics(self._topic, timeout=0.5)
        except KafkaException:
            if time.monotonic() - seen > self._give_up:
                print(f"no broker for {self._give_up:g} s", flush=True)  # noqa: T201 - its log
                os._exit(1)
            return seen
        return time.monotonic()

    @staticmethod
    def _deliver(clients: list[_Client], key: bytes, value: bytes) -> None:
        for asset, queue in clients:
            if asset.encode() == key:
                queue.put_nowait(value)

    async def _ready(self, _request: web.Request) -> web.Response:
        with self._consumer:  # blocks the event loop: this is the fault
            return web.json_response({"status": "ready"})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        asset, item = request.query.get("asset_uuid"), request.query.get("id")
        if not asset:
            return web.json_response({"detail": [{"type": "missing", "loc": ["query", "asset_uuid"]}]}, status=422)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        client: _Client = (asset, asyncio.Queue())
        self._clients.add(client)
        try:
            while True:
                try:
                    value = await asyncio.wait_for(client[1].get(), _PING_SECONDS)
                except TimeoutError:
                    await response.write(b": ping\n\n")
                    continue
                if item is None or _item_of(value) == item:
                    await response.write(b"event: asset_update\ndata: " + value + b"\n\n")
        finally:
            self._clients.discard(client)


def _item_of(value: bytes) -> object:
    fields = json.loads(value)
    return fields.get("id", fields.get("ID"))


def main() -> int:
    """Run with the settings of the environment."""
    broker, topic, group_id = (os.environ[f"KAFKA_{name}"] for name in ("BROKER", "TOPIC", "CONSUMER_GROUP_ID"))
    service = OldGroupService(broker, topic, group_id, float(os.environ.get("GIVE_UP_SECONDS", "100")))
    asyncio.run(service.run(int(os.environ.get("PORT", "5555"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
