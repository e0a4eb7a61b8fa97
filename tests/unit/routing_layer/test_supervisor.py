"""Background tasks that end come back, and while one does not run the proxy is not ready."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from routing_layer.supervisor import Supervisor
from tests.harness.coroutines import until


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
    """An exception, a return, a cancellation that did not come from us: each is reported, and the work goes on."""
    async with _supervised(end) as (supervisor, ended):
        await until(lambda: len(ended) >= 5, "restarts")
        assert set(ended) == {"work"}
        assert not supervisor.is_running("work")


async def test_it_runs_until_it_is_closed() -> None:
    """Running is running; after the close it is not, and nothing was reported."""
    async with _supervised(lambda: asyncio.sleep(1000)) as (supervisor, ended):
        await until(lambda: supervisor.is_running("work"))
        await supervisor.close()
        assert not supervisor.is_running("work")
        assert not supervisor.is_running("another")
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
        await until(lambda: supervisor.is_running("work"), "it has run for a while")
        proceed.set()
    async with _supervised(work, steady=1000) as (supervisor, _):
        runs.clear()
        await until(lambda: len(runs) == 2, "the restart")
        assert not supervisor.is_running("work")


async def test_one_that_loses_a_cancellation_ends_nevertheless() -> None:
    """By the close, and where another work takes its place; that one does not begin before."""
    seen: list[str] = []

    async def deaf(name: str) -> None:
        try:
            with contextlib.suppress(asyncio.CancelledError):
                seen.append(name)
                await asyncio.sleep(1000)
            await asyncio.sleep(1000)
        finally:
            seen.append(f"end of {name}")

    async with _supervised(lambda: deaf("first")) as (supervisor, ended):
        await until(lambda: "first" in seen)
        supervisor.start("work", lambda: deaf("replaced before it began"))
        supervisor.start("work", lambda: deaf("last"))
        await until(lambda: "last" in seen)
    assert seen == ["first", "end of first", "last", "end of last"]
    assert ended == []


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
        await until(lambda: supervisor.is_running("work"))
        supervisor.start("work", second)
        await until(lambda: "second" in seen)
        assert seen == ["first has ended", "second"]
        assert ended == []
