"""``--once``: runs cycles until everything is as it should be, or cannot become so."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from openfactory_common.errors import Retry
from openfactory_common.signals import SIGNALS
from reconciler.control.controller import Controller
from reconciler.control.outcome import CycleOutcome
from reconciler.domain.status import Condition, CycleResult, Guard, Reason


class Exit(IntEnum):
    """Exit codes; they are part of the interface."""

    OK = 0
    ERROR = 1
    USAGE = 2
    CHANGES = 3
    REFUSED = 4
    NOT_CONVERGED = 5


#: Seconds between two cycles while something is in progress.
POLL_SECONDS = 1.0


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
        prune: False leaves groups without assets unchanged and does not wait for them.
        show: called with each cycle's outcome.
        sleep: waits the given seconds.

    Raises:
        SystemExit: a signal asked the process to end; no cycle is in progress.
    """
    clock = controller.clocks.monotonic
    deadline = clock() + timeout
    while True:
        controller.nudge()
        outcome = controller.cycle()
        SIGNALS.check()
        show(outcome)
        code = _find_exit(outcome, prune=prune)
        if code is None and clock() >= deadline:
            code = _give_up(outcome)
        if code is not None:
            return code, outcome
        sleep(POLL_SECONDS)


def _find_exit(outcome: CycleOutcome, *, prune: bool) -> Exit | None:
    """Return the exit code if waiting cannot change it, None while it can."""
    if outcome.result is CycleResult.PAUSED:
        return Exit.REFUSED
    if outcome.result is CycleResult.STANDBY:
        return None
    plan = outcome.plan
    if plan is None:
        hopeless = outcome.error is None or outcome.error.retry is Retry.PERMANENT
        return Exit.ERROR if hopeless else None
    guards = {refusal.guard for refusal in plan.refusals}
    if any(refusal.stops for refusal in plan.refusals) or (not plan.actions and guards & {Guard.LIMIT, Guard.SIZE}):
        return Exit.REFUSED
    # Only a person ends a halted rollout, and a pause: what is down meanwhile is not waited for.
    conditions = {
        Condition.CONFLICT if (item.condition, item.reason) == (Condition.DEGRADED, Reason.PAUSED) else item.condition
        for item in plan.items
        if item.reason is not Reason.ROLLOUT
    }
    if not prune or Guard.BUDGET in guards:
        conditions -= {Condition.LEAVING}
    changing = conditions & {Condition.PROGRESSING, Condition.LEAVING, Condition.DEGRADED}
    if plan.actions or plan.unknown or plan.left_out or changing or Guard.HEALTH in guards:
        return None
    if Guard.BUDGET in guards:
        return Exit.REFUSED
    return Exit.NOT_CONVERGED if Condition.CONFLICT in conditions or plan.halted else Exit.OK


def _give_up(outcome: CycleOutcome) -> Exit:
    """Return the exit code after the time is up."""
    if outcome.plan is None:
        return Exit.ERROR
    if outcome.result is CycleResult.STANDBY:  # nothing was done, and the sentence names who holds the lease
        return Exit.REFUSED
    return Exit.REFUSED if outcome.plan.refusals and not outcome.plan.actions else Exit.NOT_CONVERGED
