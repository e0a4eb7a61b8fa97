"""Runs cycles one after the other: when the next one is due, what wakes the loop, and when the loop is alive.

Reading everything costs the engine and ksqlDB as much as us, so a failed write or a pause must not make the operator
read every second. Most moments at which something can change are known: the end of a back-off, of a grace or drain
time, of a pause. Only what is in progress elsewhere, such as a starting task, is polled: soon at first, then less and
less often.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from reconciler.control.controller import Controller
from reconciler.control.memory import Memory
from reconciler.control.outcome import CycleOutcome
from reconciler.domain.actions import Result, WriteResult
from reconciler.domain.status import Condition, CycleResult, Part, Plan
from reconciler.leadership.pause import GROUP_PAUSES_RECORD, Pause, write_mark, write_pause
from reconciler.settings import Settings


@dataclass(frozen=True)
class Pace:
    """How fast cycles may follow each other.

    Attributes:
        gap: least seconds between the starts of two cycles, however many events come.
        growth: by which the gap grows while something is in progress and nothing changes. With 1.5 a task that took
            20 s to start is seen after 27 s at the latest, and was asked about 7 times instead of 20.
        dead_after: seconds without a sign of life after which a loop is considered dead: longer than the longest
            bounded cycle.
    """

    gap: float = 1.0
    growth: float = 1.5
    dead_after: float = 300.0


@dataclass(frozen=True)
class Polling:
    """What was in progress at the last cycle, and the gap to the next one."""

    progress: object = None
    gap: float = 0.0

    def after(self, progress: object, pace: Pace) -> Polling:
        """Poll once more: the gap grows while the progress is the same."""
        same = self.progress == progress and self.gap > 0
        return Polling(progress, self.gap * pace.growth if same else pace.gap)


def find_progress(plan: Plan) -> object | None:
    """Return what is to be polled for, as a value that changes with it; None where nothing is. Pure.

    An object with a write that is still to be done is not polled for: its write or its back-off is waited for.
    """
    pending = {action.group for action in plan.actions}
    found = tuple(
        (item.title, item.condition, item.running, item.wanted)
        for item in plan.items
        if item.condition in (Condition.PROGRESSING, Condition.LEAVING)
        and (item.group is None or item.group not in pending)
    )
    return (found, plan.unknown) if found or plan.unknown else None


def next_due(
    memory: Memory, plan: Plan, results: Iterable[Result], settings: Settings, now: float, wall: datetime
) -> float:
    """Return in how many seconds time alone can change what a cycle does; infinity where it cannot. Pure.

    Args:
        memory: after the cycle.
        plan: of the cycle.
        results: of its writes.
        settings: grace and drain time.
        now: monotonic seconds.
        wall: the time of day, for the end of a pause.
    """
    pause = memory.find_active_pause(wall)
    if pause is not None and pause.until is not None:
        return (pause.until - wall).total_seconds()
    failures, guards = memory.backoff.failures, memory.guards
    failed = {result.action.key for result in results if result.error is not None}
    if any(failures[key].until <= now for key in failed & failures.keys()):
        return 0.0
    planned = {action.key for action in plan.actions} | plan.left_out
    ends = [(one.until - wall).total_seconds() for one in memory.group_pauses.values() if one.until is not None]
    moments = [
        *(now + seconds for seconds in ends),
        *(failure.until for key, failure in failures.items() if key in planned),
        *(held.until for key, held in memory.contest.held.items() if key in planned),
        *(absence.since + settings.prune_grace for absence in (*guards.missing.values(), *guards.silent.values())),
        *(since + settings.drain_seconds for since in guards.unregistered.values()),
    ]
    return min((moment - now for moment in moments if moment > now), default=math.inf)


@dataclass(frozen=True)
class History:
    """How the last cycles ended, for those who watch the operator; all None before the first has.

    Attributes:
        last: how the last cycle ended.
        ended: when.
        read: the last cycle that read everything in full.
        read_at: when that ended.
        written_at: when a cycle last wrote something.
    """

    last: CycleOutcome | None = None
    ended: datetime | None = None
    read: CycleOutcome | None = None
    read_at: datetime | None = None
    written_at: datetime | None = None

    def after(self, outcome: CycleOutcome, now: datetime) -> History:
        """Add a cycle that has just ended; one that failed to read keeps the last that did."""
        read = outcome.survey is not None and outcome.plan is not None
        wrote = any(result.outcome is WriteResult.OK for result in outcome.results)
        return History(
            last=outcome,
            ended=now,
            read=outcome if read else self.read,
            read_at=now if read else self.read_at,
            written_at=now if wrote else self.written_at,
        )


class Loop:
    """Runs cycles until `stop`; a nudge shortens the sleep. No exception ends it."""

    def __init__(
        self,
        controller: Controller,
        interval: float,
        monotonic: Callable[[], float] = time.monotonic,
        pace: Pace | None = None,
    ) -> None:
        """Run cycles of ``controller`` every ``interval`` seconds, sooner where something can have changed."""
        self.controller = controller
        self.interval = interval
        self.pace = pace or Pace()
        self.ticked = monotonic()
        self.history = History()
        self._polling = Polling()
        self._monotonic = monotonic
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._cycling = threading.Lock()
        controller.on_step = self._tick
        controller.stopping = self._stopped.is_set

    @property
    def alive(self) -> bool:
        """Whether the loop makes progress."""
        return self._monotonic() - self.ticked < self.pace.dead_after

    @property
    def paused(self) -> bool:
        """Whether a pause suspends writes."""
        return self.controller.memory.find_active_pause(self.controller.clocks.wall()) is not None

    def nudge(self) -> None:
        """Read again, the UNS map too, as soon as the least gap between two cycles allows."""
        self.controller.nudge()
        self._wake.set()

    def pause(self, pause: Pause) -> None:
        """Begin or end a pause, here at once and for all others by its record; a running cycle has ended afterwards.

        Raises:
            PlatformError: it may or may not have been recorded; here it is in force.
        """
        self.controller.memory.pause = pause
        with self._cycling:
            self.controller.memory.pause = pause
            write_pause(self.controller.deps.platform, pause)
        self.nudge()

    def pause_group(self, group: str, pause: Pause | None) -> Pause | None:
        """Begin or end (None) the pause of one group, and return the one of before; a running cycle has ended then.

        Raises:
            PlatformError: it may or may not have been recorded.
        """
        controller = self.controller
        with self._cycling:
            before = write_mark(controller.deps.platform, GROUP_PAUSES_RECORD, group, pause, controller.clocks.wall())
        self.nudge()
        return before

    def stop(self) -> None:
        """End the loop after the current cycle."""
        self._stopped.set()
        self._wake.set()

    def run(self) -> None:
        """Run until `stop`."""
        while not self._stopped.is_set():
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - the operator must go on; what reports it can fail, too
                with suppress(Exception):
                    self.controller.reporter.report_bug(Part.LOOP, error)
                self._stopped.wait(self.pace.gap)  # however many events come
                self._wake.wait(min(self.interval, self.pace.dead_after / 2))
                self._wake.clear()

    def _turn(self) -> None:
        started = self._monotonic()
        self._tick()
        with self._cycling:
            outcome = self.controller.cycle()
        self.history = self.history.after(outcome, self.controller.clocks.wall())
        self._tick()
        self._sleep(started, started + self._choose_delay(outcome))

    def _tick(self) -> None:
        self.ticked = self._monotonic()

    def _choose_delay(self, outcome: CycleOutcome) -> float:
        """Return how many seconds after its start a cycle is followed by the next one."""
        before, self._polling = self._polling, Polling()
        controller, plan = self.controller, outcome.plan
        blocked = outcome.result in (CycleResult.PAUSED, CycleResult.STANDBY)
        delay, due = self.interval, math.inf
        if outcome.result is CycleResult.STANDBY and controller.write_gate.role == "leader":
            delay = self.pace.gap  # the lease was lost and taken again: everything must be read once more
        elif not blocked and any(result.outcome is WriteResult.OK for result in outcome.results):
            delay = self.pace.gap
        elif not blocked and plan is not None and (progress := find_progress(plan)) is not None:
            self._polling = before.after(progress, self.pace)
            delay = self._polling.gap
        if plan is not None:
            now, wall = controller.clocks.monotonic(), controller.clocks.wall()
            due = next_due(controller.memory, plan, outcome.results, controller.deps.settings, now, wall)
        return max(self.pace.gap, min(delay, self.interval, due))

    def _sleep(self, started: float, until: float) -> None:
        """Wait for a moment or a nudge, in slices, so that the age of the last tick stays small."""
        if self._stopped.wait(max(0.0, self.pace.gap - (self._monotonic() - started))):
            return
        while not self._stopped.is_set() and self._monotonic() < until:
            self._tick()
            if self._wake.wait(min(1.0, max(0.0, until - self._monotonic()))):
                break
        self._wake.clear()
