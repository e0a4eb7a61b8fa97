"""Groups of which nothing may be written: whatever state they are in, no action, and the same entry in the registry."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from random import Random

import pytest
from hypothesis import Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from reconciler.domain.names import names_of
from reconciler.domain.status import Condition, Plan, Reason
from reconciler.planning import guards
from reconciler.planning.guards import Verdict
from reconciler.planning.inputs import PlanInputs
from reconciler.planning.plan import make_plan
from reconciler.planning.rollout import template_hash
from reconciler.planning.survey import Survey, make_survey
from tests.unit.planning.tables import (
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
    topology,
)
from tests.unit.planning.worlds import LOOKUP, OPTIONS, memory, overrides, settings_of, topology_of_now, world

WHY = "paused until 2026-01-08 00:00:00 UTC by ana@shell"
STREAMS = ("ok", "absent", "silent", "paused", "moved", "topicless", "failed", "twin", "foreign", "reader", "other")
SERVICES = ("ok", "absent", "drifted", "starting", "broken", "paused", "updating", "unlabelled", "other's", "theirs")
#: Services without a task that serves, and what is not the group's service.
NOT_SERVED = ("absent", "broken", "unlabelled", "other's", "theirs")
SURE = Verdict(silent=frozenset({names_of("Weld").stream, topology().shared_name}))


def plant(stream: str, live: str, registered: bool, members: dict[str, int]) -> Survey:
    """Group Weld in these states, beside group Paint that needs an update."""
    made = live_registry(document(["Paint", *(["Weld"] if registered else [])]), 1, mounted=True)
    services = [service(spec_of("Weld"), live), service(spec_of("Paint"), "drifted"), state_api()]
    read = source({"Weld": stream, "Paint": "ok"})
    return seen(observed(members, read, [*services, routing_layer(mounted=made.name)], [made]))


def assert_untouched(plan: Plan, survey: Survey, group: str) -> None:
    """No action of the group, one item that says why, and what the registry says of it stays."""
    assert [action for action in plan.actions if action.group == group] == []
    (item,) = (item for item in plan.items if item.group == group)
    assert item.condition in (Condition.HELD, Condition.DEGRADED)
    assert item.reason is Reason.PAUSED
    before = survey.published.document.groups if survey.published else {}
    after = plan.registry.groups if plan.registry else before
    assert after.get(group) == before.get(group)


@pytest.mark.parametrize(("stream", "live", "registered"), list(product(STREAMS, SERVICES, (True, False))))
def test_a_paused_group_with_assets_is_left_alone(stream: str, live: str, registered: bool) -> None:
    """New, ready, degraded, changed, in conflict: it does not even enter or leave the registry; others go on."""
    survey = plant(stream, live, registered, {"Weld": 1, "Paint": 1})
    plan = make_plan(survey, SURE, plan_inputs(held={"Weld": WHY}))
    assert_untouched(plan, survey, "Weld")
    item = next(item for item in plan.items if item.group == "Weld")
    assert item.detail.startswith(WHY)
    hidden = registered and live in NOT_SERVED  # an outage that the pause must not hide
    assert (item.condition, "clients are not served" in item.detail or "no service of ours" in item.detail) == (
        Condition.DEGRADED if hidden else Condition.HELD,
        hidden,
    )
    assert [action.verb for action in plan.actions if action.group == "Paint"] == ["update_service"]
    assert plan.registry is not None
    assert "Paint" in plan.registry.groups


@pytest.mark.parametrize(
    ("live", "registered", "retire", "drained"), list(product(("ok", "absent"), *[(True, False)] * 3))
)
def test_a_paused_group_without_assets_stays(live: str, registered: bool, retire: bool, drained: bool) -> None:
    """Whatever the guards allow by now; a group that is not paused goes on leaving."""
    survey = plant("ok", live, registered, {"Paint": 1})
    gone = frozenset({"Weld"})
    verdict = Verdict(retire=gone if retire else frozenset(), drained=gone if drained and retire else frozenset())
    assert_untouched(make_plan(survey, verdict, plan_inputs(held={"Weld": WHY})), survey, "Weld")
    free = make_plan(survey, verdict, plan_inputs(held={"Paint": WHY}))
    assert_untouched(free, survey, "Paint")
    leaves = [action.verb for action in free.actions if action.group == "Weld"] or "Weld" in free.removed
    assert bool(leaves) == (retire and (registered or live == "absent" or drained))


def test_the_url_of_a_paused_group_is_not_made_again() -> None:
    """Another port is for the groups that may be written: the paused one still serves at the one that it has."""
    survey = plant("ok", "ok", True, {"Weld": 1, "Paint": 1})
    plan = make_plan(survey, SURE, plan_inputs(settings(fastapi_group_port=8001), held={"Weld": WHY}))
    assert plan.registry is not None
    assert (plan.registry.groups["Weld"][-18:], plan.registry.groups["Paint"][-18:]) == (
        ":8000/asset_stream",
        ":8001/asset_stream",
    )


def test_a_paused_group_is_no_part_of_a_rollout() -> None:
    """It takes no place in a wave, halts none, and the numbers that are shown leave it out."""
    groups = ("G1", "G2", "G3", "Weld")
    made = live_registry(document(groups), 1, mounted=True)
    lives = [service(spec_of(group), "drifted") for group in groups]
    survey = seen(observed(dict.fromkeys(groups, 1), source(dict.fromkeys(groups, "ok")), lives, [made]))
    failed = rolled_back(survey, "Weld")
    for world_seen in (survey, failed):
        plan = make_plan(world_seen, SURE, plan_inputs(held={"Weld": WHY}))
        assert [action.group for action in plan.actions if action.verb == "update_service"][:1] == ["G1"]
        assert any("0 of 3 groups updated" in item.detail for item in plan.items)
    assert make_plan(failed, SURE, plan_inputs()).halted != ""


def rolled_back(survey: Survey, group: str) -> Survey:
    """Return the same world, in which the update of a group has failed already."""
    key = names_of(group).service.casefold()
    services = dict(survey.observed.platform.services)
    services[key] = replace(services[key], failed=template_hash(settings()), failure="no such image")
    platform = replace(survey.observed.platform, services=services)
    return seen(replace(survey.observed, platform=platform))


@examples(max_examples=1500, database=None, phases=(Phase.generate,))
@given(seed=st.integers(0, 2**63))
def test_no_action_of_a_paused_group_in_any_world(seed: int) -> None:
    """Whatever is observed, remembered and allowed."""
    dice = Random(seed)  # noqa: S311 - repeatable on purpose
    options = settings_of(dice.randrange(len(OPTIONS)))
    there = world(dice, options)
    ours = topology_of_now(there.source)
    survey = make_survey(there, ours, options)
    known = sorted(survey.wanted.keys() | survey.losers.keys() | survey.missing)
    held = dict.fromkeys(dice.sample(known, dice.randrange(len(known) + 1)), WHY)
    allowed = overrides(dice)
    after = guards.remember(memory(dice), survey, ours, options, 1000.0)
    verdict = guards.judge(after, survey, options, allowed, 1000.0)
    plan = make_plan(survey, verdict, PlanInputs(options, ours, LOOKUP, held=held))
    assert plan.bugs == ()
    for group in held:
        assert_untouched(plan, survey, group)
