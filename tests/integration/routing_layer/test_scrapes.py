"""``/metrics``: made once a second however many ask, and at a port of its own if there is one."""

from __future__ import annotations

import asyncio
import time

from tests.harness.ports import free_port
from tests.integration.routing_layer.proxy_system import Response, start_system


async def _scrapes(port: int, count: int) -> list[bytes]:
    """Scrape as often as is answered, on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4 * 1024 * 1024)
    bodies = []
    for _ in range(count):
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = Response(reader, writer, await reader.readuntil(b"\r\n\r\n"))
        assert answer.status == 200
        bodies.append(await answer.rest())
    writer.transport.abort()
    return bodies


async def test_scrapes_share_an_answer() -> None:
    """Each scrape is counted, so two answers that were made apart differ: there are no more than seconds."""
    async with start_system(constants={}) as system:
        client = await system.stream("A1")
        started = time.monotonic()
        bodies = [
            body
            for each in await asyncio.gather(*(_scrapes(system.proxy.port, 10) for _ in range(50)))
            for body in each
        ]
        most = time.monotonic() - started + 2
        assert len(bodies) == 500
        assert len(set(bodies)) <= most
        await system.weld.open[0].event("one")
        assert (await client.event()).data == "one"
        await system.proxy.wait_metric('routing_layer_requests_total{code="200",route="metrics"}', 500)


async def test_metrics_have_a_port_of_their_own() -> None:
    """The other one does not answer them; the own one answers nothing else, and ends with the process."""
    port = free_port()
    async with start_system(METRICS_PORT=str(port)) as system:
        [body] = await _scrapes(port, 1)
        assert b"routing_layer_ready" in body
        hidden = await system.proxy.get("/metrics")
        assert hidden.status == 404
        await hidden.problem()
        system.proxy.port = port
        for target in ("/asset_stream?asset_uuid=A1", "/healthz", "/"):
            assert (await system.proxy.get(target)).status == 404
        system.proxy.terminate()
        await system.proxy.closed()
        assert await system.proxy.exit_code() == 0


async def test_workers_share_the_port_for_metrics() -> None:
    """Any of them answers for all."""
    port = free_port()
    async with start_system(METRICS_PORT=str(port), ROUTING_LAYER_WORKERS="2", ready=False):
        async with asyncio.timeout(20):
            while True:
                [body] = await _scrapes(port, 1)
                if b"\nrouting_layer_workers 2.0\n" in body:
                    break
                await asyncio.sleep(0.1)


async def test_a_port_for_metrics_that_is_taken() -> None:
    """The variable is named, and so it is if both ports are the same."""
    async with start_system() as system:
        for port, said in (
            (system.proxy.port, b"another port"),
            (system.ksql.port, b"METRICS_PORT=%d: " % system.ksql.port),
        ):
            system.proxy.environment["METRICS_PORT"] = str(port)
            system.proxy.environment["ROUTING_LAYER_PORT"] = str(free_port() if port != system.proxy.port else port)
            process = await system.proxy.spawn(capture=True)
            _, errors = await process.communicate()
            assert process.returncode in (1, 2)
            assert said in errors
            assert b"METRICS_PORT" in errors
