"""Mishaps that a reader of the code thought of: each once did, or nearly did, something that must not happen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openfactory_common import registry
from openfactory_common.errors import KsqlBadStatement, KsqlRefused
from openfactory_common.registry import parse
from reconciler.control.converge import Exit, converge
from reconciler.control.loop import find_progress
from reconciler.domain.status import Condition
from reconciler.ksqldb.entities import QueryInfo, Statement
from reconciler.planning.guards import Overrides
from tests.harness.fakes import WELL, Stage, unreachable

THREE = {"W1": "Weld", "P1": "Paint", "A1": "Assembly"}


@pytest.fixture
def stage() -> Stage:
    """Three groups, settled."""
    stage = Stage()
    stage.ksqldb.assets = dict(THREE)
    stage.settle(stage.controller())
    return stage


def run(stage: Stage, cycles: int = 20, step: float = 10.0) -> None:
    """Run some cycles of a fresh operator."""
    stage.run(stage.controller(), cycles, step)


def groups_of(stage: Stage) -> set[str]:
    """Return the registered groups."""
    newest = max(stage.platform.registries.values(), key=lambda one: one.sequence)
    return set(parse(newest.data).groups)


def group_streams(stage: Stage) -> set[str]:
    """Return the group streams that exist."""
    return {name for name in stage.ksqldb.made if name.startswith("ASSET_STREAM_")}


@pytest.mark.parametrize("name", ["OFA_ASSETS_WITH_UNS_DEBUG", "OFA_ASSETS_WITH_UNS_DEADBEEF"])
def test_a_users_stream_that_is_named_like_a_shared_one_is_not_dropped(stage: Stage, name: str) -> None:
    """A name alone never makes anything ours: it must have our form too."""
    text = f"CREATE STREAM {name} WITH (KAFKA_TOPIC='x') AS SELECT * FROM ENRICHED_ASSETS_STREAM EMIT CHANGES;"
    stage.ksqldb.made[name] = ("x", text)
    run(stage)
    assert name in stage.ksqldb.made


def test_a_typo_in_the_join_table_drops_no_stream(stage: Stage) -> None:
    """The streams go on from the old shared stream until the new one is seen to be there."""
    stage.options["ksqldb_uns_join_table"] = "typo"
    execute = stage.ksqldb.execute

    def refuse(statement: Statement) -> object:
        if "`TYPO`" in statement.sql:
            raise KsqlBadStatement("TYPO does not exist.")
        return execute(statement)

    stage.ksqldb.execute = refuse  # type: ignore[method-assign]
    run(stage)
    assert len(group_streams(stage)) == 3
    assert [one.verb for one in stage.ksqldb.statements if one.verb == "drop"] == []


def test_the_query_limit_and_another_definition_drop_no_stream(stage: Stage) -> None:
    """Where the new shared stream may not be made, the old ones stay."""
    stage.options["ksqldb_uns_join_table"] = "asset_to_uns_map_raw"
    stage.ksqldb.limit = 4
    run(stage)
    assert len(group_streams(stage)) == 3
    code, _ = converge(stage.controller(), 30, sleep=lambda _: None)
    assert code is Exit.REFUSED


def test_a_newcomer_in_another_case_takes_no_groups_place(stage: Stage) -> None:
    """A group that is served keeps its names: `WELD` is the conflict, though it sorts first."""
    stage.ksqldb.assets["X"] = "WELD"
    controller = stage.controller()
    for _ in range(5):
        outcome = controller.cycle()
    assert groups_of(stage) == {"Weld", "Paint", "Assembly"}
    assert outcome.plan is not None
    conditions = {item.group: item.condition for item in outcome.plan.items}
    assert (conditions["Weld"], conditions["WELD"]) == (Condition.READY, Condition.CONFLICT)


def test_a_rebuild_drops_nothing_while_another_client_reads_the_shared_stream(stage: Stage) -> None:
    """All readers are asked about before the first is dropped."""
    shared = next(name for name in stage.ksqldb.made if name not in group_streams(stage))
    stage.ksqldb.made["MINE"] = ("mine", f"CREATE STREAM MINE AS SELECT * FROM `{shared}` EMIT CHANGES;")
    stage.ksqldb.terminated.add(shared)
    run(stage)
    assert len(group_streams(stage)) == 3
    del stage.ksqldb.made["MINE"]
    stage.ksqldb.terminated.add("ASSET_STREAM_WELD")
    run(stage, 60)
    assert len(group_streams(stage)) == 3
    assert stage.ksqldb.terminated == set() or shared not in stage.ksqldb.terminated


def test_a_list_of_queries_that_shrinks_is_never_believed(stage: Stage) -> None:
    """A server that stops lists one query less each time, for longer than any grace time, healthy and RUNNING."""
    queries = stage.ksqldb.queries
    left = 5

    def shrinking() -> tuple[QueryInfo, ...]:
        return queries()[:left]

    stage.ksqldb.queries = shrinking  # type: ignore[method-assign]
    stage.options["prune_grace"] = 5.0
    stage.options["prune_reads"] = 2
    sent = stage.ksqldb.writes
    controller = stage.controller()
    for left in range(4, -1, -1):  # noqa: B007 - shrinking() reads it
        controller.cycle()
        stage.now += 10
    assert stage.ksqldb.writes == sent


def test_a_group_that_comes_back_over_a_topic_of_another_retention(stage: Stage) -> None:
    """Where the kept topic has another retention, the stream is made with that one."""
    stage.options["group_retention"] = 60.0
    execute = stage.ksqldb.execute

    def strict(statement: Statement) -> object:
        if statement.verb == "create" and "RETENTION_MS=60000" in statement.sql:
            raise KsqlRefused(
                "A Kafka topic with the name 'x' already exists, with different partition/replica/retention "
                "configuration than required. KSQL expects 1 partitions (topic has 1), 1 replication factor (topic "
                "has 1), and 60000 retention (topic\n\thas 604800000)."
            )
        return execute(statement)

    stage.ksqldb.execute = strict  # type: ignore[method-assign]
    del stage.ksqldb.made["ASSET_STREAM_WELD"]
    run(stage, 3)
    assert "RETENTION_MS=604800000" in stage.ksqldb.made["ASSET_STREAM_WELD"][1]


def test_a_silent_stream_of_an_old_definition_is_created_again(stage: Stage) -> None:
    """Another source cannot be replaced in place, so such a stream is dropped and created."""
    stage.ksqldb.terminated.add("ASSET_STREAM_WELD")
    stage.options["ksqldb_uns_join_table"] = "asset_to_uns_map_raw"
    run(stage, 40)
    (shared,) = set(stage.ksqldb.made) - group_streams(stage)
    assert all(shared in stage.ksqldb.made[name][1] for name in group_streams(stage))
    assert stage.ksqldb.terminated & set(stage.ksqldb.made) == set()


def test_a_group_that_is_no_text_stops_no_one() -> None:
    """Half of a surrogate pair can be written nowhere: that group is a conflict, the others are served."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "\ud800", "b": "Weld"}
    run(stage, 5)
    assert groups_of(stage) == {"Weld"}


