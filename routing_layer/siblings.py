"""The processes that share a port, as one of them sees the others: what all have counted is one answer of any.

Each listens on a socket of its own that the kernel names (Linux's abstract sockets: no file, no port), made before
the processes part. Whoever connects is told the process's metrics as JSON.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import structlog

_log = structlog.get_logger(__name__)
#: A process that does not answer within this time is left out.
_PATIENCE_SECONDS = 2.0
#: What a process tells is made once in this time, however many of the others ask.
_SAME_SECONDS = 1.0


class Siblings:
    """One process's own socket, and the names of the others'."""

    def __init__(self, own: socket.socket | None = None, others: tuple[bytes, ...] = ()) -> None:
        """Listen on ``own``, which must be bound; without it the process is alone."""
        self._own = own
        self._others = others
        self._server: asyncio.Server | None = None

    async def listen(self, tell: Callable[[], Any]) -> None:
        """Answer the others with what ``tell`` returns."""
        told, until = b"", 0.0

        async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal told, until
            if time.monotonic() >= until:
                until = time.monotonic() + _SAME_SECONDS
                told = json.dumps(tell()).encode()
            writer.write(told)
            writer.close()

        if self._own is not None:
            self._server = await asyncio.start_unix_server(answer, sock=self._own)

    async def ask(self) -> list[Any]:
        """Return what the others tell, of those that answer."""
        answers = await asyncio.gather(*map(self._ask, self._others))
        return [answer for answer in answers if answer is not None]

    async def _ask(self, name: bytes) -> Any:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                reader, writer = await asyncio.open_unix_connection(sock=_connected(name))
                try:
                    return json.loads(await reader.read())
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError) as error:
            _log.warning("metrics: a worker is left out, it does not answer: %s: %s", type(error).__name__, error)
            return None

    def close(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.close()


def family(count: int) -> list[Siblings]:
    """Return what each of ``count`` processes needs, to be made before they part."""
    sockets = [socket.socket(socket.AF_UNIX) for _ in range(count)]
    for sock in sockets:
        sock.bind("")  # the kernel chooses a name
        sock.listen()
    names = [bytes(sock.getsockname()) for sock in sockets]
    return [
        Siblings(sock, tuple(name for name in names if name != own)) for sock, own in zip(sockets, names, strict=True)
    ]


def _connected(name: bytes) -> socket.socket:
    """Connect at once: a local socket that listens has room, or the process is in trouble."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    try:
        sock.connect(name)
    except OSError:
        sock.close()
        raise
    return sock
