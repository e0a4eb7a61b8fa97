"""Ten ways in which a real ksqlDB lies or bites, and what the operator does then: 1 to 4 and 10, the destructive ones.

The numbers and titles are those of the list of measurements behind docs/ksqldb.md; 5 to 9 are in `test_bites`. The
operator is a real one, over a real socket, against the embedded server with that bad day switched on; writes are
counted by the server and by the platform.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from openfactory_common.errors import KsqlUnknownOutcome
from openfactory_common.ksqldb.wire import ROWS_ACCEPT
from reconciler.domain.status import Condition
from tests.harness.serving import Plant, executed, front, plant, question
from tests.integration.ksqldb.server import Manner, Reply

GROUPS = 6


@pytest.fixture
def settled() -> Iterator[Plant]:
    """Six groups of one asset each, in place."""
    with plant(GROUPS) as made:
        yield made


def results(made: Plant, **day: object) -> list[str]:
    """Run three cycles of a new operator on such a day, and two on a good one after it."""
    operator = made.operator()
    made.ksqldb.switch(**day)
    outcomes = made.run(operator, 3, step=30)
    made.ksqldb.good_day()
    return [outcome.result for outcome in (*outcomes, *made.run(operator, 2, step=30))]


# ---- 1. A 200 with an empty or partial pull result is not a fact


def test_1_an_empty_pull_after_a_restart_is_not_a_fact(settled: Plant) -> None:
    """The answers of a restart in their order (503, 400, 200 with no rows, rows): none of them costs a write."""
    operator, before = settled.operator(), settled.writes
    seen = []
    for day in ({"not_ready": True}, {"pull_not_ready": True}, {"empty_pull": True}, {}):
        settled.ksqldb.good_day()
        settled.ksqldb.switch(**day)
        seen += [outcome.result for outcome in settled.run(operator, 4, step=30)]
    assert seen == ["read_error"] * 8 + ["refused"] * 4 + ["in_sync"] * 4
    assert settled.writes == before


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_1_a_partial_pull_is_not_a_fact(settled: Plant, rows: int) -> None:
    """A complete answer with some of the rows: nothing goes, neither over the budget nor within it."""
    before = settled.writes
    results(settled, partial_pull=rows)
    assert settled.writes == before


def test_1_a_partial_scan_is_overruled_by_the_direct_question(settled: Plant) -> None:
    """Even a scan that stays partial for good removes no group that the direct question still finds."""
    operator, before = settled.operator(), settled.writes
    settled.ksqldb.switch(partial_pull={"value": GROUPS - 1, "match": "AS UNS_GROUP"})
    outcomes = settled.run(operator, 20)
    assert settled.writes == before
    assert outcomes[-1].plan is not None
    assert Condition.LEAVING in {item.condition for item in outcomes[-1].plan.items}


def test_1_a_failed_direct_question_removes_nothing(settled: Plant) -> None:
    """When a group is about to go and the last question is not answered whole, it stays, and counting restarts."""
    settled.ksqldb.assign({"a5": None})
    before = settled.writes
    spoiled = {"pull": Manner.WHOLE, "push": Reply(b"[", content_type=ROWS_ACCEPT, manner=Manner.CUT)}
    with front(settled.ksqldb, spoiled) as site:
        operator = settled.operator(site.url)
        seen = [outcome.result for outcome in settled.run(operator, 24)]
        pushed = [request for request in site.requests if question(request) == "push"]
    assert 2 <= len(pushed) <= 4
    assert set(seen) == {"progressing"}
    assert settled.writes == before


# ---- 2. A derived aggregate can be wrong for good


def test_2_a_row_that_is_lost_for_less_than_the_grace_removes_nothing(settled: Plant) -> None:
    """The map is derived too: one that loses a row and gets it back within the grace time costs nothing."""
    operator, before = settled.operator(), settled.writes
    settled.ksqldb.switch(lost_row={"table": "ASSET_TO_UNS_MAP", "key": "a3"})
    outcomes = settled.run(operator, 5)
    settled.ksqldb.good_day()
    assert [outcome.result for outcome in outcomes] == ["progressing"] * 5
    assert [outcome.result for outcome in settled.run(operator, 3)] == ["in_sync"] * 3
    assert settled.writes == before


# ---- 3. While a server shuts down it answers 200 with a shrinking LIST QUERIES


@pytest.mark.parametrize("step", [5.0, 10.0, 30.0])
def test_3_a_shrinking_list_queries_is_believed_by_no_one(settled: Plant, step: float) -> None:
    """Seventy seconds of a list that ends empty, healthy and RUNNING, then the stop itself: not one write."""
    operator, before = settled.operator(), settled.writes
    settled.ksqldb.switch(shrinking_queries=1)
    lying = settled.run(operator, int(70 / step), step)
    settled.ksqldb.switch(not_queryable=True)
    stopping = settled.run(operator, 2, step)
    settled.ksqldb.switch(not_ready=True)
    stopping += settled.run(operator, 2, step)
    settled.ksqldb.good_day()
    assert {outcome.result for outcome in lying} <= {"progressing", "in_sync"}
    assert [outcome.result for outcome in stopping] == ["read_error"] * 4
    assert [outcome.result for outcome in settled.run(operator, 3, step)] == ["in_sync"] * 3
    assert settled.writes == before


def test_3_a_list_that_stays_short_is_checked_with_the_stream_itself(settled: Plant) -> None:
    """However long queries are not listed: DESCRIBE says that they are there, so nothing is created again."""
    operator, before = settled.operator(), settled.writes
    settled.ksqldb.switch(shrinking_queries=GROUPS)
    settled.run(operator, 30)
    assert settled.writes == before
    assert settled.ksqldb.statements("DESCRIBE") > 0


# ---- 4. DROP ... DELETE TOPIC of a source that still has readers deletes the topic


def test_4_drop_delete_topic_is_never_sent_for_a_stream_with_readers() -> None:
    """A user reads the stream of a group that is to go, topic and all: no DROP is sent, the topic stays."""
    with plant(GROUPS) as made:
        made.options["delete_topics"] = True
        made.ksqldb.sql("CREATE STREAM theirs AS SELECT * FROM asset_stream_g5 EMIT CHANGES;")
        made.ksqldb.assign({"a5": None})
        operator = made.operator()
        (*_, last) = made.run(operator, 30)
        assert made.ksqldb.statements("DROP STREAM") == 0
        assert "asset_stream_g5" in made.ksqldb.topics
        assert last.plan is not None
        assert "is read by THEIRS" in " ".join(item.detail for item in last.plan.items)
        made.ksqldb.sql("DROP STREAM theirs;")
        made.now += 600
        made.settle(operator)
        assert "ASSET_STREAM_G5" not in made.ksqldb.streams
        assert "asset_stream_g5" not in made.ksqldb.topics


def test_4_the_shared_topic_goes_when_nothing_reads_it(tmp_path: Path) -> None:
    """Another definition of the shared stream: readers move first, the old one goes last, with what only it had."""
    journal = tmp_path / "journal"
    with plant(GROUPS, data_file=journal) as made:
        old = next(name for name in made.ksqldb.streams if name.startswith("OFA_ASSETS_WITH_UNS_"))
        made.options.update(delete_topics=True, ksqldb_uns_join_table="asset_to_uns_map_raw")
        made.settle(made.operator())
        drops = [sql for sql, _ in executed(journal) if sql.startswith("DROP")]
        assert old not in made.ksqldb.streams
        assert old.lower() not in made.ksqldb.topics
        assert drops[-1] == f"DROP STREAM `{old}` DELETE TOPIC;"
        assert len(drops) == GROUPS + 1
        assert not any("DELETE TOPIC" in sql for sql in drops[:-1])


def test_4_a_table_that_only_looks_like_ours_is_not_dropped(settled: Plant) -> None:
    """A user's table whose name begins as those of our tables of counts do: not ours, not touched."""
    settled.ksqldb.sql("CREATE TABLE ofa_groups_by_hand AS SELECT * FROM asset_to_uns_map_raw EMIT CHANGES;")
    before = settled.writes
    settled.run(settled.operator(), 10)
    assert "OFA_GROUPS_BY_HAND" in settled.ksqldb.server.catalog.sources
    assert settled.writes == before


