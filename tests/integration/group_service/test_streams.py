"""The HTTP side on real sockets, with a source that the test drives."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from group_service.app import ARCHIVE, HUB, make_app
from group_service.archive import Portion, Request, SourceError, TopicMissing
from group_service.events import Event, Reason
from group_service.hub import Hub
from group_service.ids import Position
from group_service.resume import Resumption
from group_service.settings import Settings
from openfactory_common.service_settings import load
from tests.harness.coroutines import until

MS = 1_764_370_800_000


def event(number: int) -> Event:
    """Return the event of an offset, which has a second of its own."""
    return Event("Weld", b"A", b"v%d" % number, 0, number, MS + number * 1000)


class Shelf:
    """An archive with the group's records from ``low`` on, which gives ten at once; no other group has a topic."""

    def __init__(self, hub: Hub) -> None:
        """Start with nothing."""
        self.hub, self.records, self.low, self.fails, self.hidden = hub, list[Event](), 0, 0, 0
        self.opened = asyncio.Event()
        self.opened.set()

    async def read(self, request: Request) -> Portion:
        """Return the next ten records."""
        await self.opened.wait()
        await self._answer(request.slug)
        start, until = max(request.position[0], self.low), self.hub.history.start[0]
        end = min(start + 10, until)
        reason = Reason.EXPIRED if start > request.position[0] else None
        chosen = [one for one in self.records[start:end] if request.asset in (None, one.asset)]
        return Portion({0: start}, reason, chosen, {0: end}, end - start, done=end == until)

    async def locate(self, slug: str, ms: int) -> Position:
        """Return the first record at or after a time."""
        await self._answer(slug)
        if self.hidden:
            self.hidden -= 1
            raise TopicMissing("it is made again")
        return {0: next((one.offset for one in self.records if one.ms >= ms), len(self.records))}

    async def probe(self, slug: str, partition: int, offset: int) -> tuple[int | None, int]:
        """Return what is known of a record."""
        await self._answer(slug if partition == 0 else "")
        known = self.low <= offset < len(self.records)
        return (self.records[offset].ms if known else None), len(self.records)

    async def _answer(self, slug: str) -> None:
        await asyncio.sleep(0)
        if slug != "Weld":
            raise TopicMissing("no such topic")
        if self.fails:
            self.fails -= 1
            raise SourceError("Kafka is away")


class Served:
    """A service on a socket."""

    def __init__(self, app: web.Application, url: str, session: aiohttp.ClientSession) -> None:
        """Drive ``app``."""
        self.app, self.hub, self.url, self.session = app, app[HUB], url, session
        self.shelf: Any = app[ARCHIVE]

    def add(self, count: int, *, in_memory: bool = True) -> None:
        """Add the next records; what is not in memory is on the shelf alone."""
        first = len(self.shelf.records)
        new = [event(number) for number in range(first, first + count)]
        self.shelf.records += new
        self.hub.publish(new, {0: first + count})
        if not in_memory:
            self.hub.history.reset({0: first + count}, ())

    def get(self, path: str, last_id: str = "") -> Any:
        """Ask for something."""
        return self.session.get(self.url + path, headers={"Last-Event-ID": last_id} if last_id else {})


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[Served]:
    """Serve for the block."""

    async def read(app: web.Application) -> AsyncIterator[None]:
        app[ARCHIVE] = Shelf(app[HUB])
        app[HUB].restart({0: 0}, {0}, None)
        yield

    needed = {"group_name": "Weld & Co", "kafka_topic": "asset_stream_Weld", "kafka_broker": "none:1"}
    app = make_app(load(Settings, _env_file=None, **{**needed, **settings}), read)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Served(app, f"http://127.0.0.1:{runner.addresses[0][1]}", session)
    finally:
        await runner.cleanup()


async def read_until(response: aiohttp.ClientResponse, end: bytes) -> bytes:
    """Return what comes until ``end`` is in it."""
    data = b""
    while end not in data:
        piece = await response.content.readany()
        assert piece, data
        data += piece
    return data


