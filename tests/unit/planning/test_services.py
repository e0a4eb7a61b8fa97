"""What is planned for services: their health, the advice in it, and the routing layer; a line a case."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from openfactory_common.registry import Registry
from reconciler.domain.actions import RemoveService
from reconciler.domain.readiness import Readiness, ReadyState
from reconciler.domain.services import Kind, LiveService, Port, Publish, ServiceSpec
from reconciler.domain.status import Condition, Reason
from reconciler.planning.services import note_no_endpoint, note_unmanaged, plan_routing_layer, plan_service
from tests.harness.fake_platform import INSTALLATION
from tests.unit.planning.tables import (
    document,
    live_registry,
    observed,
    plan_inputs,
    routing_layer,
    rows,
    seen,
    service,
    settings,
    source,
    spec_of,
)

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def live(
    running: int, wanted: int = 1, update: str = "", error: str = "", waits: str = "", kind: Kind = Kind.GROUP
) -> LiveService:
    """Return a service without drift."""
    ports = (Port(8000, 6001, Publish.HOST),)
    group = "Weld" if kind is Kind.GROUP else None
    spec = ServiceSpec("ofa_x", kind, group, "a:1", {}, wanted, 1.0, 0.5, network="net-a", ports=ports)
    spec = replace(spec, installation=INSTALLATION.id)
    return LiveService("1", 1, spec.name, "ofa", spec, running, update, error, waits, AT, INSTALLATION.id)


NEW = "1 task in state new"
SERVICES = [
    (live(1), False, Condition.READY, ""),
    (live(1), True, Condition.READY, ""),
    (live(2, 2), False, Condition.READY, ""),
    (live(0), False, Condition.PROGRESSING, "0 of 1 tasks are running and healthy"),
    (live(0, waits=NEW), False, Condition.PROGRESSING, f"0 of 1 tasks are running and healthy ({NEW})"),
    (live(0, waits=NEW), True, Condition.DEGRADED, "no address is free in the network net-a"),
    (live(1, 2, waits=NEW), True, Condition.DEGRADED, "no progress since 2026-01-02 03:04:05 UTC: 1 of 2 tasks are"),
    (live(0), True, Condition.DEGRADED, "check `docker service ps ofa_x`"),
    (live(0, error="No such image: a:1", waits=NEW), False, Condition.DEGRADED, "No such image: a:1"),
    (live(2), False, Condition.PROGRESSING, "2 tasks run, 1 wanted: an orphan task"),
    (live(2), True, Condition.DEGRADED, "no progress since 2026-01-02 03:04:05 UTC: 2 tasks run, 1 wanted"),
    (live(1, 0), False, Condition.PROGRESSING, "1 tasks run, 0 wanted: an orphan task"),
    (live(0, 0), False, Condition.READY, ""),
    (live(1, update="updating"), False, Condition.PROGRESSING, "its update is in progress"),
    (live(2, update="updating"), False, Condition.PROGRESSING, "its update is in progress"),
    (live(1, update="updating", waits="1 task in state preparing"), True, Condition.DEGRADED, "pulls a:1"),
    (live(1, update="updating", error="x"), True, Condition.DEGRADED, "update is stuck: x"),
    (live(1, update="paused", error="x"), False, Condition.DEGRADED, "update paused: x"),
    (live(1, update="completed"), True, Condition.READY, ""),
]


@pytest.mark.parametrize(("found", "stalled", "condition", "detail"), SERVICES)
def test_a_service_is_ready_only_as_it_should_be(
    found: LiveService, stalled: bool, condition: Condition, detail: str
) -> None:
    """Too few tasks, too many, an update: progressing, and degraded once there was no progress for too long."""
    assert found.spec is not None
    survey = seen(observed({}, source({}), [found]))
    stuck = plan_inputs(stalled=frozenset({found.name} if stalled else ()))
    item = plan_service(survey, stuck, found.spec).item
    assert item.condition is condition
    assert detail in item.detail
    assert bool(detail) == bool(item.detail)


GOOD, BAD, FAR = Readiness(ReadyState.READY), Readiness(ReadyState.NOT_READY, "no Kafka"), ReadyState.UNREACHABLE
CRASHED = "task: non-zero exit (1)"
PROBED = [
    # the service, what its probes found ("-": nothing is probed), whether it just started; what is said, if it serves
    (live(1), "-", False, Condition.READY, "", True),
    (live(1), GOOD, False, Condition.READY, "", True),
    (live(1), Readiness(ReadyState.READY, "a note"), False, Condition.READY, "", True),
    (live(1), Readiness(FAR), False, Condition.READY, "", True),
    (live(1), None, False, Condition.PROGRESSING, "its readiness is being checked", False),
    (live(1), BAD, True, Condition.PROGRESSING, "not ready yet: no Kafka", False),
    (live(1), BAD, False, Condition.DEGRADED, "not ready: no Kafka", False),
    (live(1, error=CRASHED), BAD, False, Condition.DEGRADED, CRASHED, False),
    (live(1, error=CRASHED), BAD, True, Condition.DEGRADED, CRASHED, False),
    (live(1, error=CRASHED), GOOD, False, Condition.DEGRADED, CRASHED, False),
    (live(1, error=CRASHED), "-", False, Condition.DEGRADED, CRASHED, False),
    (live(0), None, False, Condition.PROGRESSING, "0 of 1 tasks are running and healthy", False),
    (live(0, error=CRASHED), None, False, Condition.DEGRADED, CRASHED, False),
    (live(2), None, False, Condition.PROGRESSING, "2 tasks run, 1 wanted: an orphan task", False),
    (live(2), "-", False, Condition.PROGRESSING, "2 tasks run, 1 wanted: an orphan task", True),
    (live(1, update="updating"), None, False, Condition.PROGRESSING, "its update is in progress", False),
    (live(1, update="paused", error="x"), None, False, Condition.DEGRADED, "update paused: x", False),
    (live(1, update="paused", error="x"), GOOD, False, Condition.DEGRADED, "update paused: x", True),
    (live(1, update="updating", error="x"), "-", False, Condition.DEGRADED, "update is stuck: x", True),
    (live(1, update="updating"), GOOD, False, Condition.PROGRESSING, "its update is in progress", True),
    (live(1, update="updating"), BAD, False, Condition.PROGRESSING, "its update is in progress", False),
    (live(0, 0), None, False, Condition.READY, "", False),
]


@pytest.mark.parametrize(("found", "readiness", "starting", "condition", "detail", "serves"), PROBED)
def test_a_service_serves_when_its_tasks_say_so(
    found: LiveService,
    readiness: Readiness | str | None,
    starting: bool,
    condition: Condition,
    detail: str,
    serves: bool,
) -> None:
    """The engine's view comes first, because it says why tasks do not run; then what the tasks answer."""
    assert found.spec is not None
    known = {"ofa_x": readiness} if isinstance(readiness, Readiness) else {}
    inputs = plan_inputs(
        readiness=None if readiness == "-" else known, starting=frozenset({"ofa_x"} if starting else ())
    )
    item = plan_service(seen(observed({}, source({}), [found])), inputs, found.spec).item
    assert (item.condition, item.detail, item.serves) == (condition, detail, serves)
    assert item.reason is (Reason.NOT_READY if detail.startswith("not ready: ") else None)


