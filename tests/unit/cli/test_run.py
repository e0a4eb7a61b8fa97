"""Messages of commands: what they wait for, approvals without effect, a misspelt level, unknown variables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openfactory_common.errors import KsqlUnreachable, KsqlWrongShape, PlatformRefused
from openfactory_common.ksqldb.failures import error_of
from reconciler.cli import main as cli
from reconciler.cli import run, show
from reconciler.cli.output import ProgressLines
from reconciler.control.controller import Clocks, Controller
from reconciler.control.converge import Exit, converge
from reconciler.control.outcome import explain_error
from reconciler.domain.status import Condition
from reconciler.planning.guards import Overrides
from reconciler.report.text import plan_text
from tests.harness.fakes import Stage
from tests.harness.serving import plant


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> Stage:
    """Four groups, settled; the commands work on them, and no operator answers.

    Time passes by their sleeping alone: how many cycles there are does not depend on how busy the machine is.
    """
    del tmp_path
    made = Stage()
    made.ksqldb.assets = {f"a{n}": f"g{n}" for n in range(4)}
    made.settle(made.controller())
    for name, value in (("KAFKA_BROKER", "k:9092"), ("KSQLDB_URL", "http://127.0.0.1:1"), ("RECONCILER_PORT", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(show, "build_dependencies", lambda *_: made.controller().deps)
    monkeypatch.setattr(run, "build_dependencies", lambda *_: made.controller().deps)
    monkeypatch.setattr(run, "build_platform", lambda *_: made.platform)

    def sleep(seconds: float) -> None:
        made.now += seconds

    def timed(controller: Controller, timeout: float, **options: Any) -> object:
        controller.clocks = Clocks(monotonic=lambda: made.now, wall=lambda: made.wall)
        return converge(controller, timeout, sleep=sleep, **options)

    monkeypatch.setattr(run, "converge", timed)
    return made


def test_once_reports_what_it_waits_for_when_that_changes(stage: Stage) -> None:
    """The objects with their reasons; a count that goes on is no change, the next reason is."""
    said: list[str] = []
    changes = ProgressLines(said.append)
    stage.platform.healthy = lambda name: name != "ofa_group_g1"
    controller = stage.controller()
    del stage.ksqldb.assets["a3"]
    for _ in range(4):
        changes.show(controller.cycle())
        stage.now += 5
    (one,) = said
    assert "group g1: 0 of 1 tasks are running and healthy" in one
    assert "group g3: missing 1/3 reads" in one
    stage.platform.services["ofa_group_g1"] = replace(stage.platform.services["ofa_group_g1"], error="no such image")
    changes.show(controller.cycle())
    assert "group g1: no such image" in said[1]
    stage.ksqldb.fault = lambda _: (_ for _ in ()).throw(KsqlUnreachable("gone"))
    changes.show(controller.cycle())
    assert said[2].startswith("waiting: nothing changed, a read failed: gone")


def test_a_failed_once_names_its_reasons(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """The last error of each object whose write failed, also of what belongs to no group."""
    stage.ksqldb.made.clear()

    def refuse(call: str) -> None:
        if call == "execute":
            raise PlatformRefused("partition counts differ")

    stage.ksqldb.fault = refuse
    assert cli.main(["--once", "--timeout", "0.1"]) == Exit.NOT_CONVERGED
    said = capsys.readouterr().err
    assert "reconciler: stream OFA_ASSETS_WITH_UNS_" in said
    assert "failed 1 times, last: partition counts differ" in said


@pytest.mark.parametrize(
    ("gone", "given", "said"),
    [
        ((), "0" * 8, "--approve 00000000 had no effect: no removal is pending"),
        (("a1", "a2"), "0" * 8, "--approve 00000000 had no effect: the pending removals have the id "),
    ],
)
def test_an_approval_without_effect_is_reported(
    stage: Stage, capsys: pytest.CaptureFixture[str], gone: tuple[str, ...], given: str, said: str
) -> None:
    """The message names the id of the pending removals."""
    for asset in gone:
        del stage.ksqldb.assets[asset]
    cli.main(["--once", "--timeout", "0.1", "--approve", given])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("given", ["yes", "1234567", "1a2b3c4g", "1A2B3C4D"])
def test_an_approval_without_the_form_of_an_id_is_a_usage_error(
    stage: Stage, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    """Before anything is read or written."""
    before = stage.platform.calls.total()
    assert cli.main(["--once", "--approve", given]) == Exit.USAGE
    assert "is not an id of removals" in capsys.readouterr().err
    assert stage.platform.calls.total() == before


def test_misspelt_variables_are_named(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By `plan` as a note, and by `--once` at its start."""
    monkeypatch.setenv("PRUNE_GRACEE", "1")
    assert cli.main(["plan"]) == 0
    assert "note      unknown variable PRUNE_GRACEE (environment): did you mean PRUNE_GRACE?" in (
        capsys.readouterr().out
    )
    assert cli.main(["--once"]) == 0
    assert "reconciler: unknown variable PRUNE_GRACEE" in capsys.readouterr().err
    assert stage.ksqldb.assets


