"""What the HTTP services behind the proxy have in common: their command line, serving until SIGTERM, and answers."""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

import structlog
import uvloop
from aiohttp import web
from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest

from openfactory_common import __version__, logs
from openfactory_common.connections import (
    ConnectionGuard,
    ConnectionLimits,
    Ending,
    GuardedAppRunner,
    GuardedHandler,
    GuardedServer,
    descriptors,
)
from openfactory_common.errors import ConfigurationError
from openfactory_common.service_settings import KsqldbSettings, describe, load
from openfactory_common.signals import STOP_SIGNALS

disable_created_metrics()  # type: ignore[no-untyped-call]  # a needless series for each counter

ENDLESS = web.RequestKey("endless", bool)
"""A handler sets ``request[ENDLESS] = True`` where its response ends only with its client.

A client that closes its half of the connection then counts as gone, instead of as one that waits for its answer.
"""

#: For open responses to end by themselves, and once more for their handlers to end when they are cancelled.
_END_SECONDS = 1.0
_BACKLOG = 8192
_EXIT = """Exit codes: 0 stopped by SIGTERM or SIGINT, 2 a setting is wrong or the port is taken (the message names the
variable), 143 or 130 stopped by SIGTERM or SIGINT before it served."""
#: No proxy keeps an answer that is old a moment later.
NO_STORE = {"Cache-Control": "no-store"}
_log = structlog.get_logger(__name__)

ServiceSettings = TypeVar("ServiceSettings", bound=KsqldbSettings)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Handler(GuardedHandler):
    """Ends an endless response when its client sends no more."""

    __slots__ = ()

    def awaits_answer(self) -> bool:
        request = self._current_request
        return request is None or ENDLESS not in request


class _Server(GuardedServer):
    handler = _Handler


class _Runner(GuardedAppRunner):
    server_class = _Server


def main(
    program: str,
    about: str,
    settings: type[ServiceSettings],
    start: Callable[[ServiceSettings], Coroutine[Any, Any, None]],
) -> int:
    """Read the command line and the settings, serve, and return the exit code.

    Args:
        program: as a user calls it, e.g. ``state-api``.
        about: what it does and which paths it serves, for ``--help``.
        settings: its settings.
        start: serves with them until the process is asked to end, e.g. by `serve`.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        description=f"{about}\n\nSettings are environment variables, also read from .env (default in brackets):\n"
        f"{describe(settings)}",
        epilog=_EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{program} {__version__}")
    parser.parse_args()
    try:
        loaded = load(settings)
        logs.configure(loaded.log_level, interval=60.0, per_place=logs.PER_PLACE_OF_CLIENTS, cache=True)
        gc.freeze()
        return run(start(loaded))
    except ConfigurationError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a sentence for a person
        return 2


def run(program: Coroutine[Any, Any, None]) -> int:
    """Run ``program`` on uvloop, with as many descriptors as the process may have; return exit code 0.

    A program that has its process for itself calls ``gc.freeze()`` before: collections then leave alone what has been
    loaded by now.
    """
    # Thousands of long-lived objects a stream: the default threshold walks them all for every few hundred requests.
    gc.set_threshold(20_000, 20, 50)
    # A stream is up to two descriptors; the usual soft limit of 1024 is there for programs that use select().
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(program)
    return 0


async def serve(app: web.Application, host: str | None, port: int, *, cost: int = 0) -> None:
    """Serve ``app`` until SIGTERM or SIGINT, then end all responses within 2 s.

    A handler is cancelled as soon as its client leaves: a stream's handler waits for events, not for its client.

    Args:
        app: the application; its ``on_shutdown`` ends its streams.
        host: the address to listen on; None: every one.
        port: to listen on; 0: any free one, see the log.
        cost: descriptors that a request in progress needs besides its connection.

    Raises:
        ConfigurationError: the port cannot be opened; names `PORT`.
    """
    stopped = asyncio.Event()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    guard = ConnectionGuard(ConnectionLimits(*descriptors(), cost=cost), _log_ending)
    runner = _Runner(app, guard=guard, access_log=None, handler_cancellation=True, shutdown_timeout=_END_SECONDS)
    await runner.setup()
    tasks = {asyncio.create_task(guard.run()), asyncio.create_task(stopped.wait())}
    try:
        await _open(runner, host, port)
        for ended in (await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))[0]:
            ended.result()  # raises what ended the guard: without it, clients would fill the process
    finally:
        await runner.cleanup()
        for task in tasks:
            task.cancel()


async def _open(runner: web.AppRunner, host: str | None, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
    except OSError as error:
        raise ConfigurationError(f"PORT={port} cannot be opened: {error.strerror}") from error
    _log.info("serving on port %d", runner.addresses[0][1])


def _log_ending(why: Ending) -> None:
    """Log that clients are refused; the end of an idle connection is no news."""
    if why in (Ending.ROOM, Ending.REFUSED):
        _log.warning("too many clients", ended=why.value)


async def alive(_request: web.Request) -> web.Response:
    """Answer ``/healthz``: the event loop turns. A source that is away is not a fault of this process."""
    return web.json_response({"status": "alive"}, headers=NO_STORE)


def readiness(issues: Sequence[str], **fields: str) -> web.Response:
    """Answer ``/ready``: 200, or 503 with what is missing.

    Args:
        issues: short sentences; none: ready.
        fields: what else the document says, e.g. the group.
    """
    document: dict[str, Any] = {"status": "not ready" if issues else "ready", **fields}
    if issues:
        document["issues"] = list(issues)
    status = HTTPStatus.SERVICE_UNAVAILABLE if issues else HTTPStatus.OK
    return web.json_response(document, status=status, headers=NO_STORE)


def metrics_of(registry: CollectorRegistry) -> Handler:
    """Return the handler of ``/metrics`` for these metrics."""

    async def metrics(_request: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8", **NO_STORE}
        return web.Response(body=generate_latest(registry), headers=headers)

    return metrics


def missing_parameter(name: str) -> web.Response:
    """Return 422 for a required query parameter that is absent or empty, in the shape of the old system's services."""
    fault = {"type": "missing", "loc": ["query", name], "msg": "Field required", "input": None}
    return web.json_response({"detail": [fault]}, status=422, headers=NO_STORE)
