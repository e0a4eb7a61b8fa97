"""An operator and its installation id: made before the first write, asked for where it is gone, adopted by a person."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from openfactory_common.errors import GuardRefusal
from openfactory_common.registry import parse as parse_registry
from reconciler import app
from reconciler.cli import main as cli
from reconciler.control.outcome import CycleOutcome
from reconciler.control.teardown import teardown
from reconciler.domain.actions import RecordInstallation
from reconciler.domain.installation import RECORD, Installation, parse
from reconciler.domain.names import LEGACY, SharedName
from reconciler.domain.services import Record
from reconciler.domain.status import Condition
from reconciler.planning.guards import Overrides
from tests.harness.fakes import FakePlatform, Stage
from tests.harness.ports import free_port
from tests.harness.serving import Plant, plant


@pytest.fixture
def empty() -> Stage:
    """Two groups are mapped, nothing is made."""
    stage = Stage(FakePlatform(kept_records={}))
    stage.ksqldb.assets = {"a": "Weld", "b": "Paint"}
    return stage


def installation_of(stage: Stage) -> Installation | None:
    """Return what the record says."""
    return parse(stage.platform.kept_records.get(RECORD))


def ids(stage: Stage) -> set[str]:
    """Return the ids that objects carry: services, the current registry, shared streams."""
    newest = max(stage.platform.registries.values(), key=lambda one: one.sequence)
    found = {live.installation or LEGACY for live in stage.platform.services.values()}
    found.add(parse_registry(newest.data).installation or LEGACY)
    return found | {name.installation for one in stage.ksqldb.made if (name := SharedName.parse(one)) is not None}


def conditions(outcome: CycleOutcome) -> set[str]:
    """Return how groups are."""
    assert outcome.plan is not None
    return {item.condition for item in outcome.plan.items if item.group is not None}


def age(stage: Stage) -> None:
    """Make of a plant one that an earlier version made: no ids anywhere, and no record."""
    stage.platform.kept_records.clear()
    for name, live in stage.platform.services.items():
        assert live.spec is not None
        stage.platform.services[name] = replace(live, installation="", spec=replace(live.spec, installation=""))
    for name, live_registry in stage.platform.registries.items():
        data = re.sub(rb'"installation":"[0-9a-f]{8}",', b"", live_registry.data)
        assert data != live_registry.data
        stage.platform.registries[name] = replace(live_registry, data=data)
    (shared,) = (one for one in stage.ksqldb.made if SharedName.parse(one))
    old = re.sub("_[0-9A-F]{8}(_[0-9A-F]{8})_1$", r"\1", shared)
    stage.ksqldb.made = {
        name.replace(shared, old): (topic.replace(shared.lower(), old.lower()), _renamed(text, shared, old))
        for name, (topic, text) in stage.ksqldb.made.items()
    }


def _renamed(text: str, shared: str, old: str) -> str:
    return text.replace(shared, old).replace(shared.lower(), old.lower())


def test_the_id_is_written_down_before_anything_carries_it(empty: Stage) -> None:
    """One record first; then services, registry and streams all say the same."""
    calls: list[str] = []
    empty.platform.fault = empty.ksqldb.fault = calls.append
    controller = empty.controller()
    outcome = controller.cycle()
    writes = ("write_record", "execute", "create_service", "publish_registry")
    assert next(call for call in calls if call in writes) == "write_record"
    assert isinstance(outcome.results[0].action, RecordInstallation)
    empty.settle(controller)
    found = installation_of(empty)
    assert found is not None
    assert ids(empty) == {found.id}
    assert calls.count("write_record") == 1


def test_looking_writes_no_id(empty: Stage) -> None:
    """A plan before the first write works with an id of its own and leaves nothing behind."""
    controller = empty.controller()
    plan = controller.plan(*controller.observe())
    assert [action.verb for action in plan.actions][:2] == ["record_installation", "create_shared_stream"]
    assert (empty.platform.kept_records, empty.writes) == ({}, 0)


def test_where_nothing_is_to_be_made_no_id_is_either(empty: Stage) -> None:
    """An operator beside a map without groups leaves no trace."""
    empty.ksqldb.assets.clear()
    empty.controller().cycle()
    assert empty.platform.kept_records == {}


def test_nothing_is_written_while_the_id_cannot_be(empty: Stage) -> None:
    """What would carry an id that no one knows afterwards is not made; another's record is read at the next look."""
    first = empty.controller()
    first.observe()

    def fault(call: str) -> None:
        if call == "write_record":
            empty.platform.kept_records[RECORD] = Record(RECORD, 7, RECORD, {"id": "99999999"})

    empty.platform.fault = fault
    outcome = first.cycle()
    assert [result.outcome for result in outcome.results] == ["error", *["skipped"] * (len(outcome.results) - 1)]
    assert empty.writes == 0
    empty.platform.fault = lambda _call: None
    empty.settle(first)
    assert ids(empty) == {"99999999"}


