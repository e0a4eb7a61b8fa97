"""The operator's own HTTP server, in a thread beside the loop.

``/registry`` is polled every second by each routing layer, so it is answered from memory with an ETag. ``/healthz``
says whether the loop turns, not whether what it depends on is well: a dead ksqlDB is no reason to kill the operator.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import threading
import time
from collections.abc import Awaitable, Callable
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
from reconciler.leadership.pause import LONGEST_PAUSE, Pause, end_pause, start_pause
from reconciler.report.counters import counters
from reconciler.report.why import WhyContext, known_groups, similar, why
from reconciler.web.csrf import add_headers, allowed_hosts, known_hosts, no_browsers
from reconciler.web.status_page import StatusPage

log = structlog.get_logger()

#: Clients at a time: it is asked by routing layers, monitoring and people.
_MOST_CLIENTS = 512
#: Descriptors that are kept besides the guard's reserve: for connections to ksqlDB and the engine.
_OWN = 32
_RETRY = {"Retry-After": "1"}


def limits_of_process() -> ConnectionLimits:
    """Return what this process's descriptors allow; the soft limit is raised to the hard one first."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    room, excess = descriptors()
    return ConnectionLimits(max(1, min(_MOST_CLIENTS, room - _OWN)), excess)


def _told(why: Ending) -> None:
    """Say that clients are kept out; the end of an idle connection is no news."""
    if why in (Ending.ROOM, Ending.REFUSED):
        log.warning("web server: too many clients", ended=why.value)


