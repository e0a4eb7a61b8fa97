"""Running cycles one after the other: how long to sleep, what wakes the loop, when it is alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from reconciler.controller import Controller, Outcome
from reconciler.history import History

#: Least seconds between the starts of two cycles, however many events come.
MIN_GAP = 1.0


class Loop:
    """Runs cycles until told to stop; a nudge shortens the sleep, a pause only looks and plans."""

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
        self._paused_until = 0.0
        self._cycling = threading.Lock()
        controller.on_step = self._tick
        controller.stopping = self._stopped.is_set

    @property
    def paused(self) -> bool:
        """Whether writes are held back."""
        return self._monotonic() < self._paused_until

    def nudge(self) -> None:
        """Look again as soon as the least gap between two cycles allows."""
        self._wake.set()

    def pause(self, seconds: float) -> None:
        """Write nothing for ``seconds``; returns once a running cycle has ended."""
        self._paused_until = self._monotonic() + seconds
        with self._cycling:
            pass

    def resume(self) -> None:
        """End a pause."""
        self._paused_until = 0.0
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
                self.outcome = self._once()
            self.history = self.history.after(self.outcome, self.controller.clocks.wall())
            self._tick()
            self._sleep(started)

    def _tick(self) -> None:
        self.ticked = self._monotonic()

    def _once(self) -> Outcome:
        controller = self.controller
        controller.metrics.paused.set(self.paused)
        return controller.cycle(paused=self.paused)

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
