"""Clients that lose nothing and get nothing twice, whatever happens between two connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.harness.coroutines import until
from tests.integration.routing_layer.proxy_system import ProxySystem, start_system
from tests.integration.routing_layer.resuming import Browser, ResumingService

_CLIENTS = 20


@asynccontextmanager
async def _browsers(system: ProxySystem, asset: str) -> AsyncIterator[list[Browser]]:
    """Some event sources of one asset; at the end none has given up."""
    found = [Browser(system.proxy, f"/asset_stream?asset_uuid={asset}") for _ in range(_CLIENTS)]
    try:
        yield found
    finally:
        for browser in found:
            await browser.close()


async def _have(browsers: list[Browser], *values: str) -> None:
    """Wait until each has had exactly these events, in order."""
    await until(
        lambda: any(each.task.done() for each in browsers) or all(len(each.values) >= len(values) for each in browsers),
        f"all have {values}",
    )
    assert {tuple(each.values) for each in browsers} == {values}


async def test_the_first_clients_of_a_new_group_get_what_came_before_its_service() -> None:
    """Events of the time in which they were held; not those from before they came."""
    async with start_system(LAZY_DEPLOY_WAIT="100ms") as system:
        fit = ResumingService("Fit")
        await system.proxy.wait_current()
        await fit.produce("before")
        await asyncio.sleep(0.01)
        system.ksql.mute = True  # so that it is their requests by which the group is seen
        await system.ksql.put("A5", "Fit")
        async with _browsers(system, "A5") as browsers:
            await until(lambda: system.operator.nudged > 0, "a request is held")
            await until(lambda: all(browser.requests for browser in browsers), "all have sent their requests")
            (await system.proxy.get("/healthz")).leave()  # they were sent before this one, which was read after them
            await fit.produce("1", "2")
            system.publish({"Weld": system.weld.url, "Paint": system.paint.url, "Fit": fit.url})
            await fit.start()
            await _have(browsers, "1", "2")
            await fit.produce("3")
            await _have(browsers, "1", "2", "3")
        await fit.cut()
        await fit.stop()


async def test_clients_live_through_replaced_tasks_and_a_restarted_proxy() -> None:
    """The task goes, and comes back a second later; then the proxy stops and is started again."""
    weld = ResumingService("Weld")
    async with start_system(DRAIN_SECONDS="500ms") as system:
        system.publish({"Weld": weld.url, "Paint": system.paint.url})
        await weld.start()
        await until(lambda: system.operator.not_modified > 0, "the registry is in use")
        async with _browsers(system, "A1") as browsers:
            await until(lambda: len(weld.open) == _CLIENTS, "all are there")
            # Those who waited for the first one's answer, which cannot be shared, ask for what was since their request.
            assert {asked and asked[0] for asked in weld.asked} <= {None, "@"}
            await weld.produce("1")
            await _have(browsers, "1")
            await weld.stop()
            await weld.cut()
            await weld.produce("2", "3")
            await asyncio.sleep(1)
            await weld.start()
            await _have(browsers, "1", "2", "3")
            assert {asked.partition("@")[0] for asked in weld.asked[_CLIENTS:] if asked} == {"Weld/0/0"}
            system.proxy.terminate()
            await system.proxy.exit_code()
            await weld.produce("4")
            await system.proxy.start()
            await _have(browsers, "1", "2", "3", "4")
        await weld.cut()
        await weld.stop()
