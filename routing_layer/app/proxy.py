"""The proxy's resources, and what each request goes through."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import structlog

from openfactory_common.connections import ConnectionGuard, ConnectionLimits, address_key, descriptors
from openfactory_common.ksqldb_http import open_session
from openfactory_common.registry import Registry
from openfactory_common.settings_types import RoutingMode
from openfactory_common.tasks import run_until_one_ends
from routing_layer import metrics
from routing_layer.access.gate import Gate, Permit
from routing_layer.client.request import Request
from routing_layer.client.response import Response
from routing_layer.cors import Cors
from routing_layer.demand import Demand, merge
from routing_layer.limits import StreamLimits, StreamRefusal
from routing_layer.membership.ksqldb import MembershipQueries
from routing_layer.membership.lookup import Lookup
from routing_layer.membership.store import MembershipStore
from routing_layer.membership.watch import MembershipWatcher
from routing_layer.metrics import CachedExposition, EndReason, Metrics
from routing_layer.problems import NO_ROOM, Problem, ProblemType
from routing_layer.registry_client import RegistryClient
from routing_layer.settings import Settings
from routing_layer.supervisor import Supervisor
from routing_layer.trusted_proxies import TrustedProxies
from routing_layer.ttl_cache import TtlCache
from routing_layer.upstream.dialer import Dialer, Target
from routing_layer.upstream.forwarder import Callbacks, Forwarder, StreamAborted
from routing_layer.upstream.request_head import RequestHeads
from routing_layer.upstream.response_head import ResponseHeads
from routing_layer.upstream.streams import ClientStream, StreamTable
from routing_layer.workers import WorkerPeers

_log = structlog.get_logger(__name__)
_STREAM = "/asset_stream"
_GROUP = "/group/"
_ASSET = "asset_uuid"
#: Routes whose response needs a descriptor more.
_FORWARDED = frozenset(("asset_stream", "group_stream", "asset_state"))
#: A client may read nothing for this much longer than its stream allows, which has ended it by then.
_STALL_SECONDS = 5.0
#: Connections of the port for metrics.
_METRICS_CLIENTS = 32
#: Seconds from one attempt of a request that is held to the next.
_RETRY_SECONDS = 0.5
_TOO_MANY = {
    StreamRefusal.TOTAL: (ProblemType.TOO_MANY_STREAMS, "no more streams can be opened here at the moment"),
    StreamRefusal.CLIENT: (ProblemType.TOO_MANY_STREAMS_OF_CLIENT, "this client has as many streams as it may have"),
}
#: How often a request follows an asset that moves while its stream is being opened.
_MAX_MOVES = 3

#: Answers a request; None: its answer is on its way already.
_Handler = Callable[[Request], Awaitable[Response | None]]
#: URLs of the registry are parsed once.
_parse_target = lru_cache(4096)(Target.parse)


class Proxy:
    """Everything of one worker, and its request handlers.

    Attributes:
        draining: the process is about to end.
    """

    def __init__(self, settings: Settings, peers: WorkerPeers) -> None:
        """Put the parts together; nothing is opened yet but the client sessions."""
        self.settings = settings
        self.peers = peers
        self.draining = False
        self.metrics = Metrics()
        self.demand = Demand()
        self.streams = StreamTable(self.metrics, self.demand.ask)
        self.registry = RegistryClient(
            settings.reconciler_url,
            settings.registry_file,
            self.metrics,
            self._apply_registry,
            settings.reconciler_token_file,
        )
        self.store = MembershipStore(self.streams.end_moved, self.registry.notice)
        self._ksqldb_session = open_session(settings)
        queries = MembershipQueries(self._ksqldb_session, settings.ksqldb_url)
        self.watcher = MembershipWatcher(queries, self.store, self.metrics, settings.membership_resync)
        unknown = TtlCache[str, bool](settings.negative_cache_seconds, settings.negative_cache_size)
        self.lookup = Lookup(
            self.store,
            self.watcher,
            queries,
            unknown,
            self.metrics,
            lambda: self.registry.current.membership if self.registry.current else None,
        )
        dialer = Dialer(settings.connect_timeout, settings.replace_wait)
        refused = self.metrics.access_refused
        self.gate = Gate(settings, lambda why: refused[why].inc(), self.streams.end_keys)
        self.cors = Cors(settings.cors_origins)
        self.trusted = TrustedProxies(settings.trusted_proxies)
        self.limits = StreamLimits(settings.max_streams, settings.max_streams_per_client)
        self.forwarder = Forwarder(
            dialer,
            RequestHeads(self.trusted, self.gate.cookie if self.gate.keys is not None else None),
            ResponseHeads(self.cors, private=self.gate.keys is not None),
            settings.head_timeout,
            settings.idle_timeout,
            Callbacks(
                on_head=lambda request, status: self.metrics.count_request(request.route, status),
                on_mismatch=self.metrics.group_mismatches.inc,
                refuse=self._refuse,
                fail=lambda request, error: self._refuse(request, _bug(request, error)),
            ),
        )
        self.supervisor = Supervisor(lambda name: self.metrics.task_ends[name].inc())
        capacity, excess = descriptors()
        limits = ConnectionLimits(
            capacity,
            excess,
            head=settings.client_head_timeout,
            idle=settings.client_idle_timeout,
            stall=settings.idle_timeout + _STALL_SECONDS,
            per_address=settings.connections_per_address,
            cost=1,
        )
        connections_ended = self.metrics.connections_ended
        self.guard = ConnectionGuard(limits, lambda why: connections_ended[why].inc())
        self.metrics_guard = ConnectionGuard(
            ConnectionLimits(_METRICS_CLIENTS, excess=0), lambda why: connections_ended[why].inc()
        )
        self._exposition = CachedExposition(self._render_metrics)
        self._routes: dict[str, tuple[str, _Handler]] = {
            _STREAM: ("asset_stream", self._hold(self._get_asset_stream)),
            "/asset_state": ("asset_state", self._get_asset_state),
            "/healthz": ("healthz", self._get_health),
            "/ready": ("ready", self._get_readiness),
            "/readyz": ("readyz", self._get_readiness),
        }
        self._metrics_routes: dict[str, tuple[str, _Handler]] = {
            "/metrics": ("metrics", self._get_metrics),
            "/demand": ("demand", self._get_demand),
        }
        if settings.metrics_port is None:
            self._routes |= self._metrics_routes
            if self.gate.keys is not None:
                del self._routes["/demand"]  # it names groups, which tokens are asked for
        self._group_route = "group_stream", self._hold(self._get_group_stream)
        add_gauge = self.metrics.add_gauge
        add_gauge("streams", "Open streams.", lambda: len(self.streams.all), sum)
        add_gauge(
            "streams_admitted",
            "Streams that count for `MAX_STREAMS`: open ones, and requests that wait for theirs.",
            lambda: self.limits.admitted,
            sum,
        )
        add_gauge("connections", "Open connections of clients.", lambda: self.guard.connections, sum)
        add_gauge("membership_assets", "Assets whose group is known.", lambda: len(self.store.groups), min)
        add_gauge("membership_age_seconds", "Seconds since the membership was current.", lambda: self.watcher.age)
        add_gauge(
            "registry_age_seconds", "Seconds since the operator confirmed the registry.", lambda: self.registry.age
        )
        keys = self.gate.keys
        add_gauge("keys_age_seconds", "Seconds since the key set was current.", lambda: keys.age if keys else 0.0)
        add_gauge("ready", "1 when clients can be served.", lambda: float(not self.issues()), min)
        add_gauge("workers", "Workers whose values are in this response.", lambda: 1, sum)

    async def start(self) -> None:
        """Read the boot copy and start the background tasks."""
        await self.peers.listen(self.metrics.snapshot, self._take_demand)
        self.registry.load_file()
        self.supervisor.start("registry", lambda: self.registry.run(self.settings.registry_poll))
        self.supervisor.start("connections", lambda: run_until_one_ends(self.guard.run(), self.metrics_guard.run()))
        if self.gate.keys is not None:
            self.supervisor.start("keys", self.gate.keys.run)
            self.supervisor.start("expiry", self.streams.expiring.run)

    async def close(self) -> None:
        """End everything that runs in the background."""
        await self.supervisor.close()
        self.peers.close()
        self.forwarder.close()
        await self.gate.close()
        await self._ksqldb_session.close()
        await self.registry.close()

    def handle(self, request: Request) -> None:
        """Answer one request."""
        route = self._routes.get(request.path)
        if route is None:
            path = request.path
            is_group = path.startswith(_GROUP) and path.endswith(_STREAM) and len(path) > len(_GROUP) + len(_STREAM)
            route = self._group_route if is_group else ("other", _refuse_path)
        self._dispatch(request, *route)

    def handle_metrics(self, request: Request) -> None:
        """Answer one request at the port for metrics."""
        self._dispatch(request, *self._metrics_routes.get(request.path, ("other", _refuse_path)))

    def _dispatch(self, request: Request, route: str, handler: _Handler) -> None:
        request.route = route
        preflight = None if route == "other" else self.cors.answer_preflight(request.method, request.raw_headers)
        if preflight is not None:
            self._reply(request, Response(HTTPStatus.NO_CONTENT, lines=preflight))
            return
        try:
            self._admit(request, route)
            if route == "asset_state" and self._may_read_state(request):  # without a task, a tenth of its cost
                self.forwarder.forward_answer(request, self._find_state_api())
                return
        except Problem as problem:
            self._refuse(request, problem)
        except Exception as error:  # noqa: BLE001 - see _bug
            self._refuse(request, _bug(request, error))
        else:
            request.connection.run(self._answer(request, handler))

    async def _answer(self, request: Request, handler: _Handler) -> None:
        try:
            response = await handler(request)
        except Problem as problem:
            self._refuse(request, problem)
        except Exception as error:  # noqa: BLE001 - see _bug
            self._refuse(request, _bug(request, error))
        else:
            if response is not None:
                response.lines = self.cors.fields(request.raw_headers)
                self._reply(request, response)

    def _refuse(self, request: Request, problem: Problem) -> None:
        response = problem.response()
        response.closes = response.closes or request.method not in ("GET", "HEAD")
        response.lines = self.cors.fields(request.raw_headers)
        self._reply(request, response)

    def _reply(self, request: Request, response: Response) -> None:
        self.metrics.count_request(request.route, response.status)
        request.connection.reply(response)

    def _admit(self, request: Request, route: str) -> None:
        """Admit the request.

        Raises:
            Problem: its method is not served (405), or there is no room for what it needs (503).
        """
        entry = request.connection.entry
        needs_room = route in _FORWARDED or (entry is not None and entry.excess and route == "other")
        if needs_room and entry is not None and not self.guard.has_room(entry):
            raise Problem(ProblemType.TOO_MANY_CONNECTIONS, NO_ROOM)
        if request.method not in ("GET", "HEAD"):
            raise Problem(ProblemType.WRONG_METHOD, f"{request.method} is not supported here, GET and HEAD are")

    async def _admit_stream(self, request: Request) -> Permit:
        """Let a request for a stream in by its token, and count it, once, until its end.

        Raises:
            Problem: 401, 403 or 503 by its token; 429 or 503, there are too many streams, which is not held: streams
                may stay for days, and an event source that waits is one of those that are counted.
        """
        permit = await self.gate.admit(request.raw_headers)
        if request.on_end is None:
            client = ""
            if self.settings.max_streams_per_client:
                client = address_key((self.trusted.find_client(request.remote, request.raw_headers),))
            refusal = self.limits.enter(client)
            if refusal is not None:
                self.metrics.streams_refused[refusal].inc()
                raise Problem(*_TOO_MANY[refusal])
            request.on_end = partial(self.limits.leave, client)
        return permit

    def _hold(self, handler: _Handler) -> _Handler:
        """Hold an event source's request while the problem is likely to pass.

        By the WHATWG standard an EventSource that is answered anything but 200 never comes back (ADR 7).
        """

        async def hold(request: Request) -> Response | None:
            loop = asyncio.get_running_loop()
            request.arrived = int(time.time() * 1000)
            until = loop.time() + self.settings.replace_wait
            while True:
                next_attempt = loop.time() + _RETRY_SECONDS
                try:
                    return await handler(request)
                except Problem as problem:
                    held = problem.transient and _is_event_source(request)
                    if not held or loop.time() + _RETRY_SECONDS > until:
                        raise
                request.held = True
                await asyncio.sleep(next_attempt - loop.time())

        return hold

    async def _get_asset_stream(self, request: Request) -> Response | None:
        permit = await self._admit_stream(request)
        asset = _asset_of(request, strict=permit.key is not None)
        if asset is None:
            raise Problem(ProblemType.BAD_REQUEST, "the query needs asset_uuid")
        if self.settings.routing_mode is RoutingMode.REDIRECT:
            group = await permit.find_group(asset, self.lookup.find_group)
            location = f"{_GROUP}{quote(group, safe='', errors='replace')}{_STREAM}?{request.query}"
            return Response(HTTPStatus.TEMPORARY_REDIRECT, headers={"Location": location})
        for _ in range(_MAX_MOVES):
            group = await permit.find_group(asset, self.lookup.find_group)
            target = await self._find_target(request, group)
            if self.store.group_of(asset) == group:
                try:
                    await self._forward_stream(request, asset, group, target, permit)
                except StreamAborted:
                    permit = await self.gate.admit(request.raw_headers)  # the token may have expired
                else:
                    return None
            request.held = True
        raise Problem(ProblemType.NOT_READY, f"asset {asset!r} is moving")

    async def _get_group_stream(self, request: Request) -> Response | None:
        permit = await self._admit_stream(request)
        group = unquote(request.path[len(_GROUP) : -len(_STREAM)], errors="replace")
        asset = _asset_of(request, strict=permit.key is not None)
        if asset is None:
            permit.check_group(group)
            self._check_group_exists(group)
        elif (actual := await permit.find_group(asset, self.lookup.find_group)) != group:
            raise Problem(ProblemType.ASSET_ELSEWHERE, f"asset {asset!r} is in group {actual!r}, not in {group!r}")
        target = await self._find_target(request, group)
        if asset is not None and self.store.group_of(asset) != group:  # it has moved while the group was waited for
            raise Problem(ProblemType.NOT_READY, f"asset {asset!r} is moving")
        try:
            await self._forward_stream(request, asset or "", group, target, permit)
        except StreamAborted as error:
            await self.gate.admit(request.raw_headers)  # the token may have expired
            raise Problem(ProblemType.NOT_READY, f"group {group!r} or its asset is changing") from error
        return None

    def _check_group_exists(self, group: str) -> None:
        registry = self.registry.current
        if self.store.has_group(group) or (registry is not None and group in {**registry.groups, **registry.asleep}):
            return
        if not self.store.complete:
            raise Problem(ProblemType.NOT_READY, "the membership has not been listed; retry")
        raise Problem(ProblemType.UNKNOWN_GROUP, f"there is no group {group!r}")

    async def _find_target(self, request: Request, group: str) -> Target:
        """Return where the group is served; a group that is new is waited for.

        Raises:
            Problem: 503, it is still not served.
        """
        self.demand.ask(group)
        url = self.registry.find_url(group)
        if url is None:
            if not request.held:
                self.registry.nudge_for(group)
            request.held = True
            # An event source is held: it looks for its group at every attempt, because its asset may move meanwhile.
            patience = _RETRY_SECONDS if _is_event_source(request) else self.settings.lazy_deploy_wait
            with self.demand.wait(group):
                url = await self.registry.wait_for_url(group, patience)
        if url is None:
            detail = f"group {group!r} has no service yet; the operator has been notified"
            raise Problem(ProblemType.GROUP_NOT_DEPLOYED, detail, transient=True)
        return _parse_target(url)

    async def _forward_stream(self, request: Request, asset: str, group: str, target: Target, permit: Permit) -> None:
        stream = ClientStream(asset, group, self.settings.idle_timeout, self.streams, permit)
        self.streams.add(stream)
        _log.debug("stream starts", asset=asset, group=group, client=request.remote)
        try:
            await self.forwarder.forward_stream(request, target, stream)
        except asyncio.CancelledError:
            stream.abandon(EndReason.CLIENT_LEFT)
            raise
        except BaseException:
            stream.abandon(EndReason.UPSTREAM_BROKE)
            raise

    def _may_read_state(self, request: Request) -> bool:
        """Whether it is certain at once that the request may be forwarded to the state API.

        Raises:
            Problem: 401, it has no token; 400, its query names no one asset that could be checked.
        """
        permit = self.gate.recall(request.raw_headers)
        if permit is None or permit.key is None:
            return permit is not None
        asset = _asset_of(request, strict=True)
        return asset is None or permit.grants.covers(asset, None)

    async def _get_asset_state(self, request: Request) -> None:
        permit = await self.gate.admit(request.raw_headers)
        await permit.check_asset(_asset_of(request, strict=True), self.lookup.find_group)
        self.forwarder.forward_answer(request, self._find_state_api())

    def _find_state_api(self) -> Target:
        """Return where states are served.

        Raises:
            Problem: 503, that is not known.
        """
        registry = self.registry.current
        if registry is None:
            raise Problem(ProblemType.NOT_READY, "no registry has been read yet")
        if registry.state_api is None:
            raise Problem(ProblemType.NOT_READY, "no asset state service is deployed")
        return _parse_target(registry.state_api)

    async def _get_health(self, _request: Request) -> Response | None:
        # A process that can answer has a running loop; it is alive even without ksqlDB or the operator.
        return _json({"status": "alive", "draining": self.draining, "streams": len(self.streams.all)})

    async def _get_readiness(self, _request: Request) -> Response | None:
        issues = self.issues()
        if issues:
            return _json({"status": "not ready", "issues": issues}, HTTPStatus.SERVICE_UNAVAILABLE)
        return _json({"status": "ready"})

    async def _get_metrics(self, _request: Request) -> Response | None:
        headers = {"Content-Type": metrics.CONTENT_TYPE, "Cache-Control": "no-store"}
        return Response(HTTPStatus.OK, await self._exposition.get(), headers)

    async def _render_metrics(self) -> bytes:
        return self.metrics.exposition([each["metrics"] for each in await self.peers.collect()])

    async def _get_demand(self, _request: Request) -> Response | None:
        others = [each["demand"] for each in await self.peers.collect()]
        return _json(merge([self._take_demand(), *others], self.peers.count))

    def _take_demand(self) -> dict[str, Any]:
        return self.demand.snapshot(self.registry.revision, [stream.group for stream in self.streams.all])

    def issues(self) -> list[str]:
        """Return why clients cannot be served, one sentence each; empty if they can."""
        issues = ["the proxy is stopping"] if self.draining else []
        tasks = ["registry"]
        if self.registry.current is None:
            issues.append("no registry has been read")
        else:
            tasks.append("membership")
        if not self.store.complete:
            issues.append("the membership has not been listed")
        if self.gate.keys is not None and not self.gate.keys.current:
            issues.append("no key set has been read")
        return issues + [f"the {name} is not followed" for name in tasks if not self.supervisor.is_running(name)]

    def _apply_registry(self, before: Registry | None, now: Registry) -> None:
        if before is not None:
            # A group that falls asleep has no service soon, unless a stream is still open: that keeps it awake.
            self.streams.end_groups(frozenset(before.groups.keys() - now.groups.keys() - now.asleep.keys()))
        if before is None or (before.membership, before.identity) != (now.membership, now.identity):
            self.supervisor.start("membership", partial(self.watcher.run, now.membership))


async def _refuse_path(request: Request) -> Response | None:
    raise Problem(ProblemType.UNKNOWN_PATH, f"nothing is served at {request.path}")


def _is_event_source(request: Request) -> bool:
    """Whether the client gives up at a response that is not 200, as a browser's event source does."""
    return b"text/event-stream" in (request.header(b"accept") or b"")