def frames(*numbers: int) -> bytes:
    """Return the frames of events."""
    return b"".join(event(number).frame for number in numbers)


async def test_the_head_and_the_first_bytes() -> None:
    """The head names the group; a comment comes at once; then the position from which the client can resume."""
    async with served() as one:
        one.add(3)
        one.hub.set_filled()
        async with one.get("/asset_stream?asset_uuid=A") as response:
            assert response.headers["X-OpenFactory-Group"] == "Weld%20%26%20Co"
            assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            assert response.headers["Cache-Control"] == "no-store"
            data = await read_until(response, b"live\nid: Weld/0/2@%d," % (MS + 2000))
            assert re.fullmatch(rb": ping\n\n: live\nid: Weld/0/2@%d,\d{13}\n\n" % (MS + 2000), data)
            one.add(1)
            assert await response.content.readany() == frames(3)


async def test_a_client_that_comes_before_the_service_is_ready_gets_what_happens_since_then() -> None:
    """It gets a comment at once, and waits for the history."""
    async with served() as one, one.get("/asset_stream?asset_uuid=A") as response:
        assert await response.content.readany() == b": ping\n\n"
        one.add(3)
        late = Event("Weld", b"A", b"late", 0, 3, int(time.time() * 1000) + 1000)
        one.hub.publish([late], {0: 4})
        one.hub.set_filled()
        assert (await read_until(response, b": live")).startswith(late.frame)


@pytest.mark.parametrize("in_memory", [True, False])
async def test_resume_is_exact(in_memory: bool) -> None:
    """After each event, from memory and from the archive, everything after it comes once, then what is new."""
    async with served() as one:
        one.hub.set_filled()
        one.add(25, in_memory=in_memory)
        for last in (-1, 0, 3, 23, 24):
            given = f"Weld/0/{last}@{MS + last * 1000}"
            async with one.get("/asset_stream?asset_uuid=A", given) as response:
                data = await read_until(response, b": live")
                assert data.partition(b": live")[0] == b": ping\n\n" + frames(*range(last + 1, 25))
        async with one.get("/asset_stream?asset_uuid=A", "Weld/0/20") as response:
            await read_until(response, b": live")
            one.add(2)
            assert await read_until(response, b"v26") == frames(25, 26)


async def test_what_comes_while_the_archive_is_read_is_not_lost() -> None:
    """The hand-over to live events is exact however often the memory has moved on meanwhile."""
    async with served() as one:
        one.hub.set_filled()
        one.add(100, in_memory=False)
        one.shelf.fails = 1
        async with one.get("/asset_stream?asset_uuid=A", "Weld/0/4") as response:
            for _ in range(10):
                one.add(10, in_memory=False)
                await asyncio.sleep(0.01)
            one.add(3)
            data = await read_until(response, b": live")
            assert data.partition(b": live")[0] == b": ping\n\n" + frames(*range(5, 203))


async def test_clients_that_resume_from_the_archive_take_turns() -> None:
    """One that waits for its turn gets pings, can be ended cleanly, and delays none that is served from memory."""
    async with served(ping_seconds="1") as one:
        one.hub.set_filled()
        one.hub.replays = asyncio.Semaphore(1)
        one.add(5, in_memory=False)
        one.add(1)
        one.shelf.opened.clear()
        path = "/asset_stream?asset_uuid=A"
        first = await one.get(path, "Weld/0/1")
        await until(one.hub.replays.locked, "the first has its turn")
        second, left = await one.get(path, "Weld/0/2"), await one.get(path, "Weld/0/3")
        await read_until(second, b": ping\n\n: ping\n\n")
        left.close()
        async with one.get(path, "Weld/0/4") as response:
            assert (await read_until(response, b": live")).partition(b": live")[0] == b": ping\n\n" + frames(5)
        one.shelf.opened.set()
        assert frames(2, 3, 4, 5) in await read_until(first, b": live")
        assert frames(3, 4, 5) in await read_until(second, b": live")
        await until(lambda: not one.hub.replays.locked(), "the turns are given back")
        one.shelf.opened.clear()
        waiting = [await one.get(path, "Weld/0/1") for _ in range(2)]
        await until(one.hub.replays.locked, "one has its turn, the other waits")
        one.hub.close()
        one.shelf.opened.set()
        assert [(await response.content.read())[:9] for response in waiting] == [b": ping\n\n"] * 2


