"""What the services share: serving until a signal, half-closed clients, the documents that all give."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from openfactory_common import service
from openfactory_common.errors import ConfigurationError
from tests.harness.ports import free_port

_PATIENCE = 30.0


class Streams:
    """An application with a response that never ends, and one that ends when the test says."""

    def __init__(self, *, endless: bool) -> None:
        """Tell the server that the first is endless, or do not."""
        self.endless = endless
        self.begun, self.cancelled, self.go = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.app = web.Application()
        self.app.router.add_get("/stream", self._stream)
        self.app.router.add_get("/healthz", service.alive)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if self.endless:
            request[service.ENDLESS] = True
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        await response.write(b"end")
        return response


@asynccontextmanager
async def _served(app: web.Application) -> AsyncIterator[tuple[int, asyncio.Task[None]]]:
    port = free_port()
    task = asyncio.create_task(service.serve(app, "127.0.0.1", port))
    async with asyncio.timeout(_PATIENCE):
        while not await _is_open(port):
            assert not task.done(), task.result()
            await asyncio.sleep(0.01)
        yield port, task
        if not task.done():
            os.kill(os.getpid(), signal.SIGTERM)
        await task


async def _is_open(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _ask(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    return reader, writer


def test_a_client_of_an_endless_response_that_sends_no_more_is_gone() -> None:
    """Its handler is cancelled, also while no event comes that could show it."""

    async def play() -> None:
        streams = Streams(endless=True)
        async with _served(streams.app) as (port, _):
            _, writer = await _ask(port)
            await streams.begun.wait()
            writer.write_eof()
            await streams.cancelled.wait()
            writer.close()

    asyncio.run(play())


def test_a_client_that_waits_for_its_answer_may_close_its_half() -> None:
    """A response that ends is sent whole to a client that sends no more."""

    async def play() -> bytes:
        streams = Streams(endless=False)
        async with _served(streams.app) as (port, _):
            reader, writer = await _ask(port)
            await streams.begun.wait()
            writer.write_eof()
            streams.go.set()
            body = await reader.read()
            writer.close()
            return body

    assert asyncio.run(play()).endswith(b"end\r\n0\r\n\r\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_open_streams(number: signal.Signals) -> None:
    """It returns although a response has not ended, and the client's connection is closed."""

    async def play() -> None:
        streams = Streams(endless=True)
        async with _served(streams.app) as (port, task):
            reader, writer = await _ask(port)
            await streams.begun.wait()
            os.kill(os.getpid(), number)
            await task
            await reader.read()
            writer.close()
            assert not await _is_open(port)

    asyncio.run(play())


def test_a_port_that_is_taken_is_named() -> None:
    """The error has the variable and the port."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"^PORT={port} cannot be opened: "):
            asyncio.run(service.serve(web.Application(), "127.0.0.1", port))


@pytest.mark.parametrize(
    ("issues", "status", "document"),
    [
        ([], 200, {"status": "ready", "group": "Weld"}),
        (["no broker", "no topic"], 503, {"status": "not ready", "group": "Weld", "issues": ["no broker", "no topic"]}),
    ],
)
def test_readiness(issues: list[str], status: int, document: dict[str, object]) -> None:
    """200, or 503 with each issue."""
    answer = service.readiness(issues, group="Weld")
    assert (answer.status, json.loads(answer.text or "")) == (status, document)
    assert answer.headers["Cache-Control"] == "no-store"


def test_metrics_of() -> None:
    """The registry's values in Prometheus' text format, without the times of creation."""

    async def play() -> web.StreamResponse:
        registry = CollectorRegistry()
        Counter("things", "Things.", registry=registry).inc(3)
        return await service.metrics_of(registry)(None)  # type: ignore[arg-type]

    answer = asyncio.run(play())
    assert isinstance(answer, web.Response)
    assert answer.body == b"# HELP things_total Things.\n# TYPE things_total counter\nthings_total 3.0\n"
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
