"""What happens to five groups in the fault matrix: each scenario is a settled world and one change to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache

from reconciler.domain.services import Kind, LiveService, ServiceSpec
from reconciler.leadership.pause import DELETIONS_RECORD, GROUP_PAUSES_RECORD, start_pause, write_mark
from tests.harness.fakes import FakeKsqldb, FakePlatform, Stage

FIVE: dict[str, str | None] = {f"a{n}": f"g{n}" for n in range(5)}
#: Groups that cannot be served, because another party has an object of theirs.
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


#: What a user built on our shared stream, and another installation of the same owner with a stream of a group.
LOOK_ALIKES = {
    "ASSET_STREAM_ALARMS": "CREATE STREAM `ASSET_STREAM_ALARMS` WITH (KAFKA_TOPIC='plant_alarms', VALUE_FORMAT='JSON') "
    "AS SELECT ASSET_KEY, `id`, `value` FROM `{shared}` WHERE `type` = 'Condition' EMIT CHANGES;",
    "ASSET_STREAM_G7": "{g1} AND `id` = 'x' EMIT CHANGES;",
    "ASSET_STREAM_MINE": "{mine} EMIT CHANGES;",
    "ASSET_STREAM_COUNTS": "CREATE TABLE `ASSET_STREAM_COUNTS` WITH (KAFKA_TOPIC='plant_counts', VALUE_FORMAT='JSON') "
    "AS SELECT ASSET_KEY, COUNT(*) AS N FROM `{shared}` WHERE UNS_GROUP = 'g1' GROUP BY ASSET_KEY EMIT CHANGES;",
    "OFA_ASSETS_WITH_UNS_99999999_0F0F0F0F_1": "{join}",
    "ASSET_STREAM_Z9": "CREATE STREAM `ASSET_STREAM_Z9` WITH (KAFKA_TOPIC='asset_stream_z9', VALUE_FORMAT='JSON', "
    "RETENTION_MS=1) AS SELECT ASSET_KEY, `asset_uuid`, `id`, `value`, `type`, `tag`, `timestamp` FROM "
    "`OFA_ASSETS_WITH_UNS_99999999_0F0F0F0F_1` WHERE UNS_GROUP = 'z9' EMIT CHANGES;",
}
#: Names of sources that others made, whatever they look like.
THEIRS = frozenset({*FOREIGN_STREAMS, *LOOK_ALIKES})
#: Begins the ids of services and configs that others made.
FOREIGN = "foreign"


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


def plant_look_alikes(stage: Stage) -> None:
    """Put beside a plant what reads our shared stream, and copies of services and of the registry, labels and all."""
    ksqldb, platform = stage.ksqldb, stage.platform
    shared = shared_of(stage)
    texts = {"shared": shared, "g1": ksqldb.made["ASSET_STREAM_G1"][1], "join": ksqldb.made[shared][1]}
    texts["g1"] = texts["g1"].removesuffix(" EMIT CHANGES;")
    texts["mine"] = texts["g1"].replace("= 'g1'", "= 'no group any more'")
    for name, form in LOOK_ALIKES.items():
        text, copied = form.format(**texts), shared if form == "{join}" else "ASSET_STREAM_G1"
        text = text.replace(f"`{copied}` WITH", f"`{name}` WITH").replace(f"'{copied.lower()}'", f"'{name.lower()}'")
        topic = text.split("KAFKA_TOPIC='")[1].split("'")[0]
        ksqldb.made[name] = (topic, text)
        ksqldb.kept_topics.add(topic)
    ksqldb.named_tables.add("ASSET_STREAM_COUNTS")
    for name, copied in {"ofa_group_g4_copy": "ofa_group_g4", "ofa_routing_layer_old": "ofa_routing_layer"}.items():
        live = platform.services[copied]
        assert live.spec is not None
        spec = replace(live.spec, name=name, configs=())
        platform.services[name] = replace(live, id=f"{FOREIGN}-{name}", name=name, spec=spec)
    newest = max(platform.registries.values(), key=lambda one: one.sequence)
    platform.registries["a_backup"] = replace(newest, id=f"{FOREIGN}-config", name="a_backup", mounted=False)


def shared_of(stage: Stage) -> str:
    """Return the name of our shared stream."""
    (shared,) = (name for name, (_, sql) in stage.ksqldb.made.items() if " JOIN " in sql and name not in THEIRS)
    return shared


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


def unread() -> Stage:
    """Five groups in place, and three that cannot be; no one else reads the shared stream, so it can be dropped."""
    return clone(_settled())


@cache
def _read() -> Stage:
    stage = unread()
    plant_look_alikes(stage)
    stage.settle(stage.controller(), step=STEP)  # the registry is published once more, above its copy
    stage.now += 600
    return stage


def settled() -> Stage:
    """The same, beside what looks like ours."""
    return clone(_read())


@cache
def _leaving() -> Stage:
    """One of the groups has left the registry and waits for its service to be removed."""
    stage = settled()
    del stage.ksqldb.assets["a4"]
    operator, before = stage.controller(), len(stage.platform.registries)
    while len(stage.platform.registries) == before:
        operator.cycle()
        stage.now += STEP
    return stage


@cache
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


def _asked(stage: Stage) -> None:
    """A person wants it removed at once; stale reads that still show its asset end that, and the grace time follows."""
    del stage.ksqldb.assets["a4"]
    write_mark(stage.platform, DELETIONS_RECORD, "g4", start_pause(stage.wall, 3600, "ana@shell"), stage.wall)


def _paused(stage: Stage) -> None:
    """One group is paused, and all have another image; two were changed by hand."""
    _image(stage)
    for name in ("ofa_group_g0", "ofa_group_g1"):
        stage.platform.touch(name, replicas=7)
    write_mark(stage.platform, GROUP_PAUSES_RECORD, "g0", start_pause(stage.wall, 3600, "ana@shell"), stage.wall)


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


def _kept(stage: Stage) -> None:
    """The engine keeps a task of before."""
    stage.platform.keeping["ofa_group_g0"] = 1


def _silenced(stage: Stage) -> None:
    stage.ksqldb.terminated.add(shared_of(stage))


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
    Scenario("group deleted on request", settled, _asked),
    Scenario("one group paused", settled, _paused),
    Scenario("group back while it leaves", lambda: clone(_leaving()), _back),
    Scenario("level changed", unread, _level),
    Scenario("registry rolled", lambda: clone(_outdated()), _roll),
    Scenario("broken by hand", settled, _broken),
    Scenario("shared stream silenced", settled, _silenced),
    Scenario("a task too many", settled, _kept),
)
