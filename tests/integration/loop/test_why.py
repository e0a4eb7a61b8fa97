"""`why GROUP`: for every way in which a group can fare, the answer says what was seen and what helps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from openfactory_common.errors import KsqlBadStatement, PlatformRefused
from reconciler.cli import main as cli
from reconciler.cli import pause as pause_command
from reconciler.cli import show
from reconciler.control.backoff import Contest, Suspended
from reconciler.control.controller import Controller
from reconciler.control.loop import History, Loop
from reconciler.domain.names import names_of
from reconciler.domain.status import Condition
from reconciler.leadership.pause import start_pause, write_pause
from reconciler.metrics import Metrics
from reconciler.report.why import WhyContext, WhyDocument, explain_group, find_similar, known_groups, why_text
from reconciler.web.server import RegistryCache, Server
from reconciler.web.status_page import StatusPage
from reconciler.web.status_view import Filter
from tests.harness.fakes import NOW, WELL, FakeKsqldb, Stage
from tests.harness.ports import free_port


@pytest.fixture
def stage() -> Stage:
    """Five groups settled."""
    stage = Stage()
    stage.ksqldb.assets = {f"a{n}": f"g{n}" for n in range(5)}
    stage.settle(stage.controller())
    return stage


def known(stage: Stage, controller: Controller) -> WhyContext:
    """Run a cycle and return what is known after it."""
    outcome = controller.cycle()
    assert outcome.survey is not None
    assert outcome.plan is not None
    pause = controller.memory.pause
    return WhyContext(
        settings=stage.settings,
        survey=outcome.survey,
        plan=outcome.plan,
        read_at=NOW,
        memory=controller.memory.guards,
        backoff=controller.memory.backoff,
        now=stage.now,
        last=outcome.sentence,
        paused=pause.text if pause and pause.active(stage.wall) else "",
    )


def asked(stage: Stage, group: str, controller: Controller | None = None) -> WhyDocument:
    """Ask after one more cycle."""
    answer = explain_group(group, known(stage, controller or stage.controller()), "this operator")
    assert answer is not None
    return answer


def test_a_group_that_is_well(stage: Stage) -> None:
    """Members, stream, service, URL, and that nothing has to be done."""
    text = why_text(asked(stage, "g0"))
    assert text.splitlines()[:6] == [
        "group     g0: Ready",
        "plan      nothing to do",
        "members   1 of 5 assets",
        "stream    ASSET_STREAM_G0: in sync",
        "service   ofa_group_g0: 1 of 1 tasks",
        "URL       http://ofa_group_g0:8000/asset_stream",
    ]
    assert text.splitlines()[-1] == (
        "next      nothing: it is in its desired state; if clients still get 502, compare FASTAPI_GROUP_PORT (8000) "
        "with the port that its image listens on"
    )


def test_a_task_that_does_not_run(stage: Stage) -> None:
    """The task's own error stands there as it is, with what helps against it."""
    live = stage.platform.services["ofa_group_g1"]
    stage.platform.healthy = lambda name: name != "ofa_group_g1"
    stage.platform.services["ofa_group_g1"] = replace(live, error="no suitable node (insufficient resources on 1 node)")
    answer = asked(stage, "g1")
    assert answer.service.error == "no suitable node (insufficient resources on 1 node)"
    assert any("FASTAPI_GROUP_CPU_RESERVATION" in text for text in answer.next)
    assert any("docker service ps --no-trunc ofa_group_g1" in text for text in answer.next)


def test_a_task_that_waits_without_an_error(stage: Stage) -> None:
    """What it waits for, and what is likely to help, at once; since when, also from a process that has just started."""
    stage.platform.healthy = lambda name: name != "ofa_group_g1"
    live = stage.platform.services["ofa_group_g1"]
    stage.platform.services["ofa_group_g1"] = replace(live, waits="1 task in state new")
    answer = asked(stage, "g1")
    assert (answer.condition, answer.service.error) == (Condition.PROGRESSING, None)
    assert "(1 task in state new)" in (answer.plan or "")
    assert any("no address is free in the network factory-net" in text for text in answer.next)
    stage.wall += timedelta(minutes=11)
    answer = asked(stage, "g1", stage.controller())
    assert answer.condition is Condition.DEGRADED
    assert (answer.plan or "").startswith("no progress since 2026-01-01 00:00:00 UTC: 0 of 1 tasks are running")


