"""The factory against a server on a real socket: from nothing, beside an existing map, and through a loss of all."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from demo.factory.settings import FactorySettings
from demo.factory.simulation import Factory
from demo.ksql_rest import KsqlRest, client_session

from .ksql_standin import RESTORING, KsqlStandIn, refusal, running_ksql, until
from .sse_client import program

NAMES = ["ENRICHED_ASSETS_STREAM", "ASSET_TO_UNS_MAP_RAW", "ASSET_TO_UNS_MAP", "ASSETS"]
MAPPING = re.compile(r"INSERT INTO asset_to_uns_map_raw .* VALUES \('([^']*)'.*'workcenter':='([^']*)'")
EVENT = re.compile(r"INSERT INTO enriched_assets_stream .* VALUES \('([^|]*)\|")


@dataclass
class Plant:
    """A stand-in whose map answers what was inserted, or what the test says instead."""

    ksql: KsqlStandIn
    first_answers: list[tuple[int, str]] = field(default_factory=list)
    _pulls: int = 0

    def mappings(self) -> dict[str, str]:
        """Return the workcenter by asset as inserted, the last one counts."""
        return {found[1]: found[2] for sql in self.ksql.statements if (found := MAPPING.match(sql))}

    def events_of(self) -> list[str]:
        """Return the assets of all events inserted, in order."""
        return [found[1] for sql in self.ksql.statements if (found := EVENT.match(sql))]

    def created(self) -> list[str]:
        """Return what was created, in order."""
        return [sql.split()[2].upper() for sql in self.ksql.statements if sql.startswith("CREATE")]

    def answer(self, _sql: str) -> tuple[int, str]:
        """Answer the pull query of the map."""
        if self.first_answers:
            return self.first_answers.pop(0)
        if "ASSET_TO_UNS_MAP" not in self.ksql.sources:
            return refusal("Exception while preparing statement: ASSET_TO_UNS_MAP does not exist.")
        return mapped(**self.mappings())


def mapped(**workcenters: str) -> tuple[int, str]:
    """Return the map's answer with these assets."""
    head = {"header": {"queryId": "q", "schema": "`ASSET_UUID` STRING KEY, `UNS_LEVELS` MAP<STRING, STRING>"}}
    rows = [{"row": {"columns": [asset, {"workcenter": place}]}} for asset, place in workcenters.items()]
    return 200, json.dumps([head, *rows])


@asynccontextmanager
async def plant(**sources: str) -> AsyncIterator[Plant]:
    """Start a server that has ``sources``."""
    async with running_ksql() as ksql:
        made = Plant(ksql)
        ksql.sources.update(sources)
        ksql.pull = made.answer
        yield made


