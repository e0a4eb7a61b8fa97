"""The two sides of the operator in memory: a platform and a ksqlDB that do what they are told, at once.

They keep the rules that the real ones keep (versions, unique names, lineage, refusals), and count every call, so that
a test can say how many reads and writes something took. The real engine and the recorded traffic have their own tests.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry

from openfactory_common.errors import KsqlBadStatement, KsqlConflict, KsqlRefused, KsqlTruncated, KsqlUnreachable
from openfactory_common.ksqldb.levels import Level
from openfactory_common.ksqldb.wire import Column
from reconciler.app import topology_of
from reconciler.control.controller import Clocks, Controller, Dependencies
from reconciler.control.groups_file import GroupsFile
from reconciler.control.outcome import CycleOutcome
from reconciler.control.readiness import Prober
from reconciler.grouping.unslevel import UNSLevelGroupingStrategy
from reconciler.ksqldb.entities import Description, Health, QueryInfo, ServerInfo, Statement, StreamInfo
from reconciler.ksqldb.statements import Topology
from reconciler.metrics import Metrics
from reconciler.planning.guards import Overrides
from reconciler.settings import Settings
from tests.harness.fake_platform import INSTALLATION, NOW, FakePlatform

__all__ = ["NOW", "WELL", "FakeKsqldb", "FakePlatform", "Stage", "unreachable"]

WELL = Health(healthy=True, kafka=True, metastore=True, command_runner=True, server_state="READY")


@dataclass
class FakeKsqldb:
    """A ksqlDB in memory: a map of assets, and streams that remember the statement that made them.

    Attributes:
        assets: the group of each asset at the level `workcenter`.
        levels: the same at other levels.
        deleted: assets that Kafka's history of the map names and that are no more.
        made: streams and tables that queries write: topic and statement.
        named_tables: which sources are tables.
    """

    assets: dict[str, str | None] = field(default_factory=dict)
    levels: Mapping[Level, Mapping[str, str | None]] = field(default_factory=dict)
    identity: tuple[str, str] = ("kafka-1", "default_")
    status: str = "RUNNING"
    well: Health = WELL
    made: dict[str, tuple[str, str]] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    terminated: set[str] = field(default_factory=set)
    kept_topics: set[str] = field(default_factory=set)
    readers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    statements: list[Statement] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    fault: Callable[[str], None] = lambda _call: None
    failures: int = 0
    limit: int | None = None
    offset: str = ""
    deleted: int = 1_000_000
    named_tables: set[str] = field(default_factory=set)

    @property
    def writes(self) -> int:
        """How many statements were sent."""
        return len(self.statements)

    def clone(self) -> FakeKsqldb:
        """Return one that goes its own way from here; what it holds are values."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, dict | set | list):
                setattr(other, name, copy.copy(value))
        return other

    def info(self) -> ServerInfo:
        """Who answers."""
        self._call("info")
        return ServerInfo("7.7.0", *self.identity, self.status)

    def health(self) -> Health:
        """How it judges itself."""
        self._call("health")
        return self.well

    def streams(self) -> tuple[StreamInfo, ...]:
        """All streams."""
        self._call("streams")
        return tuple(StreamInfo(name, topic) for name, (topic, _) in self.made.items() if name not in self.named_tables)

    def tables(self) -> tuple[StreamInfo, ...]:
        """All tables."""
        self._call("tables")
        return tuple(StreamInfo(name, self.made.get(name, (name.lower(),))[0]) for name in sorted(self.named_tables))

    def queries(self) -> tuple[QueryInfo, ...]:
        """All queries."""
        self._call("queries")
        return tuple(
            QueryInfo(f"CSAS_{name}", text, (name,), "PERSISTENT", {"PAUSED" if name in self.paused else "RUNNING": 1})
            for name, (_, text) in self.made.items()
            if name not in self.terminated
        )

    def query_limit(self) -> int | None:
        """How many queries may be."""
        self._call("query_limit")
        return self.limit

    def offset_reset(self) -> str:
        """Where a query begins that does not say so."""
        self._call("offset_reset")
        return self.offset

    def describe_or_none(self, name: str) -> Description | None:
        """One source."""
        self._call("describe")
        if name in self.made:
            topic, text = self.made[name]
        elif name in self.named_tables:
            topic, text = name.lower(), ""
        else:
            return None
        query = QueryInfo(f"CSAS_{name}", text, (name,), "PERSISTENT", {"RUNNING": 1})
        readers = self.readers_of(name)
        return Description(
            name=name,
            kind="TABLE" if name in self.named_tables else "STREAM",
            topic=topic,
            statement=text,
            write_queries=() if name in self.terminated else (query,),
            read_queries=(),
            constraints=readers,
        )

    def describe_extended(self, name: str) -> Description | None:
        """One source; how far its query has read is not known here."""
        return self.describe_or_none(name)

    def sample(self, sql: str, columns: Sequence[Column], seconds: float) -> list[tuple[Any, ...]]:  # noqa: ARG002
        """Nothing flows here."""
        self._call("sample")
        return []

    def topics(self) -> Mapping[str, int]:
        """All topics."""
        self._call("topics")
        return dict.fromkeys(self.kept_topics, 1)

    def execute(self, statement: Statement) -> None:
        """Do what the statement says."""
        self._call("execute")
        self.statements.append(statement)
        match statement.verb:
            case "create" | "replace":
                self._create(statement)
            case "drop":
                self._drop(statement)
            case "resume":
                self._resume(statement.target.removeprefix("CSAS_"))
            case "pause":
                self.paused.add(statement.target.removeprefix("CSAS_"))

    def _create(self, statement: Statement) -> None:
        name, sql = statement.target, statement.sql
        if statement.verb == "create" and name in self.made:
            raise KsqlConflict(f"{name}: a stream with the same name already exists")
        source = re.search(r"FROM `([^`]*)` WHERE", sql)
        if source is not None and source[1] not in self.made:
            raise KsqlBadStatement(f"{source[1]} does not exist.")
        if name not in self.made and self.limit is not None and len(self.made) >= self.limit:
            raise KsqlRefused("it would cause the number of active, persistent queries to exceed the limit")
        topic = sql.split("KAFKA_TOPIC")[1].split("'")[1]
        self.made[name] = (topic, sql)
        self.kept_topics.add(topic)
        self.terminated.discard(name)
        self.paused.discard(name)

    def _drop(self, statement: Statement) -> None:
        """Drop it; one with readers is refused, and its topic is gone all the same (measured)."""
        name = statement.target
        if name not in self.made:
            raise KsqlBadStatement(f"Stream {name} does not exist.")
        topic, _ = self.made[name]
        if "DELETE TOPIC" in statement.sql:
            self.kept_topics.discard(topic)
        if self.readers_of(name):
            raise KsqlRefused(f"Cannot drop {name}: {self.readers_of(name)} read from it")
        del self.made[name]
        self.terminated.discard(name)
        self.paused.discard(name)

    def _resume(self, name: str) -> None:
        if name not in self.made or name in self.terminated:
            raise KsqlBadStatement(f"Unknown queryId: CSAS_{name}")
        self.paused.discard(name)

    def readers_of(self, name: str) -> tuple[str, ...]:
        """What is made from a source."""
        found = (one for one, (_, sql) in self.made.items() if f"FROM `{name}`" in sql or f"FROM {name}" in sql)
        return (*self.readers.get(name, ()), *found)

    def members(self, table: str, key: str, level: Level) -> tuple[tuple[str, str | None], ...]:
        """Every asset with its group."""
        self._call("members")
        return tuple(self._at(table, key, level).items())

    def level_names(self, table: str, key: str, assets: Sequence[str]) -> frozenset[str]:
        """The levels of all assets."""
        self._call("level_names")
        assert (table.upper(), key.upper(), bool(assets)) == ("ASSET_TO_UNS_MAP", "ASSET_UUID", True)
        at_ours = {"workcenter"} if any(group is not None for group in self.assets.values()) else set()
        return frozenset(at_ours | {level for level in self.levels if isinstance(level, str)})

    def members_directly(self, table: str, key: str, level: Level, at_least: int) -> tuple[tuple[str, str | None], ...]:
        """Every asset with its group, as Kafka has it; deleted ones count."""
        self._call("members_directly")
        found = self._at(table, key, level)
        if len(found) + self.deleted < at_least:
            raise KsqlTruncated(f"{len(found)} of {at_least} assets were read")
        return tuple(found.items())

    def _at(self, table: str, key: str, level: Level) -> Mapping[str, str | None]:
        assert (table.upper(), key.upper()) == ("ASSET_TO_UNS_MAP", "ASSET_UUID")
        return self.assets if level == "workcenter" else self.levels.get(level, dict.fromkeys(self.assets))

    def stop_waiting(self) -> None:
        """Nothing is waited for."""

    def close(self) -> None:
        """Nothing to release."""

    def _call(self, name: str) -> None:
        self.calls[name] += 1
        self.fault(name)


