"""The group service over real sockets: one push query in, many clients out."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from demo.group_service.app import FANOUT, make_app
from demo.group_service.fanout import Fanout
from demo.group_service.settings import GroupServiceSettings
from demo.service import load

from .ksql_standin import KsqlStandIn, running_ksql, serving, until, until_status
from .sse_client import program, sse, status_of


@dataclass(frozen=True)
class Scene:
    """A group service in front of a stand-in, its push query open."""

    ksql: KsqlStandIn
    url: str
    clients: Fanout


@asynccontextmanager
async def scene(**settings: Any) -> AsyncIterator[Scene]:
    """Start both and wait for the push query."""
    async with running_ksql() as ksql:
        told = {"group_name": "Weld", "ksqldb_stream": "ASSET_STREAM_WELD", "ksqldb_url": ksql.url, **settings}
        app = make_app(GroupServiceSettings(**told))
        async with serving(app) as url:
            await until_status(lambda: status_of(f"{url}/ready"), 200)
            yield Scene(ksql, url, app[FANOUT])


def test_a_client_receives_its_assets_events_with_six_keys() -> None:
    """Each event is named asset_update and carries exactly the six keys; another asset's events do not come."""

    async def play() -> dict[str, Any]:
        async with scene() as here, sse(here.url, asset_uuid="A1") as stream:
            here.ksql.send("A2", "temp", "1")
            here.ksql.send("A1", "temp", "21")
            return await stream.event()

    assert asyncio.run(play()) == {
        "id": "temp",
        "value": "21",
        "type": "Samples",
        "tag": "Temperature",
        "timestamp": "2025-01-01T00:00:00Z",
        "asset_uuid": "A1",
    }


def test_plain_upper_case_columns_look_the_same_to_clients() -> None:
    """A stream whose columns were not quoted gives the same lower-case keys."""

    async def play() -> dict[str, Any]:
        async with scene() as here:
            here.ksql.push_columns = ("ASSET_UUID", "ID", "VALUE")
            here.ksql.send_item(None)
            await until(lambda: len(here.ksql.queries) == 2 and here.ksql.open_pushes == 1)
            async with sse(here.url, asset_uuid="A1") as stream:
                here.ksql.send_item({"row": {"columns": ["A1", "temp", "5"]}})
                return await stream.event()

    event = asyncio.run(play())
    assert (event["asset_uuid"], event["id"], event["value"], event["tag"]) == ("A1", "temp", "5", None)


def test_the_id_filter_lets_one_data_item_through() -> None:
    """With id only that data item's events come."""

    async def play() -> dict[str, Any]:
        async with scene() as here, sse(here.url, asset_uuid="A1", id="speed") as stream:
            here.ksql.send("A1", "temp", "1")
            here.ksql.send("A1", "speed", "2")
            return await stream.event()

    assert asyncio.run(play())["id"] == "speed"


def test_a_value_cannot_break_the_framing() -> None:
    """Line breaks of every kind inside a value stay inside one event."""
    value = "a\n\ndata: b\r\u2028\u0085c"

    async def play() -> dict[str, Any]:
        async with scene() as here, sse(here.url, asset_uuid="A1") as stream:
            here.ksql.send("A1", "temp", value)
            return await stream.event()

    assert asyncio.run(play())["value"] == value


def test_silence_is_filled_with_pings() -> None:
    """Comments go on while nothing happens, so a proxy can tell a quiet asset from a dead service."""

    async def play() -> list[str]:
        async with scene(ping_seconds=0.02) as here, sse(here.url, asset_uuid="A1") as stream:
            return [await stream.block() for _ in range(3)]

    assert asyncio.run(play()) == [": ping"] * 3


@pytest.mark.parametrize("query", ["", "?asset_uuid=", "?id=temp"])
def test_without_an_asset_the_request_is_refused_as_json(query: str) -> None:
    """422 names the missing parameter."""

    async def play() -> tuple[int, Any]:
        async with (
            scene() as here,
            aiohttp.ClientSession() as session,
            session.get(f"{here.url}/asset_stream{query}") as reply,
        ):
            return reply.status, await reply.json()

    status, body = asyncio.run(play())
    assert status == 422
    assert body["detail"][0]["loc"] == ["query", "asset_uuid"]


def test_the_response_is_an_uncached_unbuffered_event_stream() -> None:
    """The headers keep intermediaries from caching or collecting events."""

    async def play() -> Any:
        async with scene() as here, sse(here.url, asset_uuid="A1") as stream:
            return stream.response.headers

    headers = asyncio.run(play())
    assert headers["Content-Type"].startswith("text/event-stream")
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Accel-Buffering"] == "no"


