"""The loop: observe, plan, guard, apply, sleep.

Level-triggered: every cycle starts from full reads and decides from what it sees. An event only shortens the sleep.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

import structlog
from structlog.contextvars import bound_contextvars

from openfactory_common.errors import KsqlError, ReconcilerError, describe
from openfactory_common.ksqldb.wire import stored
from openfactory_common.registry import revision_of
from reconciler.control.backoff import Backoff
from reconciler.control.contest import Contest
from reconciler.control.deadline import StalledObject, with_deadline
from reconciler.control.executor import Executor
from reconciler.control.flow import FlowWatch
from reconciler.control.observe import MapScan, observe_source
from reconciler.control.orphans import OrphanStreams
from reconciler.control.outcome import CycleOutcome, explained, outcome_of, sentence_of
from reconciler.control.schedule import Timers, next_due
from reconciler.control.transitions import TransitionLog
from reconciler.domain.actions import (
    Action,
    CreateSharedStream,
    CreateStream,
    PublishRegistry,
    Result,
    UpdateService,
    WriteResult,
)
from reconciler.domain.installation import Claim, Installation, claim, new_id, parse, sift
from reconciler.domain.observed import Observed, SourceState
from reconciler.domain.services import PlatformState
from reconciler.domain.status import BlockReason, CycleResult, Part, Plan
from reconciler.grouping.base import GroupingStrategy
from reconciler.ksqldb.api import Ksqldb
from reconciler.ksqldb.entities import QueryInfo, find_not_running
from reconciler.ksqldb.ownership import Whose
from reconciler.ksqldb.statements import Topology
from reconciler.leadership.elector import AlwaysLeader, WriteBlock, WriteGate
from reconciler.leadership.pause import Pause, latest
from reconciler.metrics import Metrics
from reconciler.planning import guards
from reconciler.planning.guards import GuardMemory, Overrides, Verdict
from reconciler.planning.inputs import PlanInputs
from reconciler.planning.plan import make_plan
from reconciler.planning.streams import offset_note
from reconciler.planning.survey import Survey, current_registry, make_survey
from reconciler.platforms.protocol import Platform
from reconciler.settings import Settings

log = structlog.get_logger()
T = TypeVar("T")


@dataclass(frozen=True)
class Dependencies:
    """What the operator works with: the two sides, how assets are grouped, and what streams should be."""

    settings: Settings
    ksqldb: Ksqldb
    platform: Platform
    strategy: GroupingStrategy
    topology: Topology


@dataclass(frozen=True)
class Clocks:
    """Where time comes from: ``monotonic`` for grace times, ``wall`` to compare with the engine's time stamps."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass
