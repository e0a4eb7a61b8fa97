"""Logs what became wrong with a group or a service, and that it has recovered: each once."""

from __future__ import annotations

import re
from collections import Counter

import structlog

from reconciler.domain.status import Condition, Plan

_WRONG = (Condition.DEGRADED, Condition.CONFLICT)
#: Cycles for which an object has to be ready before it has recovered: one that crashes and starts in turns has not.
_RECOVERED_AFTER = 3
#: Counts, times and ids, which change while the reason is the same.
_VARYING = re.compile(r"[0-9a-f]{12,}|\d+")

log = structlog.get_logger()


class TransitionLog:
    """Remembers what it logged, so that there is a line for every change and none for what stays."""

    def __init__(self) -> None:
        """Nothing was logged yet: what is wrong in the first cycle is news."""
        self._logged: dict[str, tuple[Condition, str]] = {}
        self._ready: Counter[str] = Counter()

    def record(self, plan: Plan) -> None:
        """Log what is wrong now and was not, or for another reason, and what has recovered.

        Where a rule stops everything, another cluster may have been read: nothing is logged of the objects in it.
        """
        if any(refusal.stops for refusal in plan.refusals):
            return
        for item in plan.items:
            if item.condition in _WRONG:
                news = (item.condition, _VARYING.sub("#", item.detail))
                self._ready.pop(item.title, None)
                if self._logged.get(item.title) != news:
                    self._logged[item.title] = news
                    condition = item.condition.value
                    log.warning(
                        "degraded", object=item.title, group=item.group, condition=condition, reason=item.detail
                    )
            elif item.title in self._logged and item.condition in (Condition.READY, Condition.ASLEEP):
                self._ready[item.title] += 1
                if self._ready[item.title] >= _RECOVERED_AFTER:
                    del self._logged[item.title], self._ready[item.title]
                    log.info("recovered", object=item.title, group=item.group)
        for gone in self._logged.keys() - {item.title for item in plan.items}:
            del self._logged[gone]
            self._ready.pop(gone, None)
