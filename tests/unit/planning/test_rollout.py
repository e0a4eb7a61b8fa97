"""Rollouts: which groups are updated, wait, are held or rolled back; a line a case, and any rollout to its end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.domain.actions import ResubmitService, RollBackService, UpdateService
from reconciler.domain.demand import DemandReport, TaskDemand
from reconciler.domain.names import GroupNames, names_of
from reconciler.domain.readiness import Readiness, ReadyState
from reconciler.domain.services import LiveService, ServiceSpec, apply_in_place, drift
from reconciler.domain.status import Condition, Plan, Reason
from reconciler.planning import plan as plan_module
from reconciler.planning.guards import Verdict
from reconciler.planning.options import GroupFile, parse_groups_file
from reconciler.planning.plan import make_plan
from reconciler.planning.rollout import template_hash
from reconciler.planning.specs import group_spec
from reconciler.settings import Settings
from tests.harness.fake_platform import INSTALLATION
from tests.harness.rollouts import Rollout, away_of
from tests.unit.planning import tables
from tests.unit.planning.tables import (
    document,
    live_registry,
    observed,
    plan_inputs,
    rows,
    seen,
    service,
    source,
    spec_of,
    state_api,
)

ERROR = "task: non-zero exit (1)"
#: What each word says of a group's service: its fields, then the inputs that name it.
STATES: dict[str, tuple[dict[str, object], str]] = {
    "old": ({}, "baked"),
    "old-away": ({"running": 0, "error": "no suitable node"}, "overdue"),
    "old-late": ({"running": 0}, "overdue"),
    "old-fell": ({"running": 0, "error": ERROR}, "overdue fallen"),
    "old-starting": ({"running": 0}, ""),
    "rolled-back": ({"failed": template_hash(tables.settings()), "failure": ERROR}, "baked"),
    "failed-once": ({"failed": "0123456789ab", "failure": ERROR}, "baked"),
    "new": ({}, "baked overdue"),
    "fresh": ({}, "on_trial"),
    "starting": ({"running": 0}, "on_trial"),
    "bad": ({"running": 0, "error": ERROR}, "on_trial overdue"),
    "bad-early": ({"running": 0, "error": ERROR}, "on_trial"),
    "bad-long-ago": ({"running": 0, "error": ERROR}, "overdue"),
    "bad-past": ({"running": 0, "error": ERROR}, "overdue past"),
    "pulls": ({"running": 0, "waits": "1 task in state preparing", "update_state": "updating"}, "on_trial overdue"),
    "no-pull": (
        {"running": 0, "waits": "1 task in state preparing", "update_state": "updating", "error": ERROR},
        "on_trial overdue",
    ),
    "stuck": ({"running": 0, "update_state": "updating"}, "overdue"),
    "given-up": ({"update_state": "paused", "error": ERROR}, ""),
    "no-way-back": ({"running": 0, "error": ERROR, "previous": None}, "on_trial overdue"),
    "old-asleep": ({}, "baked overdue"),
    "new-asleep": ({}, "baked overdue"),
    "old-wakes": ({}, "baked overdue"),
    "too-many": ({"running": 2}, "on_trial overdue"),
    "new-asleep-kept": ({"running": 1}, "on_trial overdue"),
    "rolled-back-asleep": ({"failed": template_hash(tables.settings()), "failure": ERROR}, "baked overdue"),
    "old-woken": ({"running": 0}, ""),
    "old-woken-ready": ({}, ""),
    "old-woken-late": ({"running": 0}, "overdue"),
    "old-woken-broken": ({"running": 0, "error": "no such image"}, ""),
    "old-woken-fell": ({"running": 0, "error": "no such image"}, "fallen on_trial"),
    "new-woken-broken": ({"running": 0, "error": ERROR}, "on_trial overdue"),
    "never-was": ({"running": 0, "error": ERROR, "failure": "no suitable node"}, "on_trial overdue"),
}


def plan_of(words: list[str], options: Settings, tasks: int = 1, file: GroupFile | None = None, **more: object) -> Plan:
    """Plan groups A, B, ... in these states, with this number of tasks each, and what the file says of them."""
    file = file or GroupFile()
    live: list[LiveService | None] = [state_api()]
    named: dict[str, set[str]] = {name: set() for name in ("baked", "overdue", "on_trial", "past", "fallen")}
    for group, word in zip("ABCDEFGH", words, strict=False):
        own = file.of_service(group, tables.settings())
        made = service(group_spec(names_of(group), tables.settings(), None, own), "ok")
        assert made is not None
        assert made.spec is not None
        made = replace(made, spec=replace(made.spec, replicas=tasks), running=tasks)
        if "asleep" in word or word.endswith("wakes"):
            made = replace(made, spec=replace(made.spec, replicas=0), running=0)
        assert made.spec is not None
        before = replace(made.spec, image="old:1")
        old = word.startswith(("old", "rolled-back", "failed-once"))
        made = replace(made, spec=before if old else made.spec, previous=None if old else before)
        if "woken" in word and made.spec is not None:
            made = replace(made, previous=replace(made.spec, replicas=0))
        fields, inputs = STATES[word]
        live.append(replace(made, **fields))  # type: ignore[arg-type]
        for name in inputs.split():
            named[name].add(made.name.casefold())
    members = dict.fromkeys("ABCDEFGH"[: len(words)], 1)
    asleep = [group for group, word in zip("ABCDEFGH", words, strict=False) if "asleep" in word]
    options = options.model_copy(update={"idle_after": 100.0}) if asleep else options
    registry = document(set(members) - set(asleep)).model_copy(update={"asleep": dict.fromkeys(asleep, 1)})
    streams = {group: "paused" if group in asleep else "ok" for group in members}
    registries = [live_registry(registry, 1)] if asleep else []
    survey = seen(observed(members, source(streams), live, registries), options)
    given = {name: frozenset(found) for name, found in named.items()}
    return make_plan(survey, Verdict(), replace(plan_inputs(options, **given, **more), options=file))


def said(plan: Plan) -> str:
    """What is done about each group, in a word."""
    done = {action.group: action for action in plan.actions if isinstance(action, UpdateService)}
    words = []
    for item in plan.items:
        if item.group is not None:
            action = done.get(item.group)
            verb = {RollBackService: "back", UpdateService: "update", type(None): ""}[type(action)]
            verb = "wakes" if action is not None and [one.field for one in action.drift] == ["replicas"] else verb
            held = {Condition.HELD: "held", Condition.PROGRESSING: "waits", Condition.DEGRADED: "wrong"}
            words.append(verb or held.get(item.condition, "."))
    return " ".join(words)


PLANS = """
    # groups                              parallel  what is done
    old                                   1         update
    old old old                           1         update waits waits
    old old-away old                      1         waits update waits
    old old-late old                      1         waits update waits
    old old-starting old                  1         waits update waits
    starting old old                      1         waits waits waits
    fresh old old                         1         . waits waits
    new old old                           1         . update update
    new old old old old                   0.25      . update waits waits waits
    new starting old old old              0.25      . waits waits waits waits
    new fresh old old old                 0.25      . . waits waits waits
    new starting old old old              0.4       . waits update waits waits
    new old old old-away old              0.25      . waits waits update waits
    bad old old                           1         back held held
    bad-early old old                     1         wrong waits waits
    given-up old old                      1         back held held
    stuck old old                         1         back held held
    bad-long-ago old old                  1         wrong held held
    no-way-back old old                   1         wrong held held
    new new bad old                       1         . . back held
    new bad bad old                       0.5       . back back held
    new bad bad old                       0.25      . wrong wrong held
    bad old-fell                          1         wrong wrong
    bad old-fell old-fell old-fell        0.25      wrong wrong wrong wrong
    bad old-fell old-fell old-fell        1         wrong wrong wrong wrong
    bad old-fell old old                  0.5       back wrong held held
    bad old-late old-late old-late        0.25      back waits waits waits
    pulls old old                         1         waits waits waits
    new pulls old                         0.25      . waits waits
    no-pull old old                       1         back held held
    new bad-past old                      1         . wrong update
    rolled-back old old                   1         wrong held held
    failed-once old old                   1         update waits waits
    too-many old old                      1         waits waits waits
    new too-many old old                  0.5       . waits update waits
    new new-asleep-kept old               1         . waits update
    never-was old old                     1         wrong update waits
    never-was old-away old                1         wrong wrong update
    never-was old-away                    1         wrong update
    never-was new old                     1         wrong . update
    new bad-long-ago                      1         . wrong
    new new bad                           1         . . back
    never-was new                         1         wrong .
    old old-asleep                        1         update .
    bad old-fell old-asleep old-asleep old-asleep old-asleep old-asleep old-asleep  0.25  wrong wrong . . . . . .
    bad old-woken-fell old old            0.25      back wrong held held
    starting old-asleep new-asleep        1         waits . .
    fresh old-asleep                      1         . .
    new fresh old-asleep                  1         . . .
    bad old-asleep                        1         back .
    bad-past new old-asleep               1         wrong . .
    new old-asleep old-asleep             1         . . .
    new old old-asleep old-asleep         1         . update . .
    old old old-asleep old-asleep         0.5       update waits . .
    new-asleep old-asleep                 1         . .
    new-asleep old old                    1         . update waits
    old-asleep old-asleep                 1         . .
    old-wakes old-asleep                  1         wakes .
    new old-wakes old-asleep              1         . wakes .
    fresh old-wakes old-asleep            1         . wakes .
    bad old-wakes old-asleep              1         back wakes .
    rolled-back-asleep old                1         . held
    rolled-back-asleep new                1         . .
    old-woken old-asleep                  1         waits .
    old-woken old                         1         waits update
    new old-woken old                     1         . waits update
    old-woken-ready old-asleep            1         update .
    old-woken-late old                    1         update waits
    old-woken-broken old                  1         update waits
    bad old-woken-broken old              1         back wrong held
    new-woken-broken old                  1         wrong update
    new-woken-broken new                  1         wrong .
