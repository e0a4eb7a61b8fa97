"""The loop between two fakes: what it makes, what it repairs, what it leaves alone, and in which order."""

from __future__ import annotations

import pytest

from openfactory_common.errors import PlatformRefused
from openfactory_common.registry import parse
from reconciler.control.converge import Exit, converge
from reconciler.control.guarded import DryRunLog, withhold_writes
from reconciler.control.outcome import CycleOutcome
from reconciler.domain.services import ServiceSpec
from reconciler.domain.status import Condition
from tests.harness.fakes import Stage, unreachable

THREE = {"W1": "Weld", "W2": "Weld", "P1": "Paint", "A1": "Assembly"}


@pytest.fixture
def stage() -> Stage:
    """A map of three groups and nothing else."""
    stage = Stage()
    stage.ksqldb.assets = dict(THREE)
    return stage


def registered(stage: Stage) -> dict[str, str]:
    """Return the groups of the current registry document."""
    newest = max(stage.platform.registries.values(), key=lambda one: one.sequence)
    return parse(newest.data).groups


def conditions(outcome: CycleOutcome) -> dict[str, Condition]:
    """Return the condition of every group."""
    assert outcome.plan is not None
    return {item.group: item.condition for item in outcome.plan.items if item.group is not None}


def test_from_nothing_to_everything(stage: Stage) -> None:
    """Three groups get their streams, services and registry entries; the proxy mounts the first document."""
    controller = stage.controller()
    stage.settle(controller)
    assert sorted(stage.platform.services) == [
        "ofa_group_assembly",
        "ofa_group_paint",
        "ofa_group_weld",
        "ofa_routing_layer",
        "ofa_state_api",
    ]
    assert {name for name in stage.ksqldb.made if name.startswith("ASSET_STREAM_")} == {
        "ASSET_STREAM_ASSEMBLY",
        "ASSET_STREAM_PAINT",
        "ASSET_STREAM_WELD",
    }
    assert registered(stage)["Weld"] == "http://ofa_group_Weld:8000/asset_stream"
    assert len(registered(stage)) == 3


def test_a_group_is_registered_only_once_its_task_runs(stage: Stage) -> None:
    """Stream, then service, then a healthy task, then the registry."""
    stage.platform.healthy = lambda name: name != "ofa_group_Paint"
    controller = stage.controller()
    for _ in range(4):
        controller.cycle()
    assert set(registered(stage)) == {"Weld", "Assembly"}
    stage.platform.healthy = lambda _: True
    stage.settle(controller)
    assert set(registered(stage)) == {"Weld", "Assembly", "Paint"}


def test_the_stream_comes_before_its_service(stage: Stage) -> None:
    """Where the stream cannot be made, no service waits for it."""
    stage.ksqldb.fault = unreachable("execute")
    controller = stage.controller()
    controller.cycle()
    assert "ofa_group_weld" not in stage.platform.services


def test_a_settled_operator_writes_nothing(stage: Stage) -> None:
    """T36: a thousand cycles without change are a thousand cycles without a write."""
    controller = stage.controller()
    stage.settle(controller)
    before = stage.writes
    for _ in range(1000):
        stage.now += 10
        assert controller.cycle().result == "in_sync"
    assert stage.writes == before


@pytest.mark.parametrize("groups", [1, 50])
def test_a_look_costs_the_same_whatever_the_number_of_groups(groups: int) -> None:
    """One cycle without changes asks ksqlDB five things and the platform one."""
    stage = Stage()
    stage.ksqldb.assets = {f"a{n}": f"g{n}" for n in range(groups)}
    controller = stage.controller()
    stage.settle(controller)
    stage.ksqldb.calls.clear()
    stage.platform.calls.clear()
    controller.cycle()
    assert dict(stage.ksqldb.calls) == {"info": 1, "health": 1, "members": 1, "streams": 1, "queries": 1}
    assert dict(stage.platform.calls) == {"observe": 1}


