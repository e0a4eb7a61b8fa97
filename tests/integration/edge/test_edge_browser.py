"""A real browser before the edge: fifty streams over one connection of HTTP/2, and what they survive."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.harness.coroutines import until
from tests.integration.edge.edge_system import Edge, start_edge
from tests.integration.routing_layer.proxy_system import Connection, ProxySystem, start_system
from tests.integration.web.browser import Tab, tab

# The first run installs a browser.
pytestmark = pytest.mark.timeout(300)

_ASSETS = [f"B{number}" for number in range(50)]
_OPEN = """
window.seen = [];
window.errors = [];
window.sources = Object.fromEntries(%s.map((asset) => {
  const source = new EventSource(`/asset_stream?asset_uuid=${asset}`);
  source.onmessage = (event) => seen.push(`${asset} ${event.data}`);
  source.onerror = () => errors.push(`${asset} ${source.readyState}`);
  return [asset, source];
}));
0
"""


async def _open_sources(page: Tab, edge: Edge, assets: list[str]) -> None:
    """Open event sources on a page of the edge's own origin."""
    await page.show(f"{edge.url}/healthz")
    await page.ask(_OPEN % json.dumps(assets))


async def _states(page: Tab) -> set[int]:
    """Return which states the sources are in: 0 connecting, 1 open, 2 closed."""
    return set(await page.ask("Object.values(sources).map((source) => source.readyState)"))


def _asset(connection: Connection) -> str:
    return connection.target.partition("asset_uuid=")[2]


async def _map(system: ProxySystem, assets: list[str]) -> None:
    for asset in assets:
        await system.ksql.put(asset, "Weld")


async def _send_each(system: ProxySystem, text: str) -> None:
    for service in system.weld.open:
        await service.event(text)


async def test_fifty_streams_share_one_connection_and_survive_a_move(
    haproxy: str, chromium: str, tmp_path: Path
) -> None:
    """Each gets its event; the stream of an asset that moves comes back to the new group, the others do not notice."""
    async with (
        start_system() as system,
        start_edge(haproxy, tmp_path, routing_layer=system.proxy.port) as (edge, _),
        tab(chromium, tmp_path / "profile", edge.browser_option) as page,
    ):
        await _map(system, _ASSETS)
        await _open_sources(page, edge, _ASSETS)
        await until(lambda: len(system.weld.open) == 50, "fifty streams at a time reach the service")
        await _send_each(system, "from Weld")
        await page.until("seen.length === 50")
        assert set(await page.ask("seen")) == {f"{asset} from Weld" for asset in _ASSETS}

        await system.ksql.put("B7", "Paint")
        await until(lambda: bool(system.paint.open), "the browser comes back, to the other group's service")
        await system.paint.open[0].event("from Paint")
        await page.until("seen.length === 51")
        assert (await page.ask("seen"))[-1] == "B7 from Paint"
        assert await page.ask("errors") == ["B7 0"]
        assert [_asset(each) for each in system.paint.open] == ["B7"]
        assert len(system.weld.open) == 49

        await page.ask("Object.values(sources).forEach((source) => source.close())")
        await until(lambda: not system.weld.open and not system.paint.open, "the streams end")
        # A stream is in the log when it has ended: the client's port is that of its connection.
        line = re.compile(r"^\S+:(\d+) \[.* 200 .* GET /asset_stream (HTTP/\S+)$", re.MULTILINE)
        await until(lambda: len(line.findall(edge.log.read_text())) == 51, "every stream is in the log")
        assert len(set(line.findall(edge.log.read_text()))) == 1
        assert line.findall(edge.log.read_text())[0][1] == "HTTP/2.0"


async def test_streams_come_back_after_a_routing_layer_that_was_away(
    haproxy: str, chromium: str, tmp_path: Path
) -> None:
    """No source gives up while the edge has no server for it: it gets no status, and connects again."""
    async with (
        start_system(DRAIN_SECONDS="1") as system,
        start_edge(haproxy, tmp_path, routing_layer=system.proxy.port) as (edge, _),
        tab(chromium, tmp_path / "profile", edge.browser_option) as page,
    ):
        await _map(system, _ASSETS[:10])
        await _open_sources(page, edge, _ASSETS[:10])
        await until(lambda: len(system.weld.open) == 10, "the streams are open")
        system.proxy.terminate()
        assert await system.proxy.exit_code() == 0
        await until(lambda: edge.log.read_text().count(" 503 ") > 10, "every source has found no server")
        assert await _states(page) == {0}
        await system.proxy.start()
        await until(lambda: len(system.weld.open) == 10, "the streams are open again")
        await _send_each(system, "again")
        await page.until("seen.length === 10")
        assert await _states(page) == {1}


async def test_streams_come_back_after_an_edge_that_was_away(haproxy: str, chromium: str, tmp_path: Path) -> None:
    """As when its task is replaced: the connection breaks, and the browser connects to the next process."""
    async with (
        start_system() as system,
        start_edge(haproxy, tmp_path, routing_layer=system.proxy.port) as (edge, _),
        tab(chromium, tmp_path / "profile", edge.browser_option) as page,
    ):
        await _map(system, _ASSETS[:10])
        await _open_sources(page, edge, _ASSETS[:10])
        await until(lambda: len(system.weld.open) == 10, "the streams are open")
        edge.running[-1].terminate()
        await edge.running[-1].wait()
        await page.until("errors.length >= 20")
        await edge.start()
        await until(lambda: len(system.weld.open) == 10, "the streams are open again")
        await _send_each(system, "again")
        await page.until("seen.length === 10")
        assert await _states(page) == {1}
