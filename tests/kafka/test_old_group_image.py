"""The stand-in for the old system's group image has the behaviour that it stands for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.harness import old_group_image
from tests.harness.kafka import KafkaBroker
from tests.harness.ports import free_port

pytestmark = pytest.mark.kafka
_PATIENCE = 60.0
#: How long a test looks whether something does not come, after a sign that it could have come.
_SILENCE = 1.5


class Client:
    """One open stream of an asset; `data` is what its events brought."""

    def __init__(self, url: str, asset: str, item: str = "") -> None:
        """Connect, and read in a thread."""
        self.data: list[str] = []
        self.lines: list[str] = []
        self._open = threading.Event()
        query = {"asset_uuid": asset, **({"id": item} if item else {})}
        threading.Thread(target=self._read, args=(f"{url}/asset_stream", query), daemon=True).start()
        assert self._open.wait(_PATIENCE), "the stream does not begin"

    def _read(self, url: str, query: dict[str, str]) -> None:
        try:
            with httpx.stream("GET", url, params=query, timeout=_PATIENCE, trust_env=False) as response:
                self._open.set()
                for line in response.iter_lines():
                    self.lines.append(line)
                    if line.startswith("data: "):
                        self.data.append(line.removeprefix("data: "))
        except httpx.TransportError:
            pass  # the service was killed


class Image:
    """One running process."""

    def __init__(self, folder: Path, kafka: KafkaBroker, topic: str, group_id: str, **environment: str) -> None:
        """Start it, and wait until it answers HTTP."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / f"old-{port}.log"
        given = {"KAFKA_BROKER": kafka.bootstrap, "KAFKA_TOPIC": topic, "KAFKA_CONSUMER_GROUP_ID": group_id}
        with self._log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, old_group_image.__file__],
                env={**os.environ, **given, "PORT": str(port), **environment},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        eventually(self._answers, f"{self._log} does not answer")

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/asset_stream", trust_env=False).status_code == 422
        except httpx.TransportError:
            return False

    @property
    def read(self) -> list[str]:
        """A line for each record that it has read."""
        return [line for line in self._log.read_text(encoding="utf-8").splitlines() if "/" in line]

    def kill(self) -> None:
        """End it without a last word."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start(kafka: KafkaBroker, tmp_path: Path) -> Iterator[Callable[..., Image]]:
    """Start images; each gets the topic and the group id."""
    with ExitStack() as stack:

        def begin(topic: str, group_id: str, **environment: str) -> Image:
            image = Image(tmp_path, kafka, topic, group_id, **environment)
            stack.callback(image.kill)
            return image

        yield begin


@pytest.fixture
def topic(kafka: KafkaBroker) -> str:
    """A topic of one partition that no other test has."""
    name = f"asset_stream_{uuid.uuid4().hex[:8]}"
    kafka.create_topic(name)
    return name


def eventually(condition: Callable[[], bool], reason: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline, reason
        time.sleep(0.05)


def produce(kafka: KafkaBroker, topic: str, *values: str, asset: str = "A1", item: str = "temp") -> list[str]:
    """Write events of one asset; return what their data are."""
    made = [json.dumps({"id": item, "value": value}) for value in values]
    kafka.produce(topic, [(asset, text.encode(), None) for text in made])
    return made


def test_it_serves_an_assets_events_without_ids(kafka: KafkaBroker, topic: str, start: Callable[..., Image]) -> None:
    """Events of the asset and of the data item that were asked for, byte for byte, and no field `id`."""
    image = start(topic, "g1")
    whole, part = Client(image.url, "A1"), Client(image.url, "A1", item="speed")
    first = produce(kafka, topic, "1", "2")
    produce(kafka, topic, "x", asset="A2")
    last = produce(kafka, topic, "3", item="speed")
    eventually(lambda: (whole.data, part.data) == (first + last, last), f"{whole.data} {part.data}")
    assert {line.partition(":")[0] for line in whole.lines} == {"event", "data", ""}


def test_of_two_tasks_with_one_group_id_one_is_deaf(
    kafka: KafkaBroker, topic: str, start: Callable[..., Image]
) -> None:
    """One partition has one reader in a consumer group: the clients of the other task get nothing."""
    clients = [Client(start(topic, "g2").url, "A1") for _ in range(2)]
    eventually(lambda: kafka.shares("g2") == [0, 1], "the two tasks do not become one group")
    sent = produce(kafka, topic, *map(str, range(20)))
    eventually(lambda: sent in [client.data for client in clients], "neither task delivers")
    time.sleep(_SILENCE)
    assert sorted(client.data for client in clients) == [[], sent]


def test_what_came_without_a_client_comes_again_after_a_restart(
    kafka: KafkaBroker, topic: str, start: Callable[..., Image]
) -> None:
    """It commits only while someone listens."""
    image = start(topic, "g3")
    unheard = produce(kafka, topic, "1", "2")
    eventually(lambda: image.read == ["0/0 0", "0/1 0"], "it does not read")
    image.kill()

    # Its client is there before it can read.
    kafka.stop()
    again = start(topic, "g3")
    client = Client(again.url, "A1")
    kafka.start()
    eventually(lambda: client.data == unheard, f"not again: {client.data}")
    eventually(lambda: kafka.committed("g3", topic) == {0: 2}, "it does not commit")
    again.kill()

    late = Client(start(topic, "g3").url, "A1")
    new = produce(kafka, topic, "3")
    eventually(lambda: late.data == new, f"more than what is new: {late.data}")


def test_asked_for_its_readiness_it_hangs_for_good(kafka: KafkaBroker, topic: str, start: Callable[..., Image]) -> None:
    """From then on no request is answered, no event delivered, and SIGTERM does not end it."""
    image = start(topic, "g4")
    client = Client(image.url, "A1")
    sent = produce(kafka, topic, "1")
    eventually(lambda: client.data == sent, "it does not serve")
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{image.url}/ready", timeout=_SILENCE, trust_env=False)
    produce(kafka, topic, "2")
    eventually(lambda: len(image.read) == 2, "the reading thread has ended")
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{image.url}/asset_stream", timeout=_SILENCE, trust_env=False)
    assert client.data == sent
    image.process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        image.process.wait(_SILENCE)


def test_without_a_broker_it_gives_up(kafka: KafkaBroker, topic: str, start: Callable[..., Image]) -> None:
    """It stays for the time that it is given, over a short absence too, and ends with code 1."""
    kafka.stop()
    patient, impatient = start(topic, "g5"), start(topic, "g6", GIVE_UP_SECONDS="2")
    assert impatient.process.wait(_PATIENCE) == 1
    client = Client(patient.url, "A1")
    kafka.start()
    sent = produce(kafka, topic, "1")
    eventually(lambda: client.data == sent, "it does not read after the broker has come back")
