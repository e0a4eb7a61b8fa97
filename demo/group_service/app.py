"""The group service's HTTP side: ``/asset_stream``, ``/ready``, ``/healthz``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import structlog
from aiohttp import web

from demo.group_service.fanout import Fanout, Subscription
from demo.group_service.follower import StreamFollower
from demo.group_service.settings import GroupServiceSettings
from demo.ksql_rest import KsqlRest, client_session
from demo.service import alive, missing_parameter

SETTINGS: web.AppKey[GroupServiceSettings] = web.AppKey("settings", GroupServiceSettings)
FANOUT: web.AppKey[Fanout] = web.AppKey("fanout", Fanout)
FOLLOWER: web.AppKey[StreamFollower] = web.AppKey("follower", StreamFollower)

PING = b": ping\n\n"
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}


def make_app(settings: GroupServiceSettings) -> web.Application:
    """Return the application; its push query opens with it and closes with it."""
    app = web.Application()
    app[SETTINGS] = settings
    app[FANOUT] = Fanout(settings.client_queue)
    app.cleanup_ctx.append(_follow)
    app.on_shutdown.append(_end_streams)
    app.router.add_get("/asset_stream", asset_stream)
    app.router.add_get("/ready", ready)
    app.router.add_get("/healthz", alive)
    return app


async def _follow(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    async with client_session() as session:
        ksql = KsqlRest(session, settings.ksqldb_url)
        app[FOLLOWER] = StreamFollower(ksql, settings.ksqldb_stream, app[FANOUT].publish)
        task = asyncio.create_task(app[FOLLOWER].run())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _end_streams(app: web.Application) -> None:
    app[FANOUT].close()


async def ready(request: web.Request) -> web.Response:
    """Answer 200 while the push query is open, else 503 and why.

    Not for a container's health check: a ksqlDB that is away for a minute would have every group service killed,
    and with it every client's stream.
    """
    unhealthy_reason = request.app[FOLLOWER].unhealthy_reason
    if unhealthy_reason is None:
        return web.json_response({"status": "ready"})
    return web.json_response({"status": "not ready", "issues": unhealthy_reason}, status=503)


async def asset_stream(request: web.Request) -> web.StreamResponse:
    """Stream the events of ``asset_uuid``, only those of data item ``id`` if given, until either side ends it.

    Each is ``event: asset_update`` with a JSON object of id, value, type, tag, timestamp and asset_uuid. A comment
    goes out at once, so that intermediaries see the first bytes, and after every ``ping_seconds`` of silence.
    """
    asset = request.query.get("asset_uuid")
    if not asset:
        return missing_parameter("asset_uuid")
    with request.app[FANOUT].subscribe(asset, request.query.get("id") or None, _cutter(request)) as subscription:
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        await response.write(PING)
        await _send(response, subscription, request.app[SETTINGS].ping_seconds)
        return response


def _cutter(request: web.Request) -> Callable[[], None]:
    def cut() -> None:
        structlog.get_logger().warning("client too slow, cut off", peer=request.remote, path=request.path_qs)
        if request.transport is not None:
            request.transport.abort()

    return cut


async def _send(response: web.StreamResponse, subscription: Subscription, silence: float) -> None:
    while not (subscription.ended or subscription.was_cut):
        frames = await subscription.next_frames(silence)
        if frames or not (subscription.ended or subscription.was_cut):
            await response.write(frames or PING)
