"""The lease's rules, one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.leadership.lease import Candidate, Lease, ObservedLease, next_lease, parse, release_lease

ME = Candidate("me", 15.0)
COMMAND = Candidate("me", 15.0, preempts=True)
THEIRS = Lease("other", 3, 7, 15.0)


def decided(lease: Lease | None, me: Candidate = ME, **more: object) -> Lease | None:
    """Return what would be written by one who has just looked."""
    given: dict[str, object] = {"now": 0.0, "paused": False, "writing": False, **more}
    return next_lease(me, ObservedLease(lease, 0.0), **given)  # type: ignore[arg-type]


def test_a_free_lease_is_taken() -> None:
    """The first of all makes the record; a lease that was given up is taken at once, with the next term."""
    assert decided(None) == Lease("me", 1, 0, 15.0)
    assert decided(Lease("", 3, 7, 15.0)) == Lease("me", 4, 0, 15.0)


def test_a_held_lease_is_left_alone_until_it_has_not_changed_for_its_duration() -> None:
    """The duration is the holder's, and the clock the waiter's own."""
    assert decided(THEIRS, now=14.9) is None
    assert decided(THEIRS, now=15.0) == Lease("me", 4, 0, 15.0)
    assert decided(Lease("other", 3, 7, 40.0), now=39.0) is None


def test_every_beat_starts_the_wait_again_and_a_wish_does_not() -> None:
    """Only what the holder writes shows that it lives."""
    sight = ObservedLease(THEIRS, 0.0)
    assert not sight.observe(Lease("other", 3, 8, 15.0), 10.0).is_stale(20.0)
    assert sight.observe(Lease("other", 3, 7, 15.0, wanted="me"), 10.0).is_stale(15.0)


def test_the_holder_renews() -> None:
    """Each beat writes something that was not there before, and keeps who asks."""
    assert decided(Lease("me", 3, 7, 15.0)) == Lease("me", 3, 8, 15.0)


def test_a_loop_hands_over_to_a_command_between_two_writes() -> None:
    """A command asks, the loop gives up once no write is on its way, and leaves the lease to who asked."""
    asked = decided(THEIRS, COMMAND)
    assert asked == Lease("other", 3, 7, 15.0, wanted="me")
    held = Lease("me", 3, 7, 15.0, wanted="command")
    assert decided(held, writing=True) == Lease("me", 3, 8, 15.0, wanted="command")
    assert decided(held) == Lease("", 3, 7, 15.0, wanted="command")
    assert decided(Lease("", 3, 7, 15.0, wanted="command")) is None
    assert decided(Lease("", 3, 7, 15.0, wanted="me"), COMMAND) == Lease("me", 4, 0, 15.0)


def test_a_command_that_died_before_it_took_what_it_asked_for_is_not_waited_for_longer() -> None:
    """One duration, like a holder."""
    assert decided(Lease("", 3, 7, 15.0, wanted="command"), now=15.0) == Lease("me", 4, 0, 15.0)


def test_a_command_hands_over_to_no_one() -> None:
    """Another command waits until it has ended, and does not overwrite a wish."""
    assert decided(Lease("me", 3, 7, 15.0, wanted="x"), COMMAND) == Lease("me", 3, 8, 15.0, wanted="x")
    assert decided(Lease("other", 3, 7, 15.0, wanted="x"), COMMAND) is None


def test_paused_no_one_holds_it() -> None:
    """A paused holder gives up, and no one takes: so anyone who looks can tell that no write is on its way."""
    assert decided(Lease("me", 3, 7, 15.0), paused=True) == Lease("", 3, 7, 15.0)
    assert decided(None, paused=True) is None
    assert decided(THEIRS, paused=True, now=99.0) is None


@pytest.mark.parametrize(
    "fields",
    [{}, {"term": "-1", "beat": "x", "seconds": "nan"}, {"seconds": "1e300"}, {"seconds": "inf", "term": "9" * 99}],
)
def test_a_record_that_was_spoilt_by_hand_keeps_no_one_out_for_long(fields: dict[str, str]) -> None:
    """Nonsense reads as a default."""
    lease = parse(fields)
    assert (lease.term, lease.beat, lease.seconds) == (0, 0, 15.0)
    assert parse({"seconds": "999999"}).seconds == 600.0


def test_it_is_read_as_it_was_written() -> None:
    """All fields."""
    lease = Lease("a", 3, 7, 2.5, "b")
    assert parse(lease.fields) == lease


RECORDS: list[tuple[dict[str, object], str, int, float]] = [
    ({"holder": "a", "term": "3", "beat": "7", "seconds": "15"}, "a", 3, 15.0),
    ({"holder": "a", "term": "3", "beat": "7", "seconds": "15", "region": "eu", "v": "2"}, "a", 3, 15.0),
    ({"holder": "", "term": "3"}, "", 3, 15.0),
    ({"holder": "a", "term": 3, "beat": None, "seconds": 15}, "a", 0, 15.0),
    ({"holder": "a", "seconds": "0"}, "a", 0, 15.0),
    ({"holder": "a", "seconds": "-1"}, "a", 0, 15.0),
    ({"holder": "a", "seconds": "999999999999999"}, "a", 0, 600.0),
    ({"holder": "a", "term": "9" * 5000}, "a", 0, 15.0),
    ({"holder": "\ud800\x00", "wanted": ["x"]}, "\ud800\x00", 0, 15.0),
]


@pytest.mark.parametrize(("fields", "holder", "term", "seconds"), RECORDS)
def test_any_record_is_read(fields: dict[str, object], holder: str, term: int, seconds: float) -> None:
    """Unknown fields are ignored, what cannot be read is a default, and nothing is raised."""
    lease = parse(fields)  # type: ignore[arg-type]
    assert (lease.holder, lease.term, lease.seconds) == (holder, term, seconds)


@pytest.mark.parametrize("fields", [{}, {"leader": "x"}, {"holder": None}, {"holder": 7}, {"\ud800": "\ud800"}])
def test_a_record_that_names_no_holder_in_our_way_is_held(fields: dict[str, object]) -> None:
    """It may be that of a newer version which writes: it is taken over only when it has not changed for a duration."""
    lease = parse(fields)  # type: ignore[arg-type]
    assert decided(lease) is None
    assert decided(lease, now=14.9) is None
    assert decided(lease, now=15.0) == Lease("me", 1, 0, 15.0)
    changed = ObservedLease(lease, 0.0).observe(parse({**fields, "beat2": "8"}), 14.0)  # type: ignore[arg-type]
    assert not changed.is_stale(28.9)
    assert changed.is_stale(29.0)


def test_a_duration_that_was_spoilt_lets_no_one_in_early() -> None:
    """Neither while the waiter knows the true one, nor where it has only its own; the holder puts it right."""
    spoilt = replace(THEIRS, seconds=0.000001)
    assert not ObservedLease(THEIRS, 0.0).observe(spoilt, 1.0).is_stale(14.9)
    assert decided(spoilt, now=14.9) is None
    assert decided(replace(spoilt, holder="me")) == Lease("me", 3, 8, 15.0)
    long = ObservedLease(replace(THEIRS, seconds=40.0), 0.0).observe(spoilt, 1.0)
    assert not long.is_stale(39.0)
    assert long.observe(replace(THEIRS, beat=8), 2.0).is_stale(17.0)


#: What was observed, the record now, and what is observed then; at second 9.
OBSERVATIONS = (
    (ObservedLease(), None, ObservedLease(None, 9.0, 0.0, 0)),
    (ObservedLease(), replace(THEIRS, seconds=40.0), ObservedLease(replace(THEIRS, seconds=40.0), 9.0, 40.0, 3)),
    (ObservedLease(THEIRS, 5.0, 15.0, 3), THEIRS, ObservedLease(THEIRS, 5.0, 15.0, 3)),
    (
        ObservedLease(THEIRS, 5.0, 15.0, 3),
        replace(THEIRS, seconds=40.0),
        ObservedLease(replace(THEIRS, seconds=40.0), 5.0, 40.0, 3),
    ),
    (ObservedLease(replace(THEIRS, seconds=40.0), 5.0), THEIRS, ObservedLease(THEIRS, 5.0, 40.0, 3)),
    (ObservedLease(THEIRS, 5.0, 60.0, 3), THEIRS, ObservedLease(THEIRS, 5.0, 60.0, 3)),
    (ObservedLease(THEIRS, 5.0, 60.0, 7), THEIRS, ObservedLease(THEIRS, 5.0, 60.0, 7)),
    (
        ObservedLease(THEIRS, 5.0, 60.0, 3),
        replace(THEIRS, beat=8),
        ObservedLease(replace(THEIRS, beat=8), 9.0, 15.0, 3),
    ),
    (ObservedLease(THEIRS, 5.0, 60.0, 7), None, ObservedLease(None, 9.0, 0.0, 7)),
    (ObservedLease(THEIRS, 5.0, 60.0, 7), Lease("new", 1), ObservedLease(Lease("new", 1), 9.0, 15.0, 7)),
)


@pytest.mark.parametrize(("before", "lease", "after"), OBSERVATIONS)
def test_an_observation_keeps_the_longest_duration_of_a_beat_and_the_highest_term(
    before: ObservedLease, lease: Lease | None, after: ObservedLease
) -> None:
    """A sign of life starts the time again; the highest term is kept also when the record is gone."""
    assert before.observe(lease, 9.0) == after


def test_the_duration_of_the_record_is_enough_without_another() -> None:
    """Also one that is shorter than a second."""
    assert ObservedLease(replace(THEIRS, seconds=0.5), 0.0).is_stale(0.5)
    assert not ObservedLease(replace(THEIRS, seconds=0.5), 0.0).is_stale(0.4)


@pytest.mark.parametrize(("term", "following"), [(10**15 - 2, 10**15 - 1), (10**15 - 1, 1), (10**15, 1)])
def test_terms_begin_again_after_the_largest(term: int, following: int) -> None:
    """A term with more digits would be read as 0."""
    assert decided(Lease("", term)) == Lease("me", following, 0, 15.0)


@pytest.mark.parametrize("lease", [None, Lease(""), Lease("other", seconds=5.0)])
def test_who_takes_the_lease_writes_its_own_duration(lease: Lease | None) -> None:
    """A waiter measures with the holder's duration."""
    taken = decided(lease, Candidate("me", 20.0), now=20.0)
    assert taken is not None
    assert taken.seconds == 20.0


@pytest.mark.parametrize(
    ("holder", "wanted", "after"),
    [
        ("me", "", ("", "")),
        ("me", "me", ("", "")),
        ("me", "other", ("", "other")),
        ("other", "me", ("other", "")),
        ("other", "third", ("other", "third")),
    ],
)
def test_releasing_gives_up_what_is_ones_own(holder: str, wanted: str, after: tuple[str, str]) -> None:
    """Neither another holder nor another candidate is removed from the record."""
    assert release_lease(ME, Lease(holder, 3, 7, 15.0, wanted)) == Lease(after[0], 3, 7, 15.0, after[1])


def test_a_wanted_that_is_no_text_is_none() -> None:
    """Such a record asks for nothing."""
    assert parse({"holder": "a", "wanted": ["x"]}).wanted == ""  # type: ignore[dict-item]
    assert parse({"holder": "a"}).wanted == ""


def test_a_record_without_a_holder_is_the_same_in_any_order() -> None:
    """The order of fields is no sign of life; fields need not be comparable with each other."""
    one: dict[object, object] = {"beat2": 8, 3: "x", None: ["y"]}
    assert parse(one) == parse(dict(reversed(one.items())))  # type: ignore[arg-type]