async def test_a_client_that_does_not_read_loses_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cut, for others wait."""
    monkeypatch.setattr("group_service.resume._WRITE_SECONDS", 0.2)
    async with served() as one:
        one.hub.set_filled()
        one.hub.replays = asyncio.Semaphore(1)
        one.shelf.records = [Event("Weld", b"A", b"x" * 4_000_000, 0, n, MS + n) for n in range(10)]
        one.hub.history.reset({0: 10}, ())
        async with one.get("/asset_stream?asset_uuid=A", "Weld/0/-1"):
            cut = one.hub.metrics.registry.get_sample_value
            await until(lambda: cut("group_service_clients_cut_total") == 1, "it is cut")
            await until(lambda: not one.hub.replays.locked(), "its turn is given back")


@pytest.mark.parametrize("item", [None, "x"])
async def test_what_a_client_got_is_remembered_to_a_limit(monkeypatch: pytest.MonkeyPatch, item: str | None) -> None:
    """A long replay does not fill the memory, and what the client does not want takes none."""
    monkeypatch.setattr("group_service.resume._REMEMBERED", 20)
    sizes = []
    has = Resumption._has

    def measured(self: Resumption, asked: Event) -> bool:
        sizes.append(len(self._sent) + len(self._sent_before))
        return has(self, asked)

    monkeypatch.setattr(Resumption, "_has", measured)
    async with served() as one:
        one.hub.set_filled()
        one.add(200, in_memory=False)
        async with one.get("/asset_stream?asset_uuid=A" + (f"&id={item}" if item else ""), "Weld/0/-1") as response:
            await read_until(response, b": live")
    assert (len(sizes) >= 200 and max(sizes) == 40) if item is None else not sizes


async def test_the_own_topic_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is missing, a client that resumes waits; what it has is learned afterwards, and not sent again."""
    monkeypatch.setattr("group_service.resume._RETRY_SECONDS", 0.01)
    async with served() as one:
        one.hub.set_filled()
        one.add(5, in_memory=False)
        one.shelf.records.append(Event("Weld", b"A", b"v3", 0, 5, MS + 3000))  # once more
        one.hub.history.reset({0: 6}, ())
        one.shelf.hidden = 2
        async with one.get("/asset_stream?asset_uuid=A", f"Weld/0/4@{MS + 4000}") as response:
            assert (await read_until(response, b": live")).partition(b": live")[0] == b": ping\n\n"
        assert one.shelf.hidden == 0


@pytest.mark.parametrize(
    ("last_id", "query", "gap", "numbers"),
    [
        ("nonsense", "", '{"from":"nonsense","to":"Weld/0/29","reason":"unknown"}', ()),
        ("", "&since=yesterday", '{"from":"yesterday","to":"Weld/0/29","reason":"unknown"}', ()),
        ("Weld/0/3", "", '{"from":"Weld/0/3","to":"Weld/0/9","reason":"expired"}', range(10, 30)),
        ("Weld/0/40", "", '{"from":"Weld/0/40","to":"Weld/0/19","reason":"recreated"}', range(20, 30)),
        ("Weld/0/25@5", "", '{"from":"Weld/0/25@5","to":"Weld/0/9","reason":"recreated"}', range(10, 30)),
        (f"Gone/0/3@{MS + 22_000}", "",
         f'{{"from":"Gone/0/3@{MS + 22_000}","to":"Weld/0/21","reason":"deleted"}}', range(22, 30)),
        ("Weld/7/1", "", '{"from":"Weld/7/1","to":"Weld/0/19","reason":"recreated"}', range(20, 30)),
    ],
)  # fmt: skip
async def test_what_cannot_be_given_is_told(last_id: str, query: str, gap: str, numbers: Any) -> None:
    """From, to and reason; the gap's id is where the client continues; then everything that there is."""
    async with served() as one:
        one.hub.set_filled()
        one.add(20, in_memory=False)
        one.add(10)
        one.shelf.low = 10
        one.shelf.records[:10] = [Event("Weld", b"A", b"gone", 0, n, 0) for n in range(10)]
        async with one.get(f"/asset_stream?asset_uuid=A{query}", last_id) as response:
            data = await read_until(response, b": live")
        told = f"id: {json.loads(gap)['to']}\nevent: gap\ndata: {gap}\n\n".encode()
        assert data.partition(b": live")[0] == b": ping\n\n" + told + frames(*numbers)


