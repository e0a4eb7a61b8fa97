"""When the loop runs its next cycle, on a clock that only its own sleeping moves; and that nothing ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise

import pytest
from prometheus_client import CollectorRegistry

from openfactory_common.errors import KsqlBadStatement
from reconciler.control.controller import Controller
from reconciler.control.loop import Loop, Pace
from reconciler.domain.status import CycleResult, Part
from reconciler.ksqldb.entities import Statement
from reconciler.leadership.elector import AlwaysLeader, WriteBlock
from reconciler.leadership.pause import start_pause
from reconciler.metrics import Metrics
from tests.harness.fakes import Stage

GROUPS = {"A1": "Aaa", "P1": "Paint"}


class Run:
    """A loop whose events advance the stage's clock instead of waiting."""

    def __init__(self, stage: Stage, *, cycles: int = 10**9, seconds: float = 1e9, interval: float = 10.0) -> None:
        """Stop after so many cycles, or when so many seconds have passed."""
        self.stage = stage
        self.controller = stage.controller()
        self.loop = Loop(self.controller, interval, monotonic=lambda: stage.now)
        self.starts: list[float] = []
        self.began = stage.now
        self._ends = cycles, stage.now + seconds
        self.loop._wake = _Clock(self)  # type: ignore[assignment]
        self.loop._stopped = _Clock(self)  # type: ignore[assignment]
        self.controller.stopping = lambda: False
        cycle = self.controller.cycle

        def noted() -> object:
            self.starts.append(stage.now - self.began)
            return cycle()

        self.controller.cycle = noted  # type: ignore[method-assign, assignment]

    def over(self) -> bool:
        """Whether the run has come to its end."""
        return len(self.starts) >= self._ends[0] or self.stage.now >= self._ends[1]

    def run(self) -> list[float]:
        """Run, and return when each cycle began, in seconds."""
        self.loop.run()
        return self.starts


class _Clock(threading.Event):
    """An event that is never set and whose waiting takes no time but that of the stage."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def is_set(self) -> bool:
        return self._run.over()

    def wait(self, timeout: float | None = None) -> bool:
        self._run.stage.now += timeout or 0.0
        self._run.stage.wall += timedelta(seconds=timeout or 0.0)
        return False


@pytest.fixture
def stage() -> Stage:
    """Two groups, settled."""
    stage = Stage()
    stage.ksqldb.assets = dict(GROUPS)
    stage.settle(stage.controller())
    return stage


def refusing(stage: Stage, name: str) -> list[float]:
    """Let one stream's statements be refused, and return when they were sent."""
    execute, sent = stage.ksqldb.execute, []

    def refuse(statement: Statement) -> object:
        if name in statement.sql:
            sent.append(stage.now)
            raise KsqlBadStatement("never")
        return execute(statement)

    stage.ksqldb.execute = refuse  # type: ignore[method-assign]
    return sent


def test_in_sync_it_reads_once_an_interval(stage: Stage) -> None:
    """Nothing happens: 10 s apart."""
    assert Run(stage, seconds=100).run() == [float(second) for second in range(0, 100, 10)]


def test_a_write_in_back_off_costs_its_tries_and_no_more(stage: Stage) -> None:
    """One stream's create fails for ten minutes: the interval's reads and one for each try."""
    stage.ksqldb.assets["N"] = "New"
    sent = refusing(stage, "ASSET_STREAM_NEW")
    run = Run(stage, seconds=600)
    starts = run.run()
    assert [round(moment - run.began) for moment in sent[:5]] == [0, 2, 6, 14, 30]
    assert len(sent) <= 9
    assert len(starts) <= 60 + len(sent) + 2


def test_a_pause_of_a_day_reads_once_an_interval_and_ends_in_time(stage: Stage) -> None:
    """Writes wait, reads go on as when nothing happens, and the first cycle after the end comes at the end."""
    stage.ksqldb.assets["N"] = "New"
    run = Run(stage, seconds=95, interval=30.0)
    run.controller.memory.pause = start_pause(stage.wall, 80, "me")
    starts = run.run()
    assert starts[:4] == [0.0, 30.0, 60.0, 80.0]
    assert "ofa_group_new" in stage.platform.services


