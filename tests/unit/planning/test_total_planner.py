"""Whatever is observed, legal or not, a plan comes of it, and no plan touches what is not ours."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from openfactory_common.registry import parse
from reconciler.control.loop import find_progress
from reconciler.domain.actions import (
    Action,
    DropStream,
    Effect,
    PublishRegistry,
    RecreateStream,
    RemoveRegistry,
    RemoveService,
    ReplaceStream,
    UpdateService,
)
from reconciler.domain.observed import Observed
from reconciler.domain.status import Plan
from reconciler.ksqldb.ownership import Whose
from reconciler.planning import guards
from reconciler.planning.guards import GuardMemory, Overrides, Verdict
from reconciler.planning.inputs import PlanInputs
from reconciler.planning.plan import make_plan
from reconciler.planning.survey import Survey, make_survey
from reconciler.settings import Policy, Settings
from tests.unit.planning.worlds import LOOKUP, OPTIONS, memory, overrides, settings_of, topology, topology_of_now, world

#: Examples of each part; ten parts make the ten thousand, spread over the workers.
EXAMPLES = 1000
NOW = 1000.0


@dataclass(frozen=True)
class Case:
    """One world with everything that is decided of it."""

    settings: Settings
    observed: Observed
    seen: Survey
    verdict: Verdict
    plan: Plan


def decided(options: Settings, observed: Observed, before: GuardMemory, allowed: Overrides, facts: PlanInputs) -> Case:
    """Decide of a world as a cycle does."""
    seen = make_survey(observed, facts.topology, options)
    after = guards.approve(guards.remember(before, seen, facts.topology, options, NOW), seen, allowed)
    verdict = guards.judge(after, seen, options, allowed, NOW)
    return Case(options, observed, seen, verdict, make_plan(seen, verdict, facts))


def case_of(seed: int) -> Case:
    """Any world, any memory, any settings."""
    dice = Random(seed)  # noqa: S311 - repeatable on purpose
    options = settings_of(dice.randrange(len(OPTIONS)))
    keys = ("registry", "service ofa_group_Weld", "stream ASSET_STREAM_WELD", "plan of group Paint", "plan of registry")
    failures = dict.fromkeys(dice.sample(keys, dice.randrange(3)), "failed")
    observed = world(dice, options)
    facts = PlanInputs(
        settings=options,
        topology=topology_of_now(observed.source),
        lookup=LOOKUP,
        aged=frozenset(dice.sample(("ofa_registry-0", "ofa_registry-1", ""), dice.randrange(4))),
        failures=failures,
        query_limit=dice.choice((None, None, None, 0, 3, -1, 10**9)),
        waiting=frozenset(key for key in failures if dice.random() < 0.5),
        contested=dict.fromkeys(dice.sample(keys, dice.randrange(2)), "contested"),
        offset_reset=dice.choice(("", "", "", "earliest", "latest")),
    )
    return decided(options, observed, memory(dice), overrides(dice), facts)


@pytest.mark.parametrize("part", range(10))
@settings(max_examples=EXAMPLES, database=None, phases=(Phase.generate,))
@given(seed=st.integers(0, 2**63))
def test_any_world_has_a_plan_that_keeps_the_rules(part: int, seed: int) -> None:  # noqa: ARG001 - it spreads the load
    """Ten thousand worlds: a plan without an internal error, and every rule holds in it."""
    case = case_of(seed)
    assert case.plan.bugs == ()
    find_progress(case.plan)
    for rule in RULES:
        rule(case)


def one_item_a_group(case: Case) -> None:
    """No group is shown twice, and none that is wanted, lost or left is missing."""
    shown = Counter(item.group for item in case.plan.items if item.group is not None)
    expected = case.seen.wanted.keys() | case.seen.losers.keys() | case.seen.missing
    assert shown.keys() == expected
    assert set(shown.values()) <= {1}


def nothing_is_written_where_a_rule_stops_all(case: Case) -> None:
    """A refusal that stops means no action at all; ksqlDB that is not healthy gets none."""
    if case.verdict.stopped:
        assert case.plan.actions == ()
    if case.observed.source.unhealthy_reason:
        assert not [action for action in case.plan.actions if action.on_ksqldb]


def the_policy_holds(case: Case) -> None:
    """No removal but with `sync`, no change with `create-only`."""
    effects = {action.effect for action in case.plan.actions}
    if case.settings.reconcile_policy is not Policy.SYNC:
        assert Effect.REMOVE not in effects
    if case.settings.reconcile_policy is Policy.CREATE_ONLY:
        assert effects <= {Effect.CREATE, Effect.PUBLISH}


def only_ours_is_changed(case: Case) -> None:
    """A service has our label and a spec that was read back."""
    for action in case.plan.actions:
        if isinstance(action, UpdateService | RemoveService):
            assert action.live.owner == case.settings.reconciler_owner
            assert action.live.spec is not None


def no_removal_without_a_verdict(case: Case) -> None:
    """What goes with a group is of one that may retire, and its service only when it is drained."""
    for action in case.plan.actions:
        if not isinstance(action, RemoveService | DropStream) or action.group is None:
            continue
        assert action.group in case.verdict.retire
        assert action.group not in case.observed.membership.groups
        if isinstance(action, RemoveService):
            assert action.group in case.verdict.drained


def dropped_streams_are_of_our_lineage(case: Case) -> None:
    """By the statement of its query, or its own; one of which neither is known only with a group that we know."""
    source = case.observed.source
    for action in case.plan.actions:
        if isinstance(action, DropStream):
            query = source.queries.get(action.name)
            text = query.text if query else source.orphans.get(action.name)
            if text is None:
                assert action.group in case.seen.owned
            else:
                assert topology().ownership(action.name, text).whose in (Whose.SHARED, Whose.GROUP)


def what_others_built_stays(case: Case) -> None:
    """No reader of a stream of ours, and nothing that one reads, is dropped, replaced or made again."""
    readers = case.seen.readers
    kept = readers.keys() | {name for read in readers.values() for name in read}
    for action in case.plan.actions:
        if isinstance(action, DropStream):
            assert action.name not in readers
            assert action.group is not None or action.name not in kept
        if isinstance(action, ReplaceStream | RecreateStream):
            # One without a query is asked whose it is just before (`reconciler.control.executor`).
            assert action.names.stream not in readers.keys() & case.observed.source.queries.keys()


def the_current_registry_stays(case: Case) -> None:
    """Neither it, nor the next one, nor one that is mounted is removed; a publication has the highest number."""
    removed = {action.registry.name for action in case.plan.actions if isinstance(action, RemoveRegistry)}
    mounted = {live.name for live in case.observed.platform.registries if live.mounted}
    assert not removed & mounted
    if case.seen.published is not None:
        assert case.seen.published.live.name not in removed
    for action in case.plan.actions:
        if isinstance(action, PublishRegistry):
            assert f"ofa_registry-{action.document.revision}" not in removed
            assert all(action.sequence > live.sequence for live in case.observed.platform.registries)
            assert parse(action.document.canonical()) == action.document


def wanted_groups_stay_registered(case: Case) -> None:
    """A group that is published and wanted is in the next document, whatever is wrong with it."""
    if case.seen.published is None or case.plan.registry is None:
        return
    assert case.seen.published.document.groups.keys() & case.seen.wanted.keys() <= case.plan.registry.groups.keys()


def one_write_an_object(case: Case) -> None:
    """No object is written twice by one plan, so that no write undoes another."""
    keys: list[tuple[type[Action], str]] = [(type(action), action.key) for action in case.plan.actions]
    assert len({key for key in keys if key[0] is not RemoveRegistry}) == len(
        [key for key in keys if key[0] is not RemoveRegistry]
    )


RULES = (
    one_item_a_group,
    nothing_is_written_where_a_rule_stops_all,
    the_policy_holds,
    only_ours_is_changed,
    no_removal_without_a_verdict,
    dropped_streams_are_of_our_lineage,
    what_others_built_stays,
    the_current_registry_stays,
    wanted_groups_stay_registered,
    one_write_an_object,
)


def test_the_worlds_are_not_all_refused() -> None:
    """The rules above are tried on plans that write, remove and publish: a good part of the worlds lets that happen."""
    plans = [case_of(seed).plan for seed in range(1500)]
    kinds = Counter(type(action) for plan in plans for action in plan.actions)
    assert sum(bool(plan.actions) for plan in plans) > len(plans) / 4
    assert all(kinds[kind] > 5 for kind in (PublishRegistry, RemoveRegistry, RemoveService, DropStream, UpdateService))