"""


@pytest.mark.parametrize(("words", "parallel", "done"), rows(PLANS))
def test_what_is_done_about_each_group(words: str, parallel: str, done: str) -> None:
    """One group first, then a fraction at a time; nothing while one has failed, which gets its spec back."""
    options = tables.settings(rollout_max_parallel=float(parallel))
    assert said(plan_of(words.split(), options)) == done


#: Groups whose names are in the second column have memory of their own.
TEMPLATES = """
    # groups                own   parallel  what is done
    bad old old old         A     1         back update waits waits
    bad old new old         AB    1         back held . update
    bad new old old         A     1         back . update update
    new old old old         A     1         . update waits waits
    old new new new         A     1         update . . .
    old old old old         AB    1         update waits waits waits
    starting old old old    A     1         waits waits waits waits
    old new old new         AB    1         update . update .
    old new old new         AB    0.25      update . waits .
    rolled-back old old     A     1         update waits waits
    old rolled-back old     A     1         update wrong held
    bad bad old old         A     1         back back held held
    bad bad new old         AB    1         wrong wrong . update
    never-was old old old   A     1         wrong update waits waits
    bad old-fell old-fell   A     1         wrong update wrong
    bad bad-past new        A     1         back wrong .
"""


@pytest.mark.parametrize(("words", "own", "parallel", "done"), rows(TEMPLATES))
def test_what_one_template_shows_halts_no_other(words: str, own: str, parallel: str, done: str) -> None:
    """Each has its own first group; all together are updated no faster, so a bad image cannot take all at once."""
    file = parse_groups_file("".join(f'[groups.{name}]\nmemory_limit = "1g"\n' for name in own))
    assert said(plan_of(words.split(), tables.settings(rollout_max_parallel=float(parallel)), file=file)) == done


def test_a_group_with_options_of_its_own_has_another_template() -> None:
    """So what failed of one is not taken for the other; what replaces no task tells none apart."""
    options = tables.settings()
    file = parse_groups_file('[groups.A]\nimage = "gpu:1"\n[groups.B]\nkeep = true\nidle_after = "1m"\n')
    found = {name: template_hash(options, file.of_service(name, options)) for name in "ABC"}
    assert found["A"] != found["B"] == found["C"] == template_hash(options)
    plan = plan_of(["bad", "old"], options, file=file)
    (action,) = (one for one in plan.actions if isinstance(one, RollBackService))
    assert action.failed == found["A"]


def test_a_group_that_wakes_while_the_rollout_is_halted_has_its_old_image() -> None:
    """Its clients are served, and a bad image reaches it neither asleep nor awake. What sleeps is no part of it."""
    plan = plan_of(["bad", "old-wakes", "old-asleep"], tables.settings())
    (wakes,) = (one for one in plan.actions if isinstance(one, UpdateService) and one.group == "B")
    assert (wakes.spec.image, wakes.spec.replicas) == ("old:1", 1)
    asleep = next(item for item in plan.items if item.group == "C")
    assert (asleep.condition, asleep.reason) == (Condition.ASLEEP, None)


def test_where_all_sleep_the_rollout_waits_for_the_first_that_wakes() -> None:
    """Until then nothing is progressing: the plan is in sync, and says what will be done."""
    plan = plan_of(["old-asleep", "old-asleep"], tables.settings())
    assert not any(isinstance(one, UpdateService) for one in plan.actions)
    (first, _) = (item for item in plan.items if item.group)
    assert first.condition is Condition.ASLEEP
    image = tables.settings().fastapi_group_image
    assert first.detail.endswith(f'until a client asks; updated after its wake: image "old:1" -> "{image}"')
    assert "2 groups that sleep are updated after waking" in plan.notes
    assert (
        "1 group that sleeps is updated after waking" in plan_of(["new-asleep", "old-asleep"], tables.settings()).notes
    )
    paused = plan_of(["new", "old-asleep"], tables.settings(), held={"B": "paused"})
    assert not any("after waking" in note for note in plan_of(["new", "new-asleep"], tables.settings()).notes)
    assert not any("after waking" in note for note in paused.notes), "not before its pause ends"


@pytest.mark.parametrize("words", ["old-wakes new", "old-woken-ready new"])
def test_a_group_has_its_way_back_after_its_wake(words: str) -> None:
    """It wakes with what works, and only then gets another image: the engine keeps the one that it woke with."""
    (action,) = (one for one in plan_of(words.split(), tables.settings()).actions if isinstance(one, UpdateService))
    assert action.live.spec is not None
    assert (action.live.spec.replicas == 0) == (action.spec.image == "old:1")


def test_what_failed_of_a_group_stays_known_while_it_sleeps_and_when_it_wakes() -> None:
    """Its wake replaces no task, so it does not change what is known of the last update that did."""
    live = service(replace(spec_of("A"), image="old:1", replicas=0), "ok")
    assert live is not None
    live = replace(live, failed=template_hash(tables.settings()), failure=ERROR)
    plan = make_plan(seen(observed({"A": 1}, source({"A": "ok"}), [state_api(), live])), Verdict(), plan_inputs())
    (action,) = (one for one in plan.actions if isinstance(one, UpdateService))
    assert (action.spec.image, action.failed, action.failure) == ("old:1", live.failed, ERROR)


def test_what_a_person_changes_of_a_sleeping_service_is_repaired() -> None:
    """A task that was started by hand is stopped, and a label is repaired; the image follows after its wake."""
    options = tables.settings().model_copy(update={"idle_after": 100.0})
    registry = document([]).model_copy(update={"asleep": {"A": 1}})
    live = service(spec_of("A"), "ok")
    assert live is not None
    live = replace(live, spec=replace(spec_of("A"), image="theirs:1"))  # and without the installation's label
    task = TaskDemand(registry.revision, complete=True, uptime=9e9)
    report = DemandReport(500, (task,), complete=True)
    read = source({"A": "paused"})
    world = observed({"A": 1}, read, [state_api(), live], [live_registry(registry, 1)])
    plan = make_plan(seen(world, options), Verdict(), plan_inputs(options, demand=report))
    (action,) = (one for one in plan.actions if isinstance(one, UpdateService))
    assert "replicas" in [one.field for one in action.drift]
    assert (action.spec.replicas, action.spec.image, action.spec.installation) == (0, "theirs:1", INSTALLATION.id)


def test_a_bad_group_stays_for_a_person_where_that_is_asked_for() -> None:
    """With `ROLLOUT_ON_FAILURE=halt` nothing is rolled back, and the others are held."""
    plan = plan_of(["bad", "old"], tables.settings(rollout_on_failure="halt"))
    assert said(plan) == "wrong held"
    assert [item.detail for item in plan.items if item.group] == [
        f"{ERROR}; it halts the rollout",
        f"rollout halted by A: {ERROR}",
    ]


def test_a_rollback_gives_back_the_previous_spec_and_says_what_failed() -> None:
    """With as many tasks as are wanted now; the hash is that of what all groups have in common."""
    options = tables.settings()
    (action,) = (one for one in plan_of(["bad", "old"], options).actions if isinstance(one, RollBackService))
    assert (action.spec.image, action.failed, action.failure) == ("old:1", template_hash(options), ERROR)
    assert action.live.spec is not None
    assert [one.field for one in drift(action.live.spec, action.spec)] == ["image"]
    assert template_hash(options) != template_hash(tables.settings(fastapi_group_image="other:1"))
    two, five = (tables.settings(fastapi_group_replicas=number) for number in (2, 5))
    assert template_hash(two) == template_hash(five)


def test_a_held_group_says_why_and_the_plan_is_not_in_sync() -> None:
    """For programs by its reason, for `--once` by the plan."""
    plan = plan_of(["rolled-back", "old"], tables.settings())
    first, second = (item for item in plan.items if item.group)
    assert first.detail == f"the rollout failed and was rolled back: {ERROR}; change the settings to try again"
    assert second.detail == f"rollout halted by A: {ERROR}"
    assert {first.reason, second.reason} == {Reason.ROLLOUT}
    assert (plan.in_sync, plan.halted) == (False, f"group A: {first.detail}")
    held = Plan(items=(second,))
    assert (held.settled, held.in_sync) == (True, False), "there is nothing to wait for"
    assert Plan(items=(replace(second, reason=None),)).in_sync
    assert first.serves, "its previous spec serves"


def test_waves_are_named() -> None:
    """The plan says what comes when."""
    plan = plan_of(["old"] * 4, tables.settings(rollout_max_parallel=0.5))
    ends = [item.detail.partition(" (")[2] for item in plan.items if item.group]
    waits = "waits for its wave: 0 of 4 groups updated, wave {} of 3)"
    assert ends == ["wave 1 of 3)", waits.format(2), waits.format(2), waits.format(3)]


def test_what_replaces_no_task_waits_for_no_wave() -> None:
    """Another number of tasks goes to all groups at once, also to those that are held; what failed stays known."""
    options = tables.settings()
    plan = plan_of(["rolled-back", "old", "new"], options, tasks=3)
    done = [action for action in plan.actions if isinstance(action, UpdateService)]
    assert [[one.field for one in action.drift] for action in done] == [["replicas"]] * 3
    assert [action.spec.image for action in done] == ["old:1", "old:1", options.fastapi_group_image]
    assert done[0].failed == template_hash(options)


def test_a_group_that_was_not_ready_before_its_update_is_marked() -> None:
    """So that its old trouble is not taken for the new spec's."""
    plan = plan_of(["new", "old-away", "old", "failed-once"], tables.settings(rollout_max_parallel=1))
    marks = [(one.failed, one.failure) for one in plan.actions if isinstance(one, UpdateService)]
    assert marks == [("", "no suitable node"), ("", ""), ("", "")], "what failed of another image is history"


