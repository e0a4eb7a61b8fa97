"""Background tasks that end come back, and while one does not run the proxy is not ready."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from routing_layer.app import Proxy
from routing_layer.settings import load
from routing_layer.siblings import Siblings
from routing_layer.supervise import Supervisor
from tests.routing.sources import Ksql, Operator, registry
from tests.routing.world import until, world


async def _fail() -> None:
    raise ValueError("a bug")


async def _return() -> None:
    return


async def _cancelled_inside() -> None:
    inner = asyncio.ensure_future(asyncio.sleep(100))
    inner.cancel()
    await inner


@contextlib.asynccontextmanager
async def _supervised(
    work: Callable[[], Awaitable[None]], steady: float = 100.0
) -> AsyncIterator[tuple[Supervisor, list[str]]]:
    ended: list[str] = []
    supervisor = Supervisor(ended.append, backoff=(0.001, 0.01), steady=steady)
    supervisor.start("work", work)
    try:
        yield supervisor, ended
    finally:
        await supervisor.close()


@pytest.mark.parametrize("end", [_fail, _return, _cancelled_inside])
async def test_whatever_ends_a_task_it_is_started_again(end: Callable[[], Awaitable[None]]) -> None:
    """An exception, a return, a cancellation that did not come from us: each is told, and the work goes on."""
    async with _supervised(end) as (supervisor, ended):
        await until(lambda: len(ended) >= 5, "restarts")
        assert set(ended) == {"work"}
        assert not supervisor.running("work")


async def test_it_runs_until_it_is_closed() -> None:
    """Running is running; after the close it is not, and nothing was told."""
    async with _supervised(lambda: asyncio.sleep(1000)) as (supervisor, ended):
        await until(lambda: supervisor.running("work"))
        await supervisor.close()
        assert not supervisor.running("work")
        assert not supervisor.running("another")
    assert ended == []


async def test_one_that_keeps_ending_does_not_run_between_its_ends() -> None:
    """After an end it has to run for a while before it counts; then it does."""
    proceed = asyncio.Event()
    runs = []

    async def work() -> None:
        runs.append(None)
        if len(runs) == 1:
            raise ValueError("once")
        await proceed.wait()
        await asyncio.sleep(1000)

    async with _supervised(work, steady=0.05) as (supervisor, _):
        await until(lambda: len(runs) == 2, "the restart")
        await until(lambda: supervisor.running("work"), "it has run for a while")
        proceed.set()
    async with _supervised(work, steady=1000) as (supervisor, _):
        runs.clear()
        await until(lambda: len(runs) == 2, "the restart")
        assert not supervisor.running("work")


async def test_another_work_of_the_same_name_begins_after_the_end_of_the_first() -> None:
    """Two never run side by side."""
    seen: list[str] = []

    async def first() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0.01)
            seen.append("first has ended")

    async def second() -> None:
        seen.append("second")
        await asyncio.sleep(1000)

    async with _supervised(first) as (supervisor, ended):
        await until(lambda: supervisor.running("work"))
        supervisor.start("work", second)
        await until(lambda: "second" in seen)
        assert seen == ["first has ended", "second"]
        assert ended == []


@pytest.mark.parametrize("name", ["registry", "membership"])
async def test_a_follower_that_does_not_run_is_not_ready(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It is named by `/readyz`, counted, and ready again once it runs."""
    ksql, operator = await Ksql().start(), await Operator().start()
    await ksql.put("A1", "Weld")
    operator.document = registry({"Weld": "http://127.0.0.1:1/asset_stream"})
    for variable, value in {"KSQLDB_URL": ksql.url, "RECONCILER_URL": operator.url, "REGISTRY_POLL": "0.05"}.items():
        monkeypatch.setenv(variable, value)
    proxy = Proxy(load(_env_file=None, registry_file="/nonexistent"), Siblings())
    proxy.supervisor._steady = 0.2
    follows = proxy.registry if name == "registry" else proxy.follower
    real = follows.run

    async def broken(*arguments: object) -> None:
        await real(*arguments) if fixed.is_set() else await _fail()

    fixed = asyncio.Event()
    try:
        await proxy.start()
        await until(lambda: not proxy.missing_references(), "ready")
        monkeypatch.setattr(follows, "run", broken)
        proxy.supervisor.start(name, lambda: follows.run(*_arguments(name, proxy)))
        await until(lambda: f"{name} follower" in proxy.missing_references(), "not ready")
        await until(lambda: proxy.metrics.task_ends[name]._value.get() >= 1, "counted")
        fixed.set()
        await until(lambda: not proxy.missing_references(), "ready again")
    finally:
        await proxy.close()
        await ksql.stop()
        await operator.stop()


def _arguments(name: str, proxy: Proxy) -> tuple[object, ...]:
    registry_document = proxy.registry.current
    assert registry_document is not None
    return (0.05,) if name == "registry" else (registry_document.membership,)


async def test_a_poisoned_row_does_not_end_the_watch() -> None:
    """What no parser expects comes once; changes that follow it are followed, and the proxy is ready again."""
    async with world() as around:
        await around.proxy.wait_current()
        await around.ksql.poison(b'{"row":{"columns":["A9",' + b"9" * 5000 + b"]}},\n")
        await around.ksql.put("A3", "Paint")
        await around.stream("A3")
        await around.proxy.wait_metric("routing_layer_membership_relists_total", 2)
        client = await around.stream("A1")
        await around.ksql.put("A1", "Paint")
        await client.rest()
        assert client.complete
        await around.proxy.wait_ready()
