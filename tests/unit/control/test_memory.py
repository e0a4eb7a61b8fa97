"""What stays on its way for too long is degraded, with since when and what for: pure tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from reconciler.control.memory import degrade_stalled
from reconciler.domain.services import Kind, LiveService, ServiceSpec
from reconciler.domain.status import Condition, ObjectStatus, Plan
from reconciler.planning.inputs import PlanInputs
from reconciler.planning.services import plan_service
from tests.harness.fake_platform import INSTALLATION
from tests.harness.fakes import Stage

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WAITS = ObjectStatus("group Weld", Condition.PROGRESSING, detail="waits for a query")


def after(*looks: tuple[float, ObjectStatus], deadline: float = 600.0) -> ObjectStatus:
    """Return what is said at the last of several looks."""
    standing, shown = {}, WAITS
    for now, item in looks:
        plan, standing = degrade_stalled(Plan(items=(item,)), standing, now, AT, deadline)
        (shown,) = plan.items
    return shown


OTHER = replace(WAITS, detail="waits for a service")
READY = replace(WAITS, condition=Condition.READY)
TABLE = [
    ("the first look", [(0, WAITS)], False),
    ("soon", [(0, WAITS), (599, WAITS)], False),
    ("for too long", [(0, WAITS), (300, WAITS), (600, WAITS)], True),
    ("and on", [(0, WAITS), (600, WAITS), (9000, WAITS)], True),
    ("with other words", [(0, WAITS), (599, OTHER), (700, OTHER)], False),
    ("with other words for too long", [(0, WAITS), (599, OTHER), (1199, OTHER)], True),
    ("ready in between", [(0, WAITS), (300, READY), (700, WAITS)], False),
    ("gone in between", [(0, WAITS), (300, replace(WAITS, title="group Paint")), (700, WAITS)], False),
    ("ready", [(0, READY), (700, READY)], False),
    ("conflict", [(0, replace(WAITS, condition=Condition.CONFLICT)), (700, READY)], False),
    ("leaving", [(t, replace(WAITS, condition=Condition.LEAVING)) for t in (0, 700)], False),
]


@pytest.mark.parametrize(("name", "looks", "late"), TABLE, ids=[row[0] for row in TABLE])
def test_what_says_the_same_for_too_long_is_degraded(
    name: str, looks: list[tuple[float, ObjectStatus]], late: bool
) -> None:
    """Another condition or other words are progress."""
    del name
    shown, last = after(*looks), looks[-1][1]
    if late:
        text = f"no progress since 2026-01-02 03:04:05 UTC: {last.detail}"
        assert shown == replace(last, condition=Condition.DEGRADED, change="!", detail=text)
    else:
        assert shown == last


def test_without_a_deadline_nothing_is_late() -> None:
    """`PROGRESS_DEADLINE=0`."""
    assert after((0, WAITS), (1e9, WAITS), deadline=0) == WAITS


def live(running: int, wanted: int = 1, update: str = "", error: str = "", waits: str = "") -> LiveService:
    """Return a service as the platform shows it."""
    spec = ServiceSpec("ofa_group_Weld", Kind.GROUP, "Weld", "a:1", {}, wanted, 1.0, 0.5, network="net-a")
    spec = replace(spec, installation=INSTALLATION.id)
    return LiveService("1", 1, spec.name, "ofa", spec, running, update, error, waits, AT, INSTALLATION.id)


NEW = "1 task in state new"
SERVICES = [
    (live(1), False, Condition.READY, ""),
    (live(1), True, Condition.READY, ""),
    (live(2, 2), False, Condition.READY, ""),
    (live(0), False, Condition.PROGRESSING, "0 of 1 tasks are running and healthy"),
    (live(0, waits=NEW), False, Condition.PROGRESSING, f"0 of 1 tasks are running and healthy ({NEW})"),
    (live(0, waits=NEW), True, Condition.DEGRADED, "no address is free in the network net-a"),
    (live(1, 2, waits=NEW), True, Condition.DEGRADED, "no progress since 2026-01-02 03:04:05 UTC: 1 of 2 tasks are"),
    (live(0), True, Condition.DEGRADED, "look at `docker service ps ofa_group_Weld`"),
    (live(0, error="No such image: a:1", waits=NEW), False, Condition.DEGRADED, "No such image: a:1"),
    (live(2), False, Condition.PROGRESSING, "2 tasks run, 1 wanted: an orphan task"),
    (live(2), True, Condition.DEGRADED, "no progress since 2026-01-02 03:04:05 UTC: 2 tasks run, 1 wanted"),
    (live(1, 0), False, Condition.PROGRESSING, "1 tasks run, 0 wanted: an orphan task"),
    (live(0, 0), False, Condition.READY, ""),
    (live(1, update="updating"), False, Condition.PROGRESSING, "its update is under way"),
    (live(2, update="updating"), False, Condition.PROGRESSING, "its update is under way"),
    (live(1, update="updating", waits="1 task in state preparing"), True, Condition.DEGRADED, "pulls a:1"),
    (live(1, update="updating", error="x"), True, Condition.DEGRADED, "update does not go on: x"),
    (live(1, update="paused", error="x"), False, Condition.DEGRADED, "update paused: x"),
    (live(1, update="completed"), True, Condition.READY, ""),
]


@pytest.mark.parametrize(("seen", "stalled", "condition", "said"), SERVICES)
def test_a_service_is_ready_only_as_it_should_be(
    seen: LiveService, stalled: bool, condition: Condition, said: str
) -> None:
    """Too few tasks, too many, an update: on its way, and degraded once nothing has moved for too long."""
    stage = Stage()
    stage.platform.services = {"ofa_group_weld": seen}
    controller = stage.controller()
    survey, _ = controller.observe()
    survey = replace(
        survey,
        observed=replace(
            survey.observed, platform=replace(survey.observed.platform, services={"ofa_group_weld": seen})
        ),
    )
    inputs = PlanInputs(controller.world.settings, controller.world.topology, controller.world.strategy.lookup())
    inputs = replace(inputs, stalled=frozenset({seen.name} if stalled else ()))
    assert seen.spec is not None
    item = plan_service(survey, inputs, seen.spec).item
    assert item.condition is condition
    assert said in item.detail
    assert bool(said) == bool(item.detail)
