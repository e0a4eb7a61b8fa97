"""Runs the factory against ksqlDB: sets it up when something is missing, then inserts events, for ever.

It is level-triggered: whatever goes wrong, the next round looks at what ksqlDB has and goes on from there. A server
that comes back empty is filled again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import count

import structlog

from demo.factory.plant import Machine, Placement, initial_placements
from demo.factory.settings import FactorySettings
from demo.factory.statements import FROM_THE_BEGINNING, definitions, insert_mapping, insert_reading, read_map
from demo.ksql_rest import KsqlAway, KsqlError, KsqlRefused, KsqlRest
from openfactory_common.tasks import run_until_one_ends

INSERTS_IN_FLIGHT = 4
RETRY_SECONDS = 2.0
MAP_SECONDS = 3.0
CONFIRMING_READS = 3
CONFIRM_SECONDS = 0.5
"""After a restart ksqlDB answers pulls for 0.3 to 0.4 s with no rows, as if nothing were mapped (measured with
7.7.0). Assets are mapped only after being absent from this many reads, this far apart: mapping one that a user has
moved meanwhile would move it back."""

log = structlog.get_logger()


class Factory:
    """The simulated factory and what it has to do with ksqlDB."""

    def __init__(self, ksql: KsqlRest, settings: FactorySettings) -> None:
        """Begin with no machine: which exist is read from the map."""
        self._ksql = ksql
        self._settings = settings
        self._machines: dict[str, Machine] = {}
        self._order: list[str] = []
        self._turn = count()
        self._next_at = 0.0
        self.inserted = 0

    async def run(self) -> None:
        """Set up and simulate; start over after every failure."""
        while True:
            try:
                await self.set_up()
                await self._simulate()
            except KsqlError as error:
                log.warning("starting over", reason=str(error), again_in=RETRY_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)

    async def set_up(self) -> None:
        """Wait for ksqlDB, create the sources that are missing, map the assets that are not mapped.

        Raises:
            KsqlError: ksqlDB went away, or another writer was faster; call again.
        """
        await self._wait()
        await self._create_sources()
        await self._map_assets()

    async def _wait(self) -> None:
        started = time.monotonic()
        while not await self._ksql.is_ready():
            log.info("waiting for ksqlDB", url=self._settings.ksqldb_url, seconds=round(time.monotonic() - started))
            await asyncio.sleep(RETRY_SECONDS)

    async def _create_sources(self) -> None:
        """Create what LIST does not show, one statement at a time (parallel ones fence each other off)."""
        existing = await self._ksql.sources()
        for name, statement in definitions(self._settings):
            if name not in existing:
                await self._ksql.execute(statement, FROM_THE_BEGINNING)
                log.info("created", source=name)

    async def _map_assets(self) -> None:
        missing = initial_placements(self._settings.workcenters, self._settings.assets_per_workcenter)
        mapped: dict[str, str] = {}
        for _ in range(CONFIRMING_READS):
            await asyncio.sleep(CONFIRM_SECONDS)
            mapped |= await self._read_map_when_restored()
            missing = [placement for placement in missing if placement.asset not in mapped]
        for placement in missing:
            await self._ksql.execute(insert_mapping(self._settings, placement, datetime.now(UTC)))
        log.info("assets mapped", already=len(mapped), added=len(missing))
        self._employ([*mapped, *(placement.asset for placement in missing)])

    async def _read_map_when_restored(self) -> dict[str, str]:
        """Read the map, waiting out the refusals of a table that is being restored."""
        while True:
            try:
                return await read_mappings(self._ksql, self._settings)
            except KsqlRefused as error:
                if error.source_is_missing:
                    raise
                log.info("waiting for the map", reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _simulate(self) -> None:
        await run_until_one_ends(self._follow_map(), *(self._insert_events() for _ in range(INSERTS_IN_FLIGHT)))

    async def _follow_map(self) -> None:
        """Give events to assets that are mapped later, too. A map that cannot be read now is left as it was."""
        while True:
            await asyncio.sleep(MAP_SECONDS)
            try:
                mapped = await read_mappings(self._ksql, self._settings)
            except KsqlRefused as error:
                if error.source_is_missing:
                    raise
                continue
            if mapped:
                self._employ(mapped)
            log.debug("simulating", assets=len(self._order), inserted=self.inserted)

    def _employ(self, assets: Iterable[str]) -> None:
        """Let exactly ``assets`` report in turn; those known already keep their state."""
        self._order = sorted(set(assets))
        for asset in set(self._order) - self._machines.keys():
            log.info("asset reports", asset_uuid=asset)
            self._machines[asset] = Machine(asset, random.Random(asset))  # noqa: S311 - readings, no secret
        for asset in self._machines.keys() - set(self._order):
            del self._machines[asset]

    async def _insert_events(self) -> None:
        while True:
            await self._slot()
            if self._order:
                machine = self._machines[self._order[next(self._turn) % len(self._order)]]
                reading = machine.next_reading(datetime.now(UTC))
                await self._ksql.execute(insert_reading(self._settings, reading))
                self.inserted += 1

    async def _slot(self) -> None:
        """Wait for one's turn: the rate is kept in total, and time lost is not made up for by a burst."""
        now = time.monotonic()
        self._next_at = max(now, self._next_at) + 1 / self._settings.events_per_second
        await asyncio.sleep(self._next_at - now)


async def read_mappings(ksql: KsqlRest, settings: FactorySettings) -> dict[str, str]:
    """Return the workcenter by asset; empty for an asset without that level.

    Raises:
        KsqlError: the map cannot be read.
    """
    rows = await ksql.pull(read_map(settings))
    return {row["asset_uuid"]: (row["uns_levels"] or {}).get("workcenter") or "" for row in rows}


async def place(ksql: KsqlRest, settings: FactorySettings, placement: Placement) -> None:
    """Map or move one asset.

    Raises:
        KsqlError: ksqlDB is away, or has no map yet.
    """
    if not await ksql.is_ready():
        raise KsqlAway(f"{settings.ksqldb_url} does not answer")
    await ksql.execute(insert_mapping(settings, placement, datetime.now(UTC)))
