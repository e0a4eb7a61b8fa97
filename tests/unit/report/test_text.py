"""A plan as text: every write has its line, and the totals count every object."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.domain.status import Plan
from reconciler.report.text import plan_text, shorten_verb, summarize
from tests.harness.fakes import Stage


@pytest.fixture
def stage() -> Stage:
    """Two groups, settled."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "Weld", "b": "Paint"}
    stage.settle(stage.controller())
    return stage


def planned(stage: Stage) -> Plan:
    """Observe, and plan."""
    controller = stage.controller()
    survey, verdict = controller.observe()
    return controller.plan(survey, verdict)


def break_weld(stage: Stage, error: str) -> None:
    """No task of Weld's is healthy, for this reason."""
    stage.platform.healthy = lambda name: name != "ofa_group_Weld"
    live = stage.platform.services["ofa_group_weld"]
    stage.platform.services["ofa_group_weld"] = replace(live, error=error, running=0)


def test_manual_intervention_is_not_called_a_repair(stage: Stage) -> None:
    """No write is planned for a task that cannot run."""
    break_weld(stage, "no such image")
    assert summarize(planned(stage)) == "Plan: 0 create, 0 update, 0 repair, 0 delete, 1 degraded; 0 writes."


def test_what_only_has_to_start_is_counted_as_that(stage: Stage) -> None:
    """Nothing is written, and nothing is wrong yet."""
    break_weld(stage, "")
    assert summarize(planned(stage)) == "Plan: 0 create, 0 update, 0 repair, 0 delete, 1 starting; 0 writes."


def test_a_repair_that_is_planned_is_a_repair(stage: Stage) -> None:
    """A paused query is resumed."""
    stage.ksqldb.paused.add("ASSET_STREAM_WELD")
    assert summarize(planned(stage)) == "Plan: 0 create, 0 update, 1 repair, 0 delete; 1 write."


def test_a_write_to_what_all_groups_share_has_its_line() -> None:
    """The totals count no write that is not shown: the shared stream comes first of all, and belongs to no group."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "Weld"}
    plan = planned(stage)
    shared = plan.actions[0].key
    lines = plan_text(plan).splitlines()
    assert f"+ {shared} create shared stream" in lines
    assert len([line for line in lines if shared in line]) == 1
    assert not any("publish registry" in line for line in lines)


@pytest.mark.parametrize(
    ("verb", "key", "said"),
    [
        ("create_service", "service ofa_group_Weld", "create"),
        ("create_shared_stream", "stream OFA", "create shared"),
        ("remove_registry", "config ofa_registry-1", "remove registry"),
        ("publish_registry", "registry", "publish"),
    ],
)
def test_the_kind_of_an_object_is_said_once(verb: str, key: str, said: str) -> None:
    """The verb stands before the object, which begins with its kind."""
    assert shorten_verb(verb, key) == said
