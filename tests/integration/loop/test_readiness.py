"""Ready means served: the operator between two fakes, with tasks on real sockets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry

from openfactory_common.registry import parse
from reconciler.cli.run import make_loop, make_preempting_controller
from reconciler.cli.show import make_reader
from reconciler.control import readiness
from reconciler.control.controller import Controller
from reconciler.control.converge import Exit, converge
from reconciler.control.readiness import ReadinessProber
from reconciler.domain.names import names_of
from reconciler.domain.readiness import Readiness, ReadyState
from reconciler.domain.services import LiveService
from reconciler.domain.status import Condition, ObjectStatus, Part
from reconciler.metrics import Metrics
from reconciler.planning.guards import Overrides
from reconciler.planning.specs import group_spec
from reconciler.report.counters import Counters, make_counters, restore
from reconciler.report.why import explain_group, make_context, why_text
from tests.harness.fakes import Stage
from tests.harness.ports import free_port
from tests.harness.tasks import NOT_FOUND, READY, Behaviour, answer, issues, task

WELD = "ofa_group_weld"


@dataclass
class FakeProber:
    """Finds what a test says; by default every service is ready."""

    not_ready: dict[str, str] = field(default_factory=dict)
    fails: bool = False

    def probe(self, services: Mapping[str, LiveService], now: float) -> Mapping[str, Readiness]:
        """Return the readiness of what runs."""
        if self.fails:
            raise KeyError("bug")
        return {
            name: Readiness(ReadyState.NOT_READY, self.not_ready[name], now - 100)
            if name in self.not_ready
            else Readiness(ReadyState.READY, since=now - 100)
            for name, live in services.items()
            if live.converged
        }


def make_stage(**options: object) -> Stage:
    """Return one group, and nothing besides."""
    image = {"fastapi_group_image": "group-service:1"}
    stage = Stage(options={"state_api_replicas": 0, "routing_layer_replicas": 0, **image, **options})
    stage.ksqldb.assets = {"W1": "Weld"}
    return stage


def registered(stage: Stage) -> Sequence[str]:
    """Return the groups of the current registry."""
    newest = max(stage.platform.registries.values(), key=lambda one: one.sequence, default=None)
    return sorted(parse(newest.data).groups) if newest is not None else []


def weld(controller: Controller) -> ObjectStatus:
    """Run a cycle; return what its plan says of Weld."""
    plan = controller.cycle().plan
    assert plan is not None
    return next(one for one in plan.items if one.group == "Weld")


FALSE_READY: Sequence[tuple[str, Behaviour | None, str]] = [
    ("wrong port", None, "not ready: nothing listens on port {port} (FASTAPI_GROUP_PORT)"),
    ("deaf", None, "not ready: no answer within 1 s on port {port}"),
    ("not assigned", issues(["no partition is assigned yet"]), "not ready: no partition is assigned yet"),
    ("no Kafka", issues(["Kafka: broker:9092 does not answer"]), "not ready: Kafka: broker:9092 does not answer"),
    ("other group", answer("200 OK", {"group": "Paint"}), 'not ready: answers for group "Paint": a stale address'),
    ("crash loop", None, "task: non-zero exit (1)"),
    ("not found", NOT_FOUND, "not ready: answers 404 to GET /ready and to GET /asset_stream: it is no group service"),
]


@pytest.mark.parametrize(("name", "behaviour", "detail"), FALSE_READY, ids=[row[0] for row in FALSE_READY])
def test_what_the_engine_calls_running_is_ready_only_if_it_serves(
    monkeypatch: pytest.MonkeyPatch, name: str, behaviour: Behaviour | None, detail: str
) -> None:
    """Seven images that run: the reason of each is shown, and none gets clients."""
    monkeypatch.setattr(readiness, "ANSWER_SECONDS", 1.0)
    with ExitStack() as stack:
        nobody = name in ("wrong port", "crash loop")
        port = free_port() if nobody else stack.enter_context(task(behaviour)).port
        stage = make_stage(fastapi_group_port=port)
        stage.prober = ReadinessProber(stage.settings, resolve=lambda _host, _port: ("127.0.0.1",))
        if name == "crash loop":
            stage.platform.crashing = {WELD: "task: non-zero exit (1)"}
        controller = stage.controller()
        for _ in range(5):
            item = weld(controller)
            stage.now += 10
        assert item.detail == detail.format(port=port)
        assert (item.condition, item.running, registered(stage)) == (Condition.DEGRADED, 1, [])


def test_an_image_without_a_readiness_endpoint_is_ready_with_a_note() -> None:
    """It serves streams, and whether they are fed cannot be asked."""
    with task(NOT_FOUND) as one:
        one.streams = answer("422 Unprocessable Entity")
        stage = make_stage(fastapi_group_port=one.port)
        stage.prober = ReadinessProber(stage.settings, resolve=lambda _host, _port: ("127.0.0.1",))
        stage.settle(controller := stage.controller())
        plan = controller.cycle().plan
        assert plan is not None
        assert (weld(controller).condition, registered(stage)) == (Condition.READY, ["Weld"])
        assert [note for note in plan.notes if "answers 404 to GET /ready" in note]


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({}, ""),  # the default image is the existing system's
        ({"fastapi_group_image": "plant.example:5000/openfactoryio/stream-api-non-replicated:2"}, ""),
        ({"fastapi_group_ready_path": "/ready"}, ""),  # as a stack file that names every variable sets it
        ({"fastapi_group_ready_path": "/health"}, "/health"),
        ({"fastapi_group_image": "plant.example/group-service:1"}, "/ready"),
    ],
)
def test_the_existing_systems_image_is_not_asked_whether_it_is_ready(options: dict[str, str], path: str) -> None:
    """That question alone makes it hang for good."""
    settings = Stage(options=dict(options)).settings
    assert settings.ready_path(settings.fastapi_group_image) == path


def test_a_group_enters_the_registry_when_it_serves() -> None:
    """Its task runs from the first moment, and clients come once it says that it is ready."""
    with task(issues(["starts"])) as one:
        stage = make_stage(fastapi_group_port=one.port)
        stage.prober = ReadinessProber(stage.settings, resolve=lambda _host, _port: ("127.0.0.1",))
        controller = stage.controller()
        controller.cycle()  # creates
        controller.cycle()
        item = weld(controller)
        assert (item.condition, item.detail) == (Condition.PROGRESSING, "not ready yet: starts")
        assert registered(stage) == []
        one.behaviour = READY
        assert weld(controller).condition is Condition.READY
        assert registered(stage) == ["Weld"]


def test_a_group_that_becomes_unready_stays_in_the_registry() -> None:
    """Its clients are not disconnected; it is degraded, and a new operator says the same."""
    stage = make_stage()
    stage.prober = prober = FakeProber()
    stage.settle(controller := stage.controller())
    prober.not_ready[WELD] = "no Kafka"
    for one in (controller, stage.controller()):
        item = weld(one)
        assert (item.condition, item.detail) == (Condition.DEGRADED, "not ready: no Kafka")
        assert registered(stage) == ["Weld"]
    prober.not_ready.clear()
    assert weld(controller).condition is Condition.READY


def test_once_waits_until_tasks_serve() -> None:
    """It ends well when they do, and says the reason when they do not in time."""
    stage = make_stage()
    stage.prober = prober = FakeProber({WELD: "no Kafka"})

    def sleep(_: float) -> None:
        stage.now += 1
        if stage.now > 1050:
            prober.not_ready.clear()

    code, _ = converge(stage.controller(), 10, sleep=sleep)
    assert (code, registered(stage)) == (Exit.NOT_CONVERGED, [])
    code, outcome = converge(stage.controller(), 100, sleep=sleep)
    assert (code, registered(stage)) == (Exit.OK, ["Weld"])
    assert outcome.plan is not None
    assert outcome.plan.in_sync


def test_the_tasks_of_what_is_not_ready_are_read_in_the_next_cycle() -> None:
    """And not those of what is, so that a quiet plant costs no more reads."""
    stage = make_stage()
    stage.prober = prober = FakeProber()
    stage.settle(controller := stage.controller())
    assert controller.memory.suspects == set()
    prober.not_ready[WELD] = "nothing listens"
    stage.platform.crashing = {WELD: "task: non-zero exit (1)"}
    assert weld(controller).detail == "not ready: nothing listens"
    assert controller.memory.suspects == {WELD}
    assert weld(controller).detail == "task: non-zero exit (1)"
    prober.not_ready.clear()  # it answers between two ends
    assert weld(controller).condition is Condition.DEGRADED
    stage.platform.crashing = {}
    assert weld(controller).condition is Condition.READY
    assert controller.memory.suspects == set()


def test_a_bug_of_the_prober_ends_no_cycle() -> None:
    """What was known stays, and the bug is counted."""
    stage = make_stage()
    stage.prober = prober = FakeProber()
    stage.settle(controller := stage.controller())
    prober.fails = True
    assert weld(controller).condition is Condition.READY
    counted = controller.reporter.metrics.bugs.labels(Part.PROBE)
    assert counted._value.get() == 1


def test_a_command_continues_from_what_the_running_operator_found() -> None:
    """It probes nothing itself: it may be outside of the services' network."""
    stage = make_stage()
    stage.prober = FakeProber({WELD: "no Kafka"})
    controller = stage.controller()
    for _ in range(3):
        controller.cycle()
    stage.prober = None
    reader = stage.controller()
    assert weld(reader).condition is Condition.READY
    restore(reader, Counters.model_validate_json(make_counters(controller).model_dump_json()))
    assert weld(reader).detail == "not ready: no Kafka"
    assert reader.memory.readiness == controller.memory.readiness
    restore(reader, Counters.model_validate_json(make_counters(stage.controller()).model_dump_json()))
    assert reader.memory.readiness is None


