"""The processes that share a port: how they are started, and how each reports the metrics of all.

Each listens on a socket of its own that the kernel names (Linux's abstract sockets: no file, no port), made before
the processes fork. A connection to it is answered with the worker's metrics and demand as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog

from openfactory_common.signals import STOP_SIGNALS

_log = structlog.get_logger(__name__)
#: A worker that does not answer within this time is left out.
_PATIENCE_SECONDS = 2.0
#: A worker's metrics are made once in this time, however many of the others ask.
_CACHE_SECONDS = 1.0


class WorkerPeers:
    """One worker's own socket, and the names of the others'."""

    def __init__(self, own: socket.socket | None = None, others: tuple[bytes, ...] = ()) -> None:
        """Listen on ``own``, which must be bound; without it the worker is alone."""
        self._own = own
        self._others = others
        self._server: asyncio.Server | None = None

    async def listen(self, metrics: Callable[[], Any], demand: Callable[[], Any]) -> None:
        """Answer the others with ``metrics()`` as of lately, and ``demand()`` as it is.

        The demand must not be older than the question, because groups are stopped by it.
        """
        cached, until = "", 0.0

        async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal cached, until
            if time.monotonic() >= until:
                until = time.monotonic() + _CACHE_SECONDS
                cached = json.dumps(metrics())
            writer.write(f'{{"metrics":{cached},"demand":{json.dumps(demand())}}}'.encode())
            writer.close()

        if self._own is not None:
            self._server = await asyncio.start_unix_server(serve, sock=self._own)

    @property
    def count(self) -> int:
        """How many workers there are, this one included."""
        return 1 + len(self._others)

    async def collect(self) -> list[Any]:
        """Return the snapshots of the others, of those that answer."""
        answers = await asyncio.gather(*map(_ask, self._others))
        return [answer for answer in answers if answer is not None]

    def close(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.close()


def create_peers(count: int) -> list[WorkerPeers]:
    """Return what each of ``count`` workers needs, to be made before they fork."""
    sockets = [socket.socket(socket.AF_UNIX) for _ in range(count)]
    for sock in sockets:
        sock.bind("")  # the kernel chooses a name
        sock.listen()
    names = [bytes(sock.getsockname()) for sock in sockets]
    return [
        WorkerPeers(sock, tuple(name for name in names if name != own))
        for sock, own in zip(sockets, names, strict=True)
    ]


async def _ask(name: bytes) -> Any:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    try:
        try:
            sock.connect(name)  # at once: a local socket that listens has room, or the worker is broken
        except OSError:
            sock.close()
            raise
        async with asyncio.timeout(_PATIENCE_SECONDS):
            reader, writer = await asyncio.open_unix_connection(sock=sock)
            try:
                return json.loads(await reader.read())
            finally:
                writer.close()
    except (OSError, ValueError) as error:
        _log.warning("metrics: a worker is left out, it does not answer: %s: %s", type(error).__name__, error)
        return None


def run_workers(count: int, start: Callable[[WorkerPeers], int], sockets: list[socket.socket]) -> int:
    """Run ``count`` processes that accept from the same sockets; if one dies, end the others. Return the exit code."""
    alive = os.pipe()  # only the parent keeps its writing end open
    # A signal between two forks is kept until the parent can pass it on to every worker.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    children = {_fork(start, peers, alive) for peers in create_peers(count)}
    for sock in sockets:
        sock.close()

    def pass_on(number: int, _frame: object) -> None:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

    for number in STOP_SIGNALS:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    code = 0
    while children:
        child, status = os.wait()
        children.discard(child)
        code = code or os.waitstatus_to_exitcode(status)
        if code:
            pass_on(signal.SIGTERM, None)
    return abs(code)


def _fork(start: Callable[[WorkerPeers], int], peers: WorkerPeers, alive: tuple[int, int]) -> int:
    child = os.fork()
    if child:
        return child

    def end_with_parent() -> None:
        """Drain and end once the parent is gone for any reason: an orphan would keep the port forever."""
        os.read(alive[0], 1)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    os.close(alive[1])
    threading.Thread(target=end_with_parent, daemon=True).start()
    os._exit(start(peers))
