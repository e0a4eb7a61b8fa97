"""An engine that keeps a task of before: the operator writes the same spec again, once, late, and where it may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from openfactory_common.errors import PlatformUnreachable
from reconciler.control.backoff import SURPLUS_SECONDS
from reconciler.control.controller import Controller
from reconciler.control.guarded import DryRunLog, withhold_writes
from reconciler.domain.services import LiveService
from reconciler.domain.status import Condition, CycleResult
from reconciler.leadership.elector import WriteBlock
from reconciler.leadership.pause import GROUP_PAUSES_RECORD, start_pause, write_mark, write_pause
from reconciler.report.why import explain_group, make_context, why_text
from tests.harness.fakes import Stage

WELD = "ofa_group_weld"
#: Seconds between two cycles, and how many of them the time is that a surplus must have lasted.
STEP = 10.0
LATE = int(SURPLUS_SECONDS / STEP)


@pytest.fixture
def stage() -> Stage:
    """Three groups that are served; the engine keeps one task of Weld."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "Weld", "b": "Paint", "c": "Fit"}
    stage.settle(stage.controller())
    stage.platform.keeping[WELD] = 1
    return stage


def cured(stage: Stage, controller: Controller, cycles: int) -> list[tuple[int, str]]:
    """Run cycles, and return in which of them which service was written."""
    found = []
    for number in range(cycles):
        outcome = controller.cycle()
        stage.now += STEP
        done = [one.action for one in outcome.results if one.outcome == "ok"]
        assert {one.verb for one in done} <= {"resubmit_service"}, "nothing else is to be done"
        found += [(number, one.key.removeprefix("service ofa_group_")) for one in done]
    return found


def test_it_is_cured_once_and_told(stage: Stage) -> None:
    """Not before the time is over; the spec stays, the history and `why` say what was done and why."""
    before, controller = stage.platform.services[WELD], stage.controller()
    outcome = stage.run(controller, LATE)
    assert outcome.plan is not None
    item = next(one for one in outcome.plan.items if one.group == "Weld")
    assert (item.condition, item.serves) == (Condition.PROGRESSING, True)
    assert item.detail == "2 tasks run, 1 wanted: an orphan task"
    assert outcome.survey is not None
    context = make_context(controller, outcome.survey, outcome.plan, stage.wall)
    assert "after 60 s of too many tasks the operator writes the same spec again" in told(context)
    assert cured(stage, controller, 20) == [(0, "Weld")]
    after = stage.platform.services[WELD]
    assert (after.spec, after.failed, after.failure) == (before.spec, before.failed, before.failure)
    entry = next(one for one in controller.reporter.journal.after() if "resubmit_service" in one.fields.values())
    assert (entry.event, entry.object, entry.group) == ("write done", "service ofa_group_Weld", "Weld")
    assert entry.reason == "2 tasks run, 1 wanted"
    count = controller.reporter.metrics.actions.labels("resubmit_service", "ok")
    assert count._value.get() == 1


@pytest.mark.parametrize("name", ["routing_layer", "state_api"])
def test_services_that_belong_to_no_group_are_cured_too(stage: Stage, name: str) -> None:
    """In the same way."""
    stage.platform.keeping = {f"ofa_{name}": 1}
    stage.run(operator := stage.controller(), LATE + 1)
    assert stage.platform.keeping == {}
    assert operator.cycle().result == "in_sync"


def told(context: object) -> str:
    """Return what `why` says of Weld."""
    answer = explain_group("Weld", context, "this operator")  # type: ignore[arg-type]
    assert answer is not None
    return why_text(answer)


def test_why_names_the_write_when_it_is_due(stage: Stage) -> None:
    """The plan of that cycle says what is written."""
    controller = stage.controller()
    stage.run(controller, LATE)
    outcome = controller.cycle()
    assert outcome.survey is not None
    assert outcome.plan is not None
    text = told(make_context(controller, outcome.survey, outcome.plan, stage.wall))
    assert "plan      2 tasks run, 1 wanted: an orphan task; its spec is written again" in text
    assert "write     resubmit service ofa_group_Weld" in text


def test_what_that_does_not_cure_is_written_ever_more_rarely(stage: Stage) -> None:
    """Each time after at least twice as long as the surplus had lasted before; six times in an hour."""

    class Kept(dict[str, int]):
        def pop(self, *_: object) -> int:  # type: ignore[override]
            return 1

    stage.platform.keeping = Kept({WELD: 1})
    assert [number for number, _ in cured(stage, stage.controller(), 360)] == [6, 18, 40, 82, 164, 326]