def test_no_group_is_updated_before_its_readiness_is_known() -> None:
    """After a start of the operator nothing is probed yet: a broken group would count as one that serves."""
    ready = {names_of("B").service.casefold(): Readiness(ReadyState.READY)}
    assert said(plan_of(["old", "old"], tables.settings(), readiness={})) == "waits waits"
    assert said(plan_of(["old", "old"], tables.settings(), readiness=ready)) == "waits update"


def test_a_group_with_a_task_too_many_is_rolled_back_only_if_it_does_not_serve() -> None:
    """What the engine keeps is no fault of the new spec; that the tasks do not serve may be."""
    for state, done in ((ReadyState.READY, "waits waits"), (ReadyState.NOT_READY, "back held")):
        readiness = {
            names_of(group).service.casefold(): Readiness(state if group == "A" else ReadyState.READY) for group in "AB"
        }
        assert said(plan_of(["too-many", "old"], tables.settings(), readiness=readiness)) == done


def test_what_the_last_update_left_is_kept_when_a_spec_is_written_again() -> None:
    """Why it was not ready before, and what failed of it before, stay known."""
    key = names_of("A").service.casefold()
    plan = plan_of(["too-many", "old"], tables.settings(), surplus=frozenset({key}))
    (cure,) = (one for one in plan.actions if isinstance(one, ResubmitService))
    assert (cure.live.name.casefold(), cure.spec, cure.drift) == (key, cure.live.spec, ())
    live = replace(cure.live, failed="0123456789ab", failure=ERROR)
    survey = seen(observed({"A": 1}, source({"A": "ok"}), [state_api(), live]))
    plan = make_plan(survey, Verdict(), plan_inputs(surplus=frozenset({key})))
    (cure,) = (one for one in plan.actions if isinstance(one, ResubmitService))
    assert (cure.failed, cure.failure) == ("0123456789ab", ERROR)


