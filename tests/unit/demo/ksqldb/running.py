"""The embedded ksqlDB on a real socket, in a thread of its own."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from demo.ksqldb.__main__ import start
from demo.ksqldb.server import Config, DevServer

STREAMED = "application/vnd.ksql.v1+json"
PROPERTIES = {"ksql.streams.auto.offset.reset": "earliest", "ksql.streams.num.stream.threads": 1}
COLUMNS = "asset_key, `asset_uuid`, `id`, `value`, `type`, `tag`, `timestamp`"
EVENTS = (
    "CREATE STREAM enriched_assets_stream (key VARCHAR KEY, asset_uuid VARCHAR, id VARCHAR, value VARCHAR, type "
    "VARCHAR, tag VARCHAR, timestamp VARCHAR) WITH (KAFKA_TOPIC='enriched_assets_stream_topic', VALUE_FORMAT='JSON', "
    "PARTITIONS=1);"
)
RAW_MAP = (
    "CREATE TABLE asset_to_uns_map_raw (asset_uuid VARCHAR PRIMARY KEY, uns_id VARCHAR, uns_levels MAP<VARCHAR, "
    "VARCHAR>, updated_at TIMESTAMP) WITH (KAFKA_TOPIC='asset_to_uns_map_topic', KEY_FORMAT='KAFKA', "
    "VALUE_FORMAT='JSON', PARTITIONS=1);"
)
MAP = "CREATE TABLE asset_to_uns_map AS SELECT * FROM asset_to_uns_map_raw EMIT CHANGES;"
PRE_JOIN = (
    "CREATE STREAM ofa_assets_with_uns WITH (KAFKA_TOPIC='ofa_assets_with_uns', VALUE_FORMAT='JSON') AS SELECT "
    "s.asset_uuid AS asset_key, AS_VALUE(s.asset_uuid) AS `asset_uuid`, s.id AS `id`, s.value AS `value`, s.type AS "
    "`type`, s.tag AS `tag`, s.timestamp AS `timestamp`, h.uns_levels['workcenter'] AS uns_group FROM "
    "enriched_assets_stream s JOIN asset_to_uns_map h ON s.asset_uuid = h.asset_uuid EMIT CHANGES;"
)
GROUPS = (
    "CREATE TABLE ofa_groups AS SELECT uns_levels['workcenter'] AS uns_group, COUNT(*) AS members FROM "
    "asset_to_uns_map GROUP BY uns_levels['workcenter'] EMIT CHANGES;"
)
TOPOLOGY = (EVENTS, RAW_MAP, MAP, PRE_JOIN, GROUPS)
T = TypeVar("T")


def quoted(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("'", "''") + "'"


def group_stream(name: str, group: str) -> str:
    """The filter stream of a group."""
    select = f"SELECT {COLUMNS} FROM ofa_assets_with_uns WHERE uns_group = {quoted(group)} EMIT CHANGES;"
    return f"CREATE STREAM `{name}` WITH (KAFKA_TOPIC='{name}', VALUE_FORMAT='JSON') AS {select}"


def mapping(asset: str, group: str | None) -> str:
    """The statement that maps an asset to a work centre, or to none."""
    levels = f"MAP('workcenter' := {quoted(group)})" if group is not None else "MAP('enterprise' := 'acme')"
    values = f"{quoted(asset)}, {quoted(f'plant/{asset}')}, {levels}"
    return f"INSERT INTO asset_to_uns_map_raw (asset_uuid, uns_id, uns_levels) VALUES ({values});"


def event(asset: str, value: str, item: str = "temp") -> str:
    """The statement that inserts an asset event."""
    values = ", ".join(quoted(each) for each in (f"{asset}|{item}", asset, item, value))
    return f"INSERT INTO enriched_assets_stream (key, asset_uuid, id, value) VALUES ({values});"


@dataclass(frozen=True)
class Answer:
    """A complete answer."""

    status: int
    content_type: str | None
    body: str

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def rows(self) -> list[list[Any]]:
        """The rows of an answer in StreamedRow form."""
        return [each["row"]["columns"] for each in self.json if "row" in each]


@dataclass
class Running:
    """A running server: requests over its socket, and its insides for what Kafka would do."""

    server: DevServer
    port: int
    loop: asyncio.AbstractEventLoop
    open_streams: list[http.client.HTTPConnection] = field(default_factory=list)

    def inside(self, action: Callable[[], T]) -> T:
        """Run something in the server's thread."""

        async def call() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)

    def connection(self, timeout: float = 10) -> http.client.HTTPConnection:
        """A connection to the server."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request, on a connection of its own."""
        connection = self.connection()
        data = body if isinstance(body, (str, bytes)) or body is None else json.dumps(body)
        sent = data.encode() if isinstance(data, str) else data
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in {**(headers or {}), "Content-Length": str(len(sent or b""))}.items():
            connection.putheader(name, value)
        connection.endheaders(sent)
        response = connection.getresponse()
        answer = Answer(response.status, response.headers.get("Content-Type"), response.read().decode())
        connection.close()
        return answer

    def ksql(self, sql: str, properties: dict[str, Any] | None = None, **members: Any) -> Answer:
        """POST /ksql."""
        body = {"ksql": sql, "streamsProperties": PROPERTIES if properties is None else properties, **members}
        return self.ask("POST", "/ksql", body, {"Accept": "application/json"})

    def pull(self, sql: str, accept: str = STREAMED) -> Answer:
        """POST /query."""
        return self.ask("POST", "/query", {"ksql": sql}, {"Accept": accept})

    def setup(self, *statements: str) -> None:
        """Run statements that must succeed."""
        for each in statements:
            answer = self.ksql(each)
            assert answer.status == 200, answer.body

    def faults(self, **switches: Any) -> None:
        """Flip fault switches."""
        assert self.ask("POST", "/dev/faults", switches).status == 200

    @contextmanager
    def push(self, sql: str, properties: dict[str, Any] | None = None, accept: str = STREAMED) -> Iterator[Any]:
        """An open push query on /query; the response is read by line."""
        connection = self.connection()
        body = json.dumps({"ksql": sql, "streamsProperties": properties or {}})
        connection.request("POST", "/query", body, {"Accept": accept})
        response = connection.getresponse()
        try:
            yield response
        finally:
            response.close()
            connection.close()


@contextmanager
def running(config: Config | None = None) -> Iterator[Running]:
    """A server on a free port of 127.0.0.1, stopped at the end."""
    ready = threading.Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        server = DevServer(config or Config(host="127.0.0.1", port=0))
        runner, port = await start(server)
        stop = asyncio.Event()
        found.update(running=Running(server, port, asyncio.get_running_loop()), stop=stop)
        ready.set()
        await stop.wait()
        await server.stop()
        await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(10), "the server did not start"
    try:
        yield found["running"]
    finally:
        found["running"].loop.call_soon_threadsafe(found["stop"].set)
        thread.join(10)
        assert not thread.is_alive(), "the server did not stop"
