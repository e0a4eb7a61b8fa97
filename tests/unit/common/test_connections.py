"""Which connections stay, which end, and which are let in: the guard's decisions, without a socket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openfactory_common.connections import (
    REST_SECONDS,
    ConnectionGuard,
    ConnectionLimits,
    Ending,
    Entry,
    State,
    address_key,
)

A, B = "192.0.2.1", "192.0.2.2"


@dataclass(eq=False)
class Client:
    """A connection that remembers how it was ended."""

    ended: Ending | None = None
    left: bool = False

    def end(self, why: Ending) -> None:
        """Be ended once."""
        assert self.ended is None
        self.ended = why

    def gone(self) -> bool:
        """Whether the client has left."""
        return self.left


@dataclass
class House:
    """A guard with a clock that stands until it is moved."""

    limits: ConnectionLimits
    now: float = 100.0
    told: list[Ending] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start the guard."""
        self.guard = ConnectionGuard(self.limits, self.told.append, lambda: self.now)

    def enter(self, address: str = A) -> tuple[Client, Entry | None]:
        """Let a client in."""
        client = Client()
        return client, self.guard.open(client, address)

    def many(self, count: int, address: str = A, state: State = State.SILENT) -> list[tuple[Client, Entry]]:
        """Let clients in, which must fit."""
        made = []
        for _ in range(count):
            client, entry = self.enter(address)
            assert entry is not None
            assert not entry.excess
            if state is not State.SILENT:
                self.guard.busy(entry)
            if state is State.IDLE:
                self.guard.idle(entry)
            made.append((client, entry))
        return made

    def later(self, seconds: float) -> None:
        """Move the clock and let the guard look."""
        self.now += seconds
        self.guard.expire()


Steps = Callable[[House, Entry], None]


def _ask(house: House, entry: Entry) -> None:
    house.guard.busy(entry)
    house.guard.idle(entry)


def _half_again(house: House, entry: Entry) -> None:
    _ask(house, entry)
    house.later(60)
    house.guard.reading(entry)


def _drip(house: House, entry: Entry) -> None:
    for _ in range(10):
        house.guard.reading(entry)
        house.later(0.99)
    house.guard.reading(entry)


def _stall(house: House, entry: Entry, *, again: bool = False) -> None:
    house.guard.busy(entry)
    house.guard.write_paused(entry)
    if again:
        house.later(40)
        house.guard.write_resumed(entry)


def _half_close(house: House, entry: Entry, *, left: bool) -> None:
    house.guard.busy(entry)
    house.guard.half_closed(entry)
    assert isinstance(entry.connection, Client)
    entry.connection.left = left


_TIMES: dict[str, tuple[Steps, float, Ending | None]] = {
    "silent, in time": (lambda *_: None, 9.9, None),
    "silent, late": (lambda *_: None, 10.1, Ending.HEAD),
    "half a head, in time": (lambda house, entry: house.guard.reading(entry), 9.9, None),
    "half a head, late": (lambda house, entry: house.guard.reading(entry), 10.1, Ending.HEAD),
    "a request that takes long": (lambda house, entry: house.guard.busy(entry), 10_000, None),
    "idle, in time": (_ask, 74.9, None),
    "idle, late": (_ask, 75.1, Ending.IDLE),
    "half of a second head, late": (_half_again, 10.1, Ending.HEAD),
    "drips": (_drip, 0.2, Ending.HEAD),
    "takes nothing, in time": (_stall, 44.9, None),
    "takes nothing, late": (_stall, 45.1, Ending.STALLED),
    "takes something": (lambda house, entry: _stall(house, entry, again=True), 10_000, None),
    "half closed and still there": (lambda house, entry: _half_close(house, entry, left=False), 10_000, None),
    "half closed and gone": (lambda house, entry: _half_close(house, entry, left=True), 0, Ending.STALLED),
}


@pytest.mark.parametrize("case", _TIMES)
def test_each_state_has_its_time(case: str) -> None:
    """A connection ends when the time of what it does is over, and not before."""
    steps, seconds, ending = _TIMES[case]
    house = House(ConnectionLimits(10, head=10, idle=75, stall=45))
    client, entry = house.enter()
    assert entry is not None
    steps(house, entry)
    house.later(seconds)
    assert client.ended is ending
    assert house.told == ([] if ending is None else [ending])
    assert house.guard.connections == (1 if ending is None else 0)


@pytest.mark.parametrize("state", [State.SILENT, State.IDLE])
def test_the_longest_resting_makes_room(state: State) -> None:
    """Full of silent or idle connections: each new client is let in and the oldest one goes."""
    house = House(ConnectionLimits(10, per_address=10))
    resting = [*house.many(5, A, state), *house.many(5, B, state)]
    house.now += 2 * REST_SECONDS
    for number in range(4):
        _, entry = house.enter(B)
        assert entry is not None
        assert not entry.excess
        assert [client.ended for client, _ in resting] == [Ending.ROOM] * (number + 1) + [None] * (9 - number)


@pytest.mark.parametrize("state", [State.SILENT, State.HEAD, State.BUSY, State.IDLE])
def test_nothing_makes_room_that_is_in_use(state: State) -> None:
    """A request in progress, a head on its way, and what has rested for a moment only stay; the new one is excess."""
    house = House(ConnectionLimits(10, excess=2))
    settled = [*house.many(5, A), *house.many(5, B)]
    for _, entry in settled:
        {"head": house.guard.reading, "busy": house.guard.busy, "idle": lambda e: _ask(house, e)}.get(
            state.value, lambda _: None
        )(entry)
    house.now += REST_SECONDS / 2 if state in (State.SILENT, State.IDLE) else 1.9
    first, second, third = house.enter(), house.enter(), house.enter()
    assert [entry is not None and entry.excess for _, entry in (first, second)] == [True, True]
    assert third[1] is None, "there is not even room to read it"
    assert all(client.ended is None for client, _ in settled)


