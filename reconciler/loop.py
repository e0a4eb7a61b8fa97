"""Running cycles one after the other: how long to sleep, what wakes the loop, when it is alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from reconciler.controller import Controller, Outcome
from reconciler.history import History
from reconciler.pause import Pause, put

#: Least seconds between the starts of two cycles, however many events come.
MIN_GAP = 1.0
#: Seconds without a tick after which a loop is taken for dead: longer than the longest bounded cycle.
DEAD_AFTER = 300.0


class Loop:
    """Runs cycles until told to stop; a nudge shortens the sleep."""

    def __init__(
        self, controller: Controller, interval: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Run cycles of ``controller`` every ``interval`` seconds, sooner while something is on its way."""
        self.controller = controller
        self.interval = interval
        self.ticked = monotonic()
        self.outcome: Outcome | None = None
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
        return self._monotonic() - self.ticked < DEAD_AFTER

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
            started = self._monotonic()
            self._tick()
            with self._cycling:
                self.outcome = self.controller.cycle()
            self.history = self.history.after(self.outcome, self.controller.clocks.wall())
            self._tick()
            self._sleep(started)

    def _tick(self) -> None:
        self.ticked = self._monotonic()

    def _sleep(self, started: float) -> None:
        """Wait for the interval or a nudge, in slices, so that the age of the last tick stays small."""
        if self._stopped.wait(max(0.0, MIN_GAP - (self._monotonic() - started))):
            return
        busy = self.outcome is not None and self.outcome.busy
        until = started + (MIN_GAP if busy else self.interval)
        while not self._stopped.is_set() and self._monotonic() < until:
            self._tick()
            if self._wake.wait(min(1.0, max(0.0, until - self._monotonic()))):
                break
        self._wake.clear()
