"""Open streams: the way of each from its service to its clients, and the table to end the right ones."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection

import structlog

from routing_layer.access.expiry import ExpiringStreams
from routing_layer.access.gate import Permit
from routing_layer.access.key_set import Key
from routing_layer.client.connection import ClientConnection
from routing_layer.client.request import Request
from routing_layer.metrics import EndReason, Metrics
from routing_layer.upstream.connection import ResponseHead, UpstreamConnection

_log = structlog.get_logger(__name__)
#: How long an end waits until the current event is complete. With the looks at expired tokens it is less than 1 s.
_EVENT_END_SECONDS = 0.75
#: More than this pending for a client of a shared stream cuts it: the others must not wait, and it can resume.
SHARED_BUFFER = 256 * 1024
_TAIL = 4
#: Two line ends, each of which is CRLF, LF or CR (WHATWG HTML, 9.2.6), also before the second one's LF has come.
_BOUNDARIES = (b"\n\n", b"\r\r", b"\n\r\n", b"\n\r")
_BOUNDARY = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
#: Of a line that is not complete yet; a longer one has no id.
_LONGEST_LINE = 4096
#: Ends that the client sees as clean: the response is complete and it reconnects at once.
CLEAN = frozenset(
    (
        *(EndReason.MOVED, EndReason.GROUP_REMOVED, EndReason.DRAINED, EndReason.UPSTREAM_ENDED),
        EndReason.TOKEN_EXPIRED,
    )
)


class Feed:
    """The body of one response on its way from a service: to one client, or to several where the service allows it.

    Of several clients each begins and leaves between two events, and none waits for another: one that reads too little
    is cut. A single one slows its service down instead.

    Attributes:
        head: the head of the response.
        shared: several clients may follow it.
    """

    __slots__ = (
        "_connection", "_ending", "_framed", "_idle", "_joining", "_last_data", "_last_id", "_line", "_loop", "_on_end",
        "_paused", "_silence_timer", "_streams", "_tail", "head", "shared",
    )  # fmt: skip

    def __init__(
        self,
        connection: UpstreamConnection,
        head: ResponseHead,
        idle: float,
        on_end: Callable[[], None],
        *,
        framed: bool,
        shared: bool,
    ) -> None:
        """Wait for the first client.

        Args:
            connection: it has answered with ``head``.
            head: the response's.
            idle: seconds of silence that end it.
            on_end: called once, when the last client has left or the service's response has ended.
            framed: the clients get chunks.
            shared: several clients may follow it.
        """
        self.head = head
        self.shared = shared
        self._connection = connection
        self._idle = idle
        self._on_end = on_end
        self._framed = framed
        self._loop = asyncio.get_running_loop()
        self._streams: dict[ClientStream, None] = {}
        self._joining: tuple[ClientStream, ...] = ()  # begin with the next event
        self._ending: tuple[ClientStream, ...] = ()  # leave after the current event
        self._tail = b"\n\n"
        self._last_id = b""
        self._line = b""
        self._last_data = self._loop.time()
        self._paused = False
        self._silence_timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Pass the body on from now."""
        self._last_data = self._loop.time()
        self._silence_timer = self._loop.call_later(self._idle, self._check_silence)
        self._connection.pass_body(self.head.body(), self._pass, self._finish)
        if self._paused:  # by what came with the head, or before: reading has just begun
            self._connection.pause()

    def add(self, stream: ClientStream) -> None:
        """Let another client follow, from the next event on."""
        if self._at_boundary:
            self._begin(stream)
        else:
            self._joining += (stream,)

    def discard(self, stream: ClientStream) -> None:
        """Forget a client that is served no more."""
        self._streams.pop(stream, None)
        if self._joining or self._ending:
            self._joining = tuple(other for other in self._joining if other is not stream)
            self._ending = tuple(other for other in self._ending if other is not stream)
        if not self._streams and not self._joining:
            self.close()

    def end_after_event(self, stream: ClientStream) -> bool:
        """Whether ``stream`` is between two events; otherwise it is ended when the current one is complete."""
        if self._at_boundary or stream in self._joining:
            return True
        self._ending += (stream,)
        return False

    def pause(self) -> None:
        """Read nothing from the service until `resume`: its only client does not read."""
        self._paused = True
        self._connection.pause()

    def resume(self) -> None:
        """Read again."""
        if self._paused:
            self._paused = False
            self._last_data = self._loop.time()
            self._connection.resume()

    def close(self) -> None:
        """Leave the service."""
        if self._silence_timer is not None:
            self._silence_timer.cancel()
            self._silence_timer = None
        self._connection.abort()
        on_end, self._on_end = self._on_end, _nothing
        on_end()

    @property
    def _at_boundary(self) -> bool:
        return self._tail.endswith(_BOUNDARIES)

    def _begin(self, stream: ClientStream) -> None:
        self._streams[stream] = None
        self._greet(stream)

    def _greet(self, stream: ClientStream) -> None:
        if self._last_id:
            # Its position: without an event before the connection breaks, it would come back without one.
            stream.write(self._frame(b": joined\nid: %b\n\n" % self._last_id))

    def _frame(self, payload: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(payload), payload) if self._framed else payload

    def _pass(self, payload: bytes) -> None:
        framed = self._frame(payload)
        for stream in tuple(self._streams):
            stream.write(framed)
        before, self._tail = self._tail, payload[-_TAIL:] if len(payload) >= _TAIL else (self._tail + payload)[-_TAIL:]
        self._last_data = self._loop.time()
        if self.shared:
            self._follow(before, payload)
        if self._ending and self._at_boundary:
            ending, self._ending = self._ending, ()
            for stream in ending:
                stream.finish()

    def _follow(self, before: bytes, payload: bytes) -> None:
        """Keep the position, and let those begin who wait for the next event."""
        start = _first_boundary(before, payload) if self._joining else None
        if start is not None:
            self._keep_id(payload[:start])
            joining, self._joining = self._joining, ()
            for stream in joining:  # all, before any of them can end
                self._streams[stream] = None
            rest, payload = payload[start:], payload[start:]
            for stream in joining:
                if stream.end_reason is None:
                    self._greet(stream)
                    if rest:
                        stream.write(self._frame(rest))
        self._keep_id(payload)

    def _keep_id(self, payload: bytes) -> None:
        """Keep the id of the last line of ``payload`` that has one, and the line that is not complete yet."""
        text = self._line + payload
        found = text.rfind(b"\nid:") + 1
        stop = text.find(b"\n", found) if found or text.startswith(b"id:") else -1
        if stop < 0 and found:  # the last one is not complete
            found = text.rfind(b"\nid:", 0, found - 1) + 1
            stop = text.find(b"\n", found) if found or text.startswith(b"id:") else -1
        if stop >= 0:
            self._last_id = text[found + len(b"id:") : stop].strip()
        line = text[text.rfind(b"\n") + 1 :]
        self._line = line if len(line) <= _LONGEST_LINE else b":"  # of which no id can become

    def _check_silence(self) -> None:
        # One timer a feed that looks at the time of the last event, instead of one that each event resets.
        left = self._last_data + self._idle - self._loop.time()
        if left <= 0 and not self._paused:
            self._end_all(EndReason.UPSTREAM_SILENT)
        else:
            self._silence_timer = self._loop.call_later(max(left, 0.05), self._check_silence)

    def _finish(self, complete: bool) -> None:
        self._end_all(EndReason.UPSTREAM_ENDED if complete else EndReason.UPSTREAM_BROKE)

    def _end_all(self, reason: EndReason) -> None:
        streams = (*self._streams, *self._joining)
        self.close()
        for stream in streams:
            stream.finish(reason)


