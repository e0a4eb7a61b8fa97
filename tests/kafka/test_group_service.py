"""The group service with a real Kafka: replicas, resume, several partitions, large events, SASL, slow clients."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.group_service import GroupService, group_service, kafka_settings, wait_for
from tests.harness.kafka import SASL_PASSWORD, SASL_USER, KafkaBroker

pytestmark = pytest.mark.kafka
_numbers = itertools.count()


class Plant:
    """A topic of a test's own, and what is produced to it."""

    def __init__(self, kafka: KafkaBroker, partitions: int = 1, **config: Any) -> None:
        """Create the topic."""
        self.kafka = kafka
        self.slug = f"Weld{next(_numbers)}"
        self.topic = f"asset_stream_{self.slug}"
        self.sent: dict[str, list[str]] = {}
        kafka.create_topic(self.topic, partitions, **config)

    def produce(self, asset: str, count: int, size: int = 0) -> None:
        """Write the next events of an asset; each has its number and an id of a data item."""
        values = []
        for _ in range(count):
            number = len(self.sent.setdefault(asset, []))
            text = json.dumps({"ID": f"item{number % 2}", "asset": asset, "n": number, "fill": "x" * size})
            self.sent[asset].append(text)
            values.append((asset, text.encode(), None))
        self.kafka.produce(self.topic, values)

    def settings(self, **settings: Any) -> dict[str, Any]:
        """Return the settings of a replica."""
        return {**kafka_settings(self.kafka.bootstrap, self.slug), **settings}


@pytest.fixture
def plant(kafka: KafkaBroker) -> Plant:
    """A topic with one partition."""
    return Plant(kafka)


@pytest.fixture
def service(plant: Plant, tmp_path: Path) -> Iterator[GroupService]:
    """A replica with 20 earlier events of two assets."""
    plant.produce("A", 10)
    plant.produce("B", 10)
    with group_service(tmp_path / "log", **plant.settings()) as replica:
        yield replica.wait_ready()


def test_a_new_client_gets_what_comes_and_nothing_earlier(service: GroupService, plant: Plant) -> None:
    """Events of other assets and from before the request are not sent; data is the record's value."""
    client = service.stream("A").wait_live()
    plant.produce("B", 3)
    plant.produce("A", 3)
    client.wait_values(plant.sent["A"][10:])
    assert client.headers["X-OpenFactory-Group"] == plant.slug
    assert client.headers["Content-Type"].startswith("text/event-stream")


def test_both_replicas_serve_everything(service: GroupService, plant: Plant, tmp_path: Path) -> None:
    """Two replicas with the same consumer group id each deliver every event; a killed one's client resumes exactly."""
    settings = plant.settings(kafka_consumer_group_id="one")
    with group_service(tmp_path / "two", **settings) as second:
        clients = [service.stream("A").wait_live(), second.wait_ready().stream("A").wait_live()]
        plant.produce("A", 50)
        for client in clients:
            client.wait_values(plant.sent["A"][10:])
        service.kill()
        wait_for(lambda: clients[0].ended, "the stream of the killed replica ends")
        plant.produce("A", 5)
        resumed = second.stream("A", clients[0].last_id).wait_live()
        resumed.wait_values(plant.sent["A"][60:])
        assert not resumed.gaps


@pytest.mark.parametrize("history", ["32MiB", "0"])
def test_resume_is_exact_while_new_events_come(plant: Plant, tmp_path: Path, history: str) -> None:
    """From memory and from Kafka, a client that reconnects again and again gets each event once."""
    plant.produce("A", 500)
    with group_service(tmp_path / "log", **plant.settings(history_bytes=history)) as service:
        service.wait_ready()
        first = service.stream("A", f"{plant.slug}/0/-1")
        first.wait_values(plant.sent["A"])
        producing = threading.Event()
        values, last_id, connections = list(first.values), first.last_id, 0

        def produce() -> None:
            for _ in range(30):
                plant.produce("A", 20)
                plant.produce("B", 20)
            producing.set()

        thread = threading.Thread(target=produce)
        thread.start()
        while not producing.is_set() or connections < 10:
            client = service.stream("A", last_id)
            time.sleep(0.05)
            client.close()
            wait_for(lambda one=client: one.ended, "the client has left")  # type: ignore[misc]
            values += client.values
            last_id = client.last_id
            connections += 1
            assert not client.gaps
        thread.join()
        last = service.stream("A", last_id).wait_live()
        assert values + last.values == plant.sent["A"]
        assert (service.metric("replays_total") > 0) == (history == "0")


def test_a_client_of_one_data_item_gets_only_its_events(service: GroupService, plant: Plant) -> None:
    """``id`` filters live events and replayed ones."""
    client = service.stream("A", f"{plant.slug}/0/-1", id="item1").wait_live()
    plant.produce("A", 4)
    client.wait_values(plant.sent["A"][1::2])