def test_a_removed_service_comes_back(stage: Stage) -> None:
    """A service that a user removed is made again, and its group stays registered meanwhile."""
    controller = stage.controller()
    stage.settle(controller)
    del stage.platform.services["ofa_group_weld"]
    controller.cycle()
    assert "ofa_group_weld" in stage.platform.services
    assert "Weld" in registered(stage)


@pytest.mark.parametrize(
    "change",
    [
        {"env": {"X": "1"}},
        {"image": "other:1"},
        {"replicas": 4},
        {"cpu_limit": 0.1},
        {"cpu_reservation": 0.9},
        {"network": "bridge"},
        {"start_first": False},
        {"stop_grace": 1.0},
        {"unexpected": ("args",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_service_changed_by_hand_is_repaired(stage: Stage, change: dict[str, object]) -> None:
    """Every field that we set is set again when it was changed outside."""
    controller = stage.controller()
    stage.settle(controller)
    wanted = stage.platform.services["ofa_group_weld"].spec
    stage.platform.touch("ofa_group_Weld", **change)
    controller.cycle()
    assert stage.platform.services["ofa_group_weld"].spec == wanted


def test_a_new_group_is_added_and_others_are_untouched(stage: Stage) -> None:
    """An asset in a new workcenter leads to exactly one stream, one service and one registry document."""
    controller = stage.controller()
    stage.settle(controller)
    versions = {name: live.version for name, live in stage.platform.services.items()}
    stage.ksqldb.assets["L1"] = "Laser"
    stage.settle(controller)
    assert "Laser" in registered(stage)
    assert {name: stage.platform.services[name].version for name in versions} == versions


def test_a_group_without_assets_leaves_in_order(stage: Stage) -> None:
    """T16: it leaves the registry, then its service goes, then its stream; its topic stays."""
    controller = stage.controller()
    stage.settle(controller)
    del stage.ksqldb.assets["P1"]
    seen: list[tuple[bool, bool, bool]] = []
    for _ in range(40):
        controller.cycle()
        stage.now += 5
        state = (
            "Paint" in registered(stage),
            "ofa_group_paint" in stage.platform.services,
            "ASSET_STREAM_PAINT" in stage.ksqldb.made,
        )
        if not seen or seen[-1] != state:
            seen.append(state)
    assert seen == [(True, True, True), (False, True, True), (False, False, True), (False, False, False)]
    assert "asset_stream_Paint" in stage.ksqldb.kept_topics


def test_a_foreign_service_with_our_name_is_left_alone(stage: Stage) -> None:
    """T18: a conflict is reported, the object untouched, the other groups served."""
    other = Stage()
    other.ksqldb.assets = {"x": "Weld"}
    other.settle(other.controller())
    foreign = other.platform.services["ofa_group_weld"]
    stage.platform.services["ofa_group_weld"] = foreign.__class__(
        **{**vars(foreign), "owner": None, "spec": None, "id": "foreign"}
    )
    controller = stage.controller()
    code, outcome = converge(controller, 100, sleep=lambda _: None)
    assert code is Exit.NOT_CONVERGED
    assert conditions(outcome)["Weld"] is Condition.CONFLICT
    assert stage.platform.services["ofa_group_weld"].id == "foreign"
    assert set(registered(stage)) == {"Paint", "Assembly"}


def test_a_foreign_stream_with_our_name_is_left_alone(stage: Stage) -> None:
    """A stream that does not read from our shared stream is no one's to touch."""
    text = "CREATE STREAM ASSET_STREAM_WELD WITH (KAFKA_TOPIC='x') AS SELECT * FROM SOMETHING EMIT CHANGES;"
    stage.ksqldb.made["ASSET_STREAM_WELD"] = ("x", text)
    controller = stage.controller()
    outcome = controller.cycle()
    assert conditions(outcome)["Weld"] is Condition.CONFLICT
    assert stage.ksqldb.made["ASSET_STREAM_WELD"] == ("x", text)


def test_one_group_that_fails_for_good_stops_no_other(stage: Stage) -> None:
    """T20: of ten groups one fails; nine are served, and --once says so with exit code 5."""
    stage.ksqldb.assets = {f"a{n}": f"g{n}" for n in range(10)}

    create = stage.platform.create_service

    def refuse_one(spec: ServiceSpec) -> None:
        if spec.group == "g3":
            raise PlatformRefused("no")
        create(spec)

    stage.platform.create_service = refuse_one  # type: ignore[method-assign]

    def sleep(seconds: float) -> None:
        stage.now += seconds

    code, outcome = converge(stage.controller(), 60, sleep=sleep)
    assert code is Exit.NOT_CONVERGED
    assert registered(stage).keys() == {f"g{n}" for n in range(10)} - {"g3"}
    assert conditions(outcome)["g3"] is Condition.DEGRADED


def test_two_groups_that_differ_only_in_case(stage: Stage) -> None:
    """T29: the first in sorted order is served, the other is a conflict, and neither flaps."""
    stage.ksqldb.assets = {"a": "line1", "b": "Line1"}
    controller = stage.controller()
    for _ in range(5):
        outcome = controller.cycle()
    assert conditions(outcome) == {"Line1": Condition.READY, "line1": Condition.CONFLICT}
    assert outcome.results == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [("'Weld'", "'Paint'"), ("`tag`, ", ""), ("'asset_stream_Weld'", "'mine'"), ("WHERE", "WHERE 1=1 AND")],
)
def test_a_stream_that_is_not_as_we_make_them_is_foreign(stage: Stage, old: str, new: str) -> None:
    """It reads our shared stream under a group's name: a conflict that says so; it is neither changed nor dropped."""
    controller = stage.controller()
    stage.settle(controller)
    topic, text = stage.ksqldb.made["ASSET_STREAM_WELD"]
    theirs = (topic, text.replace(old, new, 1))
    stage.ksqldb.made["ASSET_STREAM_WELD"] = theirs
    stage.ksqldb.statements.clear()
    del stage.ksqldb.assets[next(asset for asset, group in stage.ksqldb.assets.items() if group == "Paint")]
    outcome = stage.run(controller, 30)
    assert outcome.plan is not None
    item = next(one for one in outcome.plan.items if one.group == "Weld")
    assert (item.condition, item.change) == (Condition.CONFLICT, "x")
    assert "ASSET_STREAM_WELD reads our shared stream, but is not a group stream as we make them" in item.detail
    assert any("built by others" in note and "ASSET_STREAM_WELD" in note for note in outcome.plan.notes)
    assert stage.ksqldb.made["ASSET_STREAM_WELD"] == theirs
    assert "ASSET_STREAM_WELD" not in {statement.target for statement in stage.ksqldb.statements}


def test_a_paused_query_is_resumed(stage: Stage) -> None:
    """A query that a user paused serves no one; it is resumed."""
    controller = stage.controller()
    stage.settle(controller)
    stage.ksqldb.paused.add("ASSET_STREAM_WELD")
    controller.cycle()
    assert stage.ksqldb.paused == set()


def test_a_terminated_query_is_replaced_after_patience(stage: Stage) -> None:
    """A stream without a query is believed only after several reads, asked about, then replaced."""
    controller = stage.controller()
    stage.settle(controller)
    stage.ksqldb.terminated.add("ASSET_STREAM_WELD")
    stage.ksqldb.statements.clear()
    controller.cycle()
    assert stage.ksqldb.statements == []
    for _ in range(10):
        stage.now += 10
        controller.cycle()
    assert [statement.verb for statement in stage.ksqldb.statements] == ["replace"]


def test_another_level_moves_the_streams_and_drops_the_old_shared_one_last(stage: Stage) -> None:
    """Blue/green: the new shared stream beside the old, the group streams moved, the old one dropped at the end."""
    stage.settle(stage.controller())
    (old,) = [name for name in stage.ksqldb.made if not name.startswith("ASSET_STREAM_")]
    stage.options["ksqldb_uns_join_table"] = "asset_to_uns_map_raw"
    stage.ksqldb.statements.clear()
    stage.settle(stage.controller())
    (new,) = [name for name in stage.ksqldb.made if not name.startswith("ASSET_STREAM_")]
    assert new != old
    first, last = stage.ksqldb.statements[0], stage.ksqldb.statements[-1]
    assert (first.verb, first.target) == ("create", new)
    assert (last.verb, last.target) == ("drop", old)
    assert all(new in stage.ksqldb.made[f"ASSET_STREAM_{name}"][1] for name in ("WELD", "PAINT", "ASSEMBLY"))


def test_only_old_unmounted_registry_documents_are_forgotten(stage: Stage) -> None:
    """T27: the three newest, the mounted one, and what made that out of date are kept through many revisions."""
    controller = stage.controller()
    stage.settle(controller)
    mounted = stage.platform.services["ofa_routing_layer"].spec
    assert mounted is not None
    for number in range(6):
        stage.ksqldb.assets[f"n{number}"] = f"new{number}"
        stage.settle(controller)
    kept = sorted(stage.platform.registries.values(), key=lambda one: one.sequence)
    assert kept[0].name == mounted.configs[0].name
    assert [one.sequence - kept[0].sequence for one in kept] == [0, 1, 4, 5, 6]


def test_a_registry_change_does_not_restart_the_proxy(stage: Stage) -> None:
    """The mounted copy may be old for an hour: a new one would cut every client's stream."""
    controller = stage.controller()
    stage.settle(controller)
    version = stage.platform.services["ofa_routing_layer"].version
    stage.ksqldb.assets["L1"] = "Laser"
    stage.settle(controller)
    assert stage.platform.services["ofa_routing_layer"].version == version


def test_a_shared_stream_without_a_query_is_followed_by_another(stage: Stage) -> None:
    """A join cannot be replaced: the next one is made, each group moves to its beginning, the old one goes last."""
    controller = stage.controller()
    stage.settle(controller)
    shared = next(name for name in stage.ksqldb.made if not name.startswith("ASSET_STREAM_"))
    stage.ksqldb.terminated.add(shared)
    stage.ksqldb.statements.clear()
    controller.cycle()
    assert stage.ksqldb.statements == []
    for _ in range(12):
        stage.now += 10
        controller.cycle()
    sent = stage.ksqldb.statements
    assert [one.verb for one in sent] == ["create", *["drop", "create"] * 3, "drop"]
    assert (sent[0].target, sent[-1].target) == (shared.removesuffix("_1") + "_2", shared)
    assert sent[-1].sql.endswith("DELETE TOPIC;")
    assert "ksql.streams.auto.offset.reset" not in sent[0].properties
    assert {one.properties["ksql.streams.auto.offset.reset"] for one in sent[2:-1:2]} == {"earliest"}
    assert len(registered(stage)) == 3


def test_a_changed_retention_does_not_touch_what_runs(stage: Stage) -> None:
    """The server refuses another retention than the topic has, so a repair names the one that it was made with."""
    stage.settle(stage.controller())
    stage.options["group_retention"] = 60.0
    stage.ksqldb.statements.clear()
    controller = stage.controller()
    stage.settle(controller)
    assert stage.ksqldb.statements == []
    stage.ksqldb.terminated.add("ASSET_STREAM_WELD")
    for _ in range(12):
        stage.now += 10
        controller.cycle()
    assert stage.ksqldb.terminated == set()
    assert "RETENTION_MS=604800000" in stage.ksqldb.made["ASSET_STREAM_WELD"][1]


def test_a_dry_run_does_not_say_that_anything_was_done(stage: Stage) -> None:
    """Its writes reach no one, and its sentence says so."""
    controller, withheld = stage.controller(), DryRunLog()
    controller.deps = withhold_writes(controller.deps, withheld)
    controller.reporter.dry_run = True
    outcome = controller.cycle()
    assert f"{len(withheld.writes)} writes withheld" in outcome.sentence
    assert "done" not in outcome.sentence
    assert stage.writes == 0
