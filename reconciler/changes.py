"""What became wrong with a group or a service, and that it is well again: each said once, in the log."""

from __future__ import annotations

import structlog

from reconciler.model import Condition, Plan

_WRONG = (Condition.DEGRADED, Condition.CONFLICT)

log = structlog.get_logger()


class Changes:
    """Remembers what it said, so that a log has a line for every change and none for what stays."""

    def __init__(self) -> None:
        """Nothing was said yet: what is wrong at the first look is news."""
        self._said: dict[str, tuple[Condition, str]] = {}

    def tell(self, plan: Plan) -> None:
        """Say what is wrong now and was not, or for another reason, and what is well again."""
        items = {item.title: item for item in plan.items}
        for title in sorted(self._said):
            if title not in items:
                del self._said[title]
            elif items[title].condition is Condition.READY:
                del self._said[title]
                log.info("well again", object=title, group=items[title].group)
        for item in plan.items:
            news = (item.condition, item.detail)
            if item.condition in _WRONG and self._said.get(item.title) != news:
                self._said[item.title] = news
                log.warning("not well", object=item.title, group=item.group, condition=news[0].value, reason=news[1])
