"""The status page behind a reverse proxy that serves it under a path."""

from __future__ import annotations

import asyncio
import re
from html import unescape
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import aiohttp
import pytest

from openfactory_common import __version__
from tests.harness.fakes import Stage
from tests.integration.web.browser import tab
from tests.integration.web.operator import operating
from tests.integration.web.prefix_proxy import PREFIX, serving

TOKEN = "right-" + "a" * 32
#: The first run installs a browser.
pytestmark = pytest.mark.timeout(300)


def plant() -> Stage:
    """Two groups, one of which does not come up."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "Weld", "b": "Paint"}
    stage.platform.healthy = lambda name: "Paint" not in name
    return stage


async def test_every_address_on_the_page_is_below_the_prefix() -> None:
    """Links and the form's address, from each form of the page; all of them answer."""
    with operating(plant()) as operator:
        async with serving(operator.url) as proxy, aiohttp.ClientSession() as session:
            todo, seen = [f"{proxy.url}{PREFIX}/"], set()
            while todo:
                url = todo.pop()
                async with session.get(url) as answer:
                    assert answer.status == 200, url
                    text = await answer.text()
                    if not answer.content_type.startswith("text/html"):
                        continue
                for found in re.findall(r'(?:href|action)="([^"]*)"', text):
                    target = urljoin(url, unescape(found)).partition("#")[0]
                    if not found.startswith("data:") and target not in seen:
                        assert urlsplit(target).path.startswith(f"{PREFIX}/"), (url, found)
                        seen.add(target)
                        todo.append(target)
            paths = {urlsplit(target).path.removeprefix(PREFIX) for target in seen}
            assert paths == {"/", "/events", "/status", "/registry", "/metrics", "/healthz"}
            assert any("condition=" in target for target in seen)
            assert proxy.outside == []
            async with session.get(f"{proxy.url}{PREFIX}/status") as answer:
                assert (await answer.json())["operator"]["version"] == __version__


async def test_a_proxy_does_not_say_which_host_was_asked() -> None:
    """`X-Forwarded-Host` is the client's own word: neither does it open a page of another name, nor close ours."""
    with operating(plant()) as operator:
        async with serving(operator.url) as proxy, aiohttp.ClientSession() as session:
            for headers, status in (
                ({"X-Forwarded-Host": "evil.example"}, 200),
                ({"Host": "evil.example", "X-Forwarded-Host": "localhost"}, 421),
                ({"Host": "op.plant.example"}, 421),
            ):
                async with session.get(f"{proxy.url}{PREFIX}/", headers=headers) as answer:
                    assert answer.status == status, headers
    stage = plant()
    stage.options = {"reconciler_allowed_hosts": "op.plant.example"}
    with operating(stage) as operator:
        async with (
            serving(operator.url) as proxy,
            aiohttp.ClientSession() as session,
            session.get(f"{proxy.url}{PREFIX}/", headers={"Host": "op.plant.example"}) as answer,
        ):
            assert answer.status == 200


async def test_a_browser_finds_its_way_under_the_prefix(chromium: str, tmp_path: Path) -> None:
    """Without the slash, by links, by the form, and while the page updates itself; the operator wants a token."""
    (tmp_path / "token").write_text(TOKEN)
    stage = plant()
    stage.options = {"reconciler_token_file": tmp_path / "token", "reconciler_protect": "all"}
    rows = "[...document.querySelectorAll('tbody th > span')].map((one) => one.textContent).join()"
    with operating(stage) as operator:
        async with serving(operator.url, TOKEN) as proxy, tab(chromium, tmp_path / "profile") as page:
            base = f"{proxy.url}{PREFIX}/"
            await page.call("Page.navigate", url=base.rstrip("/"))
            await page.until(f"location.href === '{base}' && document.readyState === 'complete'")
            await page.until(f"{rows}.includes('Weld')")
            assert __version__ in await page.ask("document.querySelector('dl').innerText")
            await page.ask(
                "[...document.querySelectorAll('.chip')].find((one) => one.innerText.includes('Ready')).click()"
            )
            await page.until(f"location.href === '{base}?condition=Ready' && !{rows}.includes('Paint')")
            await page.ask("document.querySelector('.chip').click()")
            await page.until(f"location.href === '{base}' && {rows}.includes('Paint')")
            await page.ask("document.getElementById('q').value = 'weld'; document.querySelector('form button').click()")
            await page.until(f"location.href === '{base}?q=weld' && !{rows}.includes('Paint')")
            await page.ask("window.same = true")
            stage.ksqldb.assets["c"] = "Welding"
            await asyncio.to_thread(operator.until, lambda: "ofa_group_welding" in stage.platform.services)
            await page.until(f"{rows}.includes('Welding')")
            assert await page.ask("window.same")
            await page.ask("[...document.links].find((one) => one.innerText === 'health').click()")
            await page.until(f"location.href === '{base}healthz'")
            assert [path for path in proxy.outside if path != "/favicon.ico"] == []
