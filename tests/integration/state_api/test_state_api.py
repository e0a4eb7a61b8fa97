"""The state API before the embedded ksqlDB: pull queries in, the old system's JSON out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from state_api.app import make_app
from state_api.settings import Settings
from tests.harness.ports import free_port
from tests.harness.serving import Served, front
from tests.integration.ksqldb.server import Reply

STREAM = """CREATE STREAM items (key VARCHAR KEY, asset_uuid VARCHAR, id VARCHAR, value VARCHAR, type VARCHAR,
    tag VARCHAR, timestamp VARCHAR) WITH (KAFKA_TOPIC='items', VALUE_FORMAT='JSON', PARTITIONS=1);"""
_LATEST = ", ".join(
    f"LATEST_BY_OFFSET({name}) AS {name}" for name in ("asset_uuid", "id", "value", "type", "tag", "timestamp")
)
TABLE = f"CREATE TABLE assets AS SELECT key, {_LATEST} FROM items GROUP BY key;"
KEYS = ("id", "value", "type", "tag", "timestamp")
AVAILABLE = ("avail", "AVAILABLE", "Events", "Availability", "2025-01-01T00:00:01Z")
TEMPERATURE = ("temp", "1E3", "Samples", "Temperature", "2025-01-01T00:00:00Z")
QUOTED = ("te'mp|x", "it's <b>", "Samples", "Temperature", "2025-01-01T00:00:02Z")
AWAY = (503, {"detail": "ksqlDB cannot answer at the moment"}, "2")
Ask = Callable[..., Awaitable[tuple[int, Any, str | None]]]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """A ksqlDB with the table of two assets."""
    served = Served()
    served.sql(STREAM, TABLE)
    for asset, items in (("A1", (TEMPERATURE, AVAILABLE)), ("A'2", (QUOTED,))):
        for item in items:
            _insert(served, asset, item)
    yield served
    served.stop()


@pytest.fixture
def ksqldb(server: Served) -> Iterator[Served]:
    """The same, without faults at the start and at the end."""
    server.good_day()
    yield server
    server.good_day()


def _insert(served: Served, asset: str, item: tuple[str, ...]) -> None:
    value = {"asset_uuid": asset, **dict(zip(KEYS, item, strict=True))}
    record = {"topic": "items", "key": f"{asset}|{item[0]}", "value": value}
    served.http.post("/dev/produce", json=record).raise_for_status()


@asynccontextmanager
async def _serving(url: str) -> AsyncIterator[str]:
    settings = Settings(ksqldb_url=url, _env_file=None)  # type: ignore[call-arg]
    runner = web.AppRunner(make_app(settings), handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def play(url: str, scene: Callable[[Ask], Awaitable[Any]]) -> Any:
    """Run a scene with a state API before the ksqlDB at ``url``; its argument asks for a path with a query."""

    async def run() -> Any:
        async with _serving(url) as api, aiohttp.ClientSession() as session:

            async def ask(path: str = "/asset_state", **query: str) -> tuple[int, Any, str | None]:
                async with session.get(api + path, params=query) as reply:
                    text = await reply.text()
                    is_json = reply.content_type == "application/json"
                    return reply.status, json.loads(text) if is_json else text, reply.headers.get("Retry-After")

            return await scene(ask)

    return asyncio.run(run())


def _item(values: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(KEYS, values, strict=True))


def test_all_data_items_of_an_asset(ksqldb: Served) -> None:
    """Without id the items come as a list in a fixed order, values exactly as stored."""
    expected = {"asset_uuid": "A1", "dataItems": [_item(AVAILABLE), _item(TEMPERATURE)]}
    assert play(ksqldb.url, lambda ask: ask(asset_uuid="A1")) == (200, expected, None)


def test_the_order_of_the_items_is_theirs_and_not_that_of_the_answer(ksqldb: Served) -> None:
    """Partitions answer in any order: a client sees the items by their ids."""
    rows = [{"row": {"columns": ["A1", *item]}} for item in (TEMPERATURE, AVAILABLE)]
    body = json.dumps([{"header": {"queryId": "q", "schema": "`A` STRING"}}, *rows]).encode()
    with front(ksqldb, {"pull": Reply(body, content_type="application/vnd.ksql.v1+json")}) as site:
        _, state, _ = play(site.url, lambda ask: ask(asset_uuid="A1"))
    assert [item["id"] for item in state["dataItems"]] == ["avail", "temp"]


@pytest.mark.parametrize(("asset", "item"), [("A1", TEMPERATURE), ("A'2", QUOTED)])
def test_one_data_item(ksqldb: Served, asset: str, item: tuple[str, ...]) -> None:
    """With id the item comes alone; quotes in names are data."""
    answer = play(ksqldb.url, lambda ask: ask(asset_uuid=asset, id=item[0]))
    assert answer == (200, {"asset_uuid": asset, **_item(item)}, None)


def test_one_data_item_is_read_by_the_tables_key(ksqldb: Served) -> None:
    """One item is a look-up by key, not a scan of the table."""
    with front(ksqldb, {}) as site:
        assert play(site.url, lambda ask: ask(asset_uuid="A'2", id="x"))[0] == 404
    (statement,) = [json.loads(request.body)["ksql"] for request in site.requests if request.path == "/query"]
    assert statement.endswith(" WHERE key = 'A''2|x';")


def test_a_change_is_seen(ksqldb: Served) -> None:
    """A later event of an item is the state from then on."""
    _insert(ksqldb, "A3", TEMPERATURE)
    _insert(ksqldb, "A3", (*TEMPERATURE[:1], "7", *TEMPERATURE[2:]))
    assert play(ksqldb.url, lambda ask: ask(asset_uuid="A3", id="temp"))[1]["value"] == "7"


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ({"asset_uuid": "ZZ"}, "No data found for the given asset_uuid."),
        ({"asset_uuid": "A1", "id": "zz"}, "No data found for the given asset_uuid and id."),
        ({"asset_uuid": "' OR '1'='1"}, "No data found for the given asset_uuid."),
    ],
)
def test_what_is_unknown_is_404(ksqldb: Served, query: dict[str, str], detail: str) -> None:
    """No row in a complete answer of a settled server: there is no such asset or item."""
    assert play(ksqldb.url, lambda ask: ask(**query)) == (404, {"detail": detail}, None)


@pytest.mark.parametrize("query", [{}, {"id": "temp"}, {"asset_uuid": ""}])
def test_without_an_asset_the_request_is_refused(ksqldb: Served, query: dict[str, str]) -> None:
    """422 in the old system's form, and ksqlDB is not asked."""
    before = ksqldb.counted()["requests"]
    status, body, _ = play(ksqldb.url, lambda ask: ask(**query))
    assert (status, body["detail"][0]["loc"]) == (422, ["query", "asset_uuid"])
    assert ksqldb.counted()["requests"] == before