def test_groups_without_a_readiness_endpoint_are_named_in_one_note() -> None:
    """With how to say that this is intended; the other services have no such setting."""
    note = "no readiness endpoint at /ready (404): any answer to HTTP counts"
    services = [service(spec_of(group), "ok") for group in ("Weld", "Paint", "Fit")]
    services.append(replace(live(1, kind=Kind.STATE_API), name="ofa_state_api"))
    readiness = {
        "ofa_group_weld": Readiness(ReadyState.READY, note),
        "ofa_group_paint": Readiness(ReadyState.READY, note),
        "ofa_group_fit": GOOD,
        "ofa_state_api": Readiness(ReadyState.READY, note),
        "ofa_group_gone": Readiness(ReadyState.READY, note),
    }
    survey = seen(observed({}, source({}), services))
    path = settings(fastapi_group_image="group-service:1")
    (text,) = note_no_endpoint(survey, plan_inputs(path, readiness=readiness))
    assert text.startswith("readiness of Paint, Weld: the image answers 404 to GET /ready (FASTAPI_GROUP_READY_PATH)")
    assert list(note_no_endpoint(survey, plan_inputs(readiness={"ofa_group_fit": GOOD}))) == []
    assert list(note_no_endpoint(survey, plan_inputs())) == []


IMAGE, PORT = "No such image: a:1", "host-mode port already in use on 1 node"
ADVICE = [
    (Kind.GROUP, IMAGE, IMAGE),  # `reconciler why` gives the advice for a group
    (Kind.STATE_API, IMAGE, f"{IMAGE}; push the image, or correct STATE_API_IMAGE (a:1)"),
    (Kind.ROUTING_LAYER, IMAGE, f"{IMAGE}; push the image, or correct ROUTING_LAYER_IMAGE (a:1)"),
    (Kind.GROUP, PORT, f"{PORT}; port 6001 (FASTAPI_GROUP_PORT_BASE) is taken on the node"),
    (Kind.STATE_API, PORT, f"{PORT}; port 6001 (FASTAPI_GROUP_PORT_BASE) is taken on the node"),
    (Kind.STATE_API, "an unknown error", "an unknown error"),
]


@pytest.mark.parametrize(("kind", "error", "detail"), ADVICE)
def test_an_engines_error_has_its_advice_where_nothing_else_gives_it(kind: Kind, error: str, detail: str) -> None:
    """The engine does not name the port, so that is always said."""
    found = live(0, error=error, kind=kind)
    assert found.spec is not None
    text = plan_service(seen(observed({}, source({}), [found])), plan_inputs(), found.spec).item.detail
    assert text.startswith(detail)
    assert (text == detail) == (";" not in detail or detail.endswith("(a:1)"))


