"""Streams without a query that no asset's group has: whose they are is asked, never guessed by their names."""

from __future__ import annotations

import pytest
from fakes import Stage

from reconciler.controller import Controller

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
    """However many there are, a look costs one more read at most."""
    for number in range(5):
        stage.ksqldb.made[f"ASSET_STREAM_{number}"] = ("mine", PLAIN.replace("MINE", str(number)))
        stage.ksqldb.terminated.add(f"ASSET_STREAM_{number}")
    controller = stage.controller()
    asked = []
    for _ in range(7):
        controller.cycle()
        asked.append(stage.ksqldb.calls["describe"])
    assert asked == [1, 2, 3, 4, 5, 5, 5]


def test_one_that_was_made_anew_by_somebody_else_is_not_dropped(stage: Stage) -> None:
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
    """Somebody dropped a group's stream and made one of their own with its name: the group goes, theirs stays."""
    (stream,) = [name for name in stage.ksqldb.made if name.startswith("ASSET_STREAM_PAINT")]
    stage.ksqldb.made[stream] = ("mine", PLAIN.replace("ASSET_STREAM_MINE", stream))
    stage.ksqldb.terminated.add(stream)
    del stage.ksqldb.assets["P1"]
    controller = stage.controller()
    cycles(stage, controller)
    assert not [name for name in stage.platform.services if name.startswith("ofa_group_paint")]
    assert (stage.ksqldb.made[stream][0], stage.ksqldb.statements) == ("mine", [])
    assert controller.cycle().result == "in_sync"
