"""``python -m routing_layer``: the proxy."""

from __future__ import annotations

if __name__ == "__main__":  # a signal that comes during the imports below must not be lost
    from openfactory_common import early_exit

    early_exit.install()

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial

import uvloop

from openfactory_common import __version__
from openfactory_common.early_exit import ENDING
from openfactory_common.errors import ConfigurationError
from routing_layer import logs
from routing_layer.server import listen, serve
from routing_layer.settings import Settings, describe, load
from routing_layer.siblings import Siblings, family

_ABOUT = """Route clients to the service of their asset's group.

  GET /asset_stream?asset_uuid=...           the asset's events (SSE), from its group's service
  GET /group/<Group>/asset_stream?...        the same of a named group
  GET /asset_state?asset_uuid=...            from the asset state service
  GET /healthz  /readyz  /metrics

Settings are environment variables, also read from .env (default in brackets):
"""
_EXIT = """Exit codes: 0 stopped by SIGTERM or SIGINT after draining, 1 cannot run, 2 a setting is wrong,
143 or 130 stopped by SIGTERM or SIGINT before it served."""


def main() -> int:
    """Run until stopped; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m routing_layer",
        description=f"{_ABOUT}\n{describe()}",
        epilog=_EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"routing layer {__version__}")
    parser.parse_args()
    try:
        settings = load()
    except ConfigurationError as error:
        print(error, file=sys.stderr)  # noqa: T201 - before there is a log
        return 2
    logs.configure(settings.log_level)
    try:
        sock = _listen("ROUTING_LAYER_PORT", settings.routing_layer_port)
        metrics = _listen("METRICS_PORT", settings.metrics_port) if settings.metrics_port is not None else None
    except ConfigurationError as error:
        print(error, file=sys.stderr)  # noqa: T201 - as above
        return 1
    start = partial(_run, settings, sock, metrics)
    # Collections leave alone what has been loaded by now: they are shorter, and workers go on sharing it.
    gc.freeze()
    if settings.routing_layer_workers > 1:
        return _workers(settings.routing_layer_workers, start, [sock] if metrics is None else [sock, metrics])
    return start(Siblings())


def _listen(variable: str, port: int) -> socket.socket:
    """Open a port.

    Raises:
        ConfigurationError: it cannot be opened; names the variable.
    """
    try:
        return listen(port)
    except OSError as error:
        raise ConfigurationError(f"{variable}={port}: {error.strerror}") from error


def _run(settings: Settings, sock: socket.socket, metrics: socket.socket | None, siblings: Siblings) -> int:
    # Thousands of long-lived objects a stream: the default threshold walks them all for every few hundred requests.
    gc.set_threshold(20_000, 20, 50)
    # A stream is two descriptors; the usual soft limit of 1024 is there for programs that use select().
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, sock, siblings, metrics))
    return 0


def _workers(count: int, start: Callable[[Siblings], int], sockets: list[socket.socket]) -> int:
    """Run processes that accept from the same sockets; if one dies, end the others."""
    alive = os.pipe()
    # A signal between two forks is kept until the parent can pass it on to every worker.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    children = {_fork(start, siblings, alive) for siblings in family(count)}
    for sock in sockets:
        sock.close()

    def pass_on(number: int, _frame: object) -> None:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

    for number in ENDING:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    code = 0
    while children:
        child, status = os.wait()
        children.discard(child)
        code = code or os.waitstatus_to_exitcode(status)
        if code:
            pass_on(signal.SIGTERM, None)
    return abs(code)


def _fork(start: Callable[[Siblings], int], siblings: Siblings, alive: tuple[int, int]) -> int:
    """Start a worker; ``alive`` is a pipe whose writing end only the parent keeps open."""
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        os.close(alive[1])
        threading.Thread(target=_end_with_parent, args=(alive[0],), daemon=True).start()
        os._exit(start(siblings))
    return child


def _end_with_parent(reading: int) -> None:
    """Drain and end once the parent is gone, however it went: an orphan would keep the port for ever."""
    os.read(reading, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
