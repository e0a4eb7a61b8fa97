"""The operator's own HTTP server, in a thread beside the loop.

Each routing layer polls ``/registry`` every second, so it is served from memory with an ETag. ``/healthz`` says whether
the loop runs, not whether its dependencies are healthy: a dead ksqlDB is no reason to kill the operator.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import unquote

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import REGISTRY

from openfactory_common.connections import ConnectionGuard, ConnectionLimits, Ending, GuardedAppRunner, descriptors
from openfactory_common.errors import ConfigurationError, PlatformError, describe
from openfactory_common.registry import ROLE_HEADER
from openfactory_common.text import printable_json
from reconciler.control.loop import Loop
from reconciler.leadership.pause import LONGEST_GROUP_PAUSE, LONGEST_PAUSE, Pause, end_pause, start_pause
from reconciler.report.counters import make_counters
from reconciler.report.why import (
    WhyContext,
    describe_pause,
    explain_group,
    find_similar,
    known_groups,
    make_context,
)
from reconciler.web.access import require_token
from reconciler.web.csrf import add_headers, allowed_hosts, check_hosts, refuse_browser_writes
from reconciler.web.events import Events
from reconciler.web.status_page import StatusPage

log = structlog.get_logger()

#: Clients at a time: routing layers, monitoring and people.
_MAX_CLIENTS = 512
#: Descriptors that are kept besides the guard's reserve: for connections to ksqlDB and the engine.
_RESERVED_DESCRIPTORS = 32
_RETRY = {"Retry-After": "1"}


def read_process_limits() -> ConnectionLimits:
    """Raise the soft limit of descriptors to the hard one, and return how many connections that allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    room, excess = descriptors()
    return ConnectionLimits(max(1, min(_MAX_CLIENTS, room - _RESERVED_DESCRIPTORS)), excess)


def _log_ending(why: Ending) -> None:
    """Log that clients are refused; the end of an idle connection is no news."""
    if why in (Ending.ROOM, Ending.REFUSED):
        log.warning("web server: too many clients", ended=why.value)


@dataclass
class RegistryCache:
    """The current registry document and its revision, which the loop replaces as a whole; None before the first."""

    current: tuple[bytes, str] | None = None

    def put(self, data: bytes, revision: str) -> None:
        """Replace the document."""
        self.current = (data, revision)


