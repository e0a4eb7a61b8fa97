"""Topics that are not as their streams need them, and a shared stream that cannot be made: said, with what helps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from reconciler.control.controller import Controller
from reconciler.control.outcome import CycleOutcome
from reconciler.domain.status import Condition, ObjectStatus
from reconciler.report.why import WhyContext, WhyDocument, explain_group
from tests.harness.serving import Plant, plant

SHARED = "stream OFA_ASSETS_WITH_UNS_"


@pytest.fixture
def settled() -> Iterator[Plant]:
    """Three groups, in place."""
    with plant(3) as made:
        yield made


def item(outcome: CycleOutcome, group: str) -> ObjectStatus:
    """Return the line of a group."""
    assert outcome.plan is not None
    return next(one for one in outcome.plan.items if one.group == group)


def answer(made: Plant, operator: Controller, outcome: CycleOutcome, group: str) -> WhyDocument:
    """Return what `why` says of a group."""
    assert outcome.survey is not None
    assert outcome.plan is not None
    now = datetime.now(UTC)
    known = WhyContext(
        made.settings, outcome.survey, outcome.plan, now, operator.memory.guards, operator.memory.backoff, made.now
    )
    found = explain_group(group, known, "the test")
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


def test_a_topic_that_foreign_query_writes_is_no_groups(settled: Plant) -> None:
    """Our events are not mixed into theirs: a conflict that names the query; a group that is served keeps its topic."""
    settled.ksqldb.sql(
        "CREATE STREAM THEIRS WITH (KAFKA_TOPIC='asset_stream_Weld', VALUE_FORMAT='JSON') AS "
        "SELECT * FROM ENRICHED_ASSETS_STREAM EMIT CHANGES;",
        "CREATE STREAM FED (v VARCHAR) WITH (KAFKA_TOPIC='asset_stream_Paint', VALUE_FORMAT='JSON', PARTITIONS=1);",
        "INSERT INTO FED SELECT VALUE AS v FROM ENRICHED_ASSETS_STREAM EMIT CHANGES;",
        "CREATE STREAM BESIDE WITH (KAFKA_TOPIC='asset_stream_g0', VALUE_FORMAT='JSON') AS "
        "SELECT * FROM ENRICHED_ASSETS_STREAM EMIT CHANGES;",
        "DROP STREAM ASSET_STREAM_G0;",
    )
    settled.ksqldb.assign({"w": "Weld", "p": "Paint", "s": "Saw"})
    operator = settled.operator()
    for outcome in settled.run(operator, 3):
        assert outcome.plan is not None
    assert item(outcome, "Weld").condition is item(outcome, "Paint").condition is Condition.CONFLICT
    assert item(outcome, "Weld").detail == "topic asset_stream_Weld is written by the query of THEIRS, not touched"
    assert "topic asset_stream_Paint is written by query INSERTQUERY" in item(outcome, "Paint").detail
    assert {item(outcome, group).condition for group in ("Saw", "g0", "g1")} == {Condition.READY}
    assert {"ASSET_STREAM_WELD", "ASSET_STREAM_PAINT"}.isdisjoint(settled.ksqldb.streams)
    settled.ksqldb.sql("DROP STREAM THEIRS;")
    settled.settle(operator)
    assert "ASSET_STREAM_WELD" in settled.ksqldb.streams


def test_the_topic_that_the_assets_come_from_is_no_groups(settled: Plant) -> None:
    """A group whose topic would be the assets' own would be fed with its own events without end."""
    settled.ksqldb.sql(
        "CREATE STREAM OTHER_ASSETS (asset_uuid VARCHAR KEY, id VARCHAR, value VARCHAR, type VARCHAR, tag VARCHAR, "
        "timestamp VARCHAR) WITH (KAFKA_TOPIC='asset_stream_all', VALUE_FORMAT='JSON', PARTITIONS=1);"
    )
    settled.options["ksqldb_assets_stream"] = "OTHER_ASSETS"
    settled.ksqldb.assign({"w": "all"})
    operator = settled.operator()
    outcome = settled.run(operator, 3)[-1]
    assert item(outcome, "all").condition is Condition.CONFLICT
    assert "asset_stream_all is written by what feeds stream OTHER_ASSETS" in item(outcome, "all").detail
    assert "ASSET_STREAM_ALL" not in settled.ksqldb.streams
