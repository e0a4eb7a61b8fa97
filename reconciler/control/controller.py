"""One reconcile cycle: observe, survey, guards, plan, apply.

Level-triggered: every cycle starts from complete reads and decides from them alone; an event only shortens the sleep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from reconciler.control.executor import Executor
from reconciler.control.memory import Memory, Reporter
from reconciler.control.observe import Clocks, Dependencies, Observer
from reconciler.control.outcome import CycleOutcome, describe_block, judge_cycle
from reconciler.domain.status import CycleResult, Plan
from reconciler.leadership.elector import AlwaysLeader, WriteBlock, WriteGate
from reconciler.metrics import Metrics
from reconciler.planning import guards
from reconciler.planning.plan import make_plan
from reconciler.planning.survey import Survey, make_survey

__all__ = ["Clocks", "Controller", "Dependencies"]


class Controller:
    """One operator.

    Attributes:
        deps: what it works with; the topology is that of this installation once a cycle has read it.
        overrides: what the command line allows for this run.
        clocks: where time comes from.
        write_gate: asked before each write whether this operator may write now.
        stopping: asked before each write; once true, the rest of the cycle is left to the next one.
        on_step: called after each write, as a sign of life in a long cycle.
        memory: what is remembered between cycles.
        reporter: what the cycles are reported to.
    """

    def __init__(  # noqa: PLR0913 - what a cycle depends on
        self,
        deps: Dependencies,
        metrics: Metrics,
        overrides: guards.Overrides | None = None,
        clocks: Clocks | None = None,
        *,
        write_gate: WriteGate | None = None,
        stopping: Callable[[], bool] = lambda: False,
        on_registry: Callable[[bytes, str], None] = lambda _data, _revision: None,
        dry_run: bool = False,
        reads_once: bool = False,
    ) -> None:
        """Prepare an operator that has not read anything yet.

        Args:
            deps: what it works with.
            metrics: what it counts.
            overrides: what the command line allows for this run.
            clocks: where time comes from.
            write_gate: asked before each write whether this operator may write now.
            stopping: asked before each write whether to leave the rest to the next cycle.
            on_registry: called with the current registry document and its revision.
            dry_run: all writes are withheld, so nothing is reported as done.
            reads_once: there will be no other cycle, so no read is left for it.
        """
        self.deps = deps
        self.overrides = overrides or guards.Overrides()
        self.clocks = clocks or Clocks()
        self.write_gate: WriteGate = write_gate or AlwaysLeader()
        self.stopping = stopping
        self.on_step: Callable[[], None] = lambda: None
        self.memory = Memory()
        self.reporter = reporter = Reporter(metrics, self.memory, self.clocks, on_registry, dry_run=dry_run)
        self._observer = Observer(
            deps, self.clocks, reporter.report_unknown_owner, reporter.report_bug, reads_once=reads_once
        )

    def cycle(self) -> CycleOutcome:
        """Run one cycle; an exception is one way in which it can end."""
        return self.reporter.supervise(self._reconcile, self.deps.settings)

    def _reconcile(self) -> CycleOutcome:
        """Observe both sides, let the guards judge, plan, and apply unless a pause or another leader forbids it."""
        self.write_gate.begin()
        survey = self._survey()
        block = self.write_block()
        verdict = self._judge(survey, block)
        plan = self.plan(survey, verdict)
        self.reporter.report_plan(plan, survey, self.deps.topology)
        # A block that ends in between blocks this cycle all the same: its last question was not asked.
        if (block := block or self.write_block()) is not None:
            return describe_block(block, plan, survey)
        return self._apply(plan, survey).cut_short(self.write_block())

    def _survey(self) -> Survey:
        """Read both sides in full, and understand what was read."""
        memory = self.memory
        self.deps.groups_file.refresh()
        platform = self.deps.platform.observe(memory.suspects)
        memory.update_marks(platform.records, self.clocks.wall())
        self.reporter.probe(self.deps.prober, platform)
        self.reporter.report_platform(platform)
        failures = self.deps.ksqldb.failures
        self.deps, observed = self._observer.observe(self.deps, platform, self.overrides.adopt)
        if self.deps.ksqldb.failures != failures:
            memory.guards = memory.guards.distrust()  # a read succeeded only when repeated: it proves no absence
        survey = make_survey(observed, self.deps.topology, self.deps.settings)
        if self.deps.demand is not None:
            self.reporter.ask_demand(self.deps.demand, survey, self.deps.ksqldb)
        return survey

    def _judge(self, survey: Survey, block: WriteBlock | None) -> guards.Verdict:
        """Count what is missing, and let the guards decide; before removals the map is read from Kafka itself."""
        memory, settings, now = self.memory, self.deps.settings, self.clocks.monotonic()
        overrides = replace(self.overrides, delete=frozenset(memory.deletions))
        self.reporter.report_collapse(survey, settings)
        memory.guards = guards.remember(memory.guards, survey, self.deps.topology, settings, now)
        # What nothing is written of is not on its way out: after a pause the whole grace time begins.
        memory.guards = memory.guards.forget(self.find_held(survey))
        memory.guards = guards.approve(memory.guards, survey, self.overrides)
        kept = self.deps.groups_file.current.find_kept(survey.missing)
        verdict = guards.judge(memory.guards, survey, settings, overrides, now, kept)
        due = guards.find_due(survey, verdict)
        if due and not self.stopping() and block is None:
            direct, doubt = self._observer.read_directly(self.deps, memory.guards.largest or 0)
            missing = memory.guards.missing.keys()
            memory.guards = guards.confirm(memory.guards, survey, due, direct, doubt)
            self.reporter.report_kept(missing - memory.guards.missing.keys())
        return guards.judge(memory.guards, survey, settings, overrides, now, kept)

    def find_held(self, survey: Survey) -> Mapping[str, str]:
        """Return the groups of which nothing is written in this cycle, each with the reason."""
        paused = self.deps.groups_file.current.find_paused(survey.wanted.keys() | survey.missing)
        return {**paused, **self.memory.find_paused()}

    def plan(self, survey: Survey, verdict: guards.Verdict) -> Plan:
        """Plan one cycle; before streams are created, the server is asked how many it allows.

        Raises:
            ReconcilerError: that could not be read.
        """
        inputs = self.memory.make_plan_inputs(self.deps, survey.observed.platform, self._observer.claim, self.clocks)
        inputs = replace(inputs, held=self.find_held(survey), adoption=self.overrides.adoption)
        plan = make_plan(survey, verdict, inputs)
        complete = self._observer.ask_before_creating(self.deps, plan.actions, inputs)
        if complete is not inputs:
            plan = make_plan(survey, verdict, complete)
            self.reporter.report_offset(plan, complete)
        return self.memory.finish_plan(plan, self.deps.settings, self.clocks)

    def _apply(self, plan: Plan, survey: Survey) -> CycleOutcome:
        """Do what was planned, as long as it may be done; what fails waits, and is tried again in a later cycle."""
        memory, now, results = self.memory, self.clocks.monotonic(), []
        kept = memory.backoff.keep_only({action.key for action in plan.actions} | plan.left_out)
        memory.backoff = kept.forget_opposites(plan.actions)
        executor = Executor(self.deps.ksqldb, self.deps.platform, self.deps.topology)
        for result in executor.apply(
            plan.actions,
            lambda action: self.stopping() or self.write_block() is not None or memory.must_wait(action, now),
        ):
            self.reporter.report_write(result)
            with self.reporter.isolate():
                self.on_step()
            results.append(result)
        memory.end_deletions(self.deps.platform, survey, self.clocks.wall())
        return judge_cycle(plan, survey, tuple(results), "withheld" if self.reporter.dry_run else "done")

    def observe(self) -> tuple[Survey, guards.Verdict]:
        """Read everything, and let the guards judge it.

        Raises:
            ReconcilerError: a read failed or was not complete; nothing may be concluded.
        """
        survey = self._survey()
        return survey, self._judge(survey, self.write_block())

    def write_block(self) -> WriteBlock | None:
        """Return why nothing may be written now, None if it may: a pause, or another operator that holds the lease."""
        pause = self.memory.find_active_pause(self.clocks.wall())
        return WriteBlock(CycleResult.PAUSED, pause.text) if pause is not None else self.write_gate.write_block()

    def nudge(self) -> None:
        """Let the next cycle scan the UNS map however long the last scan took."""
        self._observer.map_scan.nudge()
