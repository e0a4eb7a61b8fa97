"""One worker of the proxy, from its socket to its last stream."""

from __future__ import annotations

import asyncio
import random
import signal
import socket

import structlog

from openfactory_common.signals import STOP_SIGNALS
from routing_layer.app.proxy import Proxy
from routing_layer.client.connection import ClientServer
from routing_layer.client.tls import Certificate, TlsListener
from routing_layer.metrics import EndReason
from routing_layer.settings import Settings
from routing_layer.upstream.streams import ClientStream
from routing_layer.workers import WorkerPeers

_log = structlog.get_logger(__name__)
_BACKLOG = 8192
_METRICS_BACKLOG = 64
#: Bytes of the kernel's buffer for what one client has still to read; Linux doubles it for its own accounting. Left to
#: itself it grows to 4 MB: 2,000 clients that read nothing took minutes, and two thirds of a core, to fill theirs.
_SEND_BUFFER = 128 * 1024
#: Time for a load balancer to see that the proxy is not ready before the port is closed.
_NOTICE_SECONDS = 0.5
#: Clients of an ended stream come back after a random time from this range, so that they do not come together.
_RETRY_MILLISECONDS = (200, 3000)

_Port = asyncio.Server | asyncio.AbstractServer | TlsListener


def listen(port: int) -> socket.socket:
    """Return a listening socket on every address, IPv4 and IPv6."""
    dual = socket.has_dualstack_ipv6()
    family, host = (socket.AF_INET6, "::") if dual else (socket.AF_INET, "0.0.0.0")  # noqa: S104 - a proxy's purpose
    sock = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=dual)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)  # accepted connections inherit it
    return sock


async def serve(
    settings: Settings,
    sock: socket.socket,
    peers: WorkerPeers,
    metrics_sock: socket.socket | None = None,
    certificate: Certificate | None = None,
) -> None:
    """Serve on ``sock``, and metrics on ``metrics_sock`` if they have a port, until SIGTERM or SIGINT, then drain.

    With a ``certificate`` clients speak TLS; the separate port for metrics never does.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    proxy = Proxy(settings, peers)
    server = ClientServer(proxy.handle, proxy.guard, "http" if certificate is None else "https")
    await proxy.start()
    ports: list[_Port] = []
    if certificate is None:
        ports.append(await loop.create_server(server, sock=sock, backlog=_BACKLOG))
    else:
        ports.append(TlsListener(server, sock, certificate))
        proxy.supervisor.start("certificate", certificate.follow)
    if metrics_sock is not None:
        metrics_server = ClientServer(proxy.handle_metrics, proxy.metrics_guard)
        ports.append(await loop.create_server(metrics_server, sock=metrics_sock, backlog=_METRICS_BACKLOG))
    _log.info("serving on port %d", sock.getsockname()[1])
    try:
        await stop.wait()
        await _drain(proxy, server, ports[0], settings.drain_seconds)
    finally:
        for port in ports:
            port.close()
        for connection in list(server.connections):
            connection.abort()
        await proxy.close()
        # The process is about to end by itself: another signal would only change its exit code.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


async def _drain(proxy: Proxy, server: ClientServer, port: _Port, seconds: float) -> None:
    """Accept no more clients, answer the pending requests and end the streams, spread over ``seconds``.

    A request that comes while the port is still open is served as always: by the WHATWG standard a browser's
    EventSource that is answered 503 never comes back. For the same reason no connection is left open after its
    stream: the browser would use it to come back to the one process that can serve it no more.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    proxy.draining = server.draining = True
    _log.info("stopping: %d streams end within %g s", len(proxy.streams.all), seconds)
    await asyncio.sleep(min(_NOTICE_SECONDS, seconds / 4))
    port.close()
    await asyncio.sleep(0)  # the connections that were accepted last are known after it
    server.retire()
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
