"""What an operator remembers between cycles, and how it reports them: log, metrics, the current registry."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import structlog
from structlog.contextvars import bound_contextvars

from openfactory_common.errors import PlatformError, ReconcilerError, describe
from openfactory_common.registry import revision_of
from reconciler.control.backoff import Backoff, Contest, Surplus
from reconciler.control.demand import DemandReader
from reconciler.control.flow import FlowWatch
from reconciler.control.journal import Journal
from reconciler.control.observe import Clocks, Dependencies
from reconciler.control.outcome import CycleOutcome, explain_error
from reconciler.control.readiness import Prober
from reconciler.control.transitions import TransitionLog
from reconciler.domain.actions import Action, PublishRegistry, ResubmitService, Result, UpdateService, WriteResult
from reconciler.domain.demand import DemandReport
from reconciler.domain.installation import Claim
from reconciler.domain.readiness import Readiness, ReadyState, find_readiness, is_known_unready
from reconciler.domain.services import LiveService, PlatformState, Record, ServiceSpec
from reconciler.domain.status import BlockReason, Condition, CycleResult, ObjectStatus, Part, Plan
from reconciler.ksqldb.api import Ksqldb
from reconciler.ksqldb.statements import Topology
from reconciler.leadership.pause import (
    DELETIONS_RECORD,
    GROUP_PAUSES_RECORD,
    Pause,
    read_marks,
    read_pause,
    write_mark,
)
from reconciler.metrics import Metrics
from reconciler.planning.guards import GuardMemory, has_collapsed
from reconciler.planning.inputs import PlanInputs
from reconciler.planning.streams import note_offset
from reconciler.planning.survey import Survey, current_registry
from reconciler.platforms.protocol import Records
from reconciler.settings import Settings

log = structlog.get_logger()

#: Seconds for which a service whose tasks have just started may be not ready without being degraded.
STARTUP_SECONDS = 20.0
#: A standby writes nothing: its reads prove nothing about the one that should.
_NO_SUCCESS = (CycleResult.READ_ERROR, CycleResult.WRITE_ERROR, CycleResult.BUG, CycleResult.STANDBY)
#: For how many times `ROLLOUT_TIMEOUT` a service is on trial. After a restart an operator does not know whether one was
#: ready after its last update; one that stops to be ready long after it must not be rolled back.
_TRIAL = 5
#: What ended longer ago is no news to an operator that has just started.
_ENDS_FROM = timedelta(days=1)
_WARNINGS = (CycleResult.READ_ERROR, CycleResult.REFUSED, CycleResult.WRITE_ERROR, CycleResult.BUG)


@dataclass(frozen=True)
class StalledObject:
    """What is said of an object in progress, and since when: monotonic seconds, and the time of day."""

    detail: str
    since: float
    at: datetime


@dataclass
class Memory:
    """What an operator remembers between cycles; a restart loses it, which removes nothing sooner.

    Attributes:
        guards: counters of the guards.
        backoff: objects whose last write failed.
        contest: objects that another writer keeps changing.
        pause: the pause that was read last.
        group_pauses: the pauses of single groups that were in force at the last read.
        done_deletions: those of `deletions` that were gone, or had assets, at the last scan of the map.
        deletions: the groups that a person wanted removed at the last read, with who and until when that is valid.
        stalled: objects in progress, by title, each with since when the same has been said of it.
        flow: watches whether events flow; None where that is not watched.
        silent_streams: what the running operator's `flow` says, in a process that does not watch by itself.
        readiness: what the probes found last, by the service's name in lower case; None where nothing is probed.
        proved: the spec with which each service was ready for `ROLLOUT_BAKE`, by its name in lower case.
        unready: since when (monotonic seconds) each service that is not ready has been seen so, by its name in lower
            case; what was not probed yet is not in it.
        demand: what the routing layer's tasks reported last; None where they are not asked.
        suspects: services that may be crashing in a loop, by name in lower case; see `find_suspects`.
        surplus: services with more tasks than wanted.
    """

    guards: GuardMemory = field(default_factory=GuardMemory)
    backoff: Backoff = field(default_factory=Backoff)
    contest: Contest = field(default_factory=Contest)
    pause: Pause | None = None
    group_pauses: Mapping[str, Pause] = field(default_factory=dict)
    deletions: Mapping[str, Pause] = field(default_factory=dict)
    done_deletions: frozenset[str] = frozenset()
    stalled: Mapping[str, StalledObject] = field(default_factory=dict)
    flow: FlowWatch | None = None
    silent_streams: Mapping[str, str] = field(default_factory=dict)
    readiness: Mapping[str, Readiness] | None = None
    proved: Mapping[str, ServiceSpec | None] = field(default_factory=dict)
    unready: Mapping[str, float] = field(default_factory=dict)
    demand: DemandReport | None = None
    suspects: frozenset[str] = frozenset()
    surplus: Surplus = field(default_factory=Surplus)

    def update_marks(self, records: Mapping[str, Record], wall: datetime) -> None:
        """Take over what is on record; the pause of all writes stays where its record is not there."""
        self.pause = read_pause(self.pause, records)
        self.group_pauses = read_marks(GROUP_PAUSES_RECORD, records, wall)
        self.deletions = read_marks(DELETIONS_RECORD, records, wall)

    def end_deletions(self, records: Records, survey: Survey, wall: datetime) -> None:
        """End what was asked for groups that are gone, or have assets again: it must not count for a later absence.

        Two scans in a row say so: one that is older than the request may still show the assets.
        """
        if not survey.observed.membership.fresh:
            return
        before, self.done_deletions = self.done_deletions, frozenset(self.deletions) - survey.missing
        for group in before & self.done_deletions:
            with suppress(PlatformError):  # the next scan tries again
                write_mark(records, DELETIONS_RECORD, group, None, wall)

    def find_active_pause(self, wall: datetime) -> Pause | None:
        """Return the pause that suspends writes at this time of day; None where none does."""
        return self.pause if self.pause is not None and self.pause.active(wall) else None

    def find_paused(self) -> Mapping[str, str]:
        """Return the groups that a command has paused, each until when and by whom."""
        return {group: pause.text for group, pause in self.group_pauses.items()}

    def silent(self) -> Mapping[str, str]:
        """Return why streams are silent (see `reconciler.control.flow`), by group; that of the shared stream by ""."""
        return self.flow.silent() if self.flow is not None else self.silent_streams

    def must_wait(self, action: Action, now: float) -> bool:
        """Whether an action may not be done yet, after a failure or because its object is contested."""
        failure = self.backoff.failures.get(action.key)
        return (failure is not None and now < failure.until) or self.contest.suspends(action, now)

    def make_plan_inputs(self, deps: Dependencies, platform: PlatformState, claim: Claim, clocks: Clocks) -> PlanInputs:
        """Return what a plan depends on besides the survey and the guards' verdict."""
        settings, now, wall = deps.settings, clocks.monotonic(), clocks.wall()

        def age(moment: datetime) -> float:
            return (wall - (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))).total_seconds()

        def is_baked(key: str, live: LiveService) -> bool:
            found = find_readiness(self.readiness, key)
            if not live.converged:
                return False
            if found is None or found.state is ReadyState.UNREACHABLE:
                changed = live.updated_at  # one that runs now may have ended just before: then it has an error
                # A change that lies in the future is from before the clock was set back: nothing could bake for days.
                return not live.error and (changed is None or abs(age(changed)) >= settings.rollout_bake)
            return found.state is ReadyState.READY and now - found.since >= settings.rollout_bake

        def is_unready(key: str, live: LiveService) -> bool:
            return not live.converged or live.error != "" or is_known_unready(self.readiness, key)

        services, deadline = platform.services, settings.progress_deadline
        ages = {key: age(live.updated_at) for key, live in services.items() if live.updated_at is not None}
        baked = frozenset(key for key, live in services.items() if is_baked(key, live))
        known = self.proved
        self.proved = {key: live.spec for key, live in services.items() if key in baked or known.get(key) == live.spec}
        self.unready = {key: self.unready.get(key, now) for key, live in services.items() if is_unready(key, live)}
        unready = {key: now - since for key, since in self.unready.items()}
        waited = {key: seconds if seconds >= 0 else unready.get(key, 0.0) for key, seconds in ages.items()}
        trial = _TRIAL * settings.rollout_timeout
        self.surplus = self.surplus.observe(services, now)
        return PlanInputs(
            settings=settings,
            topology=deps.topology,
            lookup=deps.strategy.lookup(),
            aged=frozenset(
                live.name for live in platform.registries if age(live.updated_at) >= settings.registry_roll_after
            ),
            stalled=frozenset(
                live.name
                for live in services.values()
                if deadline and live.since is not None and age(live.since) >= deadline
            ),
            failures=self.backoff.errors,
            waiting=self.backoff.find_waiting(now),
            contested=self.contest.find_contested(now),
            claim=claim,
            options=deps.groups_file.current,
            options_problem=deps.groups_file.problem,
            silent=self.silent(),
            readiness=self.readiness,
            demand=self.demand,
            starting=frozenset(
                key
                for key, found in (self.readiness or {}).items()
                if found.state is ReadyState.NOT_READY and now - found.since < STARTUP_SECONDS
            ),
            baked=baked,
            overdue=frozenset(key for key, seconds in waited.items() if seconds >= settings.rollout_timeout),
            on_trial=frozenset(
                key
                for key, seconds in ages.items()
                if seconds < trial and key not in self.proved and unready.get(key, 0) >= settings.rollout_timeout
            ),
            past=frozenset(key for key, seconds in ages.items() if seconds >= trial and key in self.proved),
            fallen=frozenset(key for key, seconds in unready.items() if seconds < trial),
            # The engine keeps one previous spec: that of one which may be rolled back must not be overwritten.
            surplus=frozenset(
                key
                for key in self.surplus.find_due(now)
                if ages.get(key, trial) >= trial or not is_known_unready(self.readiness, key)
            ),
        )

    def finish_plan(self, plan: Plan, settings: Settings, clocks: Clocks) -> Plan:
        """Note a pause in the plan; otherwise degrade what has been in progress for too long."""
        pause = self.find_active_pause(clocks.wall())
        if pause is not None:
            self.stalled = {}  # an object that may not be written cannot make progress
            return replace(plan, notes=(*plan.notes, pause.text))
        now, at, deadline = clocks.monotonic(), clocks.wall(), settings.progress_deadline
        plan, self.stalled = degrade_stalled(plan, self.stalled, now, at, deadline)
        return plan


