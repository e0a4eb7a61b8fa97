"""How a cycle ended: a result for programs and a sentence for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from openfactory_common.errors import KsqlError, KsqlUnreachable, KsqlWrongShape, ReconcilerError
from openfactory_common.settings_types import strip_user
from openfactory_common.text import list_some
from reconciler.domain.actions import Result, WriteResult
from reconciler.domain.status import Condition, CycleResult, Plan, Reason
from reconciler.leadership.elector import WriteBlock
from reconciler.planning.survey import Survey
from reconciler.settings import Settings

#: What a server that is not ksqlDB answers to a question for it.
_NOT_KSQLDB = (300, 301, 302, 303, 307, 308, 400, 404, 405, 406, 410, 415, 421, 501)


@dataclass(frozen=True)
class CycleOutcome:
    """What one cycle read and did.

    Attributes:
        result: the value of the metric's label ``result``.
        sentence: what happened, for a person.
        plan: None where a read failed.
        survey: None where a read failed.
        results: of the writes.
        error: the failed read.
    """

    result: CycleResult
    sentence: str
    plan: Plan | None = None
    survey: Survey | None = None
    results: tuple[Result, ...] = ()
    error: ReconcilerError | None = None

    def with_bugs(self, bugs: Sequence[str]) -> CycleOutcome:
        """Name the unexpected exceptions that did not end the cycle."""
        if self.plan is None or not bugs:
            return self
        count = "1 internal error" if len(bugs) == 1 else f"{len(bugs)} internal errors"
        blocked = self.result in (CycleResult.PAUSED, CycleResult.STANDBY)
        result = self.result if blocked else CycleResult.BUG
        return replace(self, result=result, sentence=f"{self.sentence}; {count} (first: {bugs[0]})")

    def cut_short(self, block: WriteBlock | None) -> CycleOutcome:
        """Say that writes were skipped because they may not be done any more."""
        if block is None or not any(result.outcome is not WriteResult.OK for result in self.results):
            return self
        return replace(self, result=block.result, sentence=f"{self.sentence}; stopped in between: {block.text}")


def judge_cycle(plan: Plan, survey: Survey, results: tuple[Result, ...], done: str) -> CycleOutcome:
    """Judge a cycle by its plan and its writes; ``done`` is the word for a write that succeeded."""
    stops = [refusal.text for refusal in plan.refusals if refusal.stops]
    sentence = _summarize(plan, survey, results, done)
    if stops:
        result, sentence = CycleResult.REFUSED, f"nothing changed, refused: {'; '.join(stops)}"
    elif any(result.error is not None for result in results):
        result = CycleResult.WRITE_ERROR
    elif plan.refusals:
        refused = "; ".join(refusal.text for refusal in plan.refusals)
        result, sentence = CycleResult.REFUSED, f"{sentence}; refused: {refused}"
    elif any(result.outcome is WriteResult.OK for result in results):
        result = CycleResult.CHANGED
    else:
        result = CycleResult.IN_SYNC if plan.in_sync else CycleResult.PROGRESSING
    return CycleOutcome(result, sentence, plan, survey, results)


def describe_block(block: WriteBlock, plan: Plan, survey: Survey) -> CycleOutcome:
    """Return the outcome of a cycle that read and planned, and may not write."""
    waiting = f"{len(plan.actions)} {'write waits' if len(plan.actions) == 1 else 'writes wait'}"
    return CycleOutcome(block.result, f"{block.text}, {waiting}; {_summarize(plan, survey)}", plan, survey)


def _summarize(plan: Plan, survey: Survey, results: tuple[Result, ...] = (), said: str = "done") -> str:
    """Return the numbers of a cycle as one sentence."""
    groups = [item for item in plan.items if item.group is not None]
    ready = sum(item.condition is Condition.READY for item in groups)
    text = f"{ready} of {len(groups)} groups ready, {survey.observed.membership.assets} assets"
    asleep = sum(item.condition is Condition.ASLEEP for item in groups)
    text += f", {asleep} asleep" if asleep else ""
    done = sum(result.outcome is WriteResult.OK for result in results)
    failed = [result for result in results if result.error is not None]
    if done:
        text += f", {done} {'write' if done == 1 else 'writes'} {said}"
    if failed:
        text += f", {len(failed)} failed (first: {failed[0].action.key}: {failed[0].error})"
    paused = sorted(item.group or "" for item in groups if item.reason is Reason.PAUSED)
    text += f"; paused: {list_some(paused)}" if paused else ""
    text += f"; {plan.halted}" if plan.halted else ""
    return text + ("" if results or not plan.in_sync else ", in sync")


def explain_error(error: ReconcilerError, settings: Settings) -> str:
    """Add where ksqlDB was looked for to an error that says it was not there (without credentials in the URL)."""
    where = f"KSQLDB_URL is {strip_user(settings.ksqldb_url)}"
    if isinstance(error, KsqlUnreachable):
        return f"{error} ({where})"
    # ksqlDB gives each of its own errors a code; a page of another server has none.
    other_server = isinstance(error, KsqlError) and error.code is None and error.status in _NOT_KSQLDB
    if isinstance(error, KsqlWrongShape) or other_server:
        return f"{error} ({where}: does ksqlDB answer there?)"
    return str(error)
