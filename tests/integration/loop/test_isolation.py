"""An unexpected exception concerns one object: it is logged, counted, and waits; the rest goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
import structlog
from structlog.testing import capture_logs

from openfactory_common.errors import KsqlBadStatement, PlatformRefused
from reconciler.control.controller import Controller
from reconciler.control.converge import Exit, converge
from reconciler.control.flow import FlowWatch
from reconciler.domain.actions import WriteResult
from reconciler.domain.services import ServiceSpec
from reconciler.domain.status import Condition, Part, Reason
from reconciler.ksqldb.entities import Statement
from tests.harness.fakes import Stage, unreachable

GROUPS = {"A1": "Aaa", "P1": "Paint", "W1": "Weld"}
EXCEPTIONS = (RuntimeError("boom"), KeyError("boom"), MemoryError(), RecursionError(), OSError("disk full"))


@pytest.fixture(autouse=True)
def _log_warnings(_quiet_logs: None) -> None:
    """Let warnings be captured; a line that no one captures is dropped before its traceback is rendered."""

    def drop(*_: object) -> str:
        raise structlog.DropEvent

    warnings = structlog.make_filtering_bound_logger(logging.WARNING)
    structlog.configure(wrapper_class=warnings, processors=[drop])


@pytest.fixture
def stage() -> Stage:
    """Three groups are mapped, nothing exists."""
    stage = Stage()
    stage.ksqldb.assets = dict(GROUPS)
    return stage


def counted(controller: Controller, part: Part) -> float:
    """How many unexpected exceptions of this part were counted."""
    return controller.reporter.metrics.bugs.labels(part)._value.get()


def services(stage: Stage) -> set[str]:
    """Group services that exist."""
    return {live.spec.group for live in stage.platform.services.values() if live.spec and live.spec.group}


@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_a_service_that_cannot_be_created(stage: Stage, error: Exception) -> None:
    """One group's write fails in an unforeseen way: the others are made, and it is tried again, ever more rarely."""
    create, tried = stage.platform.create_service, []

    def broken(spec: ServiceSpec) -> None:
        if spec.group == "Aaa":
            tried.append(stage.now)
            raise error
        create(spec)

    stage.platform.create_service = broken  # type: ignore[method-assign]
    controller = stage.controller()
    with capture_logs() as logged:
        outcome = controller.cycle()
    assert services(stage) == {"Paint", "Weld"}
    assert outcome.result == "bug"
    assert [one.outcome for one in outcome.results if one.action.key == "service ofa_group_Aaa"] == [WriteResult.BUG]
    assert sum(one.outcome is WriteResult.OK for one in outcome.results) > 5
    (line,) = (line for line in logged if line["event"] == "bug")
    assert (line["object"], line["exc_info"]) == ("service ofa_group_Aaa", error)
    stage.run(controller, 60)
    assert 4 <= len(tried) <= 8
    (item,) = (item for item in controller.cycle().plan.items if item.group == "Aaa")  # type: ignore[union-attr]
    assert (item.condition, item.reason) == (Condition.DEGRADED, Reason.WRITE_FAILED)
    assert type(error).__name__ in item.detail
    assert counted(controller, Part.WRITE) == len(tried)
    stage.platform.create_service = create  # type: ignore[method-assign]
    stage.now += 300
    stage.run(controller, 3)
    assert controller.cycle().result == "in_sync"


def test_a_statement_that_ends_in_an_unexpected_exception_is_of_unknown_outcome(stage: Stage) -> None:
    """It may be executed late: it is not sent again within a minute, and the other groups get their streams."""
    execute, sent = stage.ksqldb.execute, []

    def broken(statement: Statement) -> object:
        if "ASSET_STREAM_AAA" in statement.sql:
            sent.append(stage.now)
            raise KeyError("commandStatus")
        return execute(statement)

    stage.ksqldb.execute = broken  # type: ignore[method-assign]
    controller = stage.controller()
    stage.run(controller, 13)
    assert {"ASSET_STREAM_PAINT", "ASSET_STREAM_WELD"} <= stage.ksqldb.made.keys()
    assert sent[1] - sent[0] >= 60
    assert services(stage) == {"Paint", "Weld"}


def _raises(*_: object, **__: object) -> None:
    raise RuntimeError("boom")


def _break(owner: object, name: str) -> None:
    """Let a call of an object raise; a name that it does not have is a mistake of this test."""
    assert callable(getattr(owner, name))
    setattr(owner, name, _raises)


