"""How a cycle ended, for programs and in one sentence for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from openfactory_common.errors import KsqlError, KsqlUnreachable, KsqlWrongShape, ReconcilerError
from openfactory_common.settings_types import without_user
from reconciler.domain.actions import Result, WriteResult
from reconciler.domain.status import Condition, CycleResult, Plan, Refusal
from reconciler.leadership.elector import WriteBlock
from reconciler.planning.survey import Survey
from reconciler.settings import Settings

#: What a server that is not ksqlDB answers to a question for it.
_NOT_KSQLDB = (300, 301, 302, 303, 307, 308, 400, 404, 405, 406, 410, 415, 421, 501)


@dataclass(frozen=True)
class CycleOutcome:
    """What one cycle saw and did.

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
        held = self.result in (CycleResult.PAUSED, CycleResult.STANDBY)
        result = self.result if held else CycleResult.BUG
        return replace(self, result=result, sentence=f"{self.sentence}; {count} (first: {bugs[0]})")

    def cut_short(self, held: WriteBlock | None) -> CycleOutcome:
        """Say that writes were skipped because they may not be done any more."""
        if held is None or not any(result.outcome is not WriteResult.OK for result in self.results):
            return self
        return replace(self, result=held.result, sentence=f"{self.sentence}; stopped in between: {held.text}")


def explained(error: ReconcilerError, settings: Settings) -> str:
    """Add where ksqlDB was looked for to an error that says it was not there (without credentials in the URL)."""
    where = f"KSQLDB_URL is {without_user(settings.ksqldb_url)}"
    if isinstance(error, KsqlUnreachable):
        return f"{error} ({where})"
    # ksqlDB gives each of its own errors a code; a page of another server has none.
    elsewhere = isinstance(error, KsqlError) and error.code is None and error.status in _NOT_KSQLDB
    if isinstance(error, KsqlWrongShape) or elsewhere:
        return f"{error} ({where}: does ksqlDB answer there?)"
    return str(error)


def outcome_of(plan: Plan, seen: Survey, results: tuple[Result, ...], done: str) -> CycleOutcome:
    """Judge a cycle by its plan and what became of its writes; ``done`` is the word for a write that succeeded."""
    failed = [result for result in results if result.error is not None]
    stops = [refusal for refusal in plan.refusals if refusal.stops]
    if stops:
        return CycleOutcome(CycleResult.REFUSED, f"nothing changed, refused: {_texts(stops)}", plan, seen, results)
    sentence = sentence_of(plan, seen, results, done)
    if failed:
        return CycleOutcome(CycleResult.WRITE_ERROR, sentence, plan, seen, results)
    if plan.refusals:
        return CycleOutcome(CycleResult.REFUSED, f"{sentence}; refused: {_texts(plan.refusals)}", plan, seen, results)
    if any(result.outcome is WriteResult.OK for result in results):
        return CycleOutcome(CycleResult.CHANGED, sentence, plan, seen, results)
    return CycleOutcome(CycleResult.IN_SYNC if plan.in_sync else CycleResult.PROGRESSING, sentence, plan, seen, results)


def _texts(refusals: Iterable[Refusal]) -> str:
    return "; ".join(refusal.text for refusal in refusals)


def sentence_of(plan: Plan, seen: Survey, results: tuple[Result, ...], said: str = "done") -> str:
    """Return the numbers of a cycle as one sentence."""
    groups = [item for item in plan.items if item.group is not None]
    ready = sum(item.condition is Condition.READY for item in groups)
    text = f"{ready} of {len(groups)} groups ready, {seen.observed.membership.assets} assets"
    done = sum(result.outcome is WriteResult.OK for result in results)
    failed = [result for result in results if result.error is not None]
    if done:
        text += f", {done} {'write' if done == 1 else 'writes'} {said}"
    if failed:
        text += f", {len(failed)} failed (first: {failed[0].action.key}: {failed[0].error})"
    return text + ("" if results or not plan.in_sync else ", in sync")
