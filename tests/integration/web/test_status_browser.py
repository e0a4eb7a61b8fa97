"""The status page in a real browser: what it shows, that it keeps up to date, and what it cannot be made to do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.harness.fakes import Stage, unreachable
from tests.integration.web.browser import Tab, tab
from tests.integration.web.operator import operating

# The first run installs a browser.
pytestmark = pytest.mark.timeout(300)

HOSTILE = (
    "<script>hacked=1</script>",
    "<img src=x onerror=hacked=1>",
    '"><svg onload=hacked=1>',
    "{{ 7 * 7 }}</style></title>",
    "javascript:hacked=1",
    "\N{RIGHT-TO-LEFT OVERRIDE}dleW",
    "x" * 400,
)
#: As the page shows them: what is not printed is escaped, and the name in quotes.
SHOWN = {ascii(name) if "\N{RIGHT-TO-LEFT OVERRIDE}" in name else name for name in HOSTILE}
NAMES = "[...document.querySelectorAll('tbody th > span')].map((one) => one.textContent)"


_CUT = """
[...document.querySelectorAll("td, tbody th, dd, h1, .chip, .notice")].filter(
  (one) => one.getBoundingClientRect().right > innerWidth || one.scrollWidth > one.clientWidth + 1
).map((one) => one.textContent)
"""
_ATTACK = """
addEventListener("securitypolicyviolation", (event) => (window.refused ??= []).push(event.effectiveDirective));
const script = document.createElement("script");
script.textContent = "hacked=1";
document.body.append(script);
document.body.insertAdjacentHTML("beforeend", "<p style=color:red onclick=hacked=1>x</p><img src=/healthz>");
0
"""


async def _text(page: Tab, selector: str) -> str:
    return str(await page.ask(f"document.querySelector({selector!r}).innerText"))


async def test_it_shows_groups_and_follows_what_changes(chromium: str, tmp_path: Path) -> None:
    """A group that comes appears by itself, without loading the page again; so does a read that fails."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "Weld", "b": "Paint"}
    with operating(stage) as operator:
        async with tab(chromium, tmp_path) as page:
            await page.show(operator.url)
            assert await page.ask(NAMES) == ["Paint", "Weld", "ofa_state_api", "ofa_routing_layer"]
            await asyncio.to_thread(operator.until, lambda: operator.loop.history.last.result == "in_sync")  # type: ignore[union-attr]
            await page.until("document.querySelector('.state').innerText === '\N{CHECK MARK} In sync'")
            await page.ask("window.same = true")
            stage.ksqldb.assets["c"] = "Laser"
            await asyncio.to_thread(operator.until, lambda: "ofa_group_laser" in stage.platform.services)
            await page.until(f"{NAMES}.includes('Laser')")
            stage.ksqldb.fault = unreachable("streams")
            await asyncio.to_thread(operator.until, lambda: operator.loop.history.last.result == "read_error")  # type: ignore[union-attr]
            await page.until("document.querySelector('.state').innerText.includes('Read failed')")
            assert "streams was not answered" in await _text(page, ".notice")
            assert "Laser" in await page.ask(NAMES)
            await asyncio.to_thread(operator.stop_serving)
            await page.until("!document.getElementById('gone').hidden")
            assert await page.ask("window.same")


async def test_hostile_names_are_text_and_nothing_else(chromium: str, tmp_path: Path) -> None:
    """Markup, handlers and template marks in a group's name are shown letter by letter and never run."""
    stage = Stage()
    stage.ksqldb.assets = {f"a{at}": name for at, name in enumerate(HOSTILE)}
    with operating(stage) as operator:
        async with tab(chromium, tmp_path) as page:
            await page.show(operator.url + "?q=&condition=Ready")
            assert set(await page.ask(NAMES)) >= SHOWN
            await page.ask("window.old = document.getElementById('live')")
            await page.until("!window.old.isConnected")  # it has replaced its content once
            assert set(await page.ask(NAMES)) >= SHOWN
            assert (
                await page.ask("document.querySelectorAll('#live script, #live img, #live svg, #live style').length")
                == 0
            )
            assert await page.ask("typeof hacked") == "undefined"
            assert await page.ask("[...document.links].every((link) => link.protocol === 'http:')")


async def test_nothing_but_its_own_script_can_run(chromium: str, tmp_path: Path) -> None:
    """Even markup that got into the page can neither run, load nor send: the browser refuses it."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "Weld"}
    with operating(stage) as operator:
        async with tab(chromium, tmp_path) as page:
            await page.show(operator.url)
            await page.ask(_ATTACK)
            await page.until("(window.refused ?? []).length >= 4")
            assert await page.ask("typeof hacked") == "undefined"
            assert {"script-src-elem", "style-src-attr", "img-src"} <= set(await page.ask("window.refused"))


async def test_no_width_scrolls_sideways(chromium: str, tmp_path: Path) -> None:
    """From the narrowest phone to a desktop, whatever the names, everything is within the window and nothing is cut."""
    stage = Stage()
    stage.ksqldb.assets = {f"a{at}": name for at, name in enumerate((*HOSTILE, "Weld", "weld"))}
    stage.platform.healthy = lambda name: "Weld" not in name
    with operating(stage) as operator:
        async with tab(chromium, tmp_path) as page:
            for width in (320, 390, 800, 1280):
                await page.show(f"{operator.url}?q=&all={width}", width)
                assert await page.ask("document.documentElement.scrollWidth") <= width
                assert await page.ask(_CUT) == [], width


async def test_without_javascript_it_loads_itself_again(chromium: str, tmp_path: Path) -> None:
    """Where scripts are off, everything is shown all the same, and the page refreshes."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "Weld"}
    with operating(stage) as operator:
        async with tab(chromium, tmp_path) as page:
            await page.call("Emulation.setScriptExecutionDisabled", value=True)
            await page.show(operator.url)
            assert "Weld" in await page.ask(NAMES)
            # Only where scripts are off is what stands in <noscript> an element, and not text.
            assert await page.ask("document.querySelector('noscript meta').httpEquiv") == "refresh"
            assert await page.ask("document.querySelector('noscript meta').content") == "10"
