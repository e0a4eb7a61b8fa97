"""What the tasks of the routing layer report of the demand for groups. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class GroupDemand:
    """The demand for one group at one task.

    Attributes:
        open: streams that are open.
        waiting: requests that wait for the group's service.
        idle: seconds since the last request for it or the end of its last stream; 0 while there is any.
    """

    open: int = 0
    waiting: int = 0
    idle: float = 0.0


@dataclass(frozen=True)
class TaskDemand:
    """What one task answered.

    Attributes:
        revision: of the registry that all its workers use; ``""`` where they differ or have none.
        complete: all its workers are in it.
        uptime: seconds since the first of them that may not know of earlier requests has started.
        groups: the groups that were asked for since then.
    """

    revision: str
    complete: bool
    uptime: float
    groups: Mapping[str, GroupDemand] = field(default_factory=dict)


@dataclass(frozen=True)
class DemandReport:
    """What all tasks answered in one cycle.

    Attributes:
        at: when they were asked, in seconds since 1970.
        tasks: the answers.
        complete: every task that runs has answered, with all its workers.
        doubtful: no report was complete for so long that clients may wait at a task that cannot be asked.
        caught_up: groups whose query has read all that the shared topic had, among those that are to catch up.
    """

    at: int
    tasks: tuple[TaskDemand, ...] = ()
    complete: bool = False
    doubtful: bool = False
    caught_up: frozenset[str] = frozenset()