@pytest.mark.parametrize("fault", ["pull_not_ready", "pull_shutdown", "not_ready", "truncated", "error_row"])
def test_a_ksqldb_that_cannot_say_is_503(ksqldb: Served, fault: str) -> None:
    """An error and an answer that is cut are never "unknown"; the client is told when to come again."""
    ksqldb.switch(**{fault: {"value": 0} if fault == "error_row" else True})
    assert play(ksqldb.url, lambda ask: ask(asset_uuid="A1")) == AWAY


@pytest.mark.parametrize(
    "body", [b"[]", b'[{"header":{"queryId":"q","schema":"`A` STRING"}},{"row":{"columns":["A1"]}}]']
)
def test_an_answer_of_another_shape_is_503(ksqldb: Served, body: bytes) -> None:
    """An answer without its header, or with other columns, is not a state."""
    with front(ksqldb, {"pull": Reply(body, content_type="application/vnd.ksql.v1+json")}) as site:
        assert play(site.url, lambda ask: ask(asset_uuid="A1")) == AWAY


def test_no_rows_right_after_a_failure_are_no_fact(ksqldb: Served) -> None:
    """While the table is restored ksqlDB first refuses, then answers empty: neither is "unknown asset"."""

    async def scene(ask: Ask) -> list[int]:
        ksqldb.switch(pull_not_ready=True)
        statuses = [(await ask(asset_uuid="A1"))[0]]
        ksqldb.good_day()
        ksqldb.switch(empty_pull=True)
        statuses.append((await ask(asset_uuid="A1"))[0])
        ksqldb.good_day()
        return [*statuses, (await ask(asset_uuid="A1"))[0]]

    assert play(ksqldb.url, scene) == [503, 503, 200]


