"""Events reach exactly those clients that asked for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from group_service.events import Event, Reason, chunk
from group_service.hub import Client, Hub
from group_service.metrics import Metrics


class Wire(asyncio.Transport):
    """A transport that keeps what is written, of which ``waiting`` bytes have not left."""

    def __init__(self) -> None:
        """Start empty."""
        super().__init__()
        self.written: list[bytes] = []
        self.waiting = 0
        self.aborted = self.closing = self.broken = False

    def is_closing(self) -> bool:
        """Whether the connection is lost."""
        return self.closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it; fail as a closed transport of uvloop does."""
        if self.closing or self.broken:
            raise RuntimeError("unable to perform operation; the handler is closed")
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        """Return what waits."""
        return self.waiting

    def abort(self) -> None:
        """Note it."""
        self.aborted = True


def make_hub(partitions: int = 1) -> Hub:
    """Return a hub that is ready."""
    hub = Hub("Weld", 10**6, 3, Metrics())
    hub.restart(dict.fromkeys(range(partitions), 0), range(partitions), None)
    hub.set_filled()
    return hub


def connect(hub: Hub, asset: str | None, item: str | None = None) -> tuple[Client, Wire]:
    """Return a client that is live."""
    wire = Wire()
    client = Client(wire, asset, item, 1000)
    hub.attach(client)
    hub.go_live(client)
    return client, wire


def events(*offsets: int, asset: str = "A", partition: int = 0, first_ms: int = 1000) -> list[Event]:
    """Return events; the data item's id is ``x`` or ``y``."""
    return [
        Event(
            "Weld",
            asset.encode(),
            b'{"id":"%b","p":%d}' % (b"xy"[n % 2 : n % 2 + 1], partition),
            partition,
            n,
            first_ms + n,
        )
        for n in offsets
    ]


def publish(hub: Hub, some: Iterable[Event]) -> None:
    """Publish events one after the other in one batch."""
    listed = list(some)
    hub.publish(listed, {one.partition: one.offset + 1 for one in listed})


async def test_a_batch_is_one_write_for_each_client_of_its_asset() -> None:
    """One chunk with all events of the asset; clients of others get nothing; data items are filtered."""
    hub = make_hub()
    (_, a), (_, b), (_, x), (_, everything) = (
        connect(hub, "A"), connect(hub, "B"), connect(hub, "A", "x"), connect(hub, None)
    )  # fmt: skip
    first, second = events(0, 1), events(2, asset="C")
    publish(hub, first + second)
    assert a.written == [chunk(first[0].frame + first[1].frame)]
    assert b.written == []
    assert x.written == [chunk(first[0].frame)]
    assert everything.written == [chunk(first[0].frame + first[1].frame + second[0].frame)]
    assert hub.metrics.registry.get_sample_value("group_service_deliveries_total") == 6


async def test_ids_of_a_whole_group_have_every_partition() -> None:
    """With several partitions, the id of a record of one does not tell what was sent of the others."""
    hub = make_hub(partitions=2)
    (_, asset), (_, everything) = connect(hub, "A"), connect(hub, None)
    publish(hub, events(0, 1) + events(0, partition=1))
    publish(hub, events(1, partition=1))
    ids = [line for data in everything.written for line in data.split(b"\n") if line.startswith(b"id: ")]
    assert ids == [
        b"id: Weld/0:0,1:-1@1000",
        b"id: Weld/0:1,1:-1@1001",
        b"id: Weld/0:1,1:0@1000",
        b"id: Weld/0:1,1:1@1001",
    ]
    assert b"id: Weld/1/1@1001\n" in asset.written[1]


async def test_a_slow_client_is_cut_and_an_event_larger_than_the_buffer_passes() -> None:
    """What counts is what waits before the write."""
    hub = make_hub()
    (_, slow), (_, quick) = connect(hub, "A"), connect(hub, "A")
    large = [Event("Weld", b"A", b"x" * 5000, 0, 0, 1)]
    publish(hub, large)
    assert slow.written == quick.written == [chunk(large[0].frame)]
    slow.waiting = 1001
    publish(hub, events(1))
    publish(hub, events(2))
    assert (slow.aborted, len(slow.written), len(quick.written)) == (True, 1, 3)
    assert hub.metrics.registry.get_sample_value("group_service_clients_cut_total") == 1


async def test_a_connection_that_is_lost_costs_the_others_nothing() -> None:
    """Neither one that is known to be lost nor one whose write fails ends a batch or the pings; it was not slow."""
    hub = make_hub()
    wires = [connect(hub, "A")[1] for _ in range(9)]
    wires[0].closing, wires[1].broken = True, True
    publish(hub, events(0))
    assert [len(wire.written) for wire in wires] == [0, 0] + [1] * 7
    wires[2].closing, wires[3].broken = True, True
    for _ in range(3):
        hub.tick()
    assert [len(wire.written) for wire in wires[4:]] == [2] * 5
    assert hub.metrics.registry.get_sample_value("group_service_clients") == 5
    assert hub.metrics.registry.get_sample_value("group_service_clients_cut_total") == 0


