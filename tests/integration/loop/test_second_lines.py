"""Each rule alone, where in real life another one would catch the same mishap too."""

from __future__ import annotations

import pytest

from reconciler.control.executor import Executor
from reconciler.domain.actions import Action, DropStream, RecreateStream, Result
from reconciler.domain.names import assign, names_of
from tests.harness.fakes import Stage


@pytest.fixture
def stage() -> Stage:
    """Six groups, settled."""
    stage = Stage()
    stage.ksqldb.assets = {f"a{n}": f"g{n}" for n in range(6)}
    stage.settle(stage.controller())
    return stage


def applied(stage: Stage, action: Action) -> Result:
    """Apply one action as if a plan had wanted it."""
    (result,) = Executor(stage.ksqldb, stage.platform, stage.topology).apply([action], lambda _: False)
    return result


def test_an_empty_map_does_not_remove_the_only_group() -> None:
    """The budget always lets one group go; the map that names none is refused all the same."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "Weld"}
    stage.settle(stage.controller())
    stage.ksqldb.assets = {}
    before = stage.writes
    stage.run(stage.controller(), 30, 10)
    assert stage.writes == before


def test_time_alone_is_no_patience(stage: Stage) -> None:
    """Two reads ten minutes apart are longer than the grace time, and too few."""
    del stage.ksqldb.assets["a5"]
    before = stage.writes
    stage.run(stage.controller(), 2, 600)
    assert stage.writes == before


def test_a_shrinking_list_of_queries_counts_for_nothing(stage: Stage) -> None:
    """With each query less, the count of the streams that have lost theirs starts again."""
    queries, controller = stage.ksqldb.queries, stage.controller()
    for left in range(6, 2, -1):
        stage.ksqldb.queries = lambda left=left: queries()[:left]  # type: ignore[method-assign, misc]
        stage.run(controller, 1, 30)
        assert {seen.reads for seen in controller.memory.guards.silent.values()} <= {1}


@pytest.mark.parametrize("stream", ["ASSET_STREAM_THEIRS", "OFA_ASSETS_WITH_UNS_DEADBEEF"])
def test_a_drop_asks_for_lineage_first(stage: Stage, stream: str) -> None:
    """A user made another stream of that name since the plan was made."""
    text = f"CREATE STREAM {stream} WITH (KAFKA_TOPIC='x') AS SELECT * FROM S EMIT CHANGES;"
    stage.ksqldb.made[stream] = ("x", text)
    assert "does not read from our shared stream: not touched" in str(applied(stage, DropStream(stream, None)).error)
    assert stream in stage.ksqldb.made


def test_a_topic_that_is_there_after_all_keeps_its_stream(stage: Stage) -> None:
    """The list that lacked it was older; the stream is not dropped."""
    action = RecreateStream(names_of("g1"), "its topic is gone", topic_gone=True)
    before = stage.ksqldb.writes
    assert "is there after all" in str(applied(stage, action).error)
    assert stage.ksqldb.writes == before


def test_names_that_differ_only_in_case_are_one() -> None:
    """Both sides ignore case, so one of the two loses."""
    named, losers = assign(["line1", "Line1"])
    assert set(named) == {"Line1"}
    assert losers == {"line1": "Line1"}
