"""What is recorded of a group over time: one letter a cycle, and the lines that follow; a line a case."""

from __future__ import annotations

import logging

import pytest
import structlog
from structlog.testing import capture_logs

from reconciler.control.journal import Journal
from reconciler.control.transitions import TransitionLog
from reconciler.domain.status import Condition, Guard, ObjectStatus, Plan, Reason, Refusal
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
    "Q": (Condition.DEGRADED, "rolled back"),
}
CASES = """
    # cycles           lines: in which cycle, and what
    R                  -
    RRRRR              -
    P                  1 progressing
    PPPP               1 progressing
    PPRPL              1 progressing, 3 ready, 4 progressing, 5 leaving
    D                  1 bad
    DDDD               1 bad
    Dd                 1 bad             # only a number differs
    ij                 1 bad             # only an id and a number differ
    DE                 1 bad, 2 bad
    DED                1 bad, 2 bad, 3 bad
    DC                 1 bad, 2 bad
    CCC                1 bad
    H                  1 held
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
    D-                 1 bad, 2 gone
    D-D                1 bad, 2 gone, 3 bad
    D-RRR              1 bad, 2 gone
    LLL-               1 leaving, 4 gone
    DXX                1 bad, 2 refused  # a rule stops everything: another cluster may have been read
    XXX                1 refused
    DXD                1 bad, 2 refused, 3 no longer refused
    DRXRR              1 bad, 3 refused, 4 no longer refused, 5 good
    RBBR               2 refused, 4 no longer refused
    RBbB               2 refused         # only a number differs
    RBXR               2 refused, 3 refused, 3 no longer refused, 4 no longer refused
    RQQ                2 bad, 2 halted   # the group that a halted rollout holds
    QQRRR              1 bad, 1 halted, 3 continues, 5 good
"""


REFUSED = {
    "X": Refusal(Guard.IDENTITY, "another cluster", stops=True),
    "B": Refusal(Guard.BUDGET, "4 of 10 groups"),
    "b": Refusal(Guard.BUDGET, "5 of 10 groups"),
}
WORDS = {
    "degraded": "bad",
    "recovered": "good",
    "rollout halted": "halted",
    "rollout continues": "continues",
}


@pytest.mark.parametrize(("looks", "lines"), rows(CASES))
def test_what_is_recorded(looks: str, lines: str) -> None:
    """Each change once, what stays never again, a recovery only when it is certain; the entries say what the log says.

    Beside it is a service of another owner, in conflict from the first cycle: it is said once.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    journal, said, logged = Journal(), [], []
    changes, last = TransitionLog(journal), journal.last
    foreign = ObjectStatus("service ofa_mine", Condition.CONFLICT, detail="belongs to owner other")
    for number, letter in enumerate(looks, 1):
        refusals = (REFUSED[letter],) if letter in REFUSED else ()
        condition, detail = LOOKS.get(letter, LOOKS["R"])
        reason = Reason.ROLLOUT if letter == "Q" else None
        item = ObjectStatus("group Weld", condition, detail=detail, group="Weld", reason=reason)
        with capture_logs() as captured:
            changes.record(Plan(items=(foreign,) if letter == "-" else (item, foreign), refusals=refusals))
        said += [(number, entry) for entry in journal.after(last)]
        logged += captured
        last = journal.last
    assert [one["event"] for one in logged] == [entry.event for _, entry in said]
    assert [one.get("reason") for one in logged] == [entry.reason for _, entry in said]
    assert [one.get("group") for one in logged] == [entry.group for _, entry in said]
    assert sum(entry.object == foreign.title for _, entry in said) == (looks.strip("X") != "")
    shown = [f"{number} {WORDS.get(one.event, one.event)}" for number, one in said if one.object != foreign.title]
    assert ", ".join(shown) == lines


def test_a_hundred_equal_cycles_make_no_entry() -> None:
    """Whatever is wrong, in progress, refused or halted, is said in the first cycle and never again."""
    journal = Journal()
    changes = TransitionLog(journal)
    reasons = {"Q": Reason.ROLLOUT}
    items = tuple(
        ObjectStatus(f"group {letter}", *look[:1], detail=look[1], group=letter, reason=reasons.get(letter))
        for letter, look in LOOKS.items()
    )
    plan = Plan(items=items, refusals=(REFUSED["B"],))
    changes.record(plan)
    entries = journal.after()
    assert len(entries) == len(LOOKS) + 1  # all but the one that is ready, the refusal, the rollout
    for _ in range(100):
        changes.record(plan)
    assert journal.after() == entries


def test_a_thousand_groups_that_come_and_go_leave_nothing_behind() -> None:
    """What is remembered of a group goes with it."""
    changes = TransitionLog(Journal())
    for number in range(1000):
        bad = ObjectStatus(f"group {number}", Condition.DEGRADED, detail="no", group=str(number))
        good = ObjectStatus(f"group {number}", Condition.READY, group=str(number))
        for item in (bad, good):
            changes.record(Plan(items=(item,)))
        changes.record(Plan())
    assert (len(changes._wrong), len(changes._ready), len(changes._conditions)) == (0, 0, 0)


def test_a_stream_that_is_in_order_is_not_gone() -> None:
    """A plan has the shared stream only while there is something to say of it."""
    journal = Journal()
    changes, last = TransitionLog(journal), journal.last
    for items in ((ObjectStatus("stream SHARED", Condition.PROGRESSING, detail="create it"),), ()):
        changes.record(Plan(items=items))
    assert [(one.event, one.object, one.group) for one in journal.after(last)] == [
        ("progressing", "stream SHARED", None),
        ("ready", "stream SHARED", None),
    ]