class Controller:
    """One operator. All that changes is counters, back-off and what is shown to others.

    Attributes:
        world: what it works with.
        metrics: what it counts.
        overrides: what a person allowed for this run.
        clocks: where time comes from.
        on_registry: told the current registry document and its revision.
        on_step: called after each write, as a sign of life in a long cycle.
        stopping: asked before each write; once true, the rest of the cycle is left to the next one.
        memory: counters of the guards.
        backoff: objects that wait after a failed write.
        contest: objects that another writer keeps changing.
        write_gate: asked before each write whether this operator may write now.
        pause: the pause that was seen last.
        dry_run: writes reach nobody (a dry run), so nothing may be said to have been done.
        looks_once: there will be no other look, so nothing is left for it.
        flow: watches whether events come through; None where it is not asked.
        told_silent: why streams are silent, of the operator that runs, in a process that does not watch them itself.
        standing: what has been on its way with the same words, and since when.
    """

    world: Dependencies
    metrics: Metrics
    overrides: Overrides = field(default_factory=Overrides)
    clocks: Clocks = field(default_factory=Clocks)
    on_registry: Callable[[bytes, str], None] = lambda _data, _revision: None
    on_step: Callable[[], None] = lambda: None
    stopping: Callable[[], bool] = lambda: False
    memory: GuardMemory = field(default_factory=GuardMemory)
    backoff: Backoff = field(default_factory=Backoff)
    contest: Contest = field(default_factory=Contest)
    write_gate: WriteGate = field(default_factory=AlwaysLeader)
    pause: Pause | None = None
    dry_run: bool = False
    looks_once: bool = False
    flow: FlowWatch | None = None
    told_silent: Mapping[str, str] = field(default_factory=dict)
    standing: Mapping[str, StalledObject] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Prepare the reader of groups."""
        world = self.world
        self._fresh_id = new_id()
        self._claim = Claim(world.topology.installation)
        self._recorded: Installation | None = None
        self._resynced = self.clocks.monotonic()
        self._changes = TransitionLog()
        self._collapsed = False
        self._partitions: Mapping[str, int] = {}
        self._strays = OrphanStreams(world.ksqldb, world.topology, self._unanswered, None if self.looks_once else 1)
        self._map = MapScan(world.strategy.read, self.clocks.monotonic)
        self._bugs: list[str] = []

    def cycle(self) -> CycleOutcome:
        """Look at everything, decide, act (unless paused, or another operator does), and say so in one sentence."""
        self._bugs.clear()
        started = time.perf_counter()
        with bound_contextvars(reconcile_id=uuid.uuid4().hex[:8]):
            try:
                outcome = self._cycle()
            except ReconcilerError as error:
                self.memory = self.memory.distrust()
                with self._isolated(Part.REPORT):
                    self.metrics.read_failed(error)
                said = explained(error, self.world.settings)
                outcome = CycleOutcome(CycleResult.READ_ERROR, f"nothing changed, a read failed: {said}", error=error)
            except Exception as error:  # noqa: BLE001 - the next cycle starts from full reads again
                self.memory = self.memory.distrust()
                self.bug(Part.CYCLE, error)
                outcome = CycleOutcome(CycleResult.BUG, f"cycle ended by a bug: {type(error).__name__}: {error}")
            outcome = outcome.with_bugs(self._bugs)
            with self._isolated(Part.REPORT):
                self._record(outcome)
            with self._isolated(Part.REPORT):
                self.metrics.seconds.observe(time.perf_counter() - started)
            return outcome

    def bug(self, part: Part, error: Exception, key: str = "") -> None:
        """Log an unexpected exception with its traceback, and count it; with ``key``, let that object wait."""
        self._bugs.append(f"{key or part}: {type(error).__name__}: {error}")
        if key:
            self.backoff = self.backoff.failed(key, error, self.clocks.monotonic())
        with suppress(Exception):  # what reports it may itself be what fails
            self.metrics.bugs.labels(part).inc()
        with suppress(Exception):
            log.error("bug", part=part.value, object=key or None, error=str(error), exc_info=error)

    @contextmanager
    def _isolated(self, part: Part) -> Iterator[None]:
        """Go on after any exception of what is done inside, which no decision depends on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - counted as a bug, whatever it is
            self.bug(part, error)

    def _unanswered(self, name: str, error: Exception) -> None:
        if not isinstance(error, ReconcilerError):
            self.bug(Part.OWNERSHIP, error)
        with self._isolated(Part.REPORT):
            log.warning("ownership of a stream is unknown, deletions are suspended", stream=name, error=describe(error))

    def _cycle(self) -> CycleOutcome:
        self.write_gate.begin()
        seen, verdict = self.observe()
        plan = self.plan(seen, verdict)
        for bug in plan.bugs:
            self.bug(Part.PLAN, bug.error, bug.key)
        with self._isolated(Part.REPORT):
            self.metrics.surveyed(seen, plan)
        with self._isolated(Part.REPORT):
            self._changes.tell(plan)
        if self.flow is not None:
            with self._isolated(Part.REPORT):
                self.flow.tick(seen, self.world.topology, self.clocks.monotonic())
        held = self.write_block()
        if held is not None:
            waiting = f"{len(plan.actions)} {'write waits' if len(plan.actions) == 1 else 'writes wait'}"
            sentence = f"{held.text}, {waiting}; {sentence_of(plan, seen, ())}"
            return CycleOutcome(held.result, sentence, plan, seen)
        outcome = outcome_of(plan, seen, tuple(self._apply(plan)), "withheld" if self.dry_run else "done")
        return outcome.cut_short(self.write_block())

    def due(self, outcome: CycleOutcome) -> float:
        """Return in how many seconds time alone can change what a cycle does; infinity where it cannot."""
        if outcome.plan is None:
            return math.inf
        timers = Timers(self.memory, self.backoff, self.contest, self.pause, self.world.settings)
        return next_due(timers, outcome.plan, outcome.results, self.clocks.monotonic(), self.clocks.wall())

    def nudge(self) -> None:
        """Let the next cycle scan the UNS map however long the last scan took."""
        self._map.nudge()

    def write_block(self) -> WriteBlock | None:
        """Why nothing may be written now, None if it may: a pause, or another operator that holds the lease."""
        if self.pause is not None and self.pause.active(self.clocks.wall()):
            return WriteBlock(CycleResult.PAUSED, self.pause.text)
        return self.write_gate.write_block()

    def observe(self) -> tuple[Survey, Verdict]:
        """Read everything, count what is missing, and let the guards decide.

        Raises:
            ReconcilerError: a read failed or was not complete; nothing may be concluded.
        """
        platform = self.world.platform.observe()
        with self._isolated(Part.REPORT):
            self._show(platform)
        self.pause = latest(self.pause, platform.records)
        with self._isolated(Part.REPORT):
            self.metrics.paused.set(self.pause is not None and self.pause.active(self.clocks.wall()))
        failures = self.world.ksqldb.failures
        resync = self._resync_is_due()
        source, membership = observe_source(
            self.world.ksqldb, self._map.read, topics=resync, degraded=self._not_running
        )
        platform = self._bind(platform, source)
        self._strays.topology = self.world.topology
        source = self._strays.observe(source, membership)
        if resync:
            self._resynced = self.clocks.monotonic()
        self._partitions = source.topics or self._partitions
        source = replace(source, partitions=self._partitions)
        if self.world.ksqldb.failures != failures:
            self.memory = self.memory.distrust()  # a retry made a failed read good: not a healthy, agreeing read
        seen = make_survey(Observed(source, platform, membership), self.world.topology, self.world.settings)
        now = self.clocks.monotonic()
        settings = self.world.settings
        with self._isolated(Part.REPORT):
            self._note_collapse(seen)
        self.memory = guards.remember(self.memory, seen, self.world.topology, settings, now)
        self.memory = guards.approve(self.memory, seen, self.overrides)
        verdict = guards.judge(self.memory, seen, settings, self.overrides, now)
        due = guards.due(seen, verdict)
        if due and not self.stopping() and self.write_block() is None:
            self._ask_directly(seen, due)
        return seen, guards.judge(self.memory, seen, settings, self.overrides, now)

    def _bind(self, platform: PlatformState, source: SourceState) -> PlatformState:
        """Work with what is this installation's: its streams, the shared one that there is now, and its services."""
        owner = self.world.settings.reconciler_owner
        self._claim = claim(
            platform, source.streams, owner, fresh=self._fresh_id, known=self._recorded, adopt=self.overrides.adopt
        )
        self._recorded = parse(self._claim.before) or self._recorded
        topology = replace(self.world.topology, installation=self._claim.installation)
        made = {name: query.text if (query := source.queries.get(name)) else None for name in source.streams}
        self.world = replace(self.world, topology=topology.current(made))
        return sift(platform, owner, self._claim.installation)

    def _ask_directly(self, seen: Survey, groups: frozenset[str]) -> None:
        """Ask the last question before removals, once for all of ``groups``; without a complete answer none goes."""
        direct, doubt = None, ""
        try:
            direct = self.world.strategy.read_directly(self.memory.largest or 0)
        except KsqlError as error:
            doubt = str(error)
        except Exception as error:  # noqa: BLE001 - nothing is removed without an answer; the rest goes on
            self.bug(Part.QUESTION, error)
            doubt = describe(error)
        before, self.memory = self.memory, guards.confirm(self.memory, seen, groups, direct, doubt)
        kept = sorted(before.missing.keys() - self.memory.missing.keys())
        if kept:
            with self._isolated(Part.REPORT):
                self.metrics.blocked.labels(BlockReason.QUESTION).inc(len(kept))
                log.warning(
                    "groups are kept by the last question", groups=kept, reason=self.memory.doubt or "they have members"
                )

    def _not_running(self, queries: tuple[QueryInfo, ...]) -> str:
        """Say which query that groups depend on does not run on every ksqlDB server."""
        topology = self.world.topology
        tables = {stored(self.world.strategy.lookup().table), stored(topology.join_table)}
        return find_not_running(
            queries,
            tables,
            lambda query: any(topology.ownership(sink, query.text).whose in _MADE for sink in query.sinks),
        )

    def _note_collapse(self, seen: Survey) -> None:
        before, now = self.memory.largest, seen.observed.membership.assets
        if not guards.has_collapsed(before, now, self.world.settings):
            self._collapsed = False
            return
        news, self._collapsed = not self._collapsed, True
        self.metrics.blocked.labels(BlockReason.COLLAPSE).inc()
        if news:
            log.warning("the map lost many assets at once, absences are counted again", before=before, now=now)

    def _resync_is_due(self) -> bool:
        """Whether this look lists the topics too, which no other read tells: every `RESYNC_INTERVAL`."""
        return self.clocks.monotonic() - self._resynced >= self.world.settings.resync_interval

    def silent(self) -> Mapping[str, str]:
        """Return why streams are silent (see `reconciler.control.flow`), by group; that of the shared stream by ""."""
        return self.flow.silent() if self.flow is not None else self.told_silent

    def plan(self, seen: Survey, verdict: Verdict) -> Plan:
        """Plan one cycle from what was seen; before streams are made, ask how many the server allows.

        Raises:
            ReconcilerError: that could not be read.
        """
        plan = make_plan(seen, verdict, self._facts(seen))
        if any(isinstance(action, (CreateSharedStream, CreateStream)) for action in plan.actions):
            most = self._asked(self.world.ksqldb.query_limit)
            # A group's stream names its offset: the server's own concerns the shared stream alone.
            begins = any(isinstance(action, CreateSharedStream) for action in plan.actions)
            offset = self._asked(self.world.ksqldb.offset_reset) if begins else None
            inputs = self._facts(seen, most, offset or "")
            plan = make_plan(seen, verdict, inputs)
            with self._isolated(Part.REPORT):
                for note in offset_note(plan.actions, inputs):
                    log.warning(note)
        if self.pause is not None and self.pause.active(self.clocks.wall()):
            self.standing = {}  # what may not be written cannot get on
            return replace(plan, notes=(*plan.notes, self.pause.text))
        now, at, limit = self.clocks.monotonic(), self.clocks.wall(), self.world.settings.progress_deadline
        plan, self.standing = with_deadline(plan, self.standing, now, at, limit)
        return plan

    def _asked(self, ask: Callable[[], T]) -> T | None:
        """Return what the server says of its settings, which it checks by itself, too."""
        try:
            return ask()
        except ReconcilerError:
            raise
        except Exception as error:  # noqa: BLE001 - a plan is made without it
            self.bug(Part.PLAN, error)
            return None

    def _facts(self, seen: Survey, query_limit: int | None = None, offset_reset: str = "") -> PlanInputs:
        return PlanInputs(
            settings=self.world.settings,
            topology=self.world.topology,
            lookup=self.world.strategy.lookup(),
            aged=self._aged(seen.observed.platform),
            stalled=self._stalled(seen.observed.platform),
            failures=self.backoff.texts(),
            query_limit=query_limit,
            waiting=self.backoff.waiting(self.clocks.monotonic()),
            contested=self.contest.texts(self.clocks.monotonic()),
            offset_reset=offset_reset,
            claim=self._claim,
            silent=self.silent(),
        )

    def _aged(self, platform: PlatformState) -> frozenset[str]:
        now, limit = self.clocks.wall(), self.world.settings.registry_roll_after
        ages = {live.name: (now - _aware(live.updated_at)).total_seconds() for live in platform.registries}
        return frozenset(name for name, age in ages.items() if age >= limit)

    def _stalled(self, platform: PlatformState) -> frozenset[str]:
        now, limit = self.clocks.wall(), self.world.settings.progress_deadline
        since = {live.name: live.since for live in platform.services.values() if live.since is not None and limit}
        return frozenset(name for name, at in since.items() if (now - _aware(at)).total_seconds() >= limit)

    def _apply(self, plan: Plan) -> Iterator[Result]:
        self.backoff = self.backoff.only({action.key for action in plan.actions} | plan.left_out)
        executor = Executor(self.world.ksqldb, self.world.platform, self.world.topology)
        now = self.clocks.monotonic()
        for result in executor.apply(plan.actions, lambda one: self._waits(one, now)):
            with self._isolated(Part.REPORT):
                self._note(result)
            with self._isolated(Part.REPORT):
                self.on_step()
            yield result

    def _waits(self, action: Action, now: float) -> bool:
        if self.stopping() or self.write_block() is not None:
            return True
        return self.backoff.waits(action.key, now) or self.contest.waits(action, now)

    def _note(self, result: Result) -> None:
        action, error = result.action, result.error
        if result.outcome is WriteResult.BUG and error is not None:
            self.bug(Part.WRITE, error, action.key)
        elif error is not None:
            self.backoff = self.backoff.failed(action.key, error, self.clocks.monotonic())
            log.warning("write failed", action=action.verb, object=action.key, group=action.group, error=str(error))
        elif not result.skipped:
            self._note_done(action)
        self.metrics.applied(result)

    def _note_done(self, action: Action) -> None:
        self.backoff = self.backoff.succeeded(action.key)
        now = self.clocks.monotonic()
        before, self.contest = self.contest.texts(now), self.contest.wrote(action, now, self.clocks.wall())
        contested = self.contest.texts(now).get(action.key)
        if contested is not None and action.key not in before:
            log.warning("contested", object=action.key, group=action.group, reason=contested)
        log.info(
            "write withheld" if self.dry_run else "write done",
            action=action.verb,
            object=action.key,
            group=action.group,
            **_drift(action),
        )
        if isinstance(action, PublishRegistry):
            document = action.document
            self._publish(document.canonical(), document.revision)

    def _show(self, platform: PlatformState) -> None:
        """Hand the current registry to those who follow it, also while ksqlDB is away."""
        published, _ = current_registry(platform.registries)
        if published is not None:
            self._publish(published.live.data, revision_of(published.live.data))

    def _publish(self, data: bytes, revision: str) -> None:
        self.metrics.registry(revision, len(data))
        self.on_registry(data, revision)

    def _record(self, outcome: CycleOutcome) -> None:
        self.metrics.reconciles.labels(outcome.result).inc()
        self.metrics.contested.set(len(self.contest.texts(self.clocks.monotonic())))
        if outcome.result is CycleResult.PAUSED or not (outcome.result in _NO_SUCCESS or self._fails(outcome)):
            self.metrics.last_success.set(self.clocks.wall().timestamp())
        level = "warning" if outcome.result in _WARNINGS else "info"
        getattr(log, level)(outcome.sentence, result=outcome.result.value)

    def _fails(self, outcome: CycleOutcome) -> bool:
        """Whether a write that is wanted has failed and was not tried again in this cycle."""
        wanted = {action.key for action in outcome.plan.actions} | outcome.plan.left_out if outcome.plan else set()
        return not self.backoff.failures.keys().isdisjoint(wanted)


#: Streams of this installation, and of others: before the first look ours cannot be told from theirs.
_MADE = (Whose.SHARED, Whose.GROUP, Whose.OTHER)
#: A standby writes nothing: its reads prove nothing about the one that should.
_NO_SUCCESS = (CycleResult.READ_ERROR, CycleResult.WRITE_ERROR, CycleResult.BUG, CycleResult.STANDBY)
_WARNINGS = (CycleResult.READ_ERROR, CycleResult.REFUSED, CycleResult.WRITE_ERROR, CycleResult.BUG)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _drift(action: Action) -> dict[str, list[str]]:
    """Name the fields that were put right; what stood in them may be somebody's secret."""
    return {"drift": [each.field for each in action.drift]} if isinstance(action, UpdateService) else {}
