"""The proxy's resources, and what each request goes through."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from http import HTTPStatus
from urllib.parse import parse_qsl, quote, unquote

import structlog
from aiohttp import web

from openfactory_common.connections import ConnectionGuard, ConnectionLimits, Ending, Entry, descriptors
from openfactory_common.registry import GroupLookup as Source
from openfactory_common.registry import Registry
from routing_layer import metrics as exposition
from routing_layer import problems, request_line
from routing_layer.dial import Dialer, Target
from routing_layer.forward import Forwarder, Passed, StreamAborted
from routing_layer.ksql import Ksql, open_session
from routing_layer.lookup import Lookup
from routing_layer.membership import Membership, NegativeCache
from routing_layer.memory import give_back, gives_back
from routing_layer.metrics import Ended, Metrics, Rendered
from routing_layer.registry_follower import RegistryFollower
from routing_layer.registry_follower import open_session as open_operator_session
from routing_layer.settings import RoutingMode, Settings
from routing_layer.siblings import Siblings
from routing_layer.streams import Stream, Streams
from routing_layer.supervise import Supervisor
from routing_layer.watch import Follower

_log = structlog.get_logger(__name__)
_STREAM = "/asset_stream"
_GROUP = "/group/"
#: Where a request keeps the name that it is counted under.
_ROUTE = "route"
#: The head of the request's answer is on its way.
BEGUN = "begun"
#: Routes whose answer may never end.
ENDLESS = frozenset(("asset_stream", "group_stream"))
#: Routes whose answer needs a descriptor more.
_FORWARDED = ENDLESS | {"asset_state"}
#: A client may take nothing for this much longer than its stream allows, which has ended it by then.
_STALL_SECONDS = 5.0
#: Connections of the port for metrics.
_METRICS_CLIENTS = 32
#: URLs of services that are kept taken apart.
_TARGETS = 4096
#: Seconds between two attempts of a request that is held.
_AGAIN = 0.5
#: How often a request follows an asset that moves while its stream is being opened.
_MOVES = 3

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Proxy:
    """Everything of one process, and its request handler."""

    def __init__(self, settings: Settings, siblings: Siblings) -> None:
        """Put the parts together; nothing is opened yet but the client sessions."""
        self.settings = settings
        self.siblings = siblings
        self.metrics = Metrics()
        self.streams = Streams(self.metrics)
        self.members = Membership(self.streams.moved)
        self._ksql_session = open_session(settings)
        self._operator_session = open_operator_session(settings.reconciler_url)
        ksql = Ksql(self._ksql_session, settings.ksqldb_url)
        self.follower = Follower(ksql, self.members, self.metrics, settings.membership_resync)
        negative = NegativeCache(settings.negative_cache_size, settings.negative_cache_seconds)
        self.lookup = Lookup(self.members, self.follower, ksql, negative, self.metrics, self._source)
        url = settings.reconciler_url
        self.registry = RegistryFollower(
            self._operator_session, url, settings.registry_file, self.metrics, self._registry_changed
        )
        dialer = Dialer(settings.connect_timeout, settings.replace_wait)
        self.forwarder = Forwarder(dialer, settings.head_timeout, settings.idle_timeout, self._passed)
        self.supervisor = Supervisor(lambda name: self.metrics.task_ends[name].inc())
        self.guard = self._guard()
        self.metrics_guard = ConnectionGuard(ConnectionLimits(_METRICS_CLIENTS, excess=0), self._connection_ended)
        self._rendered = Rendered(self._render)
        self._routes: dict[str, tuple[str, _Handler]] = {
            _STREAM: ("asset_stream", self._held(self._asset_stream)),
            "/asset_state": ("asset_state", self._asset_state),
            "/healthz": ("healthz", self._healthz),
            "/readyz": ("readyz", self._readyz),
        }
        own = {"/metrics": ("metrics", self._metrics)}
        self._metrics_routes = own if settings.metrics_port is not None else {}
        if settings.metrics_port is None:
            self._routes |= own
        self._held_group_stream = self._held(self._group_stream)
        self._observe()

    async def start(self) -> None:
        """Read the boot copy and begin to follow."""
        await self.siblings.listen(self.metrics.told)
        self.registry.boot()
        self.supervisor.start("registry", lambda: self.registry.run(self.settings.registry_poll))
        if gives_back():
            self.supervisor.start("memory", lambda: give_back(self.guard))
        self.supervisor.start("connections", self._watch_connections)

    def drain(self) -> None:
        """Be not ready from now on, and serve whoever comes all the same, once on each connection."""
        self.forwarder.draining = True

    @property
    def draining(self) -> bool:
        """Whether it is about to end: ``/readyz`` says so, and each answer that it is its connection's last."""
        return self.forwarder.draining

    async def close(self) -> None:
        """End everything that runs in the background."""
        await self.supervisor.close()
        self.siblings.close()
        self.forwarder.close()
        await self._ksql_session.close()
        await self._operator_session.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        return await self._answer(request, *self._route(request.raw_path.partition("?")[0]))

    async def handle_metrics(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request at the port for metrics."""
        unknown = ("other", self._nothing)
        return await self._answer(request, *self._metrics_routes.get(request.raw_path.partition("?")[0], unknown))

    async def _answer(self, request: web.BaseRequest, route: str, handler: _Handler) -> web.StreamResponse:
        request[_ROUTE] = route
        if request.method not in ("GET", "HEAD"):
            handler = self._wrong_method
        try:
            self._admit(request, route)
            response = await handler(request)
        except problems.Problem as problem:
            response = self._problem(request, problem)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001 - a bug in one request must not be more than one request's 500
            _log.exception("a bug: %s %s", request.method, request.raw_path.partition("?")[0])
            response = self._problem(request, problems.internal())
        if not isinstance(response, Passed):
            self.metrics.request(route, response.status)
            if self.draining:
                response.force_close()
        return response

    def _admit(self, request: web.BaseRequest, route: str) -> None:
        """Let the request through.

        Raises:
            Problem: it is no request that is served (400, 505), or there is no room for what it needs (503).
        """
        refused: problems.Problem | None = request.get(request_line.REFUSED)
        if refused is not None:
            raise refused
        entry: Entry | None = getattr(request.protocol, "entry", None)
        needs = route in _FORWARDED or (entry is not None and entry.excess and route == "other")
        if needs and entry is not None and not self.guard.has_room(entry):
            raise problems.overloaded()

    def _passed(self, request: web.BaseRequest, status: int) -> None:
        """Count a service's answer when it begins: a stream may go on for days."""
        request[BEGUN] = True
        self.metrics.request(request[_ROUTE], status)

    def _route(self, path: str) -> tuple[str, _Handler]:
        known = self._routes.get(path)
        if known is not None:
            return known
        if path.startswith(_GROUP) and path.endswith(_STREAM) and len(path) > len(_GROUP) + len(_STREAM):
            return "group_stream", self._held_group_stream
        return "other", self._nothing

    def _held(self, handler: _Handler) -> _Handler:
        """Hold an event source's request while what stands in its way is likely to pass.

        By the WHATWG standard an EventSource that is answered anything but 200 never comes back (ADR 7).
        """

        async def hold(request: web.BaseRequest) -> web.StreamResponse:
            loop = asyncio.get_running_loop()
            until = loop.time() + self.settings.replace_wait
            while True:
                try:
                    return await handler(request)
                except problems.Problem as problem:
                    if not (problem.passing and _is_event_source(request)) or loop.time() + _AGAIN > until:
                        raise
                await asyncio.sleep(_AGAIN)

        return hold

    def _problem(self, request: web.BaseRequest, problem: problems.Problem) -> web.Response:
        response = problem.response()
        if request.method not in ("GET", "HEAD") or problem.ends_connection:
            response.force_close()
        return response

    async def _wrong_method(self, request: web.BaseRequest) -> web.StreamResponse:
        raise problems.wrong_method(request.method)

    async def _nothing(self, request: web.BaseRequest) -> web.StreamResponse:
        raise problems.unknown_path(request.path)

    async def _asset_stream(self, request: web.BaseRequest) -> web.StreamResponse:
        asset = _asset_of(request)
        if asset is None:
            raise problems.bad_request("the query needs asset_uuid")
        if self.settings.routing_mode is RoutingMode.REDIRECT:
            return await self._redirect(request, asset)
        for _ in range(_MOVES):
            group = await self.lookup.group_of(asset)
            target = await self._target_of(group)
            if self.members.group_of(asset) == group:
                try:
                    return await self._stream(request, asset, group, target)
                except StreamAborted:
                    continue
        raise problems.not_ready(f"asset {asset!r} is moving")

    async def _redirect(self, request: web.BaseRequest, asset: str) -> web.StreamResponse:
        group = await self.lookup.group_of(asset)
        query = request.raw_path.partition("?")[2]
        location = f"{_GROUP}{quote(group, safe='', errors='replace')}{_STREAM}?{query}"
        return web.Response(status=HTTPStatus.TEMPORARY_REDIRECT, headers={"Location": location})

    async def _group_stream(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        group = unquote(path[len(_GROUP) : -len(_STREAM)], errors="replace")
        asset = _asset_of(request)
        if asset is not None:
            actual = await self.lookup.group_of(asset)
            if actual != group:
                raise problems.asset_elsewhere(asset, group, actual)
        elif not self.members.has_group(group) and not self._serves(group):
            if not self.members.complete:
                raise problems.not_ready("the membership has not been listed; retry")
            raise problems.unknown_group(group)
        target = await self._target_of(group)
        try:
            return await self._stream(request, asset or "", group, target)
        except StreamAborted as error:
            raise problems.not_ready(f"group {group!r} or its asset is changing") from error

    async def _stream(self, request: web.BaseRequest, asset: str, group: str, target: Target) -> web.StreamResponse:
        stream = Stream(asset, group, self.settings.idle_timeout)
        self.streams.add(stream)
        _log.debug("stream starts", asset=asset, group=group, client=request.remote)
        try:
            response = await self.forwarder.stream(request, target, stream)
        except asyncio.CancelledError:
            stream.close(Ended.CLIENT_LEFT)
            raise
        finally:
            stream.close(Ended.UPSTREAM_BROKE)
            self.streams.remove(stream)
            if stream.started and stream.ended is not None:
                self.streams.count_end(stream.ended)
            _log.debug("stream ends", asset=asset, group=group, reason=stream.ended)
        return response

    async def _asset_state(self, request: web.BaseRequest) -> web.StreamResponse:
        registry = self.registry.current
        if registry is None:
            raise problems.not_ready("no registry has been read yet")
        if registry.state_api is None:
            raise problems.not_ready("no asset state service is deployed")
        return await self.forwarder.answer(request, _target(registry.state_api))

    async def _healthz(self, _request: web.BaseRequest) -> web.StreamResponse:
        # Whoever can answer this has a running loop; ksqlDB or the operator being away is not death.
        return _document({"status": "alive", "draining": self.draining, "streams": len(self.streams)})

    async def _readyz(self, _request: web.BaseRequest) -> web.StreamResponse:
        lacks = self.lacks()
        status = HTTPStatus.SERVICE_UNAVAILABLE if lacks else HTTPStatus.OK
        document = {"status": "not ready" if lacks else "ready", "lacks": lacks, "assets": len(self.members)}
        return _document(document, status)

    async def _metrics(self, _request: web.BaseRequest) -> web.StreamResponse:
        headers = {"Content-Type": exposition.CONTENT_TYPE, "Cache-Control": "no-store"}
        return web.Response(body=await self._rendered.get(), headers=headers)

    async def _render(self) -> bytes:
        return self.metrics.exposition(await self.siblings.ask())

    def lacks(self) -> list[str]:
        """Return what is missing before clients can be served."""
        lacks = ["draining"] if self.draining else []
        if self.registry.current is None:
            lacks.append("registry")
        if not self.members.complete:
            lacks.append("membership")
        followed = ("registry", "membership") if self.registry.current is not None else ("registry",)
        return lacks + [f"{name} follower" for name in followed if not self.supervisor.running(name)]

    async def _target_of(self, group: str) -> Target:
        """Return where the group is served; a group that is new is waited for.

        Raises:
            Problem: 503, it is still not served.
        """
        url = await self.registry.url_of(group, self.settings.lazy_deploy_wait)
        if url is None:
            raise problems.not_deployed(group, self.settings.lazy_deploy_wait)
        return _target(url)

    def _serves(self, group: str) -> bool:
        return self.registry.current is not None and group in self.registry.current.groups

    def _source(self) -> Source | None:
        return self.registry.current.membership if self.registry.current else None

    def _registry_changed(self, before: Registry | None, now: Registry) -> None:
        if before is not None:
            self.streams.groups_removed(frozenset(before.groups.keys() - now.groups.keys()))
        if before is None or (before.membership, before.identity) != (now.membership, now.identity):
            self.supervisor.start("membership", partial(self.follower.run, now.membership))

    def _guard(self) -> ConnectionGuard:
        capacity, excess = descriptors()
        settings = self.settings
        limits = ConnectionLimits(
            capacity,
            excess,
            head=settings.client_head_timeout,
            idle=settings.client_idle_timeout,
            stall=settings.idle_timeout + _STALL_SECONDS,
            per_address=settings.connections_per_address,
            cost=1,
        )
        return ConnectionGuard(limits, self._connection_ended)

    def _connection_ended(self, why: Ending) -> None:
        self.metrics.connections_ended[why].inc()

    async def _watch_connections(self) -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(self.guard.run())
            both.create_task(self.metrics_guard.run())

    def _observe(self) -> None:
        observe = self.metrics.observe
        observe("streams", "Streams that are open now.", lambda: len(self.streams), sum)
        observe("connections", "Connections of clients that are open now.", lambda: self.guard.connections, sum)
        observe("membership_assets", "Assets whose group is known.", lambda: len(self.members), min)
        observe("membership_age_seconds", "Seconds since the membership was current.", lambda: self.follower.age)
        observe("registry_age_seconds", "Seconds since the operator confirmed the registry.", lambda: self.registry.age)
        observe("ready", "1 when clients can be served.", lambda: float(not self.lacks()), min)
        observe("workers", "Processes whose values are in this answer.", lambda: 1, sum)


def _is_event_source(request: web.BaseRequest) -> bool:
    return "text/event-stream" in request.headers.get("Accept", "")


def _asset_of(request: web.BaseRequest) -> str | None:
    """Return the one asset that the query names, None if it names none.

    Raises:
        Problem: 400, it names several (the service might choose another one than we), or bytes that are no text.
    """
    query = request.raw_path.partition("?")[2].partition("#")[0]
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise problems.bad_request("the query is not UTF-8") from error
    named = {value for key, value in pairs if key == "asset_uuid"}
    if len(named) > 1:
        raise problems.bad_request("the query names more than one asset_uuid")
    return (named.pop() or None) if named else None


@lru_cache(_TARGETS)
def _target(url: str) -> Target:
    """Take a URL of the registry apart once."""
    return Target.of(url)


def _document(document: object, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    body = json.dumps(document).encode()
    return web.Response(
        status=status, body=body, headers={"Content-Type": "application/json", "Cache-Control": "no-store"}
    )
