"""Whether events come through a stream: readings and samples in, strikes out."""

from __future__ import annotations

import pytest

from reconciler.control.flow import (
    AT_ONCE,
    STRIKES,
    Movement,
    Reading,
    Sample,
    Track,
    choose_groups,
    compare_readings,
    judge_check,
)

FIRST = Reading(end=100, read=90, written=50)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (None, FIRST, Movement.UNKNOWN),
        (FIRST, None, Movement.UNKNOWN),
        (FIRST, FIRST, Movement.IDLE),  # a plant that is switched off
        (Reading(100, 100, 50), Reading(100, 100, 50), Movement.IDLE),
        (Reading(101, 100, 50), Reading(101, 100, 50), Movement.IDLE),  # a marker of a transaction, not an event
        (Reading(100, 100, None), Reading(100, 100, None), Movement.IDLE),
        (Reading(100, 100, 50), Reading(140, 100, 50), Movement.IDLE),  # they came a moment ago
        (FIRST, Reading(200, 190, 51), Movement.MOVES),
        (FIRST, Reading(200, 190, 3), Movement.MOVES),  # the server restarted and counts from 0
        (FIRST, Reading(100, 90, 51), Movement.MOVES),
        (Reading(100, 90, None), Reading(200, 190, 1), Movement.MOVES),
        (FIRST, Reading(200, 190, 50), Movement.SUSPECT),
        (FIRST, Reading(100, 100, 50), Movement.SUSPECT),
        (FIRST, Reading(200, 190, None), Movement.SUSPECT),
        (Reading(100, 90, None), Reading(200, 190, None), Movement.SUSPECT),
        (FIRST, Reading(200, 90, 50), Movement.STUCK),
        (Reading(100, 0, None), Reading(101, 0, None), Movement.STUCK),
        (FIRST, Reading(200, 90, 51), Movement.MOVES),
    ],
)
def test_two_readings_are_compared(before: Reading | None, now: Reading | None, expected: Movement) -> None:
    """Written is proof, read without written is a suspicion, waiting without read is stuck, and the rest is nothing."""
    assert compare_readings(before, now) is expected


SUSPECT = [Reading(100 * n, 100 * n, 50) for n in range(1, 8)]
STUCK = [Reading(100 * n, 10, 50) for n in range(1, 8)]
MOVES = [Reading(100 * n, 100 * n, 50 * n) for n in range(1, 8)]
IDLE = [Reading(100, 100, 50)] * 7
Checks = list[tuple[Reading | None, Sample | None]]


@pytest.mark.parametrize(
    ("checks", "silent"),
    [
        ([(reading, Sample(3)) for reading in SUSPECT[: STRIKES + 1]], True),
        ([(reading, Sample(3)) for reading in SUSPECT[:STRIKES]], False),  # the first one has nothing to compare with
        ([(reading, None) for reading in STUCK[: STRIKES + 1]], True),
        ([(reading, None) for reading in STUCK[:STRIKES]], False),
        ([(reading, None) for reading in MOVES], False),
        ([(reading, None) for reading in IDLE], False),
        ([(reading, Sample(0)) for reading in SUSPECT], False),  # only events of others, or of assets without a mapping
        ([(reading, None) for reading in SUSPECT], False),  # none was sampled
        ([(reading, Sample(3, came_out=True)) for reading in SUSPECT], False),  # another server counts what it writes
        ([(None, None)] * 7, False),
        ([(reading, Sample(3)) for reading in SUSPECT] + [(Reading(900, 900, 51), None)], False),  # recovered
        ([(reading, Sample(3)) for reading in SUSPECT] + [(Reading(900, 900, 50), Sample(1, came_out=True))], False),
        ([(reading, Sample(3)) for reading in SUSPECT] + [(SUSPECT[-1], None)] * 9, True),  # switched off afterwards
        ([(reading, Sample(3)) for reading in SUSPECT] + [(None, None)] * 9, True),
        ([pair for reading in SUSPECT[:4] for pair in ((reading, Sample(1)), (None, None))], True),
    ],
)
def test_a_stream_is_silent_after_strikes(checks: Checks, silent: bool) -> None:
    """Three checks with events in and none out; a check that tells nothing neither counts nor clears."""
    track = Track()
    for reading, sample in checks:
        track = judge_check(track, "CSAS_1", reading, sample)
    assert track.silent is silent
    assert bool(track.why) >= silent


def test_another_query_starts_from_nothing() -> None:
    """A stream that was made again is another one."""
    track = Track()
    for reading in SUSPECT[:4]:
        track = judge_check(track, "CSAS_1", reading, Sample(3))
    assert track.silent
    assert judge_check(track, "CSAS_2", SUSPECT[4], Sample(3)) == Track("CSAS_2", SUSPECT[4])


def test_every_group_has_its_turn_and_the_accused_come_first() -> None:
    """So many at a time, in order; however many are accused, the others are looked at too."""
    groups = {f"g{n:02}" for n in range(25)}
    seen: set[str] = set()
    after = ""
    for _ in range(3):
        some = choose_groups(groups, {}, after)
        assert len(some) == AT_ONCE
        seen |= set(some)
        after = some[-1]
    assert seen == groups
    accused = {group: Track(strikes=1) for group in groups}
    assert choose_groups(groups, {"g24": Track(strikes=1)}, "g03")[:2] == ("g24", "g04")
    assert set(choose_groups(groups, accused, "g10")) >= {"g11", "g12"}
    assert choose_groups({"a"}, {}, "zzz") == ("a",)
