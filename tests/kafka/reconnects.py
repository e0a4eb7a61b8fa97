"""Clients that count every event, while everything between Kafka and them is replaced.

A real broker, the group service and the proxy as processes, and a producer that numbers the events of each asset. What
cuts the clients off: a replaced task, the other replica, a proxy that restarts, an asset that moves, a stream whose
definition changes. Each client must have received every number once and in order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Producer

from tests.harness.coroutines import PATIENCE
from tests.harness.kafka import KafkaBroker
from tests.harness.ports import free_port
from tests.integration.routing_layer.fake_sources import FakeKsqldb, FakeOperator, registry
from tests.integration.routing_layer.proxy_system import ROOT, Proxy, Response
from tests.integration.routing_layer.sse_parser import EventParser

GROUPS = ("Weld", "Paint")
#: Seconds between two events of one asset.
_PACE = 0.05
#: How many of its last events a stream writes again when it is created again from the beginning of its source.
_REPEATED = 40
#: Events of an asset that a moved stream's query still writes after the mapping has changed, at most.
_LATE = 3


class NumberedEvents:
    """Writes numbered events of each asset to the topic of its group, from a thread of its own.

    Attributes:
        group_of: the group of each asset.
        sent: the last number of each asset.
    """

    def __init__(self, bootstrap: str, assets: list[str]) -> None:
        """Assign the assets to the groups in turn."""
        self.group_of = {asset: GROUPS[index % 2] for index, asset in enumerate(assets)}
        self.sent = dict.fromkeys(assets, 0)
        self._recent: dict[str, deque[tuple[str, bytes, int]]] = {group: deque(maxlen=_REPEATED) for group in GROUPS}
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 0,
                "reconnect.backoff.max.ms": 200,
                "log_level": 0,
            }
        )
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write no more, and wait until the broker has everything."""
        self._ended.set()
        self._thread.join()
        assert self._producer.flush(PATIENCE) == 0, "the broker did not take all events"

    def move(self, asset: str, late: int, dice: random.Random) -> None:
        """Map an asset to the other group; the old stream's query writes ``late`` more events a moment later."""
        with self._lock:
            old = self.group_of[asset]
            delayed = [self._make(asset) for _ in range(late)]
            self.group_of[asset] = next(group for group in GROUPS if group != old)
        time.sleep(dice.uniform(0, 0.3))
        with self._lock:
            for record in delayed:
                self._write(old, *record)
        self._producer.flush(PATIENCE)

    def repeat(self, group: str) -> None:
        """Write a group's last events again, as a stream does that is created again from its source's beginning."""
        with self._lock:
            for asset, value, ms in list(self._recent[group]):
                self._producer.produce(f"asset_stream_{group}", value, asset, timestamp=ms)

    def _make(self, asset: str) -> tuple[str, bytes, int]:
        self.sent[asset] += 1
        value = {"asset_uuid": asset, "id": "n", "value": str(self.sent[asset]), "type": "Samples", "tag": "N"}
        return asset, json.dumps(value).encode(), time.time_ns() // 1_000_000

    def _write(self, group: str, asset: str, value: bytes, ms: int) -> None:
        self._producer.produce(f"asset_stream_{group}", value, asset, timestamp=ms)
        self._recent[group].append((asset, value, ms))

    def _run(self) -> None:
        while not self._ended.wait(_PACE):
            with self._lock:
                for asset, group in self.group_of.items():
                    self._write(group, *self._make(asset))
            self._producer.poll(0)


