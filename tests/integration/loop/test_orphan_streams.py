"""Streams without a query that no asset's group has: whose they are is asked, never guessed by their names."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from openfactory_common.errors import KsqlBadStatement, KsqlError, KsqlRefused, KsqlWrongShape
from reconciler.control.controller import Controller
from reconciler.control.converge import Exit, converge
from reconciler.ksqldb.entities import Description
from reconciler.metrics import Metrics
from tests.harness.fakes import Stage, unreachable

PLAIN = "CREATE STREAM ASSET_STREAM_MINE (ID STRING) WITH (KAFKA_TOPIC='mine', VALUE_FORMAT='JSON');"


@pytest.fixture
def stage() -> Stage:
    """Two groups, everything made."""
    stage = Stage()
    stage.ksqldb.assets = {"W1": "Weld", "P1": "Paint Shop"}
    stage.settle(stage.controller())
    stage.ksqldb.calls.clear()
    stage.ksqldb.statements.clear()
    return stage


def cycles(stage: Stage, controller: Controller, number: int = 60) -> None:
    """Let time pass."""
    for _ in range(number):
        stage.now += 10
        controller.cycle()


def others(stage: Stage, number: int) -> None:
    """A user makes streams over topics of theirs, with names that could be ours and come first."""
    for each in range(number):
        stage.ksqldb.made[f"ASSET_STREAM_{each}"] = ("mine", PLAIN.replace("MINE", str(each)))
        stage.ksqldb.terminated.add(f"ASSET_STREAM_{each}")


def bereft(stage: Stage) -> str:
    """Take a group's assets, service and query away, and the operator's memory; return its stream."""
    (stream,) = [name for name in stage.ksqldb.made if name.startswith("ASSET_STREAM_PAINT")]
    del stage.ksqldb.assets["P1"]
    cycles_until_unregistered = stage.controller()
    while any(service.startswith("ofa_group_paint") for service in stage.platform.services):
        cycles(stage, cycles_until_unregistered, 1)
    assert stream in stage.ksqldb.made, "this is the moment between a service's removal and its stream's drop"
    stage.ksqldb.terminated.add(stream)
    return stream


def test_the_stream_of_a_group_of_which_nothing_else_is_left_goes(stage: Stage) -> None:
    """Its query was terminated after its service had gone, and a new operator knows nothing of it."""
    stream = bereft(stage)
    controller = stage.controller()
    outcome = controller.cycle()
    assert outcome.plan is not None
    assert [item.group for item in outcome.plan.items if item.group] == ["Paint Shop", "Weld"], "by its filter"
    assert stream in stage.ksqldb.made, "nothing goes at the first look"
    cycles(stage, controller)
    assert stream not in stage.ksqldb.made
    assert controller.cycle().result == "in_sync"


def test_a_group_that_has_members_after_all_keeps_its_stream(stage: Stage) -> None:
    """Its assets come back while the operator waits: the stream gets its query again and is never dropped."""
    stream = bereft(stage)
    controller = stage.controller()
    cycles(stage, controller, 2)
    stage.ksqldb.assets["P1"] = "Paint Shop"
    cycles(stage, controller)
    assert stream in stage.ksqldb.made
    assert (stage.ksqldb.terminated, "drop" in {one.verb for one in stage.ksqldb.statements}) == (set(), False)


def test_a_users_stream_with_a_name_like_ours_is_left_alone_and_asked_about_once(stage: Stage) -> None:
    """A stream over a topic of theirs: no query, no lineage."""
    stage.ksqldb.made["ASSET_STREAM_MINE"] = ("mine", PLAIN)
    stage.ksqldb.terminated.add("ASSET_STREAM_MINE")
    controller = stage.controller()
    cycles(stage, controller)
    assert "ASSET_STREAM_MINE" in stage.ksqldb.made
    assert stage.ksqldb.calls["describe"] == 1
    assert (controller.cycle().result, stage.ksqldb.statements) == ("in_sync", [])


def test_many_of_them_cost_one_read_a_look(stage: Stage) -> None:
    """However many there are, a look costs one more read at most, and nothing is in sync before all were asked."""
    others(stage, 5)
    controller = stage.controller()
    asked, results = [], []
    for _ in range(7):
        results.append(controller.cycle().result)
        asked.append(stage.ksqldb.calls["describe"])
    assert asked == [1, 2, 3, 4, 5, 5, 5]
    assert results == ["progressing"] * 4 + ["in_sync"] * 3


def test_nothing_is_removed_while_one_was_never_asked(stage: Stage) -> None:
    """Many groups whose streams are all that is left are too many at once, though they become known one by one."""
    stage.ksqldb.assets |= {f"a{number}": f"live{number:02d}" for number in range(40)}
    stage.settle(stage.controller())
    stage.ksqldb.statements.clear()
    template = stage.ksqldb.made["ASSET_STREAM_WELD"][1]
    for number in range(20):
        name = f"ASSET_STREAM_GONE{number:02d}"
        stage.ksqldb.made[name] = (
            f"asset_stream_gone{number:02d}",
            template.replace("Weld", f"gone{number:02d}").replace("WELD", f"GONE{number:02d}"),
        )
        stage.ksqldb.terminated.add(name)
    before = dict(stage.ksqldb.made)
    controller = stage.controller()
    cycles(stage, controller, 200)
    outcome = controller.cycle()
    assert outcome.plan is not None
    assert [refusal.guard for refusal in outcome.plan.refusals] == ["budget"]
    assert (stage.ksqldb.made, stage.ksqldb.statements) == (before, [])


def test_a_command_that_looks_once_asks_about_all(stage: Stage) -> None:
    """A user's stream that is asked about first does not hide what is left of a group, nor from `--once`."""
    stream = bereft(stage)
    others(stage, 3)
    once = Controller(stage.controller().deps, Metrics(CollectorRegistry()), reads_once=True)
    survey, _ = once.observe()
    assert survey.missing == {"Paint Shop"}

    def sleep(seconds: float) -> None:
        stage.now += seconds

    assert converge(stage.controller(), 300, sleep=sleep)[0] is Exit.OK
    assert stream not in stage.ksqldb.made