def test_a_registry_that_grew_too_large_stops_only_its_publication(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T28: groups and repairs go on, exit code 4 has the size in its message."""
    largest = max(len(live.data) for live in stage.platform.registries.values())
    monkeypatch.setattr(registry, "LIMIT_BYTES", largest)
    stage.options["swarm_node_host"] = ".".join(["h" * 60] * 4)
    stage.options["environment"] = "local"
    controller = stage.controller()
    for _ in range(4):
        outcome = controller.cycle()
    assert outcome.plan is not None
    assert [refusal.guard for refusal in outcome.plan.refusals] == ["size"]
    assert groups_of(stage) == {"Weld", "Paint", "Assembly"}


def test_an_unreadable_newest_registry_is_not_shown_and_is_replaced(stage: Stage) -> None:
    """A document of a later version, left by a rollback, reaches no proxy."""
    newest = max(stage.platform.registries.values(), key=lambda one: one.sequence)
    bad = replace(newest, name="ofa_registry-bad", data=b'{"version": 9}', sequence=newest.sequence + 1)
    stage.platform.registries[bad.name] = bad
    shown: list[bytes] = []
    controller = stage.controller()
    controller.reporter.on_registry = lambda data, _: shown.append(data)
    controller.cycle()
    assert bad.data not in shown
    assert groups_of(stage) == {"Weld", "Paint", "Assembly"}


def test_another_query_that_writes_into_a_stream_of_ours_is_not_its_definition(stage: Stage) -> None:
    """INSERT INTO our stream changes nothing about whose it is."""
    queries = stage.ksqldb.queries
    foreign = QueryInfo(
        "INSERTQUERY_9", "INSERT INTO X SELECT 1;", ("ASSET_STREAM_WELD",), "PERSISTENT", {"RUNNING": 1}
    )
    stage.ksqldb.queries = lambda: (*queries(), foreign)  # type: ignore[method-assign]
    assert stage.controller().cycle().result == "in_sync"


@pytest.mark.parametrize("policy", ["upsert-only", "create-only"])
def test_what_the_policy_forbids_is_held_and_not_waited_for(stage: Stage, policy: str) -> None:
    """--once ends with 0 at once: nothing that it may do is left."""
    stage.options["reconcile_policy"] = policy
    del stage.ksqldb.assets["P1"]
    if policy == "create-only":
        stage.platform.touch("ofa_group_Weld", replicas=3)
    code, outcome = converge(stage.controller(), 5, sleep=lambda _: None)
    assert code is Exit.OK
    assert outcome.plan is not None
    assert {item.condition for item in outcome.plan.items} == {Condition.READY, Condition.HELD}
    assert find_progress(outcome.plan) is None
    assert outcome.results == ()


def test_a_yes_to_another_cluster_is_taken_once(stage: Stage) -> None:
    """After it was accepted the registry carries the new identity, and a plain operator goes on."""
    stage.ksqldb.identity = ("kafka-2", "default_")
    stage.settle(stage.controller(Overrides(accept_identity=True)))
    assert stage.controller().cycle().result == "in_sync"
    stage.ksqldb.identity = ("kafka-3", "default_")
    assert stage.controller().cycle().result == "refused"


def test_ksqldb_that_is_not_well_holds_a_removal_back(stage: Stage) -> None:
    """Every read of the grace time has to be of a healthy server."""
    del stage.ksqldb.assets["P1"]
    stage.ksqldb.well = replace(WELL, command_runner=False, healthy=False)
    run(stage, 30)
    stage.ksqldb.well = WELL
    stage.ksqldb.fault = unreachable("topics")
    assert "ofa_group_paint" in stage.platform.services


def test_a_stream_whose_topic_a_user_deleted_is_created_again(stage: Stage) -> None:
    """Found when topics are listed, every RESYNC_INTERVAL; asked again before the stream is dropped."""
    controller = stage.controller()
    controller.cycle()
    topic, text = stage.ksqldb.made["ASSET_STREAM_WELD"]
    listed = stage.ksqldb.topics
    gone = {topic}
    stage.ksqldb.topics = lambda: {one: 1 for one in listed() if one not in gone}  # type: ignore[method-assign]
    stage.ksqldb.statements.clear()
    stage.now += 100
    controller.cycle()
    assert stage.ksqldb.statements == []
    stage.now += 300
    controller.cycle()
    assert [one.verb for one in stage.ksqldb.statements] == ["drop", "create"]
    assert stage.ksqldb.made["ASSET_STREAM_WELD"] == (topic, text)
