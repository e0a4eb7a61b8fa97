"""The real status page behind the edge's login: its links, its form and its refresh stay under the prefix."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.harness.fakes import Stage
from tests.integration.edge.edge_system import login, start_edge
from tests.integration.web.browser import tab
from tests.integration.web.operator import operating

# The first run installs a browser.
pytestmark = pytest.mark.timeout(300)


async def test_the_page_works_under_its_prefix(haproxy: str, chromium: str, tmp_path: Path) -> None:
    """A browser that has logged in follows links, filters, and sees a new group without loading the page again."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "Weld", "b": "Paint"}
    with operating(stage) as operator:
        async with (
            start_edge(haproxy, tmp_path, routing_layer=1, operator=operator.server.port) as (edge, _),
            tab(chromium, tmp_path / "profile", edge.browser_option) as page,
        ):
            await edge.wait_for("/openfactory/", 200, login())
            name, _, value = login().partition(": ")
            await page.call("Network.enable")
            await page.call("Network.setExtraHTTPHeaders", headers={name: value})
            await page.show(f"{edge.url}/openfactory/")
            links = "[...document.querySelectorAll('a')].map((link) => new URL(link.href).pathname)"
            assert all(path.startswith("/openfactory/") for path in await page.ask(links))

            await page.ask("document.querySelector('#q').value = 'paint'; document.querySelector('form').submit(); 0")
            await page.until("location.search.includes('q=paint') && document.readyState === 'complete'")
            assert await page.ask("location.pathname") == "/openfactory/"
            assert "ofa_group_Paint" in await page.ask("document.body.innerText")

            await page.show(f"{edge.url}/openfactory/")
            await page.ask("window.same = true")
            stage.ksqldb.assets["c"] = "Laser"
            await asyncio.to_thread(
                operator.until,
                lambda: "Laser" in operator.ask("/")[2],
            )
            await page.until("document.body.innerText.includes('Laser')")
            assert await page.ask("window.same")
