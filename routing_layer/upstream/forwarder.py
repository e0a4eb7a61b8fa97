"""Forwards a request to a service and its response back: status, headers and bytes as they came."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote_to_bytes

from aiohttp import web
from aiohttp.http import HttpVersion11

from routing_layer.access.gate import RawHeaders
from routing_layer.metrics import EndReason
from routing_layer.problems import Problem, ProblemType
from routing_layer.upstream.connection import Failure, ResponseHead, UpstreamConnection, UpstreamFailed
from routing_layer.upstream.dialer import Dialer, Target
from routing_layer.upstream.streams import CLEAN, ClientStream

_NOT_FORWARDED = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"trailer", b"upgrade"),
        *(b"transfer-encoding", b"content-length", b"expect", b"host", b"x-forwarded-host", b"x-forwarded-proto"),
        # What a service that sees headers as environment variables takes for ours.
        *(b"x_forwarded_for", b"x_forwarded-for", b"x-forwarded_for", b"x_forwarded_host", b"x_forwarded-host"),
        *(b"x-forwarded_host", b"x_forwarded_proto", b"x_forwarded-proto", b"x-forwarded_proto"),
    )
)
#: Whole elements, to which another can be added: no quotation in them is left open.
_FORWARDED = re.compile(rb'(?:[^"\\]|"(?:[^"\\]|\\.)*")*')
#: Idle connections to one service that are kept, and for how long (servers close theirs after 5 s and more).
_MAX_KEPT = 128
_KEEP_SECONDS = 2.0

#: Key of a stream's request: when it came, in milliseconds since 1970.
ARRIVED = "arrived"
#: Key of a request: it had to wait, for a service or for its asset that moves.
HELD = "held"
#: Parameters by which a client says itself from where on it wants events.
_STARTS = frozenset(("lastEventId", "since"))

#: Called with the request and the status of a response that begins.
OnHead = Callable[[web.BaseRequest, int], None]


class ForwardedResponse(web.StreamResponse):
    """A response whose bytes are on the client's connection already."""

    def __init__(self, status: int, *, keep_alive: bool) -> None:
        """Keep whether the client may use its connection again."""
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


class _StaleConnection(Exception):
    """A kept connection had ended before it was used again."""


