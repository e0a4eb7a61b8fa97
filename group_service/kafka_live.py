"""Follows the group's topic: one thread owns the consumer and hands what it reads to the event loop.

No other thread touches the consumer: a call from a second one can block both for ever. All partitions are assigned with
offsets of our own, in no consumer group, so every replica reads everything.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._topic import TopicDescription  # the library's own type; it is in no other module

from group_service.events import OVERHEAD, Event, Reason
from group_service.hub import Hub
from group_service.kafka_archive import event_of, kafka_log, watermarks
from group_service.kafka_config import consumer_properties

_log = structlog.get_logger()
_ANSWER_SECONDS = 5.0
_WATCH_SECONDS = 1.0
_PAUSE_SECONDS = (0.2, 1.0)
#: Records that are handed over at once: the event loop also has to serve.
_BATCH = 500
#: The last records of a partition, from which the average size is estimated.
_SAMPLE = 100
_FILL_SECONDS = 30.0


class _Rebuild(Exception):
    """The consumer has to be built again."""


class LiveReader:
    """The thread."""

    def __init__(self, hub: Hub, topic: str, brokers: str, extra: dict[str, str], history_bytes: int) -> None:
        """Read ``topic`` into ``hub``, and fill ``history_bytes`` at the start."""
        self._hub, self._topic, self._history_bytes = hub, topic, history_bytes
        self._properties = consumer_properties(brokers, extra, offset_reset="error")
        options: dict[str, Any] = {**extra, "bootstrap.servers": brokers, "error_cb": self._keep_error}
        self._admin = AdminClient(options, logger=kafka_log)
        self._last_error = ""
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live", daemon=True)
        self._topic_id = ""
        self._filled = False
        self._next: dict[int, int] = {}
        self._watch: Future[TopicDescription] | None = None
        self._watch_at = 0.0

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    async def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        await asyncio.to_thread(self._thread.join)

    # ---- in the thread

    def _run(self) -> None:
        while not self._stopped.is_set():
            consumer: Consumer | None = None
            try:
                partitions = self._wait_for_topic()
                if self._stopped.is_set():
                    return
                consumer = Consumer(self._properties, logger=kafka_log)
                self._assign(consumer, partitions)
                while not self._stopped.is_set():
                    self._check_topic(consumer)
                    self._take(consumer)
            except _Rebuild as why:
                _log.warning("reading is started again", reason=str(why))
            except KafkaException as error:
                self._say("records", f"Kafka gives no records: {error.args[0].str()}")
            except Exception as error:  # noqa: BLE001 - a bug must not leave a live service deaf for ever
                self._say("records", f"bug: {error!r}")
                _log.exception("reading failed")
            finally:
                if consumer is not None:
                    consumer.close()
            self._stopped.wait(random.uniform(*_PAUSE_SECONDS))  # noqa: S311 - spreads the replicas, no secret

    def _wait_for_topic(self) -> set[int]:
        """Return the topic's partitions as soon as it exists."""
        while not self._stopped.is_set():
            description = self._describe(wait=True)
            if description is not None:
                return {one.id for one in description.partitions}
            self._stopped.wait(_PAUSE_SECONDS[0])
        return set()

    def _describe(self, *, wait: bool) -> TopicDescription | None:
        """Ask for the topic once a second; None while there is no answer, or no topic."""
        if self._watch is None:
            if time.monotonic() < self._watch_at and not wait:
                return None
            asked = self._admin.describe_topics(TopicCollection([self._topic]), request_timeout=_ANSWER_SECONDS)
            self._watch = asked[self._topic]
        while not self._watch.done():
            self._admin.poll(0)  # calls `_keep_error`
            if not wait or self._stopped.wait(0.02):
                return None
        watch, self._watch = self._watch, None
        self._watch_at = time.monotonic() + _WATCH_SECONDS
        try:
            description = watch.result()
        except KafkaException as error:
            missing = error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
            self._say("topic", f"topic {self._topic} does not exist" if missing else "")
            self._say("kafka", "" if missing else f"Kafka does not answer: {self._last_error or error.args[0].str()}")
            return None
        self._last_error = ""
        self._say("topic", "")
        self._say("kafka", "")
        leaderless = sorted(one.id for one in description.partitions if one.leader is None or one.leader.id < 0)
        self._say("leader", "; ".join(f"partition {partition} has no leader" for partition in leaderless))
        return description

    def _check_topic(self, consumer: Consumer) -> None:
        """Notice a topic that was made again, and new partitions."""
        description = self._describe(wait=False)
        if description is None:
            return
        if str(description.topic_id) != self._topic_id:
            raise _Rebuild(f"topic {self._topic} was made again")
        new = {one.id for one in description.partitions} - self._next.keys()
        for partition in sorted(new):
            start = watermarks(consumer, self._topic, partition)[0]
            consumer.incremental_assign([TopicPartition(self._topic, partition, start)])
            self._next[partition] = start
            self._call(self._hub.add_partition, partition, start)

    def _assign(self, consumer: Consumer, partitions: set[int]) -> None:
        """Begin where the last consumer ended or, at first, so far back that the history is filled."""
        bounds = {partition: watermarks(consumer, self._topic, partition) for partition in partitions}
        description = self._describe(wait=True)
        if description is None:
            raise _Rebuild(f"topic {self._topic} cannot be described")
        same, self._topic_id = str(description.topic_id) == self._topic_id, str(description.topic_id)
        reason: Reason | None = None
        if not self._filled:
            start = self._tail(consumer, bounds)
        elif same and all(self._next.get(partition, 0) <= high for partition, (_, high) in bounds.items()):
            start = {partition: max(low, self._next.get(partition, low)) for partition, (low, _) in bounds.items()}
            reason = Reason.EXPIRED if any(start[p] > self._next.get(p, start[p]) for p in start) else None
        else:
            start, reason = {partition: low for partition, (low, _) in bounds.items()}, Reason.RECREATED
        if not self._filled or reason is not None:
            whole = {partition for partition, (low, _) in bounds.items() if start[partition] == low}
            self._call(self._hub.restart, start, whole, reason)
        self._next = dict(start)
        consumer.assign([TopicPartition(self._topic, partition, offset) for partition, offset in start.items()])
        deadline = time.monotonic() + _FILL_SECONDS
        while not self._filled and not self._stopped.is_set():
            self._check_topic(consumer)
            self._take(consumer)
            if time.monotonic() > deadline or all(self._next[p] >= high for p, (_, high) in bounds.items()):
                self._filled = True
                self._call(self._hub.set_filled)

    def _tail(self, consumer: Consumer, bounds: dict[int, tuple[int, int]]) -> dict[int, int]:
        """Return offsets from which on the records take about as much memory as the history has."""
        sample = {partition: max(low, high - _SAMPLE) for partition, (low, high) in bounds.items()}
        pending = {partition for partition, offset in sample.items() if offset < bounds[partition][1]}
        consumer.assign([TopicPartition(self._topic, partition, sample[partition]) for partition in pending])
        sizes: list[int] = []
        deadline = time.monotonic() + _ANSWER_SECONDS
        while pending and time.monotonic() < deadline and not self._stopped.is_set():
            for message in consumer.consume(_SAMPLE, 0.1):
                if (error := message.error()) is None:
                    sizes.append(len(message.value() or b"") + len(message.key() or b"") + OVERHEAD)
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the library's own name
                    pending.discard(message.partition())
        count = self._history_bytes * max(1, len(sizes)) // max(1, sum(sizes)) // max(1, len(bounds))
        return {partition: max(low, high - count) for partition, (low, high) in bounds.items()}

    def _take(self, consumer: Consumer) -> None:
        """Hand over what has come: the first record does not wait for others, and what waits comes at once."""
        messages = consumer.consume(1, 0.1)
        if not messages:
            return
        events: list[Event] = []
        ends: dict[int, int] = {}
        for message in messages + consumer.consume(_BATCH, 0):
            partition, offset = self._place(message)
            if message.error() is None:
                event = event_of(self._hub.slug, message)
                if event is not None:
                    events.append(event)
                offset += 1
            ends[partition] = offset
        self._call(self._hub.publish, events, ends)
        self._next.update(ends)

    def _place(self, message: Message) -> tuple[int, int]:
        """Return the partition and the offset of a record or of the end of a partition.

        Raises:
            _Rebuild: the offset that comes next does not exist any more.
            KafkaException: another error.
        """
        error = message.error()
        partition, offset = message.partition(), message.offset()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - the library's own name
            if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 - as above
                raise _Rebuild(f"partition {partition}: {error.str()}")
            raise KafkaException(error)
        if partition is None or offset is None:
            raise _Rebuild("a record without a place")
        return partition, offset

    def _keep_error(self, error: KafkaError) -> None:
        """Keep why a connection failed: a request only tells that it took too long."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - the library's own name
            self._last_error = error.str()

    def _say(self, subject: str, text: str) -> None:
        self._loop.call_soon_threadsafe(self._hub.set_issue, subject, text)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call ``function`` in the event loop and wait: what comes meanwhile waits in the library, not in the loop.

        Raises:
            Exception: it has failed. Some clients may lack an event then: all streams are ended, and resume.
        """
        done = Future[None]()

        def call() -> None:
            try:
                function(*arguments)
                done.set_result(None)
            except Exception as error:  # noqa: BLE001 - it is raised again in the thread
                self._hub.end_streams()
                done.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        while not self._stopped.is_set() and not done.done():
            wait([done], 0.5)
        if done.done():
            done.result()
