"""A real browser on a page of ours that opens an EventSource and reports everything that happens to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

_PAGE = """<!doctype html><title>EventSource</title><script>
let last = Promise.resolve();  // one report after the other: requests at the same time may overtake each other
const report = (what) => last = last.then(() => fetch("/report", {method: "POST", body: JSON.stringify(what)}));
const source = new EventSource(%s, {withCredentials: %s});
source.onopen = () => report({kind: "open"});
for (const type of ["message", "asset_update", "gap"]) source.addEventListener(type,
  (event) => report({kind: type === "gap" ? "gap" : "message", data: event.data, id: event.lastEventId}));
source.onerror = () => report({kind: "error", closed: source.readyState === EventSource.CLOSED});
</script>"""
_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
#: Nothing may leave this machine, the browser's own services included.
_OFFLINE = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server")


@dataclass
class Page:
    """What the page has reported so far, in the order in which it came.

    Attributes:
        reports: one object a callback of the EventSource: its ``kind`` and what it carries.
    """

    reports: list[dict[str, Any]] = field(default_factory=list)

    def kinds(self, kind: str) -> list[dict[str, Any]]:
        """Return the reports of one kind."""
        return [report for report in self.reports if report["kind"] == kind]

    @property
    def messages(self) -> list[tuple[str, str]]:
        """The events that were dispatched: data, and the last event ID then."""
        return [(report["data"], report["id"]) for report in self.kinds("message")]


@contextlib.asynccontextmanager
async def browsing(
    chromium: str, profile: Path, url: str, *options: str, port: int = 0, credentials: bool = False
) -> AsyncIterator[Page]:
    """Open the page in a browser with an empty profile and more options; its EventSource reads ``url``.

    The page is served at ``port`` (0: any free one); ``credentials`` are sent also to another origin.
    """
    page = Page()
    runner, address = await _serve(page, _PAGE % (json.dumps(url), json.dumps(credentials)), port)
    command = (chromium, *_OPTIONS, *_OFFLINE, *options, f"--user-data-dir={profile}", address)
    quiet = asyncio.subprocess.DEVNULL
    browser = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        yield page
    finally:
        with contextlib.suppress(ProcessLookupError):
            browser.terminate()
        await browser.wait()
        await runner.cleanup()


async def _serve(page: Page, text: str, port: int) -> tuple[web.AppRunner, str]:
    async def document(_request: web.Request) -> web.Response:
        return web.Response(text=text, content_type="text/html")

    async def report(request: web.Request) -> web.Response:
        page.reports.append(json.loads(await request.read()))
        return web.Response(status=204)

    app = web.Application()
    app.router.add_get("/", document)
    app.router.add_post("/report", report)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/"
