"""The group service while Kafka's topic or broker goes: expiry, deletion, restart, and what is told about it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.harness.group_service import group_service
from tests.harness.kafka import KafkaBroker
from tests.kafka.test_group_service import Plant

pytestmark = pytest.mark.kafka


@pytest.fixture
def plant(kafka: KafkaBroker) -> Plant:
    """A topic with one partition."""
    return Plant(kafka)


def test_expired_records_are_told_as_a_gap(plant: Plant, tmp_path: Path) -> None:
    """What retention has removed is named exactly, and the rest follows; the gap is not told twice."""
    plant.produce("A", 100)
    plant.kafka.delete_records(plant.topic, {0: 60})
    for history in ("32MiB", "0"):
        with group_service(tmp_path / history, **plant.settings(history_bytes=history)) as service:
            service.wait_ready()
            client = service.stream("A", f"{plant.slug}/0/9").wait_live()
            assert client.values == plant.sent["A"][60:]
            end = f"{plant.slug}/0/59"
            assert client.gaps == [{"from": f"{plant.slug}/0/9", "to": end, "reason": "expired"}]
            assert client.blocks[0].id == end
            again = service.stream("A", end).wait_live()
            assert (again.values, again.gaps) == (plant.sent["A"][60:], [])


def test_more_than_the_limit_is_told_as_a_gap(plant: Plant, tmp_path: Path) -> None:
    """The newest records are sent, the older ones are named."""
    plant.produce("A", 100)
    with group_service(tmp_path / "log", **plant.settings(history_bytes="0", replay_limit=30)) as service:
        client = service.wait_ready().stream("A", f"{plant.slug}/0/9").wait_live()
        assert client.values == plant.sent["A"][70:]
        assert client.gaps == [{"from": f"{plant.slug}/0/9", "to": f"{plant.slug}/0/69", "reason": "limit"}]
        assert service.metric("gaps_total", reason="limit") == 1


def test_the_broker_restarts_under_open_streams(plant: Plant, tmp_path: Path) -> None:
    """Streams stay open, /ready tells it and recovers, and no event is lost; a client that resumes meanwhile waits."""
    plant.produce("A", 10)
    with group_service(tmp_path / "log", **plant.settings(history_bytes="0")) as service:
        client = service.wait_ready().stream("A").wait_live()
        plant.kafka.stop()
        try:
            service.wait_issue("Kafka does not answer")
            waiting = service.stream("A", f"{plant.slug}/0/4")
        finally:
            plant.kafka.start()
        plant.produce("A", 5)
        client.wait_values(plant.sent["A"][10:])
        waiting.wait_values(plant.sent["A"][5:])
        service.wait_ready()
        assert not client.ended
        assert not client.gaps + waiting.gaps


def test_a_topic_that_is_made_later_is_served(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Without the topic the service is not ready and says why; a client of that time gets every event since then."""
    settings = {"group_name": "Late", "kafka_broker": kafka.bootstrap, "kafka_topic": "asset_stream_Late"}
    with group_service(tmp_path / "log", **settings) as service:
        service.wait_issue("topic asset_stream_Late does not exist")
        client = service.stream("A")
        time.sleep(0.002)  # events of the next millisecond
        kafka.create_topic("asset_stream_Late")
        kafka.produce("asset_stream_Late", [("A", b"first", None)])
        client.wait_values(["first"])
        service.wait_ready()
        assert not client.gaps


@pytest.mark.parametrize("history", ["32MiB", "0"])
def test_a_topic_that_is_deleted_and_made_again(plant: Plant, tmp_path: Path, history: str) -> None:
    """Live streams stay open and are told; the new topic is served from its beginning, without what they have."""
    plant.produce("A", 10)
    with group_service(tmp_path / "log", **plant.settings(history_bytes=history)) as service:
        service.wait_ready().stream("A", f"{plant.slug}/0/3").wait_values(plant.sent["A"][4:])
        client = service.stream("A").wait_live()
        plant.produce("A", 1)
        client.wait_values(plant.sent["A"][10:])
        old = client.last_id
        plant.kafka.delete_topic(plant.topic)
        service.wait_issue(f"topic {plant.topic} does not exist")
        plant.kafka.create_topic(plant.topic)
        old_ms = int(old.partition("@")[2])
        again = plant.sent["A"][10].encode()
        plant.kafka.produce(plant.topic, [("A", b"old", old_ms - 60_000), ("A", again, old_ms), ("A", b"new", None)])
        client.wait_values([plant.sent["A"][10], "new"])
        assert [gap["reason"] for gap in client.gaps] == ["recreated"]
        assert client.gaps[0] == {"from": old, "to": f"{plant.slug}/0/-1", "reason": "recreated"}
        service.wait_ready()
        resumed = service.stream("A", old).wait_live()
        assert resumed.values == ["new"]
        assert [gap["reason"] for gap in resumed.gaps] == ["recreated"]


@pytest.mark.parametrize("count", [3, 40])
def test_an_id_of_an_earlier_topic_is_recognized(plant: Plant, tmp_path: Path, count: int) -> None:
    """Beyond the end, or at a record with another timestamp: from memory and from Kafka, it is told."""
    now = int(time.time() * 1000)
    plant.kafka.produce(plant.topic, [("A", b"%d" % n, now + n) for n in range(count)])
    for history in ("32MiB", "0"):
        with group_service(tmp_path / f"{history}", **plant.settings(history_bytes=history)) as service:
            service.wait_ready()
            given = f"{plant.slug}/0/20@{now - 50_000}"
            client = service.stream("A", given).wait_live()
            assert client.values == [str(n) for n in range(count)]
            assert client.gaps == [{"from": given, "to": f"{plant.slug}/0/-1", "reason": "recreated"}]
            assert service.metric("gaps_total", reason="recreated") == 1