def find_suspects(platform: PlatformState, readiness: Mapping[str, Readiness] | None) -> frozenset[str]:
    """Return the services whose tasks the next observation must read. Pure.

    One that ends right after each start looks as it should whenever it is observed between two ends; only its tasks
    tell. So these are the services that did not run, had an error, or were not ready.
    """

    def is_suspect(key: str, live: LiveService) -> bool:
        found = find_readiness(readiness, key)
        not_ready = found is not None and found.state is ReadyState.NOT_READY
        wanted = live.spec is not None and live.spec.replicas > 0
        return wanted and (not live.converged or live.error != "" or not_ready)

    return frozenset(key for key, live in platform.services.items() if is_suspect(key, live))


def degrade_stalled(
    plan: Plan, before: Mapping[str, StalledObject], now: float, at: datetime, deadline: float
) -> tuple[Plan, Mapping[str, StalledObject]]:
    """Degrade what has been in progress with the same words for longer than ``deadline`` seconds. Pure.

    Of services the platform itself says since when nothing has moved (`LiveService.since`), also to an operator that
    was just started. For everything else the operator remembers since when it has said the same.

    Args:
        plan: as it was made.
        before: what the last call returned.
        now: monotonic seconds, so that a change of the wall clock ends no deadline.
        at: the same moment as time of day, with time zone.
        deadline: seconds; 0 for none.

    Returns:
        The plan, and what to remember: the objects in progress, by title.
    """
    stalled: dict[str, StalledObject] = {}
    items: list[ObjectStatus] = []
    for item in plan.items:
        status = item
        if item.condition is Condition.PROGRESSING:
            known = before.get(item.title)
            if known is None or known.detail != item.detail:
                known = StalledObject(item.detail, now, at)
            stalled[item.title] = known
            if deadline and now - known.since >= deadline:
                detail = f"no progress since {known.at:%Y-%m-%d %H:%M:%S} UTC: {item.detail}"
                status = replace(item, condition=Condition.DEGRADED, change="!", detail=detail)
        items.append(status)
    return replace(plan, items=tuple(items)), stalled