class Server:
    """Serves the state of one loop; `start` returns when the port is open."""

    def __init__(
        self,
        loop: Loop,
        cache: RegistryCache,
        port: int,
        *,
        host: str = "0.0.0.0",  # noqa: S104 - other containers read it
        registry: CollectorRegistry = REGISTRY,
        limits: ConnectionLimits | None = None,
    ) -> None:
        """Serve on ``host:port``; port 0 takes any free one. Without ``limits``, those of the process."""
        self.port = port
        self._loop = loop
        self._cache = cache
        self._host = host
        self._registry = registry
        self._events: asyncio.AbstractEventLoop | None = None
        self._done: asyncio.Event | None = None
        self._guard = ConnectionGuard(limits or read_process_limits(), _log_ending)
        self._pauses = Pauses(loop.pause)
        self._history = Events(loop)
        self._group_pauses = asyncio.Lock()
        self._started = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)

    def start(self) -> None:
        """Open the port.

        Raises:
            ConfigurationError: the port cannot be opened; names `RECONCILER_PORT`.
        """
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            reason = getattr(self._error, "strerror", None) or describe(self._error)
            raise ConfigurationError(f"RECONCILER_PORT={self.port} cannot be opened: {reason}")

    def stop(self) -> None:
        """Close the port and all connections."""
        if self._events is not None and self._done is not None:
            with contextlib.suppress(RuntimeError):  # the event loop has ended by itself
                self._events.call_soon_threadsafe(self._done.set)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            if self._started.is_set():
                log.exception("bug", error=str(error))
            self._error = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._events, self._done = asyncio.get_running_loop(), asyncio.Event()
        self._history.follow(self._events)
        runner = GuardedAppRunner(self._make_app(), guard=self._guard, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self.port, reuse_address=True)
            await site.start()
            self.port = runner.addresses[0][1]
        except OSError as error:
            self._error = error
            self._done.set()
        guarding = asyncio.create_task(self._guard.run())
        self._started.set()
        await self._done.wait()
        guarding.cancel()
        await runner.cleanup()

    def _make_app(self) -> web.Application:
        settings = self._loop.controller.deps.settings
        checks = (refuse_browser_writes, check_hosts(allowed_hosts(settings)), require_token(settings))
        app = web.Application(middlewares=[self._limit_clients, *checks])
        app.on_response_prepare.append(add_headers)
        app.add_routes(
            [
                web.get("/healthz", self._get_health),
                web.get("/readyz", self._get_readiness),
                web.get("/metrics", self._get_metrics),
                web.get("/registry", self._get_registry),
                web.get("/counters", self._get_counters),
                web.get("/groups/{group:.*}", self._get_group),
                *self._history.routes(),
                *StatusPage(self._loop).routes(),
                web.post("/reconcile", self._post_reconcile),
                web.post("/pause", self._post_pause),
                web.post("/resume", self._post_resume),
            ]
        )
        return app

    @web.middleware
    async def _limit_clients(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Answer 503 if there are too many clients; ``/healthz`` is always served."""
        entry = getattr(request.protocol, "entry", None)
        if entry is None or not entry.excess or request.path == "/healthz" or self._guard.has_room(entry):
            return await handler(request)
        detail = "the server has no room for more clients"
        return web.json_response({"title": "too many clients", "detail": detail}, status=503, headers=_RETRY)

    async def _get_health(self, _: web.Request) -> web.Response:
        age = time.monotonic() - self._loop.ticked
        alive = self._loop.alive
        return web.json_response({"alive": alive, "tick_age_seconds": round(age, 1)}, status=200 if alive else 503)

    async def _get_readiness(self, _: web.Request) -> web.Response:
        outcome, controller = self._loop.history.last, self._loop.controller
        ready = outcome is not None and outcome.survey is not None and self._cache.current is not None
        document = {
            "ready": ready,
            "role": controller.write_gate.role,
            "paused": describe_pause(controller) or None,
            "last": outcome.sentence if outcome is not None else "the first cycle has not ended",
        }
        return web.json_response(document, status=200 if ready else 503)

    async def _get_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _refuse_if_standby(self) -> web.Response | None:
        """Answer 503 on a standby, so that the client retries and reaches the leader; None on the leader.

        The state of a standby may be a few seconds old, and a client that reads both in turn would alternate between
        two registries. While writes are paused, every replica answers.
        """
        if self._loop.controller.write_gate.role != "standby" or self._loop.paused:
            return None
        detail = "This replica is on standby; retry, the service name resolves to all replicas."
        headers = {"Retry-After": "1", ROLE_HEADER: "standby"}
        answer = web.json_response({"title": "standby", "detail": detail}, status=503, headers=headers)
        answer.force_close()  # so that the next request reaches another replica
        return answer

    async def _get_registry(self, request: web.Request) -> web.Response:
        if (standby := self._refuse_if_standby()) is not None:
            return standby
        current = self._cache.current
        if current is None:
            document = {"title": "no registry yet", "detail": "no group has become ready"}
            return web.json_response(document, status=503, headers=_RETRY)
        data, revision = current
        headers = {"ETag": f'"{revision}"', "Cache-Control": "no-cache"}
        if revision in {tag.value for tag in request.if_none_match or ()}:
            return web.Response(status=304, headers=headers)
        return web.Response(body=data, content_type="application/json", headers=headers)

    async def _get_group(self, request: web.Request) -> web.Response:
        """Explain one group from memory; its name may have any characters, percent-encoded."""
        raw, context = request.raw_path.partition("?")[0].split("/groups/", 1)[1], self._make_context()
        try:
            group = unquote(raw, errors="surrogatepass")
        except UnicodeDecodeError:  # undecodable, so not a group's name
            group = unquote(raw)
        if context is None:
            return self._answer_not_yet()
        document = explain_group(group, context, "this operator")
        if document is None:
            return self._answer_unknown(group, context)
        return web.Response(text=printable_json(document.model_dump_json()), content_type="application/json")

    def _answer_unknown(self, group: str, context: WhyContext) -> web.Response:
        """Answer 404 with the groups that may be meant."""
        unknown = {
            "title": "unknown group",
            "owner": context.settings.reconciler_owner,
            "close": find_similar(group, context.survey),
            "known": sorted(known_groups(context.survey)),
            "read_at": context.read_at.isoformat(),
        }
        return web.json_response(unknown, status=404)

    def _make_context(self) -> WhyContext | None:
        history = self._loop.history
        read, last = history.read, history.last.sentence if history.last else ""
        if read is None or read.survey is None or read.plan is None or history.read_at is None:
            return None
        return make_context(self._loop.controller, read.survey, read.plan, history.read_at, last)

    async def _get_counters(self, _: web.Request) -> web.Response:
        """Return the counters, for a command that reads directly."""
        if self._loop.history.read is None:
            return self._answer_not_yet()
        document = make_counters(self._loop.controller)
        return web.Response(text=printable_json(document.model_dump_json()), content_type="application/json")

    def _answer_not_yet(self) -> web.Response:
        """Answer 503 before the first full read; the owner tells whose operator this is."""
        owner = self._loop.controller.deps.settings.reconciler_owner
        document = {"title": "not yet", "owner": owner, "detail": "no cycle has read everything yet"}
        return web.json_response(document, status=503, headers=_RETRY)

    async def _post_reconcile(self, _: web.Request) -> web.Response:
        self._loop.nudge()
        if (standby := self._refuse_if_standby()) is not None:
            return standby
        return web.json_response({"nudged": True}, status=202)

    async def _post_pause(self, request: web.Request) -> web.Response:
        try:
            seconds = float(request.query["seconds"])
        except (KeyError, ValueError):
            seconds = -1.0
        group = request.query.get("group")
        longest = LONGEST_PAUSE if group is None else LONGEST_GROUP_PAUSE
        if not 0 < seconds <= longest:
            detail = f"?seconds=N with 0 < N <= {longest:.0f} is required"
            return web.json_response({"title": "bad pause", "detail": detail}, status=400)
        now, by = self._loop.controller.clocks.wall(), f"a request from {request.remote}"
        pause = start_pause(now, seconds, by, request.query.get("reason", ""), longest)
        return await self._put_pause(pause) if group is None else await self._put_group_pause(group, pause)

    async def _post_resume(self, request: web.Request) -> web.Response:
        group = request.query.get("group")
        if group is not None:
            return await self._put_group_pause(group, None)
        return await self._put_pause(end_pause(f"a request from {request.remote}"))

    async def _put_group_pause(self, group: str, pause: Pause | None) -> web.Response:
        """Record the pause of one group, or its end (None), which needs no group that exists."""
        context = self._make_context()
        if context is None:
            return self._answer_not_yet()
        if pause is not None and group not in known_groups(context.survey):
            return self._answer_unknown(group, context)
        try:
            async with self._group_pauses:  # waiting requests occupy one thread, see `Pauses`
                before = await asyncio.to_thread(self._loop.pause_group, group, pause)
        except PlatformError as error:
            return web.json_response({"title": "not recorded", "detail": str(error)}, status=503)
        answer = {"group": group, "paused": pause.text if pause else None, "before": before.text if before else None}
        return web.Response(text=printable_json(json.dumps(answer)), content_type="application/json")

    async def _put_pause(self, pause: Pause) -> web.Response:
        try:
            pause = await self._pauses.put(pause)
        except PlatformError as error:
            detail = f"the pause applies only to this replica, until its next read, and is not recorded: {error}"
            return web.json_response({"title": "not recorded", "detail": detail}, status=503)
        return web.json_response({"paused": pause.text if pause.until else None, **pause.fields})


class Pauses:
    """Begins and ends pauses, each of which waits for the running cycle, one at a time.

    Waiting requests occupy one thread, so that reads, which need threads too, are served meanwhile (measured: 12
    requests to resume during a slow cycle blocked `/status` for 9.8 s). Of the waiting requests only the last one is
    executed, because it decides the final state.
    """

    def __init__(self, write: Callable[[Pause], None]) -> None:
        """Execute with ``write``, which may take as long as a cycle."""
        self._write = write
        self._next: tuple[Pause, asyncio.Future[Pause]] | None = None
        self._worker: asyncio.Task[None] | None = None

    async def put(self, pause: Pause) -> Pause:
        """Execute this one or a later one; return which.

        Raises:
            PlatformError: it is not recorded.
        """
        done = self._next[1] if self._next is not None else asyncio.get_running_loop().create_future()
        self._next = (pause, done)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await asyncio.shield(done)

    async def _work(self) -> None:
        while self._next is not None:
            (pause, done), self._next = self._next, None
            try:
                await asyncio.to_thread(self._write, pause)
            except Exception as error:  # noqa: BLE001 - passed on to the waiting request
                done.set_exception(error)
                done.exception()  # the client may have left
            else:
                done.set_result(pause)
