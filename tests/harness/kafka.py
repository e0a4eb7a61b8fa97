"""A real Kafka: one broker of a test run's own, from the jars that `scripts/kafka.sh` fetches.

The process is the broker and its own controller (KRaft), listens on 127.0.0.1 alone and keeps its data in a folder that
the test run removes. It ends with the test process, also if that crashes.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import (
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from tests.harness.ports import free_port
from tests.harness.processes import WITH_US

SASL_USER, SASL_PASSWORD = "factory", "fa=ct,ory 1"
Record = tuple[str | None, bytes | None, int | None]
"""Key, value (None: a tombstone) and timestamp in ms since the epoch (None: now)."""

_ROOT = Path(__file__).resolve().parents[2]
_JARS = _ROOT / "build" / "kafka"
_POM = _ROOT / "scripts" / "kafka" / "pom.xml"
_PATIENCE = 60.0
#: Less compiling and one collector thread: a test's broker lives for a minute and shares its cores.
_JAVA = ("-Xmx400m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
_LOGS = """
log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d %p %m (%c)%n
"""
# After a crash the controller takes the broker back when its earlier session has expired: 15 s by default.
_PROPERTIES = """
node.id=1
process.roles=broker,controller
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
listeners=PLAIN://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=PLAIN:PLAINTEXT,SASL:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
  required user_{user}="{password}";
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.heartbeat.interval.ms=300
broker.session.timeout.ms=3000
log.retention.check.interval.ms=500
log.segment.delete.delay.ms=500
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=2
"""
# The system ends the broker with the thread that started it: this one lives as long as the test process.
_starter = ThreadPoolExecutor(1, thread_name_prefix="kafka-starter")


def lacking() -> str:
    """Return what this machine lacks for a broker and how to get it, or nothing."""
    stamp = _JARS / f".complete-{hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]}"
    if shutil.which("java") and stamp.exists():
        return ""
    return "no Java or no jars of Kafka in build/kafka: `make kafka` gets them"


class KafkaBroker:
    """One broker that can be stopped, killed and started again with the same ports and data.

    Attributes:
        bootstrap: host and port for clients without security.
        sasl_bootstrap: host and port for clients with SASL_PLAINTEXT and PLAIN: `SASL_USER`, `SASL_PASSWORD`.
    """

    def __init__(self, folder: Path) -> None:
        """Write the configuration of a broker into an empty folder, and format its data; it does not run yet."""
        self._folder = folder
        ports = {name: free_port() for name in ("plain", "sasl", "controller")}
        self.bootstrap = f"127.0.0.1:{ports['plain']}"
        self.sasl_bootstrap = f"127.0.0.1:{ports['sasl']}"
        self._process: subprocess.Popen[bytes] | None = None
        # Connecting again at once: by default a client waits up to 10 s after some attempts.
        self._client = {"bootstrap.servers": self.bootstrap, "reconnect.backoff.max.ms": 100, "log_level": 0}
        self._admin = AdminClient(self._client)
        filled = _PROPERTIES.format(**ports, data=folder / "data", user=SASL_USER, password=SASL_PASSWORD)
        (folder / "server.properties").write_text(filled, encoding="utf-8")
        (folder / "log4j.properties").write_text(_LOGS, encoding="utf-8")
        cluster = ("-t", "ZmFjdG9yeS1mb3ItdGVzdA", "-c", str(folder / "server.properties"))
        subprocess.run([*self._java("kafka.tools.StorageTool"), "format", *cluster], check=True, capture_output=True)

    def _java(self, program: str) -> list[str]:
        logs = f"-Dlog4j.configuration=file:{self._folder}/log4j.properties"
        return ["java", *_JAVA, logs, "-cp", f"{_JARS}/*", program]

    def start(self) -> None:
        """Start it, and return when it answers.

        Raises:
            AssertionError: it ended or does not answer; with the end of its log.
        """
        assert self._process is None, "the broker runs already"
        log = self._folder / "broker.log"
        command = [*WITH_US, *self._java("kafka.Kafka"), str(self._folder / "server.properties")]
        with log.open("ab") as out:
            start = partial(subprocess.Popen, command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
            self._process = _starter.submit(start).result()
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(KafkaException):
                if self._admin.list_topics(timeout=1).brokers:
                    return
        self.kill()
        raise AssertionError("the broker does not answer: " + log.read_text(encoding="utf-8")[-2000:])

    @property
    def running(self) -> bool:
        """Whether it was started and neither stopped nor killed."""
        return self._process is not None

    def stop(self) -> None:
        """Have it end in order, and wait for that."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash does; without an effect if it does not run."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(_PATIENCE)
        finally:
            process.kill()
            process.wait()

    def create_topic(self, name: str, partitions: int = 1, **config: Any) -> None:
        """Create a topic and wait until it can be written.

        Args:
            name: of the topic.
            partitions: how many.
            config: of the topic, with ``_`` for ``.``: ``retention_ms=1000``.
        """
        properties = {key.replace("_", "."): str(value) for key, value in config.items()}
        topic = NewTopic(name, partitions, 1, config=properties)
        _done(self._admin.create_topics([topic]))
        self._until(lambda: self._leaders(name) == partitions, f"{name} has no {partitions} partitions with a leader")

    def delete_topic(self, name: str) -> None:
        """Delete a topic and wait until it is gone."""
        _done(self._admin.delete_topics([name]))
        self._until(lambda: self._leaders(name) == 0, f"{name} is still there")

    def add_partitions(self, name: str, total: int) -> None:
        """Give a topic more partitions, up to ``total``, and wait until they can be written."""
        _done(self._admin.create_partitions([NewPartitions(name, total)]))
        self._until(lambda: self._leaders(name) == total, f"{name} has no {total} partitions with a leader")

    def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Delete each partition's records before an offset, as retention does; -1 deletes all."""
        _done(self._admin.delete_records([TopicPartition(topic, number, at) for number, at in before.items()]))

    def produce(self, topic: str, records: Iterable[Record], partition: int | None = None) -> list[int]:
        """Write records and wait until the broker has them all.

        Args:
            topic: that exists.
            records: key, value and timestamp of each.
            partition: to write to; None has the key decide, as Kafka's own clients do.

        Returns:
            The offset of each record, in the order of the records.

        Raises:
            KafkaException: the broker refused one, or does not answer.
        """
        options = {**self._client, "partitioner": "murmur2_random", "linger.ms": 1, "message.max.bytes": 16 << 20,
                   "topic.metadata.propagation.max.ms": 1000}  # fmt: skip
        # One producer for each call: one that lives on remembers a topic that was deleted and made again.
        producer = Producer({**options, "delivery.timeout.ms": int(_PATIENCE * 1000)})
        offsets: dict[int, int] = {}

        def note(number: int, error: KafkaError | None, message: Message) -> None:
            if error is not None:
                raise KafkaException(error)
            offsets[number] = message.offset()

        place = {} if partition is None else {"partition": partition}
        for number, (key, value, timestamp) in enumerate(records):
            fields = {"key": key, "value": value, "timestamp": timestamp or 0, **place}
            with contextlib.suppress(BufferError):
                producer.produce(topic, on_delivery=partial(note, number), **fields)
                continue
            producer.flush(_PATIENCE)  # as many wait as the producer can hold
            producer.produce(topic, on_delivery=partial(note, number), **fields)
        assert producer.flush(_PATIENCE) == 0, f"the broker did not take all records of {topic}"
        return [offsets[number] for number in sorted(offsets)]

    def shares(self, group_id: str) -> list[int]:
        """Return how many partitions each member of a consumer group has, in order; empty while it has not settled."""
        group = self._admin.describe_consumer_groups([group_id])[group_id].result(_PATIENCE)
        members = group.members if group.state is ConsumerGroupState.STABLE else []
        return sorted(len(member.assignment.topic_partitions) for member in members)

    def committed(self, group_id: str, topic: str) -> dict[int, int]:
        """Return the next offset of each partition of a topic that a consumer group has committed."""
        asked = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group_id)])
        found = asked[group_id].result(_PATIENCE).topic_partitions or []
        return {each.partition: each.offset for each in found if each.topic == topic}

    def _leaders(self, name: str) -> int:
        # Asked for by its name, a topic that was just deleted would be remembered as missing.
        topic = self._admin.list_topics(timeout=_PATIENCE).topics.get(name)
        return 0 if topic is None else sum(part.leader >= 0 for part in topic.partitions.values())

    def _until(self, condition: Callable[[], bool], reason: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            assert time.monotonic() < deadline, reason
            time.sleep(0.02)


def _done(futures: Mapping[Any, Future[Any]]) -> None:
    for future in futures.values():
        future.result(_PATIENCE)