class Reporter:
    """Reports cycles to the log, the metrics and those who follow the registry; no failure of a report ends a cycle.

    Attributes:
        metrics: what is counted.
        journal: what is logged, with its history.
        on_registry: called with the current registry document and its revision.
        dry_run: writes are withheld, so nothing may be reported as done.
    """

    def __init__(
        self,
        metrics: Metrics,
        memory: Memory,
        clocks: Clocks,
        on_registry: Callable[[bytes, str], None],
        *,
        dry_run: bool,
    ) -> None:
        """Report on an operator with this memory."""
        self.metrics = metrics
        self.journal = Journal(clocks.wall)
        self.on_registry = on_registry
        self.dry_run = dry_run
        self._memory = memory
        self._clocks = clocks
        self._transitions = TransitionLog(self.journal)
        self._paused: Pause | None = None
        self._held: Mapping[str, str] = {}
        self._unread = False
        self._ends: dict[str, datetime] = {}
        self._collapsed = False
        self._bugs: list[str] = []

    def supervise(self, cycle: Callable[[], CycleOutcome], settings: Settings) -> CycleOutcome:
        """Run a cycle and report how it ended; an exception is one way in which it can."""
        self._bugs.clear()
        started = time.perf_counter()
        with bound_contextvars(reconcile_id=uuid.uuid4().hex[:8]):
            try:
                outcome = cycle()
            except Exception as error:  # noqa: BLE001 - the next cycle starts from full reads again
                outcome = self._explain(error, settings)
            outcome = outcome.with_bugs(self._bugs)
            with self.isolate():
                self._record(outcome)
            with self.isolate():
                self.metrics.seconds.observe(time.perf_counter() - started)
            return outcome

    def _explain(self, error: Exception, settings: Settings) -> CycleOutcome:
        """Return the outcome of a cycle that an exception ended; counts of absences start again."""
        self._memory.guards = self._memory.guards.distrust()
        if not isinstance(error, ReconcilerError):
            self.report_bug(Part.CYCLE, error)
            return CycleOutcome(CycleResult.BUG, f"cycle ended by a bug: {type(error).__name__}: {error}")
        with self.isolate():
            self.metrics.count_failed_read(error)
        sentence = f"nothing changed, a read failed: {explain_error(error, settings)}"
        return CycleOutcome(CycleResult.READ_ERROR, sentence, error=error)

    def _record(self, outcome: CycleOutcome) -> None:
        memory, plan = self._memory, outcome.plan
        self.metrics.reconciles.labels(outcome.result).inc()
        self.metrics.contested.set(len(memory.contest.find_contested(self._clocks.monotonic())))
        # A write that is wanted may have failed earlier, and wait in this cycle.
        wanted = {action.key for action in plan.actions} | plan.left_out if plan else set()
        failing = outcome.result in _NO_SUCCESS or not memory.backoff.failures.keys().isdisjoint(wanted)
        if outcome.result is CycleResult.PAUSED or not failing:
            self.metrics.last_success.set(self._clocks.wall().timestamp())
        self._report_end(outcome)

    def _report_end(self, outcome: CycleOutcome) -> None:
        """Log how the cycle ended; that reads begin to fail, and that they succeed again, are entries."""
        was, self._unread = self._unread, outcome.result is CycleResult.READ_ERROR
        if self._unread:
            self.journal.warning(outcome.sentence, result=outcome.result.value)
            return
        if was and outcome.survey is not None:
            self.journal.info("reads succeed again")
        self._unread = was and outcome.survey is None
        level = "warning" if outcome.result in _WARNINGS else "info"
        getattr(log, level)(outcome.sentence, result=outcome.result.value)

    @contextmanager
    def isolate(self) -> Iterator[None]:
        """Continue after any exception of what is done inside, which no decision depends on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - counted as a bug, whatever it is
            self.report_bug(Part.REPORT, error)

    def report_bug(self, part: Part, error: Exception, key: str = "", verb: str = "") -> None:
        """Log an unexpected exception with its traceback, and count it; with ``key``, let that object wait."""
        self._bugs.append(f"{key or part}: {type(error).__name__}: {error}")
        if key:
            self._memory.backoff = self._memory.backoff.add_failure(key, error, self._clocks.monotonic(), verb)
        with suppress(Exception):  # what reports it may itself be what fails
            self.metrics.bugs.labels(part).inc()
        with suppress(Exception):
            self.journal.error("bug", part=part.value, object=key or None, error=str(error), exc_info=error)

    def report_unknown_owner(self, stream: str, error: Exception) -> None:
        """Warn of a stream that could not be read; once for each new error."""
        if not isinstance(error, ReconcilerError):
            self.report_bug(Part.OWNERSHIP, error)
        with self.isolate():
            self.journal.warning(
                "ownership of a stream is unknown, deletions are suspended", stream=stream, error=describe(error)
            )

    def report_platform(self, platform: PlatformState) -> None:
        """Show the current registry and the pause, also while ksqlDB is away."""
        with self.isolate():
            published, _ = current_registry(platform.registries)
            if published is not None:
                self._show_registry(published.live.data, revision_of(published.live.data))
        with self.isolate():
            self.metrics.paused.set(self._memory.find_active_pause(self._clocks.wall()) is not None)
        with self.isolate():
            self._report_ends(platform)
        with self.isolate():
            self._report_pause(self._memory.find_active_pause(self._clocks.wall()))
        with self.isolate():
            self._report_held(self._memory.find_paused())

    def _report_ends(self, platform: PlatformState) -> None:
        """Record which tasks have ended since the last time, one entry a service; at the start, those of one day."""
        after = self._clocks.wall() - _ENDS_FROM
        news = {end.service: end for end in platform.ended if end.id not in self._ends and end.at > after}
        self._ends = {end.id: end.at for end in platform.ended} | {
            known: at for known, at in self._ends.items() if at > after
        }
        for end in sorted(news.values(), key=lambda one: one.at):
            live = platform.services.get(end.service.lower())
            group = live.spec.group if live is not None and live.spec is not None else None
            at = f"{end.at:%Y-%m-%d %H:%M:%S} UTC"
            self.journal.warning(
                "task ended", object=f"service {end.service}", group=group, task=end.task, ended=at, reason=end.reason
            )

    def _report_pause(self, pause: Pause | None) -> None:
        """Record that a pause has begun, was changed, or has ended: by itself, or by whom."""
        before, self._paused = self._paused, pause
        if pause is not None and pause != before:
            self.journal.warning("writes are paused", by=pause.by, reason=pause.text)
        elif pause is None and before is not None:
            ended = self._memory.pause
            by = ended.by if ended is not None and ended.until is None else "its time"
            self.journal.info("writes are resumed", by=by, reason=before.text)

    def _report_held(self, held: Mapping[str, str]) -> None:
        """Record of which groups a pause has begun, was changed, or has ended."""
        self.metrics.paused_groups.set(len(held))
        before, self._held = self._held, held
        for group, text in held.items():
            if before.get(group) != text:
                self.journal.warning("group is paused", object=f"group {group}", group=group, reason=text)
        for group in before.keys() - held.keys():
            self.journal.info("group is resumed", object=f"group {group}", group=group, reason=before[group])

    def probe(self, prober: Prober | None, platform: PlatformState) -> None:
        """Remember which services are ready, and whose tasks to read next time; a bug in that leaves what was known."""
        memory = self._memory
        if prober is not None:
            try:
                memory.readiness = prober.probe(platform.services, self._clocks.monotonic())
            except Exception as error:  # noqa: BLE001 - the other parts of the cycle go on
                self.report_bug(Part.PROBE, error)
        memory.suspects = find_suspects(platform, memory.readiness)

    def ask_demand(self, reader: DemandReader, survey: Survey, ksqldb: Ksqldb) -> None:
        """Remember which groups clients ask for; with a bug in that, all groups wake."""
        memory, wall = self._memory, self._clocks.wall()
        try:
            memory.demand = reader.read(survey, ksqldb, self._clocks.monotonic(), wall)
        except Exception as error:  # noqa: BLE001 - the other parts of the cycle go on
            memory.demand = DemandReport(int(wall.timestamp()), doubtful=True)
            self.report_bug(Part.PROBE, error)

    def report_collapse(self, survey: Survey, settings: Settings) -> None:
        """Warn when the map has lost many assets at once; one warning, however long that lasts."""
        with self.isolate():
            before, now = self._memory.guards.largest, survey.observed.membership.assets
            was, self._collapsed = self._collapsed, has_collapsed(before, now, settings)
            if self._collapsed:
                self.metrics.blocked.labels(BlockReason.COLLAPSE).inc()
                if not was:
                    self.journal.warning(
                        "the map lost many assets at once, absences are counted again", before=before, now=now
                    )

    def report_kept(self, groups: Collection[str]) -> None:
        """Warn of groups that the direct read of the map keeps."""
        with self.isolate():
            if groups:
                self.metrics.blocked.labels(BlockReason.QUESTION).inc(len(groups))
                reason = self._memory.guards.doubt or "they have members"
                self.journal.warning("groups are kept by the last question", groups=sorted(groups), reason=reason)

    def report_offset(self, plan: Plan, inputs: PlanInputs) -> None:
        """Warn where the server's own offset decides what a new shared stream begins with."""
        with self.isolate():
            for note in note_offset(plan.actions, inputs):
                self.journal.warning(note)

    def report_plan(self, plan: Plan, survey: Survey, topology: Topology) -> None:
        """Report what was planned, what has changed for the better or worse, and let a check of the flow begin."""
        for bug in plan.bugs:
            self.report_bug(Part.PLAN, bug.error, bug.key)
        with self.isolate():
            self.metrics.record_survey(survey, plan)
        with self.isolate():
            self._transitions.record(plan)
        with self.isolate():
            if self._memory.flow is not None:
                self._memory.flow.tick(survey, topology, self._clocks.monotonic())

    def report_write(self, result: Result) -> None:
        """Remember and report what became of a write."""
        with self.isolate():
            memory, action, error = self._memory, result.action, result.error
            if result.outcome is WriteResult.BUG and error is not None:
                self.report_bug(Part.WRITE, error, action.key, action.verb)
            elif error is not None:
                memory.backoff = memory.backoff.add_failure(action.key, error, self._clocks.monotonic(), action.verb)
                self.journal.warning(
                    "write failed", action=action.verb, object=action.key, group=action.group, error=str(error)
                )
            elif not result.skipped:
                self._report_done(action)
            self.metrics.applied(result)

    def _report_done(self, action: Action) -> None:
        memory, now = self._memory, self._clocks.monotonic()
        memory.backoff = memory.backoff.forget(action.key)
        if isinstance(action, ResubmitService):
            memory.surplus = memory.surplus.add_cure(action, now)
        known = action.key in memory.contest.find_contested(now)
        memory.contest = memory.contest.add_write(action, now, self._clocks.wall())
        contested = memory.contest.find_contested(now).get(action.key)
        # The names of the fields alone: what stood in them may be a secret.
        cause: dict[str, object] = {}
        if isinstance(action, UpdateService) and action.drift:
            cause = {"drift": [each.field for each in action.drift]}
        if reason := getattr(action, "why", "") or getattr(action, "failure", ""):
            cause["reason"] = reason
        event = "write withheld" if self.dry_run else "write done"
        self.journal.info(event, action=action.verb, object=action.key, group=action.group, **cause)
        if contested is not None and not known:
            self.journal.warning("contested", object=action.key, group=action.group, reason=contested)
        if isinstance(action, PublishRegistry):
            self._show_registry(action.document.canonical(), action.document.revision)

    def _show_registry(self, data: bytes, revision: str) -> None:
        self.metrics.registry(revision, len(data))
        self.on_registry(data, revision)
