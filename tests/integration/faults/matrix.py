"""The fault matrix: every call of every scenario, spoiled in every way, compared with the undisturbed run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256

from prometheus_client import CollectorRegistry

from reconciler.app import topology_of
from reconciler.control.controller import Clocks, Controller, Dependencies
from reconciler.control.outcome import CycleOutcome
from reconciler.domain.status import Condition, Reason
from reconciler.grouping.unslevel import UNSLevelGroupingStrategy
from reconciler.metrics import Metrics
from reconciler.planning.guards import Overrides
from tests.harness.fake_platform import INSTALLATION
from tests.harness.fakes import Stage
from tests.integration.faults.matrix_oracle import End, Watch, differences, end_of
from tests.integration.faults.matrix_scenarios import STEP, Scenario
from tests.integration.faults.matrix_seam import Call, Crash, Fault, Seam, seam_of

#: Cycles within which a run must have settled.
LIMIT = 60
#: Cycles in a row that must find nothing to do.
SURE = 2


@cache
def _metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def operator(stage: Stage, seam: Seam, which: str = "", overrides: Overrides | None = None) -> Controller:
    """Start an operator behind the seam: what an earlier one remembered is lost."""
    settings, (ksqldb, platform) = stage.settings, seam.ports(which)
    world = Dependencies(settings, ksqldb, platform, UNSLevelGroupingStrategy(settings, ksqldb), topology_of(settings))
    clocks = Clocks(lambda: stage.now, lambda: stage.wall)
    made = Controller(world, _metrics(), overrides or Overrides(), clocks)
    made._observer._fresh_id = INSTALLATION.id  # the same in every run, so that ends can be compared
    return made


@dataclass
class Run:
    """One run of a scenario.

    Attributes:
        wrong: what should not have happened.
        calls: every call, in order.
        end: how it ended; None where it did not settle, or was not played to its end.
        log: the last calls.
        world: that an operator without memory began with after the fault; "" where none did.
        proven: it was not played on, for that world's end is known.
        beside: how it ended for the second installation, where there is one.
    """

    wrong: list[str]
    calls: list[Call]
    end: End | None
    log: list[str] = field(default_factory=list)
    world: str = ""
    proven: bool = False
    beside: End | None = None


class _ProvenError(Exception):
    """An operator without memory begins with a world whose end is known."""


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix: this call, spoiled so; afterwards the operator goes on, or restarts."""

    call: Call
    fault: Fault
    restart: bool


def run(scenario: Scenario, cell: Cell | None = None, proven: Collection[str] = ()) -> Run:
    """Play a scenario, with one call spoiled.

    A new operator knows nothing but the world, so from equal worlds (`_world`) it comes to equal ends: one that is
    among ``proven`` is not played on.
    """
    stage = scenario.world()
    watch = Watch(stage)
    seam = seam_of(stage.platform, stage.ksqldb, watch)
    scenario.change(stage)
    calls: list[Call] = []
    seam.on_call = calls.append
    if cell is not None:
        seam.choose = lambda call: cell.fault if call.number == cell.call.number else None
    worlds: list[str] = []

    def again() -> Controller:
        worlds.append(_world(stage, watch, seam))
        if worlds[-1] in proven:
            raise _ProvenError
        return operator(stage, seam)

    try:
        settled = _converge(stage, seam, cell, again)
    except _ProvenError:
        return Run(watch.wrong, calls, None, list(seam.log), worlds[-1], proven=True)
    if not settled:
        watch.wrong.append(f"not settled after {LIMIT} cycles")
    return Run(watch.wrong, calls, end_of(stage, watch) if settled else None, list(seam.log), "".join(worlds))


def _world(stage: Stage, watch: Watch, seam: Seam) -> str:
    """Write down all that the rest of a run depends on; "" where that is more than how things are now."""
    if not seam.settled:
        return ""
    sides = {
        name: value
        for side in (stage.platform, stage.ksqldb)
        for name, value in vars(side).items()
        if name not in _NO_WORLD
    }
    seen = {name: value for name, value in vars(watch).items() if name not in ("stage", "_foreign")}
    return sha256(repr((stage.now, stage.wall, sides, seen)).encode()).hexdigest()