def _asset_of(request: Request, *, strict: bool) -> str | None:
    """Return the one asset that the query names, None if it names none.

    Raises:
        Problem: 400, it names several (the service might choose another one), or it cannot be decoded; if ``strict``,
            because a token was checked, also if a parameter looks like ``asset_uuid``, which a service might read.
    """
    try:
        pairs = parse_qsl(request.query, keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise Problem(ProblemType.BAD_REQUEST, "the query is not UTF-8") from error
    if strict and any(key != _ASSET and key.lower().partition("[")[0].strip() == _ASSET for key, _ in pairs):
        raise Problem(ProblemType.BAD_REQUEST, f"the query has a parameter that looks like {_ASSET}")
    assets = {value for key, value in pairs if key == _ASSET}
    if len(assets) > 1:
        raise Problem(ProblemType.BAD_REQUEST, "the query names more than one asset_uuid")
    return (assets.pop() or None) if assets else None


def _bug(request: Request, error: Exception) -> Problem:
    """Log what has been raised, and return what the client is told: a bug is no more than one request's 500."""
    _log.error("a bug: %s %s", request.method, request.path, exc_info=error)
    return Problem(ProblemType.INTERNAL, "an unexpected error; it has been logged")


def _json(document: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    body = json.dumps(document).encode()
    return Response(status, body, {"Content-Type": "application/json", "Cache-Control": "no-store"})