def test_without_the_record_a_new_operator_refuses(empty: Stage) -> None:
    """It names the ids that it found and the way on, and writes nothing; with the id it goes on as before."""
    empty.settle(empty.controller())
    found = installation_of(empty)
    assert found is not None
    made = dict(empty.ksqldb.made), dict(empty.platform.services)
    empty.platform.kept_records.clear()
    writes = empty.writes
    outcome = empty.controller().cycle()
    assert outcome.plan is not None
    assert [refusal.guard for refusal in outcome.plan.refusals if refusal.stops] == ["installation"]
    assert f"--adopt {found.id}" in outcome.plan.refusals[0].text
    assert (empty.writes, empty.platform.kept_records) == (writes, {})

    wrong = empty.controller(Overrides(adopt="12345678")).cycle()
    assert wrong.plan is not None
    assert "nothing of that installation is here" in wrong.plan.refusals[0].text
    assert (empty.writes, empty.platform.kept_records) == (writes, {})

    empty.settle(empty.controller(Overrides(adopt=found.id)))
    assert (installation_of(empty), empty.writes) == (found, writes)
    assert (empty.ksqldb.made, empty.platform.services) == made


def test_an_operator_that_runs_writes_a_lost_record_again(empty: Stage) -> None:
    """It knows which installation it is."""
    controller = empty.controller()
    empty.settle(controller)
    before = installation_of(empty)
    empty.platform.kept_records.clear()
    empty.settle(controller)
    assert installation_of(empty) == before


def test_what_an_earlier_version_made_is_adopted_as_legacy(empty: Stage) -> None:
    """Refused first; then every service gets the label, every group moves to a stream with the id, and none stops."""
    empty.settle(empty.controller())
    age(empty)
    refused = empty.controller().cycle()
    assert refused.plan is not None
    assert "--adopt legacy" in refused.plan.refusals[0].text
    assert ids(empty) == {LEGACY}
    empty.ksqldb.statements.clear()
    empty.platform.calls.clear()
    empty.settle(empty.controller(Overrides(adopt=LEGACY)))
    found = installation_of(empty)
    assert found is not None
    assert (ids(empty), found.adopted) == ({found.id}, frozenset())
    assert empty.platform.calls["create_service"] == empty.platform.calls["remove_service"] == 0
    assert [one.verb for one in empty.ksqldb.statements] == ["create", *["drop", "create"] * 2, "drop"]


def test_two_installations_with_the_same_owner_leave_each_other_alone(empty: Stage) -> None:
    """On one ksqlDB, in two Swarms, with settings that differ: the second has conflicts, and its teardown is empty."""
    empty.settle(empty.controller())
    first = installation_of(empty)
    assert first is not None
    made = dict(empty.ksqldb.made)
    second = Stage(FakePlatform(kept_records={}), empty.ksqldb, {"shared_retention": 7200.0})
    controller = second.controller()
    outcome = second.run(controller, 30)
    assert conditions(outcome) == {Condition.CONFLICT}
    assert outcome.plan is not None
    details = [item.detail for item in outcome.plan.items if item.group is not None]
    assert all(f"belongs to installation {first.id}" in detail for detail in details)
    assert second.platform.services.keys() == {"ofa_state_api"}
    assert {name: one for name, one in empty.ksqldb.made.items() if name in made} == made
    empty.now = second.now
    statements = len(empty.ksqldb.statements)
    for _ in range(5):
        empty.settle(empty.controller())
    assert len(empty.ksqldb.statements) == statements
    assert all(result.outcome == "ok" for result in teardown(second.controller().deps))
    assert empty.ksqldb.made == made


def test_a_second_installation_that_made_nothing_tears_nothing_down(empty: Stage) -> None:
    """It has no record, and nothing that could be its own."""
    empty.settle(empty.controller())
    made = dict(empty.ksqldb.made)
    second = Stage(FakePlatform(kept_records={}), empty.ksqldb)
    assert list(teardown(second.controller().deps)) == []
    assert empty.ksqldb.made == made


def test_another_prefix_with_the_same_owner_in_the_same_swarm_writes_nothing(empty: Stage) -> None:
    """What it finds is of an installation that it has no record of: the loop, overrides and a teardown are refused."""
    empty.settle(empty.controller())
    there = empty.platform
    before = dict(there.services), dict(there.registries), dict(there.kept_records), dict(empty.ksqldb.made)
    beside = FakePlatform(prefix="two", services=there.services, registries=there.registries, kept_records={})
    second = Stage(beside, empty.ksqldb, {"resource_prefix": "two", "shared_retention": 7200.0})
    for overrides in (None, Overrides(allow_empty=True, accept_identity=True, approve="12345678")):
        outcome = second.controller(overrides).cycle()
        assert outcome.plan is not None
        assert [refusal.guard for refusal in outcome.plan.refusals if refusal.stops] == ["installation"]
    with pytest.raises(GuardRefusal, match="no record says which installation"):
        list(teardown(second.controller().deps))
    assert (there.services, there.registries, there.kept_records, empty.ksqldb.made) == before
    assert beside.kept_records == {}


