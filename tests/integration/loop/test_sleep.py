"""A group falls asleep and wakes in a running operator; one that restarts between any two cycles continues."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from openfactory_common.errors import KsqlUnknownOutcome
from openfactory_common.registry import Registry, revision_of
from reconciler.control.controller import Controller
from reconciler.control.demand import DemandReader
from reconciler.domain.demand import DemandReport, GroupDemand, TaskDemand
from reconciler.domain.names import names_of
from reconciler.domain.services import LiveService
from reconciler.domain.status import Condition, Reason
from reconciler.ksqldb.api import Ksqldb
from reconciler.ksqldb.definition import sources_of
from reconciler.ksqldb.entities import Statement
from reconciler.leadership.pause import GROUP_PAUSES_RECORD, LONGEST_GROUP_PAUSE, start_pause, write_mark
from reconciler.planning.survey import Survey
from reconciler.report.why import explain_group, make_context
from tests.harness.fakes import Stage


class Router(DemandReader):
    """A routing layer of one task that uses the current registry; ``asked``: groups that a client waits for."""

    asked: frozenset[str] = frozenset({"Weld", "Paint"})
    caught_up: frozenset[str] = frozenset()
    doubtful = False

    def read(self, survey: Survey, ksqldb: Ksqldb, now: float, wall: object) -> DemandReport:
        """What it reports."""
        del ksqldb, now, wall
        revision = revision_of(survey.published.live.data) if survey.published else ""
        groups = {group: GroupDemand(waiting=1) for group in self.asked}
        # Far after the services' last change.
        return DemandReport(
            4_000_000_000,
            (TaskDemand(revision, complete=True, uptime=9e9, groups=groups),),
            complete=True,
            doubtful=self.doubtful,
            caught_up=self.caught_up,
        )


def start(stage: Stage, router: Router) -> Controller:
    """An operator that asks this routing layer, and remembers nothing."""
    controller = stage.controller()
    controller.deps = replace(controller.deps, demand=router)
    return controller


def pause(stage: Stage, group: str) -> None:
    """Pause one group, as the command does."""
    mark = start_pause(stage.wall, 7 * 86400.0, "ana@shell", "audit", LONGEST_GROUP_PAUSE)
    write_mark(stage.platform, GROUP_PAUSES_RECORD, group, mark, stage.wall)


def sleeping() -> tuple[Stage, Router, Controller]:
    """Weld asleep and Paint with clients, beside a service of a user, and the operator that they have."""
    stage = Stage(options={"idle_after": 60})
    stage.ksqldb.assets = {"a": "Weld", "b": "Paint"}
    stage.platform.services["ofa_group_users"] = LiveService("u", 1, "ofa_group_users", None, None, 1)
    router = Router(stage.settings)
    stage.settle(start(stage, router))
    router.asked = frozenset({"Paint"})
    operator = start(stage, router)
    stage.run(operator, 6)
    return stage, router, operator


def published(controller: Controller) -> Registry:
    """The current registry."""
    outcome = controller.cycle()
    assert outcome.survey is not None
    assert outcome.survey.published is not None
    return outcome.survey.published.document


def test_a_task_that_the_engine_keeps_of_a_sleeping_group_is_ended() -> None:
    """It wakes nobody: the group stays asleep, without a task and with its query paused."""
    stage, _, operator = sleeping()
    key = names_of("Weld").service.lower()
    stage.platform.keeping[key] = 1
    stage.run(operator, 10)
    live = stage.platform.observe().services[key]
    assert live.spec is not None
    assert (live.running, live.spec.replicas, stage.platform.keeping) == (0, 0, {})
    assert published(operator).asleep.keys() == {"Weld"}
    assert stage.ksqldb.paused == {names_of("Weld").stream}


def test_a_group_sleeps_and_wakes_and_the_others_do_not_notice() -> None:
    """A new operator for each cycle. Paint has clients throughout; nothing of it is written."""
    stage = Stage(options={"idle_after": 60})
    stage.ksqldb.assets = {"a": "Weld", "b": "Paint"}
    router = Router(stage.settings)
    stage.settle(start(stage, router))
    weld, paint = names_of("Weld"), names_of("Paint")
    router.asked = frozenset({"Paint"})
    for _ in range(6):
        start(stage, router).cycle()
    assert stage.ksqldb.paused == {weld.stream}
    document = published(start(stage, router))
    assert (document.groups.keys(), document.asleep.keys()) == ({"Paint"}, {"Weld"})
    writes = stage.writes
    assert start(stage, router).cycle().result == "in_sync"
    assert stage.writes == writes
    router.asked = frozenset({"Paint", "Weld"})
    for _ in range(4):
        start(stage, router).cycle()
    assert stage.ksqldb.paused == set()
    document = published(start(stage, router))
    assert (document.groups.keys(), document.asleep) == ({"Paint", "Weld"}, {})
    touched = {statement.target for statement in stage.ksqldb.statements if statement.verb in ("pause", "resume")}
    assert not any(paint.stream in target for target in touched)


@pytest.mark.parametrize(
    ("wake", "cause"),
    [("client", "(a client asks)"), ("silence", "(some task of the routing layer does not answer)")],
)
def test_the_history_says_why_a_group_woke(wake: str, cause: str) -> None:
    """Of the group that woke; of the other there is nothing to say."""
    stage, router, operator = sleeping()
    journal = operator.reporter.journal
    last = journal.last
    router.asked = frozenset({"Paint", "Weld"} if wake == "client" else {"Paint"})
    router.doubtful = wake == "silence"
    stage.run(operator, 4)
    said = [one for one in journal.after(last) if one.event == "progressing"]
    assert [(one.group, cause in str(one.reason)) for one in said][:1] == [("Weld", True)]


@pytest.mark.parametrize("fault", ["removed", "never starts"])
def test_a_pause_does_not_hide_that_a_sleeping_group_cannot_wake(fault: str) -> None:
    """Its clients would wait until the pause ends. The other group is in order, and a user's service stays."""
    stage, router, operator = sleeping()
    key = names_of("Weld").service.casefold()
    pause(stage, "Weld")
    if fault == "removed":
        del stage.platform.services[key]
    router.asked = frozenset({"Paint", "Weld"})
    stage.run(operator, 2)
    if fault == "never starts":
        stage.platform.services[key] = replace(stage.platform.services[key], running=0, error="No such image: g:1")
    outcome = operator.cycle()
    assert outcome.plan is not None
    items = {one.group: one for one in outcome.plan.items}
    assert (items["Weld"].condition, items["Weld"].reason) == (Condition.DEGRADED, Reason.PAUSED)
    said = {"removed": "it has no service of ours", "never starts": "No such image: g:1"}
    assert said[fault] in items["Weld"].detail
    assert items["Paint"].condition is Condition.READY
    assert stage.platform.services["ofa_group_users"].owner is None