def test_a_contested_group_is_no_rollout() -> None:
    """Another writer keeps changing it: the others do not wait for the end of that."""
    contested = {f"service {names_of('A').service}": "contested: another writer changes image"}
    plan = plan_of(["old", "old", "new"], tables.settings(), contested=contested)
    assert said(plan) == "wrong update ."
    assert [item.reason for item in plan.items if item.group] == [Reason.CONTESTED, None, None]


@pytest.mark.parametrize("words", ["rolled-back old old", "bad old old"])
def test_a_contested_group_does_not_get_what_failed(words: str) -> None:
    """Neither the one that was rolled back, nor one that still has what works."""
    for group in "ABC":
        contested = {f"service {names_of(group).service}": "contested: another writer changes replicas"}
        plan = plan_of(words.split(), tables.settings(), contested=contested)
        given = [one.spec.image for one in plan.actions if isinstance(one, UpdateService)]
        assert set(given) <= {"old:1"}


def test_a_group_whose_update_fails_blocks_no_other() -> None:
    """Its write may never succeed."""
    failures = {f"service {names_of('A').service}": "refused"}
    assert said(plan_of(["old", "old"], tables.settings(), failures=failures)) == "wrong update"


def test_a_group_that_was_not_asked_yet_is_no_evidence() -> None:
    """After a start of the operator, or of `--once`, no group is; it is waited for, and not rolled back."""
    words, options, ready = ["new", "old", "old"], tables.settings(rollout_max_parallel=1), Readiness(ReadyState.READY)
    others = {names_of(group).service.casefold(): ready for group in "BC"}
    plan = plan_of(words, options, readiness=others)
    assert said(plan) == "waits waits waits"
    assert not any("halted" in item.detail for item in plan.items)
    assert said(plan_of(words, options, readiness={**others, "ofa_group_a": ready})) == ". update update"


