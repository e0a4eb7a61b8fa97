"""The UNS map is scanned as often as its size allows, and what a cycle uses between two scans proves no absence."""

from __future__ import annotations

import pytest

from openfactory_common.errors import KsqlUnreachable
from reconciler.control.converge import converge
from reconciler.control.observe import SCAN_SHARE, MapScan
from reconciler.domain.observed import MapSnapshot
from tests.harness.fakes import Stage


class Map:
    """A map of which a scan takes ``seconds``, on a clock of its own."""

    def __init__(self, seconds: float) -> None:
        """Start at second 0."""
        self.seconds, self.now, self.scans, self.fails = seconds, 0.0, 0, False

    def scan(self) -> MapSnapshot:
        """Take the time, and count."""
        self.now += self.seconds
        if self.fails:
            raise KsqlUnreachable("away")
        self.scans += 1
        return MapSnapshot(self.scans, {"Weld": self.scans})

    def reader(self) -> MapScan:
        """Return what reads it."""
        return MapScan(self.scan, lambda: self.now)


@pytest.mark.parametrize(
    ("seconds", "pause", "scans"), [(0.0, 0.0, 10), (0.25, 5.0, 10), (0.25, 4.5, 5), (1.0, 10.0, 5), (1.0, 1.0, 1)]
)
def test_scans_take_at_most_a_twentieth_of_the_time(seconds: float, pause: float, scans: int) -> None:
    """Ten reads with a pause between them: the next scan starts 20 times the length of the last after its end."""
    table = Map(seconds)
    reader = table.reader()
    for _ in range(10):
        reader.read()
        table.now += pause
    assert table.scans == scans
    assert (table.scans - 1) * seconds * SCAN_SHARE <= table.now


def test_what_is_used_again_says_so() -> None:
    """The same groups, not fresh."""
    reader = Map(1.0).reader()
    assert reader.read() == MapSnapshot(1, {"Weld": 1})
    assert reader.read() == MapSnapshot(1, {"Weld": 1}, fresh=False)


def test_a_nudge_scans_at_once() -> None:
    """Something new is known to be in the map."""
    reader = Map(1.0).reader()
    reader.read()
    reader.nudge()
    assert reader.read() == MapSnapshot(2, {"Weld": 2})


def test_a_nudge_during_a_scan_is_for_the_next_one() -> None:
    """What it is about may have come behind the place that the scan had reached; one nudge makes one scan more."""
    table = Map(1.0)

    def scan() -> MapSnapshot:
        found = table.scan()
        if found.assets == 1:
            reader.nudge()
        return found

    reader = MapScan(scan, lambda: table.now)
    assert [reader.read().fresh for _ in range(3)] == [True, True, False]


def test_each_cycle_of_once_scans() -> None:
    """Its last cycle decides how it ends, so it uses no scan of an earlier one."""
    stage = Stage()
    stage.ksqldb.assets = {"a1": "Weld"}
    read = stage.ksqldb.members

    def slow(*asked: object) -> object:
        stage.now += 5.0
        return read(*asked)  # type: ignore[arg-type]

    stage.ksqldb.members = slow  # type: ignore[method-assign, assignment]
    cycles: list[bool] = []
    converge(
        stage.controller(),
        300.0,
        show=lambda one: cycles.append(one.survey is not None and one.survey.observed.membership.fresh),
        sleep=lambda _: None,
    )
    assert len(cycles) > 1
    assert all(cycles)


def test_a_failed_scan_is_repeated_at_the_next_read() -> None:
    """It is an error of its cycle, and the last good scan is not used in its place."""
    table = Map(1.0)
    reader = table.reader()
    reader.read()
    table.now += 100
    table.fails = True
    for _ in range(2):
        with pytest.raises(KsqlUnreachable):
            reader.read()
    table.fails = False
    assert reader.read().fresh


def test_a_scan_that_is_used_again_counts_no_absence() -> None:
    """A group leaves after PRUNE_READS scans, not after as many cycles."""
    stage = Stage(options={"prune_grace": 0.0, "prune_reads": 3})
    stage.ksqldb.assets = {f"a{n}": f"g{n}" for n in range(5)}
    controller = stage.controller()
    stage.settle(controller)
    read = stage.ksqldb.members

    def slow(*asked: object) -> object:
        stage.now += 5.0
        return read(*asked)  # type: ignore[arg-type]

    stage.ksqldb.members = slow  # type: ignore[method-assign, assignment]
    del stage.ksqldb.assets["a4"]
    controller.cycle()
    before = stage.ksqldb.calls["members"]
    for _ in range(20):
        stage.now += 1.0
        controller.cycle()
    assert stage.ksqldb.calls["members"] == before
    assert controller.memory.guards.missing["g4"].reads == 1
