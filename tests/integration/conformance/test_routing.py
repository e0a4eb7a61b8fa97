"""The routing layer groups by several levels as the operator does: from the registry alone, with nothing installed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from openfactory_common.ksqldb.wire import literal
from tests.integration.routing_layer.fake_sources import registry
from tests.integration.routing_layer.proxy_system import Proxy, Service
from tests.integration.routing_layer.test_embedded_ksqldb import Embedded

LOOKUP = {
    "table": "ASSET_TO_UNS_MAP",
    "key": "ASSET_UUID",
    "levels": ["area", "workcenter"],
    "separator": "-",
}
RESERVE = {**LOOKUP, "fallback": "Rest"}


def mapping(asset: str, **levels: str) -> str:
    """Return the statement that maps an asset, or moves it."""
    pairs = ", ".join(f"'{name}' := {literal(value)}" for name, value in levels.items())
    columns = "asset_to_uns_map_raw (asset_uuid, uns_id, uns_levels)"
    return f"INSERT INTO {columns} VALUES ({literal(asset)}, 'plant', MAP({pairs}));"


async def routed(directory: Path) -> None:
    """Follow an asset from one area to another, and ask for two that are in no group or were mapped since."""
    ksql, north, south = Embedded(), await Service().start(), await Service().start()
    copy = directory / "registry.json"
    copy.write_bytes(registry({"North-Weld": north.url, "South-Weld": south.url}, membership=LOOKUP))
    proxy = Proxy({"KSQLDB_URL": ksql.url, "REGISTRY_FILE": str(copy)})
    try:
        async with ksql.running():
            await ksql.statement(mapping("W1", area="North", workcenter="Weld"))
            await ksql.statement(mapping("X1", workcenter="Weld"))
            await proxy.start()
            await proxy.wait_current()
            client = await proxy.get("/asset_stream?asset_uuid=W1")
            assert (client.status, len(north.open)) == (200, 1)
            assert (await proxy.get("/asset_stream?asset_uuid=X1")).status == 404
            await ksql.statement(mapping("W1", area="South", workcenter="Weld"))
            assert await client.rest() == b""
            client = await proxy.get("/asset_stream?asset_uuid=W1")
            assert (client.status, len(south.open)) == (200, 1)
    finally:
        await proxy.stop()
        await north.stop()
        await south.stop()


async def routed_to_fallback(directory: Path) -> None:
    """Ask for an asset that was mapped before the start, for one mapped since, and for one that is nowhere."""
    ksql, north, rest = Embedded(), await Service().start(), await Service().start()
    copy = directory / "registry.json"
    copy.write_bytes(registry({"North-Weld": north.url, "Rest": rest.url}, membership=RESERVE))
    proxy = Proxy({"KSQLDB_URL": ksql.url, "REGISTRY_FILE": str(copy)})
    try:
        async with ksql.running():
            await ksql.statement(mapping("X1", workcenter="Weld"))
            await proxy.start()
            await proxy.wait_current()
            client = await proxy.get("/asset_stream?asset_uuid=X1")
            assert (client.status, len(rest.open)) == (200, 1)
            assert (await proxy.get("/asset_stream?asset_uuid=X9")).status == 404
            await ksql.statement(mapping("X2"))
            assert (await proxy.get("/asset_stream?asset_uuid=X2")).status == 200
            await ksql.statement(mapping("X1", area="North", workcenter="Weld"))
            assert await client.rest() == b""
            client = await proxy.get("/asset_stream?asset_uuid=X1")
            assert (client.status, len(north.open)) == (200, 1)
    finally:
        await proxy.stop()
        await north.stop()
        await rest.stop()


def test_an_asset_without_the_level_is_routed_to_the_fallback_until_it_has_one(tmp_path: Path) -> None:
    """By the watch and by the direct query; an asset that is not in the map stays unknown."""
    asyncio.run(asyncio.wait_for(routed_to_fallback(tmp_path), 60))


def test_an_asset_is_routed_by_two_levels_and_moved(tmp_path: Path) -> None:
    """A change of the first level alone ends the stream and leads to the other group; half a group is none."""
    asyncio.run(asyncio.wait_for(routed(tmp_path), 60))
