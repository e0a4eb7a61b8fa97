"""What is logged of a group over time: one letter a cycle, and the lines that follow; a line a case."""

from __future__ import annotations

import logging

import pytest
import structlog
from structlog.testing import capture_logs

from reconciler.control.transitions import TransitionLog
from reconciler.domain.status import Condition, Guard, ObjectStatus, Plan, Refusal
from tests.unit.planning.tables import rows

LOOKS = {
    "R": (Condition.READY, ""),
    "P": (Condition.PROGRESSING, "1 of 2 tasks"),
    "L": (Condition.LEAVING, "missing 1/3"),
    "H": (Condition.HELD, "held"),
    "D": (Condition.DEGRADED, "no such image, attempt 1"),
    "d": (Condition.DEGRADED, "no such image, attempt 2"),
    "i": (Condition.DEGRADED, "task 0123456789abcdef failed after 3 s"),
    "j": (Condition.DEGRADED, "task fedcba9876543210 failed after 99 s"),
    "E": (Condition.DEGRADED, "out of memory"),
    "C": (Condition.CONFLICT, "not ours"),
}
CASES = """
    # cycles           lines: in which cycle, and what
    R                  -
    RRRRR              -
    P                  -
    PPRPL              -
    D                  1 bad
    DDDD               1 bad
    Dd                 1 bad             # only a number differs
    ij                 1 bad             # only an id and a number differ
    DE                 1 bad, 2 bad
    DED                1 bad, 2 bad, 3 bad
    DC                 1 bad, 2 bad
    CCC                1 bad
    H                  -
    DR                 1 bad
    DRR                1 bad
    DRRR               1 bad, 4 good
    DRRRR              1 bad, 4 good
    DRRRD              1 bad, 4 good, 5 bad
    DRRDRRR            1 bad, 7 good    # one that crashes and starts in turns is not recovered
    DRDRDRDR           1 bad
    DPRRR              1 bad, 5 good
    DPPPP              1 bad
    DRPRR              1 bad, 5 good    # cycles in between count neither for nor against it
    CRRR               1 bad, 4 good
    D-                 1 bad
    D-D                1 bad, 3 bad     # it was gone in between
    D-RRR              1 bad
    DXX                1 bad             # a rule stops everything: another cluster may have been read
    XXX                -
    DXD                1 bad
    DRXRR              1 bad, 5 good
"""


@pytest.mark.parametrize(("looks", "lines"), rows(CASES))
def test_what_is_logged(looks: str, lines: str) -> None:
    """Each change once, what stays never again, and a recovery only when it is certain."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    changes, said = TransitionLog(), []
    for number, letter in enumerate(looks, 1):
        stops = (Refusal(Guard.IDENTITY, "another cluster", stops=True),) if letter == "X" else ()
        condition, detail = LOOKS.get(letter, LOOKS["D"])
        items = () if letter == "-" else (ObjectStatus("group Weld", condition, detail=detail, group="Weld"),)
        with capture_logs() as logged:
            changes.record(Plan(items=items, refusals=stops))
        said += [f"{number} {'bad' if line['log_level'] == 'warning' else 'good'}" for line in logged]
    assert ", ".join(said) == lines


def test_a_thousand_groups_that_come_and_go_leave_nothing_behind() -> None:
    """What is remembered of a group goes with it."""
    changes = TransitionLog()
    for number in range(1000):
        bad = ObjectStatus(f"group {number}", Condition.DEGRADED, detail="no", group=str(number))
        good = ObjectStatus(f"group {number}", Condition.READY, group=str(number))
        for item in (bad, good):
            changes.record(Plan(items=(item,)))
        changes.record(Plan())
    assert (len(changes._logged), len(changes._ready)) == (0, 0)
