"""T9, T11, T23, T35, T37: no events, a flip between two looks, a paused update, read-only adapters, a jumping clock."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from reconciler.control.controller import Controller
from reconciler.control.guarded import DryRunLog, withhold_writes
from reconciler.control.loop import Loop
from reconciler.domain.status import Condition
from tests.harness.fakes import Stage
from tests.integration.faults.matrix import is_done, operator
from tests.integration.faults.matrix_oracle import Watch
from tests.integration.faults.matrix_scenarios import SCENARIOS, STEP, Scenario, settled
from tests.integration.faults.matrix_seam import Call, seam_of


def test_without_any_event_the_next_look_finds_it() -> None:
    """T9: no one nudges; the change is in place after the interval all the same."""
    stage = settled()
    loop = Loop(stage.controller(), interval=1.0)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        stage.ksqldb.assets["b"] = "g5"
        deadline = time.monotonic() + 20
        while "ofa_group_g5" not in stage.platform.services:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        loop.stop()
        thread.join(timeout=20)
    assert not thread.is_alive()


def test_a_flip_and_back_between_two_looks_is_no_change() -> None:
    """T11: an asset moves into a new group and back again before anybody looks: not one write."""
    stage = settled()
    controller = stage.controller()
    before = stage.writes
    for _ in range(5):
        controller.cycle()
        stage.now += STEP
        stage.ksqldb.assets["a4"] = "Elsewhere"
        stage.ksqldb.assets["a4"] = "g4"
    (*_, last) = (controller.cycle() for _ in range(3))
    assert is_done(last)
    assert stage.writes == before


def test_a_paused_update_is_degraded_and_not_repeated() -> None:
    """T23: the live spec is the wanted one, so there is nothing to apply; the engine's reason is shown."""
    stage = settled()
    stage.options["fastapi_group_image"] = "bad:1"
    stage.controller().cycle()
    live = stage.platform.services["ofa_group_g1"]
    stage.platform.services["ofa_group_g1"] = replace(live, update_state="paused", error="No such image: bad:1")
    controller = stage.controller()
    controller.cycle()
    before = stage.writes
    outcome = stage.run(controller, 20, STEP)
    assert stage.writes == before
    assert outcome.plan is not None
    (item,) = [item for item in outcome.plan.items if item.group == "g1"]
    assert item.condition is Condition.DEGRADED
    assert "update paused: No such image: bad:1" in item.detail


@pytest.mark.parametrize("days", [-400, -1, 1, 400])
def test_a_jump_of_the_wall_clock_ends_no_grace_time(days: int) -> None:
    """T37: grace times count monotonic seconds, so a jump neither removes a group nor keeps it."""
    stage = settled()
    del stage.ksqldb.assets["a4"]
    controller = stage.controller()
    for _ in range(5):
        controller.cycle()
        stage.wall += timedelta(days=days)
        stage.now += 1
    assert "ofa_group_g4" in stage.platform.services
    stage.settle(controller, step=STEP)
    assert "ofa_group_g4" not in stage.platform.services


class Sealed(Watch):
    """Lets no write through."""

    def before(self, call: Call, args: tuple[Any, ...]) -> None:
        """Raise, whatever it is."""
        raise AssertionError(f"{call} {args} was written through read-only adapters")


def read_only(stage: Stage) -> tuple[Controller, DryRunLog]:
    """Start an operator that may not write, before sides that would notice."""
    seam = seam_of(stage.platform, stage.ksqldb, Sealed(stage))
    controller, withheld = operator(stage, seam), DryRunLog()
    world = replace(controller.deps, ksqldb=seam.ksqldb, platform=seam.platform)
    controller.deps = withhold_writes(world, withheld)
    return controller, withheld


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_scenario_over_read_only_adapters_writes_nothing(scenario: Scenario) -> None:
    """T35: each plan can be computed and applied to read-only adapters; whatever is written is only taken down."""
    stage = scenario.world()
    scenario.change(stage)
    controller, withheld = read_only(stage)
    for _ in range(12):
        assert controller.cycle().result != "bug"
        stage.now += STEP
    assert withheld.writes