@dataclass
class Stage:
    """An operator between two fakes, with clocks that a test moves: ``now`` in seconds, ``wall`` for time stamps."""

    platform: FakePlatform = field(default_factory=FakePlatform)
    ksqldb: FakeKsqldb = field(default_factory=FakeKsqldb)
    options: dict[str, object] = field(default_factory=dict)
    prober: Prober | None = None
    now: float = 1000.0
    wall: datetime = NOW

    @property
    def settings(self) -> Settings:
        """Settings with short, whole numbers."""
        return _settings(tuple(sorted(self.options.items())))

    @property
    def topology(self) -> Topology:
        """What streams should be, in this installation."""
        return replace(topology_of(self.settings), installation=INSTALLATION)

    def controller(self, overrides: Overrides | None = None) -> Controller:
        """Start an operator: what one remembered is lost."""
        settings = self.settings
        strategy = UNSLevelGroupingStrategy(settings, self.ksqldb)
        file = GroupsFile(settings.groups_file)
        world = Dependencies(settings, self.ksqldb, self.platform, strategy, topology_of(settings), self.prober, file)
        clocks = Clocks(monotonic=lambda: self.now, wall=lambda: self.wall)
        return Controller(world, Metrics(CollectorRegistry()), overrides or Overrides(), clocks)

    def settle(self, controller: Controller, cycles: int = 40, step: float = 5.0) -> None:
        """Run cycles until one of them writes nothing and nothing is on its way."""
        for _ in range(cycles):
            outcome = controller.cycle()
            if outcome.plan is not None and outcome.plan.settled and not outcome.results:
                return
            self.now += step
        raise AssertionError(f"not settled after {cycles} cycles: {outcome.sentence}")

    def run(self, controller: Controller, cycles: int, step: float = 10.0) -> CycleOutcome:
        """Run some cycles, ``step`` seconds apart, and return how the last one ended."""
        for _ in range(cycles):
            outcome = controller.cycle()
            self.now += step
        return outcome

    @property
    def writes(self) -> int:
        """Writes on both sides."""
        return self.platform.writes + self.ksqldb.writes


@cache  # settings are read from many places and take milliseconds to make
def _settings(options: tuple[tuple[str, object], ...]) -> Settings:
    given: dict[str, object] = {"kafka_broker": "k:9092", "ksqldb_url": "http://k:8088", "environment": "devswarm"}
    given |= {"rollout_max_parallel": 1, "rollout_bake": 0}  # rollouts have their own tests
    return Settings(_env_file=None, **{**given, **dict(options)})  # type: ignore[call-arg, arg-type]


def unreachable(call: str) -> Callable[[str], None]:
    """Make the fault that one call is not answered."""

    def fault(name: str) -> None:
        if name == call:
            raise KsqlUnreachable(f"{call} was not answered")

    return fault