class Client:
    """An event source that notes the number of every event, and comes back when it is cut off.

    Attributes:
        numbers: of the events, in the order in which they came.
        gaps: the data of gap events.
        connects: how often it was served.
    """

    def __init__(self, asset: str, port: Callable[[], int]) -> None:
        """Follow an asset through the proxy at ``port``."""
        self.asset = asset
        self.numbers: list[int] = []
        self.gaps: list[str] = []
        self.connects = 0
        self._port = port
        self._last_id = ""

    async def run(self) -> None:
        """Follow until it is cancelled."""
        while True:
            writer: asyncio.StreamWriter | None = None
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port(), limit=4 * 1024 * 1024)
                await self._follow(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                if writer is not None:
                    writer.transport.abort()
            await asyncio.sleep(0.05)

    async def _follow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = [f"GET /asset_stream?asset_uuid={self.asset} HTTP/1.1", "Host: proxy", "Accept: text/event-stream"]
        lines += [f"Last-Event-ID: {self._last_id}"] if self._last_id else []
        writer.write("\r\n".join([*lines, "", ""]).encode())
        response = Response(reader, writer, await reader.readuntil(b"\r\n\r\n"))
        if response.status != 200:
            return
        self.connects += 1
        parser = EventParser()
        while data := await response.piece():
            events = parser.feed(data)
            for event in events:
                if event.type == "gap":
                    self.gaps.append(event.data)
                else:
                    self.numbers.append(int(json.loads(event.data)["value"]))
            self._last_id = parser.last_id or self._last_id

    def faults(self, last: int) -> list[str]:
        """Return what is wrong with what it received, given the number of the asset's last event."""
        return [*find_faults(self.numbers, last), *(f"gap {gap}" for gap in self.gaps[:1])]


def find_faults(numbers: list[int], last: int) -> list[str]:
    """Return what is lost, twice or out of order from the first number to the last event's."""
    if not numbers:
        return ["nothing received"]
    counted = Counter(numbers)
    lost = [number for number in range(numbers[0], last + 1) if number not in counted]
    twice = [number for number, times in counted.items() if times > 1]
    found = [f"lost {lost[:5]} ({len(lost)})"] if lost else []
    found += [f"twice {twice[:5]} ({len(twice)})"] if twice else []
    return found or (["out of order"] if numbers != sorted(numbers) else [])


class Task:
    """A group service as a process."""

    def __init__(self, group: str, bootstrap: str, **variables: str) -> None:
        """Prepare one with a port of its own."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/asset_stream"
        base = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        self._environment = {
            **base,
            "GROUP_NAME": group,
            "KAFKA_BROKER": bootstrap,
            "KAFKA_TOPIC": f"asset_stream_{group}",
            "PORT": str(self.port),
            "LOG_LEVEL": "critical",
            **variables,
        }
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> Task:
        """Start it and wait until it is ready."""
        command = (sys.executable, "-m", "group_service")
        self.process = await asyncio.create_subprocess_exec(*command, env=self._environment, cwd=ROOT)
        async with asyncio.timeout(PATIENCE):
            while not await self._is_ready():
                assert self.process.returncode is None, "the group service ended"
                await asyncio.sleep(0.05)
        return self

    async def _is_ready(self) -> bool:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(b"GET /ready HTTP/1.1\r\nHost: service\r\nConnection: close\r\n\r\n")
            head = await reader.readuntil(b"\r\n")
            writer.transport.abort()
            return b" 200 " in head
        return False

    async def end(self, *, kill: bool) -> None:
        """Stop it as the engine does, or kill it."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill() if kill else self.process.terminate()
            await self.process.wait()


@dataclass
class Torture:
    """The whole chain, and what may happen to it.

    Attributes:
        broker: where the events go; topics are created by `start`.
        dice: decides what happens.
        clients: how many follow.
        happened: how often each cause cut clients off.
    """

    broker: KafkaBroker
    dice: random.Random
    clients: int = 50
    happened: Counter[str] = field(default_factory=Counter)

    async def start(self) -> None:
        """Start everything and let the clients connect."""
        assets = [f"ASSET-{number:02}" for number in range(10)]
        for group in GROUPS:
            self.broker.create_topic(f"asset_stream_{group}", partitions=1 if group == "Weld" else 3)
        self.ksqldb, self.operator = await FakeKsqldb().start(), await FakeOperator().start()
        self.events = NumberedEvents(self.broker.bootstrap, assets)
        for asset, group in self.events.group_of.items():
            await self.ksqldb.put(asset, group)
        started = await asyncio.gather(*(Task(group, self.broker.bootstrap).start() for group in (*GROUPS, *GROUPS)))
        #: The two replicas of each group; the registry names the first.
        self.tasks = {group: [started[index], started[index + 2]] for index, group in enumerate(GROUPS)}
        self._publish()
        environment = {
            "KSQLDB_URL": self.ksqldb.url,
            "RECONCILER_URL": self.operator.url,
            "REGISTRY_FILE": "/nonexistent",
            "REGISTRY_POLL": "0.1",
            "DRAIN_SECONDS": "0.3",
        }
        self.proxy = await Proxy(environment).start()
        await self.proxy.wait_ready()
        self.events.start()
        self.followers = [Client(assets[index % len(assets)], lambda: self.proxy.port) for index in range(self.clients)]
        self._following = [asyncio.create_task(client.run()) for client in self.followers]
        await self._wait(lambda: all(client.numbers for client in self.followers), "the first events")

    async def stop(self) -> None:
        """End everything that `start` started, also after a failure."""
        for task in getattr(self, "_following", ()):
            task.cancel()
        for tasks in getattr(self, "tasks", {}).values():
            for task in tasks:
                await task.end(kill=True)
        for group in GROUPS:
            await asyncio.to_thread(self.broker.delete_topic, f"asset_stream_{group}")
        for part in ("proxy", "ksqldb", "operator"):
            if (running := getattr(self, part, None)) is not None:
                await running.stop()

    @property
    def reconnects(self) -> int:
        """How often clients have come back."""
        return sum(client.connects - 1 for client in self.followers)

    async def happen(self) -> None:
        """Let one thing happen that cuts clients off."""
        causes = (self.replace_task, self.lose_replica, self.restart_proxy, self.move_assets, self.change_definition)
        cause = causes[sum(self.happened.values()) % len(causes)]  # each as often as the others
        self.happened[cause.__name__] += 1
        await cause()
        await asyncio.sleep(self.dice.uniform(0.1, 0.6))

    async def replace_task(self, group: str = "") -> None:
        """Update a group's service, the new task first."""
        group = group or self.dice.choice(GROUPS)
        old = self.tasks[group][0]
        self.tasks[group][0] = await Task(group, self.broker.bootstrap).start()
        self._publish()
        await asyncio.sleep(0.3)  # until the proxy has the registry
        await old.end(kill=False)

    async def lose_replica(self, group: str = "") -> None:
        """Kill the replica that has the clients: they come back to the other one."""
        group = group or self.dice.choice(GROUPS)
        lost, other = self.tasks[group]
        self.tasks[group] = [other]
        self._publish()
        await lost.end(kill=True)
        self.tasks[group].append(await Task(group, self.broker.bootstrap).start())

    async def restart_proxy(self) -> None:
        """Restart the proxy, in order or killed."""
        if self.dice.random() < 0.5:
            self.proxy.terminate()
            await self.proxy.exit_code()
        else:
            await self.proxy.stop()
        await self.proxy.start()

    async def move_assets(self) -> None:
        """Map some assets to the other group."""
        for asset in self.dice.sample(sorted(self.events.group_of), 3):
            await self.move(asset)

    async def move(self, asset: str) -> None:
        """Map an asset to the other group; the old stream's query writes on for a moment."""
        late = self.dice.randint(0, _LATE)
        moving = asyncio.create_task(asyncio.to_thread(self.events.move, asset, late, self.dice))
        await asyncio.sleep(self.dice.uniform(0, 0.2))
        await self.ksqldb.put(asset, self.events.group_of[asset])
        await moving

    async def change_definition(self, group: str = "") -> None:
        """Create a group's stream again from the beginning of its source, and replace the task as well."""
        group = group or self.dice.choice(GROUPS)
        await asyncio.to_thread(self.events.repeat, group)
        await self.replace_task(group)

    async def judge(self) -> list[str]:
        """Stop the producer, wait for the last events, and return what is wrong."""
        await asyncio.to_thread(self.events.stop)
        last = self.events.sent
        with contextlib.suppress(TimeoutError):
            await self._wait(
                lambda: all(last[client.asset] in client.numbers[-50:] for client in self.followers), "the last events"
            )
        await asyncio.sleep(0.5)  # what comes twice comes now
        return [
            f"client {index} of {client.asset}: {', '.join(faults)}"
            for index, client in enumerate(self.followers)
            if (faults := client.faults(last[client.asset]))
        ]

    def _publish(self) -> None:
        self.operator.document = registry({group: self.tasks[group][0].url for group in GROUPS})

    async def _wait(self, reached: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not reached():  # noqa: ASYNC110 - other processes reach it
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise TimeoutError(f"waited {PATIENCE:g} s for {what}") from None


async def run(broker: KafkaBroker, seed: int, reconnects: int, say: Callable[[str], None]) -> list[str]:
    """Cut clients off until they have come back ``reconnects`` times; return what is wrong."""
    torture = Torture(broker, random.Random(seed))  # noqa: S311 - repeatable on purpose
    try:
        await torture.start()
        while torture.reconnects < reconnects or len(torture.happened) < len(GROUPS) + 3:
            await torture.happen()
            say(f"{torture.reconnects} reconnects, {sum(torture.events.sent.values())} events")
        wrong = await torture.judge()
        say(f"{torture.reconnects} reconnects by {dict(torture.happened)}; {len(wrong)} clients with faults")
        return wrong
    finally:
        await torture.stop()


@contextlib.contextmanager
def run_broker() -> Iterator[KafkaBroker]:
    """Run a broker of this process's own."""
    with tempfile.TemporaryDirectory() as folder:
        broker = KafkaBroker(Path(folder))
        broker.start()
        try:
            yield broker
        finally:
            broker.kill()


def main() -> int:
    """Run as asked for; return 1 if something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.kafka.reconnects", description=__doc__.partition("\n")[0])
    parser.add_argument("--reconnects", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args()
    print(f"reconnects: seed {asked.seed}", flush=True)  # noqa: T201 - a program
    with run_broker() as broker:
        wrong = asyncio.run(run(broker, asked.seed, asked.reconnects, lambda line: print(line, flush=True)))  # noqa: T201
    print("\n".join(wrong))  # noqa: T201 - a program
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
