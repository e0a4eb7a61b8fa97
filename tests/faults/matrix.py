"""The fault matrix: every call of every scenario, spoiled in every way, compared with the undisturbed run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from prometheus_client import CollectorRegistry

from reconciler.controller import Clocks, Controller, World
from reconciler.grouping.unslevel import UNSLevelGroupingStrategy
from reconciler.guards import Overrides
from reconciler.metrics import Metrics
from reconciler.model import Condition
from reconciler.outcome import Outcome
from reconciler.wiring import topology_of
from tests.fake_platform import INSTALLATION
from tests.fakes import Stage
from tests.faults.matrix_oracle import End, Watch, differences, end_of
from tests.faults.matrix_scenarios import STEP, Scenario
from tests.faults.matrix_seam import Call, Crash, Fault, Seam, seam_of

#: Cycles within which a run must have settled.
LIMIT = 60
#: Cycles in a row that must find nothing to do.
SURE = 2


@cache
def _metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def operator(stage: Stage, seam: Seam) -> Controller:
    """Start an operator behind the seam: what an earlier one remembered is lost."""
    settings = stage.settings
    strategy = UNSLevelGroupingStrategy(settings, seam.ksqldb)
    world = World(settings, seam.ksqldb, seam.platform, strategy, topology_of(settings))
    made = Controller(world, _metrics(), Overrides(), Clocks(lambda: stage.now, lambda: stage.wall))
    made._fresh_id = INSTALLATION.id  # the same in every run, so that ends can be compared
    return made


@dataclass
class Run:
    """One run of a scenario.

    Attributes:
        wrong: what should not have happened.
        calls: every call, in order.
        end: how it ended; None where it did not settle.
        log: the last calls.
    """

    wrong: list[str]
    calls: list[Call]
    end: End | None
    log: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix: this call, spoiled so; afterwards the operator goes on, or starts anew."""

    call: Call
    fault: Fault
    restart: bool


def run(scenario: Scenario, cell: Cell | None = None) -> Run:
    """Play a scenario, with one call spoiled."""
    stage = scenario.world()
    watch = Watch(stage)
    seam = seam_of(stage.platform, stage.ksqldb, watch)
    scenario.change(stage)
    calls: list[Call] = []
    seam.on_call = calls.append
    if cell is not None:
        seam.choose = lambda call: cell.fault if call.number == cell.call.number else None
    settled = _converge(stage, seam, cell)
    if not settled:
        watch.wrong.append(f"not settled after {LIMIT} cycles")
    return Run(watch.wrong, calls, end_of(stage, watch) if settled else None, list(seam.log))


def _converge(stage: Stage, seam: Seam, cell: Cell | None) -> bool:
    controller = operator(stage, seam)
    struck, done = False, 0
    for _ in range(LIMIT):
        try:
            outcome = controller.cycle()
        except Crash:
            controller, struck = operator(stage, seam), True
            stage.now += STEP
            continue
        stage.now += STEP
        assert outcome.result != "bug" or (cell is not None and cell.fault.is_bug), outcome.sentence
        done = done + 1 if seam.quiet() and is_done(outcome) else 0
        if done == SURE:
            return True
        if cell is not None and cell.restart and not struck and seam.calls > cell.call.number:
            controller, struck = operator(stage, seam), True
    return False


def is_done(outcome: Outcome) -> bool:
    """Nothing was done, nothing is left to do, and every group is served or cannot be."""
    plan = outcome.plan
    if plan is None or plan.actions or plan.refusals or plan.left_out:
        return False
    return all(item.condition in (Condition.READY, Condition.CONFLICT) for item in plan.items)


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


def play(scenario: Scenario, part: int) -> Figures:
    """Spoil every call of the undisturbed run in every way, one at a time; each of `PARTS` takes a share of them."""
    undisturbed = run(scenario)
    if undisturbed.wrong or undisturbed.end is None:
        return Figures(scenario.name, len(undisturbed.calls), 0, 0, (f"undisturbed: {undisturbed.wrong}",))
    chosen = list(cells(undisturbed.calls))[part::PARTS]
    divergences = [said for cell in chosen if (said := _divergence(scenario, cell, undisturbed.end))]
    kinds = len({cell.fault for cell in chosen})
    return Figures(scenario.name, len(undisturbed.calls), kinds, len(chosen), tuple(divergences))


def _divergence(scenario: Scenario, cell: Cell, expected: End) -> str:
    """Return how the spoiled run differs, with its last calls; ``""`` where it does not."""
    spoiled = run(scenario, cell)
    wrong = [*spoiled.wrong, *(differences(spoiled.end, expected) if spoiled.end else [])]
    if not wrong:
        return ""
    then = "restarted" if cell.restart else "going on"
    return "\n".join([f"{scenario.name}, call {cell.call}, {cell.fault}, {then}:", *wrong, *spoiled.log])
