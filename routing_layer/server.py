"""One worker of the proxy, from its socket to its last stream."""

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

from openfactory_common.connections import REFUSALS, GuardedHandler, GuardedServer, State, whole_response
from openfactory_common.signals import STOP_SIGNALS
from routing_layer.app.proxy import BEGUN, ENDLESS, NO_ROOM, ROUTE, Proxy
from routing_layer.metrics import EndReason
from routing_layer.problems import CONTENT_TYPE, Problem, ProblemType
from routing_layer.request_line import REFUSED, prepare
from routing_layer.settings import Settings
from routing_layer.upstream.streams import ClientStream
from routing_layer.workers import WorkerPeers

_log = structlog.get_logger(__name__)
_BACKLOG = 8192
_METRICS_BACKLOG = 64
#: Time for a load balancer to see that the proxy is not ready before the port is closed.
_NOTICE_SECONDS = 0.5
#: Clients of an ended stream come back after a random time from this range, so that they do not come together.
_RETRY_MILLISECONDS = (200, 3000)


class _Handler(GuardedHandler):
    """Answers what is not HTTP with a problem document, and logs no line that a scan could fill a disk with."""

    __slots__ = ()

    def refusal(self, status: HTTPStatus) -> bytes:
        """Return the problem document of a connection that is ended without a request."""
        problem = {
            HTTPStatus.SERVICE_UNAVAILABLE: Problem(ProblemType.TOO_MANY_CONNECTIONS, NO_ROOM),
            HTTPStatus.REQUEST_TIMEOUT: Problem(ProblemType.LATE_REQUEST, "the head was not complete in time"),
        }.get(status, Problem(ProblemType.LONG_REQUEST, REFUSALS[HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE]))
        return whole_response(status, CONTENT_TYPE, problem.document())

    def awaits_answer(self) -> bool:
        """Whether a client that sends no more can still wait for its answer.

        A stream may be silent for long: a client that leaves must not keep its service until the next event. Before
        the head has gone out, the client may be one that has closed only its half of the connection.
        """
        request = self._current_request
        return request is None or BEGUN not in request or request.get(ROUTE) not in ENDLESS

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Return the problem document of a request that cannot be parsed."""
        if status != HTTPStatus.BAD_REQUEST:
            return super().handle_error(request, status, exc, message)
        # What the parser quotes may be a token.
        detail = (message or "").partition("\n")[0].partition(" b'")[0].partition(' b"')[0]
        detail = detail.rstrip(": ") or "not an HTTP/1.1 request"
        response = Problem(ProblemType.BAD_REQUEST, detail).response()
        response.force_close()
        return response


class _Server(GuardedServer):
    """A server whose connections are those above."""

    handler = _Handler

    def _make_request(
        self, message: RawRequestMessage, payload: Any, protocol: web.RequestHandler, *rest: Any
    ) -> web.BaseRequest:
        """Take the request in origin-form, with its refusal if it has one."""
        # A request that the parser has refused comes without headers.
        message, problem = (message, None) if message is ERROR else prepare(message)
        request = super()._make_request(message, payload, protocol, *rest)
        if problem is not None:
            request[REFUSED] = problem
        return request

    def retire_connections(self) -> None:
        """End each connection: at once if no request is on it, otherwise when its response is complete."""
        for connection in self.connections:
            if isinstance(connection, _Handler):
                if connection.entry is not None and connection.entry.state is State.BUSY:
                    connection.close()
                else:
                    connection.force_close()


def listen(port: int) -> socket.socket:
    """Return a listening socket on every address, IPv4 and IPv6."""
    dual = socket.has_dualstack_ipv6()
    family, host = (socket.AF_INET6, "::") if dual else (socket.AF_INET, "0.0.0.0")  # noqa: S104 - a proxy's purpose
    return socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=dual)


async def serve(
    settings: Settings, sock: socket.socket, peers: WorkerPeers, metrics_sock: socket.socket | None = None
) -> None:
    """Serve on ``sock``, and metrics on ``metrics_sock`` if they have a port, until SIGTERM or SIGINT, then drain."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    proxy = Proxy(settings, peers)
    # The handler must be cancelled when its client leaves: without it every silent stream stays open (measured).
    options: dict[str, Any] = {"handler_cancellation": True, "access_log": None, "auto_decompress": False}
    server = _Server(proxy.handle, guard=proxy.guard, **options)
    runner = web.ServerRunner(server, shutdown_timeout=1.0)
    metrics_runner = web.ServerRunner(_Server(proxy.handle_metrics, guard=proxy.metrics_guard, **options))
    await runner.setup()
    await metrics_runner.setup()
    site = web.SockSite(runner, sock, backlog=_BACKLOG)
    await proxy.start()
    if metrics_sock is not None:
        await web.SockSite(metrics_runner, metrics_sock, backlog=_METRICS_BACKLOG).start()
    await site.start()
    _log.info("serving on port %d", sock.getsockname()[1])
    try:
        await stop.wait()
        await _drain(proxy, server, site, settings.drain_seconds)
    finally:
        await runner.cleanup()
        await metrics_runner.cleanup()
        await proxy.close()
        # The process is about to end by itself: another signal would only change its exit code.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


async def _drain(proxy: Proxy, server: _Server, site: web.SockSite, seconds: float) -> None:
    """Accept no more clients, answer the pending requests and end the streams, spread over ``seconds``.

    A request that comes while the port is still open is served as always: by the WHATWG standard a browser's
    EventSource that is answered 503 never comes back. For the same reason no connection is left open after its
    stream: the browser would use it to come back to the one process that can serve it no more.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    proxy.forwarder.draining = True
    _log.info("stopping: %d streams end within %g s", len(proxy.streams.all), seconds)
    await asyncio.sleep(min(_NOTICE_SECONDS, seconds / 4))
    await site.stop()
    await asyncio.sleep(0)  # the connections that were accepted last are known after it
    server.retire_connections()
    while True:
        # One whose service has not answered yet is left to begin: its client could only get an error.
        started_streams = [stream for stream in proxy.streams.all if stream.started]
        await _end_spread(started_streams, started + seconds * 0.8)  # the last fifth is kept for flushing
        if not server.connections or loop.time() >= started + seconds:
            break
        await asyncio.sleep(0.05)


async def _end_spread(streams: list[ClientStream], until: float) -> None:
    """End the streams in random order, spread evenly from now to ``until`` (the loop's time).

    Each gets an SSE field that tells its client when to come back.
    """
    random.shuffle(streams)
    for left in range(len(streams), 0, -1):
        stream = streams[left - 1]
        if stream.end_reason is None:  # its client has not left meanwhile
            retry = random.randint(*_RETRY_MILLISECONDS)  # noqa: S311 - spreads clients, no secret
            stream.end(EndReason.DRAINED, b"retry: %d\n\n" % retry)
            pause = (until - asyncio.get_running_loop().time()) / left
            await asyncio.sleep(max(0.0, pause) if left > 1 else 0)
