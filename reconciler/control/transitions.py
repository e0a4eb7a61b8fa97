"""Records what became of groups and services, what safety rules refuse, and that it has ended: each once."""

from __future__ import annotations

from collections import Counter

from reconciler.control.journal import Journal, strip_varying
from reconciler.domain.status import Condition, Guard, ObjectStatus, Plan

_WRONG = (Condition.DEGRADED, Condition.CONFLICT)
#: Cycles for which an object has to be ready before it has recovered: one that crashes and starts in turns has not.
_RECOVERED_AFTER = 3


class TransitionLog:
    """Remembers what it recorded, so that there is a line for every change and none for what stays."""

    def __init__(self, journal: Journal) -> None:
        """Nothing was recorded yet: what is not ready in the first cycle is news."""
        self._journal = journal
        self._conditions: dict[str, Condition] = {}
        self._wrong: dict[str, tuple[Condition, str]] = {}
        self._ready: Counter[str] = Counter()
        self._refused: dict[Guard, str] = {}
        self._halted = ""

    def record(self, plan: Plan) -> None:
        """Record what has changed since the last plan: refusals, a halted rollout, and the condition of every object.

        Where a rule stops everything, another cluster may have been read: nothing is recorded of the objects in it.
        """
        self._record_refusals(plan)
        if any(refusal.stops for refusal in plan.refusals):
            return
        for item in plan.items:
            self._record_item(item)
        for gone in self._conditions.keys() - {item.title for item in plan.items}:
            # A plan has the shared stream while something is to be said of it.
            self._journal.info("ready" if gone.startswith("stream ") else "gone", object=gone, group=_group_of(gone))
            del self._conditions[gone]
            self._wrong.pop(gone, None)
            self._ready.pop(gone, None)
        halted = strip_varying(plan.halted)
        if halted and not self._halted:
            self._journal.warning("rollout halted", reason=plan.halted)
        elif self._halted and not halted:
            self._journal.info("rollout continues")
        self._halted = halted

    def _record_refusals(self, plan: Plan) -> None:
        refused = {refusal.guard: refusal for refusal in plan.refusals}
        for guard, refusal in refused.items():
            news = strip_varying(refusal.text)
            if self._refused.get(guard) != news:
                self._refused[guard] = news
                self._journal.warning("refused", guard=guard.value, reason=refusal.text)
        for guard in self._refused.keys() - refused.keys():
            del self._refused[guard]
            self._journal.info("no longer refused", guard=guard.value)

    def _record_item(self, item: ObjectStatus) -> None:
        title, condition = item.title, item.condition
        before = self._conditions.get(title, Condition.READY)
        self._conditions[title] = condition
        if condition in _WRONG:
            news = (condition, strip_varying(item.detail))
            self._ready.pop(title, None)
            if self._wrong.get(title) != news:
                self._wrong[title] = news
                self._journal.warning(
                    "degraded", object=title, group=item.group, condition=condition.value, reason=item.detail
                )
        elif title in self._wrong:  # one that crashes and starts in turns is in none of its conditions for long
            self._ready[title] += condition in (Condition.READY, Condition.ASLEEP)
            if self._ready[title] >= _RECOVERED_AFTER:
                del self._wrong[title], self._ready[title]
                self._journal.info("recovered", object=title, group=item.group)
        elif condition is not before:
            reason = {"reason": item.detail} if item.detail else {}
            self._journal.info(condition.value.lower(), object=title, group=item.group, **reason)


def _group_of(title: str) -> str | None:
    kind, _, name = title.partition(" ")
    return name if kind == "group" else None
