"""Runs a soak and judges it: at every write, at every cycle, and at the end."""

from __future__ import annotations

import gc
import random
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler.control.controller import Controller
from reconciler.control.outcome import CycleOutcome
from reconciler.domain.services import LiveService
from reconciler.domain.status import Condition
from reconciler.planning.guards import allowed_removals
from tests.harness.fakes import Stage
from tests.integration.faults.matrix import is_done, operator
from tests.integration.faults.matrix_oracle import End, Watch, differences, end_of
from tests.integration.faults.matrix_scenarios import OPTIONS, STEP, empty
from tests.integration.faults.matrix_seam import Crash, Seam, seam_of
from tests.soak.factory import Factory
from tests.soak.weather import Weather

#: Cycles within which the world must be in order once all faults have ended.
LIMIT = 200
#: The number at the end of a shared stream's name.
_GENERATION = re.compile(r"(_assets_with_uns_[0-9a-f]{8}_[0-9a-f]{8}_)[0-9]+", re.IGNORECASE)


class Wrong(AssertionError):
    """Something happened that must not; the message has the last events."""


@dataclass
class BudgetWatch(Watch):
    """Also judges whether as many groups are missing as may go at once."""

    factory: Factory | None = None
    _over: tuple[bool, ...] = ()

    def observe(self) -> None:
        """Remember whether too many are missing: a stale read may show a few cycles ago."""
        super().observe()
        if self.factory is not None:
            over = len(self.factory.missing) > allowed_removals(len(self.factory.owned), 0.25)
            self._over = (*self._over[-3:], over)

    def _remove_service(self, live: LiveService) -> None:
        super()._remove_service(live)
        if self._over and all(self._over):
            self._say(f"service {live.name} is removed while more groups are missing than may go at once")


