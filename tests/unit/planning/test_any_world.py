"""T14: for any groups that should be and any that are, whatever was changed by hand meanwhile."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.domain.actions import Action, DropStream, Effect, RemoveService
from reconciler.domain.status import Plan
from reconciler.planning.guards import allowed_removals
from reconciler.planning.survey import Survey
from tests.harness.fakes import Stage
from tests.integration.faults.matrix import operator
from tests.integration.faults.matrix_oracle import Watch
from tests.integration.faults.matrix_scenarios import OPTIONS, STEP, plant_foreign
from tests.integration.faults.matrix_seam import seam_of

GROUPS = st.sampled_from(
    ["Weld", "Paint", "CNC-01", "a b", "ä", "line1", "Line1", "'; --", "x" * 60, "Taken", "Stolen"]
)
MAP = st.dictionaries(st.integers(0, 12).map(str), GROUPS | st.none(), min_size=1, max_size=13)
BY_HAND = st.lists(
    st.tuples(st.sampled_from(["remove", "scale", "pause", "terminate"]), st.integers(0, 20)), max_size=4
)


def meddle(stage: Stage, hands: list[tuple[str, int]]) -> None:
    """Do what people do."""
    for what, which in hands:
        services = sorted(name for name, live in stage.platform.services.items() if live.owner == "ofa")
        streams = sorted(name for name, (_, sql) in stage.ksqldb.made.items() if "FROM `OFA" in sql)
        if not services or not streams:
            return
        service, stream = services[which % len(services)], streams[which % len(streams)]
        match what:
            case "remove":
                del stage.platform.services[service]
            case "scale":
                stage.platform.touch(service, replicas=5)
            case "pause":
                stage.ksqldb.paused.add(stream)
            case "terminate":
                stage.ksqldb.terminated.add(stream)


def creates_come_first(plan: Plan) -> bool:
    """Whether no service or stream is made after the first one that goes."""
    actions: list[Action] = [action for action in plan.actions if action.group is not None]
    gone = [index for index, action in enumerate(actions) if isinstance(action, (RemoveService, DropStream))]
    made = [index for index, action in enumerate(actions) if action.effect is Effect.CREATE]
    return not gone or not made or max(made) < min(gone)


def is_within_budget(plan: Plan, seen: Survey) -> bool:
    """Whether what goes is missing, and not more is missing than may go at once."""
    leaving = {action.group for action in plan.actions if action.effect is Effect.REMOVE and action.group}
    allowed = allowed_removals(len(seen.owned), 0.25)
    return leaving <= seen.missing and (not leaving or len(seen.missing) <= allowed)


@settings(max_examples=120)
@given(before=MAP, after=MAP, hands=BY_HAND)
def test_any_world_is_converged_within_the_rules(
    before: dict[str, str | None], after: dict[str, str | None], hands: list[tuple[str, int]]
) -> None:
    """Removals stay within the budget and are of ours alone; applied, a plan leaves nothing to do."""
    stage = Stage(options=dict(OPTIONS))
    plant_foreign(stage)
    stage.ksqldb.assets = before
    first = stage.controller()
    stage.run(first, 6, STEP)
    meddle(stage, hands)
    stage.ksqldb.assets = after
    watch = Watch(stage)
    controller = operator(stage, seam_of(stage.platform, stage.ksqldb, watch))
    for _ in range(30):
        outcome = controller.cycle()
        stage.now += STEP
        assert outcome.plan is not None, outcome.sentence
        assert outcome.survey is not None
        assert creates_come_first(outcome.plan)
        assert is_within_budget(outcome.plan, outcome.survey)
    assert watch.wrong == []
    assert outcome.plan is not None
    assert outcome.plan.actions == ()
