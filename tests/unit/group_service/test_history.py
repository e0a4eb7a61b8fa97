"""The history knows exactly what it has."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given

from group_service.events import OVERHEAD, Event
from group_service.history import PORTION, History


def event(offset: int, asset: str = "A", partition: int = 0, ms: int | None = None, size: int = 0) -> Event:
    """Return an event whose timestamp is a second for each offset."""
    return Event("Weld", asset.encode(), b"x" * size, partition, offset, offset * 1000 if ms is None else ms)


def history(events: Sequence[Event], limit: int = 10**6, start: dict[int, int] | None = None) -> History:
    """Return a history with events."""
    made = History(limit)
    made.reset(start or {0: 0}, {p for p, o in (start or {0: 0}).items() if o == 0})
    for one in events:
        made.add(one)
    return made


def offsets(made: History, position: dict[int, int], asset: str | None = "A") -> list[int]:
    """Return the offsets of the next events."""
    return [one.offset for one in made.take(position, asset)[0]]


def test_only_events_of_the_asset_from_the_position_on_are_taken() -> None:
    """In order; None is every asset."""
    made = history([event(n, "AB"[n % 2]) for n in range(10)])
    assert offsets(made, {0: 3}) == [4, 6, 8]
    assert offsets(made, {0: 3}, None) == [3, 4, 5, 6, 7, 8, 9]
    assert offsets(made, {0: 10}) == []
    assert offsets(made, {0: 0}, "C") == []


def test_several_partitions_are_taken_by_their_own_positions() -> None:
    """A partition that the position does not have is taken from its beginning."""
    made = history([event(n // 2, partition=n % 2, ms=n) for n in range(8)], start={0: 0, 1: 0})
    assert [(one.partition, one.offset) for one in made.take({0: 3, 1: 2}, "A")[0]] == [(1, 2), (0, 3), (1, 3)]
    assert len(made.take({0: 4}, "A")[0]) == 4


def test_a_position_in_other_partitions_is_one_at_the_beginning() -> None:
    """The topic that it comes from had more, or others."""
    made = history([event(n) for n in range(4)])
    assert offsets(made, {0: 2, 1: 7}) == [2, 3]
    assert offsets(made, {1: 7}) == [0, 1, 2, 3]


def test_a_portion_is_limited_and_the_next_one_continues() -> None:
    """A client that resumes far back gets its events in parts, each once; a single large event passes."""
    made = history([event(n, size=PORTION // 3) for n in range(5)] + [event(5, size=PORTION * 2)], limit=10**7)
    position, taken, done = {0: 0}, [], False
    while not done:
        events, done = made.take(position, "A")
        assert len(events) <= 3
        taken += [one.offset for one in events]
        position = {0: taken[-1] + 1}
    assert taken == [0, 1, 2, 3, 4, 5]


@given(st.integers(0, 5000), st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ABC"), st.integers(0, 400))))
def test_what_is_covered_is_complete(limit: int, records: list[tuple[int, str, int]]) -> None:
    """Whatever was dropped: a position that is covered gets every event since then, and the limit is kept."""
    made, after, every = history([], limit, {0: 0, 1: 0, 2: 0}), {0: 0, 1: 0, 2: 0}, list[Event]()
    for partition, asset, size in records:
        new = event(after[partition], asset, partition, size=size)
        after[partition] += 1
        every += [new] if made.add(new) else []  # the others repeat what is in memory
    assert made.bytes <= limit
    for position in ({0: 0, 1: 0, 2: 0}, made.start, made.next):
        if made.covers(position):
            assert made.take(position, "A")[0] == [
                e for e in every if e.asset == "A" and e.offset >= position[e.partition]
            ]
    assert made.covers(made.start)
    assert not made.covers({p: o - 1 for p, o in made.start.items()})


@pytest.mark.parametrize(("offset", "ms"), [(2, None), (3, 3000), (9, 9000), (10, None), (-1, None)])
def test_the_timestamp_of_a_record_in_memory(offset: int, ms: int | None) -> None:
    """None for one that is older or has not come."""
    made = history([event(n) for n in range(10)], limit=7 * (OVERHEAD + len(event(0).frame) + 3))
    assert made.start == {0: 3}
    assert made.timestamp(0, offset) == ms
    assert made.timestamp(7, offset) is None


def locate_in(events: Sequence[Event], start: int) -> Callable[[int], int | None]:
    """Return a function from a time to the offset that the history gives."""
    made = history(events, start={0: start})

    def locate(ms: int) -> int | None:
        found = made.locate(ms)
        return None if found is None else found[0]

    return locate


def test_a_time_is_located_where_the_memory_goes_back_far_enough() -> None:
    """Records can be a minute out of order: only then is it known that no older one is at or after the time."""
    locate = locate_in([event(n) for n in range(100, 300)], start=100)
    assert locate(200_000) == 200
    assert locate(199_001) == 200
    assert locate(161_000) == 161
    assert locate(160_000) is None
    assert locate(50_000) is None
    assert locate(10**9) == 300
    assert locate_in([event(n) for n in range(10)], start=0)(-5) == 0


@given(
    st.integers(2000, 20_000),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3000), st.integers(0, 3500)), max_size=40),
)
def test_a_time_is_located_as_if_nothing_were_remembered(limit: int, steps: list[tuple[int, int, int]]) -> None:
    """Whatever has come, and was dropped, since the same second was asked for: no event at or after it is left out."""
    made, next_ = history([], limit, {0: 0, 1: 0}), {0: 0, 1: 0}
    every: list[Event] = []
    for partition, ms, asked in steps:
        every.append(event(next_[partition], "AB"[partition], partition, ms=ms))
        next_[partition] += 1
        made.add(every[-1])
        found = made.locate(asked)
        exact = {
            p: min([e.offset for e in every if e.partition == p and e.ms >= asked], default=next_[p]) for p in (0, 1)
        }
        assert found in (None, exact)
        assert found is not None or made.start != {0: 0, 1: 0}


@pytest.mark.parametrize("partitions", [1, 2])
def test_many_times_of_one_second_cost_one_way_back(partitions: int) -> None:
    """Clients that were held together do not each look through a minute of events."""

    class Walked(deque[Event]):
        walks = 0

        def __reversed__(self) -> Iterator[Event]:
            self.walks += 1
            return super().__reversed__()

    made = history([event(n) for n in range(100, 300)], start=dict.fromkeys(range(partitions), 100))
    made._whole.update(range(partitions))
    made._all = walked = Walked(made._all)
    for ms in range(250_000, 251_000):
        assert (made.locate(ms) or {})[0] == (250 if ms == 250_000 else 251)
        made.add(event(300 + ms - 250_000))
    assert walked.walks == 1


def test_a_time_is_located_among_records_out_of_order() -> None:
    """The first record at or after the time counts, and what follows it is sent whatever its time."""
    times = [5, 9, 7, 3, 8]
    assert locate_in([event(n, ms=ms) for n, ms in enumerate(times)], start=0)(6) == 1