def test_where_nothing_is_rolled_back_the_halt_says_why() -> None:
    """Kafka is away: the groups with the settings of before are not ready either."""
    plan = plan_of(["bad", "old-fell", "old-fell", "old"], tables.settings(rollout_max_parallel=0.25))
    assert said(plan) == "wrong wrong wrong held"
    halt = f"rollout halted by A: {ERROR}; nothing is rolled back, as other groups are not ready either"
    assert [item.detail for item in plan.items if item.group == "D"] == [halt]


def test_a_group_that_cannot_be_planned_is_no_part_of_a_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not show that the new spec works."""
    make = plan_module.group_spec

    def fail(names: GroupNames, *rest: Any) -> ServiceSpec:
        if names.group == "A":
            raise ZeroDivisionError
        return make(names, *rest)

    monkeypatch.setattr(plan_module, "group_spec", fail)
    options = tables.settings(rollout_max_parallel=1)
    assert said(plan_of(["new", "old", "old"], options)) == "wrong update waits"


def test_the_second_task_waits_for_a_consumer_group_of_its_own() -> None:
    """In the consumer group of the first it would get no event, or the first none; also after a rollback."""
    options = tables.settings(fastapi_group_replicas=2)
    before = {group: spec_of(group) for group in "AB"}
    live = [state_api(), *(service(replace(spec, image="old:1"), "ok") for spec in before.values())]
    survey = seen(observed({"A": 1, "B": 1}, source({"A": "ok", "B": "ok"}), live), options)
    updates = [one for one in make_plan(survey, Verdict(), plan_inputs(options)).actions if one.group]
    assert [(one.group, one.spec.replicas) for one in updates if isinstance(one, UpdateService)] == [("A", 2)]
    wanted = group_spec(names_of("A"), options, None)
    assert (apply_in_place(wanted, before["A"]).replicas, apply_in_place(before["A"], wanted).replicas) == (2, 1)


def test_where_a_rollout_cannot_be_planned_nothing_is_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug costs time, and no group."""

    def fail(*_: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr("reconciler.planning.rollout.template_hash", fail)
    plan = plan_of(["old", "old"], tables.settings())
    assert not [one for one in plan.actions if isinstance(one, UpdateService)]
    assert [bug.key for bug in plan.bugs] == ["plan of rollouts"]


def test_a_policy_that_forbids_updates_is_what_holds_them() -> None:
    """Nobody waits for a wave that never comes."""
    plan = plan_of(["old", "old"], tables.settings(reconcile_policy="create-only"))
    assert {item.condition for item in plan.items if item.group} == {Condition.HELD}
    assert all(item.detail.startswith("held by RECONCILE_POLICY") for item in plan.items if item.group)


# ---- any rollout to its end


@settings(max_examples=25, deadline=None)
@given(
    groups=st.integers(1, 9), away=st.sets(st.integers(0, 8), max_size=3), parallel=st.sampled_from([0.1, 0.25, 1.0])
)
def test_a_good_image_reaches_every_group_in_waves(groups: int, away: set[int], parallel: float) -> None:
    """Whatever groups are broken for other reasons, and never more at a time than a wave has."""
    rollout = Rollout(groups, away_of(away), parallel)
    rollout.run(rollout.stage.controller(), 4)  # those whose node is away are so for long
    rollout.at_once = 0
    plan = rollout.run(rollout.roll("good:2"), 5 * (groups + 2))
    assert {rollout.image(name) for name in rollout.names} == {"good:2"}
    assert rollout.at_once <= max(1, int(parallel * groups))
    assert not plan.halted
    assert plan.actions == ()


@settings(max_examples=25, deadline=None)
@given(groups=st.integers(1, 9), away=st.sets(st.integers(0, 8), max_size=3), restart=st.integers(1, 8))
def test_a_bad_image_reaches_one_group_that_serves(groups: int, away: set[int], restart: int) -> None:
    """It gets its image back, also after a restart of the operator; a good image then reaches all."""
    rollout = Rollout(groups, away_of(away), parallel=1.0)
    serving = [name for name in rollout.names if name not in rollout.away]
    rollout.run(rollout.stage.controller(), 4)
    rollout.run(rollout.roll("bad:2"), restart)
    down = [name for name in serving if rollout.image(name) == "bad:2"]
    assert len(down) <= 1
    plan = rollout.run(rollout.stage.controller(), 20)
    assert not [name for name in serving if rollout.image(name) == "bad:2"]
    assert bool(plan.halted) == bool(serving)
    writes = rollout.stage.writes
    rollout.run(rollout.stage.controller(), 6)
    assert rollout.stage.writes == writes, "a rollback and an update must not alternate"
    rollout.run(rollout.roll("good:3"), 5 * (groups + 2))
    assert {rollout.image(name) for name in rollout.names} == {"good:3"}