async def test_a_ping_comes_after_silence() -> None:
    """With the present position: another asset's events have moved it."""
    async with served(ping_seconds="1") as one:
        one.hub.set_filled()
        async with one.get("/asset_stream?asset_uuid=B") as response:
            await read_until(response, b": live")
            one.add(4)
            ping = await read_until(response, b"\n\n")
            assert re.fullmatch(rb": ping\nid: Weld/0/3@%d,\d{13}\n\n" % (MS + 3000), ping)


async def test_pings_outlast_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ping that fails is not the last one."""
    async with served(ping_seconds="1") as one:
        failures = iter([ValueError("a bug")])
        tick = one.hub.tick

        def fail_once() -> None:
            for failure in failures:
                raise failure
            tick()

        monkeypatch.setattr(one.hub, "tick", fail_once)
        one.hub.set_filled()
        async with one.get("/asset_stream?asset_uuid=B") as response:
            await read_until(response, b": live")
            await read_until(response, b": ping\n")


async def test_all_streams_end_cleanly_with_the_service() -> None:
    """Live ones, and those that still wait for the archive; a broken end would look like an error."""
    async with served() as one:
        one.hub.set_filled()
        one.add(5, in_memory=False)
        one.shelf.fails = 10**6
        live, waiting = (
            await one.get("/asset_stream?asset_uuid=A"),
            await one.get("/asset_stream?asset_uuid=A", "Weld/0/1"),
        )
        await read_until(live, b": live")
        one.hub.close()
        assert await live.content.read() == b""
        assert await waiting.content.read() == b": ping\n\n"


async def test_a_client_that_leaves_is_forgotten() -> None:
    """At once, not at the next event."""
    async with served() as one:
        one.hub.set_filled()
        response = await one.get("/asset_stream?asset_uuid=A")
        await read_until(response, b": live")
        response.close()
        clients = one.hub.metrics.registry.get_sample_value
        await until(lambda: clients("group_service_clients") == 0, "the client is forgotten")


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/asset_stream?asset_uuid=", 422, '"loc": ["query", "asset_uuid"]'),
        ("/healthz", 200, '{"status": "alive"}'),
        ("/ready", 503, '{"status": "not ready", "group": "Weld & Co", "issues": ["the history is being read"]}'),
        ("/metrics", 200, 'group_service_gaps_total{reason="expired"} 0.0'),
        ("/nothing", 404, ""),
    ],
)
async def test_other_answers(path: str, status: int, text: str) -> None:
    """The old shape of 422, readiness with its issues, metrics from the start."""
    async with served() as one, one.get(path) as response:
        assert (response.status, text in await response.text()) == (status, True)


async def test_ready_names_the_group() -> None:
    """200 when the history is read and nothing is wrong."""
    async with served() as one:
        one.hub.set_filled()
        async with one.get("/ready") as response:
            assert (response.status, await response.json()) == (200, {"status": "ready", "group": "Weld & Co"})


async def test_a_stream_needs_http_1_1() -> None:
    """A response without an end cannot be framed for an older client."""
    async with served() as one:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(one.url.rpartition(":")[2]))
        writer.write(b"GET /asset_stream?asset_uuid=A HTTP/1.0\r\n\r\n")
        assert (await reader.readline()).split()[1] == b"505"
        writer.close()