async def test_a_silent_client_gets_a_ping_with_the_present_position() -> None:
    """After the seconds of silence, and then again; one that is not live yet gets no position."""
    hub = make_hub()
    client, live = connect(hub, "A")
    client.since = 500
    waiting = Wire()
    hub.attach(Client(waiting, "A", None, 1000))
    publish(hub, events(0, asset="B"))
    for _ in range(7):
        hub.tick()
    assert live.written == [chunk(b": ping\nid: Weld/0/0@1000,500\n\n")] * 2
    assert waiting.written == [chunk(b": ping\n\n")] * 2
    publish(hub, events(1))
    hub.tick()
    hub.tick()
    assert len(live.written) == 3
    hub.tick()
    assert live.written[3] == chunk(b": ping\nid: Weld/0/1@1001\n\n")


async def test_a_client_that_left_gets_nothing_more() -> None:
    """Neither events nor pings."""
    hub = make_hub()
    client, wire = connect(hub, "A")
    hub.detach(client)
    hub.go_live(client)
    publish(hub, events(0))
    for _ in range(5):
        hub.tick()
    assert wire.written == []


async def test_a_topic_that_was_made_again_is_told_and_old_events_are_not_sent_again() -> None:
    """A refilled topic has events that the clients have: only newer ones are live; all are in the history."""
    hub = make_hub()
    _, wire = connect(hub, "A")
    publish(hub, events(0, 1))
    hub.restart({0: 0}, {0}, Reason.RECREATED)
    data = b'{"from":"Weld/0/1@1001","to":"Weld/0/-1","reason":"recreated"}'
    assert wire.written[1] == chunk(b"id: Weld/0/-1\nevent: gap\ndata: " + data + b"\n\n")
    again = events(0, 1, 2)
    publish(hub, again)
    assert wire.written[2:] == [chunk(again[2].frame)]
    assert hub.history.take({0: 0}, "A")[0] == again


async def test_a_topic_that_is_filled_again_is_compared_by_asset() -> None:
    """A late clock neither silences its asset nor lets the events of others through a second time."""
    hub = make_hub()
    (_, a), (_, late) = connect(hub, "A"), connect(hub, "B")
    had = events(0, 1, first_ms=5000) + events(2, 3, asset="B")
    publish(hub, had)
    for again in (1, 2):  # the topic is made again while it is filled
        hub.restart({0: 0}, {0}, Reason.RECREATED)
        a.written.clear()
        late.written.clear()
        publish(hub, events(0, 1, first_ms=4000) + events(2, asset="B", first_ms=900))  # expired in memory
        publish(hub, had[:3])
        assert (a.written, late.written, again) == ([], [], again)
    new = events(4, asset="A", first_ms=6000) + events(5, asset="B")
    publish(hub, new)
    assert (a.written, late.written) == ([chunk(new[0].frame)], [chunk(new[1].frame)])
    publish(hub, events(6, first_ms=3000))
    assert len(a.written) == 2, "an asset that has been filled again has a clock of its own"
    assert hub.metrics.registry.get_sample_value("group_service_repeated_total") == 12


async def test_a_new_topic_is_not_compared_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """An asset of which nothing newer comes is live again some time after its topic was made."""
    monkeypatch.setattr("group_service.history._REFILL_SECONDS", -1)
    hub = make_hub()
    _, wire = connect(hub, "A")
    publish(hub, events(0))
    hub.restart({0: 0}, {0}, Reason.RECREATED)
    publish(hub, events(0, first_ms=1))
    assert len(wire.written) == 3


async def test_a_time_in_the_future_does_not_silence_a_new_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event with a wrong clock is not what later events are compared with."""
    monkeypatch.setattr("group_service.history.time.time", lambda: 5.0)
    hub = make_hub()
    _, wire = connect(hub, "A")
    publish(hub, events(0, first_ms=10**13))
    hub.restart({0: 0}, {0}, Reason.RECREATED)
    publish(hub, events(0, first_ms=5001))
    assert len(wire.written) == 3


async def test_all_streams_end_when_the_service_closes() -> None:
    """Those that come afterwards, too."""
    hub = make_hub()
    before, _ = connect(hub, "A")
    hub.close()
    after, _ = connect(hub, "A")
    assert before.ended.done()
    assert after.ended.done()


async def test_issues_are_named_by_subject() -> None:
    """A subject has one issue; it goes when the subject is healthy again."""
    hub = Hub("Weld", 10**6, 3, Metrics())
    assert [*hub.issues.values()] == ["the history is being read"]
    hub.set_issue("kafka", "Kafka does not answer")
    hub.set_filled()
    assert [*hub.issues.values()] == ["Kafka does not answer"]
    hub.set_issue("kafka", "")
    assert not hub.issues
