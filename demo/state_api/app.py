"""The state API's HTTP side: ``/asset_state``, ``/ready``, ``/healthz``.

The table has one row for each data item, keyed ``asset_uuid|id``, with the columns asset_uuid, id, value, type, tag
and timestamp. Replies have the shape of the existing system's state API.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import structlog
from aiohttp import web
from pydantic import Field

from demo.ksql_rest import KsqlError, KsqlRest, Row, client_session, literal
from demo.service import ServiceSettings, alive, missing_parameter

ITEM_KEYS = ("id", "value", "type", "tag", "timestamp")
RETRY_AFTER = {"Retry-After": "2"}
SETTLING_SECONDS = 5.0
"""After a restart ksqlDB first refuses pull queries, then answers for 0.3 to 0.4 s with no rows at all, then with
all of them (measured with 7.7.0). So soon after a failure "no rows" is not yet a fact."""


class StateApiSettings(ServiceSettings):
    """Settings of the state API.

    Attributes:
        ksqldb_assets_table: the table, a plain name that ksqlDB folds to upper case.
        deployment_platform: accepted for compatibility, used in nothing.
        port: where to listen.
    """

    ksqldb_assets_table: str = Field(default="assets", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    deployment_platform: str = "swarm"
    port: int = Field(default=5555, ge=1, le=65535)


@dataclass
class AssetStates:
    """The table of data items and when it last could not be read."""

    ksql: KsqlRest
    table: str
    failed_at: float = field(default=float("-inf"))

    async def read(self, asset: str, data_item: str | None) -> list[Row]:
        """Return the rows of an asset, or of one of its data items, by the key.

        Raises:
            KsqlError: ksqlDB cannot say now, whatever the reason: the statement's form is fixed, so a refusal means
                a table that is not there yet or not readable yet.
        """
        condition = f"asset_uuid = {literal(asset)}"
        if data_item is not None:
            condition = f"key = {literal(f'{asset}|{data_item}')}"
        sql = f"SELECT asset_uuid, id, value, type, tag, timestamp FROM {self.table} WHERE {condition};"  # noqa: S608 - name whitelisted, values escaped
        try:
            rows = await self.ksql.pull(sql)
        except KsqlError:
            self.failed_at = time.monotonic()
            raise
        if not rows and time.monotonic() - self.failed_at < SETTLING_SECONDS:
            raise KsqlError("the table is being restored")
        return rows


STATES: web.AppKey[AssetStates] = web.AppKey("states", AssetStates)


def make_app(settings: StateApiSettings) -> web.Application:
    """Return the application with its own session to ksqlDB."""

    async def connect(app: web.Application) -> AsyncIterator[None]:
        async with client_session() as session:
            app[STATES] = AssetStates(KsqlRest(session, settings.ksqldb_url), settings.ksqldb_assets_table)
            yield

    app = web.Application()
    app.cleanup_ctx.append(connect)
    app.router.add_get("/asset_state", asset_state)
    app.router.add_get("/ready", ready)
    app.router.add_get("/healthz", alive)
    return app


async def ready(request: web.Request) -> web.Response:
    """Answer 200 when ksqlDB answers, else 503. Not for a container's health check."""
    if await request.app[STATES].ksql.is_ready():
        return web.json_response({"status": "ready"})
    return web.json_response({"status": "not ready", "issues": "ksqlDB does not answer"}, status=503)


async def asset_state(request: web.Request) -> web.Response:
    """Answer the current data items of ``asset_uuid``, or the one named ``id``.

    404 when there is none, 422 without ``asset_uuid``, 503 with Retry-After while ksqlDB cannot say.
    """
    asset = request.query.get("asset_uuid")
    if not asset:
        return missing_parameter("asset_uuid")
    data_item = request.query.get("id") or None
    try:
        rows = await request.app[STATES].read(asset, data_item)
    except KsqlError as error:
        structlog.get_logger().warning("no state", asset_uuid=asset, reason=str(error))
        return web.json_response({"detail": "ksqlDB cannot answer at the moment"}, status=503, headers=RETRY_AFTER)
    return _reply(asset, data_item, rows)


def _reply(asset: str, data_item: str | None, rows: list[Row]) -> web.Response:
    if not rows:
        what = "asset_uuid" if data_item is None else "asset_uuid and id"
        return web.json_response({"detail": f"No data found for the given {what}."}, status=404)
    items = [{key: row.get(key) for key in ITEM_KEYS} for row in rows]
    if data_item is not None:
        return web.json_response({"asset_uuid": asset, **items[0]})
    return web.json_response({"asset_uuid": asset, "dataItems": sorted(items, key=lambda item: str(item["id"]))})
