"""What is planned for groups that sleep: actions, condition and registry; another installation's group stays."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.domain.actions import RecreateStream, UpdateService
from reconciler.domain.demand import DemandReport, GroupDemand, TaskDemand
from reconciler.domain.names import names_of
from reconciler.domain.services import LiveService, apply_in_place
from reconciler.domain.status import Condition, Plan
from reconciler.planning.guards import Verdict
from reconciler.planning.options import GroupFile, parse_groups_file
from reconciler.planning.plan import make_plan
from reconciler.planning.specs import group_spec
from reconciler.settings import Settings
from tests.unit.planning.tables import (
    NOW,
    document,
    live_registry,
    observed,
    plan_inputs,
    routing_layer,
    seen,
    service,
    settings,
    source,
    spec_of,
    state_api,
)

AT = int(NOW.timestamp()) + 500
OPTIONS = settings().model_copy(update={"idle_after": 100.0})


def plan(
    mark: bool,
    replicas: int,
    stream: str,
    idle: float | None,
    *,
    image: str = "",
    given: Settings = OPTIONS,
    read: bool = False,
    **more: object,
) -> Plan:
    """Plan Weld in this state, and Paint, which has clients; ``idle``: since when nobody asks for Weld, or None."""
    verdict, doubtful = more.pop("verdict", Verdict()), bool(more.pop("doubtful", False))
    shared = str(more.pop("shared", "ok"))
    there, stream = not stream.startswith("gone, "), stream.removeprefix("gone, ")
    registry = document(["Paint"] if mark else ["Paint", "Weld"]).model_copy(
        update={"asleep": {"Weld": AT - 200} if mark else {}}
    )
    made = live_registry(registry, 1, mounted=True)
    spec = replace(spec_of("Weld"), replicas=replicas)
    weld = service(replace(spec, image=image or spec.image), "ok")
    assert weld is not None
    weld = replace(weld, updated_at=NOW - timedelta(seconds=300), running=replicas)
    theirs = LiveService("t", 1, "ofa_group_Mill", "other", replace(spec_of("Mill"), replicas=0), 0)
    services = [
        weld if there else None,
        service(spec_of("Paint"), "ok"),
        theirs,
        state_api(),
        routing_layer(mounted=made.name),
    ]
    survey = seen(observed({"Weld": 1, "Paint": 1}, source({"Weld": stream, "Paint": "ok"}, shared), services, [made]))
    groups = {"Paint": GroupDemand(open=1), "Weld": GroupDemand(idle=idle or 0.0, open=int(idle == 0))}
    task = TaskDemand(registry.revision, complete=True, uptime=9000.0, groups=groups)
    report = None if idle is None else DemandReport(AT, (task,), True, doubtful, frozenset({"Weld"} if read else ()))
    inputs = plan_inputs(given, demand=report, baked=frozenset({"ofa_group_paint", "ofa_group_weld"}))
    return make_plan(survey, verdict, replace(inputs, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mark", "replicas", "stream", "idle", "actions", "condition", "in_registry"),
    [
        (False, 1, "ok", 5, "", "Ready", "served"),
        (False, 1, "ok", None, "", "Ready", "served"),
        (False, 1, "ok", 200, "publish_registry", "Asleep", "marked"),
        (False, 1, "paused", 200, "resume_stream", "Progressing", "served"),  # a person paused it
        (False, 0, "ok", 200, "update_service", "Progressing", "served"),  # a person stopped it
        (True, 1, "ok", 200, "pause_stream update_service", "Progressing", "marked"),
        (True, 0, "ok", 200, "pause_stream", "Progressing", "marked"),
        (True, 1, "paused", 200, "update_service", "Progressing", "marked"),
        (True, 0, "paused", 200, "", "Asleep", "marked"),
        (True, 0, "paused", None, "", "Asleep", "marked"),
        (True, 1, "ok", None, "", "Asleep", "marked"),
        (True, 0, "paused", 0, "resume_stream update_service", "Progressing", "marked"),
        (True, 0, "ok", 0, "update_service", "Progressing", "marked"),
        (True, 1, "paused", 0, "resume_stream", "Progressing", "marked"),
        (True, 1, "ok", 0, "publish_registry", "Ready", "served"),  # nothing was stopped yet
    ],
)
def test_a_group_falls_asleep_and_wakes(
    *, mark: bool, replicas: int, stream: str, idle: float | None, actions: str, condition: str, in_registry: str
) -> None:
    """First the registry, then query and service; back in the registry only once its service is ready."""
    made = plan(mark, replicas, stream, idle)
    assert [action.verb for action in made.actions] == actions.split()
    (weld,) = (item for item in made.items if item.group == "Weld")
    (paint,) = (item for item in made.items if item.group == "Paint")
    assert (weld.condition, paint.condition) == (Condition(condition), Condition.READY)
    assert made.registry is not None
    assert "Paint" in made.registry.groups
    found = "served" if "Weld" in made.registry.groups else "marked" if "Weld" in made.registry.asleep else "neither"
    assert found == in_registry
    assert made.settled is (not made.actions)
    assert made.in_sync is (not made.actions)


@pytest.mark.parametrize(
    ("mark", "replicas", "stream", "idle", "read", "actions", "in_registry"),
    [
        (True, 0, "moved-paused", 200, False, "resume_stream", "marked"),
        (True, 0, "moved-paused", 200, True, "resume_stream", "marked"),
        (True, 0, "moved", 200, False, "", "marked"),
        (True, 0, "moved", None, False, "", "marked"),
        (True, 0, "moved-paused", 0, False, "resume_stream update_service", "marked"),
        (True, 0, "moved", 0, False, "update_service", "marked"),
        (True, 1, "moved", 0, False, "", "marked"),
        (True, 1, "moved", 0, True, "recreate_stream publish_registry", "neither"),
        (True, 0, "moved", 200, True, "recreate_stream", "marked"),
        (True, 1, "ok", 0, False, "publish_registry", "served"),
        (False, 1, "moved", 0, False, "recreate_stream", "served"),
        (False, 1, "moved-paused", 0, False, "resume_stream", "served"),  # a person paused it
    ],
)
def test_a_stream_of_a_sleeping_group_moves_when_it_has_read_its_source(
    *, mark: bool, replicas: int, stream: str, idle: float | None, read: bool, actions: str, in_registry: str
) -> None:
    """What it has not read yet would be lost; the mark stays until then, also when a client asks."""
    made = plan(mark, replicas, stream, idle, read=read)
    assert [action.verb for action in made.actions] == actions.split()
    assert made.registry is not None
    found = "served" if "Weld" in made.registry.groups else "marked" if "Weld" in made.registry.asleep else "neither"
    assert found == in_registry
    (weld,) = (item for item in made.items if item.group == "Weld")
    assert weld.condition is (Condition.READY if stream == "ok" else Condition.PROGRESSING)


@pytest.mark.parametrize(
    ("mark", "replicas", "stream", "idle", "actions", "detail", "in_registry"),
    [
        (False, 1, "ok", 200, "", "paused; otherwise: update service", "served"),
        (False, 0, "ok", 0, "", "paused; otherwise: update service", "served"),  # a person stopped it
        (False, 1, "paused", 0, "", "paused; otherwise: resume its paused query", "served"),
        (True, 1, "ok", 200, "publish_registry", "paused; otherwise: update service", "served"),
        (True, 0, "paused", 200, "", "paused; asleep since", "marked"),
        (True, 0, "paused", None, "", "paused; asleep since", "marked"),
        (True, 0, "paused", 0, "resume_stream update_service", "paused; resume stream, update service", "marked"),
        (True, 0, "ok", 0, "update_service", "paused; update service", "marked"),
        (True, 1, "paused", 0, "resume_stream", "paused; resume stream", "marked"),
        (True, 1, "ok", 0, "publish_registry", "paused; otherwise: update service", "served"),
        (True, 1, "moved", 0, "", "paused; otherwise: its query catches up", "marked"),  # it moves after the pause
        (True, 0, "moved-paused", 0, "resume_stream update_service", "paused; resume stream", "marked"),
        (True, 0, "gone, paused", 0, "resume_stream", "paused; resume stream", "marked"),
        (True, 0, "gone, paused", 200, "", "paused; otherwise: create service", "marked"),
    ],
)
def test_a_group_of_which_nothing_is_written_wakes_as_it_was(
    *, mark: bool, replicas: int, stream: str, idle: float | None, actions: str, detail: str, in_registry: str
) -> None:
    """With the image that it has: that, a person wants to keep. It does not fall asleep."""
    made = plan(mark, replicas, stream, idle, image="group:theirs", held={"Weld": "paused"})
    assert [action.verb for action in made.actions] == actions.split()
    (weld,) = (item for item in made.items if item.group == "Weld")
    hidden = "gone" in stream or not (mark or replicas)  # a client would wait for the pause's end
    condition = Condition.DEGRADED if hidden else Condition.HELD
    assert (weld.condition, weld.detail[: len(detail)]) == (condition, detail)
    assert made.registry is not None
    assert "Paint" in made.registry.groups
    assert in_registry == ("served" if "Weld" in made.registry.groups else "marked")
    assert ("Weld" in made.registry.asleep) is (in_registry == "marked")
    for update in made.actions:
        if isinstance(update, UpdateService):
            assert [(one.field, one.wanted) for one in update.drift] == [("replicas", "1")]
            assert update.spec.image == "group:theirs"


def test_a_group_of_which_nothing_is_written_wakes_with_one_task() -> None:
    """Where it has no consumer group for more."""
    options = settings(fastapi_group_replicas=2)
    before = spec_of("Weld")
    wanted = group_spec(names_of("Weld"), options, None)
    assert [
        apply_in_place(replace(before, replicas=live), replace(wanted, replicas=want)).replicas
        for live, want in [(0, 2), (0, 0), (1, 2), (1, 0)]
    ] == [1, 0, 1, 0]


def test_no_setting_is_named_for_the_tasks_that_a_sleeping_group_has_not() -> None:
    """It is not the setting that says 0."""
    own = parse_groups_file('[groups."Weld"]\nreplicas = 1\n')
    made = plan(mark=True, replicas=1, stream="paused", idle=200, options=own)
    (weld,) = (item for item in made.items if item.group == "Weld")
    assert weld.detail == "update service: replicas 1 -> 0 (asleep)"


def test_switched_off_all_wake() -> None:
    """Whatever is reported, and without a report."""
    made = plan(mark=True, replicas=0, stream="paused", idle=None, given=settings())
    assert [action.verb for action in made.actions] == ["resume_stream", "update_service"]
    made = plan(mark=True, replicas=1, stream="ok", idle=None, given=settings())
    assert [action.verb for action in made.actions] == ["publish_registry"]
    assert made.actions[-1].woken == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("mark", "replicas", "idle", "replicas_after"),
    [(True, 0, 200, None), (True, 0, 0, 1), (True, 1, 200, 0), (True, 1, None, None), (False, 0, 0, 1)],
)
def test_an_update_reaches_no_group_that_sleeps_falls_asleep_or_wakes(
    *, mark: bool, replicas: int, idle: float | None, replicas_after: int | None
) -> None:
    """It has shown that its spec works, and is updated when it is awake: then it shows whether the next one does."""
    stream = "paused" if mark and not replicas else "ok"
    made = plan(mark, replicas, stream, idle, image="group:old")
    updates = [(one.spec.replicas, one.spec.image) for one in made.actions if isinstance(one, UpdateService)]
    assert updates == ([] if replicas_after is None else [(replicas_after, "group:old")])
    (weld,) = (item for item in made.items if item.group == "Weld")
    assert weld.condition is (Condition.ASLEEP if replicas_after is None else Condition.PROGRESSING)


def test_a_group_falls_asleep_only_when_it_has_been_ready_for_a_while() -> None:
    """One that does not work, or was just updated, stays awake: it shows so, and has its way back."""
    assert "Weld" in plan(False, 1, "ok", 200).registry.asleep  # type: ignore[union-attr]
    assert "Weld" not in plan(False, 1, "ok", 200, baked=frozenset({"ofa_group_paint"})).registry.asleep  # type: ignore[union-attr]


@pytest.mark.parametrize("stream", ["moved-paused", "moved"])
@pytest.mark.parametrize("cause", ["no IDLE_AFTER", "its own is 0", "in doubt", "asked", "paused"])
def test_whatever_wakes_a_group_its_stream_moves_only_when_its_query_has_read_its_source(
    stream: str, cause: str
) -> None:
    """The mark in the registry decides, not the setting: what the query has not read would be lost."""
    never = parse_groups_file('[groups."Weld"]\nidle_after = 0\n')
    more: dict[str, dict[str, object]] = {
        "no IDLE_AFTER": {"given": settings()},
        "its own is 0": {"options": never},
        "in doubt": {"doubtful": True},
        "paused": {"held": {"Weld": "paused"}},
    }
    for read in (False, True):
        made = plan(True, 1, stream, 0 if cause in ("asked", "paused") else 200, read=read, **more.get(cause, {}))  # type: ignore[arg-type]
        verbs = [action.verb for action in made.actions]
        assert made.registry is not None
        moves = stream == "moved" and read
        assert ("resume_stream" in verbs) is (stream == "moved-paused")
        assert ("recreate_stream" in verbs) is (moves and cause != "paused")
        assert ("Weld" in made.registry.asleep) is not moves


def test_what_is_lost_with_a_topic_is_said() -> None:
    """A stream whose own topic was deleted is made again; what its paused query had not read is lost, and said."""
    for word in ("topicless", "topicless-paused"):
        (action,) = (one for one in plan(True, 0, word, 200).actions if isinstance(one, RecreateStream))
        assert action.topic_gone
        assert action.why.endswith("what its paused query has not read is lost") is (word == "topicless-paused")


def test_a_group_keeps_its_mark_while_its_query_cannot_be_resumed() -> None:
    """The shared stream has lost its query: soon the group's stream moves, and what its query has not read is lost."""
    for given in (OPTIONS, settings()):
        made = plan(True, 0, "paused", 0, shared="silent", given=given)
        assert "resume_stream" not in [action.verb for action in made.actions]
        assert made.registry is not None
        assert "Weld" in made.registry.asleep


