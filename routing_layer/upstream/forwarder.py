"""Forwards a request to a service and its response back: status, headers and bytes as they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote_to_bytes

from openfactory_common.settings_types import seconds
from routing_layer.client.request import Request
from routing_layer.metrics import EndReason
from routing_layer.problems import Problem, ProblemType
from routing_layer.ttl_cache import TtlCache
from routing_layer.upstream.connection import (
    Answer,
    Answered,
    Failure,
    ResponseHead,
    UpstreamConnection,
    UpstreamFailed,
)
from routing_layer.upstream.dialer import Dialer, Target
from routing_layer.upstream.request_head import RequestHeads
from routing_layer.upstream.response_head import ResponseHeads
from routing_layer.upstream.streams import ClientStream, Feed

#: Idle connections to one service that are kept, and for how long (servers close theirs after 5 s and more).
_MAX_KEPT = 128
_KEEP_SECONDS = 2.0

#: Parameters by which a client says itself from where on it wants events.
_STARTS = frozenset(("lastEventId", "since"))
#: How long clients do not wait for each other after a service has not let its stream be shared.
_REMEMBER_SECONDS = 300.0
#: How long a client waits for the head of a stream that another one of the same opens. A task that does not answer must
#: not hold up those whom another task of the service would serve.
_FOLLOW_SECONDS = 1.0


class StreamAborted(Exception):
    """The stream was ended before its service had answered (its asset moved)."""


#: What makes two requests the same stream: the service, the group and the query.
_ShareKey = tuple[Target, str, str]


@dataclass(frozen=True)
class Callbacks:
    """What the forwarder's owner does.

    Attributes:
        on_head: counts the status of a response that begins.
        on_mismatch: counts a response of another group's service.
        refuse: answers a request whose answer was expected to be short with a problem.
        fail: answers it where a bug has raised an exception.
    """

    on_head: Callable[[Request, int], None]
    on_mismatch: Callable[[], None]
    refuse: Callable[[Request, Problem], None]
    fail: Callable[[Request, Exception], None]


class Forwarder:
    """Forwards requests to services.

    Attributes:
        feeds: the shared streams that are open, and those whose first client waits for the head.
        callbacks: what happens elsewhere.
    """

    def __init__(
        self,
        dialer: Dialer,
        heads: RequestHeads,
        answers: ResponseHeads,
        head_timeout: float,
        idle_timeout: float,
        callbacks: Callbacks,
    ) -> None:
        """Connect through ``dialer``, send what ``heads`` makes of the client's requests; limits in seconds.

        ``answers`` makes the heads that clients get.
        """
        self.callbacks = callbacks
        self._dialer = dialer
        self._heads = heads
        self._build_known = lru_cache(1024)(heads.build)
        self._answers = answers
        self._head_timeout = head_timeout
        self._idle_timeout = idle_timeout
        self._kept: dict[Target, deque[tuple[float, UpstreamConnection]]] = {}
        self.feeds: dict[_ShareKey, Feed | asyncio.Future[None]] = {}
        self._shares = TtlCache[Target, bool](_REMEMBER_SECONDS)

    async def forward_stream(self, request: Request, target: Target, stream: ClientStream) -> None:
        """Begin a response of any length: ``stream`` passes it on when this returns.

        Raises:
            Problem: the service cannot be reached, does not answer, or is still another group's.
            StreamAborted: the stream was ended before the response began.
        """
        key = (target, stream.group, request.query) if _may_share(request) else None
        if key is not None and self._shares.get(target) is not False:
            await self._forward_shared(request, key, stream)
        else:
            await self._forward_alone(request, target, stream, None)

    async def _forward_shared(self, request: Request, key: _ShareKey, stream: ClientStream) -> None:
        """Follow the stream that another client of the same has opened, or wait for the one that opens it.

        Who has waited and cannot follow asks alone, and for the events since its request.
        """
        found = self.feeds.get(key)
        if isinstance(found, asyncio.Future):
            await asyncio.wait((found,), timeout=_FOLLOW_SECONDS)
            found = self.feeds.get(key)
            if not isinstance(found, Feed):
                request.held = True
                await self._forward_alone(request, key[0], stream, None)
                return
        if stream.end_reason is not None:
            raise StreamAborted
        if found is not None:
            self._start(request, found, stream)
            return
        opened = self.feeds[key] = asyncio.get_running_loop().create_future()
        try:
            await self._forward_alone(request, key[0], stream, key)
        finally:
            if self.feeds.get(key) is opened:
                del self.feeds[key]
            opened.set_result(None)

    async def _forward_alone(
        self, request: Request, target: Target, stream: ClientStream, key: _ShareKey | None
    ) -> None:
        """Ask the service; others may follow the answer if it is a stream that may be shared and has a ``key``."""
        connection, head, resumes = await self._open(request, target, stream)
        # What resumes, and an error, says nothing about others: anyone could have one, and so end the sharing of all.
        told = not resumes and head.event_stream and head.status == HTTPStatus.OK
        if head.shareable or (told and key is not None):
            self._shares.put(target, head.shareable)
        framed = _is_framed(head, request)
        shared = key is not None and not resumes and head.shareable and framed

        def end() -> None:
            if key is not None and self.feeds.get(key) is feed:
                del self.feeds[key]
            self._dialer.mark_reachable(target)
            self._dialer.log_failure(target, connection.fault)

        feed = Feed(connection, head, self._idle_timeout, end, framed=framed, shared=shared)
        if shared and key is not None:
            self.feeds[key] = feed
        try:
            self._start(request, feed, stream)
        except BaseException:
            feed.close()
            raise
        if request.method != "HEAD":
            feed.start()

    async def _open(
        self, request: Request, target: Target, stream: ClientStream
    ) -> tuple[UpstreamConnection, ResponseHead, bool]:
        """Return a connection, the head that came on it, and whether the request named a position for its client.

        A service that says it serves another group has got the address of the one that is asked for: names are looked
        up anew, once.
        """
        for _ in range(2):
            connection = await self._dialer.connect(target)
            stream.attach(connection)
            resume = _resume_field(request) if connection.retried or request.held else None
            try:
                data = self._build(request, target, resume)
                head, _ = await connection.request(data, limit=self._head_timeout, collect=False)
            except UpstreamFailed as error:
                connection.abort()
                if stream.end_reason is not None:
                    raise StreamAborted from error
                raise self.explain(target, error) from error
            # As bytes: what no group's name can be, such as broken UTF-8, is another group's, too.
            if head.group is None or unquote_to_bytes(head.group) == stream.group.encode(errors="replace"):
                self._dialer.mark_reachable(target)
                return connection, head, resume is not None
            connection.abort()
            request.held = True
            self._dialer.forget_addresses(target)
            self._dialer.log_failure(target, "it says that it serves another group")
            self.callbacks.on_mismatch()
        detail = f"another group's service answers at the address of {stream.group!r}; retry"
        raise Problem(ProblemType.NOT_READY, detail)

    def forward_answer(self, request: Request, target: Target) -> None:
        """Pass a response that is expected to be short, over a connection that is kept if there is one.

        A kept connection that ends before the first byte of a response says nothing about this request: it is sent
        once more, on a new connection. (RFC 9112, section 9.3.1; all requests here are GET.)
        """
        kept = self._take_kept(target)
        if kept is None:
            request.connection.run(self.connect_and_ask(request, target))
        else:
            _Answering(self, request, target, kept, is_kept=True)

    async def connect_and_ask(self, request: Request, target: Target) -> None:
        """Ask on a new connection."""
        try:
            _Answering(self, request, target, await self._dialer.connect(target), is_kept=False)
        except Problem as problem:
            self.callbacks.refuse(request, problem)
        except Exception as error:  # noqa: BLE001 - a request must not stay without an answer
            self.callbacks.fail(request, error)

    def close(self) -> None:
        """Close the kept connections."""
        for kept in self._kept.values():
            for _, connection in kept:
                connection.abort()
        self._kept.clear()

    def ask(self, connection: UpstreamConnection, request: Request, target: Target, answered: Answered) -> None:
        """Send a request whose answer is expected to be short."""
        data = self._build(request, target, None)
        connection.ask(data, answered, limit=self._head_timeout, collect=True)

    def explain(self, target: Target, error: UpstreamFailed) -> Problem:
        """Log why there is no response; return what the client is told."""
        self._dialer.log_failure(target, str(error))
        if error.failure is Failure.LATE:
            return Problem(ProblemType.UPSTREAM_LATE, f"the service did not answer within {self._head_timeout:g} s")
        malformed = error.failure is Failure.MALFORMED
        what = "answered what is not HTTP/1.1" if malformed else "ended the connection before its answer"
        return Problem(ProblemType.UPSTREAM_UNREACHABLE, f"the service {what}", cause=str(error))

    def pass_answer(
        self, connection: UpstreamConnection, request: Request, target: Target, head: ResponseHead, body: bytes | None
    ) -> None:
        """Pass a response that has come, and keep the connection for another request."""
        client = request.connection
        if body is None:
            stream = ClientStream("", "", self._idle_timeout)
            end = partial(self.drop, connection, target)
            feed = Feed(connection, head, self._idle_timeout, end, framed=_is_framed(head, request), shared=False)
            self._start(request, feed, stream)
            if request.method != "HEAD":
                feed.start()
            return
        if head.reusable and connection.open:
            self._keep(target, connection)
        else:
            self.drop(connection, target)
        self.callbacks.on_head(request, head.status)
        keep_alive = request.keep_alive and not client.closing
        data = self._answers.make(head, request.raw_headers, keep_alive=keep_alive, framed=False)
        if client.transport is not None:
            client.transport.write(data if request.method == "HEAD" else data + body)
        client.finish(keep_alive=keep_alive)

    def _start(self, request: Request, feed: Feed, stream: ClientStream) -> None:
        """Send the head to the client, and let it follow the body."""
        client, head = request.connection, feed.head
        if stream.end_reason is not None or client.transport is None or client.transport.is_closing():
            raise StreamAborted
        framed = _is_framed(head, request)
        self.callbacks.on_head(request, head.status)
        keep_alive = request.keep_alive and not client.closing and (framed or head.length is not None or head.bodiless)
        client.transport.write(self._answers.make(head, request.raw_headers, keep_alive=keep_alive, framed=framed))
        if request.method == "HEAD":
            stream.abandon(EndReason.UPSTREAM_ENDED)
            feed.close()
            client.finish(keep_alive=keep_alive)
            return
        client.slim()
        stream.start(feed, request, framed=framed, keep_alive=keep_alive)

    def _build(self, request: Request, target: Target, resume: bytes | None) -> bytes:
        build = self._build_known if request.head.known and resume is None else self._heads.build
        return build(request.raw_path, target, request.raw_headers, request.remote, request.scheme, resume)

    def _take_kept(self, target: Target) -> UpstreamConnection | None:
        kept = self._kept.get(target)
        now = asyncio.get_running_loop().time()
        while kept:
            until, connection = kept.pop()
            if until > now and connection.reusable:
                return connection
            self.drop(connection, target)
        return None

    def _keep(self, target: Target, connection: UpstreamConnection) -> None:
        loop = asyncio.get_running_loop()
        if not self._kept:
            loop.call_later(_KEEP_SECONDS, self._sweep)
        kept = self._kept.setdefault(target, deque())
        kept.append((loop.time() + _KEEP_SECONDS, connection))
        if len(kept) > _MAX_KEPT:
            self.drop(kept.popleft()[1], target)

    def drop(self, connection: UpstreamConnection, target: Target) -> None:
        """Close a connection, and log what was wrong with it."""
        connection.abort()
        self._dialer.log_failure(target, connection.fault)

    def _sweep(self) -> None:
        """Close the connections whose time is over, and forget the services without one."""
        loop = asyncio.get_running_loop()
        for target, kept in list(self._kept.items()):
            while kept and (kept[0][0] <= loop.time() or not kept[0][1].open):
                self.drop(kept.popleft()[1], target)
            if not kept:
                del self._kept[target]
        if self._kept:
            loop.call_later(_KEEP_SECONDS, self._sweep)


class _Answering:
    """A short response on its way; an `Exchange` of the client's connection."""

    __slots__ = ("_connection", "_forwarder", "_is_kept", "_request", "_target")
    endless = False

    def __init__(
        self, forwarder: Forwarder, request: Request, target: Target, connection: UpstreamConnection, *, is_kept: bool
    ) -> None:
        """Ask on ``connection``."""
        self._forwarder = forwarder
        self._request = request
        self._target = target
        self._connection: UpstreamConnection | None = connection
        self._is_kept = is_kept
        request.connection.take_over(self)
        forwarder.ask(connection, request, target, self._answered)

    def client_left(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    def client_full(self) -> None:
        """Nothing has been written yet."""

    client_ready = client_full

    def _answered(self, answer: Answer) -> None:
        connection, self._connection = self._connection, None
        if connection is None:  # the client has left
            return
        forwarder, request, target = self._forwarder, self._request, self._target
        transport = request.connection.transport
        if transport is None or transport.is_closing():  # it is about to
            forwarder.drop(connection, target)
            return
        if self._is_kept and _is_stale(answer):
            connection.abort()
            request.connection.run(forwarder.connect_and_ask(request, target))
        elif isinstance(answer, UpstreamFailed):
            connection.abort()
            forwarder.callbacks.refuse(request, forwarder.explain(target, answer))
        else:
            forwarder.pass_answer(connection, request, target, *answer)


def _is_stale(answer: Answer) -> bool:
    """Whether a kept connection had ended before it was used again: its answer is about the time without a request."""
    if isinstance(answer, UpstreamFailed):
        return answer.failure is Failure.UNTOUCHED
    return answer[0].status == HTTPStatus.REQUEST_TIMEOUT


def _is_framed(head: ResponseHead, request: Request) -> bool:
    """Whether the client gets the body in chunks."""
    return head.length is None and not head.bodiless and request.http11


def _may_share(request: Request) -> bool:
    """Whether others may get the answer too: nothing in the request asks for events that this client alone misses."""
    if request.method != "GET" or request.held or not request.http11 or request.header(b"last-event-id"):
        return False
    return not any(name in _STARTS for name, _ in parse_qsl(request.query))


def _resume_field(request: Request) -> bytes | None:
    """Return the field that asks for the events since the request came; None where the client says itself.

    A duration (``since=15m``) counts from the request, and its service would count it from when it was forwarded.
    """
    # The first of several counts, as at our service; without a value, a parameter says nothing.
    asked = dict(reversed(parse_qsl(request.query)))
    if request.method != "GET" or request.header(b"last-event-id") or "lastEventId" in asked:
        return None
    try:
        back = int(seconds(asked.get("since", "0")) * 1000)
    except (ValueError, OverflowError):  # a date and time, or what the service will refuse
        return None
    return b"Last-Event-ID: @%d" % max(0, request.arrived - back)