def test_a_paused_group_that_sleeps_wakes_as_it_was_and_stays_awake() -> None:
    """A new operator for each cycle; the image that all are to have now does not reach it. A user's service stays."""
    stage = Stage(options={"idle_after": 60})
    stage.ksqldb.assets = {"a": "Weld", "b": "Paint"}
    stage.platform.services["ofa_group_users"] = LiveService("u", 1, "ofa_group_users", None, None, 1)
    router = Router(stage.settings)
    stage.settle(start(stage, router))
    weld = names_of("Weld")
    before = stage.platform.services[weld.service.casefold()].spec
    router.asked = frozenset({"Paint"})
    for _ in range(6):
        start(stage, router).cycle()
    assert stage.ksqldb.paused == {weld.stream}
    pause(stage, "Weld")
    stage.options["fastapi_group_image"] = "another:2"
    start(stage, router).cycle()
    assert stage.ksqldb.paused == {weld.stream}, "nobody asks for it"
    router.asked = frozenset({"Paint", "Weld"})
    for _ in range(4):
        start(stage, router).cycle()
    router.asked = frozenset({"Paint"})
    for _ in range(6):
        start(stage, router).cycle()
    document = published(start(stage, router))
    assert (document.groups.keys(), document.asleep) == ({"Paint", "Weld"}, {})
    assert stage.ksqldb.paused == set()
    assert stage.platform.services[weld.service.casefold()].spec == before
    assert stage.platform.services["ofa_group_users"].owner is None