def test_a_plan_on_an_empty_system_lists_the_routing_layer() -> None:
    """It is announced before there is a registry that it could mount, and made once there is one."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "Weld"}
    controller = stage.controller()
    plan = controller.plan(*controller.observe())
    assert "+ service ofa_routing_layer" in plan_text(plan)
    assert any("routing_layer" in item.title and item.condition is Condition.HELD for item in plan.items)
    stage.settle(controller)
    assert "ofa_routing_layer" in stage.platform.services
    empty = Stage().controller()
    assert "routing_layer" not in plan_text(empty.plan(*empty.observe()))


def test_a_misspelt_level_names_those_that_there_are() -> None:
    """Over a real socket: no group, the levels of the assets, the variable, and nothing that overrides it."""
    with plant(2) as made:
        before = made.writes
        made.options = {"uns_fastapi_group_grouping_level": "work_center"}
        for overrides in (Overrides(), Overrides(allow_empty=True)):
            code, outcome = converge(made.operator(overrides=overrides), 0.1, sleep=lambda _: None)
            assert code is Exit.REFUSED
            assert outcome.plan is not None
            (refusal,) = outcome.plan.refusals
            assert refusal.text == (
                "no asset has level 'work_center'; levels seen: workcenter (UNS_FASTAPI_GROUP_GROUPING_LEVEL): "
                "nothing is changed"
            )
            assert (refusal.guard, refusal.stops, outcome.plan.approval) == ("level", True, "")
            assert "--" not in plan_text(outcome.plan).replace("-->", "")
        assert made.writes == before


def test_an_empty_map_says_what_it_is() -> None:
    """No asset at all: the option that accepts it is named, and what it is for."""
    stage = Stage()
    controller = stage.controller()
    text = plan_text(controller.plan(*controller.observe()))
    assert "the UNS map names no group (0 assets: it is empty, or not loaded yet)" in text
    assert "--once --allow-empty" in text


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, b"<html>not found</html>", "text/html"),
        (405, b"", ""),
        (301, b"", "text/html"),
        (400, b"<html>Bad Request</html>", "text/html"),
    ],
)
def test_a_server_that_is_not_ksqldb_names_the_variable(status: int, body: bytes, kind: str) -> None:
    """Whatever another server answers; ksqlDB's own errors are left as they are."""
    settings = Stage().settings
    said = explain_error(error_of(status, body, kind), settings)
    assert said.endswith("(KSQLDB_URL is http://k:8088: does ksqlDB answer there?)")
    assert "does ksqlDB answer there" in explain_error(KsqlWrongShape("not JSON", status=200), settings)
    own = error_of(400, b'{"error_code": 40001, "message": "line 1:1: no"}')
    assert "KSQLDB_URL" not in explain_error(own, settings)