def test_many_clients_share_one_push_query() -> None:
    """However many clients, ksqlDB runs one query, quoted as stored, from latest."""

    async def play() -> list[dict[str, Any]]:
        async with scene() as here, sse(here.url, asset_uuid="A1") as one, sse(here.url, asset_uuid="A1") as two:
            here.ksql.send("A1", "temp", "1")
            assert await one.event() == await two.event()
            return here.ksql.queries

    assert asyncio.run(play()) == [
        {
            "ksql": "SELECT * FROM `ASSET_STREAM_WELD` EMIT CHANGES;",
            "streamsProperties": {"auto.offset.reset": "latest"},
        }
    ]


def test_clients_stay_connected_while_ksqldb_is_away() -> None:
    """Not ready but alive meanwhile; the same client's stream goes on when ksqlDB is back."""

    async def play() -> dict[str, Any]:
        async with scene() as here, sse(here.url, asset_uuid="A1") as stream:
            await here.ksql.stop()
            await until_status(lambda: status_of(f"{here.url}/ready"), 503)
            assert await status_of(f"{here.url}/healthz") == 200
            await here.ksql.start()
            await until_status(lambda: status_of(f"{here.url}/ready"), 200)
            here.ksql.send("A1", "temp", "after")
            return await stream.event()

    assert asyncio.run(play())["value"] == "after"


@pytest.mark.parametrize(
    "last", [None, {"errorMessage": {"error_code": 50000, "message": "x"}}, {"row": {"columns": []}}]
)
def test_a_push_query_that_ends_or_fails_is_opened_again(last: dict[str, Any] | None) -> None:
    """Completed by the server, failed inside a 200, or rows of another width: the follower reconnects."""

    async def play() -> int:
        async with scene() as here:
            here.ksql.send_item(last)
            await until(lambda: len(here.ksql.queries) == 2)
            await until_status(lambda: status_of(f"{here.url}/ready"), 200)
            return here.ksql.open_pushes

    assert asyncio.run(play()) == 1


def test_a_client_that_leaves_frees_its_queue() -> None:
    """The handler ends with its client although no event comes."""

    async def play() -> int:
        async with scene() as here:
            async with sse(here.url, asset_uuid="A1"):
                assert len(here.clients) == 1
            await until(lambda: len(here.clients) == 0)
            return len(here.clients)

    assert asyncio.run(play()) == 0


async def _connect_without_reading(url: str) -> socket.socket:
    """Subscribe to A1 over a connection with a small window, and read nothing."""
    host, port = url.removeprefix("http://").split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, (host, int(port)))
    await loop.sock_sendall(client, b"GET /asset_stream?asset_uuid=A1 HTTP/1.1\r\nHost: x\r\n\r\n")
    return client


def test_a_slow_client_is_cut_and_the_others_miss_nothing() -> None:
    """A client that does not read is disconnected, not buffered for ever; another one gets every event."""

    async def play() -> int:
        async with scene(client_queue=5) as here, sse(here.url, asset_uuid="A1") as reader:
            slow = await _connect_without_reading(here.url)
            await until(lambda: len(here.clients) == 2)
            sent = 0
            while len(here.clients) == 2:
                here.ksql.send("A1", str(sent), "x" * 200_000)
                assert (await reader.event())["id"] == str(sent)
                sent += 1
            slow.close()
            return len(here.clients)

    assert asyncio.run(play()) == 1


def test_sigterm_ends_streams_cleanly() -> None:
    """The program ends with 0 and its clients see a complete response, not a broken connection."""

    async def play() -> tuple[str, int | None, int]:
        async with running_ksql() as ksql:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            async with program(
                "demo.group_service", GROUP_NAME="Weld", KSQLDB_STREAM="S", KSQLDB_URL=ksql.url, PORT=str(port)
            ) as process:
                await until(lambda: ksql.open_pushes == 1)
                async with sse(f"http://127.0.0.1:{port}", asset_uuid="A1") as stream:
                    process.send_signal(signal.SIGTERM)
                    rest = await stream.block()
                async with asyncio.timeout(20):
                    await process.communicate()
                await until(lambda: ksql.open_pushes == 0)
                return rest, process.returncode, ksql.open_pushes

    rest, code, pushes = asyncio.run(play())
    assert rest == ""
    assert (code, pushes) == (0, 0)


@pytest.mark.parametrize("stream", ["a`b", "a b", "", "x;", "x\n"])
def test_a_stream_name_outside_the_whitelist_is_a_configuration_error(
    stream: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and a line that names the variable; nothing is sent to ksqlDB."""
    monkeypatch.setenv("GROUP_NAME", "Weld")
    monkeypatch.setenv("KSQLDB_STREAM", stream)
    with pytest.raises(SystemExit) as ended:
        load(GroupServiceSettings)
    assert ended.value.code == 2
    assert "KSQLDB_STREAM" in capsys.readouterr().err
