"""All programs of the demo together: the embedded ksqlDB, the factory, a group service and the state API.

The statements between them are those of the topology that ran on a real ksqlDB: one pre-join, one filter.
"""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from demo.ksql_rest import KsqlRest, client_session
from tests.harness.ports import free_port

from .ksql_standin import until_status
from .sse_client import program, sse, status_of

EARLIEST = {"ksql.streams.auto.offset.reset": "earliest"}
PRE_JOIN = """CREATE STREAM ofa_assets_with_uns WITH (KAFKA_TOPIC = 'ofa_assets_with_uns', VALUE_FORMAT = 'JSON') AS
SELECT s.asset_uuid AS asset_key, AS_VALUE(s.asset_uuid) AS `asset_uuid`, s.id AS `id`, s.value AS `value`,
       s.type AS `type`, s.tag AS `tag`, s.timestamp AS `timestamp`, h.uns_levels['workcenter'] AS uns_group
FROM enriched_assets_stream s JOIN asset_to_uns_map_raw h ON s.asset_uuid = h.asset_uuid EMIT CHANGES;"""
FILTER = """CREATE STREAM `ASSET_STREAM_WELD` WITH (KAFKA_TOPIC = 'asset_stream_Weld', VALUE_FORMAT = 'JSON') AS
SELECT asset_key, `asset_uuid`, `id`, `value`, `type`, `tag`, `timestamp`
FROM ofa_assets_with_uns WHERE uns_group = 'Weld' EMIT CHANGES;"""


@dataclass(frozen=True)
class Demo:
    """Where the running programs are, and ksqlDB's process."""

    server: Process
    ksqldb: str
    group: str
    state: str


@asynccontextmanager
async def demo() -> AsyncIterator[Demo]:
    """Start all four, with the group's streams made by hand once the factory has set up its own."""
    ports = [free_port() for _ in range(3)]
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            program("demo.ksqldb", "--host", "127.0.0.1", "--port", str(ports[0]), output=DEVNULL)
        )
        await until_status(lambda: answered(f"http://127.0.0.1:{ports[0]}/info"), 200)
        assert server.returncode is None, "another server took the port: the factory must not write into it"
        here = Demo(server, *(f"http://127.0.0.1:{port}" for port in ports))
        await stack.enter_async_context(program("demo.factory", KSQLDB_URL=here.ksqldb, output=DEVNULL))
        await create_streams(here.ksqldb)
        told = {"KSQLDB_URL": here.ksqldb, "GROUP_NAME": "Weld", "KSQLDB_STREAM": "ASSET_STREAM_WELD"}
        told |= {"SOURCE": "ksqldb", "KAFKA_TOPIC": "asset_stream_Weld"}
        await stack.enter_async_context(program("group_service", PORT=str(ports[1]), output=DEVNULL, **told))
        await stack.enter_async_context(program("state_api", PORT=str(ports[2]), output=DEVNULL, **told))
        await until_status(lambda: answered(f"{here.group}/ready"), 200, 60)
        await until_status(lambda: answered(f"{here.state}/asset_state?asset_uuid=WELD-ROBOT-01"), 200, 60)
        yield here


async def answered(url: str) -> int:
    """Return the status of a GET, 0 while no one listens."""
    try:
        return await status_of(url)
    except aiohttp.ClientError:
        return 0


async def create_streams(url: str) -> None:
    """Create the pre-join and the filter as soon as their sources exist."""
    async with client_session() as session, asyncio.timeout(60):
        ksql = KsqlRest(session, url)
        while not await ksql.is_ready() or "ASSETS" not in await ksql.sources():  # noqa: ASYNC110 - another program
            await asyncio.sleep(0.2)
        for statement in (PRE_JOIN, FILTER):
            await ksql.execute(statement, EARLIEST)


async def state_of(url: str, **query: str) -> tuple[int, Any]:
    """Return status and body of a state."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/asset_state", params=query) as reply:
        return reply.status, await reply.json()


def test_events_and_state_of_mapped_assets_arrive() -> None:
    """A client receives a Weld asset's events, its state is served, and an asset mapped to Weld later joins in."""

    async def play() -> tuple[dict[str, Any], Any, int, dict[str, Any]]:
        async with demo() as here, sse(here.group, asset_uuid="WELD-ROBOT-01") as stream:
            event = await stream.event()
            _, state = await state_of(here.state, asset_uuid="WELD-ROBOT-01", id="avail")
            unknown, _ = await state_of(here.state, asset_uuid="UNMAPPED")
            async with (
                sse(here.group, asset_uuid="LATHE-01") as new,
                program("demo.factory", "map", "LATHE-01", "Weld", KSQLDB_URL=here.ksqldb) as mapping,
            ):
                await mapping.communicate()
                return event, state, unknown, await new.event()

    event, state, unknown, new = asyncio.run(play())
    assert list(event) == ["asset_uuid", "id", "value", "type", "tag", "timestamp"]
    assert event["asset_uuid"] == "WELD-ROBOT-01"
    assert (state["asset_uuid"], state["id"], state["value"]) == ("WELD-ROBOT-01", "avail", "AVAILABLE")
    assert unknown == 404
    assert new["asset_uuid"] == "LATHE-01"


def test_a_ksqldb_that_restarts_empty_is_filled_and_streams_go_on() -> None:
    """The factory sets everything up again; a client connected all along is told the gap, and receives events again."""

    async def play() -> tuple[str, int]:
        async with demo() as here, sse(here.group, asset_uuid="WELD-ROBOT-01") as stream:
            await stream.event()
            here.server.terminate()
            await here.server.communicate()
            await until_status(lambda: answered(f"{here.group}/ready"), 503)
            async with program(
                "demo.ksqldb", "--host", "127.0.0.1", "--port", here.ksqldb.rpartition(":")[2], output=DEVNULL
            ):
                await create_streams(here.ksqldb)
                return str((await stream.event())["asset_uuid"]), stream.gaps

    assert asyncio.run(play()) == ("WELD-ROBOT-01", 1)
