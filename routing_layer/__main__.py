"""``python -m routing_layer``: the proxy."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import signal
import socket
import sys
import threading

import uvloop

from reconciler import __version__
from reconciler.errors import ConfigurationError
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
_EXIT = "Exit codes: 0 stopped by SIGTERM or SIGINT after draining, 1 cannot run, 2 a setting is wrong."


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
    # Lookups of names run in libuv's threads; a slow one must not hold up the others.
    os.environ.setdefault("UV_THREADPOOL_SIZE", "16")
    try:
        sock = listen(settings.routing_layer_port, shared=False)
    except OSError as error:
        print(f"ROUTING_LAYER_PORT={settings.routing_layer_port}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 1
    # Collections leave alone what has been loaded by now: they are shorter, and workers go on sharing it.
    gc.freeze()
    if settings.routing_layer_workers > 1:
        return _workers(settings, sock)
    return _run(settings, sock, Siblings())


def _run(settings: Settings, sock: socket.socket, siblings: Siblings) -> int:
    # Thousands of long-lived objects a stream: the default threshold walks them all for every few hundred requests.
    gc.set_threshold(20_000, 20, 50)
    # A stream is two descriptors; the usual soft limit of 1024 is there for programs that use select().
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, sock, siblings))
    return 0


def _workers(settings: Settings, sock: socket.socket) -> int:
    """Run processes that accept from one socket; if one dies, end the others, so that the platform starts anew."""
    alive = os.pipe()
    children = {_fork(settings, sock, siblings, alive) for siblings in family(settings.routing_layer_workers)}
    sock.close()

    def pass_on(number: int, _frame: object) -> None:
        for child in children:
            os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    code = 0
    while children:
        child, status = os.wait()
        children.discard(child)
        code = code or os.waitstatus_to_exitcode(status)
        if code:
            pass_on(signal.SIGTERM, None)
    return abs(code)


def _fork(settings: Settings, sock: socket.socket, siblings: Siblings, alive: tuple[int, int]) -> int:
    """Start a worker; ``alive`` is a pipe whose writing end only the parent keeps open."""
    child = os.fork()
    if child == 0:
        os.close(alive[1])
        threading.Thread(target=_end_with_parent, args=(alive[0],), daemon=True).start()
        os._exit(_run(settings, sock, siblings))
    return child


def _end_with_parent(reading: int) -> None:
    """Drain and end once the parent is gone, however it went: an orphan would keep the port for ever."""
    os.read(reading, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
