"""Updates that are under way or do not go on, and what is logged of degraded groups."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from openfactory_common.registry import parse
from reconciler.cli.show import choose_exit
from reconciler.control.controller import Controller
from reconciler.control.converge import Exit, converge
from reconciler.control.outcome import CycleOutcome
from reconciler.domain.status import Condition, ObjectStatus
from tests.harness.fakes import Stage

STUCK = "no suitable node (insufficient resources on 1 node)"


@pytest.fixture
def stage() -> Stage:
    """Two groups, everything made."""
    stage = Stage()
    stage.ksqldb.assets = {"W1": "Weld", "P1": "Paint"}
    stage.settle(stage.controller())
    return stage


def weld(stage: Stage, **changes: Any) -> None:
    """Let the engine say something else of the service of Weld."""
    name = "ofa_group_weld"
    stage.platform.services[name] = replace(stage.platform.services[name], **changes)


def item(outcome: CycleOutcome) -> ObjectStatus:
    """Return what the plan says of Weld."""
    assert outcome.plan is not None
    return next(one for one in outcome.plan.items if one.group == "Weld")


def test_an_update_that_is_under_way_is_not_the_end(stage: Stage) -> None:
    """The tasks of before run, which is not what was asked for: `--once` waits, the registry keeps the group."""
    weld(stage, update_state="updating")
    outcome = stage.controller().cycle()
    assert outcome.plan is not None
    assert (item(outcome).condition, choose_exit(outcome.plan)) == (Condition.PROGRESSING, Exit.CHANGES)

    def sleep(_: float) -> None:
        stage.now += 1
        if stage.now > 1200:
            weld(stage, update_state="completed")

    code, outcome = converge(stage.controller(), 1000, sleep=sleep)
    assert (code, item(outcome).condition) == (Exit.OK, Condition.READY)
    newest = max(stage.platform.registries.values(), key=lambda one: one.sequence)
    assert set(parse(newest.data).groups) == {"Weld", "Paint"}


def test_an_update_whose_tasks_cannot_start_says_why(stage: Stage) -> None:
    """The old task serves on, so nothing is lost, and nothing is well: a person has to make room."""
    weld(stage, update_state="updating", error=STUCK)
    outcome = stage.controller().cycle()
    assert outcome.plan is not None
    assert (item(outcome).condition, item(outcome).detail) == (Condition.DEGRADED, f"update is stuck: {STUCK}")
    assert choose_exit(outcome.plan) is Exit.NOT_CONVERGED
    assert outcome.results == ()


def said(controller: Controller) -> list[MutableMapping[str, Any]]:
    """Run a cycle; return what its log says of objects, from information up."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    with capture_logs() as lines:
        controller.cycle()
    return [line for line in lines if "object" in line]


def test_the_log_has_each_trouble_once_and_its_end(stage: Stage) -> None:
    """With the reason in the engine's words; nothing is said again while nothing changes."""
    controller = stage.controller()
    assert said(controller) == []
    stage.platform.healthy = lambda name: name != "ofa_group_Weld"
    weld(stage, error="No such image: nope:1")
    (line,) = said(controller)
    assert (line["log_level"], line["object"], line["group"]) == ("warning", "group Weld", "Weld")
    assert (line["condition"], line["reason"]) == ("Degraded", "No such image: nope:1")
    assert said(controller) == []
    weld(stage, error="task: non-zero exit (1)")
    assert [line["reason"] for line in said(controller)] == ["task: non-zero exit (1)"]
    weld(stage, error="")
    assert said(controller) == [], "a task that is starting has not recovered yet"
    stage.platform.healthy = lambda _: True
    assert said(controller) + said(controller) == [], "nor one that has just come up"
    (line,) = said(controller)
    assert (line["event"], line["object"], line["log_level"]) == ("recovered", "group Weld", "info")


def test_the_log_does_not_repeat_what_goes_on(stage: Stage) -> None:
    """A task that crashes and starts in turns, and counts its starts, is one trouble; another world is none."""
    controller = stage.controller()
    lines = []
    for number in range(20):
        stage.platform.healthy = lambda name, up=bool(number % 2): up or name != "ofa_group_Weld"
        weld(stage, error=f"started again {number} times in container 0123456789ab{number:02d}")
        lines += said(controller)
    assert len(lines) == 1
    stage.platform.healthy = lambda _: False
    stage.ksqldb.identity = ("kafka-2", "other_")
    assert said(controller) == []


def test_a_group_that_serves_enters_the_registry_whatever_its_update_does(stage: Stage) -> None:
    """The documents are lost while an update is stuck: the old task serves, and its clients stay."""
    weld(stage, update_state="updating", error=STUCK)
    stage.platform.registries.clear()
    stage.controller().cycle()
    newest = max(stage.platform.registries.values(), key=lambda one: one.sequence)
    assert set(parse(newest.data).groups) == {"Weld", "Paint"}


def test_the_log_names_a_conflict(stage: Stage) -> None:
    """A group whose name another one holds is told once, from the first look on."""
    stage.ksqldb.assets["w"] = "weld"
    controller = stage.controller()
    assert [(line["group"], line["condition"]) for line in said(controller)] == [("weld", "Conflict")]
    assert said(controller) == []


def test_the_log_names_the_fields_that_were_put_right(stage: Stage) -> None:
    """And not what stood in them, which may be a user's secret."""
    live = stage.platform.services["ofa_group_weld"]
    assert live.spec is not None
    weld(stage, spec=replace(live.spec, env={**live.spec.env, "PASSWORD": "hunter2"}))
    line, progress = said(stage.controller())[::-1]
    assert progress["event"] == "progressing"
    assert "hunter2" not in str(progress)
    assert (line["action"], line["drift"]) == ("update_service", ["env PASSWORD"])
    assert "hunter2" not in str(line)
