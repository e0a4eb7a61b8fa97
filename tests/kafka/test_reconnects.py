"""Nothing is lost and nothing comes twice, whatever is replaced between Kafka and a client."""

from __future__ import annotations

import asyncio

import pytest

from tests.harness.kafka import KafkaBroker
from tests.kafka.reconnects import run

pytestmark = pytest.mark.kafka


def test_every_event_arrives_once_over_a_hundred_reconnects(kafka: KafkaBroker) -> None:
    """Every cause at least once; `make soak` goes on to a thousand."""
    said: list[str] = []
    assert asyncio.run(run(kafka, seed=13, reconnects=100, say=said.append)) == [], said[-1]
