"""What docs/operations.md says about changed names: prefix, owner, level."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.cli.show import choose_exit
from reconciler.control.converge import Exit
from reconciler.control.teardown import teardown
from reconciler.domain.status import Condition, Plan
from reconciler.planning.survey import Survey
from reconciler.report.text import plan_text, status_text
from tests.harness.fakes import FakeKsqldb, Stage

STREAMS = {"ASSET_STREAM_WELD", "ASSET_STREAM_PAINT"}


@pytest.fixture
def stage() -> Stage:
    """Two groups, settled under the default names."""
    made = Stage(ksqldb=FakeKsqldb(assets={"a": "Weld", "b": "Paint"}))
    made.ksqldb.levels = {"area": {"a": "North", "b": "South"}}
    made.settle(made.controller())
    return made


def test_a_new_prefix_after_a_teardown_touches_no_stream(stage: Stage) -> None:
    """`teardown --keep-streams`, then another RESOURCE_PREFIX: other services, no statement to ksqlDB."""
    before = len(stage.ksqldb.statements)
    assert all(result.error is None for result in teardown(stage.controller().deps, keep_streams=True))
    assert (stage.platform.services, stage.platform.registries) == ({}, {})
    stage.options["resource_prefix"] = stage.platform.prefix = "new"
    stage.settle(stage.controller())
    assert {name.partition("_")[0] for name in stage.platform.services} == {"new"}
    assert len(stage.ksqldb.statements) == before


def renamed(stage: Stage, prefix: str = "new") -> tuple[Plan, Survey]:
    """Change the prefix and nothing else, until there is nothing to do; return what is said then."""
    stage.options["resource_prefix"] = stage.platform.prefix = prefix
    controller = stage.controller()
    stage.settle(controller)
    outcome = controller.cycle()
    assert outcome.plan is not None
    assert outcome.survey is not None
    return outcome.plan, outcome.survey


def test_a_new_prefix_alone_leaves_the_old_services_where_they_are(stage: Stage) -> None:
    """Beside each old service a new one is made; nothing is removed that a client may still use."""
    before = set(stage.platform.services)
    plan, _ = renamed(stage)
    names = {name.partition("_")[2] for name in before}
    assert set(stage.platform.services) == {f"{prefix}_{name}" for prefix in ("ofa", "new") for name in names}
    assert (plan.actions, plan.in_sync, choose_exit(plan)) == ((), True, Exit.OK)


def test_services_of_another_prefix_are_named(stage: Stage) -> None:
    """`plan` and `status` say what is left alone, which changes nothing else of them."""
    plan, survey = renamed(stage)
    note = (
        "4 services carry our label under a name that is not ours (a copy, or another RESOURCE_PREFIX) and are left "
        "alone: ofa_group_Paint, ofa_group_Weld, ofa_routing_layer, ofa_state_api; docs/operations.md says how "
        "to remove them"
    )
    assert plan_text(plan).splitlines()[-2:] == [f"note      {note}", "Plan: nothing to do, in sync."]
    assert note in status_text(plan, survey).splitlines()
    for name in ("ofa_group_weld", "ofa_group_paint", "ofa_routing_layer"):
        del stage.platform.services[name]
    (note,) = renamed(stage)[0].notes
    assert note == (
        "1 service carries our label under a name that is not ours (a copy, or another RESOURCE_PREFIX) and is left "
        "alone: ofa_state_api; docs/operations.md says how to remove it"
    )
    del stage.platform.services["ofa_state_api"]
    assert renamed(stage)[0].notes == ()


def test_many_of_them_are_counted(stage: Stage) -> None:
    """Five names are enough to know which prefix it was."""
    stage.ksqldb.assets |= {f"c{number}": f"g{number}" for number in range(4)}
    stage.settle(stage.controller())
    (note,) = renamed(stage)[0].notes
    assert "8 services carry" in note
    assert ": ofa_group_Paint, ofa_group_Weld, ofa_group_g0, ofa_group_g1, ofa_group_g2 and 3 more;" in note


def test_a_prefix_that_begins_with_the_present_one_is_another(stage: Stage) -> None:
    """`ofa_old_group_Weld` is not a name of today's prefix `ofa`, nor does anybody else's service count."""
    renamed(stage, "ofa_old")
    stranger = replace(stage.platform.services["ofa_old_state_api"], name="ofa_x", id="x", owner=None)
    stage.platform.services["ofa_x"] = stranger
    (note,) = renamed(stage, "ofa")[0].notes
    assert "4 services carry" in note
    assert "ofa_old_group_Weld" in note


def services(survey: Survey) -> dict[str, str]:
    """Return which service each group has."""
    return {group: owned.service.name for group, owned in survey.owned.items() if owned.service}


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_groups_service_is_the_one_of_todays_prefix(stage: Stage, newest_first: bool) -> None:
    """In whatever order the platform lists the two; one of another prefix is no service of the group."""
    stage.options["resource_prefix"] = stage.platform.prefix = "new"
    seen, _ = stage.controller().observe()
    assert services(seen) == {}
    renamed(stage)
    stage.platform.services = dict(sorted(stage.platform.services.items(), reverse=newest_first))
    assert services(renamed(stage)[1]) == {"Weld": "new_group_Weld", "Paint": "new_group_Paint"}


def removals(stage: Stage) -> list[str]:
    """Let the group Paint have no assets until nothing more is done about it; return what was done."""
    del stage.ksqldb.assets["b"]
    controller, done = stage.controller(), []
    for _ in range(60):
        outcome = controller.cycle()
        done += [result.action.key for result in outcome.results if result.action.group == "Paint"]
        stage.now += 10
    assert outcome.plan is not None
    assert outcome.plan.in_sync
    return done


def test_a_group_without_assets_goes_under_todays_prefix_alone(stage: Stage) -> None:
    """Its service and its stream; what another prefix made stays, and the note goes on naming it."""
    renamed(stage)
    assert removals(stage) == ["service new_group_Paint", "stream ASSET_STREAM_PAINT"]
    assert "ofa_group_paint" in stage.platform.services
    assert "4 services carry" in renamed(stage)[0].notes[0]


COPIES = ("ofa_group_copy", "ofa_copy", "copy", "ofa_group_weld_old", "old_group_paint", "ofa_state_api2")


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("of", ["ofa_group_paint", "ofa_state_api", "ofa_routing_layer"])
def test_a_copy_of_a_service_is_named_and_never_touched(stage: Stage, name: str, of: str) -> None:
    """With all labels and whatever name: it stays when its group goes, when all is torn down, and as it is."""
    copy = replace(stage.platform.services[of], id="copy", name=name)
    assert copy.spec is not None
    stage.platform.services[name] = replace(copy, spec=replace(copy.spec, name=name, image="mine:1"))
    kept = stage.platform.services[name]
    plan, _ = renamed(stage, "ofa")
    assert (plan.actions, plan.in_sync) == ((), True)
    assert [note for note in plan.notes if name in note] == list(plan.notes) != []
    assert removals(stage) == ["service ofa_group_Paint", "stream ASSET_STREAM_PAINT"]
    failed = [result.action.key for result in teardown(stage.controller().deps) if result.error]
    assert all(key.startswith("config ") for key in failed)  # which the copy of a routing layer mounts
    assert stage.platform.services == {name: kept}


def test_a_service_that_cannot_be_read_is_not_torn_down(stage: Stage) -> None:
    """Our owner's label on a service of another mode, or without a kind, does not make it ours."""
    stage.platform.services["ofa_group_x"] = replace(
        stage.platform.services["ofa_group_weld"], id="x", name="ofa_group_x", spec=None
    )
    plan, _ = renamed(stage, "ofa")
    assert "ofa_group_x" in plan.notes[0]
    list(teardown(stage.controller().deps))
    assert set(stage.platform.services) == {"ofa_group_x"}


