"""The loop: observe, plan, guard, apply, sleep.

Level-triggered: every cycle starts from full reads and decides from what it sees. An event only shortens the sleep.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import structlog
from structlog.contextvars import bound_contextvars

from reconciler import guards
from reconciler.apply import Executor, Result
from reconciler.backoff import Backoff
from reconciler.changes import Changes
from reconciler.errors import KsqlError, KsqlUnreachable, KsqlWrongShape, ReconcilerError
from reconciler.grouping.base import GroupingStrategy
from reconciler.guards import Memory, Overrides, Verdict
from reconciler.ksqldb.topology import Topology
from reconciler.latest import Latest
from reconciler.leadership import Authority, Hold, Unopposed
from reconciler.metrics import Metrics
from reconciler.model import (
    Action,
    Condition,
    CreateSharedStream,
    CreateStream,
    Observed,
    Plan,
    PublishRegistry,
    Refusal,
    UpdateService,
)
from reconciler.observe import MapScan, look_at_source
from reconciler.pause import Pause, latest
from reconciler.plan import make_plan
from reconciler.platforms.base import Platform, PlatformState
from reconciler.ports import Ksqldb
from reconciler.settings import Settings, without_user
from reconciler.steps import Facts
from reconciler.strays import Strays
from reconciler.survey import Survey, current_registry, survey

log = structlog.get_logger()

#: What a server that is not ksqlDB answers to a question for it.
_NOT_KSQLDB = (300, 301, 302, 303, 307, 308, 400, 404, 405, 406, 410, 415, 421, 501)


@dataclass(frozen=True)
class World:
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


@dataclass(frozen=True)
class Outcome:
    """What one cycle saw and did.

    Attributes:
        result: the value of the metric's label ``result``.
        sentence: what happened, for a person.
        plan: None where a read failed.
        survey: None where a read failed.
        results: of the writes.
        error: the failed read.
    """

    result: str
    sentence: str
    plan: Plan | None = None
    survey: Survey | None = None
    results: tuple[Result, ...] = ()
    error: ReconcilerError | None = None

    @property
    def busy(self) -> bool:
        """Something is on its way: look again soon."""
        if self.plan is None:
            return False
        return bool(self.results) or not self.plan.settled

    def cut_short(self, held: Hold | None) -> Outcome:
        """Say that writes were skipped because they may not be done any more."""
        if held is None or not any(result.outcome != "ok" for result in self.results):
            return self
        return replace(self, result=held.result, sentence=f"{self.sentence}; stopped in between: {held.text}")


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
        authority: asked before each write whether this operator may write now.
        pause: the pause that was seen last.
        pretends: writes reach nobody (a dry run), so nothing may be said to have been done.
        looks_once: there will be no other look, so nothing is left for it.
    """

    world: World
    metrics: Metrics
    overrides: Overrides = field(default_factory=Overrides)
    clocks: Clocks = field(default_factory=Clocks)
    on_registry: Callable[[bytes, str], None] = lambda _data, _revision: None
    on_step: Callable[[], None] = lambda: None
    stopping: Callable[[], bool] = lambda: False
    memory: Memory = field(default_factory=Memory)
    backoff: Backoff = field(default_factory=Backoff)
    authority: Authority = field(default_factory=Unopposed)
    pause: Pause | None = None
    pretends: bool = False
    looks_once: bool = False

    def __post_init__(self) -> None:
        """Prepare the reader of groups."""
        world = self.world
        self._resynced = self.clocks.monotonic()
        self._survey, self._make_plan = Latest(survey), Latest(make_plan)
        self._changes = Changes()
        self._strays = Strays(world.ksqldb, world.topology, at_once=None if self.looks_once else 1)
        self._map = MapScan(world.strategy.read, self.clocks.monotonic)

    def cycle(self) -> Outcome:
        """Look at everything, decide, act (unless paused, or another operator does), and say so in one sentence."""
        with bound_contextvars(reconcile_id=uuid.uuid4().hex[:8]), self.metrics.seconds.time():
            try:
                outcome = self._cycle()
            except ReconcilerError as error:
                self.memory = self.memory.distrust()
                self.metrics.read_failed(error)
                said = explained(error, self.world.settings)
                outcome = Outcome("read_error", f"nothing changed, a read failed: {said}", error=error)
            except Exception as error:
                self.memory = self.memory.distrust()
                log.exception("bug", error=str(error))
                outcome = Outcome("bug", f"cycle ended by a bug: {type(error).__name__}: {error}")
            self._record(outcome)
            return outcome

    def _cycle(self) -> Outcome:
        self.authority.begin()
        seen, verdict = self.look()
        plan = self.plan(seen, verdict)
        self.metrics.surveyed(seen, plan)
        self._changes.tell(plan)
        held = self.hold()
        if held is not None:
            waiting = f"{len(plan.actions)} {'write waits' if len(plan.actions) == 1 else 'writes wait'}"
            sentence = f"{held.text}, {waiting}; {_sentence(plan, seen, ())}"
            return Outcome(held.result, sentence, plan, seen)
        outcome = _outcome(plan, seen, tuple(self._apply(plan)), "withheld" if self.pretends else "done")
        return outcome.cut_short(self.hold())

    def nudge(self) -> None:
        """Let the next cycle scan the UNS map however long the last scan took."""
        self._map.nudge()

    def hold(self) -> Hold | None:
        """Why nothing may be written now, None if it may: a pause, or another operator that holds the lease."""
        if self.pause is not None and self.pause.active(self.clocks.wall()):
            return Hold("paused", self.pause.text)
        return self.authority.hold()

    def look(self) -> tuple[Survey, Verdict]:
        """Read everything, count what is missing, and let the guards decide.

        Raises:
            ReconcilerError: a read failed or was not complete; nothing may be concluded.
        """
        platform = self.world.platform.observe()
        self._show(platform)
        self.pause = latest(self.pause, platform.records)
        self.metrics.paused.set(self.pause is not None and self.pause.active(self.clocks.wall()))
        failures = self.world.ksqldb.failures
        resync = self._resync_is_due()
        source, membership = look_at_source(self.world.ksqldb, self._map.read, topics=resync)
        source = self._strays.look(source, membership)
        if resync:
            self._resynced = self.clocks.monotonic()
        if self.world.ksqldb.failures != failures:
            self.memory = self.memory.distrust()  # a retry made a failed read good: not a healthy, agreeing read
        seen = self._survey(Observed(source, platform, membership), self.world.topology, self.world.settings)
        now = self.clocks.monotonic()
        settings = self.world.settings
        self._note_collapse(seen)
        self.memory = guards.remember(self.memory, seen, self.world.topology, settings, now)
        self.memory = guards.approve(self.memory, seen, self.overrides)
        verdict = guards.judge(self.memory, seen, settings, self.overrides, now)
        for group in sorted(verdict.retire):
            if self.stopping():
                break
            if self.world.strategy.has_members(group):
                log.warning("group has members after all", group=group)
                self.metrics.blocked.labels("question").inc()
                self.memory = self.memory.forget(group)
        return seen, guards.judge(self.memory, seen, settings, self.overrides, now)

    def _note_collapse(self, seen: Survey) -> None:
        before, now = self.memory.assets, seen.observed.membership.assets
        if guards.has_collapsed(before, now, self.world.settings):
            self.metrics.blocked.labels("collapse").inc()
            log.warning("the map lost many assets at once, absences are counted anew", before=before, now=now)

    def _resync_is_due(self) -> bool:
        """Whether this look lists the topics too, which no other read tells: every `RESYNC_INTERVAL`."""
        return self.clocks.monotonic() - self._resynced >= self.world.settings.resync_interval

    def plan(self, seen: Survey, verdict: Verdict) -> Plan:
        """Plan one cycle from what was seen; before streams are made, ask how many the server allows.

        Raises:
            ReconcilerError: that could not be read.
        """
        plan = self._make_plan(seen, verdict, self._facts(seen, None))
        if any(isinstance(action, (CreateSharedStream, CreateStream)) for action in plan.actions):
            plan = self._make_plan(seen, verdict, self._facts(seen, self.world.ksqldb.query_limit()))
        if self.pause is not None and self.pause.active(self.clocks.wall()):
            return replace(plan, notes=(*plan.notes, self.pause.text))
        return plan

    def _facts(self, seen: Survey, query_limit: int | None) -> Facts:
        return Facts(
            settings=self.world.settings,
            topology=self.world.topology,
            lookup=self.world.strategy.lookup(),
            aged=self._aged(seen.observed.platform),
            failures=self.backoff.texts(),
            query_limit=query_limit,
        )

    def _aged(self, platform: PlatformState) -> frozenset[str]:
        now, limit = self.clocks.wall(), self.world.settings.registry_roll_after
        return frozenset(live.name for live in platform.registries if (now - live.updated_at).total_seconds() >= limit)

    def _apply(self, plan: Plan) -> Iterator[Result]:
        self.backoff = self.backoff.only({action.key for action in plan.actions})
        executor = Executor(self.world.ksqldb, self.world.platform, self.world.topology)
        now = self.clocks.monotonic()
        for result in executor.apply(plan.actions, lambda one: self._waits(one, now)):
            self._note(result)
            self.on_step()
            yield result

    def _waits(self, action: Action, now: float) -> bool:
        return self.stopping() or self.hold() is not None or self.backoff.waits(action.key, now)

    def _note(self, result: Result) -> None:
        action, error = result.action, result.error
        self.metrics.applied(result)
        if error is not None:
            self.backoff = self.backoff.failed(action.key, error, self.clocks.monotonic())
            log.warning("write failed", action=action.verb, object=action.key, group=action.group, error=str(error))
        elif not result.skipped:
            self.backoff = self.backoff.succeeded(action.key)
            log.info(
                "write withheld" if self.pretends else "write done",
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
            self._publish(published.live.data, published.document.revision)

    def _publish(self, data: bytes, revision: str) -> None:
        self.metrics.registry(revision, len(data))
        self.on_registry(data, revision)

    def _record(self, outcome: Outcome) -> None:
        self.metrics.reconciles.labels(outcome.result).inc()
        if outcome.error is None and outcome.result != "bug":
            self.metrics.last_success.set(time.time())
        level = "warning" if outcome.result in ("read_error", "refused", "write_error", "bug") else "info"
        getattr(log, level)(outcome.sentence, result=outcome.result)


def _drift(action: Action) -> dict[str, list[str]]:
    """Name the fields that were put right; what stood in them may be somebody's secret."""
    return {"drift": [each.field for each in action.drift]} if isinstance(action, UpdateService) else {}


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


def _outcome(plan: Plan, seen: Survey, results: tuple[Result, ...], done: str) -> Outcome:
    failed = [result for result in results if result.error is not None]
    stops = [refusal for refusal in plan.refusals if refusal.stops]
    if stops:
        return Outcome("refused", f"nothing changed, refused: {_texts(stops)}", plan, seen, results)
    sentence = _sentence(plan, seen, results, done)
    if failed:
        return Outcome("write_error", sentence, plan, seen, results)
    if plan.refusals:
        return Outcome("refused", f"{sentence}; refused: {_texts(plan.refusals)}", plan, seen, results)
    if any(result.outcome == "ok" for result in results):
        return Outcome("changed", sentence, plan, seen, results)
    return Outcome("in_sync" if plan.in_sync else "progressing", sentence, plan, seen, results)


def _texts(refusals: Iterable[Refusal]) -> str:
    return "; ".join(refusal.text for refusal in refusals)


def _sentence(plan: Plan, seen: Survey, results: tuple[Result, ...], said: str = "done") -> str:
    groups = [item for item in plan.items if item.group is not None]
    ready = sum(item.condition is Condition.READY for item in groups)
    text = f"{ready} of {len(groups)} groups ready, {seen.observed.membership.assets} assets"
    done = sum(result.outcome == "ok" for result in results)
    failed = [result for result in results if result.error is not None]
    if done:
        text += f", {done} {'write' if done == 1 else 'writes'} {said}"
    if failed:
        text += f", {len(failed)} failed (first: {failed[0].action.key}: {failed[0].error})"
    return text + ("" if results or not plan.in_sync else ", in sync")
