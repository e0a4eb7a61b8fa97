"""The state API over real sockets: pull queries in, the existing system's JSON out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from demo.state_api.app import StateApiSettings, make_app

from .ksql_standin import RESTORING, KsqlStandIn, refusal, running_ksql, serving, streamed
from .sse_client import status_of

COLUMNS = ("ASSET_UUID", "ID", "VALUE", "TYPE", "TAG", "TIMESTAMP")
TEMPERATURE = ["A1", "temp", "1E3", "Samples", "Temperature", "2025-01-01T00:00:00Z"]
AVAILABLE = ["A1", "avail", "AVAILABLE", "Events", "Availability", "2025-01-01T00:00:01Z"]


@asynccontextmanager
async def scene() -> AsyncIterator[tuple[KsqlStandIn, str]]:
    """Start a stand-in that knows asset A1, and a state API in front of it."""
    async with running_ksql() as ksql:
        ksql.pull = lambda _sql: (200, streamed(COLUMNS, [TEMPERATURE, AVAILABLE]))
        async with serving(make_app(StateApiSettings(ksqldb_url=ksql.url))) as url:
            yield ksql, url


async def ask(url: str, **query: str) -> tuple[int, Any, str | None]:
    """Return status, body and Retry-After of one request for a state."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/asset_state", params=query) as reply:
        return reply.status, await reply.json(), reply.headers.get("Retry-After")


def test_all_data_items_of_an_asset() -> None:
    """Without id the items come as a list in a fixed order, values exactly as stored."""

    async def play() -> tuple[int, Any, str | None]:
        async with scene() as (_, url):
            return await ask(url, asset_uuid="A1")

    keys = ("id", "value", "type", "tag", "timestamp")
    items = [dict(zip(keys, row[1:], strict=True)) for row in (AVAILABLE, TEMPERATURE)]
    assert asyncio.run(play()) == (200, {"asset_uuid": "A1", "dataItems": items}, None)


def test_one_data_item_is_read_by_its_key() -> None:
    """With id the composite key is asked for, quotes doubled, and the item comes alone."""

    async def play() -> tuple[list[str], Any]:
        async with scene() as (ksql, url):
            ksql.pull = lambda _sql: (200, streamed(COLUMNS, [TEMPERATURE]))
            _, body, _ = await ask(url, asset_uuid="A'1", id="te'mp")
            return [query["ksql"] for query in ksql.queries], body

    queries, body = asyncio.run(play())
    assert queries == ["SELECT asset_uuid, id, value, type, tag, timestamp FROM assets WHERE key = 'A''1|te''mp';"]
    assert (body["id"], body["value"], body["timestamp"]) == ("temp", "1E3", "2025-01-01T00:00:00Z")


def test_an_unknown_asset_is_404() -> None:
    """No row in a complete answer of a settled server: there is no such asset."""

    async def play() -> list[int]:
        async with scene() as (ksql, url):
            ksql.pull = lambda _sql: (200, streamed(COLUMNS, []))
            return [(await ask(url, asset_uuid="ZZ"))[0], (await ask(url, asset_uuid="ZZ", id="temp"))[0]]

    assert asyncio.run(play()) == [404, 404]


def test_without_an_asset_the_request_is_refused() -> None:
    """422, and ksqlDB is not asked."""

    async def play() -> tuple[int, int]:
        async with scene() as (ksql, url):
            return (await ask(url, id="temp"))[0], len(ksql.queries)

    assert asyncio.run(play()) == (422, 0)


def test_ksqldb_away_is_503_with_retry_after() -> None:
    """The service stays alive and says when to come again; it recovers by itself."""

    async def play() -> list[Any]:
        async with scene() as (ksql, url):
            await ksql.stop()
            away = [await ask(url, asset_uuid="A1"), await status_of(f"{url}/ready"), await status_of(f"{url}/healthz")]
            await ksql.start()
            return [*away, (await ask(url, asset_uuid="A1"))[0], await status_of(f"{url}/ready")]

    (status, _, retry_after), not_ready, alive, recovered, ready = asyncio.run(play())
    assert (status, retry_after) == (503, "2")
    assert (not_ready, alive, recovered, ready) == (503, 200, 200, 200)


def test_no_rows_right_after_a_restart_are_not_a_fact() -> None:
    """While the table is restored ksqlDB first refuses, then answers empty: neither is "unknown asset"."""

    async def play() -> list[int]:
        async with scene() as (ksql, url):
            statuses = []
            for answer in (refusal(RESTORING), (200, streamed(COLUMNS, [])), (200, streamed(COLUMNS, [TEMPERATURE]))):
                ksql.pull = lambda _sql, answer=answer: answer  # type: ignore[misc]
                statuses.append((await ask(url, asset_uuid="A1"))[0])
            return statuses

    assert asyncio.run(play()) == [503, 503, 200]
