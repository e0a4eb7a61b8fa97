"""groups.toml in the loop: what it says is deployed, an edit is applied, a mistake in it changes nothing."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from openfactory_common.errors import ConfigurationError, PlatformRefused
from reconciler.control.controller import Controller
from reconciler.control.outcome import CycleOutcome
from reconciler.domain.actions import RemoveService
from reconciler.domain.names import names_of
from reconciler.domain.services import LiveService, ServiceSpec
from reconciler.domain.status import Condition, CycleResult, Guard, ObjectStatus
from reconciler.report.why import explain_group, make_context, why_text
from tests.harness.fakes import FakeKsqldb, Stage

WELD = '[groups."Weld"]\nmemory_limit = "2g"\nconstraints = ["node.labels.gpu==true"]\n'


def make_stage(path: Path, text: str) -> Stage:
    """Return an operator with this file and two groups."""
    path.write_text(text)
    return Stage(ksqldb=FakeKsqldb(assets={"a": "Weld", "b": "Paint"}), options={"groups_file": path})


def spec_of(stage: Stage, group: str) -> ServiceSpec:
    """Return the service of a group as it is live."""
    spec = stage.platform.services[f"ofa_group_{group.lower()}"].spec
    assert spec is not None
    return spec


def item_of(outcome: CycleOutcome, group: str) -> ObjectStatus:
    """Return the status of a group."""
    assert outcome.plan is not None
    [item] = [one for one in outcome.plan.items if one.group == group]
    return item


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "groups.toml"


def test_what_the_file_says_is_deployed_and_an_edit_is_applied(path: Path) -> None:
    """To the group alone; a second look finds nothing to do, and without its table it has what all have."""
    stage = make_stage(path, WELD)
    controller = stage.controller()
    stage.settle(controller)
    assert (spec_of(stage, "Weld").memory_limit, spec_of(stage, "Weld").constraints) == (
        1 << 31,
        ("node.labels.gpu==true",),
    )
    before = spec_of(stage, "Paint")
    path.write_text(WELD.replace("2g", "3g"))
    [outcome] = [controller.cycle()]
    assert item_of(outcome, "Weld").detail == ("update service: memory_limit 2g -> 3g (GROUPS_FILE line 2, group Weld)")
    stage.settle(controller)
    assert spec_of(stage, "Weld").memory_limit == 3 << 30
    path.write_text("")
    stage.settle(controller)
    assert spec_of(stage, "Weld") == replace(spec_of(stage, "Weld"), memory_limit=0, constraints=())
    assert spec_of(stage, "Paint") == before


def test_a_foreign_service_that_fits_a_pattern_is_left_alone(path: Path) -> None:
    """The file says what groups of ours have, not whose a service is."""
    stage = make_stage(path, '[patterns."*"]\nmemory_limit = "2g"\n')
    stage.settle(stage.controller())
    foreign = replace(stage.platform.services["ofa_group_weld"], name="theirs", owner="others")
    stage.platform.services["theirs"] = foreign
    stage.settle(stage.controller())
    assert stage.platform.services["theirs"] == foreign
    assert spec_of(stage, "Paint").memory_limit == 1 << 31


def test_a_mistake_changes_nothing_and_is_said_until_it_is_corrected(path: Path) -> None:
    """What the file said before stays in force; one line in the log, and a refusal in every plan."""
    stage = make_stage(path, WELD)
    controller = stage.controller()
    stage.settle(controller)
    path.write_text(WELD.replace("memory_limit", "memroy_limit"))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with capture_logs() as lines:
        outcomes = [controller.cycle() for _ in range(3)]
    assert [line["event"] for line in lines if line["event"].startswith("groups file")] == ["groups file is wrong"]
    for outcome in outcomes:
        assert outcome.plan is not None
        [refusal] = outcome.plan.refusals
        assert refusal.guard is Guard.OPTIONS
        assert refusal.text.startswith('GROUPS_FILE line 2: [groups."Weld"] memroy_limit: unknown key')
        assert (outcome.result, outcome.plan.actions) == (CycleResult.REFUSED, ())
    stage.ksqldb.assets["c"] = "New"
    stage.run(controller, 8)
    assert "ofa_group_new" in stage.platform.services, "the rest goes on"
    path.unlink()
    assert "No such file" in str(controller.cycle().plan)
    path.write_text(WELD)
    stage.settle(controller)
    assert spec_of(stage, "Weld").memory_limit == 1 << 31
    assert controller.cycle().result is CycleResult.IN_SYNC


@pytest.mark.parametrize("line", ["replicas = " + "9" * 5000, "a." * 1200 + "a = 1", "memory_limit = '\x00"])
def test_whatever_the_file_holds_the_cycles_go_on(path: Path, line: str) -> None:
    """Also what is beyond the limits of Python: a number of thousands of digits, a key of as many parts."""
    stage = make_stage(path, WELD)
    controller = stage.controller()
    stage.settle(controller)
    path.write_text(f"{WELD}{line}\n")
    assert controller.cycle().result is CycleResult.REFUSED
    stage.ksqldb.assets["c"] = "New"
    stage.run(controller, 8)
    assert "ofa_group_new" in stage.platform.services
    assert spec_of(stage, "Weld").memory_limit == 1 << 31


@pytest.mark.parametrize("text", ["[groups", "[groups.A]\nx = 1\n", None])
def test_a_mistake_at_the_start_is_an_error_of_configuration(path: Path, text: str | None) -> None:
    """There is nothing that could stay in force."""
    stage = make_stage(path, text or "")
    if text is None:
        path.unlink()
    with pytest.raises(ConfigurationError, match="GROUPS_FILE"):
        stage.controller()


def lose(stage: Stage, controller: Controller, asset: str) -> CycleOutcome:
    """Take an asset out of the map, for longer than any removal takes."""
    stage.run(controller, 2)
    del stage.ksqldb.assets[asset]
    return stage.run(controller, 60)


def test_a_group_that_is_to_be_kept_is_never_removed(path: Path) -> None:
    """Without assets it stays as it is and served, held with the reason, and what others lose is removed as ever."""
    stage = make_stage(path, '[groups."Weld"]\nkeep = true\n')
    stage.ksqldb.assets["c"] = "Gone"
    controller = stage.controller()
    stage.settle(controller)
    stage.run(controller, 2)
    del stage.ksqldb.assets["c"]
    outcome = lose(stage, controller, "a")  # two of three at once: one that is kept does not count
    item = item_of(outcome, "Weld")
    assert (item.condition, item.detail) == (
        Condition.HELD,
        "no assets; kept by GROUPS_FILE line 2, group Weld",
    )
    assert item.url is not None
    assert sorted(stage.platform.services) == [
        "ofa_group_paint",
        "ofa_group_weld",
        "ofa_routing_layer",
        "ofa_state_api",
    ]
    assert outcome.result is CycleResult.IN_SYNC
    path.write_text("")
    stage.run(controller, 40)
    assert "ofa_group_weld" not in stage.platform.services
    assert not any(isinstance(one, RemoveService) for one in controller.cycle().plan.actions)  # type: ignore[union-attr]  # a plan exists


def test_groups_that_are_paused_in_the_file_are_planned_as_held(path: Path) -> None:
    """With the line of the file as the reason."""
    stage = make_stage(path, '[patterns."W*"]\npaused = true\n')
    controller = stage.controller()
    survey, verdict = controller.observe()
    seen = []
    ask = controller._observer.ask_before_creating
    controller._observer.ask_before_creating = lambda deps, actions, inputs: (  # type: ignore[method-assign]
        seen.append(inputs.held) or ask(deps, actions, inputs)
    )
    controller.plan(survey, verdict)
    assert seen == [{"Weld": "paused in GROUPS_FILE line 2, pattern W*"}]


def test_plan_and_why_say_where_a_value_is_from(path: Path) -> None:
    """And name a table for which there is no group."""
    stage = make_stage(path, f'{WELD}[groups."Wled"]\nkeep = true\n')
    controller = stage.controller()
    stage.settle(controller)
    outcome = controller.cycle()
    assert outcome.plan is not None
    assert outcome.survey is not None
    assert outcome.plan.notes == ("GROUPS_FILE line 4: there is no group for group Wled; did you mean Weld?",)
    context = make_context(controller, outcome.survey, outcome.plan, stage.wall)
    document = explain_group("Weld", context, "test")
    assert document is not None
    assert "option    memory_limit = 2g (GROUPS_FILE line 2, group Weld)" in why_text(document)
    assert "memory_limit" not in why_text(explain_group("Paint", context, "test"))  # type: ignore[arg-type]  # it exists


@pytest.mark.parametrize("bad", ["Aaa", "Ccc"])
def test_an_option_that_is_refused_holds_up_no_other_group(tmp_path: Path, bad: str) -> None:
    """A constraint that no node fulfils: the image of all changes, and the others get it, whatever their names."""
    path = tmp_path / "groups.toml"
    path.write_text("")
    stage = Stage(
        ksqldb=FakeKsqldb(assets={name: name for name in ("Aaa", "Bbb", "Ccc")}), options={"groups_file": path}
    )
    stage.settle(stage.controller())
    update = stage.platform.update_service

    def refuse(live: LiveService, spec: ServiceSpec, *more: str) -> None:
        if spec.constraints:
            raise PlatformRefused("none of the 1 nodes that may have tasks fulfils node.labels.gpu==tru")
        update(live, spec, *more)

    stage.platform.update_service = refuse  # type: ignore[method-assign]
    path.write_text(f'[groups."{bad}"]\nconstraints = ["node.labels.gpu==tru"]\n')
    stage.options["fastapi_group_image"] = "new:2"
    controller = stage.controller()
    for _ in range(60):
        outcome = controller.cycle()
        stage.now += 10
        stage.wall += timedelta(seconds=10)
    lives = [stage.platform.services[names_of(name).service.casefold()] for name in ("Aaa", "Bbb", "Ccc")]
    updated = {live.spec.group for live in lives if live.spec is not None and live.spec.image == "new:2"}
    assert updated == {"Aaa", "Bbb", "Ccc"} - {bad}
    assert outcome.plan is not None
    (item,) = (one for one in outcome.plan.items if one.group == bad)
    assert (item.condition, "node.labels.gpu==tru" in item.detail) == (Condition.DEGRADED, True)