@dataclass
class Soak:
    """One soak.

    Attributes:
        seed: from which everything follows.
        groups: that there may be.
        say: told of progress.
    """

    seed: int
    groups: int
    say: Callable[[str], None] = lambda _line: None
    stage: Stage = field(default_factory=empty)
    starts: int = 1

    def __post_init__(self) -> None:
        """Prepare a world with nothing of ours in it."""
        dice = random.Random(self.seed)  # noqa: S311 - repeatable on purpose
        self.dice, self.weather = dice, Weather(dice)
        self.stage.options |= {"fastapi_group_image": "services:1"}
        self.factory = Factory(self.stage, dice, self.groups)
        self.watch = BudgetWatch(self.stage, factory=self.factory)
        self.seam: Seam = seam_of(self.stage.platform, self.stage.ksqldb, self.watch)
        self.seam.choose, self.seam.alter = self.weather.fault_of, self.weather.alter
        self.factory.begin()
        self.controller = self._start()

    def run(self, cycles: int) -> None:
        """Run so many cycles with faults, then let them cease and compare with an undisturbed world.

        Raises:
            Wrong: with the last events.
        """
        for number in range(cycles):
            self._change(number)
            self.cycle()
            if number % 50 == 49:
                self.say(self._progress(number + 1))
        self.settle()
        self._compare()

    def idle(self, cycles: int) -> int:
        """Run cycles in which nothing happens, and return by how many bytes memory has grown.

        Raises:
            Wrong: something was written.
        """
        before, grown = self.stage.writes, 0
        tracemalloc.start()
        try:
            for number in range(cycles + cycles // 10):
                if number == cycles // 10:  # caches are warm by now
                    gc.collect()
                    grown = -tracemalloc.get_traced_memory()[0]
                self.cycle()
            gc.collect()
            grown += tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        if self.stage.writes != before:
            raise self._wrong([f"{self.stage.writes - before} writes in cycles in which nothing happened"])
        return grown

    def cycle(self) -> CycleOutcome | None:
        """Run one cycle; None where the process crashed in it and was restarted."""
        self.watch.observe()
        outcome = None
        try:
            outcome = self.controller.cycle()
        except Crash:
            self.controller = self._start()
        self.stage.now += STEP if self.weather.over else self.dice.choice((1.0, 5.0, STEP, 30.0))
        if outcome is not None and outcome.result == "bug" and not self.weather.unexpected:
            self.watch.wrong.append(outcome.sentence)
        if self.watch.wrong:
            raise self._wrong(self.watch.wrong)
        return outcome

    def settle(self) -> None:
        """Let all faults cease and run until nothing is left to do.

        Raises:
            Wrong: it did not come to that.
        """
        self.weather.clear_up()
        self.factory.end()
        done = 0
        for _ in range(LIMIT):
            outcome = self.cycle()
            done = done + 1 if outcome is not None and self.seam.quiet() and is_done(outcome) else 0
            if done > 2:
                return
        raise self._wrong([f"not in order {LIMIT} cycles after the last fault", *_unfinished(outcome)])

    def _change(self, number: int) -> None:
        self.weather.next_cycle(number, self.stage)
        if self.dice.random() < 0.5:
            self.seam.turn_page()
            self.seam.log.append(f"-- cycle {number}: {self.factory.change()}")
        if self.factory.settings_changed or self.dice.random() < 0.02:
            self.factory.settings_changed = False
            self.controller = self._start()

    def _start(self) -> Controller:
        self.starts += 1
        self.seam.log.append("-- the operator starts")
        return operator(self.stage, self.seam)

    def _compare(self) -> None:
        """Compare with a world that came from nothing, without a fault, to where this one is now."""
        plain = empty()
        plain.options = dict(self.stage.options)
        plain.ksqldb.assets, plain.wall = dict(self.stage.ksqldb.assets), self.stage.wall
        watch = Watch(plain)
        plain.settle(plain.controller(), step=STEP)
        end, expected = end_of(self.stage, self.watch), end_of(plain, watch)
        history = ("topics", "tables", "created", "deleted")
        # A shared stream that was made again has another number.
        end, expected = replace(end, streams=_numberless(end)), replace(expected, streams=_numberless(expected))
        wrong = [text for text in differences(end, expected) if text.partition(":")[0] not in history]
        if wrong:
            raise self._wrong(wrong)

    def _progress(self, number: int) -> str:
        return (
            f"cycle {number}: {len(self.factory.groups)} groups, {self.seam.calls} calls, "
            f"{self.weather.struck} faults, {self.starts} starts, {self.stage.writes} writes"
        )

    def _wrong(self, what: list[str]) -> Wrong:
        return Wrong("\n".join([f"seed {self.seed}:", *what, "the last events:", *self.seam.log]))


def _unfinished(outcome: CycleOutcome | None) -> list[str]:
    """Say what keeps a world from being in order."""
    if outcome is None or outcome.plan is None:
        return [outcome.sentence if outcome is not None else "the process crashed"]
    good = (Condition.READY, Condition.CONFLICT)
    items = [
        f"{item.title}: {item.condition}, {item.detail}" for item in outcome.plan.items if item.condition not in good
    ]
    return [outcome.sentence, *items, *(f"to do: {action.verb} {action.key}" for action in outcome.plan.actions)]


def figures(soak: Soak) -> dict[str, Any]:
    """Return what a soak came to."""
    return {
        "calls": soak.seam.calls,
        "faults": soak.weather.struck,
        "starts": soak.starts,
        "writes": soak.stage.writes,
        "removed": sum(soak.watch.deleted.values()),
    }


__all__ = ["OPTIONS", "Soak", "Wrong", "figures"]


def _numberless(end: End) -> dict[str, tuple[str, str]]:
    """Return the streams with the generations of shared streams left out."""
    return {
        _GENERATION.sub(r"\1N", name): (_GENERATION.sub(r"\1N", topic), _GENERATION.sub(r"\1N", sql))
        for name, (topic, sql) in end.streams.items()
    }
