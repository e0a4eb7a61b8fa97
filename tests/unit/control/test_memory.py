"""What stays on its way for too long is degraded, with since when and what for: pure tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import NoReturn

import pytest

from reconciler.control.backoff import Backoff, Failure
from reconciler.control.memory import Memory, degrade_stalled
from reconciler.domain.actions import CreateSharedStream
from reconciler.domain.status import Condition, ObjectStatus, Plan

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