def test_a_copy_of_a_registry_document_is_not_removed(stage: Stage) -> None:
    """Neither as an old one nor by a teardown: it has our labels, and a name that we do not give."""
    live = next(iter(stage.platform.registries.values()))
    copy = replace(live, id="mine_registry-0", name="mine_registry-0", sequence=0)
    stage.platform.registries[copy.name] = copy
    controller = stage.controller()
    for number in range(8):
        stage.ksqldb.assets[f"n{number}"] = f"n{number}"
        stage.settle(controller)
    list(teardown(controller.deps))
    assert set(stage.platform.registries) == {copy.name}


def test_another_owner_touches_nothing(stage: Stage) -> None:
    """Everything that is there is a conflict."""
    services, streams = dict(stage.platform.services), dict(stage.ksqldb.made)
    stage.options["reconciler_owner"] = stage.platform.owner = "other"
    controller = stage.controller()
    for _ in range(10):
        plan = controller.cycle().plan
        stage.now += 10
    assert plan is not None
    assert {item.condition for item in plan.items} == {Condition.CONFLICT}
    assert dict(stage.platform.services) == services
    assert streams.items() <= stage.ksqldb.made.items()


def test_another_level_waits_for_a_persons_word_before_the_old_groups_go(stage: Stage) -> None:
    """The groups of the new level are served while those of the old one stay, held by the budget."""
    stage.options["uns_fastapi_group_grouping_level"] = "area"
    controller = stage.controller()
    for _ in range(30):
        plan = controller.cycle().plan
        stage.now += 10
    assert plan is not None
    assert {refusal.guard for refusal in plan.refusals} == {"budget"}
    assert stage.ksqldb.made.keys() >= STREAMS | {"ASSET_STREAM_NORTH", "ASSET_STREAM_SOUTH"}
