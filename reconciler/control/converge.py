"""``--once``: cycles until everything is as it should be, or cannot become so."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from openfactory_common.errors import Retry
from openfactory_common.signals import SIGNALS
from reconciler.control.controller import Controller
from reconciler.control.outcome import CycleOutcome
from reconciler.domain.status import Condition


class Exit(IntEnum):
    """Exit codes; they are part of the interface."""

    OK = 0
    ERROR = 1
    USAGE = 2
    CHANGES = 3
    REFUSED = 4
    NOT_CONVERGED = 5


#: Seconds between two cycles while something is on its way.
PAUSE = 1.0


def converge(
    controller: Controller,
    timeout: float,
    *,
    prune: bool = True,
    show: Callable[[CycleOutcome], None] = lambda _outcome: None,
    sleep: Callable[[float], None] = SIGNALS.sleep,
) -> tuple[Exit, CycleOutcome]:
    """Run cycles until the end is known, for at most ``timeout`` seconds; each scans the UNS map.

    Args:
        controller: whose cycles to run.
        timeout: seconds, within which the grace time of pending removals is waited out too.
        prune: False leaves groups without assets alone and does not wait for them.
        show: called with each cycle's outcome.
        sleep: waits the given seconds.

    Raises:
        SystemExit: a signal asked the process to end; no cycle is under way.
    """
    clock = controller.clocks.monotonic
    deadline = clock() + timeout
    while True:
        controller.nudge()
        outcome = controller.cycle()
        SIGNALS.check()
        show(outcome)
        end = _end(outcome, prune=prune)
        if end is not None:
            return end, outcome
        if clock() >= deadline:
            return _late(outcome), outcome
        sleep(PAUSE)


def _end(outcome: CycleOutcome, *, prune: bool) -> Exit | None:
    """Return the exit code if waiting cannot change it, None while it can."""
    if outcome.result == "paused":
        return Exit.REFUSED
    if outcome.result == "standby":
        return None
    plan = outcome.plan
    if plan is None:
        hopeless = outcome.error is None or outcome.error.retry is Retry.PERMANENT
        return Exit.ERROR if hopeless else None
    if any(refusal.stops for refusal in plan.refusals):
        return Exit.REFUSED
    over_budget = any(refusal.guard == "budget" for refusal in plan.refusals)
    if not plan.actions and any(refusal.guard in ("limit", "size") for refusal in plan.refusals):
        return Exit.REFUSED
    conditions = {item.condition for item in plan.items}
    if not prune or over_budget:
        conditions -= {Condition.LEAVING}
    waits = {Condition.PROGRESSING, Condition.LEAVING, Condition.DEGRADED}
    if (
        plan.actions
        or plan.unknown
        or plan.left_out
        or conditions & waits
        or any(refusal.guard == "health" for refusal in plan.refusals)
    ):
        return None
    if over_budget:
        return Exit.REFUSED
    return Exit.NOT_CONVERGED if Condition.CONFLICT in conditions else Exit.OK


def _late(outcome: CycleOutcome) -> Exit:
    if outcome.plan is None:
        return Exit.ERROR
    if outcome.result == "standby":  # nothing was done, and the sentence names who holds the lease
        return Exit.REFUSED
    refused = outcome.plan.refusals and not outcome.plan.actions
    return Exit.REFUSED if refused else Exit.NOT_CONVERGED