def why(controller: Controller, stage: Stage) -> str:
    """Return the explanation of Weld after a cycle."""
    outcome = controller.cycle()
    assert outcome.plan is not None
    assert outcome.survey is not None
    document = explain_group("Weld", make_context(controller, outcome.survey, outcome.plan, stage.wall), "a test")
    assert document is not None
    return why_text(document)


def test_why_says_what_the_tasks_answered_and_what_to_set() -> None:
    """A line with the state, since when and the reason; then the variables of port and path."""
    stage = make_stage(fastapi_group_ready_path="")
    stage.prober = prober = FakeProber()
    stage.settle(controller := stage.controller())
    text = why(controller, stage)
    assert "readiness ready for 100 s\n" in text
    assert "FASTAPI_GROUP_PORT" not in text
    prober.not_ready[WELD] = "nothing listens on port 8000 (FASTAPI_GROUP_PORT)"
    text = why(controller, stage)
    assert "readiness not ready for 100 s: nothing listens on port 8000 (FASTAPI_GROUP_PORT)\n" in text
    assert "asked at FASTAPI_GROUP_PORT (8000), path FASTAPI_GROUP_READY_PATH (empty): set what the image has" in text
    stage.prober = None
    text = why(stage.controller(), stage)
    assert "readiness" not in text
    assert "compare FASTAPI_GROUP_PORT (8000)" in text


def test_the_loop_and_once_probe_and_count_and_commands_that_read_do_not() -> None:
    """A command may run where no service's name resolves."""
    with task(READY) as one:
        options = {"environment": "local", "swarm_node_host": "127.0.0.1", "fastapi_group_port": one.port}
        settings = make_stage(**options).settings
        registry = CollectorRegistry()
        deps, loop, _, _ = make_loop(settings, Overrides(), Metrics(registry))
        live = LiveService("1", 1, "ofa_group_Weld", "ofa", group_spec(names_of("Weld"), settings, one.port), 1)
        assert loop.controller.deps.prober is deps.prober
        assert deps.prober is not None
        assert deps.prober.probe({WELD: live}, 0)[WELD].state is ReadyState.READY
    assert registry.get_sample_value("reconciler_probes_total", {"result": "ready"}) == 1
    assert registry.get_sample_value("reconciler_probes_total", {"result": "no_name"}) == 0
    assert make_preempting_controller(settings, Overrides(), "once")[0].deps.prober is not None
    reader = make_reader(settings)
    assert (reader.deps.prober, reader.reporter.journal.logs) == (None, False)
