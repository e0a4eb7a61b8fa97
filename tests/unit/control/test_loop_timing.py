"""When the next cycle is due: what is waited for, and in how many seconds it comes; a line a case."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import pytest

from openfactory_common.errors import KsqlConflict
from reconciler.control.backoff import Backoff, Contest, Failure, Suspended
from reconciler.control.loop import History, Pace, Polling, find_progress, next_due
from reconciler.control.memory import Memory
from reconciler.control.outcome import CycleOutcome
from reconciler.domain.actions import CreateService, Result
from reconciler.domain.status import Condition, CycleResult, ObjectStatus, Plan
from reconciler.leadership.pause import Pause
from reconciler.planning.guards import Absence, GuardMemory
from reconciler.planning.survey import make_survey
from tests.unit.planning.tables import NOW, observed, rows, settings, source, spec_of, topology

WELD, PAINT = CreateService(spec_of("Weld")), CreateService(spec_of("Paint"))
OPTIONS = settings(prune_grace=60.0, drain_seconds=10.0)
CASES = """
    # back-off until  of    contested until  missing since  silent since  unregistered since  paused for  due in
    -                 -     -                -              -             -                   -           inf
    130               Weld  -                -              -             -                   -           30
    130               Gone  -                -              -             -                   -           inf
    99                Weld  -                -              -             -                   -           inf
    -                 -     400              -              -             -                   -           300
    -                 -     -                90             -             -                   -           50
    -                 -     -                40             -             -                   -           inf
    -                 -     -                -              80            -                   -           40
    -                 -     -                -              -             95                  -           5
    -                 -     -                -              -             50                  -           inf
    130               Weld  120              95             90            99                  -           9
    130               Weld  -                -              -             -                   86400       86400
    -                 -     -                -              -             -                   0.5         0.5
    130               Weld  -                -              -             -                   -1          30
    130               Weld  -                -              -             -                   999999999   30
"""


@pytest.mark.parametrize(("until", "of", "contested", "missing", "silent", "out", "paused", "due"), rows(CASES))
def test_when_time_alone_can_change_something(  # noqa: PLR0913, PLR0917 - the columns of the table
    until: str, of: str, contested: str, missing: str, silent: str, out: str, paused: str, due: str
) -> None:
    """The earliest end of what is waited for; a pause is waited for alone, unless it is over or nonsense."""
    memory = Memory(
        GuardMemory(
            missing={"x": Absence(1, float(missing))} if missing else {},
            silent={"y": Absence(1, float(silent))} if silent else {},
            unregistered={"x": float(out)} if out else {},
        ),
        Backoff({f"service ofa_group_{of}": Failure(1, float(until), "")} if until else {}),
        Contest(held={WELD.key: Suspended(None, float(contested), "")} if contested else {}),
        Pause(NOW + timedelta(seconds=float(paused)), "me") if paused else None,
    )
    assert next_due(memory, Plan(actions=(WELD,)), (), OPTIONS, 100.0, NOW) == float(due)


def test_a_write_that_may_be_tried_again_at_once_is() -> None:
    """A conflict is looked at again at once; one of another cycle, behind something else, is not spun for."""
    memory = Memory(backoff=Backoff({WELD.key: Failure(1, 100.0, "")}))
    plan = Plan(actions=(WELD,))
    assert next_due(memory, plan, (Result(WELD, KsqlConflict("x")),), OPTIONS, 100.0, NOW) == 0.0
    assert next_due(memory, plan, (Result(WELD, skipped=True),), OPTIONS, 100.0, NOW) == math.inf


POLLED = """
    # Weld         its write is pending  unknown streams  polled
    Ready          no                    0                no
    Degraded       no                    0                no
    Conflict       no                    0                no
    Held           no                    0                no
    Progressing    no                    0                yes
    Leaving        no                    0                yes
    Progressing    yes                   0                no
    Leaving        yes                   0                no
    Ready          no                    1                yes
    Progressing    yes                   1                yes
"""


@pytest.mark.parametrize(("condition", "pending", "unknown", "polled"), rows(POLLED))
def test_what_is_polled_for(condition: str, pending: str, unknown: str, polled: str) -> None:
    """What only another look can tell; a write that is due has its own time."""
    item = ObjectStatus("group Weld", Condition(condition), group="Weld")
    plan = Plan(actions=(WELD,) if pending == "yes" else (PAINT,), items=(item,), unknown=int(unknown))
    assert (find_progress(plan) is not None) == (polled == "yes")


def test_the_gap_grows_while_nothing_changes() -> None:
    """1 s at first, half as much again each time, and from the start when anything has changed."""
    pace, polling, gaps = Pace(), Polling(), []
    for seen in ("a", "a", "a", "a", "b", "b", "a"):
        polling = polling.after(seen, pace)
        gaps.append(polling.gap)
    assert gaps == [1.0, 1.5, 2.25, 3.375, 1.0, 1.5, 1.0]
    for _ in range(10_000):
        polling = polling.after("a", pace)
    assert polling.gap == math.inf or polling.gap > 1e6


OUTCOME = CycleOutcome(CycleResult.IN_SYNC, "said", Plan(), make_survey(observed({}, source({})), topology(), OPTIONS))
CYCLES = """
    # cycles, in order      last read  last write
    read                    0          -
    failed                  -          -
    read wrote              1          1
    wrote read              1          0
    wrote read failed       1          0
    failed failed wrote     2          2
    wrote read wrote read   3          2
"""


@pytest.mark.parametrize(("cycles", "read", "written"), rows(CYCLES))
def test_what_is_kept_of_the_cycles(cycles: str, read: str, written: str) -> None:
    """A cycle that failed to read keeps the last that did; times are those of the cycles."""
    history, times = History(), [NOW + timedelta(seconds=number) for number in range(len(cycles.split()))]
    for word, now in zip(cycles.split(), times, strict=True):
        outcome = replace(OUTCOME, results=(Result(WELD),) if word == "wrote" else (), sentence=word)
        history = history.after(replace(outcome, plan=None, survey=None) if word == "failed" else outcome, now)
    assert history.last is not None
    assert (history.last.sentence, history.ended) == (cycles.rsplit(maxsplit=1)[-1], times[-1])
    assert history.read_at == (times[int(read)] if read else None)
    assert (history.read.sentence if history.read else "") == (cycles.split()[int(read)] if read else "")
    assert history.written_at == (times[int(written)] if written else None)
