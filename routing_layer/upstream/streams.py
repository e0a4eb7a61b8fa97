"""Open streams: the way of each from its service to its client, and the table to end the right ones."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from aiohttp import web

from routing_layer.metrics import EndReason, Metrics
from routing_layer.upstream.connection import ResponseHead, UpstreamConnection

#: More than this pending for a client pauses its upstream (the transport's own high-water mark).
_HIGH_WATER = 64 * 1024
#: How long an end waits until the current event is complete.
_EVENT_END_SECONDS = 1.0
_TAIL = 4
_BOUNDARIES = (b"\n\n", b"\r\n\r\n", b"\r\r")
#: Ends that the client sees as clean: the response is complete and it reconnects at once.
CLEAN = frozenset(
    (
        *(EndReason.MOVED, EndReason.GROUP_REMOVED, EndReason.DRAINED, EndReason.UPSTREAM_ENDED),
        EndReason.TOKEN_EXPIRED,
    )
)


@dataclass(eq=False, slots=True)
class ClientStream:
    """One response on its way to one client.

    Attributes:
        asset: whose events they are; empty for a whole group's.
        group: the group whose service sends them.
        idle: seconds of silence that end it.
        end_reason: why it ended, None before.
    """

    asset: str
    group: str
    idle: float
    end_reason: EndReason | None = None
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _connection: UpstreamConnection | None = None
    _ended: asyncio.Future[EndReason] | None = None
    _client: asyncio.Transport | None = None
    _request: web.BaseRequest | None = None
    _framed: bool = False
    _sse: bool = False
    _tail: bytes = b"\n\n"
    _last_data: float = 0.0
    _pending_end: tuple[EndReason, bytes] | None = None
    _silence_timer: asyncio.TimerHandle | None = None
    _stall: asyncio.Task[None] | None = None

    @property
    def started(self) -> bool:
        """Whether the service has answered, so that its body was passed on."""
        return self._ended is not None

    def attach(self, connection: UpstreamConnection) -> None:
        """Use ``connection``, on which the service is asked; an end now aborts it."""
        self._connection = connection
        if self.end_reason is not None:
            connection.abort()

    async def run(
        self, head: ResponseHead, request: web.BaseRequest, client: asyncio.Transport, *, framed: bool
    ) -> EndReason:
        """Pass the body to the client until the stream ends; return why."""
        connection, loop = self._connection, self._loop
        if connection is None or self.end_reason is not None:
            return self.end_reason or EndReason.UPSTREAM_BROKE
        self._request, self._client = request, client
        self._framed, self._sse = framed, head.event_stream
        self._ended = loop.create_future()
        self._last_data = loop.time()
        self._silence_timer = loop.call_later(self.idle, self._check_silence)

        def finish(complete: bool) -> None:
            self._finish(EndReason.UPSTREAM_ENDED if complete else EndReason.UPSTREAM_BROKE)

        connection.pass_body(head.body(), self._pass, finish)
        return await self._ended

    def end(self, reason: EndReason, hint: bytes = b"") -> None:
        """End it cleanly, after the current event; ``hint`` is one more field for the client."""
        if self.end_reason is not None or self._pending_end is not None:
            return
        if self._ended is None:
            self.end_reason = reason
            if self._connection is not None:
                self._connection.abort()
        elif self._tail.endswith(_BOUNDARIES):
            self._finish(reason, hint)
        else:
            self._pending_end = reason, hint
            self._loop.call_later(_EVENT_END_SECONDS, self._finish, reason)

    def close(self, reason: EndReason) -> None:
        """Free everything; only the first reason counts."""
        if self.end_reason is None:
            self.end_reason = reason
        if self._silence_timer is not None:
            self._silence_timer.cancel()
        if self._stall is not None:
            self._stall.cancel()
        if self._connection is not None:
            self._connection.abort()

    def _pass(self, payload: bytes) -> None:
        client = self._client
        if client is None or client.is_closing():
            return
        client.write(b"%x\r\n%b\r\n" % (len(payload), payload) if self._framed else payload)
        self._tail = payload[-_TAIL:] if len(payload) >= _TAIL else (self._tail + payload)[-_TAIL:]
        self._last_data = self._loop.time()
        if self._pending_end is not None and self._tail.endswith(_BOUNDARIES):
            self._finish(*self._pending_end)
        elif client.get_write_buffer_size() > _HIGH_WATER and self._stall is None and self._connection is not None:
            self._connection.pause()
            self._stall = self._loop.create_task(self._wait_for_client())

    async def _wait_for_client(self) -> None:
        """Throttle the service until the client has read what is pending (backpressure)."""
        try:
            async with asyncio.timeout(self.idle):
                if self._request is not None:
                    await self._request.writer.drain()
        except TimeoutError:
            self._finish(EndReason.CLIENT_STALLED)
        except ConnectionError:
            self._finish(EndReason.CLIENT_LEFT)
        else:
            self._stall = None
            self._last_data = self._loop.time()
            if self._connection is not None:
                self._connection.resume()

    def _check_silence(self) -> None:
        # One timer a stream that looks at the time of the last event, instead of one that each event resets.
        left = self._last_data + self.idle - self._loop.time()
        if left <= 0 and self._stall is None:
            self._finish(EndReason.UPSTREAM_SILENT)
        else:
            self._silence_timer = self._loop.call_later(max(left, 0.05), self._check_silence)

    def _finish(self, reason: EndReason, hint: bytes = b"") -> None:
        if self._ended is None or self._ended.done():
            return
        self.end_reason = reason
        client = self._client
        if client is not None and not client.is_closing() and reason in CLEAN and self._framed:
            framed = b"%x\r\n%b\r\n" % (len(hint), hint) if hint and self._sse else b""
            client.write(framed + b"0\r\n\r\n")
        self._ended.set_result(reason)


class StreamTable:
    """All open streams, found by asset and by group.

    Attributes:
        all: the open streams, those whose service has not answered yet included.
    """

    def __init__(self, metrics: Metrics) -> None:
        """Start without streams."""
        self.all: set[ClientStream] = set()
        self._by_asset: dict[str, set[ClientStream]] = {}
        self._metrics = metrics

    def add(self, stream: ClientStream) -> None:
        """Add a stream, before its service is asked."""
        self.all.add(stream)
        self._by_asset.setdefault(stream.asset, set()).add(stream)

    def remove(self, stream: ClientStream) -> None:
        """Remove a stream that is over, and count why it ended."""
        self.all.discard(stream)
        same_asset = self._by_asset.get(stream.asset)
        if same_asset is not None:
            same_asset.discard(stream)
            if not same_asset:
                del self._by_asset[stream.asset]
        if stream.started and stream.end_reason is not None:
            self._metrics.stream_ends[stream.end_reason].inc()

    def end_moved(self, asset: str, group: str | None) -> None:
        """End the streams of the asset that come from any other group than ``group``."""
        for stream in list(self._by_asset.get(asset, ())):
            if stream.group != group:
                stream.end(EndReason.MOVED)

    def end_groups(self, groups: frozenset[str]) -> None:
        """End the streams of these groups."""
        for stream in list(self.all):
            if stream.group in groups:
                stream.end(EndReason.GROUP_REMOVED)
