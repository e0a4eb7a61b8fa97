"""What stays on its way for too long is degraded, with since when and what for: pure tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import pytest

from reconciler.control.backoff import Backoff, Failure, Surplus
from reconciler.control.memory import Memory, degrade_stalled
from reconciler.control.observe import Clocks
from reconciler.domain.actions import CreateSharedStream
from reconciler.domain.installation import Claim
from reconciler.domain.readiness import Readiness, ReadyState
from reconciler.domain.services import PlatformState
from reconciler.domain.status import Condition, ObjectStatus, Plan
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


class LookedUp(dict[str, Failure]):
    """Failures of which one is looked up, never all."""

    def __iter__(self) -> NoReturn:
        """Refuse."""
        raise AssertionError("every write goes through every failure")

    keys = values = items = __iter__  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("key", "now", "waits"), [("stream A", 9, True), ("stream A", 10, False), ("stream B", 9, False)]
)
def test_a_write_looks_up_its_own_failure_only(key: str, now: float, waits: bool) -> None:
    """Twenty thousand writes that wait must not take as many times twenty thousand steps."""
    memory = Memory(backoff=Backoff(LookedUp({key: Failure(1, 10.0, "failed")})))
    assert memory.must_wait(CreateSharedStream("A"), now) is waits


READY, NOT_READY, UNREACHABLE = ReadyState.READY, ReadyState.NOT_READY, ReadyState.UNREACHABLE
#: What the probes found and seconds ago since when ("-": nothing is probed, None: not probed yet), seconds since the
#: service's update, whether the engine says that its tasks run; whether it is baked (10 s), overdue (120 s).
BAKED = [
    ((READY, 10), 11, True, True, False),
    ((READY, 9), 1000, True, False, True),
    ((READY, 10), 11, False, False, False),
    ((NOT_READY, 500), 500, True, False, True),
    ((NOT_READY, 100), 119, True, False, False),
    ((NOT_READY, 100), 120, True, False, True),
    (None, 50, True, False, False),
    ("-", 10, True, True, False),
    ("-", 9, True, False, False),
    ("-", 10, False, False, False),
    ((UNREACHABLE, 0), 10, True, True, False),
    ((UNREACHABLE, 0), 300, False, False, True),
    ("-", -9, True, False, False),  # the engine's clock is ahead
    ("-", -432_000, True, True, False),  # the clock was set back
    ((READY, 10), -432_000, True, True, False),
    ("-", None, True, True, False),  # a platform that does not say when
    ((READY, 10), None, True, True, False),
]


@pytest.mark.parametrize(("found", "changed", "runs", "baked", "overdue"), BAKED)
def test_a_service_is_baked_once_it_was_ready_for_long_enough(
    found: tuple[ReadyState, float] | str | None, changed: float | None, runs: bool, baked: bool, overdue: bool
) -> None:
    """By its probes, or where nothing is probed by the age of its update; the age alone says what is overdue."""
    stage = Stage(options={"rollout_bake": 10})
    stage.ksqldb.assets = {"A": "Weld"}
    stage.settle(controller := stage.controller())
    live = stage.platform.observe().services["ofa_group_weld"]
    updated_at = None if changed is None else stage.wall - timedelta(seconds=changed)
    live = replace(live, updated_at=updated_at, running=int(runs))
    readiness = None if found == "-" else {}
    if isinstance(found, tuple):
        readiness = {"ofa_group_weld": Readiness(found[0], since=stage.now - found[1])}
    clocks = Clocks(lambda: stage.now, lambda: stage.wall)
    inputs = Memory(readiness=readiness).make_plan_inputs(
        controller.deps, PlatformState({"ofa_group_weld": live}), Claim(stage.topology.installation), clocks
    )
    assert inputs.readiness == readiness
    assert inputs.baked == ({"ofa_group_weld"} if baked else set())
    assert inputs.overdue == ({"ofa_group_weld"} if overdue else set())


@pytest.mark.parametrize(("seconds", "overdue"), [(119, False), (120, True)])
def test_after_the_clock_was_set_back_what_this_operator_has_seen_counts(seconds: float, overdue: bool) -> None:
    """A service that never becomes ready would have all others wait until the clock is where it was."""
    stage = Stage(options={"rollout_timeout": 120})
    stage.ksqldb.assets = {"A": "Weld"}
    stage.settle(controller := stage.controller())
    live = stage.platform.observe().services["ofa_group_weld"]
    live = replace(live, updated_at=stage.wall + timedelta(days=5), running=0)
    inputs = Memory(unready={"ofa_group_weld": stage.now - seconds}).make_plan_inputs(
        controller.deps,
        PlatformState({"ofa_group_weld": live}),
        Claim(stage.topology.installation),
        Clocks(lambda: stage.now, lambda: stage.wall),
    )
    assert inputs.overdue == ({"ofa_group_weld"} if overdue else set())


@pytest.mark.parametrize(
    ("state", "changed", "cured"),
    [(READY, 60, True), (None, 60, True), (UNREACHABLE, 60, True), (NOT_READY, 599, False), (NOT_READY, 600, True)],
)
def test_one_that_may_be_rolled_back_is_not_written_again(state: ReadyState | None, changed: int, cured: bool) -> None:
    """The engine keeps one previous spec only, so the write would take away the way back; after the trial it may."""
    stage = Stage(options={"rollout_timeout": 120})
    stage.ksqldb.assets = {"A": "Weld"}
    stage.settle(controller := stage.controller())
    live = stage.platform.observe().services["ofa_group_weld"]
    live = replace(live, updated_at=stage.wall - timedelta(seconds=changed), running=2)
    readiness = {} if state is None else {"ofa_group_weld": Readiness(state)}
    memory = Memory(readiness=readiness, surplus=Surplus({("ofa_group_weld", live.version): stage.now - 60}))
    inputs = memory.make_plan_inputs(
        controller.deps,
        PlatformState({"ofa_group_weld": live}),
        Claim(stage.topology.installation),
        Clocks(lambda: stage.now, lambda: stage.wall),
    )
    assert inputs.surplus == ({"ofa_group_weld"} if cured else set())


#: Cycles at which the service is seen, each with seconds, whether its tasks run and what they answer (None: not asked
#: yet), and when it was changed; whether it is on trial, past and fallen at the last.
TRIALS = [
    ("never ready", [(0, False, None), (120, False, None)], 0, (True, False, True)),
    ("not ready for long enough", [(0, True, NOT_READY), (120, True, NOT_READY)], 0, (True, False, True)),
    ("not for the whole time", [(0, True, NOT_READY), (119, True, NOT_READY)], 0, (False, False, True)),
    ("one failure after a restart", [(300, True, NOT_READY)], 0, (False, False, True)),
    ("not asked after a restart", [(300, True, None)], 0, (False, False, False)),
    ("not asked between", [(0, True, NOT_READY), (60, True, None), (130, True, NOT_READY)], 0, (False, False, True)),
    ("outside", [(0, True, None), (130, True, UNREACHABLE), (260, True, UNREACHABLE)], 0, (False, False, False)),
    ("ready, then not", [(0, True, READY), (20, True, READY), (30, False, None), (160, False, None)], 0, (0, 0, 1)),
    ("broken long after", [(0, True, READY), (20, True, READY), (700, False, None)], 0, (False, True, True)),
    ("changed long ago", [(600, False, None), (720, False, None)], 0, (False, False, True)),
    ("broken for long", [(0, False, None), (600, False, None)], 0, (False, False, False)),
]


@pytest.mark.parametrize(("name", "looks", "changed", "expected"), TRIALS, ids=[row[0] for row in TRIALS])
def test_a_rollback_needs_this_operators_own_evidence(
    name: str, looks: list[tuple[float, bool, ReadyState | None]], changed: float, expected: tuple[bool, bool, bool]
) -> None:
    """It has seen the service not ready for all of `ROLLOUT_TIMEOUT`; a restart begins to look anew."""
    del name
    stage = Stage(options={"rollout_bake": 10})
    stage.ksqldb.assets = {"A": "Weld"}
    stage.settle(controller := stage.controller())
    key, began = "ofa_group_weld", stage.now
    updated_at = stage.wall + timedelta(seconds=changed)
    found, memory = stage.platform.observe().services[key], Memory()
    since: dict[ReadyState | None, float] = {}
    for seconds, runs, state in looks:
        now, wall = began + seconds, stage.wall + timedelta(seconds=seconds)
        since = {state: since.get(state, now)}
        memory.readiness = {key: Readiness(state, since=since[state])} if state is not None else {}
        live = replace(found, updated_at=updated_at, running=int(runs))
        clocks = Clocks(lambda now=now: now, lambda wall=wall: wall)  # type: ignore[misc]
        platform = PlatformState({key: live})
        inputs = memory.make_plan_inputs(controller.deps, platform, Claim(stage.topology.installation), clocks)
    assert tuple(key in names for names in (inputs.on_trial, inputs.past, inputs.fallen)) == expected
