"""A real operator between a ksqlDB on a real socket and a platform in memory, with every write counted on both sides.

The ksqlDB is the embedded one with its switches for bad days; `front` stands before it where an answer has to break in
a way that no switch has.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web
from prometheus_client import CollectorRegistry

from demo.ksqldb.__main__ import start
from demo.ksqldb.server import Config, DevServer
from reconciler.app import topology_of
from reconciler.control.controller import Clocks, Controller, Dependencies
from reconciler.control.outcome import CycleOutcome
from reconciler.grouping.unslevel import UNSLevelGroupingStrategy
from reconciler.ksqldb.client import KsqlClient
from reconciler.ksqldb.transport import OnRequest, Timeouts
from reconciler.metrics import Metrics
from reconciler.planning.guards import Overrides
from reconciler.settings import Settings
from tests.harness.fakes import NOW, FakePlatform
from tests.integration.ksqldb.server import Manner, Reply, Request, Site, serve

UPSTREAM = (
    """CREATE STREAM enriched_assets_stream (key VARCHAR KEY, asset_uuid VARCHAR, id VARCHAR, value VARCHAR,
    type VARCHAR, tag VARCHAR, timestamp VARCHAR)
    WITH (KAFKA_TOPIC='enriched_assets_stream_topic', VALUE_FORMAT='JSON', PARTITIONS=1);""",
    """CREATE TABLE asset_to_uns_map_raw (asset_uuid VARCHAR PRIMARY KEY, uns_id VARCHAR,
    uns_levels MAP<VARCHAR, VARCHAR>, updated_at TIMESTAMP)
    WITH (KAFKA_TOPIC='asset_to_uns_map_topic', KEY_FORMAT='KAFKA', VALUE_FORMAT='JSON', PARTITIONS=1);""",
    "CREATE TABLE asset_to_uns_map AS SELECT * FROM asset_to_uns_map_raw EMIT CHANGES;",
)
MAP_TOPIC = "asset_to_uns_map_topic"
SHORT = Timeouts(connect=0.5, read=0.5, ddl=2.0, outcome=0.5, direct=3.0, first_row=1.0, quiet=0.15)
_PATIENCE = 20.0


class Served:
    """The embedded ksqlDB in a thread of its own: the HTTP side is the real one, on a real socket."""

    def __init__(self, port: int = 0, **options: Any) -> None:
        """Start it with upstream's stream and tables (if its journal does not bring them).

        Args:
            port: to listen on; 0 takes a free one.
            options: see `demo.ksqldb.server.Config`.
        """
        self._config = Config(host="127.0.0.1", port=port, cluster_id="kafka-1", **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.server = DevServer(self._config)
        self._runner, self.port = self._call(lambda: start(self.server))
        self.url = f"http://127.0.0.1:{self.port}"
        self.assigned: set[str] = set()
        self.http = httpx.Client(base_url=self.url, timeout=_PATIENCE, trust_env=False)
        if "ENRICHED_ASSETS_STREAM" not in self.server.catalog.sources:
            self.sql(*UPSTREAM)

    def _call(self, make: Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(_PATIENCE)

    def sql(self, *statements: str) -> None:
        """Have statements executed, as a user with ksqlDB's own command line would."""
        for statement in statements:
            self.http.post("/ksql", json={"ksql": statement}).raise_for_status()

    def assign(self, groups: Mapping[str, str | None]) -> None:
        """Map assets to groups; None takes an asset out of the map."""
        self.assigned |= groups.keys()
        for asset, group in groups.items():
            value = None if group is None else {"uns_id": asset, "uns_levels": {"workcenter": group}}
            self.http.post("/dev/produce", json={"topic": MAP_TOPIC, "key": asset, "value": value}).raise_for_status()

    def relabel(self, level: str) -> None:
        """Give every asset a value at ``level`` alone."""
        for asset in sorted(self.assigned):
            value = {"uns_id": asset, "uns_levels": {level: "x"}}
            self.http.post("/dev/produce", json={"topic": MAP_TOPIC, "key": asset, "value": value}).raise_for_status()

    def switch(self, **faults: Any) -> None:
        """Begin a bad day (or end a part of it, with False)."""
        self.http.post("/dev/faults", json=faults).raise_for_status()

    def good_day(self) -> None:
        """Switch all faults off; what stood QUEUED is executed then."""
        self.http.delete("/dev/faults").raise_for_status()

    def uses(self, fault: str) -> int:
        """How often a fault that is on has struck."""
        return int(self.http.get("/dev/faults").json()["active"][fault]["uses"])

    def counted(self) -> dict[str, Any]:
        """What was asked: `requests` by path, `statements` by verb, `writes` in all."""
        counted: dict[str, Any] = self.http.get("/dev/requests").json()
        return counted

    def statements(self, verb: str) -> int:
        """How many statements began with ``verb``, e.g. ``CREATE STREAM``, executed or not."""
        return int(self.counted()["statements"].get(verb, 0))

    @property
    def streams(self) -> set[str]:
        """The streams that exist."""
        return {name for name, source in self.server.catalog.sources.items() if not source.is_table}

    @property
    def topics(self) -> set[str]:
        """The topics that exist."""
        return set(self.server.catalog.topics)

    def stop(self) -> None:
        """End it; anyone who connects afterwards is refused."""
        self.http.close()
        self._call(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
        self._loop.close()

    async def _end(self) -> None:
        await self.server.stop()
        runner: web.AppRunner = self._runner
        await runner.cleanup()


@dataclass
class Plant:
    """An operator's two sides and its clock; operators come and go, as after a restart.

    Attributes:
        ksqldb: the embedded server.
        platform: the platform in memory.
        options: settings that differ from the defaults.
        limits: the client's, short ones.
        now: monotonic seconds; a test moves them.
    """

    ksqldb: Served
    platform: FakePlatform = field(default_factory=FakePlatform)
    options: dict[str, object] = field(default_factory=dict)
    limits: Timeouts = SHORT
    now: float = 1000.0
    _clients: list[KsqlClient] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        """Settings of the operator."""
        given: dict[str, object] = {"kafka_broker": "k:9092", "ksqldb_url": "http://k:8088", "environment": "devswarm"}
        given |= {"rollout_max_parallel": 1, "rollout_bake": 0}  # rollouts have their own tests
        return Settings(_env_file=None, **{**given, **self.options})  # type: ignore[call-arg, arg-type]

    def client(self, url: str = "", on_request: OnRequest | None = None) -> KsqlClient:
        """Make a client of the server, or of what stands before it."""
        client = KsqlClient(url or self.ksqldb.url, self.limits, on_request=on_request)
        self._clients.append(client)
        return client

    def operator(self, url: str = "", overrides: Overrides | None = None) -> Controller:
        """Start an operator: what an earlier one remembered is lost."""
        settings, client = self.settings, self.client(url)
        strategy = UNSLevelGroupingStrategy(settings, client)
        world = Dependencies(settings, client, self.platform, strategy, topology_of(settings))
        clocks = Clocks(monotonic=lambda: self.now, wall=lambda: NOW)
        return Controller(world, Metrics(CollectorRegistry()), overrides or Overrides(), clocks)

    def run(self, operator: Controller, cycles: int = 1, step: float = 10.0) -> list[CycleOutcome]:
        """Run some cycles, ``step`` seconds apart."""
        outcomes = []
        for _ in range(cycles):
            outcomes.append(operator.cycle())
            self.now += step
        return outcomes

    def settle(self, operator: Controller, cycles: int = 40, step: float = 10.0) -> None:
        """Run cycles until one of them writes nothing and nothing is on its way."""
        for _ in range(cycles):
            (outcome,) = self.run(operator, 1, step)
            if outcome.plan is not None and outcome.plan.settled and not outcome.results:
                return
        raise AssertionError(f"not settled after {cycles} cycles: {outcome.sentence}")

    @property
    def writes(self) -> tuple[int, int]:
        """Writes so far: statements that reached ksqlDB, and calls of the platform."""
        return int(self.ksqldb.counted()["writes"]), self.platform.writes

    def close(self) -> None:
        """End everything."""
        for client in self._clients:
            client.close()
        self.ksqldb.stop()


@contextmanager
def plant(groups: int = 0, **options: Any) -> Iterator[Plant]:
    """Make a plant with so many groups of one asset each (``a0`` in ``g0``), settled; the rest is the server's."""
    made = Plant(Served(**options))
    try:
        if groups:
            made.ksqldb.assign({f"a{n}": f"g{n}" for n in range(groups)})
            made.settle(made.operator())
        yield made
    finally:
        made.close()


def executed(journal: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the statements that the server's journal holds, each with the properties that it came with."""
    entries = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    return [(entry["ksql"], entry.get("properties", {})) for entry in entries if "ksql" in entry]


def question(request: Request) -> str:
    """Name what a request asks: ``info``, ``healthcheck``, ``pull``, ``push``, ``LIST STREAMS`` and so on."""
    if request.path == "/ksql":
        sql = str(json.loads(request.body)["ksql"])
        if sql.endswith(" EXTENDED;"):
            return "DESCRIBE EXTENDED"
        return re.split(r"[ ;]", sql)[0] + " " + re.split(r"[ ;]", sql)[1]
    if request.path == "/query":
        return "push" if b"EMIT CHANGES" in request.body else "pull"
    return request.path.strip("/")


def _begun(behind: httpx.Client, request: Request, headers: dict[str, str]) -> Reply:
    """Return what a push query begins with, as an answer without an end."""
    body = b""
    try:
        with behind.stream("POST", request.path, content=request.body, headers=headers, timeout=0.3) as got:
            for chunk in got.iter_bytes():
                body += chunk
    except httpx.ReadTimeout:
        pass
    return Reply(body, got.status_code, got.headers.get("content-type", ""), Manner.OPEN)


@contextmanager
def front(served: Served, spoiled: Mapping[str, Reply | Manner]) -> Iterator[Site]:
    """Stand before the server and pass everything on, but spoil the answers to the questions that are named.

    A `Reply` is given instead of the server's answer; a `Manner` is how the server's own answer is sent.
    """
    with httpx.Client(base_url=served.url, timeout=_PATIENCE, trust_env=False) as behind:

        def answer(request: Request) -> Reply:
            spoil = spoiled.get(question(request), Manner.WHOLE)
            if isinstance(spoil, Reply):
                return spoil
            headers = {name: request.headers[name] for name in ("accept", "content-type")}
            if question(request) == "push":
                return _begun(behind, request, headers)
            got = behind.request(request.method, request.path, content=request.body, headers=headers)
            return Reply(got.content, got.status_code, got.headers.get("content-type", ""), spoil)

        with serve(answer) as site:
            yield site
