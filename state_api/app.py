"""The state API's HTTP side: ``/asset_state``, ``/ready``, ``/healthz``, ``/metrics``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus

from aiohttp import web

from openfactory_common.ksqldb_http import KsqldbSession, open_session
from openfactory_common.service import NO_STORE, alive, metrics_of, missing_parameter, readiness
from state_api.metrics import Metrics
from state_api.settings import Settings
from state_api.states import AssetStates

#: Seconds after which a client that got 503 can try again.
_RETRY_AFTER = {"Retry-After": "2"}
_STATES: web.AppKey[AssetStates] = web.AppKey("states", AssetStates)
_METRICS: web.AppKey[Metrics] = web.AppKey("metrics", Metrics)


def make_app(settings: Settings) -> web.Application:
    """Return the application with its own session to ksqlDB."""
    metrics = Metrics()

    async def connect(app: web.Application) -> AsyncIterator[None]:
        async with open_session(settings) as session:
            ksqldb = KsqldbSession(session, settings.ksqldb_url)
            app[_STATES] = AssetStates(ksqldb, settings.ksqldb_assets_table, metrics)
            yield

    app = web.Application()
    app[_METRICS] = metrics
    app.cleanup_ctx.append(connect)
    app.router.add_get("/asset_state", _asset_state)
    app.router.add_get("/ready", _ready)
    app.router.add_get("/healthz", alive)
    app.router.add_get("/metrics", metrics_of(metrics.registry))
    return app


async def _asset_state(request: web.Request) -> web.Response:
    """Answer the data items of ``asset_uuid``, or the one named ``id``; 422 without ``asset_uuid``."""
    asset = request.query.get("asset_uuid")
    answers = request.app[_METRICS].answers
    if not asset:
        answers[HTTPStatus.UNPROCESSABLE_ENTITY].inc()
        return missing_parameter("asset_uuid")
    answer = await request.app[_STATES].ask(asset, request.query.get("id") or None)
    answers[answer.status].inc()
    headers = NO_STORE | (_RETRY_AFTER if answer.status is HTTPStatus.SERVICE_UNAVAILABLE else {})
    return web.Response(body=answer.body, status=answer.status, headers=headers, content_type="application/json")


async def _ready(request: web.Request) -> web.Response:
    """Answer whether the table can be read. Not for a container's health check."""
    return readiness(await request.app[_STATES].issues())