@asynccontextmanager
async def simulating(ksql: KsqlStandIn, **settings: Any) -> AsyncIterator[None]:
    """Run the factory in the background."""
    async with client_session() as session:
        told = FactorySettings(ksqldb_url=ksql.url, **{"events_per_second": 200, **settings})
        task = asyncio.create_task(Factory(KsqlRest(session, ksql.url), told).run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


EXISTING = dict.fromkeys(NAMES, "TABLE") | {"ENRICHED_ASSETS_STREAM": "STREAM"}


def test_an_empty_server_is_filled() -> None:
    """The four sources are created in order, twelve assets mapped, and every one of them reports."""

    async def play() -> tuple[list[str], dict[str, str]]:
        async with plant() as here, simulating(here.ksql):
            await until(lambda: len(set(here.events_of())) == 12)
            return here.created(), here.mappings()

    created, mappings = asyncio.run(play())
    assert created == NAMES
    assert sorted(mappings.values()) == ["Assembly"] * 4 + ["Paint"] * 4 + ["Weld"] * 4


def test_what_exists_is_left_alone() -> None:
    """Nothing is created twice, and an asset that a user moved is not moved back."""

    async def play() -> tuple[list[str], dict[str, str]]:
        async with plant(**EXISTING) as here:
            moved = mapped(**{"WELD-ROBOT-01": "Paint"})
            here.first_answers = [moved, moved, moved]
            async with simulating(here.ksql):
                await until(lambda: "WELD-ROBOT-01" in here.events_of())
                return here.created(), here.mappings()

    created, mappings = asyncio.run(play())
    assert created == []
    assert len(mappings) == 11
    assert "WELD-ROBOT-01" not in mappings


def test_a_map_being_restored_is_not_an_empty_map() -> None:
    """Refused, then empty as after a restart, then there: no mapping is overwritten."""
    full = mapped(**{"WELD-ROBOT-01": "Paint", "WELD-CELL-01": "Weld"})

    async def play() -> dict[str, str]:
        async with plant(**EXISTING) as here:
            here.first_answers = [refusal(RESTORING), mapped(), full, full]
            async with simulating(here.ksql, workcenters=("Weld",), assets_per_workcenter=2):
                await until(lambda: "WELD-ROBOT-01" in here.events_of())
                return here.mappings()

    assert asyncio.run(play()) == {}


def test_an_asset_mapped_later_reports_too() -> None:
    """An asset that a user maps while the factory runs gets events."""

    async def play() -> bool:
        async with plant() as here, simulating(here.ksql):
            await until(lambda: len(here.events_of()) > 0)
            here.ksql.statements.append(
                "INSERT INTO asset_to_uns_map_raw (a) VALUES ('LATHE-01', MAP('workcenter':='Turn'"
            )
            await until(lambda: "LATHE-01" in here.events_of())
            return "WELD-ROBOT-01" in here.events_of()[-24:]

    assert asyncio.run(play())


def test_a_server_that_comes_back_empty_is_filled_again() -> None:
    """Away, then back without anything: all sources, mappings and events come again."""

    async def play() -> list[str]:
        async with plant() as here, simulating(here.ksql):
            await until(lambda: len(here.events_of()) > 0)
            await here.ksql.stop()
            here.ksql.sources.clear()
            here.ksql.statements.clear()
            await here.ksql.start()
            await until(lambda: len(set(here.events_of())) == 12)
            assert len(here.mappings()) == 12
            return here.created()

    assert asyncio.run(play()) == NAMES


def test_the_map_command_moves_one_asset() -> None:
    """One statement, exit code 0."""

    async def play() -> tuple[int | None, dict[str, str]]:
        async with (
            plant(**EXISTING) as here,
            program("demo.factory", "map", "WELD-ROBOT-01", "Paint", KSQLDB_URL=here.ksql.url) as process,
        ):
            async with asyncio.timeout(30):
                await process.communicate()
            return process.returncode, here.mappings()

    assert asyncio.run(play()) == (0, {"WELD-ROBOT-01": "Paint"})


def test_the_list_command_prints_the_map() -> None:
    """One line for each asset, sorted."""

    async def play() -> bytes:
        async with plant(**EXISTING) as here:
            here.first_answers = [mapped(B="Weld", A="Paint")]
            async with (
                program("demo.factory", "--ksqldb-url", here.ksql.url, "list") as process,
                asyncio.timeout(30),
            ):
                out, _ = await process.communicate()
                return out

    assert asyncio.run(play()) == b"A\tPaint\nB\tWeld\n"


def test_a_command_says_when_ksqldb_is_away() -> None:
    """Exit code 1 and one line, no traceback."""

    async def play() -> tuple[int | None, bytes]:
        async with plant() as here:
            await here.ksql.stop()
            async with (
                program("demo.factory", "map", "A", "B", KSQLDB_URL=here.ksql.url) as process,
                asyncio.timeout(30),
            ):
                _, err = await process.communicate()
                return process.returncode, err

    code, err = asyncio.run(play())
    assert code == 1
    assert err.startswith(b"ksqlDB: ")
    assert err.count(b"\n") == 1


def test_sigterm_ends_the_factory() -> None:
    """The program waits for a ksqlDB that is away, says so, and ends with 0 when told."""

    async def play() -> tuple[int | None, bytes]:
        async with running_ksql() as ksql:
            await ksql.stop()
            async with program("demo.factory", KSQLDB_URL=ksql.url) as process, asyncio.timeout(30):
                assert process.stderr is not None
                line = await process.stderr.readline()
                process.send_signal(signal.SIGTERM)
                await process.communicate()
                return process.returncode, line

    code, line = asyncio.run(play())
    assert code == 0
    assert json.loads(line)["event"] == "waiting for ksqlDB"
