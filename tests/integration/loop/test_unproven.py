"""What cannot be told yet: a stream whose query is not listed, a list that is older than our own last write."""

from __future__ import annotations

import pytest

from reconciler.control.executor import Executor
from reconciler.domain.actions import RecreateStream
from reconciler.domain.names import names_of
from tests.harness.fakes import Stage

FOREIGN = "CREATE STREAM ASSET_STREAM_WELD WITH (KAFKA_TOPIC='x') AS SELECT * FROM S EMIT CHANGES;"


@pytest.fixture
def stage() -> Stage:
    """Two groups, settled."""
    stage = Stage()
    stage.ksqldb.assets = {"P1": "Paint", "A1": "Assembly"}
    stage.settle(stage.controller())
    return stage


@pytest.mark.parametrize("shared", ["there", "another definition is on its way"])
def test_no_service_is_made_for_a_stream_that_may_be_foreign(stage: Stage, shared: str) -> None:
    """Its query is not listed, so its lineage is unknown: a service would serve a stranger's events."""
    if shared != "there":
        stage.options["ksqldb_uns_join_table"] = "asset_to_uns_map_raw"
    stage.ksqldb.made["ASSET_STREAM_WELD"] = ("x", FOREIGN)
    stage.ksqldb.terminated.add("ASSET_STREAM_WELD")
    stage.ksqldb.assets["W1"] = "Weld"
    controller = stage.controller()
    stage.run(controller, 30)
    assert "ofa_group_weld" not in stage.platform.services
    assert stage.ksqldb.made["ASSET_STREAM_WELD"] == ("x", FOREIGN)


def test_a_served_groups_service_comes_back_though_its_query_is_not_listed(stage: Stage) -> None:
    """The registry proves that the stream was ours, so a removed service does not wait for ksqlDB."""
    stage.ksqldb.terminated.add("ASSET_STREAM_PAINT")
    del stage.platform.services["ofa_group_paint"]
    stage.controller().cycle()
    assert "ofa_group_paint" in stage.platform.services


def test_a_stream_that_was_moved_a_moment_ago_is_not_dropped_again(stage: Stage) -> None:
    """The plan rests on a list from before the move; the stream itself says that it is in order."""
    executor = Executor(stage.ksqldb, stage.platform, stage.topology)
    before = stage.ksqldb.made["ASSET_STREAM_PAINT"]
    sent = len(stage.ksqldb.statements)
    (result,) = executor.apply([RecreateStream(names_of("Paint"), "its source differs")], lambda _: False)
    assert result.outcome == "error"
    assert "as it should be after all" in str(result.error)
    assert stage.ksqldb.made["ASSET_STREAM_PAINT"] == before
    assert len(stage.ksqldb.statements) == sent
