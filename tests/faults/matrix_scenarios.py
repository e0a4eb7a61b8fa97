"""What happens to five groups in the fault matrix: each scenario is a settled world and one change to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache

from reconciler.platforms.base import Kind, LiveService, ServiceSpec
from tests.fakes import FakeKsqldb, FakePlatform, Stage

FIVE: dict[str, str | None] = {f"a{n}": f"g{n}" for n in range(5)}
#: Groups that cannot be served, because somebody else has an object of theirs.
BLOCKED: dict[str, str | None] = {"x": "Taken", "y": "Held", "z": "Stolen"}
#: Short times: three reads over 20 seconds.
OPTIONS: dict[str, object] = {"prune_grace": 20.0, "drain_seconds": 25.0}
#: Seconds between two cycles.
STEP = 10.0

FOREIGN_STREAMS = {
    "ASSET_STREAM_STOLEN": "CREATE STREAM ASSET_STREAM_STOLEN WITH (KAFKA_TOPIC='{topic}') AS SELECT * FROM S "
    "EMIT CHANGES;",
    "ASSET_STREAM_THEIRS": "CREATE STREAM ASSET_STREAM_THEIRS WITH (KAFKA_TOPIC='{topic}') AS SELECT * FROM S "
    "EMIT CHANGES;",
    "OFA_ASSETS_WITH_UNS_DEADBEEF": "CREATE STREAM OFA_ASSETS_WITH_UNS_DEADBEEF WITH (KAFKA_TOPIC='{topic}') AS "
    "SELECT * FROM S EMIT CHANGES;",
}


def foreign_services() -> dict[str, LiveService]:
    """Services of others: without our label, of another owner, with a group's name that is wanted or is not."""
    spec = ServiceSpec("ofa_group_Held", Kind.GROUP, "Held", "theirs:1", {}, 1, 0.0, 0.0, "factory-net")
    gone = replace(spec, name="ofa_group_Gone", group="Gone")
    return {
        "ofa_group_gone": LiveService("foreign4", 1, "ofa_group_Gone", "other", gone, 1),
        "ofa_group_taken": LiveService("foreign1", 1, "ofa_group_Taken", None, None, 1),
        "ofa_group_held": LiveService("foreign2", 1, "ofa_group_Held", "other", spec, 1),
        "ofa_group_old": LiveService("foreign3", 1, "ofa_group_old", None, None, 1),
    }


def plant_foreign(stage: Stage) -> None:
    """Put objects of others beside ours."""
    stage.platform.services |= foreign_services()
    stage.platform.strangers = frozenset({"ofa_registry-000000000000"})
    for name, text in FOREIGN_STREAMS.items():
        stage.ksqldb.made[name] = (name.lower(), text.format(topic=name.lower()))
        stage.ksqldb.kept_topics.add(name.lower())


def empty() -> Stage:
    """Nothing of ours, much of others, and no group."""
    stage = Stage(FakePlatform(), FakeKsqldb(), dict(OPTIONS))
    plant_foreign(stage)
    return stage


def clone(stage: Stage) -> Stage:
    """Return a world that goes its own way from here."""
    return replace(stage, platform=stage.platform.clone(), ksqldb=stage.ksqldb.clone(), options=dict(stage.options))


@cache
def _settled() -> Stage:
    stage = empty()
    stage.ksqldb.assets = {**FIVE, **BLOCKED}
    stage.ksqldb.levels = {"area": {**FIVE, **BLOCKED, "a4": "h4"}}
    stage.settle(stage.controller(), step=STEP)
    stage.now += 600
    return stage


def settled() -> Stage:
    """Five groups in place, and three that cannot be."""
    return clone(_settled())


def _leaving() -> Stage:
    """One of the groups has left the registry and waits for its service to be removed."""
    stage = settled()
    del stage.ksqldb.assets["a4"]
    operator, before = stage.controller(), len(stage.platform.registries)
    while len(stage.platform.registries) == before:
        operator.cycle()
        stage.now += STEP
    return stage


def _outdated() -> Stage:
    """The document that the routing layer mounts is not the current one any more."""
    stage = settled()
    for group in ("n1", "n2", "n3"):
        stage.ksqldb.assets[group] = group
        stage.settle(stage.controller(), step=STEP)
    return stage


@dataclass(frozen=True)
class Scenario:
    """A world, and what happens to it."""

    name: str
    world: Callable[[], Stage]
    change: Callable[[Stage], None]


def _first(stage: Stage) -> None:
    stage.ksqldb.assets = {**FIVE, **BLOCKED}


def _added(stage: Stage) -> None:
    stage.ksqldb.assets["b"] = "g5"


def _image(stage: Stage) -> None:
    stage.options["fastapi_group_image"] = "other:2"


def _environment(stage: Stage) -> None:
    stage.options["log_level"] = "debug"


def _deleted(stage: Stage) -> None:
    del stage.ksqldb.assets["a4"]


def _back(stage: Stage) -> None:
    stage.ksqldb.assets["a4"] = "g4"


def _level(stage: Stage) -> None:
    stage.options["uns_fastapi_group_grouping_level"] = "area"


def _roll(stage: Stage) -> None:
    stage.wall += timedelta(hours=2)


def _broken(stage: Stage) -> None:
    del stage.platform.services["ofa_group_g0"]
    stage.platform.touch("ofa_group_g1", replicas=7)
    stage.ksqldb.paused.add("ASSET_STREAM_G2")
    stage.ksqldb.terminated.add("ASSET_STREAM_G3")


def _silenced(stage: Stage) -> None:
    (shared,) = (name for name, (_, sql) in stage.ksqldb.made.items() if " JOIN " in sql)
    stage.ksqldb.terminated.add(shared)


def _unrecorded() -> Stage:
    """Nothing of ours, not even an id."""
    stage = empty()
    stage.platform.kept_records.clear()
    return stage


SCENARIOS = (
    Scenario("first installation", _unrecorded, _first),
    Scenario("first convergence", empty, _first),
    Scenario("group added", settled, _added),
    Scenario("image changed", settled, _image),
    Scenario("environment changed", settled, _environment),
    Scenario("group deleted", settled, _deleted),
    Scenario("group back while it leaves", _leaving, _back),
    Scenario("level changed", settled, _level),
    Scenario("registry rolled", _outdated, _roll),
    Scenario("broken by hand", settled, _broken),
    Scenario("shared stream silenced", settled, _silenced),
)