def test_drift_and_a_write_that_failed(stage: Stage) -> None:
    """The fields that differ, the write that waits, the error, and when it is tried again."""
    stage.platform.touch("ofa_group_g2", replicas=7)

    def refuse(call: str) -> None:
        if call == "update_service":
            raise PlatformRefused("name conflicts with an existing object")

    stage.platform.fault = refuse
    answer = asked(stage, "g2")
    assert answer.service.drift == ("replicas: 7 -> 1",)
    assert answer.writes == ("update_service service ofa_group_g2",)
    (waits,) = answer.backoff
    assert (waits.object_, waits.failures, waits.retry_in_seconds) == ("service ofa_group_g2", 1, 2.0)
    assert "name conflicts" in why_text(answer)


def test_a_write_that_the_engine_refuses_has_its_cure(stage: Stage) -> None:
    """Also before there is a service; the variable is that of what was to be created."""
    del stage.platform.services["ofa_group_g2"]

    def refuse(call: str) -> None:
        if call == "create_service":
            raise PlatformRefused("rpc error: code = InvalidArgument desc = network factory-net not found")

    stage.platform.fault = refuse
    assert "the network factory-net (DOCKER_NETWORK) is gone" in asked(stage, "g2").next


def test_a_stream_whose_definition_differs(stage: Stage) -> None:
    """What differs is named."""
    topic, sql = stage.ksqldb.made["ASSET_STREAM_G3"]
    stage.ksqldb.made["ASSET_STREAM_G3"] = (
        "asset_stream_G3",
        sql.replace("'g3'", "'G3'").replace(topic, "asset_stream_G3"),
    )
    answer = asked(stage, "g3")
    assert (answer.stream.state, answer.stream.detail) == ("moved", "its group and topic differ")


def test_a_group_without_assets_shows_how_far_the_count_is(stage: Stage) -> None:
    """Reads and seconds of this operator, not of a fresh look."""
    del stage.ksqldb.assets["a4"]
    controller = stage.controller()
    stage.run(controller, 4)
    answer = asked(stage, "g4", controller)
    assert answer.missing is not None
    assert (answer.missing.reads, answer.missing.seconds) == (5, 40.0)
    assert not answer.desired
    assert "plan      missing 3/3 reads, 40 s of 60 s" in why_text(answer).splitlines()


def test_the_count_is_said_once_and_is_the_one_of_now(stage: Stage) -> None:
    """The plan was made at the last read, and the count has gone on since: one answer shows one figure."""
    del stage.ksqldb.assets["a4"]
    controller = stage.controller()
    controller.cycle()
    then = known(stage, controller)
    answer = explain_group("g4", replace(then, now=then.now + 9), "this operator")
    assert answer is not None
    assert [line for line in why_text(answer).splitlines() if "reads" in line] == [
        "plan      missing 2/3 reads, 9 s of 60 s",
        "next      it is removed after the reads and the grace time, unless an asset is mapped to it before",
    ]


def test_an_empty_map_needs_both_options(stage: Stage) -> None:
    """An approval alone would do nothing: the rule about an empty map comes first."""
    stage.ksqldb.assets.clear()
    answer = asked(stage, "g4")
    assert answer.next[0] == "nothing is written until this is resolved: empty"
    assert "refused   empty: " in why_text(answer)
    assert any("`reconciler --once --allow-empty --approve " in text for text in answer.next)


