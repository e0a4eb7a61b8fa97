"""Running cycles one after the other: how long to sleep, what wakes the loop, when it is alive."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from reconciler.control.controller import Controller
from reconciler.control.history import History
from reconciler.control.outcome import CycleOutcome
from reconciler.control.schedule import Pace, Polling, under_way
from reconciler.domain.actions import WriteResult
from reconciler.domain.status import CycleResult, Part
from reconciler.leadership.pause import Pause, put


class Loop:
    """Runs cycles until told to stop; a nudge shortens the sleep. No exception ends it."""

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
        self._polling = Polling()
        self.ticked = monotonic()
        self.outcome: CycleOutcome | None = None
        self.history = History()
        self._monotonic = monotonic
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._cycling = threading.Lock()
        controller.on_step = self._tick
        controller.stopping = self._stopped.is_set

    @property
    def alive(self) -> bool:
        """Whether the loop turns."""
        return self._monotonic() - self.ticked < self.pace.dead_after

    @property
    def paused(self) -> bool:
        """Whether a pause holds writes back."""
        pause = self.controller.pause
        return pause is not None and pause.active(self.controller.clocks.wall())

    def nudge(self) -> None:
        """Look again, at the UNS map too, as soon as the least gap between two cycles allows."""
        self.controller.nudge()
        self._wake.set()

    def pause(self, pause: Pause) -> None:
        """Begin or end a pause, here at once and for all others by its record; a running cycle has ended afterwards.

        Raises:
            PlatformError: it may or may not have been written down; here it holds.
        """
        self.controller.pause = pause
        with self._cycling:
            self.controller.pause = pause
            put(self.controller.world.platform, pause)
        self.nudge()

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
                    self.controller.bug(Part.LOOP, error)
                self._stopped.wait(self.pace.gap)  # however many events come
                self._wake.wait(min(self.interval, self.pace.dead_after / 2))
                self._wake.clear()

    def _turn(self) -> None:
        started = self._monotonic()
        self._tick()
        with self._cycling:
            self.outcome = self.controller.cycle()
        self.history = self.history.after(self.outcome, self.controller.clocks.wall())
        self._tick()
        self._sleep(started, started + self._delay(self.outcome))

    def _tick(self) -> None:
        self.ticked = self._monotonic()

    def _delay(self, outcome: CycleOutcome) -> float:
        """Return how many seconds after its start a cycle is followed by the next one."""
        before, self._polling = self._polling, Polling()
        plan, held = outcome.plan, outcome.result in (CycleResult.PAUSED, CycleResult.STANDBY)
        delay = self.interval
        if outcome.result is CycleResult.STANDBY and self.controller.write_gate.role == "leader":
            delay = self.pace.gap  # held, and held again: everything must be read once more
        elif not held and any(result.outcome is WriteResult.OK for result in outcome.results):
            delay = self.pace.gap
        elif not held and plan is not None and (seen := under_way(plan)) is not None:
            self._polling = before.after(seen, self.pace)
            delay = self._polling.gap
        due = self.controller.due(outcome)
        return max(self.pace.gap, min(delay, self.interval, due if math.isfinite(due) else delay))

    def _sleep(self, started: float, until: float) -> None:
        """Wait for a moment or a nudge, in slices, so that the age of the last tick stays small."""
        if self._stopped.wait(max(0.0, self.pace.gap - (self._monotonic() - started))):
            return
        while not self._stopped.is_set() and self._monotonic() < until:
            self._tick()
            if self._wake.wait(min(1.0, max(0.0, until - self._monotonic()))):
                break
        self._wake.clear()