def test_half_heads_of_many_addresses_do_not_keep_others_out() -> None:
    """Where nothing rests, the oldest head that takes longer than 2 s makes room; a stream never does."""
    house = House(ConnectionLimits(10, excess=2))
    streams = house.many(2, A, State.BUSY)
    heads = [made for number in range(8) for made in house.many(1, f"192.0.2.{10 + number}")]
    for _, entry in heads:
        house.guard.reading(entry)
    house.now += 2.1
    for number in range(1, 9):
        _, entry = house.enter(B)
        assert entry is not None
        house.guard.busy(entry)
        assert not entry.excess
        assert [client.ended for client, _ in heads] == [Ending.ROOM] * number + [None] * (8 - number)
    assert [client.ended for client, _ in streams] == [None, None]


def test_an_excess_connection_has_little_time_and_takes_no_room() -> None:
    """It ends after 2 s without a head, and a place that gets free meanwhile makes it one of the others."""
    house = House(ConnectionLimits(4, excess=2, cost=0))
    [*_, (_, last)] = house.many(2, A, State.BUSY) + house.many(2, B, State.BUSY)
    (slow, _), (_, quick) = house.enter(), house.enter()
    assert quick is not None
    house.guard.busy(quick)
    assert not house.guard.has_room(quick)
    house.later(2.1)
    assert slow.ended is Ending.HEAD
    house.guard.close(last)
    assert house.guard.has_room(quick)
    assert house.guard.connections == 4
    assert not quick.excess


def test_a_request_that_needs_a_descriptor_more_is_counted_twice() -> None:
    """Connections that rest leave for it; where none rests there is no room."""
    house = House(ConnectionLimits(10, cost=1))
    resting = [*house.many(4, A, State.IDLE), *house.many(4, B, State.IDLE)]
    house.now += 1
    served = []
    for _, entry in reversed(resting):
        if not entry.closed:
            house.guard.busy(entry)
            served.append(house.guard.has_room(entry))
    assert served == [True] * 5
    assert house.guard.connections == 5


def test_an_address_leaves_room_for_others() -> None:
    """Nine tenths for one address at most, and exactly the setting's number if there is one."""
    house = House(ConnectionLimits(100, excess=100))
    house.many(90, A, State.BUSY)
    _, more = house.enter(A)
    assert more is not None
    assert more.excess
    house.many(10, B, State.BUSY)
    few = House(ConnectionLimits(100, excess=100, per_address=3))
    few.many(3, A, State.BUSY)
    _, fourth = few.enter(A)
    assert fourth is not None
    assert fourth.excess
    few.many(3, B, State.BUSY)


def test_an_address_that_has_enough_gives_up_its_own_idle_connections() -> None:
    """Not those of others."""
    house = House(ConnectionLimits(100, per_address=3))
    others, own = house.many(3, B, State.IDLE), house.many(3, A, State.IDLE)
    house.now += 1
    house.many(3, A)
    assert [client.ended for client, _ in own] == [Ending.ROOM] * 3
    assert [client.ended for client, _ in others] == [None] * 3


_ACTIONS = st.tuples(
    st.sampled_from(["enter", "reading", "busy", "idle", "close", "room", "pause", "resume", "half", "later"]),
    st.integers(0, 30),
)


@settings(max_examples=300)
@given(st.lists(_ACTIONS, max_size=80), st.integers(1, 12), st.integers(0, 1), st.integers(0, 4))
def test_any_history_keeps_the_counts(actions: list[tuple[str, int]], capacity: int, cost: int, each: int) -> None:
    """Whatever happens in whatever order: what is counted is what is there, and it ends at nothing."""
    house = House(ConnectionLimits(capacity, excess=3, per_address=each, cost=cost))
    guard, entries = house.guard, list[Entry]()
    calls = {
        "reading": guard.reading,
        "busy": guard.busy,
        "idle": guard.idle,
        "close": guard.close,
        "room": guard.has_room,
        "pause": guard.write_paused,
        "resume": guard.write_resumed,
        "half": guard.half_closed,
    }
    for action, number in actions:
        if action == "enter":
            _, entry = house.enter(f"192.0.2.{number % 3}")
            entries += [entry] if entry is not None else []
        elif action == "later":
            house.later(number)
        elif entries:
            calls[action](entries[number % len(entries)])
        counted = [entry for entry in entries if not entry.closed and not entry.excess]
        assert guard.connections == len(counted)
        assert guard._busy == sum(entry.state is State.BUSY for entry in counted)
        assert guard.connections <= capacity
    for entry in entries:
        guard.close(entry)
    assert guard.connections == guard._busy == guard._excess == 0
    assert not guard._addresses
    assert not guard._stalled
    assert not guard._half_closed
    assert not any((*guard._resting.values(), guard._excess_heads))


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("192.0.2.1", 5), "192.0.2.1"),
        (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1"),
        (("2001:db8:1:2:3::4", 5, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff::", 5, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        (None, ""),
        ("", ""),
    ],
)
def test_what_counts_as_one_address(peer: object, address: str) -> None:
    """One IPv4 address however it is written, one /64 network of IPv6: a client has as many addresses as it likes."""
    assert address_key(peer) == address