def test_a_write_names_its_object_once(stage: Stage) -> None:
    """`create service NAME`, not `create_service service NAME`."""
    stage.ksqldb.assets["new"] = "Weld"
    controller = stage.controller()
    survey, verdict = controller.observe()
    seen = replace(known(stage, stage.controller()), survey=survey, plan=controller.plan(survey, verdict))
    answer = explain_group("Weld", seen, "x")
    assert answer is not None
    assert [line for line in why_text(answer).splitlines() if line.startswith("write")] == [
        "write     create stream ASSET_STREAM_WELD",
        "write     create service ofa_group_Weld",
    ]


def test_an_update_that_is_over_is_no_news(stage: Stage) -> None:
    """Beside a task that does not run, `completed` would only confuse; what stopped is said."""
    live = stage.platform.services["ofa_group_g0"]
    for state, shown in (("completed", ""), ("paused", ", update paused"), ("updating", ", update in progress")):
        stage.platform.services["ofa_group_g0"] = replace(live, update_state=state)
        assert f"service   ofa_group_g0: 1 of 1 tasks{shown}" in why_text(asked(stage, "g0")).splitlines()


def test_a_service_that_lost_its_labels_can_be_given_them_again(stage: Stage) -> None:
    """Another name is one way; where the service is ours after all, owner and installation are the other."""
    ours = stage.platform.services["ofa_group_g0"]
    again = (
        f"`docker service update --label-add org.openfactory.owner=ofa --label-add org.openfactory.installation="
        f"{ours.installation} ofa_group_g0`"
    )
    none = {"owner": None, "spec": None}
    for lost in ({**none, "installation": ""}, none, {"installation": ""}):
        stage.platform.services["ofa_group_g0"] = replace(ours, **lost)
        assert any(again in text for text in asked(stage, "g0").next), lost
    for foreign in ({"owner": "someone"}, {"owner": "someone", "installation": ""}, {"installation": "deadbeef"}):
        stage.platform.services["ofa_group_g0"] = replace(ours, **foreign)
        assert not any("--label-add" in text for text in asked(stage, "g0").next), foreign


@pytest.mark.parametrize("group", ["g0", "cell 7"])
def test_a_conflict_with_an_object_names_the_command_that_adopts(stage: Stage, group: str) -> None:
    """Not one between two groups of the same name, nor one of a service that belongs to no group."""
    name = names_of(group).service
    services = stage.platform.services
    services[name.lower()] = replace(services["ofa_group_g0"], name=name, owner=None, spec=None)
    services["ofa_state_api"] = replace(services["ofa_state_api"], owner=None, spec=None)
    stage.ksqldb.assets |= {"new": group, "twin": "G1"}
    command = "`reconciler adopt g0`" if group == "g0" else "`reconciler adopt 'cell 7'`"
    conflicts = {one: asked(stage, one) for one in (group, "G1", "state_api")}
    assert {one.condition for one in conflicts.values()} == {Condition.CONFLICT}
    adopts = {one: [text for text in answer.next if "reconciler adopt" in text] for one, answer in conflicts.items()}
    assert adopts == {group: [f"{command} shows whose it is, and takes it over if a user made it"]} | {
        one: [] for one in ("G1", "state_api")
    }


def test_what_the_engine_refuses_gets_no_advice_about_ksqldb(stage: Stage) -> None:
    """Words that both use: only where ksqlDB said them are its streams spoken of."""
    said = "authorization denied by plugin: the path does not exist"
    advice = ("KSQLDB_ASSETS_STREAM", "KSQLDB_USERNAME")
    del stage.platform.services["ofa_group_g0"]
    del stage.ksqldb.made["ASSET_STREAM_G1"]

    def refuse(call: str) -> None:
        if call == "create_service":
            raise PlatformRefused(said)

    def unknown(call: str) -> None:
        if call == "execute":
            raise KsqlBadStatement(said)

    stage.platform.fault, stage.ksqldb.fault = refuse, unknown
    controller = stage.controller()
    controller.cycle()
    controller.cycle()
    seen = known(stage, controller)
    for group, meant in (("g0", False), ("g1", True)):
        answer = explain_group(group, seen, "this operator")
        assert answer is not None
        assert said in (answer.plan or "")
        assert any(name in text for text in answer.next for name in advice) is meant


