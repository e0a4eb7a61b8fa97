"""A limit on a whole exchange, not on each read of it.

httpx's read limit starts anew with every byte, so a server (or something in between) that drips would hold the
operator for ever. Here every read, write and connect of an exchange gets what is left of one total time.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpcore
import httpx

_ends_at: ContextVar[float] = ContextVar("exchange_ends_at", default=float("inf"))
_KEEP_ALIVE_SECONDS = 60.0
_CONNECTIONS = 10


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End what happens on this transport within the block after ``seconds``, with httpx's time-out errors.

    Within another limit the one that ends first counts.
    """
    token = _ends_at.set(min(_ends_at.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _ends_at.reset(token)


def transport(context: ssl.SSLContext) -> httpx.HTTPTransport:
    """Return an httpx transport with a connection pool that keeps to ``time_limit``."""
    return _BoundedTransport(context)


class _BoundedTransport(httpx.HTTPTransport):
    """httpx's own transport over a pool whose sockets know the limit (httpx has no parameter for that)."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(verify=context)
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=_CONNECTIONS,
            max_keepalive_connections=_CONNECTIONS,
            keepalive_expiry=_KEEP_ALIVE_SECONDS,
            network_backend=_BoundedBackend(),
        )


class _BoundedBackend(httpcore.SyncBackend):
    """Opens sockets as httpcore does, wrapped."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        limit = _left(timeout, httpcore.ConnectTimeout)
        return _BoundedStream(super().connect_tcp(host, port, limit, local_address, socket_options))


class _BoundedStream(httpcore.NetworkStream):
    """A socket whose every operation ends when the exchange must."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        limit = _left(timeout, httpcore.ConnectTimeout)
        return _BoundedStream(self._stream.start_tls(ssl_context, server_hostname, limit))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(timeout: float | None, expired: type[Exception]) -> float | None:
    """Return the shorter of httpx's own limit and what is left of the exchange."""
    left = _ends_at.get() - time.monotonic()
    if left <= 0:
        raise expired("the time for the whole exchange is over")
    limit = left if timeout is None else min(timeout, left)
    return None if limit == float("inf") else limit