def test_a_standby_reads_once_an_interval(stage: Stage) -> None:
    """Another operator writes: there is nothing to be quick for."""

    class Standby(AlwaysLeader):
        role = "standby"

        def write_block(self) -> WriteBlock | None:
            return WriteBlock(CycleResult.STANDBY, "other holds the lease")

    stage.ksqldb.assets["N"] = "New"
    run = Run(stage, seconds=60)
    run.controller.write_gate = Standby()
    assert run.run() == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]


def test_what_starts_is_polled_ever_more_rarely(stage: Stage) -> None:
    """A new group's task does not come up: soon at first, then as often as when nothing happens."""
    stage.ksqldb.assets["N"] = "New"
    stage.platform.healthy = lambda name: name.casefold() != "ofa_group_new"
    starts = Run(stage, seconds=120).run()
    gaps = [after - before for before, after in pairwise(starts)]
    assert gaps[0] == 1.0
    assert max(gaps[:4]) < 3
    assert gaps[-3:] == [10.0, 10.0, 10.0]
    assert sorted(gaps) == gaps


def test_a_removal_comes_at_the_end_of_its_grace_and_drain_time(stage: Stage) -> None:
    """With an interval of an hour the group is gone after grace and drain time all the same."""
    del stage.ksqldb.assets["P1"]
    run = Run(stage, seconds=200, interval=3600.0)
    starts = run.run()
    assert "ofa_group_paint" not in stage.platform.services
    assert 60.0 in starts
    assert len(starts) < 30


@pytest.mark.parametrize("where", ["cycle", "history", "tick", "wall"])
def test_nothing_ends_the_loop(stage: Stage, where: str) -> None:
    """An exception out of anything that a turn does is counted, and the loop turns on."""
    run = Run(stage, cycles=10**9, seconds=100)
    registry = CollectorRegistry()
    run.controller.reporter.metrics = Metrics(registry)
    times = [0]

    def broken(real: Callable[..., object]) -> Callable[..., object]:
        def maybe(*args: object) -> object:
            times[0] += 1
            if times[0] % 2:
                raise RuntimeError("boom")
            return real(*args)

        return maybe

    match where:
        case "cycle":
            run.controller.cycle = broken(run.controller.cycle)  # type: ignore[method-assign, assignment]
        case "history":
            run.loop.history = type("H", (), {"after": broken(lambda *_: run.loop.history)})()  # type: ignore[assignment]
        case "tick":
            run.loop._tick = broken(run.loop._tick)  # type: ignore[method-assign, assignment]
        case "wall":
            run.controller.clocks.wall = broken(run.controller.clocks.wall)  # type: ignore[assignment]
    run.run()
    assert len(run.starts) >= 4
    parts = [registry.get_sample_value("reconciler_bugs_total", {"part": part}) or 0 for part in Part]
    assert sum(parts) >= 2


def test_the_loop_of_a_controller_whose_every_report_fails_goes_on(stage: Stage) -> None:
    """Even where counting and logging the exception fail, the next turn comes."""
    run = Run(stage, seconds=100)

    def broken(*_: object, **__: object) -> None:
        run.starts.append(0.0)
        raise RuntimeError("boom")

    run.controller.cycle = broken  # type: ignore[method-assign, assignment]
    run.controller.reporter.report_bug = broken  # type: ignore[method-assign]
    assert len(run.run()) >= 10


def test_the_pace_is_injected() -> None:
    """A loop of real threads can be as quick as a test wants it."""
    stage = Stage()
    stage.ksqldb.assets = dict(GROUPS)
    controller: Controller = stage.controller()
    loop = Loop(controller, 0.002, pace=Pace(gap=0.001))
    thread = threading.Thread(target=loop.run)
    thread.start()
    done = threading.Event()
    controller.on_step = lambda: None
    while stage.ksqldb.calls["info"] < 50 and not done.wait(0.005):
        assert loop.alive
    loop.stop()
    thread.join(timeout=10)
    assert not thread.is_alive()
