"""At most one process may write at any moment, whatever the order of beats, delays, lost answers and lost processes."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from openfactory_common.errors import PlatformUnreachable
from reconciler.leadership.elector import Elector, own_name
from reconciler.leadership.lease import Candidate
from tests.harness.fakes import FakePlatform

DURATION = 15.0
#: Who beats; how long the beat's read and write are under way; what happens to its answer; who beats in between.
BEATS = st.tuples(
    st.integers(0, 2),
    st.sampled_from([0.0, 1.0, 3.0, 5.0, 8.0, 12.0, 15.0]),
    st.sampled_from([0.0, 0.0, 0.0, 3.0, 7.0, 10.0]),
    st.sampled_from(["answered", "answered", "answered", "lost before", "lost after"]),
    st.none() | st.integers(0, 2),
)


class Crowd:
    """Three processes on machines whose clocks have nothing to do with each other, and one record."""

    def __init__(self) -> None:
        """No one has looked yet."""
        self.now = 0.0
        self.platform = FakePlatform()
        self.answer = "answered"
        self.meanwhile: Callable[[], None] = lambda: None
        self.all = [self._process(0, 5e3), self._process(1, 7e5), self._process(2, 11.0, preempts=True)]

    def _process(self, number: int, offset: float, *, preempts: bool = False) -> Elector:
        me = Candidate(f"p{number}", DURATION, preempts)
        return Elector(_Delayed(self), me, clock=lambda: self.now + offset)  # type: ignore[arg-type]

    def assert_one(self) -> None:
        """No two of them believe that they may write."""
        assert [one.me.name for one in self.all if one.leads][1:] == []


class _Delayed:
    """The record behind a network: time passes before a request arrives and before its answer does."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd

    def records(self) -> object:
        return self._crowd.platform.records()

    def write_record(self, *args: object) -> None:
        crowd = self._crowd
        if crowd.answer == "lost before":
            raise PlatformUnreachable("never arrived")
        meanwhile, crowd.meanwhile = crowd.meanwhile, lambda: None
        meanwhile()
        crowd.platform.write_record(*args)  # type: ignore[arg-type]
        meanwhile()
        if crowd.answer == "lost after":
            raise PlatformUnreachable("no answer")


@settings(max_examples=300)
@given(st.lists(BEATS, min_size=10, max_size=60))
def test_there_are_never_two(beats: list[tuple[int, float, float, str, int | None]]) -> None:
    """Time passes before, within and after each beat, and other processes beat in the middle of it."""
    crowd = Crowd()
    for who, before, within, answer, other in beats:
        crowd.now += before
        crowd.assert_one()
        crowd.answer = answer

        def under_way(other: int | None = other, seconds: float = within) -> None:
            crowd.assert_one()
            if other is not None:
                crowd.all[other].renew()
            crowd.now += seconds

        crowd.meanwhile = under_way
        crowd.all[who].renew()
        crowd.assert_one()


@settings(max_examples=50)
@given(st.lists(BEATS, max_size=20), st.integers(0, 2))
def test_a_user_leads_in_the_end(beats: list[tuple[int, float, float, str, int | None]], left: int) -> None:
    """Whatever has happened: a process that beats alone for two durations leads, and goes on leading."""
    crowd = Crowd()
    for who, before, _, answer, _ in beats:
        crowd.now += before
        crowd.answer = answer
        crowd.all[who].renew()
    crowd.answer = "answered"
    for _ in range(12):
        crowd.all[left].renew()
        crowd.now += DURATION / 5
    assert crowd.all[left].leads


#: What people, other programs and other versions put into a record; the empty holder, which gives a lease up, is legal.
SPOILT: list[dict[str, str]] = [
    {},
    {"leader": "someone", "epoch": "7"},
    {"holder": "p0", "seconds": "0.000001"},
    {"holder": "p0", "term": "x", "beat": "-1", "seconds": "nan", "wanted": "\ud800"},
    {"term": "9" * 99, "beat": "9" * 99, "seconds": "1e300"},
    {"holder": "\x00\u202e" * 1000, "added": "by a newer version"},
]


