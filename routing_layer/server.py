"""One process of the proxy, from its socket to its last stream."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import ERROR

from openfactory_common.connections import GuardedHandler, GuardedServer, State, whole_response
from openfactory_common.early_exit import ENDING
from routing_layer import problems, request_line
from routing_layer.app import BEGUN, ENDLESS, Proxy
from routing_layer.metrics import Ended
from routing_layer.settings import Settings
from routing_layer.siblings import Siblings
from routing_layer.streams import Streams

_log = structlog.get_logger(__name__)
_BACKLOG = 8192
_METRICS_BACKLOG = 64
#: Time for a load balancer to see that we are not ready before the door is closed.
_NOTICE_SECONDS = 0.5
#: Clients of an ended stream come back after a random time from this range, so that they do not come together.
_RETRY_MILLISECONDS = (200, 3000)


class _Handler(GuardedHandler):
    """Answers what is not HTTP as everything else is answered, and logs no line a scan could fill a disk with."""

    __slots__ = ()

    def refusal(self, status: HTTPStatus) -> bytes:
        """Return the problem document of a connection that is ended without a request."""
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            problem = problems.overloaded()
        elif status is HTTPStatus.REQUEST_TIMEOUT:
            problem = problems.late_request()
        else:
            problem = problems.long_request()
        return whole_response(status, problems.CONTENT_TYPE, problem.document())

    def awaits_answer(self) -> bool:
        """Whether the end of what the client sends can be anything but its leaving.

        A stream may be silent for long: a client that leaves must not keep its service until the next event. Before
        the head has gone out, the client may be one that has sent all that it has to say.
        """
        request = self._current_request
        return request is None or BEGUN not in request or request.get("route") not in ENDLESS

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the problem document of a request that cannot be read."""
        if status != HTTPStatus.BAD_REQUEST:
            return super().handle_error(request, status, exc, message)
        said = (message or "").partition("\n")[0].rstrip(": ")
        response = problems.bad_request(said or "not an HTTP/1.1 request").response()
        response.force_close()
        return response

    def retire(self) -> None:
        """End the connection: at once if nothing is asked on it, otherwise when the answer is complete."""
        if self.entry is None or self.entry.state is not State.BUSY:
            self.force_close()
        else:
            self.close()


class _Server(GuardedServer):
    """A server whose connections and requests are of our kind."""

    handler = _Handler

    def _make_request(
        self, message: RawRequestMessage, payload: Any, protocol: web.RequestHandler, *rest: Any
    ) -> web.BaseRequest:
        """Take the request in origin-form, with its refusal if it has one."""
        # What the parser has refused comes as a request without headers.
        message, refused = (message, None) if message is ERROR else request_line.prepared(message)
        request = super()._make_request(message, payload, protocol, *rest)
        if refused is not None:
            request[request_line.REFUSED] = refused
        return request

    def retire(self) -> None:
        """Let no connection outlive the request that is on it."""
        for connection in self.connections:
            if isinstance(connection, _Handler):
                connection.retire()


def listen(port: int) -> socket.socket:
    """Return a listening socket on every address, IPv4 and IPv6."""
    dual = socket.has_dualstack_ipv6()
    family, host = (socket.AF_INET6, "::") if dual else (socket.AF_INET, "0.0.0.0")  # noqa: S104 - a proxy's purpose
    return socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=dual)


async def serve(
    settings: Settings, sock: socket.socket, siblings: Siblings, metrics: socket.socket | None = None
) -> None:
    """Serve on ``sock``, and ``metrics`` for what has a port of its own, until SIGTERM or SIGINT, then drain."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in ENDING:
        loop.add_signal_handler(number, stop.set)
    proxy = Proxy(settings, siblings)
    # The handler must be cancelled when its client leaves: without it every silent stream stays open (measured).
    options: dict[str, Any] = {"handler_cancellation": True, "access_log": None, "auto_decompress": False}
    server = _Server(proxy.handle, guard=proxy.guard, **options)
    runner = web.ServerRunner(server, shutdown_timeout=1.0)
    measured = web.ServerRunner(_Server(proxy.handle_metrics, guard=proxy.metrics_guard, **options))
    await runner.setup()
    await measured.setup()
    site = web.SockSite(runner, sock, backlog=_BACKLOG)
    await proxy.start()
    if metrics is not None:
        await web.SockSite(measured, metrics, backlog=_METRICS_BACKLOG).start()
    await site.start()
    _log.info("serving on port %d", sock.getsockname()[1])
    try:
        await stop.wait()
        await drain(proxy, server, site, settings.drain_seconds)
    finally:
        await runner.cleanup()
        await measured.cleanup()
        await proxy.close()
        # The process is about to end by itself: another signal would only change its exit code.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)


async def drain(proxy: Proxy, server: _Server, site: web.SockSite, seconds: float) -> None:
    """Take no more clients, answer those that have asked and end the streams, spread over ``seconds``.

    Whoever gets through while the port is still open is served as always: by the WHATWG standard a browser's
    EventSource that is answered 503 never comes back. For the same reason no connection is left open after its
    stream: the browser would use it to come back to the one process that can serve it no more.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    proxy.drain()
    _log.info("stopping: %d streams end within %g s", len(proxy.streams), seconds)
    await asyncio.sleep(min(_NOTICE_SECONDS, seconds / 4))
    await site.stop()
    await asyncio.sleep(0)  # the connections that were accepted last are known after it
    server.retire()
    while True:
        # The last fifth is kept for flushing.
        await _end(proxy.streams, started + seconds * 0.8)
        if not server.connections or loop.time() >= started + seconds:
            break
        await asyncio.sleep(0.05)


async def _end(streams: Streams, until: float) -> None:
    """End the streams that have begun, in any order, spread evenly from now to ``until`` (the loop's time).

    One whose service has not answered yet is left to begin: its client could only be told an error.
    """
    begun = [stream for stream in streams if stream.started]
    random.shuffle(begun)
    for left in range(len(begun), 0, -1):
        stream = begun[left - 1]
        if stream.ended is None:  # its client has not left meanwhile
            stream.end(Ended.DRAINED, hint())
            pause = (until - asyncio.get_running_loop().time()) / left
            await asyncio.sleep(max(0.0, pause) if left > 1 else 0)


def hint() -> bytes:
    """Return the SSE field that tells one client when to come back."""
    return b"retry: %d\n\n" % random.randint(*_RETRY_MILLISECONDS)  # noqa: S311 - spreads clients, no secret