def test_neither_a_pause_nor_a_resume_that_fails_keeps_clients_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """One operator, and no time that passes: the answers of both are lost, and that of the pause was executed."""
    stage = Stage(options={"idle_after": 60})
    stage.ksqldb.assets = {"a": "Weld", "b": "Paint"}
    router = Router(stage.settings)
    controller = start(stage, router)
    stage.settle(controller)
    weld, execute, lost = names_of("Weld"), stage.ksqldb.execute, {"pause"}

    def lose(statement: Statement) -> None:
        if statement.verb not in lost:
            execute(statement)
            return
        if statement.verb == "pause":
            execute(statement)
        raise KsqlUnknownOutcome("no answer")

    monkeypatch.setattr(stage.ksqldb, "execute", lose)
    router.asked = frozenset({"Paint"})
    while not stage.ksqldb.paused:
        controller.cycle()
    router.asked = frozenset({"Paint", "Weld"})
    controller.cycle()
    assert stage.ksqldb.paused == set(), "the pause's failure delays no resume"
    lost.clear()
    router.asked = frozenset({"Paint"})
    stage.run(controller, 6, 100.0)
    asleep = stage.platform.services[weld.service.casefold()].spec
    assert asleep is not None
    assert (asleep.replicas, stage.ksqldb.paused) == (0, {weld.stream})
    lost.add("resume")
    router.asked = frozenset({"Paint", "Weld"})
    controller.cycle()
    awake = stage.platform.services[weld.service.casefold()].spec
    assert awake is not None
    assert awake.replicas == 1, "nor does that of the resume delay the tasks"
    lost.clear()
    stage.run(controller, 2, 100.0)
    assert stage.ksqldb.paused == set()


def test_a_sleeping_groups_stream_reads_its_source_before_it_moves() -> None:
    """The shared stream loses its query and is followed by another; Weld has not read all of the first one yet."""
    stage = Stage(options={"idle_after": 60})
    stage.ksqldb.assets = {"a": "Weld", "b": "Paint"}
    router = Router(stage.settings)
    controller = start(stage, router)
    stage.settle(controller)
    weld, paint = names_of("Weld").stream, names_of("Paint").stream
    router.asked = frozenset({"Paint"})
    stage.run(controller, 6, 10.0)
    assert stage.ksqldb.paused == {weld}
    first = controller.deps.topology.shared_name
    sources = {name: sources_of(sql) for name, (_, sql) in stage.ksqldb.made.items()}
    assert sources[weld] == {first}
    stage.ksqldb.terminated.add(first)
    stage.run(controller, 60, 30.0)
    sources = {name: sources_of(sql) for name, (_, sql) in stage.ksqldb.made.items()}
    assert sources[paint] != {first} == sources[weld]
    assert stage.ksqldb.paused == set()
    router.asked = frozenset({"Paint", "Weld"})
    stage.run(controller, 3, 30.0)
    assert sources_of(stage.ksqldb.made[weld][1]) == {first}, "also while a client waits"
    router.caught_up = frozenset({"Weld"})
    stage.run(controller, 6, 30.0)
    assert sources_of(stage.ksqldb.made[weld][1]) == sources[paint]
    document = published(controller)
    assert (document.groups.keys(), document.asleep) == ({"Paint", "Weld"}, {})


