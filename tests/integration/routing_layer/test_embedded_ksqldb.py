"""The proxy against the embedded ksqlDB, which is checked against recorded traffic: real statements, real rows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from openfactory_common.ksqldb.wire import literal
from tests.harness.coroutines import PATIENCE
from tests.harness.ports import free_port
from tests.integration.routing_layer.fake_sources import registry
from tests.integration.routing_layer.proxy_system import ROOT, Proxy, Service

_SETUP = (
    """
    CREATE TABLE asset_to_uns_map_raw (
        asset_uuid VARCHAR PRIMARY KEY, uns_id VARCHAR, uns_levels MAP<VARCHAR, VARCHAR>, updated_at TIMESTAMP
    ) WITH (KAFKA_TOPIC = 'asset_to_uns_map_topic', KEY_FORMAT = 'KAFKA', VALUE_FORMAT = 'JSON', PARTITIONS = 1);
    """,
    "CREATE TABLE asset_to_uns_map AS SELECT * FROM asset_to_uns_map_raw EMIT CHANGES;",
)


class Embedded:
    """The embedded server as a process."""

    def __init__(self) -> None:
        """Choose a port."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    async def statement(self, text: str) -> None:
        """Execute one statement, which must succeed."""
        async with aiohttp.ClientSession() as session, session.post(f"{self.url}/ksql", json={"ksql": text}) as answer:
            assert answer.status == 200, await answer.text()

    async def map(self, asset: str, group: str) -> None:
        """Map an asset to a workcenter."""
        values = f"{literal(asset)}, {literal(f'plant/{group}')}, MAP('workcenter' := {literal(group)})"
        columns = "asset_to_uns_map_raw (asset_uuid, uns_id, uns_levels)"
        await self.statement(f"INSERT INTO {columns} VALUES ({values});")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run it from an empty state."""
        command = (sys.executable, "-m", "demo.ksqldb", "--host", "127.0.0.1", "--port", str(self.port))
        quiet = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=quiet)
        try:
            await self._answering()
            for statement in _SETUP:
                await self.statement(statement)
            yield
        finally:
            process.kill()
            await process.wait()

    async def _answering(self) -> None:
        async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{self.url}/info") as answer:
                        json.loads(await answer.text())
                        return
                await asyncio.sleep(0.05)


async def test_an_asset_is_routed_moved_and_made_up_for_over_a_restart(tmp_path: Path) -> None:
    """List, watch, keyed question and a new start of ksqlDB, in its own dialect; the name has a quote in it."""
    ksql, weld, paint = Embedded(), await Service().start(), await Service().start()
    copy = tmp_path / "registry.json"
    copy.write_bytes(registry({"Weld": weld.url, "Paint": paint.url}))
    proxy = Proxy({"KSQLDB_URL": ksql.url, "REGISTRY_FILE": str(copy)})
    target = "/asset_stream?asset_uuid=O%27Brien"
    try:
        async with ksql.running():
            await ksql.map("O'Brien", "Weld")
            await ksql.map("A2", "Paint")
            await proxy.start()
            await proxy.wait_current()
            client = await proxy.get(target)
            assert client.status == 200
            await ksql.map("O'Brien", "Paint")
            assert await client.rest() == b""
            client = await proxy.get(target)
            assert len(paint.open) == 1
            assert (await proxy.get("/asset_stream?asset_uuid=unmapped%27")).status == 404
        async with ksql.running():
            await ksql.map("O'Brien", "Weld")
            await ksql.map("A2", "Paint")
            assert await client.rest() == b""
            await proxy.wait_metric("routing_layer_membership_relists_total", 2)
            assert (await proxy.get(target)).status == 200
            assert await proxy.metric("routing_layer_membership_assets") == 2
    finally:
        await proxy.stop()
        await weld.stop()
        await paint.stop()
