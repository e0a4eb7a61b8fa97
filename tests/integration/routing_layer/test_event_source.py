"""A real browser's EventSource behind the proxy: the client that most people have."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.harness.coroutines import until
from tests.integration.routing_layer.event_source_page import Page, browsing
from tests.integration.routing_layer.proxy_system import Connection, ProxySystem, chunk, start_system

# The first run installs a browser.
pytestmark = pytest.mark.timeout(300)

#: The page is of another origin than the proxy: the service says that it may read, and the proxy passes that on.
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nAccess-Control-Allow-Origin: *\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


async def _answer(connection: Connection) -> None:
    await connection.send(_HEAD)


def _let_browsers_in(system: ProxySystem) -> str:
    system.weld.answer = system.paint.answer = _answer
    return f"http://127.0.0.1:{system.proxy.port}/asset_stream?asset_uuid=A1"


async def _send(connection: Connection, identity: str, data: str) -> None:
    await connection.send(chunk(f"id: {identity}\ndata: {data}\n\n".encode()))


async def _connected(system: ProxySystem, page: Page) -> None:
    await until(lambda: bool(system.weld.open), "the browser reaches the first group's service")
    await _send(system.weld.open[0], "w1", "from Weld")
    await until(lambda: page.messages == [("from Weld", "w1")], "the first event is dispatched")


async def test_a_browser_survives_the_move_of_its_asset(chromium: str, tmp_path: Path) -> None:
    """It sees no error: it reconnects by itself, with the last ID it saw, and gets the new group's events."""
    async with (
        start_system() as system,
        browsing(chromium, tmp_path, _let_browsers_in(system)) as page,
    ):
        await _connected(system, page)
        await system.ksql.put("A1", "Paint")
        await until(lambda: bool(system.paint.open), "the browser comes back, to the other group's service")
        assert system.paint.open[0].header("Last-Event-ID") == ["w1"]
        await _send(system.paint.open[0], "p1", "from Paint")
        await until(lambda: len(page.messages) > 1, "the second event is dispatched")
        assert page.messages == [("from Weld", "w1"), ("from Paint", "p1")]
        assert [report["closed"] for report in page.kinds("error")] == [False]
        assert len(page.kinds("open")) == 2
        assert not system.weld.open


async def test_a_browser_survives_a_broken_service_and_a_restarted_proxy(chromium: str, tmp_path: Path) -> None:
    """A cut stream, and a proxy that drains and is started again: each time it comes back and goes on."""
    async with (
        start_system(DRAIN_SECONDS="1") as system,
        browsing(chromium, tmp_path, _let_browsers_in(system)) as page,
    ):
        await _connected(system, page)
        await system.weld.cut()
        await until(lambda: bool(system.weld.open), "it comes back after the cut")
        before = len(page.kinds("error"))
        await system.weld.stop()
        await system.weld.cut()
        await until(lambda: len(page.kinds("error")) > before, "it notices that the service is away")
        await asyncio.sleep(3.5)  # longer than its reconnection time
        await system.weld.start()
        await until(lambda: bool(system.weld.open), "it comes back to the next task")
        system.proxy.terminate()
        assert await system.proxy.exit_code() == 0
        await system.proxy.start()
        await until(lambda: bool(system.weld.open), "it comes back after the restart")
        await _send(system.weld.open[0], "w2", "again")
        await until(lambda: len(page.messages) > 1, "the second event is dispatched")
        assert page.messages[-1] == ("again", "w2")


async def test_a_browser_is_not_caught_by_a_proxy_that_is_stopping(chromium: str, tmp_path: Path) -> None:
    """Its stream ends while others go on: it does not come back on the old connection, to be refused there."""
    async with (
        start_system(DRAIN_SECONDS="10") as system,
        browsing(chromium, tmp_path, _let_browsers_in(system)) as page,
    ):
        await _connected(system, page)
        others = [await system.stream("A1") for _ in range(20)]
        system.proxy.terminate()
        await until(lambda: len(page.kinds("error")) > 1, "its stream ends, and its next attempt gets no answer")
        assert [report["closed"] for report in page.kinds("error")[:2]] == [False, False]
        for other in others:
            other.leave()
        assert await system.proxy.exit_code() == 0
        await until(lambda: not system.weld.open, "no stream is left")
        await system.proxy.start()
        await until(lambda: bool(system.weld.open), "it comes back after the restart")


async def test_a_browser_dispatches_every_event_as_it_was_sent(chromium: str, tmp_path: Path) -> None:
    """Line separators that are none in an event stream, several data lines, a megabyte, an event cut anywhere."""
    long = "x" * 1_000_000
    async with (
        start_system() as system,
        browsing(chromium, tmp_path, _let_browsers_in(system)) as page,
    ):
        await _connected(system, page)
        (service,) = system.weld.open
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