def test_a_term_does_not_come_again_after_a_record_was_spoilt_or_removed() -> None:
    """One that has not looked meanwhile would take the new holder for the old one without a sign of life."""
    for spoilt in ({}, None):
        crowd = Crowd()
        for who in (1, 0):
            crowd.all[who].renew()
        if spoilt is None:
            del crowd.platform.kept_records["lease"]
        else:
            crowd.platform.write_record("lease", spoilt, crowd.platform.kept_records["lease"])
        crowd.all[1].renew()
        crowd.now += DURATION
        for who in (1, 0):
            crowd.all[who].renew()
            crowd.assert_one()


@settings(max_examples=200)
@given(st.lists(BEATS, min_size=10, max_size=60), st.integers(0, 40), st.sampled_from(SPOILT))
def test_there_are_never_two_when_the_record_is_spoilt(
    beats: list[tuple[int, float, float, str, int | None]], at: int, spoilt: dict[str, str]
) -> None:
    """Between two beats the record is spoilt, or replaced by one of another version."""
    crowd = Crowd()
    for number, (who, before, _, answer, _) in enumerate(beats):
        crowd.now += before
        crowd.answer = answer
        crowd.all[who].renew()
        crowd.assert_one()
        there = crowd.platform.kept_records.get("lease")
        if number == at and there is not None:
            holder = {"holder": there.fields["holder"] or "x"} if spoilt.get("holder", "").startswith("p") else {}
            crowd.platform.write_record("lease", {**spoilt, **holder}, there)
            crowd.assert_one()


class Lines:
    """What an elector reports, oldest first."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.said: list[tuple[str, str, str]] = []

    def info(self, event: str, **fields: Any) -> None:
        """An event."""
        self.said.append(("info", event, str(fields.get("holder") or fields.get("error") or "")))

    def warning(self, event: str, **fields: Any) -> None:
        """A problem."""
        self.said.append(("warning", event, str(fields.get("holder") or fields.get("error") or "")))


def test_who_leads_is_said_once_each_time_it_changes() -> None:
    """Gained, lost because the record cannot be written, taken by another, seen by the one that lost it."""
    platform, now, lines = FakePlatform(), [0.0], [Lines(), Lines()]
    first, second = (Elector(platform, Candidate(f"p{number}", DURATION), clock=lambda: now[0]) for number in range(2))
    first.events, second.events = lines

    def renew(*electors: Elector, seconds: float) -> None:
        for _ in range(int(seconds)):
            now[0] += 1
            for elector in electors:
                elector.renew()

    renew(first, second, seconds=60)
    assert [line.said for line in lines] == [[("info", "lease acquired", "p0")], [("info", "standby", "p0")]]
    platform.fault = lambda _call: (_ for _ in ()).throw(PlatformUnreachable("no engine"))
    renew(first, second, seconds=60)
    platform.fault = lambda _call: None
    renew(second, seconds=60)
    renew(first, second, seconds=60)
    away = ("warning", "lease: the record cannot be read or written", "")
    assert lines[0].said[1:] == [(*away[:2], "no engine"), ("warning", "lease lost", "p0"), ("info", "standby", "p1")]
    assert lines[1].said[1:] == [(*away[:2], "no engine"), ("info", "lease acquired", "p1")]
    second.stop()
    renew(first, seconds=60)
    assert lines[0].said[4:] == [("info", "lease acquired", "p0")]


def test_the_name_of_a_command_says_which_it_is() -> None:
    """The operator that gives it the lease records the name; no two processes have the same."""
    assert re.fullmatch(rf"{re.escape(socket.gethostname())}-adopt-[0-9a-f]{{8}}", own_name("adopt"))
    assert re.fullmatch(rf"{re.escape(socket.gethostname())}-[0-9a-f]{{8}}", own_name())
    assert own_name("once") != own_name("once")