def test_too_many_missing_groups_name_the_approval(stage: Stage) -> None:
    """The refusal's both numbers, and the command."""
    for asset in ("a2", "a3", "a4"):
        del stage.ksqldb.assets[asset]
    answer = asked(stage, "g4")
    assert "budget: 3 of 5 groups are missing" in answer.guards[0]
    assert any("reconciler --once --approve " in text for text in answer.next)


def test_conflict_trouble_and_pause(stage: Stage) -> None:
    """A foreign service, a sick server and a pause are all there to be read."""
    stage.platform.services["ofa_group_g0"] = replace(stage.platform.services["ofa_group_g0"], owner=None)
    stage.ksqldb.well = replace(WELL, kafka=False, healthy=False)
    write_pause(stage.platform, start_pause(stage.wall, 600, "ana@shell", "audit"))
    text = why_text(asked(stage, "g0"))
    assert "service   ofa_group_g0: 1 of 1 tasks, not ours" in text
    assert "group     g0: Conflict" in text
    assert "paused    until 2026-01-01 00:10:00 UTC by ana@shell: audit" in text
    assert "it cannot reach Kafka" in text
    assert "reconciler resume" in text


SHARED_ONES = [
    # asked for, kind, facts in this order
    ("routing_layer", "service", ["service", "plan", "service", "read", "cycle", "read by", "next"]),
    ("service:state_api", "service", ["service", "plan", "service", "read", "cycle", "read by", "next"]),
    ("ofa_state_api", "service", ["service", "plan", "service", "read", "cycle", "read by", "next"]),
    ("shared_stream", "stream", ["stream", "plan", "stream", "read", "cycle", "read by", "next"]),
    ("operator", "operator", ["operator", "plan", "read", "cycle", "read by", "next"]),
]


@pytest.mark.parametrize(("name", "kind", "facts"), SHARED_ONES)
def test_what_all_groups_share_is_explained_too(stage: Stage, name: str, kind: str, facts: list[str]) -> None:
    """Nothing of a group stands there; all is well."""
    answer = asked(stage, name)
    assert (answer.kind, answer.condition) == (kind, Condition.READY)
    lines = why_text(answer).splitlines()
    assert [line[:10].strip() for line in lines] == facts
    assert lines[-1] == "next      nothing: it is in its desired state"


def test_a_group_with_the_name_of_a_service_comes_first(stage: Stage) -> None:
    """With a prefix the service is meant."""
    stage.ksqldb.assets["x"] = "state_api"
    controller = stage.controller()
    assert asked(stage, "state_api", controller).kind == "group"
    assert asked(stage, "service:state_api", controller).kind == "service"


def test_a_service_that_the_engine_refuses_has_its_cure(stage: Stage) -> None:
    """The variable is that of the service; nothing is said of ksqlDB."""
    del stage.platform.services["ofa_state_api"]

    def refuse(call: str) -> None:
        if call == "create_service":
            raise PlatformRefused("No such image: acme/x:1 (HTTP 404)")

    stage.platform.fault = refuse
    answer = asked(stage, "state_api")
    assert answer.writes == ("create_service service ofa_state_api",)
    assert [one.object_ for one in answer.backoff][:1] == ["service ofa_state_api"]
    assert any("STATE_API_IMAGE" in text for text in answer.next)


def test_a_pause_explains_the_operator(stage: Stage) -> None:
    """It is held, and the command that ends the pause is named."""
    context = replace(known(stage, stage.controller()), paused="paused until 12:00 by me: upgrade")
    answer = explain_group("operator", context, "this operator")
    assert answer is not None
    assert (answer.condition, answer.plan) == (Condition.HELD, "paused until 12:00 by me: upgrade")
    assert "reconciler resume" in answer.next[0]


