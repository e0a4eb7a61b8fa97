"""Topics that are not as their streams need them, and a shared stream that cannot be made: said, with what helps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from reconciler.controller import Controller, Outcome
from reconciler.model import Condition, Item
from reconciler.why import Known, WhyDocument, why
from tests.faults.serving import Plant, plant

SHARED = "stream OFA_ASSETS_WITH_UNS_"


@pytest.fixture
def settled() -> Iterator[Plant]:
    """Three groups, in place."""
    with plant(3) as made:
        yield made


def item(outcome: Outcome, group: str) -> Item:
    """Return the line of a group."""
    assert outcome.plan is not None
    return next(one for one in outcome.plan.items if one.group == group)


def answer(made: Plant, operator: Controller, outcome: Outcome, group: str) -> WhyDocument:
    """Return what `why` says of a group."""
    assert outcome.survey is not None
    assert outcome.plan is not None
    now = datetime.now(UTC)
    known = Known(made.settings, outcome.survey, outcome.plan, now, operator.memory, operator.backoff, made.now)
    found = why(group, known, "the test")
    assert found is not None
    return found


def test_a_topic_that_kafka_made_again_is_said(settled: Plant) -> None:
    """With another number of partitions than the shared topic: Degraded at every look, with what helps."""
    operator, writes = settled.operator(), settled.platform.writes
    settled.ksqldb.server.catalog.topics["asset_stream_g1"].partitions = 2
    outcomes = settled.run(operator, 40)
    shown = [item(outcome, "g1") for outcome in outcomes[31:]]
    assert {one.condition for one in shown} == {Condition.DEGRADED}
    assert "asset_stream_g1 has 2 of 1 partitions" in shown[-1].detail
    assert "`DROP STREAM `ASSET_STREAM_G1` DELETE TOPIC;`" in shown[-1].detail
    assert {item(outcomes[-1], group).condition for group in ("g0", "g2")} == {Condition.READY}
    assert settled.platform.writes == writes
    settled.ksqldb.sql("DROP STREAM `ASSET_STREAM_G1` DELETE TOPIC;")
    outcomes = settled.run(operator, 40)
    assert item(outcomes[-1], "g1").condition is Condition.READY
    assert settled.ksqldb.server.catalog.topics["asset_stream_g1"].partitions == 1


def test_a_stream_that_cannot_be_made_over_its_topic_says_who_must_act(settled: Plant) -> None:
    """The create is refused for ever: `why` names the topic and the command, and does not promise that time helps."""
    operator = settled.operator()
    settled.ksqldb.sql("DROP STREAM `ASSET_STREAM_G1`;")
    settled.ksqldb.server.catalog.topics["asset_stream_g1"].partitions = 2
    outcome = settled.run(operator, 6)[-1]
    shown = item(outcome, "g1")
    assert shown.condition is Condition.DEGRADED
    assert "already exists, with different partition" in shown.detail
    following = " ".join(answer(settled, operator, outcome, "g1").next)
    assert "--delete --topic asset_stream_g1" in following
    assert "is tried again after its back-off" not in following
    assert item(outcome, "g0").condition is Condition.READY


@pytest.fixture
def mismatched() -> Iterator[Plant]:
    """A plant whose map has two partitions and its events one: they cannot be joined."""
    with plant() as made:
        made.ksqldb.server.catalog.topics["asset_to_uns_map_topic"].partitions = 2
        made.ksqldb.server.catalog.topics["ASSET_TO_UNS_MAP"].partitions = 2
        made.ksqldb.assign({"a0": "g0", "a1": "g1"})
        yield made


def test_a_shared_stream_that_cannot_be_made_has_a_line_of_its_own(mismatched: Plant) -> None:
    """It is Degraded with its reason, and every group says that it waits for it and why; it ends when that ends."""
    operator = mismatched.operator()
    outcome = mismatched.run(operator, 4)[-1]
    assert outcome.plan is not None
    (shared,) = [one for one in outcome.plan.items if one.title.startswith(SHARED)]
    assert shared.condition is Condition.DEGRADED
    assert "partitions don't match" in shared.detail
    for group in ("g0", "g1"):
        shown = item(outcome, group)
        assert shown.condition is Condition.DEGRADED
        assert shown.detail == f"waits for the shared stream: {shared.detail}"
    following = " ".join(answer(mismatched, operator, outcome, "g0").next)
    assert "must have equally many partitions" in following
    for topic in ("asset_to_uns_map_topic", "ASSET_TO_UNS_MAP"):
        mismatched.ksqldb.server.catalog.topics[topic].partitions = 1
    mismatched.now += 600
    mismatched.settle(operator)
    outcome = mismatched.run(operator)[-1]
    assert outcome.result == "in_sync"
    assert outcome.plan is not None
    assert not [one for one in outcome.plan.items if one.title.startswith(SHARED)]