def test_a_service_of_another_installation_is_left_alone(empty: Stage) -> None:
    """The same owner's label, another id: a conflict for its group, and no removal."""
    empty.settle(empty.controller())
    name = "ofa_group_weld"
    live = empty.platform.services[name]
    assert live.spec is not None
    theirs = replace(live, installation="99999999", spec=replace(live.spec, installation="99999999"))
    empty.platform.services[name] = theirs
    controller = empty.controller()
    empty.ksqldb.assets.pop("a")
    outcome = empty.run(controller, 30)
    assert outcome.plan is not None
    assert empty.platform.services[name] == theirs
    empty.ksqldb.assets["a"] = "Weld"
    outcome = controller.cycle()
    assert outcome.plan is not None
    (item,) = (one for one in outcome.plan.items if one.group == "Weld")
    assert "owner ofa, installation 99999999" in item.detail
    results = list(teardown(controller.deps))
    assert f"service {live.name}" not in {result.action.key for result in results}


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Plant]:
    """A plant of two groups that the command finds by its settings."""
    monkeypatch.chdir(tmp_path)
    with plant(2) as made:
        monkeypatch.setitem(app._PLATFORMS, "memory", lambda *_: made.platform)
        for name, value in {
            "DEPLOYMENT_PLATFORM": "memory",
            "KAFKA_BROKER": "k:9092",
            "KSQLDB_URL": made.ksqldb.url,
            "LEASE_SECONDS": "3",
            "RECONCILER_PORT": str(free_port()),
        }.items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.mark.parametrize("command", [["--once"], ["teardown", "--yes"], ["teardown", "--yes", "--keep-streams"]])
def test_a_command_without_the_record_ends_with_4(
    command_line: Plant, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It says which ids it found; a typing error in the id is a usage error, a wrong one is refused as well."""
    identity = command_line.platform.kept_records.pop(RECORD).fields["id"]
    before = dict(command_line.platform.services), command_line.ksqldb.streams
    assert cli.main(command) == 4
    assert f"--adopt {identity}" in capsys.readouterr().err
    assert cli.main([*command, "--adopt", "12345678"]) == 4
    assert cli.main([*command, "--adopt", "xyz"]) == 2
    assert "--adopt xyz" in capsys.readouterr().err
    assert (command_line.platform.services, command_line.ksqldb.streams) == before
    assert cli.main([*command, "--adopt", identity]) == 0


def test_a_teardown_leaves_what_others_read_and_ends_with_5(
    command_line: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so, keeps the registry and the id, and can be run again when the reader has gone."""
    (shared,) = (one for one in command_line.ksqldb.streams if SharedName.parse(one))
    command_line.ksqldb.sql(f"CREATE STREAM MINE AS SELECT * FROM {shared} EMIT CHANGES;")
    assert cli.main(["teardown", "--yes"]) == 5
    assert f"kept stream {shared}: stream {shared} is read by MINE" in capsys.readouterr().out
    assert command_line.ksqldb.streams == {"ENRICHED_ASSETS_STREAM", "MINE", shared}
    assert command_line.platform.kept_records.keys() == {RECORD}
    assert command_line.platform.registries
    query = next(one.id for one in command_line.client().queries() if "MINE" in one.sinks)
    command_line.ksqldb.sql(f"TERMINATE {query};", "DROP STREAM MINE;")
    assert cli.main(["teardown", "--yes"]) == 0
    assert command_line.ksqldb.streams == {"ENRICHED_ASSETS_STREAM"}
    assert (command_line.platform.kept_records, command_line.platform.registries) == ({}, {})


def test_a_topic_that_another_stream_is_over_is_kept(command_line: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """With DELETE_TOPICS too: the stream goes, what a person declared over its topic goes on."""
    monkeypatch.setenv("DELETE_TOPICS", "true")
    command_line.ksqldb.sql("CREATE STREAM MINE (v VARCHAR) WITH (KAFKA_TOPIC='asset_stream_g0', VALUE_FORMAT='JSON');")
    assert cli.main(["teardown", "--yes"]) == 0
    assert command_line.ksqldb.streams == {"ENRICHED_ASSETS_STREAM", "MINE"}
    assert {"asset_stream_g0", "asset_stream_g1"} & command_line.ksqldb.topics == {"asset_stream_g0"}


def test_an_insert_of_others_into_a_stream_of_ours_is_named_and_left(command_line: Plant) -> None:
    """Neither it nor the stream is touched; that the stream's own query ended is seen all the same."""
    command_line.ksqldb.sql("INSERT INTO ASSET_STREAM_G1 SELECT * FROM ASSET_STREAM_G0 EMIT CHANGES;")
    operator = command_line.operator()
    (outcome,) = command_line.run(operator)
    assert outcome.plan is not None
    (note,) = outcome.plan.notes
    assert "INSERTQUERY" in note
    assert "ASSET_STREAM_G1" in note
    assert cli.main(["teardown", "--yes"]) == 5
    assert {"ASSET_STREAM_G0", "ASSET_STREAM_G1"} <= command_line.ksqldb.streams
