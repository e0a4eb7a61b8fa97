"""Takes a request to a service and its response back: status, headers and bytes as they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from aiohttp import web
from aiohttp.http import HttpVersion11

from routing_layer import problems
from routing_layer.dial import Dialer, Target
from routing_layer.metrics import Ended
from routing_layer.streams import CLEAN, Stream
from routing_layer.upstream import Exchange, Head, UpstreamBroke, UpstreamLate

_NOT_FORWARDED = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"trailer", b"upgrade"),
        *(b"transfer-encoding", b"content-length", b"expect", b"host", b"x-forwarded-for", b"x-forwarded-host"),
        b"x-forwarded-proto",
    ),
)
#: Idle connections to one service that are kept, and for how long (servers close theirs after 5 s and more).
_KEPT = 128
_KEPT_SECONDS = 2.0

#: Told the request and the status of an answer that begins.
OnHead = Callable[[web.BaseRequest, int], None]


class Passed(web.StreamResponse):
    """A response whose bytes are on the client's connection already."""

    def __init__(self, status: int, *, keep_alive: bool) -> None:
        """Only say what became of the connection."""
        super().__init__(status=status)
        self._reuse = keep_alive

    @property
    def keep_alive(self) -> bool:
        """Whether the client may use its connection again."""
        return self._reuse

    async def prepare(self, request: web.BaseRequest) -> None:
        """Do nothing: the head has been sent."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: the end has been sent, or must not be."""


class StreamAborted(Exception):
    """The stream was ended before its service had answered (its asset moved)."""


class Forwarder:
    """Passes requests to services.

    Attributes:
        draining: each answer from now on says that it is the last on its client's connection.
    """

    def __init__(self, dialer: Dialer, head_timeout: float, idle_timeout: float, on_head: OnHead) -> None:
        """Connect through ``dialer``; limits in seconds; ``on_head`` is told of each answer as it begins."""
        self._on_head = on_head
        self._dialer = dialer
        self._head_timeout = head_timeout
        self._idle_timeout = idle_timeout
        self._kept: dict[Target, deque[tuple[float, Exchange]]] = {}
        self.draining = False

    async def stream(self, request: web.BaseRequest, target: Target, stream: Stream) -> Passed:
        """Pass a response of any length, until ``stream`` ends.

        Raises:
            Problem: the service cannot be reached, or does not answer.
            StreamAborted: the stream was ended before the response began.
        """
        exchange = await self._dialer.connect(target)
        stream.opening(exchange)
        try:
            head, _ = await self._ask(exchange, request, target, collect=False)
        except problems.Problem as problem:
            if stream.ended is not None:
                raise StreamAborted from problem
            raise
        try:
            return await self._run(request, head, stream)
        finally:
            self._dialer.seen(target)

    async def answer(self, request: web.BaseRequest, target: Target) -> Passed:
        """Pass a response that is expected to be short, over a connection that is kept.

        Raises:
            Problem: the service cannot be reached, does not answer, or breaks before a short answer is complete.
        """
        exchange = self._idle(target) or await self._dialer.connect(target)
        try:
            head, body = await self._ask(exchange, request, target, collect=True)
            if body is None:
                stream = Stream("", "", self._idle_timeout)
                stream.opening(exchange)
                try:
                    return await self._run(request, head, stream)
                finally:
                    stream.close(Ended.UPSTREAM_ENDED)
        except BaseException:
            exchange.abort()
            raise
        if head.reusable:
            self._keep(target, exchange)
        else:
            exchange.abort()
        return self._whole(request, head, body)

    def close(self) -> None:
        """Close the kept connections."""
        for kept in self._kept.values():
            for _, exchange in kept:
                exchange.abort()
        self._kept.clear()

    async def _ask(
        self, exchange: Exchange, request: web.BaseRequest, target: Target, *, collect: bool
    ) -> tuple[Head, bytes | None]:
        try:
            return await exchange.ask(_request(request, target), limit=self._head_timeout, collect=collect)
        except UpstreamLate as error:
            exchange.abort()
            raise problems.late(str(target), self._head_timeout) from error
        except UpstreamBroke as error:
            exchange.abort()
            raise problems.unreachable(str(target), str(error)) from error

    async def _run(self, request: web.BaseRequest, head: Head, stream: Stream) -> Passed:
        client = _transport(request)
        framed = head.length is None and not head.bodiless and request.version >= HttpVersion11
        self._on_head(request, head.status)
        reuse = self._reusable(request) and (framed or head.length is not None or head.bodiless)
        client.write(_client_head(head, keep_alive=reuse, framed=framed))
        if request.method == "HEAD":
            return Passed(head.status, keep_alive=reuse)
        ended = await stream.run(head, request, client, framed=framed)
        if ended not in CLEAN or (ended is not Ended.UPSTREAM_ENDED and not framed):
            # No last chunk: the client must see that it did not get everything. What is pending is still sent, but a
            # client that takes nothing does not keep its connection.
            client.close()
            asyncio.get_running_loop().call_later(self._idle_timeout, client.abort)
            return Passed(head.status, keep_alive=False)
        return Passed(head.status, keep_alive=reuse)

    def _whole(self, request: web.BaseRequest, head: Head, body: bytes) -> Passed:
        self._on_head(request, head.status)
        reuse = self._reusable(request)
        data = _client_head(head, keep_alive=reuse, framed=False)
        _transport(request).write(data if request.method == "HEAD" else data + body)
        return Passed(head.status, keep_alive=reuse)

    def _reusable(self, request: web.BaseRequest) -> bool:
        return request.keep_alive and not self.draining

    def _idle(self, target: Target) -> Exchange | None:
        kept = self._kept.get(target)
        now = asyncio.get_running_loop().time()
        while kept:
            until, exchange = kept.pop()
            if until > now and exchange.transport is not None and not exchange.transport.is_closing():
                return exchange
            exchange.abort()
        return None

    def _keep(self, target: Target, exchange: Exchange) -> None:
        kept = self._kept.setdefault(target, deque())
        kept.append((asyncio.get_running_loop().time() + _KEPT_SECONDS, exchange))
        if len(kept) > _KEPT:
            kept.popleft()[1].abort()


