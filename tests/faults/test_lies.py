"""The ten ways in which a real ksqlDB lies or bites, and what the operator does then.

The numbers and titles are those of the list of measurements behind docs/ksqldb.md. The operator is a real one, over a
real socket, against the embedded server with that bad day switched on; writes are counted by the server and by the
platform. Where a point is about ksqlDB's own timing, the tests show what the operator sends so that it does not arise.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import KsqlUnknownOutcome
from reconciler.ksqldb.wire import Row, RowFeed
from reconciler.model import Condition
from reconciler.names import names_of
from tests.faults.serving import Plant, executed, plant

GROUPS = 6
TUNED = {
    "ksql.streams.num.stream.threads": 1,
    "ksql.streams.cache.max.bytes.buffering": 0,
    "ksql.streams.producer.linger.ms": 0,
    "ksql.streams.internal.leave.group.on.close": True,
}


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
    """When a group is about to go and the last question is not answered whole, the cycle ends and counting restarts."""
    settled.ksqldb.assign({"a5": None})
    operator, before = settled.operator(), settled.writes
    settled.ksqldb.switch(truncated={"match": "WHERE"})
    seen = [outcome.result for outcome in settled.run(operator, 24)]
    assert 2 <= seen.count("read_error") <= 4
    assert set(seen) == {"read_error", "progressing"}
    assert settled.writes == before


# ---- 2. A derived aggregate can be wrong for good


def test_2_a_derived_aggregate_can_be_wrong_for_good(settled: Plant) -> None:
    """A groups table that lost a row for good removes no group: the map itself is asked."""
    settled.ksqldb.sql(
        "CREATE TABLE ofa_groups AS SELECT uns_levels['workcenter'] AS uns_group, COUNT(*) AS members "
        "FROM asset_to_uns_map_raw GROUP BY uns_levels['workcenter'] EMIT CHANGES;"
    )
    settled.ksqldb.switch(lost_row={"table": "OFA_GROUPS", "key": "g3"})
    operator = settled.operator()
    settled.run(operator, 20)
    assert {f"ASSET_STREAM_G{n}" for n in range(GROUPS)} <= settled.ksqldb.streams
    assert "ofa_group_g3" in settled.platform.services
    assert operator.cycle().result == "in_sync"


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
def test_3_a_shrinking_list_queries_is_believed_by_nobody(settled: Plant, step: float) -> None:
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
    """However long queries are not listed: DESCRIBE says that they are there, so nothing is made anew."""
    operator, before = settled.operator(), settled.writes
    settled.ksqldb.switch(shrinking_queries=GROUPS)
    settled.run(operator, 30)
    assert settled.writes == before
    assert settled.ksqldb.statements("DESCRIBE") > 0


# ---- 4. DROP ... DELETE TOPIC of a source that still has readers deletes the topic


def test_4_drop_delete_topic_is_never_sent_for_a_stream_with_readers() -> None:
    """Somebody reads the stream of a group that is to go, topic and all: no DROP is sent, the topic stays."""
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


def test_4_the_shared_topic_is_never_deleted(tmp_path: Path) -> None:
    """Another definition of the shared stream: readers move first, the old one goes last, its topic stays."""
    journal = tmp_path / "journal"
    with plant(GROUPS, data_file=journal) as made:
        old = next(name for name in made.ksqldb.streams if name.startswith("OFA_ASSETS_WITH_UNS_"))
        made.options.update(delete_topics=True, ksqldb_uns_join_table="asset_to_uns_map_raw")
        made.settle(made.operator())
        drops = [sql for sql, _ in executed(journal) if sql.startswith("DROP")]
        assert old not in made.ksqldb.streams
        assert old.lower() in made.ksqldb.topics
        assert drops[-1] == f"DROP STREAM `{old}`;"
        assert len(drops) == GROUPS + 1
        assert not any("DELETE TOPIC" in sql for sql in drops)


# ---- 5. CREATE OR REPLACE is silent for 45 s, and a second one blocks the command runner


def test_5_a_stream_is_replaced_once_and_leaves_its_group_at_once(tmp_path: Path) -> None:
    """The property is on the query from its creation on, and a changed filter is replaced by one statement."""
    journal = tmp_path / "journal"
    with plant(GROUPS, data_file=journal) as made:
        ours_for_g2 = made.operator().world.topology.replace_group(names_of("g2")).sql
        made.ksqldb.sql(ours_for_g2.replace("= 'g2'", "= 'other'"))
        before = made.ksqldb.statements("CREATE OR")
        made.run(made.operator(), 10)
        assert made.ksqldb.statements("CREATE OR") == before + 1
        ours = [(sql, properties) for sql, properties in executed(journal) if properties]
        assert [sql.split("`")[1] for sql, _ in ours if "OR REPLACE" in sql] == ["ASSET_STREAM_G2"]
        assert len(ours) == GROUPS + 2
        assert all(properties["ksql.streams.internal.leave.group.on.close"] is True for _, properties in ours)


def test_5_a_blocked_command_runner_is_not_hammered(settled: Plant) -> None:
    """While every DDL of anybody answers 500, one object is tried ever more rarely, and the rest is left in place."""
    settled.ksqldb.assign({"b": "New"})
    settled.ksqldb.switch(blocked_runner=0.01)
    operator = settled.operator()
    sent, platform = settled.ksqldb.statements("CREATE STREAM"), settled.platform.writes
    settled.run(operator, 60, step=1)
    assert 1 < settled.ksqldb.statements("CREATE STREAM") - sent <= 6
    assert settled.platform.writes == platform
    settled.ksqldb.good_day()
    settled.now += 300
    settled.settle(operator)
    assert "ASSET_STREAM_NEW" in settled.ksqldb.streams


# ---- 6. Parallel DDL: exactly one wins


def test_6_of_parallel_ddl_the_loser_looks_again(settled: Plant) -> None:
    """Fenced by another writer: the statement was not executed, so the next cycle sends it once more."""
    settled.ksqldb.assign({"b": "New"})
    settled.ksqldb.switch(fenced={"times": 1})
    sent = settled.ksqldb.statements("CREATE STREAM")
    operator = settled.operator()
    (first,) = settled.run(operator)
    assert first.result == "write_error"
    assert "fenced" in first.sentence
    assert "ofa_group_new" not in settled.platform.services
    settled.settle(operator)
    assert settled.ksqldb.statements("CREATE STREAM") == sent + 2
    assert "ASSET_STREAM_NEW" in settled.ksqldb.streams


def test_6_two_threads_of_an_operator_send_one_statement_at_a_time(settled: Plant) -> None:
    """Statements of one client never overlap: the second leaves only after the first is final."""
    log: list[str] = []
    topology = settled.operator().world.topology
    settled.ksqldb.switch(executing=0.2)
    client = settled.client(on_request=lambda label, _code, _seconds: log.append(label))

    def send(group: str) -> None:
        client.execute(topology.create_group(names_of(group), "latest"))
        log.append("final")

    threads = [threading.Thread(target=send, args=(group,)) for group in ("x", "y", "z")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # "final" is noted outside of the client's lock, so only the order of what was sent is certain.
    sent = [label for label in log if label != "final"]
    assert sent.count("create") == 3
    assert all(sent[at + 1] == "status" for at, label in enumerate(sent) if label == "create")
    assert {"ASSET_STREAM_X", "ASSET_STREAM_Y", "ASSET_STREAM_Z"} <= settled.ksqldb.streams


def test_6_two_operators_at_once_meet_at_the_same_end(settled: Plant) -> None:
    """T8: both see what is missing, one is first, the other takes what it finds; nothing is made twice or removed."""
    settled.ksqldb.assign({"b": "New", "c": "Newer"})
    first, second = settled.operator(), settled.operator()
    threads = [threading.Thread(target=settled.run, args=(one,)) for one in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settled.settle(first)
    settled.settle(second)
    assert {"ASSET_STREAM_NEW", "ASSET_STREAM_NEWER"} <= settled.ksqldb.streams
    assert settled.ksqldb.statements("DROP STREAM") == 0
    assert settled.platform.calls["remove_service"] == 0


# ---- 7. Tuning that costs nothing


def test_7_every_query_is_tuned(tmp_path: Path) -> None:
    """Cache 0, linger 0, one thread: on the shared stream, on a new, a moved, a replaced and a re-created stream."""
    journal = tmp_path / "journal"
    with plant(GROUPS, data_file=journal) as made:
        operator = made.operator()
        made.ksqldb.assign({"b": "New"})
        made.settle(operator)
        made.ksqldb.sql("DROP STREAM asset_stream_g1;")
        made.settle(operator)
        made.options["ksqldb_uns_join_table"] = "asset_to_uns_map_raw"
        made.settle(made.operator())
        ours = [(sql, properties) for sql, properties in executed(journal) if " AS SELECT ASSET_KEY" in sql]
        ours += [(sql, properties) for sql, properties in executed(journal) if "JOIN" in sql]
        assert len(ours) == (GROUPS + 1 + 1 + GROUPS + 1) + 2
        for sql, properties in ours:
            assert TUNED.items() <= properties.items(), sql
            assert properties["ksql.streams.auto.offset.reset"] in ("earliest", "latest"), sql


# ---- 8. Cost of a filter stream


def test_8_a_group_costs_one_filter_and_one_topic(tmp_path: Path) -> None:
    """No join, no state and no internal topic for each group: one query and one topic more, and one join for all."""
    journal = tmp_path / "journal"
    with plant(1, data_file=journal) as made:
        operator, client = made.operator(), made.client()
        queries, topics = len(client.queries()), len(client.topics())
        made.ksqldb.assign({f"b{n}": f"h{n}" for n in range(5)})
        made.settle(operator)
        assert len(client.queries()) == queries + 5
        assert len(client.topics()) == topics + 5
        made_by_us = [sql for sql, properties in executed(journal) if properties]
        assert sum("JOIN" in sql for sql in made_by_us) == 1


# ---- 9. A push query on a table begins with the whole present content


def test_9_a_push_query_on_a_table_begins_with_the_whole_content(settled: Plant) -> None:
    """The default "latest" lists a table all the same, and shows deletions: the wire format keeps both apart."""
    feed, rows = RowFeed(), []
    sql = "SELECT ASSET_UUID, UNS_LEVELS['workcenter'] AS UNS_GROUP FROM ASSET_TO_UNS_MAP EMIT CHANGES;"
    headers = {"accept": "application/vnd.ksql.v1+json"}
    with settled.ksqldb.http.stream("POST", "/query-stream", json={"sql": sql}, headers=headers) as answer:
        for chunk in answer.iter_bytes():
            rows += [item for item in feed.feed(chunk) if isinstance(item, Row)]
            if len(rows) == GROUPS:
                settled.ksqldb.assign({"a0": None})
            if len(rows) > GROUPS:
                break
    assert {row.values[0]: row.values[1] for row in rows[:GROUPS]} == {f"a{n}": f"g{n}" for n in range(GROUPS)}
    assert (rows[GROUPS].values[0], rows[GROUPS].tombstone) == ("a0", True)
    assert not feed.closed


def test_9_the_operator_concludes_from_pulls_alone(settled: Plant) -> None:
    """A push query has no mark where its list ends, so the operator opens none: its reads are complete or errors."""
    settled.ksqldb.http.delete("/dev/requests").raise_for_status()
    settled.run(settled.operator(), 5)
    requests = settled.ksqldb.counted()["requests"]
    assert requests == {"GET /info": 5, "GET /healthcheck": 5, "POST /query": 5, "POST /ksql": 10}


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
