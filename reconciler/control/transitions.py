"""What became wrong with a group or a service, and that it is well again: each said once, in the log."""

from __future__ import annotations

import re
from collections import Counter

import structlog

from reconciler.domain.status import Condition, ObjectStatus, Plan

_WRONG = (Condition.DEGRADED, Condition.CONFLICT)
#: Looks at which an object has to be well before that is said: one that crashes and starts in turns is not.
_SURE = 3
#: Counts, times and ids, which change while the trouble is the same.
_VARYING = re.compile(r"[0-9a-f]{12,}|\d+")

log = structlog.get_logger()


class TransitionLog:
    """Remembers what it said, so that a log has a line for every change and none for what stays."""

    def __init__(self) -> None:
        """Nothing was said yet: what is wrong at the first look is news."""
        self._said: dict[str, tuple[Condition, str]] = {}
        self._well: Counter[str] = Counter()

    def tell(self, plan: Plan) -> None:
        """Say what is wrong now and was not, or for another reason, and what is well again.

        Where a rule stops everything, it may be another world that was seen: nothing is said of the objects in it.
        """
        if any(refusal.stops for refusal in plan.refusals):
            return
        for item in plan.items:
            if item.condition in _WRONG:
                self._not_well(item)
            elif item.title in self._said and item.condition is Condition.READY:
                self._better(item)
        for gone in self._said.keys() - {item.title for item in plan.items}:
            del self._said[gone]
            self._well.pop(gone, None)

    def _not_well(self, item: ObjectStatus) -> None:
        news = (item.condition, _VARYING.sub("#", item.detail))
        self._well.pop(item.title, None)
        if self._said.get(item.title) != news:
            self._said[item.title] = news
            condition = item.condition.value
            log.warning("not well", object=item.title, group=item.group, condition=condition, reason=item.detail)

    def _better(self, item: ObjectStatus) -> None:
        self._well[item.title] += 1
        if self._well[item.title] >= _SURE:
            del self._said[item.title], self._well[item.title]
            log.info("well again", object=item.title, group=item.group)