def _transport(request: web.BaseRequest) -> asyncio.Transport:
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has left")
    return transport


def _request(request: web.BaseRequest, target: Target) -> bytes:
    """Build the request for the service: the query as it came, the client's headers, another Host.

    HEAD is asked as GET: services that only know GET would refuse it, and the answer to HEAD is the head of GET's.
    """
    query = request.raw_path.partition("?")[2].partition("#")[0]
    path = f"{target.path}?{query}" if query else target.path
    lines = [f"GET {path} HTTP/1.1".encode(errors="surrogateescape"), b"Host: " + target.authority.encode()]
    named = request.headers.get("Connection", "").lower()
    dropped = {token.strip().encode() for token in named.split(",")} if named else ()
    forwarded_for = (request.remote or "unknown").removeprefix("::ffff:")
    for name, value in request.raw_headers:
        lowered = name.lower()
        if lowered not in _NOT_FORWARDED and lowered not in dropped:
            lines.append(b"%b: %b" % (name, value))
        elif lowered == b"x-forwarded-for":
            forwarded_for = f"{value.decode('latin-1')}, {forwarded_for}"
    lines.append(b"X-Forwarded-For: " + forwarded_for.encode("latin-1", "replace"))
    lines.append(b"X-Forwarded-Host: " + request.headers.get("Host", "").encode("latin-1", "replace"))
    lines.append(b"X-Forwarded-Proto: " + request.scheme.encode())
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _client_head(head: Head, *, keep_alive: bool, framed: bool) -> bytes:
    lines = [b"HTTP/1.1 %d %b" % (head.status, head.reason), *head.fields, b"X-Accel-Buffering: no"]
    if framed:
        lines.append(b"Transfer-Encoding: chunked")
    elif head.length is not None:
        lines.append(b"Content-Length: %d" % head.length)
    if not keep_alive:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n"
