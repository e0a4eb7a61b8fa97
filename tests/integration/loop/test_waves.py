"""A bad image over five groups: one gets it, and gets its own back; what people are told meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest

from reconciler.control.converge import Exit, converge
from reconciler.control.outcome import CycleOutcome
from reconciler.control.readiness import ReadinessProber
from reconciler.domain.readiness import Readiness, ReadyState
from reconciler.domain.services import LiveService
from reconciler.domain.status import Condition, CycleResult, Plan, Reason
from reconciler.report.text import plan_text
from reconciler.report.why import explain_group, make_context, why_text
from tests.harness.rollouts import STEP, Rollout

FIRST, BAD, GOOD = "ghcr.io/openfactoryio/fastapi-group:latest", "bad:2", "good:3"


@pytest.fixture
def rollout() -> Rollout:
    """Five groups that are served."""
    return Rollout(5)


def images(rollout: Rollout) -> list[str]:
    """The image of each group's service, in order."""
    return [rollout.image(name) for name in sorted(rollout.names)]


def conditions(plan: Plan) -> list[Condition]:
    """The condition of each group."""
    return [item.condition for item in plan.items if item.group]


def test_a_bad_image_is_at_one_group_and_is_taken_back(rollout: Rollout) -> None:
    """Two minutes after its update; all are held until the settings change, and then a good image reaches all."""
    first = images(rollout)
    controller = rollout.roll(BAD)
    plan = rollout.run(controller, 2)
    assert images(rollout) == [BAD, *first[1:]]
    assert "group G01" in plan_text(plan)
    assert "waits for its wave: 1 of 5 groups updated" in plan_text(plan)
    rollout.run(controller, 2)
    assert images(rollout) == first
    plan = rollout.run(controller, 5)
    assert images(rollout) == first
    assert conditions(plan) == [Condition.DEGRADED, *[Condition.HELD] * 4]
    [back] = [one for one in controller.reporter.journal.after() if one.fields.get("action") == "roll_back_service"]
    assert (back.event, back.fields) == ("write done", {"action": "roll_back_service"})
    assert back.reason is not None
    assert plan.halted.startswith("group G00: the rollout failed and was rolled back: ")
    live = rollout.stage.platform.services[min(rollout.names).casefold()]
    assert live.previous is not None
    assert (live.previous.image, len(live.failed)) == (BAD, 12)
    plan = rollout.run(rollout.roll(GOOD), 12)
    assert images(rollout) == [GOOD] * 5
    assert conditions(plan) == [Condition.READY] * 5
    assert rollout.stage.platform.services[live.name.casefold()].failed == ""


def test_why_names_the_failure_and_what_to_do(rollout: Rollout) -> None:
    """Of the group that failed, and of one that is held because of it."""
    rollout.run(controller := rollout.roll(BAD), 8)
    outcome = rollout.cycle(controller)
    assert outcome.survey is not None
    assert outcome.plan is not None
    context = make_context(controller, outcome.survey, outcome.plan, rollout.stage.wall)
    for group, said in (
        ("G00", "the rollout failed and was rolled back: 0 of 1 tasks"),
        ("G03", "rollout halted by G00: 0 of 1"),
    ):
        answer = explain_group(group, context, "this operator")
        assert answer is not None
        text = why_text(answer)
        assert f"plan      {said}" in text
        assert "next      change the settings of the group services (FASTAPI_GROUP_IMAGE, ...)" in text


def test_an_operator_that_starts_between_goes_on(rollout: Rollout) -> None:
    """Whoever runs the next cycle holds the others; the one that has seen the failure for long enough takes it back."""
    first = images(rollout)
    rollout.roll(BAD)
    seen = []
    for cycles in (1, 1, 1, 1, 2, 3, 1, 1):
        rollout.run(rollout.stage.controller(), cycles)
        seen.append(images(rollout).count(BAD))
    assert seen == [1, 1, 1, 1, 1, 0, 0, 0]
    assert images(rollout) == first


def test_a_person_decides_where_that_is_asked_for(rollout: Rollout) -> None:
    """The bad group stays as it is, and the others keep what they have."""
    rollout.stage.options["rollout_on_failure"] = "halt"
    first = images(rollout)
    plan = rollout.run(rollout.roll(BAD), 12)
    assert images(rollout) == [BAD, *first[1:]]
    assert conditions(plan) == [Condition.DEGRADED, *[Condition.HELD] * 4]
    assert "rollout halted by G00: no progress since 2026-01-01" in plan_text(plan)
    rollout.run(rollout.roll(GOOD), 12)
    assert images(rollout) == [GOOD] * 5