NO_REGISTRY = """
    # groups  live      condition  detail
    no        absent    Ready      -
    no        ok        Ready      -
    yes       ok        Ready      -
    yes       absent    Held       create service ofa_routing_layer, once a group is ready and the first registry is \
published
"""


@pytest.mark.parametrize(("groups", "word", "condition", "detail"), rows(NO_REGISTRY))
def test_the_routing_layer_waits_for_the_first_registry(groups: str, word: str, condition: str, detail: str) -> None:
    """It is announced where it will be created, and hidden (detail ``-``) everywhere else."""
    survey = seen(observed({"Weld": 1} if groups == "yes" else {}, source({}), [routing_layer(word)]))
    planned = plan_routing_layer(survey, plan_inputs(), None)
    assert (planned.item.condition, planned.item.detail) == (condition, detail or "-")
    assert planned.actions == ()


LOCAL = """
    # live         published  condition  removed
    absent         yes        Ready      no
    unlabelled     yes        Ready      no
    other's        yes        Ready      no
    global         yes        Ready      no
    theirs         yes        Ready      no
    ok             no         Leaving    no
    ok             yes        Leaving    yes
"""


@pytest.mark.parametrize(("word", "published", "condition", "removed"), rows(LOCAL))
def test_a_routing_layer_is_removed_beside_runserver(word: str, published: str, condition: str, removed: str) -> None:
    """With ``ENVIRONMENT=local``, if it is ours and once the registry with the new addresses is published."""
    current = document(["Weld"])
    made = live_registry(current if published == "yes" else document([]), 1)
    survey = seen(observed({"Weld": 1}, source({"Weld": "ok"}), [routing_layer(word)], [made]))
    planned = plan_routing_layer(survey, plan_inputs(settings(environment="local")), current)
    assert planned.item.condition == condition
    assert [type(action) for action in planned.actions] == ([RemoveService] if removed == "yes" else [])


#: Documents by their numbers; the routing layer mounts one of them. The newest is current.
ROLLS = """
    # numbers  mounted  aged  renewed
    1          1        -     no
    1 2        1        -     no
    1 2        1        2     yes
    1 2        2        2     no
    1 2 3      1        3     no     # the second made the first outdated
    1 2 3      1        2     yes
    1 2 3      2        2     no
    1 2 3      2        3     yes
    1 2        9        -     yes    # the mounted document is unknown
    2 2        2        -     no     # equal numbers: the next publication makes it outdated
"""


@pytest.mark.parametrize(("numbers", "mounted", "aged", "renewed"), rows(ROLLS))
def test_when_the_mounted_registry_is_renewed(numbers: str, mounted: str, aged: str, renewed: str) -> None:
    """Once another document has been current for long enough: a new mount is a new task, which cuts every stream."""
    groups = [["A"], ["A", "B"], ["A", "B", "C"]]
    documents = [
        live_registry(document(groups[at]), int(number), name=f"r{at}-{number}")
        for at, number in enumerate(numbers.split())
    ]
    at = next((one.name for one in reversed(documents) if one.sequence == int(mounted)), "gone")
    aged_names = frozenset(one.name for one in documents if aged and one.sequence == int(aged))
    survey = seen(observed({}, source({}), [routing_layer(mounted=at)], documents))
    newest: Registry = document(["A", "B", "C", "D"])
    planned = plan_routing_layer(survey, plan_inputs(aged=aged_names), newest)
    assert bool(planned.actions) == (renewed == "yes")


def test_a_registry_is_mounted_anew_with_any_other_change() -> None:
    """The task is replaced anyway, so it starts from the newest document."""
    first, second = live_registry(document([]), 1, name="r1"), live_registry(document(["A"]), 2, name="r2")
    survey = seen(observed({}, source({}), [routing_layer(mounted="r1")], [first, second]))
    (update,) = plan_routing_layer(survey, plan_inputs(settings(routing_layer_replicas=3)), document(["A"])).actions
    assert {"configs", "replicas"} <= {one.field for one in update.drift}  # type: ignore[attr-defined]


def test_unmanaged_services_are_named_in_the_number_of_their_verb() -> None:
    """Copies of ours: one is, several are; five are named at most."""
    copies = [replace(live(1), name=f"copy-{number}") for number in range(7)]
    for count, text in ((1, "1 service carries our label"), (2, "2 services carry our label"), (7, "and 2 more;")):
        (note,) = note_unmanaged(seen(observed({}, source({}), copies[:count])), settings())
        assert text in note
    assert list(note_unmanaged(seen(observed({}, source({}))), settings())) == []
    own = service(spec_of("Weld"), "ok")
    assert list(note_unmanaged(seen(observed({"Weld": 1}, source({}), [own])), settings())) == []
