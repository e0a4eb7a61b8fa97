"""Measure the way of an event from a real broker to a client: latency, and how fast a client catches up.

    python bench/events.py [--streams 2000] [--seconds 10]       # needs `make kafka`

Latencies are from the call that produces a record to the client that parses it, with 200 events a second on 200 assets.
Beside the clients of the proxy one follows the service itself and one reads the topic, in the same moments: the ratios
are of one run. All programs share this machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # in place of this folder, where a file hides the package of its name

from tests.integration.routing_layer.fake_sources import FakeKsqldb, FakeOperator, registry  # noqa: E402
from tests.integration.routing_layer.proxy_system import Proxy  # noqa: E402
from tests.kafka.reconnects import Task, run_broker  # noqa: E402

_ASSETS = 200
_PAST = 200_000
_TOPIC = "asset_stream_Weld"
_MARK = b'{"sent":'


class Stream(asyncio.Protocol):
    """A client that notes the latency of each event, or counts events."""

    def __init__(self, port: int, asset: str, last_id: str = "") -> None:
        """Ask for an asset's events, those after ``last_id`` first."""
        self.latencies: list[float] = []
        self.events = 0
        self.begun = asyncio.get_running_loop().create_future()
        header = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
        self._request = f"GET /asset_stream?asset_uuid={asset} HTTP/1.1\r\nHost: bench\r\n{header}\r\n".encode()
        self._port = port

    async def open(self) -> Stream:
        """Connect, and wait for the head."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", self._port)
        self._transport.write(self._request)
        await asyncio.wait_for(self.begun, 60)
        return self

    def data_received(self, data: bytes) -> None:
        """Take the head, then events."""
        now = time.monotonic()
        if not self.begun.done():
            assert data.startswith(b"HTTP/1.1 200"), data[:200]
            self.begun.set_result(None)
        self.events += data.count(b"event: asset_update")
        at = data.find(_MARK)
        if at >= 0:
            self.latencies.append(now - float(data[at + len(_MARK) : data.index(b",", at)]))

    def close(self) -> None:
        """Leave."""
        self._transport.abort()


def produce(bootstrap: str, seconds: float) -> None:
    """Write 200 events a second, one for each asset in turn."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
    began, sent = time.monotonic(), 0
    while (now := time.monotonic()) < began + seconds:
        value = json.dumps({"sent": now, "id": "temp", "value": "21.5"}, separators=(",", ":"))
        producer.produce(_TOPIC, value, f"A{sent % _ASSETS}")
        producer.poll(0)
        sent += 1
        time.sleep(max(0.0, began + sent / _ASSETS - time.monotonic()))
    producer.flush(30)


def read_topic(bootstrap: str, latencies: list[float], ended: threading.Event) -> None:
    """Note how long a consumer of the topic waits: what no service can be faster than."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench", "fetch.wait.max.ms": 10})
    consumer.assign([TopicPartition(_TOPIC, 0, consumer.get_watermark_offsets(TopicPartition(_TOPIC, 0))[1])])
    while not ended.is_set():
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            latencies.append(time.monotonic() - json.loads(message.value() or b"")["sent"])
    consumer.close()


def describe(latencies: list[float]) -> dict[str, float]:
    """Return median and 99th percentile in milliseconds."""
    points = statistics.quantiles(latencies, n=100)
    return {"p50_ms": round(points[49] * 1000, 2), "p99_ms": round(points[98] * 1000, 2)}


async def measure_latency(bootstrap: str, service: Task, proxy: Proxy, streams: int, seconds: float) -> dict[str, Any]:
    """Open ``streams`` streams through the proxy and one past it, and compare."""
    through = await asyncio.gather(*(Stream(proxy.port, f"A{i % _ASSETS}").open() for i in range(streams)))
    direct = [await Stream(service.port, f"A{i}").open() for i in range(10)]
    topic: list[float] = []
    ended = threading.Event()
    reader = asyncio.create_task(asyncio.to_thread(read_topic, bootstrap, topic, ended))
    await asyncio.to_thread(produce, bootstrap, seconds)
    await asyncio.sleep(1)
    ended.set()
    await reader
    found = {
        "proxy": describe([one for stream in through for one in stream.latencies]),
        "service": describe([one for stream in direct for one in stream.latencies]),
        "topic": describe(topic),
        "events_missing": round(seconds * _ASSETS) * streams // _ASSETS - sum(len(one.latencies) for one in through),
    }
    for stream in (*through, *direct):
        stream.close()
    return found


async def measure_catch_up(bootstrap: str, create: Callable[[str], None]) -> dict[str, Any]:
    """Let a client resume at the beginning of a topic of 200,000 events that are not in memory."""
    create("asset_stream_Past")
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 50, "queue.buffering.max.messages": 2 * _PAST})
    for number in range(_PAST):
        producer.produce("asset_stream_Past", json.dumps({"id": "n", "value": str(number), "tag": "x" * 60}), "A1")
    producer.flush(60)
    service = await Task("Past", bootstrap, HISTORY_BYTES="1MiB").start()
    began = time.monotonic()
    stream = await Stream(service.port, "A1", "Past/0/-1").open()
    while stream.events < _PAST:  # noqa: ASYNC110 - it counts without telling anyone
        await asyncio.sleep(0.05)
    found = {"events": _PAST, "events_per_second": round(_PAST / (time.monotonic() - began))}
    stream.close()
    await service.end(kill=True)
    return found


async def run(plan: argparse.Namespace) -> dict[str, Any]:
    """Run everything once, after a broker's first seconds."""
    async with AsyncExitStack() as stack:
        with run_broker() as broker:
            broker.create_topic(_TOPIC)
            ksqldb, operator = await FakeKsqldb().start(), await FakeOperator().start()
            stack.push_async_callback(ksqldb.stop)
            stack.push_async_callback(operator.stop)
            for number in range(_ASSETS):
                await ksqldb.put(f"A{number}", "Weld")
            service = await Task("Weld", broker.bootstrap).start()
            stack.push_async_callback(lambda: service.end(kill=True))
            operator.document = registry({"Weld": service.url})
            urls = {"KSQLDB_URL": ksqldb.url, "RECONCILER_URL": operator.url, "REGISTRY_FILE": "/nonexistent"}
            proxy = await Proxy(urls, constants={}).start()
            stack.push_async_callback(proxy.stop)
            await proxy.wait_ready()
            await asyncio.to_thread(produce, broker.bootstrap, 5)  # a new broker is slow at first
            few = await measure_latency(broker.bootstrap, service, proxy, _ASSETS, plan.seconds)
            many = await measure_latency(broker.bootstrap, service, proxy, plan.streams, plan.seconds)
            return {
                f"{_ASSETS}_streams": few,
                f"{plan.streams}_streams": many,
                "catch_up": await measure_catch_up(broker.bootstrap, broker.create_topic),
            }


def main() -> None:
    """Measure, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=10)
    found = json.dumps(asyncio.run(run(parser.parse_args())), indent=2)
    print(found)
    (ROOT / "bench" / "results" / "events.json").write_text(found + "\n")


if __name__ == "__main__":
    main()
