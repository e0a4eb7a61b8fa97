"""The old system: its statement as it sends it, its services in memory, and an embedded ksqlDB that had it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from openfactory_common.errors import PlatformConflict, PlatformRefused
from reconciler.ksqldb.client import KsqlClient
from reconciler.migration.legacy import PORT, OldNames, OldRole, OldService

ROOT = Path(__file__).resolve().parents[3]
_EVENTS = (
    "CREATE STREAM enriched_assets_stream (asset_uuid VARCHAR KEY, key VARCHAR, id VARCHAR, value VARCHAR, "
    "type VARCHAR, tag VARCHAR, timestamp VARCHAR) "
    "WITH (KAFKA_TOPIC='enriched_assets_stream_topic', VALUE_FORMAT='JSON', PARTITIONS=1);"
)
_MAP = (
    "CREATE TABLE asset_to_uns_map_raw (asset_uuid VARCHAR PRIMARY KEY, uns_id VARCHAR, "
    "uns_levels MAP<VARCHAR, VARCHAR>, updated_at TIMESTAMP) "
    "WITH (KAFKA_TOPIC='asset_to_uns_map_topic', KEY_FORMAT='KAFKA', VALUE_FORMAT='JSON', PARTITIONS=1);"
)
UPSTREAM = (
    _EVENTS,
    _MAP,
    "CREATE TABLE asset_to_uns_map AS SELECT * FROM asset_to_uns_map_raw EMIT CHANGES;",
    "INSERT INTO asset_to_uns_map_raw (asset_uuid, uns_id, uns_levels) VALUES ('A1', 'x', MAP('workcenter':='Weld'));",
    "INSERT INTO asset_to_uns_map_raw (asset_uuid, uns_id, uns_levels) VALUES ('A2', 'y', MAP('workcenter':='Paint'));",
)


def old_statement(group: str, level: str = "workcenter") -> str:
    """Return what the old system sends to make a group's stream: in its own words, names without quotes."""
    name = f"asset_stream_{group}"
    return f"""
        CREATE STREAM IF NOT EXISTS {name}
           WITH (
             KAFKA_TOPIC='{name}_topic',
             VALUE_FORMAT='JSON'
           ) AS
        SELECT s.*
        FROM enriched_assets_stream s
        JOIN asset_to_uns_map h
        ON s.asset_uuid = h.asset_uuid
        WHERE h.uns_levels['{level}'] = '{group}';
        """


@dataclass
class FakeOldServices:
    """Services of the old system in memory; `taken` are ports that another service publishes."""

    services: dict[str, OldService] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, *groups: str) -> FakeOldServices:
        """Return what the old system has deployed for these groups."""
        names, broker, ksqldb = OldNames(), {"KAFKA_BROKER": "k:9092"}, {"KSQLDB_URL": "http://k:8088"}
        found = [OldService("r", 1, names.router, OldRole.ROUTER, None, (PORT,), 1, 1, variables={**broker, **ksqldb})]
        found += [OldService(g, 1, names.of_group(g), OldRole.GROUP, g, (), 1, 1, variables=broker) for g in groups]
        found += [OldService("s", 1, names.state_api, OldRole.STATE_API, None, (), 1, 1, variables=ksqldb)]
        return cls({one.name: replace(one, networks=("factory-net",)) for one in found})

    def observe(self) -> tuple[OldService, ...]:
        """All of them."""
        return tuple(self.services.values())

    def publish(self, service: OldService, port: int | None) -> None:
        """Publish the port unless another has it."""
        if self.services[service.name] != service:
            raise PlatformConflict("it changed")
        if port in self.taken:
            raise PlatformRefused(f"port {port} is already in use")
        ports = () if port is None else (port,)
        self.services[service.name] = replace(service, version=service.version + 1, ports=ports)

    def remove(self, service: OldService) -> None:
        """Remove it."""
        assert not service.deviation
        self.services.pop(service.name, None)


def send(url: str, statement: str) -> None:
    """Send a statement as a person would."""
    httpx.post(f"{url}/ksql", json={"ksql": statement}, timeout=10.0).raise_for_status()


def event(url: str, asset: str, value: str) -> None:
    """Write an event of an asset."""
    send(url, f"INSERT INTO enriched_assets_stream (asset_uuid, id, value) VALUES ('{asset}', 'i', '{value}');")


@contextmanager
def embedded() -> Iterator[tuple[str, KsqlClient]]:
    """Run an embedded ksqlDB with upstream's objects and two groups; its address, and a client of it."""
    command = [sys.executable, "-m", "demo.ksqldb", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert server.stdout is not None
        port = re.search(r":(\d+)", server.stdout.readline())
        assert port is not None
        url = f"http://127.0.0.1:{port[1]}"
        for statement in UPSTREAM:
            send(url, statement)
        with closing(KsqlClient(url)) as client:
            yield url, client
    finally:
        server.terminate()
        server.communicate(timeout=20)


def watch(url: str, group: str) -> str:
    """Declare a stream over a group's old topic, as anyone who reads the topic sees it; return its name."""
    name = f"WATCH_{group.upper()}"
    send(
        url,
        f"CREATE STREAM {name} (asset_uuid VARCHAR KEY, s_value VARCHAR) "
        f"WITH (KAFKA_TOPIC='asset_stream_{group}_topic', VALUE_FORMAT='JSON');",
    )
    return name


def values(url: str, stream: str) -> list[str]:
    """Return the values of all records of a stream over an old topic so far."""
    answer = httpx.post(f"{url}/query-stream", json={"sql": f"SELECT s_value FROM {stream};"}, timeout=10.0)
    answer.raise_for_status()
    rows = [json.loads(line) for line in answer.text.splitlines()]
    return [row[0] for row in rows if isinstance(row, list)]
