"""Which groups sleep: no task, and a paused query, while no client asks for them. Pure.

A group falls asleep in two phases, because a routing layer that has an older registry still opens streams:

1. It was asked for at no task of the routing layer for `IDLE_AFTER`: it leaves the registry, which marks it instead.
   What is open stays open, and a request waits.
2. Every task uses the registry with the mark, and has neither a stream nor a request of the group: its service gets no
   task, and its query is paused.

So nothing is stopped under a stream of a task that was asked: none has one, and none opens one before a later registry
gives the group a URL again. Each cycle decides from what is live: the mark, the number of tasks, the query. Evidence
that a client asks wakes a group from any phase; its mark stays until its tasks and its query run. Without a complete
report nothing falls asleep and what sleeps stays as it is; if that lasts, everything wakes, because a client may wait
at the task that does not answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum

from openfactory_common.registry import revision_of
from reconciler.domain.demand import DemandReport
from reconciler.planning.inputs import PlanInputs
from reconciler.planning.options import GroupFile
from reconciler.planning.survey import StreamVerdict, Survey
from reconciler.settings import Settings


class Demand(Enum):
    """What is known of the demand for a group."""

    ASKED = "asked"
    IDLE = "idle"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class GroupState:
    """What is live of one group.

    Attributes:
        since: the mark in the current registry (seconds since 1970); None where there is none.
        registered: it has a URL in the current registry, its stream is in order, and its service has been ready for
            `ROLLOUT_BAKE`: what sleeps has shown that its spec works.
        replicas: tasks that its service is to have; None where there is no service.
        paused: its query is paused, or not listed.
        unchanged: seconds since its service was last changed.
        moved: its stream is to read another source, once it has read the present one.
    """

    since: int | None = None
    registered: bool = False
    replicas: int | None = None
    paused: bool = False
    unchanged: float = 0.0
    moved: bool = False


@dataclass(frozen=True)
class Sleep:
    """What is to become of a group that is marked in the next registry.

    Attributes:
        since: the mark: not later than the moment from which its query reads nothing.
        stopped: its service has no task.
        paused: its query is paused.
        wakes: why, where it does.
    """

    since: int
    stopped: bool = False
    paused: bool = False
    wakes: str = field(default="", compare=False)

    @property
    def origin(self) -> str:
        """Where its number of tasks is from; ``""`` where sleep does not say it."""
        return "asleep" if self.stopped else self.wakes

    def describe(self) -> str:
        """Return what is said of the group."""
        since = f"asleep since {datetime.fromtimestamp(self.since, UTC):%Y-%m-%d %H:%M:%S} UTC"
        if not self.stopped:
            return "falls asleep, once no task of the routing layer can open a stream of it"
        return f"{since}, until a client asks" if self.paused else f"{since}, its query catches up"


def judge_demand(group: str, report: DemandReport, idle_after: float) -> Demand:
    """Return what a report says of a group.

    One task's word is enough that somebody asks, also in a report that is not complete. That nobody does, all must say,
    each for the whole time: one that has just started knows nothing of the time before.
    """
    found = [task.groups[group] for task in report.tasks if group in task.groups]
    if any(one.open or one.waiting or one.idle < idle_after for one in found):
        return Demand.ASKED
    known = report.complete and report.tasks and all(task.uptime >= idle_after for task in report.tasks)
    return Demand.IDLE if known else Demand.UNKNOWN


def decide_sleep(
    group: str,
    state: GroupState,
    report: DemandReport | None,
    revision: str,
    *,
    idle_after: float,
    held: bool = False,
    retention: float | None = None,
) -> Sleep | None:
    """Return how a group sleeps after this cycle; None where it is awake.

    Args:
        group: its name.
        state: what is live of it.
        report: of this cycle; None where nobody was asked (`plan`, `status`), which changes nothing.
        revision: of the current registry.
        idle_after: seconds without demand after which it falls asleep; 0 for never.
        held: it is left as it is, so it does not fall asleep. It wakes as any other, and its query reads what the
            shared topic may soon delete: neither changes what a person keeps.
        retention: seconds for which the shared topic keeps what a paused query has not read; None for ever.
    """
    kept = None
    if state.since is not None:
        kept = Sleep(state.since, stopped=not state.replicas, paused=state.paused)
    # Whatever wakes it: the mark stays until all of it runs, and what its query has not read is not lost by a move.
    behind = state.moved and (state.paused or report is None or group not in report.caught_up)
    awake = Sleep(kept.since) if kept and (kept.stopped or kept.paused or behind) else None
    if held and (kept is None or not kept.stopped):
        return awake
    if idle_after and report is None:
        return kept
    if not idle_after:
        return awake and replace(awake, wakes="IDLE_AFTER is off")
    if report is None or report.doubtful:
        return awake and replace(awake, wakes="some task of the routing layer does not answer")
    demand = judge_demand(group, report, idle_after)
    if demand is Demand.ASKED:
        return awake and replace(awake, wakes="a client asks")
    if kept is None:
        rests = state.registered and state.replicas and not state.paused and state.unchanged >= idle_after
        return Sleep(report.at) if demand is Demand.IDLE and rests else None
    left = demand is Demand.IDLE and all(task.revision == revision for task in report.tasks)
    stopped = kept.stopped or left
    overdue = _is_overdue(kept.since, report.at, retention)
    if overdue and group in report.caught_up and not kept.paused:
        return Sleep(report.at, stopped=stopped)
    return Sleep(kept.since, stopped=stopped, paused=not overdue and (kept.paused or (left and stopped)))


def idle_after_of(group: str, options: GroupFile, settings: Settings) -> float:
    """Return after how many seconds without demand a group falls asleep; 0 for never."""
    own = options.of(group).idle_after
    return settings.idle_after if own is None or not settings.idle_after else own


def find_overdue(survey: Survey, settings: Settings, at: int) -> Iterator[str]:
    """Return the marked groups whose queries must read: the shared topic may soon delete it, or the stream is to move.

    ``at`` is a time as in a mark.
    """
    marks = survey.published.document.asleep if survey.published else {}
    for group in survey.wanted.keys() & marks.keys():
        moved = survey.streams[group].verdict is StreamVerdict.MOVED
        if moved or _is_overdue(marks[group], at, settings.shared_retention):
            yield group


def _is_overdue(since: int, at: int, retention: float | None) -> bool:
    # Also where the clock was set back since: then nobody knows for how long it has been paused.
    return retention is not None and abs(at - since) > retention / 2


def plan_sleep(survey: Survey, inputs: PlanInputs) -> Mapping[str, Sleep]:
    """Return how each group sleeps that does after this cycle; one whose names are another's is left alone."""
    return dict(_plan_each(survey, inputs))