@pytest.mark.parametrize("stream", ["paused", "moved-paused"])
def test_a_group_gets_its_tasks_where_ksqldb_takes_no_statement(stream: str) -> None:
    """Only its query needs ksqlDB; it is in the registry when that runs. What falls asleep waits for both."""
    made = plan(True, 0, stream, 0, verdict=Verdict(ddl=False))
    assert made.registry is not None
    assert [action.verb for action in made.actions if action.group] == ["update_service"]
    assert "Weld" not in made.registry.groups
    assert [action.verb for action in plan(True, 1, "ok", 200, verdict=Verdict(ddl=False)).actions] == []


def test_a_stopped_group_gets_no_task_before_its_stream_is_made() -> None:
    """A missing stream is no paused query."""
    assert not [one for one in plan(True, 0, "absent", 0, verdict=Verdict(ddl=False)).actions if one.group]


@pytest.mark.parametrize(
    ("own", "sleeps"), [("", True), ("idle_after = 0", False), ("idle_after = 250", False), ("idle_after = 150", True)]
)
def test_a_group_may_have_a_time_of_its_own(own: str, sleeps: bool) -> None:
    """In groups.toml; nobody has asked for 200 seconds, and `IDLE_AFTER` is 100."""
    assert ("Weld" in asleep_with(parse_groups_file(f'[groups."Weld"]\n{own}\n'), {})) is sleeps


def test_a_group_of_which_nothing_is_written_does_not_fall_asleep() -> None:
    """Its entry in the registry stays."""
    assert not asleep_with(GroupFile(), {"Weld": "paused until tomorrow"})


def asleep_with(file: GroupFile, held: dict[str, str]) -> set[str]:
    """Weld, for which nobody has asked for 200 seconds: return the groups that the next registry marks."""
    registry = document(["Weld"])
    weld = service(spec_of("Weld"), "ok")
    assert weld is not None
    services = [replace(weld, updated_at=NOW - timedelta(seconds=300)), state_api(), routing_layer()]
    world = observed({"Weld": 1}, source({"Weld": "ok"}, "ok"), services, [live_registry(registry, 1, mounted=True)])
    task = TaskDemand(registry.revision, complete=True, uptime=9000.0, groups={"Weld": GroupDemand(idle=200.0)})
    report, baked = DemandReport(AT, (task,), complete=True), frozenset({"ofa_group_weld"})
    inputs = plan_inputs(OPTIONS, demand=report, held=held, baked=baked)
    inputs = replace(inputs, options=file)
    made = make_plan(seen(world), Verdict(), inputs).registry
    assert made is not None
    assert held.keys() <= made.groups.keys()
    return set(made.asleep)