def _converge(stage: Stage, seam: Seam, cell: Cell | None, again: Callable[[], Controller]) -> bool:
    controller = operator(stage, seam)
    struck, done = False, 0
    for _ in range(LIMIT):
        try:
            outcome = controller.cycle()
        except Crash:
            stage.now += STEP
            controller, struck, done = again(), True, 0
            continue
        stage.now += STEP
        assert outcome.result != "bug" or (cell is not None and cell.fault.is_bug), outcome.sentence
        done = done + 1 if seam.quiet() and is_done(outcome) else 0
        if done == SURE:
            return True
        if cell is not None and cell.restart and not struck and seam.calls > cell.call.number:
            controller, struck, done = again(), True, 0
    return False


def is_done(outcome: CycleOutcome) -> bool:
    """Nothing was done, nothing is left to do, and every group is served, cannot be, or is paused."""
    plan = outcome.plan
    if plan is None or plan.actions or plan.refusals or plan.left_out:
        return False
    fine = (Condition.READY, Condition.CONFLICT)
    return all(item.condition in fine or item.reason is Reason.PAUSED for item in plan.items)


def cells(calls: list[Call]) -> Iterator[Cell]:
    """Every way in which each of these calls can be spoiled."""
    for call in calls:
        for fault in call.faults:
            if not fault.is_bug:  # an operator that starts again remembers nothing of it: as after any other error
                yield Cell(call, fault, restart=True)
            if not fault.crashes:
                yield Cell(call, fault, restart=False)


@dataclass(frozen=True)
class Figures:
    """What one scenario's part of the matrix came to."""

    scenario: str
    calls: int
    faults: int
    runs: int
    divergences: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Say it in one line."""
        return (
            f"{self.scenario}: {self.calls} calls x {self.faults} kinds of fault = {self.runs} runs, "
            f"{len(self.divergences)} divergences"
        )


#: Parts in which a scenario's cells are played, so that no test takes long on a busy machine.
PARTS = 5
#: By scenario, worlds from which an operator without memory came to the expected end, and did nothing wrong on its way.
_PROVEN: defaultdict[str, set[str]] = defaultdict(set)
#: Of the two sides, what no operator can see.
_NO_WORLD = frozenset({"calls", "statements", "fault", "failures", "healthy", "clock"})


def play(scenario: Scenario, part: int) -> Figures:
    """Spoil every call of the undisturbed run in every way, one at a time; each of `PARTS` takes a share of them."""
    undisturbed = run(scenario)
    if undisturbed.wrong or undisturbed.end is None:
        return Figures(scenario.name, len(undisturbed.calls), 0, 0, (f"undisturbed: {undisturbed.wrong}",))
    possible = list(cells(undisturbed.calls))
    chosen = possible[part * len(possible) // PARTS : (part + 1) * len(possible) // PARTS]
    divergences = [said for cell in chosen if (said := _divergence(scenario, cell, undisturbed.end))]
    kinds = len({cell.fault for cell in chosen})
    return Figures(scenario.name, len(undisturbed.calls), kinds, len(chosen), tuple(divergences))


def _divergence(scenario: Scenario, cell: Cell, expected: End) -> str:
    """Return how the spoiled run differs, with its last calls; ``""`` where it does not."""
    proven = _PROVEN[scenario.name]
    spoiled = run(scenario, cell, proven)
    wrong = [*spoiled.wrong, *(differences(spoiled.end, expected) if spoiled.end else [])]
    if not wrong:
        proven |= {spoiled.world} - {""}
        return ""
    then = "restarted" if cell.restart else "going on"
    return "\n".join([f"{scenario.name}, call {cell.call}, {cell.fault}, {then}:", *wrong, *spoiled.log])
