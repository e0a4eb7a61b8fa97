"""When the next cycle is due: at the earliest moment at which anything can have changed. Pure.

Reading everything costs the engine and ksqlDB as much as us, so a failed write or a pause must not make the operator
read every second. Most moments are known: the end of a back-off, of a grace or drain time, of a pause. Only what is
under way elsewhere, such as a starting task, has to be polled: soon at first, then ever more rarely.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from reconciler.control.backoff import Backoff
from reconciler.control.contest import Contest
from reconciler.domain.actions import Result
from reconciler.domain.status import Condition, Plan
from reconciler.leadership.pause import Pause
from reconciler.planning.guards import GuardMemory
from reconciler.settings import Settings

_UNDER_WAY = (Condition.PROGRESSING, Condition.LEAVING)


@dataclass(frozen=True)
class Pace:
    """How fast cycles may follow each other.

    Attributes:
        gap: least seconds between the starts of two cycles, however many events come.
        growth: by which the gap grows while something is under way and nothing changes. With 1.5 a task that took
            20 s to start is seen after 27 s at the latest, and was asked about 7 times instead of 20.
        dead_after: seconds without a sign of life after which a loop is considered dead: longer than the longest
            bounded cycle.
    """

    gap: float = 1.0
    growth: float = 1.5
    dead_after: float = 300.0


@dataclass(frozen=True)
class Polling:
    """How often the same was seen in a row while something was under way."""

    seen: object = None
    gap: float = 0.0

    def after(self, seen: object, pace: Pace) -> Polling:
        """See once more: the gap grows while it is the same."""
        same = self.seen == seen and self.gap > 0
        return Polling(seen, self.gap * pace.growth if same else pace.gap)


def under_way(plan: Plan) -> object | None:
    """Return what is to be polled for, as a value that changes with it; None where nothing is.

    An object with a write that is still to be done is not polled for: its write or its back-off is waited for.
    """
    pending = {action.group for action in plan.actions}
    found = tuple(
        (item.title, item.condition, item.running, item.wanted)
        for item in plan.items
        if item.condition in _UNDER_WAY and (item.group is None or item.group not in pending)
    )
    return (found, plan.unknown) if found or plan.unknown else None


@dataclass(frozen=True)
class Timers:
    """Everything that a controller waits for, as it is after a cycle."""

    memory: GuardMemory
    backoff: Backoff
    contest: Contest
    pause: Pause | None
    settings: Settings


def next_due(timers: Timers, plan: Plan, results: Iterable[Result], now: float, wall: datetime) -> float:
    """Return in how many seconds time alone can change what a cycle does; infinity where it cannot.

    Args:
        timers: after the cycle.
        plan: of the cycle.
        results: of its writes.
        now: monotonic seconds.
        wall: the time of day, for the end of a pause.
    """
    pause = timers.pause
    if pause is not None and pause.until is not None and pause.active(wall):
        return (pause.until - wall).total_seconds()
    failed = {result.action.key for result in results if result.error is not None}
    failures = timers.backoff.failures
    if any(failures[key].until <= now for key in failed & failures.keys()):
        return 0.0
    return min((moment - now for moment in _moments(timers, plan) if moment > now), default=math.inf)


def _moments(timers: Timers, plan: Plan) -> Iterator[float]:
    planned = {action.key for action in plan.actions} | plan.left_out
    yield from (failure.until for key, failure in timers.backoff.failures.items() if key in planned)
    yield from (held.until for key, held in timers.contest.held.items() if key in planned)
    grace, drain = timers.settings.prune_grace, timers.settings.drain_seconds
    for absences in (timers.memory.missing, timers.memory.silent):
        yield from (absence.since + grace for absence in absences.values())
    yield from (since + drain for since in timers.memory.unregistered.values())
