"""The group service's HTTP side: ``/asset_stream``, ``/ready``, ``/healthz``, ``/metrics``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

import structlog
from aiohttp import HttpVersion11, web

from group_service.archive import Archive
from group_service.hub import Client, Hub
from group_service.ids import ResumePoint, parse_id, parse_since, point_in_time
from group_service.kafka_archive import KafkaArchive
from group_service.kafka_live import LiveReader
from group_service.ksqldb import KsqldbReader
from group_service.metrics import Metrics
from group_service.resume import Ended, Resumption
from group_service.settings import Settings, SourceKind
from openfactory_common.ksqldb_http import KsqldbSession, open_session
from openfactory_common.service import ENDLESS, alive, metrics_of, missing_parameter, readiness, serve
from openfactory_common.tasks import cancel_until_ended

SETTINGS: web.AppKey[Settings] = web.AppKey("settings", Settings)
HUB: web.AppKey[Hub] = web.AppKey("hub", Hub)
ARCHIVE: web.AppKey[Archive] = web.AppKey("archive", Archive)
_PING = b": ping\n\n"
_LONGEST_ID = 4096


async def start(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    read = _read_kafka if settings.source is SourceKind.KAFKA else _read_ksqldb
    await serve(make_app(settings, read), None, settings.port)


def make_app(settings: Settings, read: Callable[[web.Application], AsyncIterator[None]]) -> web.Application:
    """Return the application; ``read`` opens its source, sets its `ARCHIVE`, and closes the source."""
    app, metrics = web.Application(), Metrics()
    app[SETTINGS] = settings
    app[HUB] = Hub(settings.slug, settings.history_bytes, settings.ping_seconds, metrics)
    app.cleanup_ctx.append(_tick)
    app.cleanup_ctx.append(read)
    app.on_shutdown.append(_end_streams)
    app.router.add_get("/asset_stream", asset_stream, allow_head=False)
    app.router.add_get("/ready", _ready)
    app.router.add_get("/healthz", alive)
    app.router.add_get("/metrics", metrics_of(metrics.registry))
    return app


async def _tick(app: web.Application) -> AsyncIterator[None]:
    async def tick() -> None:
        while True:
            await asyncio.sleep(1)
            try:
                app[HUB].tick()
            except Exception:  # noqa: BLE001 - pings must go on: without them no silent client is noticed that has left
                structlog.get_logger().exception("pings failed")

    task = asyncio.create_task(tick())
    yield
    task.cancel()


async def _read_kafka(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    brokers, extra = settings.kafka_broker, settings.kafka_properties
    archive = KafkaArchive(brokers, extra)
    app[ARCHIVE] = archive
    reader = LiveReader(app[HUB], settings.kafka_topic, brokers, extra, settings.history_bytes)
    reader.start()
    yield
    await reader.stop()
    archive.close()


async def _read_ksqldb(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    async with open_session(settings) as session:
        reader = KsqldbReader(app[HUB], KsqldbSession(session, settings.ksqldb_url), settings.ksqldb_stream)
        app[ARCHIVE] = reader
        task = asyncio.create_task(reader.run())
        yield
        await cancel_until_ended((task,))


async def _end_streams(app: web.Application) -> None:
    app[HUB].close()


async def _ready(request: web.Request) -> web.Response:
    """Answer 200 when every event since now is served, else 503 and why.

    Not for a container's health check: a Kafka that is away for a minute would have every group service killed, and
    with it every client's stream.
    """
    return readiness([*request.app[HUB].issues.values()], group=request.app[SETTINGS].group_name)


async def asset_stream(request: web.Request) -> web.StreamResponse:
    """Stream the events of ``asset_uuid`` (absent: of the whole group), only of data item ``id`` if given.

    A client that names what it has (``Last-Event-ID``, ``since``) gets everything after that first. A wrong id is told
    as a gap, not as an error: an EventSource that is answered 400 never comes back.
    """
    asset = request.query.get("asset_uuid")
    if asset == "":
        return missing_parameter("asset_uuid")
    if request.version < HttpVersion11 or request.transport is None:
        return web.Response(status=HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, text="a stream needs HTTP/1.1\n")
    settings, hub = request.app[SETTINGS], request.app[HUB]
    request[ENDLESS] = True
    point, given, unknown = _find_point(request, arrived=not hub.filled)
    headers = {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",
        "X-OpenFactory-Group": settings.quoted_group,
    }
    if not given:  # from now on every client of the same query gets the same bytes
        headers["X-OpenFactory-Shareable"] = "1"
    response = web.StreamResponse(headers=headers)
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(_PING)
    client = Client(request.transport, asset, request.query.get("id") or None, settings.client_buffer)
    hub.attach(client)
    try:
        await Resumption(hub, request.app[ARCHIVE], client, response.write, settings.replay_limit).run(
            point, given, unknown=unknown
        )
        await client.ended
    except Ended:
        pass
    finally:
        hub.detach(client)
    return response


def _find_point(request: web.Request, *, arrived: bool) -> tuple[ResumePoint | None, str, bool]:
    """Return where the client stopped, the text that says so, and whether that text is wrong.

    Args:
        request: the client's.
        arrived: a client without a position wants everything since now: the present position is not known yet.
    """
    now_ms = int(time.time() * 1000)
    given = request.headers.get("Last-Event-ID") or request.query.get("lastEventId") or ""
    since = "" if given else request.query.get("since", "")
    point, unknown = point_in_time(now_ms) if arrived else None, False
    try:
        if given:
            return parse_id(given[:_LONGEST_ID]), given, False
        if since:
            point = parse_since(since, now_ms)
            return point, f"@{point.ms}", False
    except ValueError as error:
        structlog.get_logger().info("a client's position is not known", given=given or since, reason=str(error))
        given, unknown = (given or since)[:_LONGEST_ID], True
    return point, given, unknown
