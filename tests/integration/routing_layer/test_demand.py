"""`GET /demand`, and what the routing layer does with a group that falls asleep."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from openfactory_common.registry import revision_of
from tests.harness.coroutines import until
from tests.integration.routing_layer.fake_sources import free_port
from tests.integration.routing_layer.proxy_system import ProxySystem, start_system


async def demand(system: ProxySystem) -> dict[str, Any]:
    """What the proxy reports now."""
    await system.proxy.stale()
    response = await system.proxy.get("/demand")
    assert response.status == 200
    found: dict[str, Any] = json.loads(await response.rest())
    response.leave()
    return found


async def applied(system: ProxySystem) -> dict[str, Any]:
    """What the proxy reports once it uses the published registry."""
    while (found := await demand(system))["revision"] != revision(system):
        pass
    return found


def revision(system: ProxySystem) -> str:
    """The revision of what is published."""
    assert system.operator.document is not None
    return revision_of(system.operator.document)


def fall_asleep(system: ProxySystem) -> None:
    """Publish a registry in which Weld is asleep."""
    system.publish({"Paint": system.paint.url}, asleep={"Weld": 1_700_000_000})


async def test_two_workers_report_streams_and_requests_of_both() -> None:
    """States, and a path of no group, are no demand; a stream that has ended was asked for until then."""
    async with start_system(ROUTING_LAYER_WORKERS="2") as system:
        await system.proxy.wait_metric("routing_layer_ready", 1)
        assert (await system.proxy.get("/asset_state?asset_uuid=A2")).status == 200
        assert (await system.proxy.get("/group/Other/asset_stream")).status == 404
        clients = [await system.stream("A1") for _ in range(10)]
        found = await demand(system)
        assert found["complete"] is True
        assert found["revision"] == revision(system)
        assert found["groups"] == {"Weld": {"open": 10, "waiting": 0, "idle_seconds": 0.0}}
        for client in clients:
            client.leave()
        await system.proxy.wait_metric("routing_layer_streams", 0)
        weld = (await demand(system))["groups"]["Weld"]
        assert weld["open"] == 0
        assert 0 < weld["idle_seconds"] < (await demand(system))["uptime_seconds"]


async def test_a_sleeping_group_keeps_its_streams_and_holds_requests_until_it_is_back() -> None:
    """A registry in which the group sleeps ends no stream; each new request nudges the operator and is reported."""
    async with start_system() as system:
        await system.proxy.wait_current()
        client = await system.stream("A1")
        fall_asleep(system)
        assert (await applied(system))["groups"]["Weld"]["open"] == 1
        assert system.operator.nudged == 0
        coming = asyncio.create_task(system.proxy.get("/asset_stream?asset_uuid=A1"))
        await until(lambda: system.operator.nudged > 0, "the operator is told that a client waits")
        found = await demand(system)
        assert found["groups"]["Weld"] == {"open": 1, "waiting": 1, "idle_seconds": 0.0}
        system.publish()
        assert (await coming).status == 200
        await system.weld.open[0].event("still open")
        while (await client.event()).data != "still open":
            pass


async def test_with_authentication_only_the_metrics_port_names_groups(tmp_path: Path) -> None:
    """The clients' port would tell everyone, without a token, which groups there are and how many read them."""
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [{"kty": "oct", "kid": "1", "alg": "HS256", "k": "c2VjcmV0" * 8}]}))
    tokens = {"AUTH_KEYS_FILE": str(keys), "AUTH_ISSUER": "i", "AUTH_AUDIENCE": "a"}
    port = free_port()
    async with start_system(METRICS_PORT=str(port), **tokens) as system:
        assert (await system.proxy.get("/demand")).status == 404
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /demand HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
    async with start_system(**tokens) as system:
        assert (await system.proxy.get("/demand")).status == 404
