"""The broker that the tests with a real Kafka stand on does what they need of it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.harness.kafka import SASL_PASSWORD, SASL_USER, KafkaBroker

pytestmark = pytest.mark.kafka
_PATIENCE = 30.0


@pytest.fixture
def topic() -> str:
    """A topic's name that no other test has."""
    return f"t-{uuid.uuid4().hex[:8]}"


def read(bootstrap: str, topic: str, count: int, partition: int = 0, **options: Any) -> list[tuple[Any, ...]]:
    """Return (offset, timestamp, key, value) of so many records from the first that a partition has."""
    base = {"bootstrap.servers": bootstrap, "group.id": "t", "enable.auto.commit": False, "log_level": 0}
    consumer = Consumer({**base, "auto.offset.reset": "earliest", **options})
    consumer.assign([TopicPartition(topic, partition, 0)])
    deadline, records = time.monotonic() + _PATIENCE, []
    while len(records) < count and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            records.append((message.offset(), message.timestamp()[1], message.key(), message.value()))
    consumer.close()
    return records


def test_records_arrive_with_key_value_and_time(kafka: KafkaBroker, topic: str) -> None:
    """What is written is read: offsets from 0, the given time, a tombstone as one."""
    kafka.create_topic(topic)
    before = time.time_ns() // 1_000_000
    assert kafka.produce(topic, [("a", b"1", 1_000_000), ("b", None, 2_000_000), (None, b"3", None)]) == [0, 1, 2]
    *dated, undated = read(kafka.bootstrap, topic, 3)
    assert dated == [(0, 1_000_000, b"a", b"1"), (1, 2_000_000, b"b", None)]
    assert undated[2:] == (None, b"3")
    assert before <= undated[1] <= time.time_ns() // 1_000_000


def test_a_restart_keeps_data_and_ports(kafka: KafkaBroker, topic: str) -> None:
    """After an orderly end and after a crash the same address serves the same records, and offsets go on."""
    kafka.create_topic(topic, partitions=2)
    for number, end in enumerate((kafka.stop, kafka.kill)):
        assert kafka.produce(topic, [("a", b"%d" % number, None)], partition=1) == [number]
        end()
        assert not kafka.running
        kafka.start()
    assert [value for *_, value in read(kafka.bootstrap, topic, 2, partition=1)] == [b"0", b"1"]


def test_deleted_records_and_topics(kafka: KafkaBroker, topic: str) -> None:
    """Records before an offset go, and a topic that is deleted and made again begins at 0."""
    kafka.create_topic(topic, retention_ms=3_600_000)
    kafka.produce(topic, [("a", b"%d" % number, None) for number in range(5)])
    kafka.delete_records(topic, {0: 3})
    assert [offset for offset, *_ in read(kafka.bootstrap, topic, 2)] == [3, 4]
    kafka.delete_topic(topic)
    with pytest.raises(KafkaException):
        kafka.produce(topic, [("a", b"lost", None)], partition=0)
    kafka.create_topic(topic)
    assert kafka.produce(topic, [("a", b"new", None)]) == [0]
    assert [value for *_, value in read(kafka.bootstrap, topic, 1)] == [b"new"]


def test_a_topic_gets_more_partitions(kafka: KafkaBroker, topic: str) -> None:
    """A partition that is added can be written and read."""
    kafka.create_topic(topic)
    kafka.add_partitions(topic, 3)
    kafka.produce(topic, [("a", b"1", None)], partition=2)
    assert [value for *_, value in read(kafka.bootstrap, topic, 1, partition=2)] == [b"1"]


def test_sasl(kafka: KafkaBroker, topic: str) -> None:
    """The second listener serves whoever has the password, and no one else."""
    kafka.create_topic(topic)
    kafka.produce(topic, [("a", b"1", None)])
    sasl = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": SASL_USER}
    (record,) = read(kafka.sasl_bootstrap, topic, 1, **sasl, **{"sasl.password": SASL_PASSWORD})
    assert record[3] == b"1"
    stranger = Consumer({"bootstrap.servers": kafka.sasl_bootstrap, "group.id": "t", "log_level": 0, **sasl,
                         "sasl.password": "wrong"})  # fmt: skip
    with pytest.raises(KafkaException):
        stranger.list_topics(topic, timeout=2)
    stranger.close()


def test_it_ends_with_a_test_process_that_crashes(kafka: KafkaBroker, tmp_path: Path) -> None:  # noqa: ARG001 - for the skip
    """A test process that is killed leaves no broker."""
    program = textwrap.dedent("""
        import os, pathlib, sys, threading
        from tests.harness.kafka import KafkaBroker
        broker = KafkaBroker(pathlib.Path(sys.argv[1]))
        starter = threading.Thread(target=broker.start)
        starter.start(), starter.join()
        print(broker._process.pid, flush=True)
        threading.Event().wait()
    """)
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        process.kill()
    deadline = time.monotonic() + _PATIENCE
    while _runs(pid):
        assert time.monotonic() < deadline, f"broker {pid} still runs"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False
    return "State:\tZ" not in status  # nobody may wait for an orphan where the container has no init