REPORTS: list[tuple[str, Callable[[Controller], None]]] = [
    ("on_registry", lambda controller: _break(controller.reporter, "on_registry")),
    ("on_step", lambda controller: _break(controller, "on_step")),
    ("metrics of the plan", lambda controller: _break(controller.reporter.metrics, "record_survey")),
    ("metrics of a write", lambda controller: _break(controller.reporter.metrics, "applied")),
    ("metrics of the registry", lambda controller: _break(controller.reporter.metrics, "registry")),
    ("metrics of the cycle", lambda controller: _break(controller.reporter.metrics.last_success, "set")),
    ("metrics of the duration", lambda controller: _break(controller.reporter.metrics.seconds, "observe")),
    ("metrics of the pause", lambda controller: _break(controller.reporter.metrics.paused, "set")),
    ("transitions", lambda controller: _break(controller.reporter._transitions, "record")),
]


@pytest.mark.parametrize(("what", "breaks"), REPORTS, ids=[what for what, _ in REPORTS])
def test_what_only_reports_holds_nothing_up(stage: Stage, what: str, breaks: Callable[[Controller], None]) -> None:
    """No decision depends on it: everything is made, nothing is written twice, and the exception is counted."""
    controller = stage.controller()
    breaks(controller)
    stage.run(controller, 8)
    assert services(stage) == {"Aaa", "Paint", "Weld"}, what
    assert len(stage.ksqldb.statements) == 4
    assert counted(controller, Part.REPORT) > 0
    assert controller.memory.backoff.failures == {}


class _Broken:
    """Whatever is asked of it raises."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Return what raises."""
        return _raises