class RegistryCache:
    """What the server shows: the current registry document, replaced by the loop as a whole."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._current: tuple[bytes, str] | None = None

    def put(self, data: bytes, revision: str) -> None:
        """Show this document from now on."""
        self._current = (data, revision)

    def get(self) -> tuple[bytes, str] | None:
        """Return document and revision, None before the first."""
        return self._current


class Server:
    """Serves one loop; `start` returns when the port is open."""

    def __init__(
        self,
        loop: Loop,
        board: RegistryCache,
        port: int,
        *,
        host: str = "0.0.0.0",  # noqa: S104 - it is followed from other containers
        registry: CollectorRegistry = REGISTRY,
        limits: ConnectionLimits | None = None,
    ) -> None:
        """Serve on ``host:port``; port 0 takes any free one. Without ``limits``, the process's own."""
        self.port = port
        self._loop = loop
        self._board = board
        self._host = host
        self._registry = registry
        self._events: asyncio.AbstractEventLoop | None = None
        self._done: asyncio.Event | None = None
        self._guard = ConnectionGuard(limits or limits_of_process(), _told)
        self._pauses = Pauses(loop.pause)
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
            why = getattr(self._error, "strerror", None) or describe(self._error)
            raise ConfigurationError(f"RECONCILER_PORT={self.port} cannot be opened: {why}")

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
        runner = GuardedAppRunner(self._app(), guard=self._guard, access_log=None, shutdown_timeout=1)
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

    def _app(self) -> web.Application:
        allowed = allowed_hosts(self._loop.controller.world.settings)
        app = web.Application(middlewares=[self._with_room, no_browsers, known_hosts(allowed)])
        app.on_response_prepare.append(add_headers)
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/registry", self._get_registry),
                web.get("/counters", self._counters),
                web.get("/groups/{group:.*}", self._group),
                *StatusPage(self._loop).routes(),
                web.post("/reconcile", self._reconcile),
                web.post("/pause", self._pause),
                web.post("/resume", self._resume),
            ]
        )
        return app

    @web.middleware
    async def _with_room(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Answer 503 where there is no room for a client; its question for our health is answered all the same."""
        entry = getattr(request.protocol, "entry", None)
        if entry is None or not entry.excess or request.path == "/healthz" or self._guard.has_room(entry):
            return await handler(request)
        detail = "the server has no room for more clients"
        return web.json_response({"title": "too many clients", "detail": detail}, status=503, headers=_RETRY)

    async def _healthz(self, _: web.Request) -> web.Response:
        age = time.monotonic() - self._loop.ticked
        alive = self._loop.alive
        return web.json_response({"alive": alive, "tick_age_seconds": round(age, 1)}, status=200 if alive else 503)

    async def _readyz(self, _: web.Request) -> web.Response:
        outcome = self._loop.outcome
        reads_well = outcome is not None and outcome.survey is not None
        ready = reads_well and self._board.get() is not None
        said = outcome.sentence if outcome is not None else "the first cycle has not ended"
        paused = (
            self._loop.controller.memory.pause.text
            if self._loop.paused and self._loop.controller.memory.pause
            else None
        )
        told = {"ready": ready, "role": self._loop.controller.write_gate.role, "paused": paused, "last": said}
        return web.json_response(told, status=200 if ready else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _standing_by(self) -> web.Response | None:
        """Send a follower on to the operator that writes; None where this is the one to ask.

        What a standby has seen may be some seconds old, and whoever asks both in turn would go back and forth. While
        paused nobody writes, so everybody's answer is as good.
        """
        if self._loop.controller.write_gate.role != "standby" or self._loop.paused:
            return None
        detail = "another operator holds the lease: ask again, the name leads to all of them"
        headers = {"Retry-After": "1", ROLE_HEADER: "standby"}
        answer = web.json_response({"title": "standby", "detail": detail}, status=503, headers=headers)
        answer.force_close()  # the next question is to reach another one
        return answer

    async def _get_registry(self, request: web.Request) -> web.Response:
        if (elsewhere := self._standing_by()) is not None:
            return elsewhere
        current = self._board.get()
        if current is None:
            return web.json_response(
                {"title": "no registry yet", "detail": "no group has become ready"},
                status=503,
                headers=_RETRY,
            )
        data, revision = current
        headers = {"ETag": f'"{revision}"', "Cache-Control": "no-cache"}
        if revision in {tag.value for tag in request.if_none_match or ()}:
            return web.Response(status=304, headers=headers)
        return web.Response(body=data, content_type="application/json", headers=headers)

    async def _group(self, request: web.Request) -> web.Response:
        """Say everything about one group, from memory; a name may have any characters, percent-encoded."""
        raw, known = request.raw_path.partition("?")[0].split("/groups/", 1)[1], known_by(self._loop)
        try:
            group = unquote(raw, errors="surrogatepass")
        except UnicodeDecodeError:  # no text, so no group's name
            group = unquote(raw)
        owner = self._loop.controller.world.settings.reconciler_owner
        if known is None:
            return self._not_yet()
        answer = why(group, known, "this operator")
        if answer is None:
            close, names = similar(group, known.survey), sorted(known_groups(known.survey))
            unknown = {"title": "unknown group", "owner": owner, "close": close, "known": names}
            return web.json_response(unknown, status=404)
        return web.Response(text=printable_json(answer.model_dump_json()), content_type="application/json")

    async def _counters(self, _: web.Request) -> web.Response:
        """Say what has been counted, for a command that reads directly."""
        if self._loop.history.read is None:
            return self._not_yet()
        counted = counters(self._loop.controller)
        return web.Response(text=printable_json(counted.model_dump_json()), content_type="application/json")

    def _not_yet(self) -> web.Response:
        """Say that there is nothing to tell yet, and whose operator this is."""
        owner = self._loop.controller.world.settings.reconciler_owner
        document = {"title": "not yet", "owner": owner, "detail": "no cycle has read everything yet"}
        return web.json_response(document, status=503, headers=_RETRY)

    async def _reconcile(self, _: web.Request) -> web.Response:
        self._loop.nudge()
        if (elsewhere := self._standing_by()) is not None:
            return elsewhere
        return web.json_response({"nudged": True}, status=202)

    async def _pause(self, request: web.Request) -> web.Response:
        try:
            seconds = float(request.query["seconds"])
        except (KeyError, ValueError):
            seconds = -1.0
        if not 0 < seconds <= LONGEST_PAUSE:
            return web.json_response(
                {"title": "bad pause", "detail": f"?seconds=N with 0 < N <= {LONGEST_PAUSE:.0f} is required"},
                status=400,
            )
        now = self._loop.controller.clocks.wall()
        return await self._paused(start_pause(now, seconds, _who(request), request.query.get("reason", "")))

    async def _resume(self, request: web.Request) -> web.Response:
        return await self._paused(end_pause(_who(request)))

    async def _paused(self, pause: Pause) -> web.Response:
        try:
            pause = await self._pauses.put(pause)
        except PlatformError as error:
            detail = f"it holds for this operator only, until its next look, and is not written down: {error}"
            return web.json_response({"title": "not written down", "detail": detail}, status=503)
        return web.json_response({"paused": pause.text if pause.until else None, **pause.fields})


class Pauses:
    """Begins and ends pauses, which waits for the running cycle: one at a time, however many ask.

    What waits occupies one thread, so that reads, which need threads too, are answered meanwhile (measured: 12 requests
    to resume during a slow cycle held up `/status` for 9.8 s). Of those that wait only the last is carried out: it is
    what would hold in the end.
    """

    def __init__(self, write: Callable[[Pause], None]) -> None:
        """Carry out with ``write``, which may take as long as a cycle."""
        self._write = write
        self._next: tuple[Pause, asyncio.Future[Pause]] | None = None
        self._worker: asyncio.Task[None] | None = None

    async def put(self, pause: Pause) -> Pause:
        """Carry out this one, or one that was asked for later; return which.

        Raises:
            PlatformError: it is not written down.
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
            except Exception as error:  # noqa: BLE001 - whoever waits for it is told
                done.set_exception(error)
                done.exception()  # who asked may have left
            else:
                done.set_result(pause)


def known_by(loop: Loop) -> WhyContext | None:
    """Return what a running operator knows; None before its first full read."""
    history, controller = loop.history, loop.controller
    if history.read is None or history.read.plan is None or history.read.survey is None or history.read_at is None:
        return None
    return WhyContext(
        settings=controller.world.settings,
        survey=history.read.survey,
        plan=history.read.plan,
        read_at=history.read_at,
        memory=controller.memory.guards,
        backoff=controller.memory.backoff,
        now=controller.clocks.monotonic(),
        last=history.last.sentence if history.last else "",
        role=controller.write_gate.role,
        paused=controller.memory.pause.text if loop.paused and controller.memory.pause else "",
    )


def _who(request: web.Request) -> str:
    return f"a request from {request.remote}"