def test_ready_tells_whether_the_table_can_be_read(ksqldb: Served) -> None:
    """Readiness is a pull query on the table itself; being alive does not depend on ksqlDB."""

    async def scene(ask: Ask) -> list[tuple[int, Any, str | None]]:
        answers = [await ask("/ready")]
        ksqldb.switch(pull_not_ready=True)
        answers += [await ask("/ready"), await ask("/healthz")]
        ksqldb.good_day()
        return [*answers, await ask("/ready")]

    ready, restoring, alive, again = play(ksqldb.url, scene)
    assert ready == again == (200, {"status": "ready"}, None)
    assert (restoring[0], restoring[1]["status"], alive[0]) == (503, "not ready", 200)
    (issue,) = restoring[1]["issues"]
    assert "ksqlDB does not answer for the table of data items" in issue


def test_without_a_ksqldb() -> None:
    """Nothing listens: the state is 503, the reason names the variable, no password is in it."""
    url = f"http://user:secret@127.0.0.1:{free_port()}"

    async def scene(ask: Ask) -> tuple[Any, Any]:
        return await ask(asset_uuid="A1"), await ask("/ready")

    state, (status, document, _) = play(url, scene)
    assert (state, status) == (AWAY, 503)
    assert "KSQLDB_URL" in document["issues"][0]
    assert "secret" not in document["issues"][0]


def test_no_answer_may_be_kept_by_a_cache(ksqldb: Served) -> None:
    """A state is old at the next event, an asset may exist a moment later: no status is an exception."""

    async def run() -> list[tuple[int, str | None]]:
        seen = []
        async with _serving(ksqldb.url) as api, aiohttp.ClientSession() as session:

            async def note(**query: str) -> None:
                async with session.get(f"{api}/asset_state", params=query) as reply:
                    seen.append((reply.status, reply.headers.get("Cache-Control")))

            for query in ({"asset_uuid": "A1"}, {"asset_uuid": "A1", "id": "temp"}, {"asset_uuid": "ZZ"}, {}):
                await note(**query)
            ksqldb.switch(pull_not_ready=True)
            await note(asset_uuid="A1")
        return seen

    assert asyncio.run(run()) == [(status, "no-store") for status in (200, 200, 404, 422, 503)]


def test_metrics_count_answers_and_failures(ksqldb: Served) -> None:
    """Every status has its series from the start, and each answer counts."""

    async def scene(ask: Ask) -> tuple[str, str]:
        _, before, _ = await ask("/metrics")
        await ask(asset_uuid="A1")
        await ask()
        ksqldb.switch(pull_not_ready=True)
        await ask(asset_uuid="A1")
        return before, (await ask("/metrics"))[1]

    before, after = play(ksqldb.url, scene)
    for code in (200, 404, 422, 503):
        assert f'state_api_requests_total{{code="{code}"}} 0.0' in before
    for line in ('requests_total{code="200"} 1.0', 'requests_total{code="422"} 1.0', 'requests_total{code="503"} 1.0',
                 "query_seconds_count 2.0", "query_failures_total 1.0"):  # fmt: skip
        assert f"state_api_{line}" in after
