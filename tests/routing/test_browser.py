"""A real browser's EventSource behind the proxy: the client that most people have."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.routing.browser import Page, browsing
from tests.routing.world import Connection, World, chunk, until, world

# The first run installs a browser.
pytestmark = pytest.mark.timeout(300)

#: The page is of another origin than the proxy: the service says that it may read, and the proxy passes that on.
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nAccess-Control-Allow-Origin: *\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


async def _answer(connection: Connection) -> None:
    await connection.send(_HEAD)


def _let_browsers_in(around: World) -> str:
    around.weld.answer = around.paint.answer = _answer
    return f"http://127.0.0.1:{around.proxy.port}/asset_stream?asset_uuid=A1"


async def _send(connection: Connection, identity: str, data: str) -> None:
    await connection.send(chunk(f"id: {identity}\ndata: {data}\n\n".encode()))


async def _connected(around: World, page: Page) -> None:
    await until(lambda: bool(around.weld.open), "the browser reaches the first group's service")
    await _send(around.weld.open[0], "w1", "from Weld")
    await until(lambda: page.messages == [("from Weld", "w1")], "the first event is dispatched")


async def test_a_browser_survives_the_move_of_its_asset(chromium: str, tmp_path: Path) -> None:
    """It is not told: it reconnects by itself, with the last ID it saw, and gets the new group's events."""
    async with world() as around, browsing(chromium, tmp_path, _let_browsers_in(around)) as page:
        await _connected(around, page)
        await around.ksql.put("A1", "Paint")
        await until(lambda: bool(around.paint.open), "the browser comes back, to the other group's service")
        assert around.paint.open[0].header("Last-Event-ID") == ["w1"]
        await _send(around.paint.open[0], "p1", "from Paint")
        await until(lambda: len(page.messages) > 1, "the second event is dispatched")
        assert page.messages == [("from Weld", "w1"), ("from Paint", "p1")]
        assert [report["closed"] for report in page.kinds("error")] == [False]
        assert len(page.kinds("open")) == 2
        assert not around.weld.open


async def test_a_browser_survives_a_broken_service_and_a_restarted_proxy(chromium: str, tmp_path: Path) -> None:
    """A cut stream, and a proxy that drains and is started again: each time it comes back and goes on."""
    async with world(DRAIN_SECONDS="1") as around, browsing(chromium, tmp_path, _let_browsers_in(around)) as page:
        await _connected(around, page)
        await around.weld.cut()
        await until(lambda: bool(around.weld.open), "it comes back after the cut")
        before = len(page.kinds("error"))
        await around.weld.stop()
        await around.weld.cut()
        await until(lambda: len(page.kinds("error")) > before, "it notices that the service is away")
        await asyncio.sleep(3.5)  # longer than its reconnection time
        await around.weld.start()
        await until(lambda: bool(around.weld.open), "it comes back to the next task")
        around.proxy.terminate()
        assert await around.proxy.exit_code() == 0
        await around.proxy.start()
        await until(lambda: bool(around.weld.open), "it comes back after the restart")
        await _send(around.weld.open[0], "w2", "again")
        await until(lambda: len(page.messages) > 1, "the second event is dispatched")
        assert page.messages[-1] == ("again", "w2")


async def test_a_browser_is_not_caught_by_a_proxy_that_is_stopping(chromium: str, tmp_path: Path) -> None:
    """Its stream ends while others go on: it does not come back on the old connection, to be told no for good."""
    async with world(DRAIN_SECONDS="10") as around, browsing(chromium, tmp_path, _let_browsers_in(around)) as page:
        await _connected(around, page)
        others = [await around.stream("A1") for _ in range(20)]
        around.proxy.terminate()
        await until(lambda: len(page.kinds("error")) > 1, "its stream ends, and nobody answers its next attempt")
        assert [report["closed"] for report in page.kinds("error")[:2]] == [False, False]
        for other in others:
            other.leave()
        assert await around.proxy.exit_code() == 0
        await until(lambda: not around.weld.open, "no stream is left")
        await around.proxy.start()
        await until(lambda: bool(around.weld.open), "it comes back after the restart")


async def test_a_browser_dispatches_every_event_as_it_was_sent(chromium: str, tmp_path: Path) -> None:
    """Line separators that are none in an event stream, several data lines, a megabyte, an event cut anywhere."""
    long = "x" * 1_000_000
    async with world() as around, browsing(chromium, tmp_path, _let_browsers_in(around)) as page:
        await _connected(around, page)
        (service,) = around.weld.open
        await _send(service, "w2", "one\u2028line\u0085only")
        await _send(service, "w3", "two\ndata: lines")
        await _send(service, "w4", long)
        for byte in "id: w5\r\ndata: \u00e9\r\n\r\n".encode():
            await service.send(chunk(bytes([byte])))
            await asyncio.sleep(0)
        await until(lambda: len(page.messages) == 5, "every event is dispatched")
        assert page.messages[1:] == [
            ("one\u2028line\u0085only", "w2"),
            ("two\nlines", "w3"),
            (long, "w4"),
            ("\u00e9", "w5"),
        ]