class ClientStream:
    """One response on its way to one client; an `Exchange` of its connection from the head on.

    Attributes:
        asset: whose events they are; empty for a whole group's.
        group: the group whose service sends them; empty for an answer that is no stream.
        end_reason: why it ended, None before.
        permit: what its client's token allows.
    """

    __slots__ = (
        "_client", "_connection", "_feed", "_framed", "_keep_alive", "_loop", "_pending_end", "_stall_seconds",
        "_stall_timer", "_table", "asset", "end_reason", "group", "permit",
    )  # fmt: skip

    def __init__(
        self, asset: str, group: str, stall: float, table: StreamTable | None = None, permit: Permit | None = None
    ) -> None:
        """Wait for the head of its response.

        Args:
            asset: whose events they are.
            group: the group whose service sends them.
            stall: seconds for which the client may read nothing.
            table: it is taken out of this one at its end.
            permit: what its client's token allows; it ends with that.
        """
        self.asset = asset
        self.group = group
        self.permit = permit
        self.end_reason: EndReason | None = None
        self._stall_seconds = stall
        self._table = table
        self._loop = asyncio.get_running_loop()
        self._connection: UpstreamConnection | None = None
        self._feed: Feed | None = None
        self._client: ClientConnection | None = None
        self._framed = False
        self._keep_alive = False
        self._pending_end: tuple[EndReason, bytes] | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    @property
    def started(self) -> bool:
        """Whether the service has answered, so that its body is passed on."""
        return self._client is not None

    @property
    def endless(self) -> bool:
        """Whether it ends only with its client."""
        return bool(self.group)

    def attach(self, connection: UpstreamConnection) -> None:
        """Use ``connection``, on which the service is asked for this client alone; an end now aborts it."""
        self._connection = connection
        if self.end_reason is not None:
            connection.abort()

    def start(self, feed: Feed, request: Request, *, framed: bool, keep_alive: bool) -> None:
        """Follow ``feed``; the head has been written. ``keep_alive``: the connection goes on after a clean end."""
        self._connection = None
        self._feed, self._client = feed, request.connection
        self._framed, self._keep_alive = framed, keep_alive
        self._client.take_over(self)
        feed.add(self)
        if self._client.full:
            self.client_full()

    def abandon(self, reason: EndReason) -> None:
        """End it before it has started."""
        if self.end_reason is None:
            self.end_reason = reason
        if self._connection is not None:
            self._connection.abort()
        if self._table is not None:
            self._table.remove(self)

    def write(self, framed: bytes) -> None:
        """Pass a piece of the body to the client."""
        client = self._client
        if client is None or client.transport is None or client.transport.is_closing():
            return
        client.transport.write(framed)
        if (
            self._stall_timer is not None
            and self._feed is not None
            and self._feed.shared
            and client.transport.get_write_buffer_size() > SHARED_BUFFER
        ):
            self.finish(EndReason.CLIENT_STALLED)

    def end(self, reason: EndReason, hint: bytes = b"") -> None:
        """End it cleanly, after the current event; ``hint`` is one more field for the client."""
        if self.end_reason is not None or self._pending_end is not None:
            return
        if self._feed is None:
            self.end_reason = reason
            if self._connection is not None:
                self._connection.abort()
        elif self._feed.end_after_event(self):
            self.finish(reason, hint)
        else:
            self._pending_end = reason, hint
            self._loop.call_later(_EVENT_END_SECONDS, self.finish, reason)

    def finish(self, reason: EndReason | None = None, hint: bytes = b"") -> None:
        """End it now, for ``reason`` or for the one that waited for the end of the event."""
        if self.end_reason is not None:
            return
        if reason is None:
            reason, hint = self._pending_end or (EndReason.UPSTREAM_ENDED, b"")
        client, feed = self._client, self._feed
        self._leave(reason)
        if client is None or client.transport is None or client.transport.is_closing():
            return
        clean = reason in CLEAN and (reason is EndReason.UPSTREAM_ENDED or self._framed)
        if clean:
            if self._framed:
                sse = feed is not None and feed.head.event_stream
                framed = b"%x\r\n%b\r\n" % (len(hint), hint) if hint and sse else b""
                client.transport.write(framed + b"0\r\n\r\n")
            client.finish(keep_alive=self._keep_alive and not client.closing)
        elif reason is EndReason.CLIENT_STALLED:
            client.abort()  # what is pending would keep our memory
        else:
            client.close()  # no last chunk: the client must see that it did not get everything

    def client_left(self) -> None:
        """Stop: the client's connection has ended."""
        if self.end_reason is None:
            self._leave(EndReason.CLIENT_LEFT)

    def client_full(self) -> None:
        """Throttle the service (backpressure), unless it serves others too; either way the client has its time."""
        if self._feed is not None and not self._feed.shared:
            self._feed.pause()
        if self._stall_timer is None:
            self._stall_timer = self._loop.call_later(self._stall_seconds, self.finish, EndReason.CLIENT_STALLED)

    def client_ready(self) -> None:
        """Go on."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        if self._feed is not None:
            self._feed.resume()

    def _leave(self, reason: EndReason) -> None:
        self.end_reason = reason
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.discard(self)
        if self._table is not None:
            self._table.remove(self)


class StreamTable:
    """All open streams, found by asset and by group.

    Attributes:
        all: the open streams, those whose service has not answered yet included.
        expiring: those that end with their client's token.
    """

    def __init__(self, metrics: Metrics, on_end: Callable[[str], None] = lambda _group: None) -> None:
        """Start without streams; ``on_end`` is called with the group of each one that is over."""
        self.all: set[ClientStream] = set()
        self.expiring = ExpiringStreams()
        self._by_asset: dict[str, set[ClientStream]] = {}
        self._metrics = metrics
        self._on_end = on_end

    def add(self, stream: ClientStream) -> None:
        """Add a stream, before its service is asked."""
        self.all.add(stream)
        if stream.permit is not None:
            self.expiring.add(stream.permit.expires, stream)
        self._by_asset.setdefault(stream.asset, set()).add(stream)

    def remove(self, stream: ClientStream) -> None:
        """Remove a stream that is over, and count why it ended."""
        self.all.discard(stream)
        self._on_end(stream.group)
        if stream.permit is not None:
            self.expiring.remove(stream.permit.expires, stream)
        same_asset = self._by_asset.get(stream.asset)
        if same_asset is not None:
            same_asset.discard(stream)
            if not same_asset:
                del self._by_asset[stream.asset]
        _log.debug("stream ends", asset=stream.asset, group=stream.group, reason=stream.end_reason)
        if stream.started and stream.end_reason is not None:
            self._metrics.stream_ends[stream.end_reason].inc()

    def end_moved(self, asset: str, group: str | None) -> None:
        """End the streams of the asset that come from any other group than ``group``."""
        for stream in list(self._by_asset.get(asset, ())):
            if stream.group != group:
                stream.end(EndReason.MOVED)

    def end_keys(self, keys: Collection[Key]) -> None:
        """End the streams whose tokens were verified with any other key than these."""
        for stream in list(self.all):
            if stream.permit is not None and stream.permit.key is not None and stream.permit.key not in keys:
                stream.end(EndReason.TOKEN_EXPIRED)

    def end_groups(self, groups: frozenset[str]) -> None:
        """End the streams of these groups."""
        for stream in list(self.all):
            if stream.group in groups:
                stream.end(EndReason.GROUP_REMOVED)


def _first_boundary(before: bytes, payload: bytes) -> int | None:
    """Return where the first event that ends in ``payload`` ends there; ``before`` are the bytes before it."""
    found = _BOUNDARY.search(before + payload, max(0, len(before) - _TAIL + 1))
    while found is not None and found.end() <= len(before):
        found = _BOUNDARY.search(before + payload, found.start() + 1)
    return None if found is None else found.end() - len(before)


def _nothing() -> None:
    pass