def test_neither_the_log_nor_any_metric_is_needed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them raise at once, through failed reads and writes, a collapse and a removal: the work is done."""
    stage.ksqldb.assets |= {f"x{number}": f"x{number}" for number in range(6)}
    for module in ("memory", "journal"):
        monkeypatch.setattr(f"reconciler.control.{module}.log", _Broken())
    controller = stage.controller()
    for name, value in vars(controller.reporter.metrics).items():
        if hasattr(value, "collect"):
            setattr(controller.reporter.metrics, name, _Broken())
    stage.platform.fault = unreachable("create_service")
    stage.run(controller, 2)
    stage.platform.fault = lambda _call: None
    stage.ksqldb.fault = unreachable("members")
    stage.run(controller, 2)
    stage.ksqldb.fault = lambda _call: None
    stage.run(controller, 12)
    assert {"Aaa", "Paint", "Weld"} <= services(stage)
    stage.ksqldb.assets |= {f"y{number}": "Paint" for number in range(20)}
    stage.run(controller, 2)
    stage.ksqldb.assets = {asset: group for asset, group in stage.ksqldb.assets.items() if asset[0] not in "yW"}
    stage.ksqldb.assets["N"] = "New"
    stage.run(controller, 80)
    assert services(stage) == {"Aaa", "New", "Paint", *(f"x{number}" for number in range(6))}


@pytest.mark.parametrize("error", [RuntimeError("boom"), KsqlBadStatement("no such column")])
def test_the_last_question_about_groups(stage: Stage, error: Exception) -> None:
    """Without an answer every group stays and what is new is made; a bug is counted; with an answer the groups go."""
    stage.ksqldb.assets |= {f"x{number}": f"x{number}" for number in range(6)}
    stage.settle(stage.controller())
    controller = stage.controller()
    asked: list[int] = []

    def fault(call: str) -> None:
        if call == "members_directly":
            asked.append(len(services(stage)))
            raise error

    stage.ksqldb.fault = fault
    del stage.ksqldb.assets["W1"]
    stage.ksqldb.assets["N"] = "New"
    stage.run(controller, 30)
    assert asked
    assert {"New", "Weld"} <= services(stage)
    assert "ASSET_STREAM_WELD" in stage.ksqldb.made
    assert counted(controller, Part.QUESTION) == (len(asked) if isinstance(error, RuntimeError) else 0)
    (item,) = (item for item in controller.cycle().plan.items if item.group == "Weld")  # type: ignore[union-attr]
    assert (item.condition, str(error) in item.detail) == (Condition.LEAVING, True)
    stage.ksqldb.fault = lambda _call: None
    del stage.ksqldb.assets["x0"]
    stage.run(controller, 60)
    assert services(stage) == {"Aaa", "New", "Paint", *(f"x{number}" for number in range(1, 6))}
    assert controller.cycle().result == "in_sync"


def test_the_statement_of_an_orphan_that_cannot_be_read(stage: Stage) -> None:
    """An unexpected exception in that read suspends deletions, says so once, and nothing else suffers."""
    stage.settle(stage.controller())
    stage.ksqldb.made["ASSET_STREAM_MINE"] = ("mine", "CREATE STREAM ASSET_STREAM_MINE (A STRING);")
    stage.ksqldb.terminated.add("ASSET_STREAM_MINE")

    def fault(call: str) -> None:
        if call == "describe":
            raise AttributeError("boom")

    stage.ksqldb.fault = fault
    stage.ksqldb.assets["N"] = "New"
    del stage.ksqldb.assets["W1"]
    controller = stage.controller()
    with capture_logs() as logged:
        stage.run(controller, 30)
    assert services(stage) == {"Aaa", "New", "Paint", "Weld"}
    said = [line for line in logged if line["event"].startswith("ownership of a stream is unknown")]
    assert [line["stream"] for line in said] == ["ASSET_STREAM_MINE"]
    assert counted(controller, Part.OWNERSHIP) == 1
    plan = controller.cycle().plan
    assert plan is not None
    assert "deletions are suspended" in plan.notes[0]
    assert "AttributeError" in plan.notes[0]
    stage.ksqldb.fault = lambda _call: None
    stage.run(controller, 30)
    assert services(stage) == {"Aaa", "New", "Paint"}


@pytest.mark.parametrize("call", ["info", "health", "members", "streams", "queries"])
def test_a_full_read_that_ends_in_an_unexpected_exception(stage: Stage, call: str) -> None:
    """It is a failed read: nothing is concluded, counted absences start again, and the next cycle reads again."""
    stage.settle(stage.controller())
    del stage.ksqldb.assets["W1"]
    controller = stage.controller()
    stage.run(controller, 2)
    assert controller.memory.guards.missing != {}
    writes = stage.writes

    def fault(name: str) -> None:
        if name == call:
            raise ZeroDivisionError

    stage.ksqldb.fault = fault
    assert controller.cycle().result == "bug"
    assert (stage.writes, controller.memory.guards.missing) == (writes, {})
    stage.ksqldb.fault = lambda _call: None
    assert controller.cycle().result == "progressing"


def test_a_success_is_a_cycle_without_a_failed_write_or_one_that_waits(stage: Stage) -> None:
    """The time stamp stands still from the first failure until the write succeeds, also between the tries."""
    controller = stage.controller()
    stamp = controller.reporter.metrics.last_success._value.get

    def fault(call: str) -> None:
        if call == "create_service":
            raise PlatformRefused("no")

    stage.platform.fault = fault
    results = []
    for _ in range(20):
        results.append(controller.cycle().result)
        stage.now += 10
    assert stamp() == 0
    assert {"write_error", "progressing"} <= set(results)
    stage.platform.fault = lambda _call: None
    stage.now += 300
    stage.run(controller, 3)
    assert stamp() == stage.wall.timestamp()


@pytest.mark.parametrize("call", ["info", "members"])
def test_a_failed_read_is_no_success(stage: Stage, call: str) -> None:
    """The time stamp is that of the cycle before."""
    controller = stage.controller()
    stage.run(controller, 4)
    before = controller.reporter.metrics.last_success._value.get()
    stage.ksqldb.fault = unreachable(call)
    stage.wall = stage.wall.replace(year=stage.wall.year + 1)
    controller.cycle()
    assert controller.reporter.metrics.last_success._value.get() == before


def test_a_contested_service_is_left_alone_and_named(stage: Stage) -> None:
    """Another writer undoes each repair at once: six writes in ten minutes, then none for five; the others go on."""
    stage.settle(stage.controller())
    controller = stage.controller()
    controller.cycle()
    for _ in range(400):
        stage.platform.touch("ofa_group_Weld", replicas=9)
        changed = stage.platform.services["ofa_group_weld"]
        stage.platform.services["ofa_group_weld"] = replace(changed, updated_at=stage.wall)
        outcome = controller.cycle()
        stage.now += 1
    assert stage.platform.calls["update_service"] <= 8
    assert outcome.plan is not None
    conditions = {item.group: (item.condition, item.reason) for item in outcome.plan.items if item.group}
    assert conditions["Weld"] == (Condition.DEGRADED, Reason.CONTESTED)
    assert conditions["Paint"] == (Condition.READY, None)
    (item,) = (item for item in outcome.plan.items if item.group == "Weld")
    assert "another writer changes replicas (last at 00:00:00 UTC)" in item.detail
    assert controller.reporter.metrics.contested._value.get() == 1
    stage.ksqldb.assets["N"] = "New"
    stage.run(controller, 2)
    assert "New" in services(stage)
    stage.now += 600
    stage.run(controller, 3)
    assert controller.cycle().result == "in_sync"
    assert controller.reporter.metrics.contested._value.get() == 0


def _remove(stage: Stage) -> None:
    del stage.ksqldb.made["ASSET_STREAM_WELD"]


def _stop(stage: Stage) -> None:
    stage.ksqldb.paused.add("ASSET_STREAM_WELD")


@pytest.mark.parametrize("undo", [_remove, _stop])
def test_a_contested_stream_is_left_alone_and_named(stage: Stage, undo: Callable[[Stage], None]) -> None:
    """Whatever another writer does to the stream, it is answered six times and then left alone for five minutes."""
    stage.settle(stage.controller())
    controller = stage.controller()
    controller.cycle()
    before = len(stage.ksqldb.statements)
    for _ in range(290):
        if "ASSET_STREAM_WELD" in stage.ksqldb.made:
            undo(stage)
        outcome = controller.cycle()
        stage.now += 1
    assert len(stage.ksqldb.statements) - before == 6
    assert outcome.plan is not None
    assert {item.reason for item in outcome.plan.items if item.group == "Weld"} == {Reason.CONTESTED}


def test_two_installations_that_remake_each_others_stream_come_to_rest(stage: Stage) -> None:
    """A stream that another one has given another definition is a conflict: it is never answered."""
    stage.settle(stage.controller())
    controller = stage.controller()
    controller.cycle()
    before = stage.writes
    for _ in range(20):
        topic, sql = stage.ksqldb.made["ASSET_STREAM_WELD"]
        stage.ksqldb.made["ASSET_STREAM_WELD"] = (topic, sql.replace("= 'Weld'", "= 'Other'"))
        outcome = controller.cycle()
        stage.now += 1
    assert stage.writes == before
    assert outcome.plan is not None
    conditions = {item.group: item.condition for item in outcome.plan.items if item.group}
    assert conditions == {"Aaa": Condition.READY, "Paint": Condition.READY, "Weld": Condition.CONFLICT}


def test_once_does_not_end_well_while_a_part_is_left_out(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """All groups are ready and no registry can be planned: that is not converged."""

    def broken(*_: object) -> None:
        raise KeyError("x")

    def sleep(seconds: float) -> None:
        stage.now += seconds

    monkeypatch.setattr("reconciler.planning.plan.make_registry", broken)
    code, outcome = converge(stage.controller(), 100, sleep=sleep)
    assert outcome.plan is not None
    assert {item.condition for item in outcome.plan.items if item.group} == {Condition.READY}
    assert code is Exit.NOT_CONVERGED


def test_what_is_made_again_after_each_removal_is_left_alone_and_named(stage: Stage) -> None:
    """Another writer makes a removed group's service again at once: six removals, then none for five minutes."""
    stage.ksqldb.assets |= {f"x{number}": f"x{number}" for number in range(5)}
    controller = stage.controller()
    stage.settle(controller)
    again = stage.platform.services["ofa_group_weld"]
    del stage.ksqldb.assets["W1"]
    for _ in range(400):
        stage.platform.services.setdefault("ofa_group_weld", again)
        outcome = controller.cycle()
        stage.now += 1
        if stage.platform.calls["remove_service"] > 5:
            break
    before = stage.platform.calls["remove_service"]
    for _ in range(250):
        stage.platform.services.setdefault("ofa_group_weld", again)
        outcome = controller.cycle()
        stage.now += 1
    assert stage.platform.calls["remove_service"] == before == 6
    assert outcome.plan is not None
    (item,) = (item for item in outcome.plan.items if item.group == "Weld")
    assert (item.condition, item.reason) == (Condition.LEAVING, Reason.CONTESTED)
    assert "another writer makes it again" in item.detail


def test_a_flow_check_for_which_there_is_no_thread_is_made_later(stage: Stage) -> None:
    """The system's limit of threads: counted, and the next check is made when it is due."""
    stage.ksqldb.made["ENRICHED_ASSETS_STREAM"] = ("assets", "")
    stage.ksqldb.terminated.add("ENRICHED_ASSETS_STREAM")
    controller = stage.controller()
    started: list[float] = []

    def start(_: Callable[[], None]) -> None:
        started.append(stage.now)
        raise RuntimeError("can't start new thread")

    stage.settle(controller)
    controller.memory.flow = FlowWatch(stage.ksqldb, controller.deps.strategy, 60.0, start)
    stage.run(controller, 30)
    assert len(started) == 5
    assert counted(controller, Part.REPORT) == 5
