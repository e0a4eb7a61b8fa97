"""Reads parts of topics for clients that resume. Each consumer belongs to one job at a time, never to two threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from group_service.archive import Portion, Request, SourceError, TopicMissing
from group_service.events import Event, Reason
from group_service.history import PORTION
from group_service.ids import Position
from group_service.kafka_config import consumer_properties

TOPIC_PREFIX = "asset_stream_"
_JOBS = 4
_ANSWER_SECONDS = 5.0
#: Records that are taken from the library at once: those beyond a portion are read again for the next one.
_AT_ONCE = 100
#: After so long a portion ends, so that jobs take turns.
_PORTION_SECONDS = 2.0
#: A topic is missing if two answers with so much time between them say so.
_CONFIRM_SECONDS = 1.5
_MISSING = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 - the library's own names for its errors
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 - as above
)
T = TypeVar("T")


class _Unknown(SourceError):
    """The library knows no such topic or partition: it says so as well while no broker answers it."""


class KafkaArchive:
    """The topics of all groups."""

    def __init__(self, brokers: str, extra: dict[str, str]) -> None:
        """Read from ``brokers``, with the properties of the user's file."""
        self._properties = consumer_properties(brokers, extra, offset_reset="earliest")
        self._pool = ThreadPoolExecutor(_JOBS, thread_name_prefix="archive")
        self._idle: list[Consumer] = []

    async def read(self, request: Request) -> Portion:
        """Read the next portion."""
        return await self._run(request.slug, request.position, lambda consumer: _read(consumer, request))

    async def locate(self, slug: str, ms: int) -> Position:
        """Return the position of the first records at or after a time, the end where there is none."""
        return await self._run(slug, (), lambda consumer: _locate(consumer, TOPIC_PREFIX + slug, ms))

    async def probe(self, slug: str, partition: int, offset: int) -> tuple[int | None, int]:
        """Return the timestamp of a record (None if it does not exist), and the end of its partition."""
        place = TopicPartition(TOPIC_PREFIX + slug, partition, offset)
        return await self._run(slug, (partition,), lambda consumer: _probe(consumer, place))

    def close(self) -> None:
        """End the jobs, and close the consumers."""
        self._pool.shutdown()
        for consumer in self._idle:
            consumer.close()

    async def _run(self, slug: str, partitions: Collection[int], job: Callable[[Consumer], T]) -> T:
        """Run a job that needs these partitions.

        Raises:
            SourceError: Kafka does not answer.
            TopicMissing: the topic or a partition does not exist, and Kafka has confirmed it.
        """
        try:
            return await self._in_thread(job)
        except _Unknown as error:
            for pause in (0, _CONFIRM_SECONDS):
                await asyncio.sleep(pause)
                if not await self._in_thread(lambda consumer: _lacks(consumer, TOPIC_PREFIX + slug, partitions)):
                    raise
            raise TopicMissing(str(error)) from error

    async def _in_thread(self, job: Callable[[Consumer], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._run_here, job)

    def _run_here(self, job: Callable[[Consumer], T]) -> T:
        try:
            consumer = self._idle.pop()
        except IndexError:
            consumer = Consumer(self._properties, logger=kafka_log)
        try:
            result = job(consumer)
            consumer.unassign()
        except KafkaException as exception:
            consumer.close()
            error = exception.args[0]
            kind = _Unknown if error.code() in _MISSING else SourceError
            raise kind(f"Kafka: {error.str()}") from exception
        except SourceError:
            consumer.close()
            raise
        self._idle.append(consumer)
        return result


class _Logger:
    """Takes the library's log lines, which are printed to standard error without it."""

    def log(self, level: int, text: str, *arguments: Any) -> None:
        """Log them for those who look for a cause: what matters comes as an error as well."""
        structlog.get_logger().debug("kafka", level=level, line=text % arguments if arguments else text)


kafka_log = _Logger()


def watermarks(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    """Return the first offset of a partition, and the offset after its last record.

    Raises:
        KafkaException: Kafka does not answer, or there is no such partition.
    """
    found = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_ANSWER_SECONDS)
    if found is None:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001 - as above
    low, high = found
    return low, high


def event_of(slug: str, message: Message) -> Event | None:
    """Return the event of a record; None for one without a value: it deletes, and has nothing to send."""
    value, partition, offset = message.value(), message.partition(), message.offset()
    if value is None or partition is None or offset is None:
        return None
    return Event(slug, message.key() or b"", value, partition, offset, message.timestamp()[1])


def _read(consumer: Consumer, request: Request) -> Portion:
    scan = _Scan(consumer, request)
    patience = time.monotonic() + 2 * _ANSWER_SECONDS
    deadline = time.monotonic() + _PORTION_SECONDS
    while scan.pending and scan.size < PORTION and (not scan.records or time.monotonic() < deadline):
        if not scan.records and time.monotonic() > patience:
            raise SourceError(f"Kafka: no record of {scan.topic} in {2 * _ANSWER_SECONDS:g} s")
        for message in consumer.consume(1, 0.1) + consumer.consume(_AT_ONCE, 0):
            scan.take(message)
    return Portion(scan.start, scan.reason, scan.events, scan.position, scan.records, done=not scan.pending)


class _Scan:
    """One portion while it is read."""

    def __init__(self, consumer: Consumer, request: Request) -> None:
        """Assign what is asked for and exists."""
        self.topic, self._slug = TOPIC_PREFIX + request.slug, request.slug
        self._key = None if request.asset is None else request.asset.encode(errors="surrogateescape")
        self.start = dict(request.position)
        self.reason: Reason | None = None
        self._until: dict[int, int] = {}
        for partition, offset in request.position.items():
            low, high = watermarks(consumer, self.topic, partition)
            until = high if request.until is None else min(high, request.until.get(partition, high))
            if offset < low:
                self.start[partition], self.reason = low, Reason.EXPIRED
            if request.limit is not None and self.start[partition] < until - request.limit:
                self.start[partition], self.reason = until - request.limit, Reason.LIMIT
            self._until[partition] = until
        self.position = dict(self.start)
        self.pending = {partition for partition, offset in self.start.items() if offset < self._until[partition]}
        self.events: list[Event] = []
        self.records = self.size = 0
        consumer.assign([TopicPartition(self.topic, partition, self.start[partition]) for partition in self.pending])

    def take(self, message: Message) -> None:
        """Take a record, or the end of a partition.

        Raises:
            KafkaException: an error came instead.
        """
        partition, offset, error = message.partition(), message.offset(), message.error()
        if partition is None or offset is None or partition not in self.pending:
            return
        if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - as above
            raise KafkaException(error)
        if error is not None or offset >= self._until[partition]:
            self.position[partition] = min(offset, self._until[partition])
            self.pending.discard(partition)
            return
        self.records += 1
        self.position[partition] = offset + 1
        if offset + 1 >= self._until[partition]:
            self.pending.discard(partition)
        if self._key in (None, message.key()) and (event := event_of(self._slug, message)) is not None:
            self.events.append(event)
            self.size += len(event.frame)


def _lacks(consumer: Consumer, topic: str, partitions: Collection[int]) -> bool:
    """Whether Kafka says that it has no such topic, or not all of these partitions."""
    metadata = consumer.list_topics(topic, timeout=_ANSWER_SECONDS).topics[topic]
    if metadata.error is not None:
        return bool(metadata.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART)
    return not metadata.partitions.keys() >= set(partitions)


def _locate(consumer: Consumer, topic: str, ms: int) -> Position:
    metadata = consumer.list_topics(topic, timeout=_ANSWER_SECONDS).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    # A record can have no time, which is -1: as a question, that would be the end.
    asked = [TopicPartition(topic, partition, max(0, ms)) for partition in metadata.partitions]
    found: dict[int, int] = {}
    for place in consumer.offsets_for_times(asked, timeout=_ANSWER_SECONDS):
        if place.error is not None:
            raise KafkaException(place.error)
        at_end = place.offset < 0
        found[place.partition] = watermarks(consumer, topic, place.partition)[1] if at_end else place.offset
    return found


def _probe(consumer: Consumer, place: TopicPartition) -> tuple[int | None, int]:
    low, high = watermarks(consumer, place.topic, place.partition)
    if not low <= place.offset < high:
        return None, high
    consumer.assign([place])
    deadline = time.monotonic() + _ANSWER_SECONDS
    while time.monotonic() < deadline:
        message = consumer.poll(0.1)
        if message is None:
            continue
        if (error := message.error()) is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - as above
            raise KafkaException(error)
        is_it = error is None and message.offset() == place.offset
        return (message.timestamp()[1] if is_it else None), high
    raise SourceError(f"Kafka: no record of {place.topic} in {_ANSWER_SECONDS:g} s")