class Forwarder:
    """Forwards requests to services.

    Attributes:
        draining: each response from now on ends its client's connection.
    """

    def __init__(
        self,
        dialer: Dialer,
        head_timeout: float,
        idle_timeout: float,
        on_head: OnHead,
        on_mismatch: Callable[[], None],
        without_credentials: Callable[[RawHeaders], RawHeaders],
    ) -> None:
        """Connect through ``dialer``; limits in seconds.

        ``on_head`` is called for each response as it begins, ``on_mismatch`` for each of another group's service;
        ``without_credentials`` returns the fields of a request that are for its service.
        """
        self._without_credentials = without_credentials
        self._on_head = on_head
        self._on_mismatch = on_mismatch
        self._dialer = dialer
        self._head_timeout = head_timeout
        self._idle_timeout = idle_timeout
        self._kept: dict[Target, deque[tuple[float, UpstreamConnection]]] = {}
        self.draining = False

    async def forward_stream(self, request: web.BaseRequest, target: Target, stream: ClientStream) -> ForwardedResponse:
        """Pass a response of any length, until ``stream`` ends.

        A service that says it serves another group has got the address of the one that is asked for: names are looked
        up anew, once.

        Raises:
            Problem: the service cannot be reached, does not answer, or is still another group's.
            StreamAborted: the stream was ended before the response began.
        """
        for _ in range(2):
            connection = await self._dialer.connect(target)
            stream.attach(connection)
            resume = _resume_field(request) if connection.retried or HELD in request else None
            try:
                head, _ = await self._request(connection, request, target, collect=False, more=resume)
            except Problem as problem:
                if stream.end_reason is not None:
                    raise StreamAborted from problem
                raise
            # As bytes: what no group's name can be, such as broken UTF-8, is another group's, too.
            if head.group is None or unquote_to_bytes(head.group) == stream.group.encode(errors="replace"):
                break
            connection.abort()
            request[HELD] = True
            self._dialer.forget_addresses(target)
            self._dialer.log_failure(target, "it says that it serves another group")
            self._on_mismatch()
        else:
            detail = f"another group's service answers at the address of {stream.group!r}; retry"
            raise Problem(ProblemType.NOT_READY, detail)
        try:
            return await self._pass_stream(request, head, stream)
        finally:
            self._dialer.mark_reachable(target)
            self._dialer.log_failure(target, connection.fault)

    async def forward_answer(self, request: web.BaseRequest, target: Target) -> ForwardedResponse:
        """Pass a response that is expected to be short, over a connection that is kept.

        A kept connection that ends before the first byte of a response says nothing about this request: it is sent
        once more, on a new connection. (RFC 9112, section 9.3.1; all requests here are GET.)

        Raises:
            Problem: the service cannot be reached, does not answer, or breaks before a short response is complete.
        """
        connection = self._take_kept(target)
        if connection is not None:
            with contextlib.suppress(_StaleConnection):
                return await self._pass_answer(connection, request, target, kept=True)
        return await self._pass_answer(await self._dialer.connect(target), request, target, kept=False)

    def close(self) -> None:
        """Close the kept connections."""
        for kept in self._kept.values():
            for _, connection in kept:
                connection.abort()
        self._kept.clear()

    async def _pass_answer(
        self, connection: UpstreamConnection, request: web.BaseRequest, target: Target, *, kept: bool
    ) -> ForwardedResponse:
        try:
            head, body = await self._request(connection, request, target, collect=True, kept=kept)
            if body is None:
                stream = ClientStream("", "", self._idle_timeout)
                stream.attach(connection)
                try:
                    return await self._pass_stream(request, head, stream)
                finally:
                    stream.close(EndReason.UPSTREAM_ENDED)
        except BaseException:
            connection.abort()
            raise
        finally:
            self._dialer.log_failure(target, connection.fault)
        if head.reusable and connection.open:
            self._keep(target, connection)
        else:
            connection.abort()
        self._on_head(request, head.status)
        reuse = request.keep_alive and not self.draining
        data = _client_head(head, keep_alive=reuse, framed=False)
        _transport(request).write(data if request.method == "HEAD" else data + body)
        await _drain(request, self._idle_timeout)
        return ForwardedResponse(head.status, keep_alive=reuse)

    async def _request(
        self,
        connection: UpstreamConnection,
        request: web.BaseRequest,
        target: Target,
        *,
        collect: bool,
        kept: bool = False,
        more: bytes | None = None,
    ) -> tuple[ResponseHead, bytes | None]:
        try:
            data = _upstream_request(request, self._without_credentials(request.raw_headers), target, more)
            head, body = await connection.request(data, limit=self._head_timeout, collect=collect)
        except UpstreamFailed as error:
            connection.abort()
            if kept and error.failure is Failure.UNTOUCHED:
                raise _StaleConnection from error
            self._dialer.log_failure(target, str(error))
            if error.failure is Failure.LATE:
                detail = f"the service did not answer within {self._head_timeout:g} s"
                raise Problem(ProblemType.UPSTREAM_LATE, detail) from error
            malformed = error.failure is Failure.MALFORMED
            what = "answered what is not HTTP/1.1" if malformed else "ended the connection before its answer"
            raise Problem(ProblemType.UPSTREAM_UNREACHABLE, f"the service {what}", cause=str(error)) from error
        if kept and head.status == HTTPStatus.REQUEST_TIMEOUT:  # it is about the time without a request
            raise _StaleConnection
        return head, body

    async def _pass_stream(
        self, request: web.BaseRequest, head: ResponseHead, stream: ClientStream
    ) -> ForwardedResponse:
        client = _transport(request)
        framed = head.length is None and not head.bodiless and request.version >= HttpVersion11
        self._on_head(request, head.status)
        reuse = request.keep_alive and not self.draining and (framed or head.length is not None or head.bodiless)
        client.write(_client_head(head, keep_alive=reuse, framed=framed))
        if request.method == "HEAD":
            return ForwardedResponse(head.status, keep_alive=reuse)
        reason = await stream.run(head, request, client, framed=framed)
        stream.close(reason)
        if reason not in CLEAN or (reason is not EndReason.UPSTREAM_ENDED and not framed):
            # No last chunk: the client must see that it did not get everything. What is pending is still sent, but a
            # client that reads nothing does not keep its connection (nor what is pending our memory).
            if reason is EndReason.CLIENT_STALLED:
                client.abort()
            else:
                client.close()
                asyncio.get_running_loop().call_later(self._idle_timeout, client.abort)
            return ForwardedResponse(head.status, keep_alive=False)
        await _drain(request, self._idle_timeout)
        return ForwardedResponse(head.status, keep_alive=reuse)

    def _take_kept(self, target: Target) -> UpstreamConnection | None:
        kept = self._kept.get(target)
        now = asyncio.get_running_loop().time()
        while kept:
            until, connection = kept.pop()
            if until > now and connection.reusable:
                return connection
            self._drop(connection, target)
        return None

    def _keep(self, target: Target, connection: UpstreamConnection) -> None:
        loop = asyncio.get_running_loop()
        if not self._kept:
            loop.call_later(_KEEP_SECONDS, self._sweep)
        kept = self._kept.setdefault(target, deque())
        kept.append((loop.time() + _KEEP_SECONDS, connection))
        if len(kept) > _MAX_KEPT:
            self._drop(kept.popleft()[1], target)

    def _drop(self, connection: UpstreamConnection, target: Target) -> None:
        connection.abort()
        self._dialer.log_failure(target, connection.fault)

    def _sweep(self) -> None:
        """Close the connections whose time is over, and forget the services without one."""
        loop = asyncio.get_running_loop()
        for target, kept in list(self._kept.items()):
            while kept and (kept[0][0] <= loop.time() or not kept[0][1].open):
                self._drop(kept.popleft()[1], target)
            if not kept:
                del self._kept[target]
        if self._kept:
            loop.call_later(_KEEP_SECONDS, self._sweep)