@pytest.mark.parametrize("refusal", [KsqlRefused("403"), KsqlBadStatement("no such"), KsqlWrongShape("two answers")])
def test_one_that_may_not_be_seen_stops_no_one(stage: Stage, refusal: KsqlError) -> None:
    """Another party's stream, with rights of its own: new groups are made, and what is ours is removed."""
    stream = bereft(stage)
    others(stage, 1)
    describe = stage.ksqldb.describe_or_none

    def refused(name: str) -> Description | None:
        if name == "ASSET_STREAM_0":
            raise refusal
        return describe(name)

    stage.ksqldb.describe_or_none = refused  # type: ignore[method-assign]
    stage.ksqldb.assets["N1"] = "New"
    controller = stage.controller()
    cycles(stage, controller)
    assert "ASSET_STREAM_NEW" in stage.ksqldb.made
    assert stream not in stage.ksqldb.made
    assert controller.cycle().result == "in_sync"


def test_one_that_is_not_answered_about_holds_removals_up_and_nothing_else(stage: Stage) -> None:
    """A failed read is never a fact: nothing is removed, new groups are made, and it is asked again."""
    stream = bereft(stage)
    controller = stage.controller()
    stage.ksqldb.fault = unreachable("describe")
    stage.ksqldb.assets["N1"] = "New"
    cycles(stage, controller)
    assert stream in stage.ksqldb.made
    assert "ASSET_STREAM_NEW" in stage.ksqldb.made
    outcome = controller.cycle()
    assert outcome.plan is not None
    (note,) = outcome.plan.notes
    assert note == (
        "Ownership of 1 stream without a running query is unknown; deletions are suspended until it is determined "
        f"(asking failed: {stream}: describe was not answered)"
    )
    stage.ksqldb.fault = lambda _call: None
    cycles(stage, controller)
    assert stream not in stage.ksqldb.made


def test_what_another_cluster_said_is_forgotten(stage: Stage) -> None:
    """A wrong server answers for one look, and has a plain stream of the same name."""
    stream = bereft(stage)
    controller = stage.controller()
    ours, stage.ksqldb.identity = stage.ksqldb.identity, ("kafka-2", "other_")
    kept, stage.ksqldb.made[stream] = stage.ksqldb.made[stream], ("mine", PLAIN)
    assert controller.cycle().result == "refused"
    stage.ksqldb.identity, stage.ksqldb.made[stream] = ours, kept
    cycles(stage, controller)
    assert stream not in stage.ksqldb.made


def test_one_that_was_created_again_by_another_owner_is_not_dropped(stage: Stage) -> None:
    """What was asked is old by then: it is asked again, and no complaint is left."""
    stream = bereft(stage)
    controller = stage.controller()
    cycles(stage, controller, 2)
    stage.ksqldb.made[stream] = ("mine", PLAIN.replace("ASSET_STREAM_MINE", stream))
    cycles(stage, controller)
    assert stage.ksqldb.made[stream][0] == "mine"
    assert not [one for one in stage.ksqldb.statements if one.target == stream]
    assert controller.cycle().result == "in_sync"


def test_what_is_left_of_an_old_definition_goes_too(stage: Stage) -> None:
    """A shared stream of another definition and the stream that reads it, both without their queries."""
    stream = bereft(stage)
    (old,) = [name for name in stage.ksqldb.made if not name.startswith("ASSET_STREAM_")]
    stage.ksqldb.terminated.add(old)
    stage.options["ksqldb_uns_join_table"] = "asset_to_uns_map_raw"
    controller = stage.controller()
    cycles(stage, controller)
    dropped = [one.target for one in stage.ksqldb.statements if one.verb == "drop"]
    assert dropped[-2:] == [stream, old]
    assert controller.cycle().result == "in_sync"


def test_a_users_stream_in_the_place_of_ours_outlives_the_group(stage: Stage) -> None:
    """A user dropped a group's stream and made one of their own with its name: the group goes, theirs stays."""
    (stream,) = [name for name in stage.ksqldb.made if name.startswith("ASSET_STREAM_PAINT")]
    stage.ksqldb.made[stream] = ("mine", PLAIN.replace("ASSET_STREAM_MINE", stream))
    stage.ksqldb.terminated.add(stream)
    del stage.ksqldb.assets["P1"]
    controller = stage.controller()
    cycles(stage, controller)
    assert not [name for name in stage.platform.services if name.startswith("ofa_group_paint")]
    assert (stage.ksqldb.made[stream][0], stage.ksqldb.statements) == ("mine", [])
    assert controller.cycle().result == "in_sync"