def test_one_that_cannot_be_written_holds_up_no_other(stage: Stage) -> None:
    """The write fails and waits; the other is cured meanwhile."""
    stage.platform.keeping["ofa_group_fit"] = 1
    update = stage.platform.update_service

    def refuse(live: LiveService, *rest: object) -> None:
        if live.name == "ofa_group_Fit":
            raise PlatformUnreachable("no")
        update(live, *rest)  # type: ignore[arg-type]

    stage.platform.update_service = refuse  # type: ignore[method-assign, assignment]
    assert cured(stage, stage.controller(), 5 * LATE) == [(LATE, "Weld")]


def test_a_restart_counts_again(stage: Stage) -> None:
    """An operator that has just started has not seen that it lasts."""
    for _ in range(4):
        assert cured(stage, stage.controller(), LATE) == []
    assert cured(stage, stage.controller(), LATE + 1) == [(LATE, "Weld")]


def updating(stage: Stage) -> None:
    """An update begins its new task before it ends the old one."""
    stage.platform.services[WELD] = replace(stage.platform.services[WELD], update_state="updating")


def rolling_back(stage: Stage) -> None:
    """The same, of a rollback."""
    stage.platform.services[WELD] = replace(stage.platform.services[WELD], update_state="rollback_started")


def changing(stage: Stage) -> None:
    """The service is written again and again, so tasks are always on their way."""
    stage.platform.touch(WELD)


def vanishing(stage: Stage) -> None:
    """The number is right now and then."""
    stage.platform.keeping[WELD] = int(stage.now / STEP) % LATE != 0


def foreign(stage: Stage) -> None:
    """Its owner is another one, and so are its tasks."""
    stage.platform.services[WELD] = replace(stage.platform.services[WELD], owner="other", spec=None, running=2)


@pytest.mark.parametrize("change", [updating, rolling_back, changing, vanishing, foreign])
def test_what_is_no_surplus_is_left_alone(stage: Stage, change: Callable[[Stage], None]) -> None:
    """Whatever takes its time by itself, and what is not ours."""
    controller = stage.controller()
    for _ in range(3 * LATE):
        change(stage)
        assert cured(stage, controller, 1) == []


def pause_group(stage: Stage, _controller: Controller) -> None:
    """A person has paused the group."""
    write_mark(stage.platform, GROUP_PAUSES_RECORD, "Weld", start_pause(stage.wall, 86400, "ana@shell"), stage.wall)


def pause_all(stage: Stage, _controller: Controller) -> None:
    """A person has paused everything."""
    write_pause(stage.platform, start_pause(stage.wall, 86400, "ana@shell"))


def stand_by(_stage: Stage, controller: Controller) -> None:
    """Another operator holds the lease."""
    block = WriteBlock(CycleResult.STANDBY, "standby")
    controller.write_gate.write_block = lambda: block  # type: ignore[method-assign]


@pytest.mark.parametrize("hold", [pause_group, pause_all, stand_by])
def test_where_nothing_may_be_written_it_stays(stage: Stage, hold: Callable[[Stage, Controller], None]) -> None:
    """As every other write."""
    controller = stage.controller()
    hold(stage, controller)
    assert cured(stage, controller, 3 * LATE) == []
    assert stage.platform.keeping == {WELD: 1}


def test_a_policy_that_changes_nothing_holds_it(stage: Stage) -> None:
    """`create-only`; with `upsert-only` it is an update like any other."""
    stage.options["reconcile_policy"] = "create-only"
    controller = stage.controller()
    assert cured(stage, controller, 3 * LATE) == []
    plan = controller.cycle().plan
    assert plan is not None
    assert next(one for one in plan.items if one.group == "Weld").condition is Condition.HELD
    stage.options["reconcile_policy"] = "upsert-only"
    assert len(cured(stage, stage.controller(), LATE + 1)) == 1


def test_a_dry_run_says_so_and_does_not_repeat_it_in_each_cycle(stage: Stage) -> None:
    """Nothing is written."""
    controller, log = stage.controller(), DryRunLog()
    controller.deps = withhold_writes(controller.deps, log)
    controller.reporter.dry_run = True
    stage.run(controller, LATE + 5)
    assert len(log.writes) == 1
    assert stage.platform.keeping == {WELD: 1}