def test_a_stream_reads_its_source_before_it_moves_also_where_idle_after_was_taken_away() -> None:
    """The operator that has no such setting asks ksqlDB itself how far the query has read."""
    stage = Stage(options={"idle_after": 60})
    stage.ksqldb.assets = {"a": "Weld", "b": "Paint"}
    router = Router(stage.settings)
    controller = start(stage, router)
    stage.settle(controller)
    weld = names_of("Weld").stream
    router.asked = frozenset({"Paint"})
    stage.run(controller, 6, 10.0)
    assert stage.ksqldb.paused == {weld}
    first = controller.deps.topology.shared_name
    stage.ksqldb.terminated.add(first)
    del stage.options["idle_after"]
    controller = stage.controller()
    controller.deps = replace(controller.deps, demand=DemandReader(stage.settings))
    stage.run(controller, 12, 30.0)
    assert stage.ksqldb.paused == set()
    assert sources_of(stage.ksqldb.made[weld][1]) == {first}, "the fake does not say how far it has read"
    stage.run(controller, 20, 60.0)
    assert sources_of(stage.ksqldb.made[weld][1]) != {first}, "after `MOVE_SECONDS` it moves all the same"
    document = published(controller)
    assert (document.groups.keys(), document.asleep) == ({"Paint", "Weld"}, {})


def test_a_sleeping_group_is_updated_after_its_wake() -> None:
    """Its image is gone, so it wakes in vain; then the update reaches it. Meanwhile nothing is in progress."""
    stage = Stage(options={"idle_after": 60, "rollout_bake": 0})
    stage.ksqldb.assets = {"a": "Weld", "b": "Paint"}
    router = Router(stage.settings)
    stage.settle(start(stage, router))
    weld = names_of("Weld").service.casefold()
    before = stage.platform.services[weld].spec
    router.asked = frozenset({"Paint"})
    for _ in range(6):
        start(stage, router).cycle()
    stage.options["fastapi_group_image"] = "another:2"
    for _ in range(6):
        outcome = start(stage, router).cycle()
    assert outcome.result == "in_sync"
    assert stage.platform.services[weld].spec == replace(before, replicas=0)  # type: ignore[type-var]
    stage.platform.healthy = lambda name: (
        name.casefold() != weld or "another" in str(stage.platform.services[weld].spec)
    )
    router.asked = frozenset({"Paint", "Weld"})
    start(stage, router).cycle()
    assert stage.platform.services[weld].spec == before
    stage.wall += timedelta(seconds=stage.settings.rollout_timeout)
    for _ in range(4):
        start(stage, router).cycle()
    spec = stage.platform.services[weld].spec
    assert spec is not None
    assert spec.image == "another:2"
    assert published(start(stage, router)).groups.keys() == {"Paint", "Weld"}


def test_why_says_since_when_a_group_sleeps_and_what_wakes_it() -> None:
    """With which image, and what is changed of it after that."""
    stage = Stage(options={"idle_after": 60})
    stage.ksqldb.assets = {"a": "Weld", "b": "Paint"}
    router = Router(stage.settings)
    stage.settle(start(stage, router))
    image = stage.settings.fastapi_group_image
    router.asked = frozenset({"Paint"})
    for _ in range(6):
        start(stage, router).cycle()
    stage.options["fastapi_group_image"] = "another:2"
    controller = start(stage, router)
    survey, verdict = controller.observe()
    plan = controller.plan(survey, verdict)
    found = explain_group("Weld", make_context(controller, survey, plan, stage.wall), "this operator")
    assert found is not None
    assert found.plan is not None
    assert found.plan.startswith("asleep since ")
    update = f'image "{image}" -> "another:2" (FASTAPI_GROUP_IMAGE)'
    assert found.plan.endswith(f"until a client asks; updated after its wake: {update}")
    assert found.writes == ()
    assert "no client has asked for it for IDLE_AFTER (60 s); the first request" in found.next[0]
    assert found.next[0].endswith(f"wakes it, with image {image}")
    assert "1 group that sleeps is updated after waking" in plan.notes
