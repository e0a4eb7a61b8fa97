"""A real HTTP server on a real socket that answers what a test tells it, in the way a test tells it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Manner(Enum):
    """How an answer is sent."""

    WHOLE = "whole"
    CHUNKED = "in chunks, as ksqlDB sends rows"
    RESET = "half of the body, then a reset"
    CUT = "in chunks, closed before the last one"
    DRIP = "a byte at a time, for as long as a user reads"
    DRIP_HEAD = "the head a byte at a time, for as long as a user reads"
    SILENT = "nothing, until the server ends"
    OPEN = "in chunks, with no end until the server ends"


@dataclass(frozen=True)
class Reply:
    """One answer."""

    body: bytes = b""
    status: int = 200
    content_type: str = "application/json"
    manner: Manner = Manner.WHOLE


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]


Answer = Callable[[Request], Reply]


@dataclass
class Site:
    """A running server: its address and what was asked of it."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def count(self, path: str) -> int:
        """Return how often ``path`` was asked for."""
        return sum(request.path == path for request in self.requests)


@contextmanager
def serve(answer: Answer) -> Iterator[Site]:
    """Serve ``answer`` on a free local port for the time of the block."""
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(site, answer))
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def in_turn(*replies: Reply) -> Answer:
    """Answer with these replies one after the other, the last one for ever."""
    rest = list(replies)
    return lambda _: rest.pop(0) if len(rest) > 1 else rest[0]


def _handler(site: Site, answer: Answer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            site.connections += 1
            super().setup()

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def log_message(self, *_: Any) -> None:
            """Keep the test's output clean."""

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            request = Request(self.command, self.path, body, {k.lower(): v for k, v in self.headers.items()})
            site.requests.append(request)
            reply = answer(request)
            try:
                _SENDERS[reply.manner](self, reply, site)
            except OSError:
                self.close_connection = True

    return Handler


def _whole(handler: BaseHTTPRequestHandler, reply: Reply, _: Site) -> None:
    _head(handler, reply, ("content-length", str(len(reply.body))))
    handler.wfile.write(reply.body)


def _chunked(handler: BaseHTTPRequestHandler, reply: Reply, _: Site) -> None:
    _head(handler, reply, ("transfer-encoding", "chunked"))
    _chunks(handler, reply.body)
    handler.wfile.write(b"0\r\n\r\n")


def _cut(handler: BaseHTTPRequestHandler, reply: Reply, _: Site) -> None:
    _head(handler, reply, ("transfer-encoding", "chunked"))
    _chunks(handler, reply.body)
    handler.close_connection = True


def _open(handler: BaseHTTPRequestHandler, reply: Reply, site: Site) -> None:
    _head(handler, reply, ("transfer-encoding", "chunked"))
    _chunks(handler, reply.body)
    handler.wfile.flush()
    site.over.wait()
    handler.close_connection = True


def _reset(handler: BaseHTTPRequestHandler, reply: Reply, _: Site) -> None:
    _head(handler, reply, ("content-length", str(len(reply.body))))
    handler.wfile.write(reply.body[: len(reply.body) // 2])
    handler.wfile.flush()
    # Linger of zero seconds: closing sends RST instead of FIN.
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def _drip(handler: BaseHTTPRequestHandler, reply: Reply, site: Site) -> None:
    _head(handler, reply, ("content-length", str(10**6)))
    _drops(handler, site, b" ")


def _drip_head(handler: BaseHTTPRequestHandler, _: Reply, site: Site) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
    _drops(handler, site, b"x")


def _drops(handler: BaseHTTPRequestHandler, site: Site, drop: bytes) -> None:
    while not site.over.wait(0.02):
        handler.wfile.write(drop)
        handler.wfile.flush()


def _silent(handler: BaseHTTPRequestHandler, _: Reply, site: Site) -> None:
    site.over.wait()
    handler.close_connection = True


def _head(handler: BaseHTTPRequestHandler, reply: Reply, framing: tuple[str, str]) -> None:
    handler.send_response(reply.status)
    if reply.content_type:
        handler.send_header("content-type", reply.content_type)
    handler.send_header(*framing)
    handler.end_headers()


def _chunks(handler: BaseHTTPRequestHandler, body: bytes, size: int = 4096) -> None:
    for start in range(0, len(body), size):
        part = body[start : start + size]
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
    handler.wfile.flush()


_SENDERS = {
    Manner.WHOLE: _whole,
    Manner.CHUNKED: _chunked,
    Manner.RESET: _reset,
    Manner.CUT: _cut,
    Manner.OPEN: _open,
    Manner.DRIP: _drip,
    Manner.DRIP_HEAD: _drip_head,
    Manner.SILENT: _silent,
}


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition.

    Raises:
        AssertionError: it did not come true in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.01)
