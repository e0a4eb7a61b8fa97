"""Reading groups from a table of counts: fast, never believed about an absence, made anew when it lies."""

from __future__ import annotations

import pytest
from fakes import Stage, unreachable

from reconciler.controller import Controller

SIX = {f"a{n}": f"g{n}" for n in range(6)}


@pytest.fixture
def stage() -> Stage:
    """Six groups of one asset each, with the table of counts."""
    stage = Stage(options={"groups_table": "on"})
    stage.ksqldb.assets = dict(SIX)
    return stage


def run(stage: Stage, controller: Controller, cycles: int, step: float = 10.0) -> None:
    """Run some cycles, ``step`` seconds apart."""
    for _ in range(cycles):
        controller.cycle()
        stage.now += step


def test_between_full_scans_the_table_is_read(stage: Stage) -> None:
    """Six cycles a minute: one full scan in RESYNC_INTERVAL, the other cycles ask the table, and none asks more."""
    controller = stage.controller()
    stage.settle(controller)
    run(stage, controller, 2)
    stage.ksqldb.calls.clear()
    run(stage, controller, 60)
    assert 2 <= stage.ksqldb.calls["members"] <= 4
    assert stage.ksqldb.calls["members"] + stage.ksqldb.calls["pull"] == 60
    assert controller.metrics.lies._value.get() == 0


def test_a_new_group_is_found_by_the_table(stage: Stage) -> None:
    """A count above zero is enough to create a group."""
    controller = stage.controller()
    stage.settle(controller)
    run(stage, controller, 2)
    stage.ksqldb.calls.clear()
    stage.ksqldb.assets["new"] = "New"
    run(stage, controller, 2)
    assert stage.ksqldb.calls["members"] == 0
    assert "ofa_group_new" in stage.platform.services


def test_a_row_that_the_table_lost_removes_nothing_and_the_table_is_made_anew(stage: Stage) -> None:
    """An aggregate can lose a row for good: the full scan is the authority, and a liar is counted and rebuilt."""
    controller = stage.controller()
    stage.settle(controller)
    run(stage, controller, 2)
    stage.ksqldb.forgotten = {"g3"}
    run(stage, controller, 30)
    assert "ofa_group_g3" in stage.platform.services
    assert "ASSET_STREAM_G3" in stage.ksqldb.made
    assert controller.metrics.lies._value.get() >= 1
    assert [one.verb for one in stage.ksqldb.statements if "table" in one.verb][:3] == [
        "create_table",
        "drop_table",
        "create_table",
    ]


def test_a_table_that_lags_is_no_liar(stage: Stage) -> None:
    """Counts follow the map with a delay of seconds: one or two comparisons that differ are no reason."""
    controller = stage.controller()
    stage.settle(controller)
    run(stage, controller, 2)
    stage.ksqldb.forgotten = {"g3"}
    run(stage, controller, 3)
    stage.ksqldb.forgotten = set()
    run(stage, controller, 60)
    assert controller.metrics.lies._value.get() == 0


def test_a_group_without_assets_is_removed_on_the_word_of_full_scans(stage: Stage) -> None:
    """The table shows it with no members; only full scans count towards its removal."""
    controller = stage.controller()
    stage.settle(controller)
    run(stage, controller, 2)
    del stage.ksqldb.assets["a5"]
    stage.ksqldb.calls.clear()
    run(stage, controller, 15)
    assert "ASSET_STREAM_G5" not in stage.ksqldb.made
    assert stage.ksqldb.calls["members"] >= 3


def test_a_table_that_cannot_be_read_costs_a_scan(stage: Stage) -> None:
    """A failing table is no failing cycle."""
    controller = stage.controller()
    stage.settle(controller)
    run(stage, controller, 2)
    stage.ksqldb.fault = unreachable("pull")
    assert controller.cycle().result == "in_sync"


def test_off_leaves_no_table(stage: Stage) -> None:
    """Without the setting there is no table, and every cycle scans."""
    stage.options["groups_table"] = "off"
    controller = stage.controller()
    stage.settle(controller)
    assert stage.ksqldb.counts == {}
    assert stage.ksqldb.calls["pull"] == 0


def test_another_definition_replaces_the_table(stage: Stage) -> None:
    """A changed join table is another table; the old one is dropped."""
    stage.settle(stage.controller())
    (old,) = stage.ksqldb.counts
    stage.options["ksqldb_uns_join_table"] = "asset_to_uns_map_raw"
    stage.settle(stage.controller())
    (new,) = stage.ksqldb.counts
    assert new != old


def test_a_terminated_query_is_replaced_between_full_scans_too(stage: Stage) -> None:
    """Patience with a query that is not listed does not start again at each look that only counts."""
    controller = stage.controller()
    stage.settle(controller)
    run(stage, controller, 2)
    stage.ksqldb.calls.clear()
    stage.ksqldb.terminated.add("ASSET_STREAM_G1")
    run(stage, controller, 12)
    assert stage.ksqldb.calls["members"] == 0
    assert stage.ksqldb.terminated == set()
