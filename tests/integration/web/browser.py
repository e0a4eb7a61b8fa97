"""A real browser on a page of ours, asked over its own debugging protocol what it shows: no word of that is ours."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.integration.routing_layer.event_source_page import _OFFLINE, _OPTIONS

_LISTENS = re.compile(rb"DevTools listening on ws://127\.0\.0\.1:(\d+)/")


class Tab:
    """One tab of a running browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Talk over a connection to the tab's debugger."""
        self._socket = socket
        self._numbers = itertools.count(1)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; what the browser tells meanwhile is passed over."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=20)
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    async def show(self, url: str, width: int = 1280, height: int = 900) -> None:
        """Load a page in a window of this size in CSS pixels, and wait until it stands."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        await self.call("Page.navigate", url=url)
        await self.until(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    async def ask(self, expression: str) -> Any:
        """Return what an expression is worth in the page."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression: str, seconds: float = 30) -> None:
        """Wait until an expression is true in the page."""
        async with asyncio.timeout(seconds):
            while not await self.ask(expression):  # noqa: ASYNC110 - it is in another process
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def tab(chromium: str, profile: Path, *options: str) -> AsyncIterator[Tab]:
    """Start a browser with an empty profile, an empty tab and more options."""
    usual = (*_OPTIONS, *_OFFLINE, f"--user-data-dir={profile}", "--remote-debugging-port=0")
    browser = await asyncio.create_subprocess_exec(
        chromium,
        *usual,
        *options,
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        port = await asyncio.wait_for(_port(browser), 60)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                pages = [target for target in await answer.json() if target["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Tab(socket)
    finally:
        with contextlib.suppress(ProcessLookupError):
            browser.terminate()
        await browser.communicate()


async def _port(browser: asyncio.subprocess.Process) -> int:
    assert browser.stderr is not None
    async for line in browser.stderr:
        if found := _LISTENS.search(line):
            return int(found[1])
    raise AssertionError("the browser ended before it listened")
