"""Readiness follows the background tasks."""

from __future__ import annotations

import asyncio
import json

import pytest

from openfactory_common.service_settings import load
from routing_layer.app.proxy import Proxy
from routing_layer.settings import Settings
from routing_layer.workers import WorkerPeers
from tests.harness.coroutines import until
from tests.integration.routing_layer.fake_sources import FakeKsqldb, FakeOperator, registry
from tests.integration.routing_layer.proxy_system import start_system


async def _fail() -> None:
    raise LookupError("a bug")


@pytest.mark.parametrize("name", ["registry", "membership"])
async def test_a_follower_that_does_not_run_is_not_ready(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It is named by `/readyz`, counted, and ready again once it runs."""
    ksql, operator = await FakeKsqldb().start(), await FakeOperator().start()
    await ksql.put("A1", "Weld")
    operator.document = registry({"Weld": "http://127.0.0.1:1/asset_stream"})
    for variable, value in {"KSQLDB_URL": ksql.url, "RECONCILER_URL": operator.url, "REGISTRY_POLL": "0.05"}.items():
        monkeypatch.setenv(variable, value)
    proxy = Proxy(load(Settings, _env_file=None, registry_file="/nonexistent"), WorkerPeers())
    proxy.supervisor._steady = 0.2
    follows = proxy.registry if name == "registry" else proxy.watcher
    real = follows.run

    async def broken(*arguments: object) -> None:
        await real(*arguments) if fixed.is_set() else await _fail()

    fixed = asyncio.Event()
    try:
        await proxy.start()
        await until(lambda: not proxy.issues(), "ready")
        monkeypatch.setattr(follows, "run", broken)
        proxy.supervisor.start(name, lambda: follows.run(*_arguments(name, proxy)))
        await until(lambda: f"the {name} is not followed" in proxy.issues(), "not ready")
        await until(lambda: proxy.metrics.task_ends[name]._value.get() >= 1, "counted")
        fixed.set()
        await until(lambda: not proxy.issues(), "ready again")
    finally:
        await proxy.close()
        await ksql.stop()
        await operator.stop()


def _arguments(name: str, proxy: Proxy) -> tuple[object, ...]:
    registry_document = proxy.registry.current
    assert registry_document is not None
    return (0.05,) if name == "registry" else (registry_document.membership,)


async def test_ready_is_the_document_of_all_services() -> None:
    """The status, and while it is not ready a sentence for each reason; the old path answers the same."""
    async with start_system(ready=False, RECONCILER_URL="") as system:
        for path in ("/ready", "/readyz"):
            refused = await system.proxy.get(path)
            assert refused.status == 503
            assert json.loads(await refused.rest()) == {
                "status": "not ready",
                "issues": ["no registry has been read", "the membership has not been listed"],
            }
    async with start_system() as system:
        for path in ("/ready", "/readyz"):
            answer = await system.proxy.get(path)
            assert answer.status == 200
            assert json.loads(await answer.rest()) == {"status": "ready"}


async def test_a_poisoned_row_does_not_end_the_watch() -> None:
    """What no parser expects comes once; changes that follow it are followed, and the proxy is ready again."""
    async with start_system() as system:
        await system.proxy.wait_current()
        await system.ksql.poison(b'{"row":{"columns":["A9",' + b"9" * 5000 + b"]}},\n")
        await system.ksql.put("A3", "Paint")
        await system.stream("A3")
        await system.proxy.wait_metric("routing_layer_membership_relists_total", 2)
        client = await system.stream("A1")
        await system.ksql.put("A1", "Paint")
        await client.rest()
        assert client.complete
        await system.proxy.wait_ready()
