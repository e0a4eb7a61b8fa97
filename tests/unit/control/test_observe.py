"""What one read of ksqlDB says, and how often the UNS map is scanned; a scan that is used again proves no absence."""

from __future__ import annotations

import pytest

from openfactory_common.errors import KsqlUnreachable
from reconciler.control.converge import converge
from reconciler.control.observe import SCAN_SHARE, MapScan, find_unhealthy_reason, observe_source
from reconciler.domain.observed import LiveQuery, LiveStream, MapSnapshot
from reconciler.ksqldb.entities import Health, QueryInfo, ServerInfo
from tests.harness.fakes import FakeKsqldb, Stage
from tests.unit.planning.tables import rows


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


UNHEALTHY = """
    # healthy  kafka  command runner  state     status    reason
    yes        yes    yes             READY     RUNNING   -
    yes        yes    no              READY     RUNNING   its command runner is dead
    yes        no     yes             READY     RUNNING   it cannot reach Kafka
    no         no     no              ERROR     ERROR     its command runner is dead
    no         yes    yes             READY     RUNNING   its health check fails (state READY)
    yes        yes    yes             STOPPING  RUNNING   its health check fails (state STOPPING)
    yes        yes    yes             READY     DEGRADED  its status is DEGRADED
    yes        yes    yes             READY     ERROR     its status is ERROR
"""


@pytest.mark.parametrize(("healthy", "kafka", "runner", "state", "status", "reason"), rows(UNHEALTHY))
def test_why_a_server_is_unhealthy(healthy: str, kafka: str, runner: str, state: str, status: str, reason: str) -> None:
    """The gravest reason first: that which only a restart cures."""
    health = Health(
        healthy=healthy == "yes",
        kafka=kafka == "yes",
        metastore=True,
        command_runner=runner == "yes",
        server_state=state,
    )
    found = find_unhealthy_reason(ServerInfo("7.7.0", "kafka-1", "default_", status), health)
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


CREATE = "CREATE STREAM X AS SELECT * FROM Y EMIT CHANGES;"
QUERIES = """
    # statement         states            writes  its query  failed  paused
    CREATE STREAM X     RUNNING           X       yes        no      no
    create stream x     RUNNING           X       yes        no      no
    CREATE STREAM X     PAUSED            X       yes        no      yes
    CREATE STREAM X     RUNNING ERROR     X       yes        yes     no
    CREATE STREAM X     ERROR             X       yes        yes     no
    INSERT INTO X       RUNNING           X       no         no      no
    CREATE STREAM X     RUNNING           -       no         no      no
"""


@pytest.mark.parametrize(("text", "states", "sinks", "own", "failed", "paused"), rows(QUERIES))
def test_which_query_a_stream_has(text: str, states: str, sinks: str, own: str, failed: str, paused: str) -> None:
    """The one that made it; one that inserts into it is kept by its id, for what it reads and writes."""
    query = QueryInfo("Q", text, tuple(sinks.split()), "PERSISTENT", dict.fromkeys(states.split(), 1))
    ksqldb = FakeKsqldb(made={"X": ("x", CREATE)})
    ksqldb.queries = lambda: (query,)  # type: ignore[method-assign]
    state, _ = observe_source(ksqldb, lambda: MapSnapshot(0, {}))
    expected = LiveQuery("Q", text, paused == "yes", failed == "yes")
    assert state.queries == ({"X": expected} if own == "yes" else {})
    assert state.inserts == ({"Q": text} if text.startswith("INSERT") else {})
    assert state.servers == len(states.split())
    assert state.streams == {"X": LiveStream("X", "x")}


def test_topics_and_the_degraded_reason_are_read_where_asked_for() -> None:
    """The map is read before the streams, so a stream that is seen has its group."""
    ksqldb, order = FakeKsqldb(kept_topics={"x"}), []
    ksqldb.fault = order.append

    def read() -> MapSnapshot:
        order.append("map")
        return MapSnapshot(1, {"Weld": 1})

    state, membership = observe_source(ksqldb, read)
    assert (state.topics, state.degraded, membership.groups) == (None, "", {"Weld": 1})
    assert order == ["info", "health", "map", "streams", "queries"]
    state, _ = observe_source(ksqldb, read, topics=True, find_degraded=lambda listed: f"{len(listed)} queries")
    assert (state.topics, state.degraded) == ({"x": 1}, "0 queries")
    assert order[5:] == ["info", "health", "map", "streams", "queries", "topics"]