def _plan_each(survey: Survey, inputs: PlanInputs) -> Iterator[tuple[str, Sleep]]:
    published, report = survey.published, inputs.demand
    marks = published.document.asleep if published else {}
    revision = revision_of(published.live.data) if published else ""
    for group in survey.wanted:
        live, check = survey.owned[group].service if group in survey.owned else None, survey.streams[group]
        if check.verdict is StreamVerdict.FOREIGN:
            continue
        in_order = check.verdict is StreamVerdict.IN_SYNC and not check.detail
        in_order = in_order and live is not None and live.name.casefold() in inputs.baked
        changed = live.updated_at if live else None
        state = GroupState(
            marks.get(group),
            registered=in_order and published is not None and group in published.document.groups,
            replicas=live.spec.replicas if live and live.spec else None,
            # While a server stops, its queries are not listed: that wakes nobody.
            paused=check.paused or check.verdict in (StreamVerdict.PAUSED, StreamVerdict.SILENT),
            unchanged=report.at - changed.timestamp() if report and changed else 0.0,
            moved=check.verdict is StreamVerdict.MOVED,
        )
        sleep = decide_sleep(
            group,
            state,
            report,
            revision,
            idle_after=idle_after_of(group, inputs.options, inputs.settings),
            held=group in inputs.held,
            retention=inputs.settings.shared_retention,
        )
        if sleep is not None:
            yield group, sleep
