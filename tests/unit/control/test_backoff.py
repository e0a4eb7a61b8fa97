"""How long an object waits after a failure: kind of error, number of failures, seconds."""

from __future__ import annotations

import pytest

from openfactory_common.errors import (
    KsqlBadStatement,
    KsqlConflict,
    KsqlTransient,
    KsqlUnknownOutcome,
    PlatformConflict,
    PlatformRefused,
    PlatformUnreachable,
)
from reconciler.control.backoff import LONGEST_DELAY, Backoff, Failure

TRANSIENT = (KsqlTransient, PlatformUnreachable, KsqlBadStatement, PlatformRefused)
LOOK_FIRST = (KsqlConflict, PlatformConflict)
UNKNOWN = (KsqlUnknownOutcome, RuntimeError, KeyError, MemoryError, ZeroDivisionError)
#: The number of the failure, and the seconds that follow it, by the kind of error.
DELAYS = (
    (1, 2.0, 0.0, 60.0),
    (2, 4.0, 2.0, 60.0),
    (3, 8.0, 4.0, 60.0),
    (5, 32.0, 16.0, 60.0),
    (6, 64.0, 32.0, 64.0),
    (8, 256.0, 128.0, 256.0),
    (9, 300.0, 150.0, 300.0),
    (10, 300.0, 150.0, 300.0),
    (1023, 300.0, 150.0, 300.0),
    (1024, 300.0, 150.0, 300.0),
    (1025, 300.0, 150.0, 300.0),
    (1026, 300.0, 150.0, 300.0),
    (10**6, 300.0, 150.0, 300.0),
    (10**30, 300.0, 150.0, 300.0),
)
CASES = [
    (kind, times, row[at])
    for times, *row in DELAYS
    for at, kinds in enumerate((TRANSIENT, LOOK_FIRST, UNKNOWN))
    for kind in kinds
]


@pytest.mark.parametrize(("kind", "times", "seconds"), CASES)
def test_how_long_an_object_waits(kind: type[Exception], times: int, seconds: float) -> None:
    """Twice as long after each failure in a row, five minutes at most, however many there were."""
    before = Backoff({"x": Failure(times - 1, 0.0, "before")} if times > 1 else {})
    failure = before.failed("x", kind("why"), 100.0).failures["x"]
    assert (failure.times, failure.until) == (times, 100.0 + seconds)
    assert "why" in failure.text or kind is MemoryError
    assert seconds <= LONGEST_DELAY


def test_a_million_failures_in_a_row() -> None:
    """Ten years of one failing write: each failure can be added, and the next try is never more than 300 s away."""
    backoff, now = Backoff(), 0.0
    for _ in range(10**5):
        backoff = backoff.failed("x", KsqlTransient("no"), now)
        assert 0 < backoff.failures["x"].until - now <= LONGEST_DELAY
        now = backoff.failures["x"].until
    assert backoff.failures["x"].times == 10**5
    assert len(backoff.failures) == 1


def test_what_is_forgotten() -> None:
    """A success forgets one object, a plan without an object forgets that; what waits is told by the clock."""
    both = Backoff().failed("x", KsqlTransient("a"), 0.0).failed("y", RuntimeError("b"), 0.0)
    assert both.succeeded("x").failures.keys() == {"y"}
    assert both.only({"x", "z"}).failures.keys() == {"x"}
    assert [both.waiting(now) for now in (0.0, 1.9, 2.0, 60.0)] == [{"x", "y"}, {"x", "y"}, {"y"}, frozenset()]
    assert both.texts() == {"x": "a", "y": "internal error, please report it: RuntimeError: b"}
