"""One response of a service on its way to several clients: where each begins, and what becomes of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing_layer.client.connection import ClientConnection
from routing_layer.client.request import Head, Request
from routing_layer.metrics import EndReason
from routing_layer.upstream.connection import UpstreamConnection, parse_head
from routing_layer.upstream.streams import SHARED_BUFFER, ClientStream, Feed

_HEAD = parse_head(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked")


@dataclass(eq=False)
class _Wire:
    """A client's transport."""

    sent: bytes = b""
    pending: int = 0
    closed: bool = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return self.pending


@dataclass(eq=False)
class _Client:
    """A client's connection."""

    transport: _Wire = field(default_factory=_Wire)
    full: bool = False
    closing: bool = False
    ended: str = ""

    def take_over(self, _exchange: object) -> None:
        """Nothing here asks back."""

    def finish(self, *, keep_alive: bool) -> None:
        self.ended = f"finished {keep_alive}"

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended, self.transport.closed = "aborted", True


@dataclass(eq=False)
class _Source:
    """The service's connection."""

    first: tuple[bytes, ...] = ()
    reading: bool = True
    aborted: bool = False
    receive: Callable[[bytes], None] = lambda _: None

    def pass_body(self, _body: object, receive: Callable[[bytes], None], _finish: object) -> None:
        self.receive = receive
        for piece in self.first:
            receive(piece)
        self.reading = True

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.aborted = True


class _Plant:
    """A feed, its source and its clients."""

    def __init__(self, *, shared: bool = True, first: tuple[bytes, ...] = ()) -> None:
        self.source, self.ends = _Source(first), list[int]()
        self.feed = Feed(
            cast("UpstreamConnection", self.source), _HEAD, 45, lambda: self.ends.append(1), framed=False, shared=shared
        )
        self.clients: list[_Client] = []
        self.streams: list[ClientStream] = []

    def join(self, client: _Client | None = None) -> _Client:
        client = client or _Client()
        stream = ClientStream("A1", "Weld", 45)
        request = Request(cast("ClientConnection", client), Head("GET", "/x", (), http11=True, keep_alive=True))
        self.clients.append(client)
        self.streams.append(stream)
        stream.start(self.feed, request, framed=False, keep_alive=True)
        return client


def _run(work: Callable[[], Any]) -> Any:
    async def run() -> Any:
        return work()

    return asyncio.run(run())


_ENDS = ("\n", "\r\n", "\r")


@pytest.mark.parametrize("first", _ENDS)
@pytest.mark.parametrize("second", _ENDS)
@pytest.mark.parametrize("cut", range(1, 8))
def test_a_client_begins_behind_any_empty_line(first: str, second: str, cut: int) -> None:
    """CRLF, LF and CR, also mixed, and cut anywhere: it gets the next event whole, and no half of one."""

    def work() -> None:
        if first + second == "\r\n":  # together they are one line end
            return
        plant = _Plant()
        plant.join()
        plant.feed.start()
        plant.source.receive(b"data: o")
        late = plant.join()
        rest = f"ne{first}{second}".encode() + b"data: two\n\n"
        plant.source.receive(rest[:cut])
        plant.source.receive(rest[cut:])
        assert late.transport.sent.lstrip(b"\r\n") == b"data: two\n\n"

    _run(work)


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(0, 60))
def test_the_position_is_that_of_the_last_event_before(cuts: list[int], join: int) -> None:
    """However the lines are cut, a client is never told a later one, nor an older one."""

    def work() -> None:
        plant, whole = _Plant(), b"".join(b"id: %d\ndata: x\n\n" % number for number in range(5))
        plant.join()
        plant.feed.start()
        sent, late = 0, None
        for size in [*cuts, len(whole)]:
            if late is None and sent >= join:
                late = plant.join()
            plant.source.receive(whole[sent : sent + size]) if whole[sent : sent + size] else None
            sent += size
        if late is None:
            return
        told = late.transport.sent.split(b"\n\n")
        ids = [int(block.partition(b"id: ")[2].split(b"\n")[0]) for block in told if b"id: " in block]
        if told[0].startswith(b": joined"):
            assert ids == list(range(ids[0], 5))
        else:
            assert ids == list(range(5))[-len(ids) :] if ids else True

    _run(work)


def test_all_who_wait_for_the_next_event_get_it() -> None:
    """Also where the first one left in the meantime, and the first of those who wait is cut while it begins."""

    def work() -> None:
        plant = _Plant()
        leader = plant.join()
        plant.feed.start()
        plant.source.receive(b"data: o")
        stalled = plant.join(_Client(_Wire(pending=SHARED_BUFFER + 1), full=True))
        patient = plant.join()
        leader.transport.closed = True
        plant.streams[0].client_left()
        plant.source.receive(b"ne\n\ndata: two\n\n")
        assert stalled.ended == "aborted"
        assert plant.streams[1].end_reason is EndReason.CLIENT_STALLED
        assert not plant.source.aborted
        plant.source.receive(b"data: three\n\n")
        assert patient.transport.sent == b"data: two\n\ndata: three\n\n"

    _run(work)


def test_the_last_one_who_leaves_ends_the_service() -> None:
    """Once, whoever it was: one who follows, or one who waits."""

    def work() -> None:
        plant = _Plant()
        plant.join()
        plant.feed.start()
        plant.source.receive(b"data: o")
        plant.join()
        for stream in plant.streams:
            assert not plant.source.aborted
            stream.client_left()
        assert plant.source.aborted
        assert plant.ends == [1]

    _run(work)


@pytest.mark.parametrize("before", [True, False])
def test_a_client_that_does_not_read_slows_the_service_down(before: bool) -> None:
    """A single one: from the start, where it was full before, or by what came with the head."""

    def work() -> None:
        plant = _Plant(shared=False, first=(b"data: x\n\n",))
        client = plant.join(_Client(full=before))
        if not before:
            client.transport.write = lambda _: plant.streams[0].client_full()  # type: ignore[method-assign]
        plant.feed.start()
        assert not plant.source.reading
        plant.streams[0].client_ready()
        assert plant.source.reading

    _run(work)
