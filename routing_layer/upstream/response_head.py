"""The head of a service's response, as a client gets it. Pure."""

from __future__ import annotations

from functools import lru_cache

from routing_layer.cors import Cors
from routing_layer.upstream.connection import ResponseHead

_CACHE_CONTROL = b"cache-control:"


class ResponseHeads:
    """Makes the heads that clients get."""

    def __init__(self, cors: Cors, *, private: bool) -> None:
        """Say what browsers may do with the answers by ``cors``; ``private``: answers depend on the client's token."""
        self._cors = cors
        self._private = private
        # Most heads of a second are the same object: `connection.parse_head` is cached.
        self._make = lru_cache(256)(self._put_together)

    def make(
        self, head: ResponseHead, raw_headers: tuple[tuple[bytes, bytes], ...], *, keep_alive: bool, framed: bool
    ) -> bytes:
        """Return the head for the client whose request had these fields.

        Args:
            head: the service's.
            raw_headers: the request's.
            keep_alive: the connection goes on after the response.
            framed: the body follows in chunks.
        """
        return self._make(head, self._cors.fields(raw_headers), keep_alive, framed)

    def _put_together(self, head: ResponseHead, cors: tuple[bytes, ...], keep_alive: bool, framed: bool) -> bytes:
        fields = self._cors.replace(head.fields, cors)
        lines = [b"HTTP/1.1 %d %b" % (head.status, head.reason), *fields, b"X-Accel-Buffering: no"]
        if self._private and not any(line.lower().startswith(_CACHE_CONTROL) for line in head.fields):
            lines.append(b"Cache-Control: private, no-store")  # a cache would give it to a client without the grant
        if framed:
            lines.append(b"Transfer-Encoding: chunked")
        elif head.length is not None:
            lines.append(b"Content-Length: %d" % head.length)
        if not keep_alive:
            lines.append(b"Connection: close")
        return b"\r\n".join(lines) + b"\r\n\r\n"