def test_since_and_a_time_as_id_begin_at_a_time(plant: Plant, tmp_path: Path) -> None:
    """``since`` and ``@<ms>`` give the events from a time on, from memory and from Kafka; the header wins."""
    hour_ago = int(time.time() * 1000) - 3_600_000
    records = [("A", f'{{"n":{n}}}'.encode(), hour_ago + n * 60_000) for n in range(50)]
    plant.kafka.produce(plant.topic, records)
    expected = [value.decode() for _, value, _ in records[30:]]
    for history in ("32MiB", "0"):
        with group_service(tmp_path / history, **plant.settings(history_bytes=history)) as service:
            service.wait_ready()
            at = hour_ago + 30 * 60_000
            assert service.stream("A", f"@{at}").wait_live().values == expected
            assert service.stream("A", f"@{at}", since="1s").wait_live().values == expected
            assert service.stream("A", lastEventId=f"@{at}").wait_live().values == expected
            assert service.stream("A", since="1799s").wait_live().values == expected[1:]
            assert service.stream("A", f"@{int(time.time() * 1000)}").wait_live().values == []


def test_several_partitions_are_served_and_resumed_exactly(kafka: KafkaBroker, tmp_path: Path) -> None:
    """A stream of the whole group resumes in all partitions, one of an asset in its own; new partitions join."""
    plant = Plant(kafka, partitions=3)
    for asset in "ABCDEF":
        plant.produce(asset, 40)
    with group_service(tmp_path / "log", **plant.settings(history_bytes="0")) as service:
        service.wait_ready()
        everything = service.stream(None, since="1h").wait_live()
        assert sorted(everything.values) == sorted(itertools.chain(*plant.sent.values()))
        middle = [block.id for block in everything.blocks][120]
        rest = service.stream(None, middle).wait_live()
        assert sorted(everything.values[121:]) == sorted(rest.values)
        own = service.stream("C", since="1h").wait_live()
        assert own.values == plant.sent["C"]
        assert service.stream("C", own.blocks[9].id).wait_live().values == plant.sent["C"][10:]
        live = service.stream(None).wait_live()
        kafka.add_partitions(plant.topic, 4)
        wait_for(lambda: "3:-1" in service.stream(None).wait_live().last_id, "the new partition is known")
        kafka.produce(plant.topic, [("G", b"new", None)], partition=3)
        kafka.produce(plant.topic, [("G", b"next", None)], partition=3)
        live.wait_values(["new", "next"])
        assert service.stream(None, live.blocks[0].id).wait_live().values == ["next"]


def test_events_of_a_megabyte_arrive_live_and_replayed(kafka: KafkaBroker, tmp_path: Path) -> None:
    """An event may be larger than the buffer of a client."""
    plant = Plant(kafka, max_message_bytes=8 << 20)
    with group_service(tmp_path / "log", **plant.settings(history_bytes="4MiB", client_buffer="64KiB")) as service:
        service.wait_ready()
        client = service.stream("A").wait_live()
        for _ in range(8):
            plant.produce("A", 1, size=1_000_000)
            wait_for(lambda: len(client.values) == len(plant.sent["A"]) or client.ended, "the event is here")
        client.wait_values(plant.sent["A"])
        assert service.stream("A", f"{plant.slug}/0/-1").wait_live().values == plant.sent["A"]


def test_sasl_by_a_configuration_file(kafka: KafkaBroker, plant: Plant, tmp_path: Path) -> None:
    """The file's properties reach every connection; a wrong password is told by /ready and never shown."""
    plant.produce("A", 3)
    secure = tmp_path / "client.properties"
    lines = "# factory\nsecurity.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.username={}\nsasl.password={}\n"
    secure.write_text(lines.format(SASL_USER, SASL_PASSWORD))
    settings = {**plant.settings(history_bytes="0"), "kafka_broker": kafka.sasl_bootstrap, "kafka_config_file": secure}
    with group_service(tmp_path / "log", **settings) as service:
        service.wait_ready()
        assert service.stream("A", f"{plant.slug}/0/0").wait_live().values == plant.sent["A"][1:]
    secure.write_text(lines.format(SASL_USER, "wrong-word"))
    with group_service(tmp_path / "log2", **settings) as service:
        service.wait_issue("Authentication failed")
        assert "wrong-word" not in service.get("/ready")[1] + (tmp_path / "log2").read_text()


def test_a_slow_client_is_cut_and_resumes_and_others_do_not_wait(plant: Plant, tmp_path: Path) -> None:
    """A client that reads nothing is cut at its buffer's limit; the other one gets every event."""
    with group_service(tmp_path / "log", **plant.settings(client_buffer="64KiB")) as service:
        service.wait_ready()
        client = service.stream("A").wait_live()
        slow = socket.create_connection(("127.0.0.1", service.port))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        slow.sendall(b"GET /asset_stream?asset_uuid=A HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: service.metric("clients") == 2, "the slow client is connected")
        while not service.metric("clients_cut_total"):
            plant.produce("A", 20, size=20_000)
        client.wait_values(plant.sent["A"])
        wait_for(lambda: service.metric("clients") == 1, "the slow client is forgotten")
        slow.close()


def test_readiness_is_asked_often_while_events_flow(service: GroupService, plant: Plant) -> None:
    """/ready never blocks the reader: no other thread touches its consumer."""
    client = service.stream("A").wait_live()
    for _ in range(10):
        plant.produce("A", 10)
        for _ in range(20):
            assert service.get("/ready") == (200, json.dumps({"status": "ready", "group": plant.slug}))
    client.wait_values(plant.sent["A"][10:])


def test_streams_end_cleanly_at_sigterm(service: GroupService) -> None:
    """A client sees the end of the response, not a broken connection, and the exit code is 0."""
    client = service.stream("A").wait_live()
    assert service.end() == 0
    wait_for(lambda: client.ended, "the stream ends")
    assert client.ended == "clean"
