"""Ten ways in which a real ksqlDB lies or bites, and what the operator does then: 5 to 9, those of timing and cost.

The numbers and titles are those of the list of measurements behind docs/ksqldb.md; the others are in `test_lies`. The
tests show what the operator sends so that the point does not arise.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from openfactory_common.ksqldb.wire import Row, RowFeed
from reconciler.domain.names import names_of
from tests.harness.serving import Plant, executed, plant

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


# ---- 5. CREATE OR REPLACE is silent for 45 s, and a second one blocks the command runner


def test_5_a_stream_is_replaced_once_and_leaves_its_group_at_once(tmp_path: Path) -> None:
    """The property is on the query from its creation on, and one that was ended is replaced by one statement."""
    journal = tmp_path / "journal"
    with plant(GROUPS, data_file=journal) as made:
        query = next(one.id for one in made.client().queries() if "ASSET_STREAM_G2" in one.sinks)
        made.ksqldb.sql(f"TERMINATE {query};")
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
    operator = settled.operator()
    operator.observe()
    topology = operator.deps.topology
    settled.ksqldb.switch(executing=0.2)
    client = settled.client(on_request=lambda label, _code, _seconds: log.append(label))

    def send(group: str) -> None:
        client.execute(topology.create_group(names_of(group)))
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
            offset = properties.get("ksql.streams.auto.offset.reset")
            assert offset is None if "JOIN" in sql else offset == "earliest", sql


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
