"""Open streams: each one's way from its service to its client, and the table that ends the right ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from aiohttp import web

from routing_layer.metrics import Ended, Metrics
from routing_layer.upstream import Exchange, Head, body_of

#: More than this pending for a client pauses its upstream (the transport's own high-water mark).
_HIGH_WATER = 64 * 1024
#: How long an end waits for the event that is being sent to be whole.
_WHOLE_EVENT_SECONDS = 1.0
_TAIL = 4
_BOUNDARIES = (b"\n\n", b"\r\n\r\n", b"\r\r")
#: Ends that the client sees as clean: the response is complete and it reconnects at once.
CLEAN = frozenset((Ended.MOVED, Ended.GROUP_REMOVED, Ended.DRAINED, Ended.UPSTREAM_ENDED))


class Stream:
    """One response on its way to one client.

    Attributes:
        asset: whose events they are; empty for a whole group's.
        group: the group whose service sends them.
        ended: why it ended, None before.
    """

    __slots__ = (
        "_client",
        "_ending",
        "_exchange",
        "_framed",
        "_idle",
        "_last",
        "_loop",
        "_outcome",
        "_request",
        "_silence",
        "_sse",
        "_stalled",
        "_tail",
        "asset",
        "ended",
        "group",
    )

    def __init__(self, asset: str, group: str, idle: float) -> None:
        """Start before the service has been asked; ``idle`` seconds of silence end it."""
        self.asset = asset
        self.group = group
        self.ended: Ended | None = None
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._exchange: Exchange | None = None
        self._outcome: asyncio.Future[Ended] | None = None
        self._client: asyncio.Transport | None = None
        self._request: web.BaseRequest | None = None
        self._framed = False
        self._sse = False
        self._tail = b"\n\n"
        self._last = 0.0
        self._ending: tuple[Ended, bytes] | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._stalled: asyncio.Task[None] | None = None

    @property
    def started(self) -> bool:
        """Whether the service has answered, so that its body was passed on."""
        return self._outcome is not None

    def opening(self, exchange: Exchange) -> None:
        """The service is being asked through ``exchange``; an end now aborts it."""
        self._exchange = exchange
        if self.ended is not None:
            exchange.abort()

    async def run(self, head: Head, request: web.BaseRequest, client: asyncio.Transport, *, framed: bool) -> Ended:
        """Pass the body to the client until it ends, whoever ends it; return who did."""
        exchange = self._exchange
        if exchange is None or self.ended is not None:
            return self.ended or Ended.UPSTREAM_BROKE
        self._request, self._client = request, client
        self._framed, self._sse = framed, head.event_stream
        self._outcome = self._loop.create_future()
        self._last = self._loop.time()
        self._silence = self._loop.call_later(self._idle, self._check_silence)
        exchange.deliver(body_of(head), self._pass, self._finished)
        return await self._outcome

    def end(self, reason: Ended, hint: bytes = b"") -> None:
        """End it cleanly, after the event that is being sent; ``hint`` is one more field for the client."""
        if self.ended is not None or self._ending is not None:
            return
        if self._outcome is None:
            self.ended = reason
            if self._exchange is not None:
                self._exchange.abort()
        elif self._tail.endswith(_BOUNDARIES):
            self._finish(reason, hint if self._sse else b"")
        else:
            self._ending = reason, hint
            self._loop.call_later(_WHOLE_EVENT_SECONDS, self._finish, reason)

    def close(self, reason: Ended) -> None:
        """Free everything; only the first reason counts."""
        if self.ended is None:
            self.ended = reason
        if self._silence is not None:
            self._silence.cancel()
        if self._stalled is not None:
            self._stalled.cancel()
        if self._exchange is not None:
            self._exchange.abort()

    def _pass(self, payload: bytes) -> None:
        client = self._client
        if client is None or client.is_closing():
            return
        client.write(b"%x\r\n%b\r\n" % (len(payload), payload) if self._framed else payload)
        self._tail = payload[-_TAIL:] if len(payload) >= _TAIL else (self._tail + payload)[-_TAIL:]
        self._last = self._loop.time()
        if self._ending is not None and self._tail.endswith(_BOUNDARIES):
            reason, hint = self._ending
            self._finish(reason, hint if self._sse else b"")
        elif client.get_write_buffer_size() > _HIGH_WATER and self._stalled is None and self._exchange is not None:
            self._exchange.pause()
            self._stalled = self._loop.create_task(self._wait_for_client())

    async def _wait_for_client(self) -> None:
        """Hold the service back until the client has taken what is pending."""
        try:
            async with asyncio.timeout(self._idle):
                if self._request is not None:
                    await self._request.writer.drain()
        except TimeoutError:
            self._finish(Ended.CLIENT_STALLED)
        except ConnectionError:
            self._finish(Ended.CLIENT_LEFT)
        else:
            self._stalled = None
            self._last = self._loop.time()
            if self._exchange is not None:
                self._exchange.resume()

    def _check_silence(self) -> None:
        # One timer a stream that looks at the time of the last event, instead of one that each event sets anew.
        left = self._last + self._idle - self._loop.time()
        if left <= 0 and self._stalled is None:
            self._finish(Ended.UPSTREAM_SILENT)
        else:
            self._silence = self._loop.call_later(max(left, 0.05), self._check_silence)

    def _finished(self, complete: bool) -> None:
        self._finish(Ended.UPSTREAM_ENDED if complete else Ended.UPSTREAM_BROKE)

    def _finish(self, reason: Ended, hint: bytes = b"") -> None:
        if self._outcome is None or self._outcome.done():
            return
        self.ended = reason
        client = self._client
        if client is not None and not client.is_closing() and reason in CLEAN and self._framed:
            framed = b"%x\r\n%b\r\n" % (len(hint), hint) if hint else b""
            client.write(framed + b"0\r\n\r\n")
        self._outcome.set_result(reason)


class Streams:
    """All open streams, found by asset and by group."""

    def __init__(self, metrics: Metrics) -> None:
        """Start with none."""
        self._by_asset: dict[str, set[Stream]] = {}
        self._all: set[Stream] = set()
        self._metrics = metrics

    def __len__(self) -> int:
        """How many are open."""
        return len(self._all)

    def __iter__(self) -> Iterator[Stream]:
        """Go through a copy."""
        return iter(list(self._all))

    def add(self, stream: Stream) -> None:
        """Know of a stream, from before its service is asked."""
        self._all.add(stream)
        self._by_asset.setdefault(stream.asset, set()).add(stream)

    def remove(self, stream: Stream) -> None:
        """Forget a stream that is over."""
        self._all.discard(stream)
        same = self._by_asset.get(stream.asset)
        if same is not None:
            same.discard(stream)
            if not same:
                del self._by_asset[stream.asset]

    def count_end(self, reason: Ended) -> None:
        """Count why one ended."""
        self._metrics.ended[reason].inc()

    def moved(self, asset: str, group: str | None) -> None:
        """End the asset's streams from any other group than ``group``."""
        for stream in list(self._by_asset.get(asset, ())):
            if stream.group != group:
                stream.end(Ended.MOVED)

    def groups_removed(self, groups: frozenset[str]) -> None:
        """End the streams of these groups."""
        for stream in self:
            if stream.group in groups:
                stream.end(Ended.GROUP_REMOVED)