# ---- 10. After a long Kafka outage the command-runner thread is dead for good


def test_10_a_dead_command_runner_gets_no_statement(settled: Plant) -> None:
    """No DDL, no removal, the cure in words; what needs no statement is still repaired."""
    settled.ksqldb.assign({"b": "New", "a5": None})
    settled.platform.touch("ofa_group_g0", image="other:1")
    settled.ksqldb.switch(dead_runner=0.01)
    operator = settled.operator()
    sent, platform = settled.writes
    (*_, last) = settled.run(operator, 20)
    assert settled.writes == (sent, platform + 1)
    assert last.result == "refused"
    assert "only a restart of the ksqlDB server cures it" in last.sentence
    live = settled.platform.services["ofa_group_g0"].spec
    assert live is not None
    assert live.image != "other:1"


def test_10_what_stood_queued_runs_after_the_restart_and_is_not_sent_twice(settled: Plant) -> None:
    """QUEUED for ever has an unknown outcome: the statement is not repeated, and taken when the restart runs it."""
    settled.ksqldb.assign({"b": "New"})
    settled.ksqldb.switch(queued=True)
    operator = settled.operator()
    sent = settled.ksqldb.statements("CREATE STREAM")
    (first,) = settled.run(operator)
    assert isinstance(first.results[0].error, KsqlUnknownOutcome)
    settled.ksqldb.switch(dead_runner=0.01)
    settled.run(operator, 20)
    settled.ksqldb.good_day()
    settled.settle(operator)
    assert settled.ksqldb.statements("CREATE STREAM") == sent + 1
    assert "ASSET_STREAM_NEW" in settled.ksqldb.streams
    assert "ofa_group_new" in settled.platform.services
