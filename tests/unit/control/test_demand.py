"""How the routing layer's tasks are asked for the demand, and which answers make a complete report."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.control.demand import all_answered, may_drain, parse_demand
from reconciler.domain.demand import GroupDemand, TaskDemand
from tests.unit.planning.tables import NOW, routing_layer

TASK = TaskDemand("r1", complete=True, uptime=500.0, groups={"Weld": GroupDemand(2, 1, 0.0)})
ANSWER = {
    "revision": "r1",
    "complete": True,
    "uptime_seconds": 500,
    "groups": {"Weld": {"open": 2, "waiting": 1, "idle_seconds": 0}},
}
LIVE = routing_layer()
assert LIVE is not None


def test_an_answer_is_read() -> None:
    """As the routing layer writes it; fields of a newer one are ignored."""
    assert parse_demand(json.dumps({**ANSWER, "more": 1}).encode()) == TASK


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"nonsense",
        b"[" * 100_000,
        json.dumps({**ANSWER, "complete": 1}).encode(),
        json.dumps({**ANSWER, "revision": None}).encode(),
        json.dumps({**ANSWER, "uptime_seconds": None}).encode(),
        json.dumps({**ANSWER, "groups": []}).encode(),
        json.dumps({**ANSWER, "groups": {"Weld": {"open": "2", "waiting": 1, "idle_seconds": 0}}}).encode(),
        json.dumps({**ANSWER, "groups": {"Weld": {"open": 2}}}).encode(),
    ],
)
def test_anything_else_is_no_answer(body: bytes) -> None:
    """An older routing layer, or something else at that address."""
    assert parse_demand(body) is None


@pytest.mark.parametrize(
    ("changes", "tasks", "expected"),
    [
        ({}, (TASK,), True),
        ({}, (), False),
        ({}, (None,), False),
        ({}, (TASK, TASK), False),  # a task more than the engine counts
        ({}, (replace(TASK, complete=False),), False),
        ({"running": 0}, (), False),
        ({"running": 2}, (TASK, TASK), False),  # another one is on its way
        ({"update_state": "updating"}, (TASK,), False),
    ],
)
def test_all_tasks_that_run_must_answer(
    changes: dict[str, object], tasks: tuple[TaskDemand | None, ...], *, expected: bool
) -> None:
    """With all their workers, while no update is in progress."""
    assert LIVE is not None
    assert all_answered(replace(LIVE, **changes), tasks) is expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "uptime", "before", "expected"),
    [
        (None, 500.0, None, True),
        (29, 500.0, None, True),
        (31, 500.0, None, False),
        (31, 29.0, None, True),
        (31, 500.0, 90.0, True),  # the change has shortened the time: the task of before still has its own
        (91, 500.0, 90.0, False),
        (91, 89.0, 90.0, True),
        (29, 500.0, 10.0, True),
    ],
)
def test_a_replaced_task_has_its_time_to_end(
    changed: int | None, uptime: float, before: float | None, *, expected: bool
) -> None:
    """The grace time is 30 s: until then it may have streams, and its name resolves no more."""
    assert LIVE is not None
    updated = None if changed is None else NOW - timedelta(seconds=changed)
    assert LIVE.spec is not None
    previous = None if before is None else replace(LIVE.spec, stop_grace=before)
    live = replace(LIVE, updated_at=updated, previous=previous)
    assert live.spec is not None
    assert live.spec.stop_grace == 30
    assert may_drain(live, (replace(TASK, uptime=uptime),), NOW) is expected
