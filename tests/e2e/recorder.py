"""A recording middleman: what the operator really sends is counted between it and the server, not by its own word."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_DDL = re.compile(r"\s*(CREATE|DROP|INSERT|TERMINATE|PAUSE|RESUME|ALTER|DEFINE|ASSERT)\b", re.IGNORECASE)
_NOT_FORWARDED = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}

Connect = Callable[[], http.client.HTTPConnection]


@dataclass(frozen=True)
class Request:
    """One request as it came by."""

    method: str
    path: str
    body: bytes

    @property
    def writes(self) -> bool:
        """Whether it changes something: any method but GET at the engine, a statement that is no question at ksqlDB."""
        if self.path.startswith("/ksql"):
            return bool(_DDL.match(json.loads(self.body)["ksql"]))
        return self.method not in ("GET", "HEAD") and not self.path.startswith("/query")


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the engine's socket."""

    def __init__(self, path: str) -> None:
        """Connect to ``path`` at the first request."""
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Recorder:
    """Forwards every request to one server and keeps it.

    Attributes:
        requests: what came by, in order.
        address: ``host:port`` to talk to instead of the server.
    """

    def __init__(self, connect: Connect) -> None:
        """Listen on a free port of this host."""
        self.requests: list[Request] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _forwarding(connect, self.requests))
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        """Begin."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def writes(self) -> list[Request]:
        """The requests that change something."""
        return [request for request in self.requests if request.writes]


def _forwarding(connect: Connect, requests: list[Request]) -> type[BaseHTTPRequestHandler]:
    class Forward(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            requests.append(Request(self.command, self.path, body))
            upstream = connect()
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_FORWARDED}
            upstream.request(self.command, self.path, body or None, headers)
            answer = upstream.getresponse()
            data = answer.read()
            upstream.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _NOT_FORWARDED:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = do_PUT = do_HEAD = forward  # noqa: N815 - the names that the server looks for

        def log_message(self, *_: Any) -> None:
            """Say nothing: the requests are kept."""

    return Forward