def test_names_that_are_close(stage: Stage) -> None:
    """Another case, a typo; nothing where nothing is like it."""
    survey = known(stage, stage.controller()).survey
    assert "g1" in known_groups(survey)
    assert find_similar("G1", survey)[0] == "g1"
    assert find_similar("entirely different", survey) == ()
    assert explain_group("G1", known(stage, stage.controller()), "x") is None


@pytest.fixture
def operator(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """A running operator on a real port, and settings that point to it and to nothing else."""
    board, metrics = RegistryCache(), CollectorRegistry()
    controller = stage.controller()
    controller.reporter.metrics = Metrics(metrics)
    loop = Loop(controller, 3600.0)
    server = Server(loop, board, 0, host="127.0.0.1", registry=metrics)
    server.start()
    loop.history = loop.history.after(controller.cycle(), NOW)
    for name, value in (("KAFKA_BROKER", "k:9092"), ("KSQLDB_URL", "http://127.0.0.1:1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RECONCILER_PORT", str(server.port))
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    yield loop
    server.stop()


@pytest.mark.usefixtures("operator")
def test_the_command_asks_the_operator_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither ksqlDB nor the engine is asked: they do not exist here. Text, JSON, exit codes."""
    assert cli.main(["why", "g0"]) == 0
    assert "read by   the operator at http://127.0.0.1:" in capsys.readouterr().out
    assert cli.main(["why", "g0", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["group"] == "g0"
    assert cli.main(["why", "G0"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no group 'G0'; similar names: 'g0'" in printed.err


@pytest.mark.usefixtures("operator")
def test_a_group_that_is_like_no_other_gets_the_names_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is close: the groups are named, so that the next try can be right."""
    assert cli.main(["why", "Nowhere at all"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "reconciler: no group 'Nowhere at all'; the groups are 'g0', 'g1', 'g2', 'g3', 'g4'"
    ]


@pytest.mark.usefixtures("operator")
def test_an_operator_of_another_owner_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two installations on one host: the command looks itself, which fails here, and says so."""
    monkeypatch.setenv("RECONCILER_OWNER", "other")
    assert cli.main(["why", "g0"]) == 1
    assert "g0" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    [
        "{x}",
        "{{ .Node }}",
        "a/b",
        "/",
        "..",
        ".",
        "a?b=c",
        "a#b",
        "%2F",
        "a b ",
        "A&B",
        "\u202eWeld",
        "100%",
        "+",
        "溶接",
        "[",
        "\\",
    ],
)
def test_a_group_of_any_name_is_asked_of_the_operator(
    stage: Stage, operator: Loop, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Nothing in a name makes the command look itself: ksqlDB and the engine are not there to be asked."""
    stage.ksqldb.assets["new"] = name
    operator.history = operator.history.after(operator.controller.cycle(), NOW)
    assert cli.main(["why", name, "-o", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["group"] == name
    assert answer["source"].startswith("the operator at http://127.0.0.1:")


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("name", ["", " ", "\t"])
def test_no_name_is_a_usage_error(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """An empty value is no group."""
    assert cli.main(["why", name]) == 2
    assert "is not a group" in capsys.readouterr().err


def test_an_operator_that_has_read_nothing_yet_is_not_passed_over_in_silence(
    operator: Loop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command looks itself then, and says why."""
    operator.history = History()
    monkeypatch.setattr(show, "build_dependencies", lambda *_: Stage(ksqldb=FakeKsqldb({"a": "g0"})).controller().deps)
    assert cli.main(["why", "g0"]) == 0
    seen = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("read by"))
    assert "direct read, no history" in seen
    assert "has no answer: no cycle has read everything yet" in seen


def test_what_all_groups_share_and_fails_is_a_reason() -> None:
    """The shared stream cannot be made: each group that waits for it shows the error and the next try."""
    fresh = Stage()
    fresh.ksqldb.assets = {"a": "Weld"}

    def refuse(call: str) -> None:
        if call == "execute":
            raise PlatformRefused("partition counts differ")

    fresh.ksqldb.fault = refuse
    controller = fresh.controller()
    controller.cycle()
    answer = asked(fresh, "Weld", controller)
    assert any("partition counts differ" in one.error and "ASSETS_WITH_UNS" in one.object_ for one in answer.backoff)
    assert any("serves all groups and its write fails" in text for text in answer.next)


@pytest.fixture
def here(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Commands that read directly read what the operator works on, too."""
    monkeypatch.setattr(show, "build_dependencies", lambda *_: stage.controller().deps)
    monkeypatch.setattr(pause_command, "build_platform", lambda *_: stage.platform)
    return stage


def test_status_and_plan_count_on_from_the_operator(
    here: Stage, operator: Loop, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its counts, not those of a process that has just begun; and whose they are is said."""
    del here.ksqldb.assets["a4"]
    for _ in range(3):
        operator.history = operator.history.after(operator.controller.cycle(), NOW)
        here.now += 15
    for command in ("status", "plan"):
        assert cli.main([command]) == 0
        said = capsys.readouterr().out
        assert "missing 3/3 reads, 45 s of 60 s" in said
        assert "counters are from the operator at http://127.0.0.1:" in said


def test_status_and_plan_say_what_only_time_tells_the_operator(
    here: Stage, operator: Loop, capsys: pytest.CaptureFixture[str]
) -> None:
    """A silent stream, a contested object and one that does not get on are not "in sync" to a fresh process."""
    controller, contested = operator.controller, "contested: another writer changes replicas"
    controller.memory.contest = Contest(held={"service ofa_group_g2": Suspended(None, here.now + 1000, contested)})
    controller.memory.silent_streams = {"g1": "of 9 events that were seen going in, none came out, 3 times"}
    here.platform.healthy = lambda name: name != "ofa_group_g3"
    controller.cycle()
    here.now += here.settings.progress_deadline + 1
    controller.cycle()
    here.platform.touch("ofa_group_g2", replicas=3)  # and the operator does not put it right for now
    for command in ("status", "plan"):
        assert cli.main([command]) == 0
        said = capsys.readouterr().out
        for expected in (contested, "none came out, 3 times", "no progress since"):
            assert expected in said


def test_without_an_operator_counters_start_with_the_process(
    here: Stage, monkeypatch: pytest.MonkeyPatch, operator: Loop, capsys: pytest.CaptureFixture[str]
) -> None:
    """And that is said where something is counted, with why no one was asked; where nothing is, nothing is said."""
    del operator
    monkeypatch.setenv("RECONCILER_PORT", str(free_port()))
    assert cli.main(["plan"]) == 0
    assert "counters" not in capsys.readouterr().out
    del here.ksqldb.assets["a4"]
    assert cli.main(["plan"]) == 0
    said = capsys.readouterr().out
    assert "missing 1/3 reads" in said
    assert "counters start with this command" in said
    assert "does not answer" in said


def test_a_pause_whose_record_a_teardown_removed_is_one_truth(
    here: Stage, operator: Loop, capsys: pytest.CaptureFixture[str]
) -> None:
    """The operator that runs keeps to it; the page, status and plan show it, and resume says what it ended."""
    wall = datetime.now(UTC)
    operator.controller.clocks = replace(operator.controller.clocks, wall=lambda: wall)
    write_pause(here.platform, start_pause(wall, 600, "ana@shell", "teardown"))
    operator.history = operator.history.after(operator.controller.cycle(), wall)
    del here.platform.kept_records["pause"]
    operator.history = operator.history.after(operator.controller.cycle(), wall)
    assert "by ana@shell: teardown" in StatusPage(operator).render(Filter())
    here.wall = wall
    for command in ("status", "plan"):
        assert cli.main([command]) == 0
        assert "by ana@shell: teardown" in capsys.readouterr().out
    assert cli.main(["resume"]) == 0
    assert "resumed; it was paused until" in capsys.readouterr().out
    assert operator.controller.cycle().result != "paused"
    assert cli.main(["resume"]) == 0
    assert capsys.readouterr().out == "nothing was paused\n"
