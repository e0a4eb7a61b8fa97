"""The live reader tells what is wrong, and a failure costs no client an event."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError

from group_service import kafka_live
from group_service.kafka_live import LiveReader
from tests.harness.coroutines import until
from tests.unit.group_service.test_hub import connect, make_hub


class Library:
    """A Kafka with the topic's one partition; ``messages`` are its records, which are gone when they were taken."""

    def __init__(self) -> None:
        """Start empty, with a leader."""
        self.messages: list[Any] = []
        self.leader: Any = SimpleNamespace(id=1)
        self.assigned = self.described = 0

    def describe_topics(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Answer at once."""
        self.described += 1
        partition = SimpleNamespace(id=0, leader=self.leader)
        description = SimpleNamespace(topic_id="t", partitions=[partition])
        answer = SimpleNamespace(done=lambda: True, result=lambda: description)
        return {"asset_stream_Weld": answer}

    def poll(self, _timeout: float) -> None:
        """Nothing is to be called back."""

    def get_watermark_offsets(self, *_: Any, **__: Any) -> tuple[int, int]:
        """The topic begins empty."""
        return 0, 0

    def assign(self, places: list[Any]) -> None:
        """Count it."""
        self.assigned += bool(places)

    def consume(self, count: int, timeout: float) -> list[Any]:
        """Return what there is."""
        taken, self.messages[:count] = self.messages[:count], []
        if timeout and not taken:
            threading.Event().wait(0.01)
        return taken

    def close(self) -> None:
        """Nothing is open."""


def message(offset: int, error: KafkaError | None = None) -> SimpleNamespace:
    """Return a record of asset A, or an error."""
    place = {"partition": lambda: 0, "offset": lambda: offset, "error": lambda: error}
    return SimpleNamespace(
        **place, key=lambda: b"A", value=lambda: b"v%d" % offset, timestamp=lambda: (0, 1000 + offset)
    )


@asynccontextmanager
async def reading(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Library, Any]]:
    """Read from a library for the block."""
    library, hub = Library(), make_hub()
    monkeypatch.setattr(kafka_live, "Consumer", lambda *_, **__: library)
    monkeypatch.setattr(kafka_live, "AdminClient", lambda *_, **__: library)
    monkeypatch.setattr(kafka_live, "_WATCH_SECONDS", 0.0)
    reader = LiveReader(hub, "asset_stream_Weld", "none:1", {}, 10**6)
    reader.start()
    try:
        await until(lambda: library.assigned == 1 and not hub.issues, "the reader follows")
        yield library, hub
    finally:
        await reader.stop()


async def test_a_failure_in_the_event_loop_is_told_and_costs_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its streams end, so that the clients resume; /ready has the bug until records are read again."""
    async with reading(monkeypatch) as (library, hub):
        client, wire = connect(hub, "A")
        publish = hub.publish

        def fail(*_: Any) -> None:
            raise ValueError("an error of the hub")

        monkeypatch.setattr(hub, "publish", fail)
        library.messages.append(message(0))
        await until(client.ended.done, "the stream ends")
        await until(lambda: any("bug: ValueError" in text for text in hub.issues.values()), "the bug is told")
        monkeypatch.setattr(hub, "publish", publish)
        await until(lambda: library.assigned == 2, "the reader begins again")
        described = library.described
        await until(lambda: library.described > described + 3, "the topic is described")
        assert any("bug: ValueError" in text for text in hub.issues.values())
        library.messages.append(message(0))
        await until(lambda: not hub.issues, "records are read again")
        assert wire.written == []
        assert [one.offset for one in hub.history.take({0: 0}, "A")[0]] == [0]


async def test_a_partition_without_a_leader_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The topic is described all the same, but nothing comes from the partition."""
    async with reading(monkeypatch) as (library, hub):
        for leader in (None, SimpleNamespace(id=-1)):
            library.leader = leader
            await until(lambda: [*hub.issues.values()] == ["partition 0 has no leader"], "it is told")
            library.leader = SimpleNamespace(id=1)
            await until(lambda: not hub.issues, "it is taken back")


async def test_an_error_of_reading_is_told_until_records_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A description that succeeds does not take it back."""
    async with reading(monkeypatch) as (library, hub):
        library.messages.append(message(0, KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
        await until(lambda: library.assigned == 2, "the reader begins again")
        described = library.described
        await until(lambda: library.described > described + 3, "the topic is described")
        assert [text.partition(":")[0] for text in hub.issues.values()] == ["Kafka gives no records"]
        library.messages.append(message(0, KafkaError(KafkaError._PARTITION_EOF)))
        await until(lambda: not hub.issues, "the end of the partition is read")
