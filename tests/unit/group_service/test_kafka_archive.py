"""A topic is missing only if Kafka says so twice; whatever else goes wrong is tried again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from group_service import kafka_archive
from group_service.archive import Request, SourceError, TopicMissing
from group_service.kafka_archive import KafkaArchive

_HERE = SimpleNamespace(error=None, partitions={0: None})
_SMALL = SimpleNamespace(error=None, partitions={})
_GONE = SimpleNamespace(error=KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), partitions={})
_NO_LEADER = SimpleNamespace(error=KafkaError(KafkaError.LEADER_NOT_AVAILABLE), partitions={})
_AWAY = KafkaException(KafkaError(KafkaError._TRANSPORT))
_UNSURE = KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))


class Library:
    """A consumer of a broker that starts: it knows no partition; ``answers`` are what it is told about the topic."""

    def __init__(self, answers: list[Any]) -> None:
        """Give these answers."""
        self.answers = answers

    def get_watermark_offsets(self, *_: Any, **__: Any) -> tuple[int, int]:
        """Fail as the library does without metadata."""
        raise _UNSURE

    def list_topics(self, topic: str, **_: Any) -> SimpleNamespace:
        """Give the next answer."""
        answer = self.answers.pop(0)
        if isinstance(answer, KafkaException):
            raise answer
        return SimpleNamespace(topics={topic: answer})

    def offsets_for_times(self, asked: list[TopicPartition], **_: Any) -> list[TopicPartition]:
        """Keep what is asked for, and find its beginning."""
        self.answers += [place.offset for place in asked]
        return [TopicPartition(place.topic, place.partition, 0) for place in asked]

    def close(self) -> None:
        """Do nothing."""

    def unassign(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("answers", "is_missing"),
    [
        ([_GONE, _GONE], True),
        ([_SMALL, _GONE], True),
        ([_SMALL, _SMALL], True),
        ([_HERE], False),
        ([_GONE, _HERE], False),
        ([_NO_LEADER], False),
        ([_AWAY], False),
        ([_GONE, _UNSURE], False),
    ],
)
async def test_what_the_library_does_not_know_is_confirmed(
    answers: list[Any], is_missing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every method; all answers are asked for, and no more."""
    monkeypatch.setattr(kafka_archive, "_CONFIRM_SECONDS", 0)
    left: list[Any] = []
    monkeypatch.setattr(kafka_archive, "Consumer", lambda *_, **__: Library(left))
    archive = KafkaArchive("none:1", {})
    for ask in (
        lambda: archive.read(Request("Weld", {0: 3}, None, None, None)),
        lambda: archive.probe("Weld", 0, 3),
    ):
        left[:] = answers
        with pytest.raises(SourceError) as caught:
            await ask()
        assert (type(caught.value) is TopicMissing, left) == (is_missing, [])
    archive.close()


async def test_records_without_a_time_are_before_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their time is -1, which Kafka would take as the question for the end."""
    answers: list[Any] = [_HERE]
    monkeypatch.setattr(kafka_archive, "Consumer", lambda *_, **__: Library(answers))
    archive = KafkaArchive("none:1", {})
    assert await archive.locate("Weld", -1) == {0: 0}
    assert answers == [0]
    archive.close()
