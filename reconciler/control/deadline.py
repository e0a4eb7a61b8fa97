"""Objects that stay on their way for too long are degraded, also where nothing reports an error. Pure.

Of services the platform itself says since when nothing has moved (`LiveService.since`), also to an operator that was
just started. For everything else the operator remembers since when it has said the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from reconciler.domain.status import Condition, ObjectStatus, Plan


@dataclass(frozen=True)
class StalledObject:
    """What is said of an object that is on its way, and since when: monotonic seconds, and the time of day."""

    detail: str
    since: float
    at: datetime


def with_deadline(
    plan: Plan, before: Mapping[str, StalledObject], now: float, at: datetime, deadline: float
) -> tuple[Plan, Mapping[str, StalledObject]]:
    """Degrade what has been on its way with the same words for longer than ``deadline`` seconds.

    Args:
        plan: as it was made.
        before: what the last call returned.
        now: monotonic seconds, so that a change of the wall clock ends no deadline.
        at: the same moment as time of day, with time zone.
        deadline: seconds; 0 for none.

    Returns:
        The plan, and what to remember: the objects that are on their way, by title.
    """
    standing: dict[str, StalledObject] = {}
    for item in plan.items:
        if item.condition is Condition.PROGRESSING:
            known = before.get(item.title)
            same = known is not None and known.detail == item.detail
            standing[item.title] = known if known is not None and same else StalledObject(item.detail, now, at)
    late = {title for title, one in standing.items() if deadline and now - one.since >= deadline}
    if not late:
        return plan, standing
    items = tuple(_late(item, standing[item.title]) if item.title in late else item for item in plan.items)
    return replace(plan, items=items), standing


def _late(item: ObjectStatus, standing: StalledObject) -> ObjectStatus:
    detail = f"no progress since {standing.at:%Y-%m-%d %H:%M:%S} UTC: {item.detail}"
    return replace(item, condition=Condition.DEGRADED, change="!", detail=detail)