async def _drain(request: web.BaseRequest, limit: float) -> None:
    """Wait until the client has read what was written for it, except for a rest that is bounded.

    Raises:
        ConnectionResetError: the client has left, or has not read it within ``limit`` seconds; it is cut.
    """
    if not request.protocol.writing_paused:
        return
    try:
        async with asyncio.timeout(limit):
            await request.writer.drain()
    except TimeoutError:
        _transport(request).abort()
        raise ConnectionResetError("the client does not read") from None


def _transport(request: web.BaseRequest) -> asyncio.Transport:
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has left")
    return transport


def _resume_field(request: web.BaseRequest) -> bytes | None:
    """Return the field that asks for the events since the request came; None where the client says itself."""
    query = request.raw_path.partition("?")[2].partition("#")[0]
    names = {name for name, _ in parse_qsl(query)}  # without a value, a parameter says nothing
    if request.method != "GET" or request.headers.get("Last-Event-ID") or names & _STARTS:
        return None
    return b"Last-Event-ID: @%d" % request[ARRIVED]


def _upstream_request(request: web.BaseRequest, fields: RawHeaders, target: Target, more: bytes | None) -> bytes:
    """Build the request for the service: the query as it came, the client's ``fields``, another Host, and ``more``.

    HEAD is sent as GET: services that only know GET would refuse it, and the answer to HEAD is the head of GET's.
    """
    query = request.raw_path.partition("?")[2].partition("#")[0]
    path = f"{target.path}?{query}" if query else target.path
    lines = [f"GET {path} HTTP/1.1".encode(errors="surrogateescape"), b"Host: " + target.authority.encode()]
    dropped = {
        token.strip().lower() for name, value in fields if name.lower() == b"connection" for token in value.split(b",")
    }
    forwarded_for: list[bytes] = []
    forwarded: list[bytes] = []
    for name, value in fields:
        lowered = name.lower()
        if lowered == b"x-forwarded-for":
            forwarded_for.append(value)
        elif lowered == b"forwarded":
            forwarded.append(value)
        elif lowered == b"last-event-id" and more is not None:
            continue  # it is empty: a service would read it instead of ours
        elif lowered not in _NOT_FORWARDED and lowered not in dropped:
            lines.append(b"%b: %b" % (name, value))
    client = (request.remote or "unknown").removeprefix("::ffff:").encode()
    forwarded_for.append(client)
    # In order: the last one is the address that connected to us, and the only one that is known to be true.
    lines.append(b"X-Forwarded-For: " + b", ".join(filter(None, forwarded_for)))
    if forwarded:  # RFC 7239: without ours the last element, which is the proxy's, would be the client's invention
        own = b'for="[%b]"' % client if b":" in client else b"for=%b" % client
        lines.append(b"Forwarded: " + b", ".join([*filter(_FORWARDED.fullmatch, forwarded), own]))
    lines.append(b"X-Forwarded-Host: " + request.headers.get("Host", "").encode("latin-1", "replace"))
    lines.append(b"X-Forwarded-Proto: " + request.scheme.encode())
    if more is not None:
        lines.append(more)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _client_head(head: ResponseHead, *, keep_alive: bool, framed: bool) -> bytes:
    lines = [b"HTTP/1.1 %d %b" % (head.status, head.reason), *head.fields, b"X-Accel-Buffering: no"]
    if framed:
        lines.append(b"Transfer-Encoding: chunked")
    elif head.length is not None:
        lines.append(b"Content-Length: %d" % head.length)
    if not keep_alive:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n"
