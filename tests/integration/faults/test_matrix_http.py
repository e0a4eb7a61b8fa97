"""A sample of the fault matrix with a real wire: the client over HTTP, against the embedded ksqlDB."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

from prometheus_client import CollectorRegistry

from reconciler.app import topology_of
from reconciler.control.controller import Clocks, Controller, Dependencies
from reconciler.grouping.unslevel import UNSLevelGroupingStrategy
from reconciler.metrics import Metrics
from tests.harness.fakes import NOW
from tests.harness.serving import Plant, plant
from tests.integration.faults.matrix import Cell, cells, is_done
from tests.integration.faults.matrix_seam import STALE, Call, Crash, Seam

GROUPS = 3
#: Cells that are played, of some 500.
SAMPLE = 20
OPTIONS: dict[str, object] = {"prune_grace": 20.0, "drain_seconds": 10.0}


@dataclass
class Removals:
    """Counts what goes."""

    gone: list[str] = field(default_factory=list)

    def before(self, call: Call, args: tuple[Any, ...]) -> None:
        """Nothing to judge: the sides here are asked at the end."""

    def after(self, call: Call, args: tuple[Any, ...]) -> None:
        """Note a removal."""
        if call.name == "remove_service" or (call.name == "execute" and args[0].verb == "drop"):
            self.gone.append(call.about)


def operator(made: Plant, seam: Seam) -> Controller:
    """Start an operator behind the seam."""
    settings = made.settings
    strategy = UNSLevelGroupingStrategy(settings, seam.ksqldb)
    world = Dependencies(settings, seam.ksqldb, seam.platform, strategy, topology_of(settings))
    return Controller(world, Metrics(CollectorRegistry()), clocks=Clocks(lambda: made.now, lambda: NOW))


def played(cell: Cell | None = None) -> tuple[list[Call], Any]:
    """One group comes and one goes, with one call spoiled; return the calls and the end."""
    with plant(GROUPS) as made:
        made.options |= OPTIONS
        made.ksqldb.assign({"b": "New", "a2": None})
        calls: list[Call] = []
        removals = Removals()
        seam = Seam({"ksqldb": made.client(), "platform": made.platform}, removals, on_call=calls.append)
        if cell is not None:
            seam.choose = lambda call: cell.fault if call.number == cell.call.number else None
        converge(made, seam, cell)
        return calls, (*end(made), sorted(removals.gone))


def converge(made: Plant, seam: Seam, cell: Cell | None) -> None:
    """Run until twice nothing is left to do, with a restart where the cell asks for one."""
    controller, restarted, done = operator(made, seam), False, 0
    for _ in range(60):
        try:
            outcome = controller.cycle()
        except Crash:
            controller, restarted, done = operator(made, seam), True, 0
        else:
            done = done + 1 if seam.quiet() and is_done(outcome) else 0
        made.now += 10
        if done == 2:
            return
        if cell is not None and cell.restart and not restarted and seam.calls > cell.call.number:
            controller, restarted = operator(made, seam), True
    raise AssertionError("\n".join(["not settled", *seam.log]))


def end(made: Plant) -> tuple[Any, ...]:
    """Return what is there: streams with their definitions, topics, services and the registry."""
    queries = {sink: query.text for query in made.client().queries() for sink in query.sinks}
    services = {name: replace(live.spec, configs=()) for name, live in made.platform.services.items() if live.spec}
    newest = max(made.platform.registries.values(), key=lambda one: one.sequence)
    return queries, made.ksqldb.topics, services, newest.data


def test_a_sample_over_http_ends_as_the_undisturbed_run() -> None:
    """The same streams, topics, services, registry and removals, whichever call was spoiled."""
    calls, expected = played()
    possible = [cell for cell in cells(calls) if cell.fault not in STALE]
    assert expected[-1] == ["drop ASSET_STREAM_G2", "ofa_group_g2"]
    for cell in random.Random(7).sample(possible, SAMPLE):  # noqa: S311 - repeatable on purpose
        _, came_to = played(cell)
        assert came_to == expected, f"call {cell.call}, {cell.fault}, restart {cell.restart}"
