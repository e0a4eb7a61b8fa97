"""Tasks of services on real sockets, each with one way to answer: well, badly, or not at all."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from tests.harness.ports import free_port

#: What a task does with a connection whose request has been read.
Behaviour = Callable[[socket.socket], object]


def answer(status: str, body: object = "", *headers: str) -> Behaviour:
    """Answer by HTTP; a body that is no text or bytes becomes JSON."""
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    raw = text if isinstance(text, bytes) else text.encode()
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(raw)}", *headers, "", ""])
    return lambda connection: connection.sendall(head.encode() + raw)


READY = answer("200 OK", {"status": "ready", "group": "Weld"})
NOT_FOUND = answer("404 Not Found", "nothing here")
NO_HTTP: Behaviour = lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")  # noqa: E731 - as the others
CLOSES: Behaviour = lambda connection: connection.shutdown(socket.SHUT_RDWR)  # noqa: E731 - as the others


def issues(found: object) -> Behaviour:
    """Answer that the task is not ready, and why."""
    return answer("503 Service Unavailable", {"status": "not ready", "group": "Weld", "issues": found})


@dataclass
class Task:
    """One task that listens.

    Attributes:
        port: that it listens on.
        behaviour: what it does with a request; None: it accepts the connection and never answers.
        requests: the heads that it has read.
        broken: its client has closed the connection before everything was sent.
        streams: what it does with a request for a stream, if that is something else.
        tls: how it speaks TLS; None: it does not.
    """

    port: int
    behaviour: Behaviour | None
    requests: list[str] = field(default_factory=list)
    broken: threading.Event = field(default_factory=threading.Event)
    streams: Behaviour | None = None
    tls: ssl.SSLContext | None = None

    def serve(self, listener: socket.socket) -> None:
        """Answer one connection after the other, until the listener is shut down."""
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), ExitStack() as stack:
            stack.enter_context(connection)
            if self.tls is not None:
                connection = stack.enter_context(self.tls.wrap_socket(connection, server_side=True))
            try:
                self.requests.append(connection.recv(65536).decode())
                if self.streams is not None and self.requests[-1].startswith("GET /asset_stream "):
                    self.streams(connection)
                elif self.behaviour is None:
                    connection.recv(1)  # until the client gives up
                else:
                    self.behaviour(connection)
            except OSError:
                self.broken.set()


@contextmanager
def task(
    behaviour: Behaviour | None, address: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[Task]:
    """Listen on an address of this machine; all of 127.0.0.0/8 are."""
    port = port or free_port()
    with socket.create_server((address, port)) as listener:
        made = Task(port, behaviour, tls=tls)
        thread = threading.Thread(target=made.serve, args=(listener,), daemon=True)
        thread.start()
        yield made
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