def test_once_waits_for_the_waves_and_ends_where_they_halt(rollout: Rollout) -> None:
    """With exit code 5 and the sentence for a bad image, with 0 for a good one; not at the end of its time."""
    told: list[CycleOutcome] = []

    def once(image: str) -> Exit:
        def sleep(_: float) -> None:
            rollout.stage.now += STEP
            rollout.advance()

        rollout.advance()
        code, outcome = converge(rollout.roll(image), 100 * STEP, sleep=sleep)
        told.append(outcome)
        return code

    assert once(BAD) is Exit.NOT_CONVERGED
    assert "group G00: the rollout failed and was rolled back: 0 of 1 tasks are running" in told[-1].sentence
    assert told[-1].result is CycleResult.PROGRESSING, "in sync it is not"
    assert once(GOOD) is Exit.OK
    assert images(rollout) == [GOOD] * 5


def test_a_group_that_dies_after_the_rollout_is_not_rolled_back(rollout: Rollout) -> None:
    """It was ready with the new image: whatever is wrong now, the image is not."""
    controller = rollout.roll(GOOD)
    rollout.run(controller, 12)
    rollout.away = frozenset(rollout.names)
    plan = rollout.run(controller, 6)
    assert images(rollout) == [GOOD] * 5
    assert not plan.halted


@dataclass
class Glitch:
    """One group does not answer its first probe after a start of the operator."""

    bad: str
    asked: int = 0

    def probe(self, services: Mapping[str, LiveService], now: float) -> Mapping[str, Readiness]:
        """Return the readiness of what runs."""
        self.asked += 1
        state = ReadyState.NOT_READY if self.asked == 1 else ReadyState.READY
        return {
            name: Readiness(state if name == self.bad else ReadyState.READY, "no answer", now)
            for name, live in services.items()
            if live.converged
        }


def no_name(_host: str, _port: int) -> Sequence[str]:
    """Resolve nothing: the operator is outside of the services' network."""
    raise OSError


@pytest.mark.parametrize("probes", ["a glitch", "outside", "once, outside"])
def test_a_restart_takes_back_no_good_image(rollout: Rollout, probes: str) -> None:
    """The new operator has seen nothing yet; that the groups were ready with this image, only the one before knew."""
    rollout.run(rollout.roll(GOOD), 7)
    assert set(images(rollout)) == {GOOD}
    stage = rollout.stage
    stage.prober = ReadinessProber(stage.settings, resolve=no_name)
    if probes == "a glitch":
        stage.prober = Glitch(max(rollout.names).casefold())
    if probes.startswith("once"):
        converge(stage.controller(), 10, sleep=lambda _: setattr(stage, "now", stage.now + 1))
    rollout.run(stage.controller(), 4)
    assert images(rollout) == [GOOD] * 5
    assert {live.failed for live in stage.platform.services.values()} == {""}


def test_a_group_that_another_writer_changes_does_not_get_the_bad_image_again(rollout: Rollout) -> None:
    """A pipeline that scales it in each cycle: what is contested is not written, and neither is what failed."""
    rollout.run(controller := rollout.roll(BAD), 6)
    (key,) = (key for key, live in rollout.stage.platform.services.items() if live.failed)
    for _ in range(20):
        live = rollout.stage.platform.services[key]
        assert live.spec is not None
        scaled = replace(live.spec, replicas=3)
        rollout.stage.platform.services[key] = replace(live, spec=scaled, version=live.version + 1)
        rollout.advance()
        plan = controller.cycle().plan
        assert plan is not None
        assert BAD not in images(rollout)
        rollout.stage.now += 10
    assert Reason.CONTESTED in {item.reason for item in plan.items}


def test_more_tasks_need_no_wave(rollout: Rollout) -> None:
    """Replicas are changed in all groups at once."""
    rollout.stage.options["fastapi_group_replicas"] = 2
    rollout.run(rollout.stage.controller(), 12)  # the second task gives each a consumer group of its own: a rollout
    rollout.stage.options["fastapi_group_replicas"] = 3
    rollout.run(rollout.stage.controller(), 1)
    assert {
        live.spec.replicas for live in rollout.stage.platform.services.values() if live.spec and live.spec.group
    } == {3}
