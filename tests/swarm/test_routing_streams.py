"""Two hundred streams through the deployed routing layer, while the system under them changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus

import aiohttp
import pytest

from demo.factory.plant import initial_placements
from tests.e2e import conftest as e2e
from tests.e2e.system import WORKCENTERS, System
from tests.swarm.sandbox import docker

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
images, system = e2e.images, e2e.system

_STREAMS = 200
_PATIENCE = 60.0
#: Within this time of ksqlDB showing that an asset has moved, its streams end.
_MOVED_WITHIN = 2.0
_MOVED, _FROM, _TO = "PAINT-BOOTH-01", "Paint", "Assembly"


class Viewer:
    """A client with one connection that it keeps as long as it can.

    Attributes:
        events: how many have come.
        connected: the stream has begun and has not ended.
    """

    def __init__(self, asset: str, group: str) -> None:
        """Choose the asset; ``group`` is where it is now."""
        self.asset, self.group = asset, group
        self.events = 0
        self.connected = False
        self.ended = False

    async def watch(self, session: aiohttp.ClientSession, url: str) -> None:
        """Connect once and read to the end."""
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(url) as response:
                self.connected = response.status == HTTPStatus.OK
                async for piece in response.content.iter_any():
                    self.events += piece.count(b"event: asset_update")
        self.connected, self.ended = False, True


class Audience:
    """All viewers of one routing layer."""

    def __init__(self, system: System, session: aiohttp.ClientSession) -> None:
        """Start without any."""
        self.system, self._session = system, session
        self._tasks: set[asyncio.Task[None]] = set()
        self.viewers: list[Viewer] = []

    def open(self, asset: str, group: str) -> Viewer:
        """Let one more come."""
        viewer = Viewer(asset, group)
        self.viewers.append(viewer)
        self._tasks.add(asyncio.create_task(viewer.watch(self._session, self.system.stream_url(asset))))
        return viewer

    async def leave(self) -> None:
        """Let all of them go."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def reopen(self, ended: Iterable[Viewer]) -> None:
        """Let those whose stream has ended come back, as browsers do, and see events."""
        for viewer in list(ended):
            self.viewers.remove(viewer)
            self.open(viewer.asset, viewer.group)
        await self.events_go_on()

    async def events_go_on(self) -> None:
        """Every viewer is connected and gets another event."""
        seen = {viewer: viewer.events for viewer in self.viewers}
        await until(lambda: all(viewer.ended or viewer.events > count for viewer, count in seen.items()), "events")
        assert [viewer.asset for viewer in self.viewers if not viewer.connected] == []

    async def status(self, path: str) -> int:
        """Return the status of an answer of the routing layer."""
        async with self._session.get(f"http://127.0.0.1:{self.system.routing}{path}") as response:
            return response.status

    async def group_in_ksqldb(self, asset: str) -> str:
        """Return the group that a query at ksqlDB itself shows now."""
        wanted = f"SELECT UNS_LEVELS['workcenter'] AS G FROM asset_to_uns_map WHERE ASSET_UUID = '{asset}';"
        url, accept = f"http://127.0.0.1:{self.system.ksqldb}/query", {"Accept": "application/vnd.ksql.v1+json"}
        async with self._session.post(url, json={"ksql": wanted}, headers=accept) as response:
            rows = [item["row"]["columns"][0] for item in await response.json(content_type=None) if "row" in item]
        return str(rows[0])


async def until(condition: Callable[[], bool], what: str, seconds: float = _PATIENCE) -> None:
    """Wait until it is so; fail if it does not come about."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - it is about other processes
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"it never came about: {what}") from None


async def _a_task_is_replaced(audience: Audience) -> None:
    """The streams of one group end with their task and come back to the next one; the others see nothing of it."""
    of_weld = [viewer for viewer in audience.viewers if viewer.group == "Weld"]
    service = audience.system.group("Weld")
    await asyncio.to_thread(docker, "service", "update", "--detach", "--force", service)
    await until(lambda: all(viewer.ended for viewer in of_weld), "the old task's streams end")
    assert {viewer.group for viewer in audience.viewers if viewer.ended} == {"Weld"}
    await audience.reopen(of_weld)


async def _an_asset_moves(audience: Audience) -> None:
    """Its streams end at once and land at the new group; no one else's do."""
    moved = [viewer for viewer in audience.viewers if viewer.asset == _MOVED]
    await asyncio.to_thread(audience.system.place, _MOVED, _TO)
    async with asyncio.timeout(_PATIENCE):
        while await audience.group_in_ksqldb(_MOVED) != _TO:  # noqa: ASYNC110 - it is another process's
            await asyncio.sleep(0.02)
    await until(lambda: all(viewer.ended for viewer in moved), "the moved asset's streams end", _MOVED_WITHIN)
    assert {viewer.asset for viewer in audience.viewers if viewer.ended} == {_MOVED}
    assert await audience.status(f"/group/{_FROM}/asset_stream?asset_uuid={_MOVED}") == HTTPStatus.NOT_FOUND
    await audience.reopen(moved)


async def _a_group_is_added(audience: Audience) -> None:
    """Its first client gets events without anybody's stream ending."""
    await asyncio.to_thread(audience.system.place, "LASER-01", "Laser")
    newcomer = audience.open("LASER-01", "Laser")
    async with asyncio.timeout(_PATIENCE):
        while not newcomer.connected:
            if newcomer.ended:  # a 503: its service takes longer than a request is held
                audience.viewers.remove(newcomer)
                newcomer = audience.open("LASER-01", "Laser")
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("change", [_a_task_is_replaced, _an_asset_moves, _a_group_is_added])
def test_no_unrelated_stream_is_lost(system: System, change: Callable[[Audience], Awaitable[None]]) -> None:
    """200 streams of three groups; a task is replaced, an asset is moved, a group is added."""
    placed = {one.asset: one.workcenter for one in initial_placements(WORKCENTERS, 4)}
    assets = [asset for asset in placed for _ in range(_STREAMS // len(placed) + 1)][:_STREAMS]

    async def scene() -> None:
        limits = aiohttp.ClientTimeout(total=None, sock_read=30)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=limits) as session:
            audience = Audience(system, session)
            try:
                for asset in assets:
                    audience.open(asset, placed[asset])
                await audience.events_go_on()
                await change(audience)
                await audience.events_go_on()
            finally:
                await audience.leave()

    asyncio.run(asyncio.wait_for(scene(), 2 * _PATIENCE))
