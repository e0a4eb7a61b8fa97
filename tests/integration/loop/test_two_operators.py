"""T8: two operators of one owner over one world, interleaved at every write."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from openfactory_common.errors import LeaseLost
from reconciler.control.converge import Exit, converge
from reconciler.control.guarded import guard_by_lease
from reconciler.control.outcome import CycleOutcome
from reconciler.leadership.elector import Elector
from reconciler.leadership.lease import Candidate
from reconciler.planning.guards import Overrides
from tests.harness.fakes import Stage

FIVE = {f"a{n}": f"g{n}" for n in range(5)}
#: Every write of ours, as the fakes name it.
WRITES = ("execute", "create_service", "update_service", "remove_service", "publish_registry", "remove_registry")


@dataclass
class Operator:
    """A controller with its part in the lease, beaten by hand."""

    stage: Stage
    name: str
    preempts: bool = False
    overrides: Overrides | None = None
    writes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start it."""
        me = Candidate(self.name, 15.0, self.preempts)
        stage = self.stage
        self.leadership = Elector(stage.platform, me, clock=lambda: stage.now, wall=lambda: stage.wall)
        self.controller = stage.controller(self.overrides)
        self.controller.deps = guard_by_lease(self.controller.deps, self.leadership.writing)
        self.controller.write_gate = self.leadership

    def cycle(self) -> CycleOutcome:
        """Beat, and run a cycle."""
        self.leadership.renew()
        return self.note(self.controller.cycle())

    def note(self, outcome: CycleOutcome) -> CycleOutcome:
        """Take down what a cycle wrote."""
        self.writes += [f"{one.action.verb} {one.action.key}" for one in outcome.results if one.outcome == "ok"]
        return outcome


def world() -> Stage:
    """Five groups settled; one is to go, one is new, one service was changed outside."""
    stage = Stage(options={"prune_grace": 10.0, "drain_seconds": 5.0})
    stage.ksqldb.assets = dict(FIVE)
    stage.settle(stage.controller())
    del stage.ksqldb.assets["a4"]
    stage.ksqldb.assets["new"] = "New"
    stage.platform.touch("ofa_group_g0", replicas=7)
    stage.ksqldb.statements.clear()
    stage.platform.calls.clear()
    return stage


def end(stage: Stage) -> tuple[Any, ...]:
    """Return how it all ended, without the numbers that depend on who wrote when."""
    specs = {
        name: replace(live.spec, configs=()) for name, live in sorted(stage.platform.services.items()) if live.spec
    }
    newest = max(stage.platform.registries.values(), key=lambda one: one.sequence)
    return specs, dict(sorted(stage.ksqldb.made.items())), newest.data


def at_write(stage: Stage, number: int, act: Callable[[], None]) -> None:
    """Do something just before the write of this number reaches the other side, once."""
    seen = 0

    def fault(call: str) -> None:
        nonlocal seen
        if call in WRITES:
            seen += 1
            if seen == number:
                stage.platform.fault = stage.ksqldb.fault = lambda _call: None
                act()

    stage.platform.fault = stage.ksqldb.fault = fault


def settle(stage: Stage, *cycles: Callable[[], CycleOutcome]) -> None:
    """Run cycles in turn until all of them have nothing to do."""
    for _ in range(60):
        outcomes = [cycle() for cycle in cycles]
        stage.now += 3.0
        if all(one.plan is not None and one.plan.settled and not one.results for one in outcomes):
            return
    raise AssertionError([one.sentence for one in outcomes])


def undisturbed() -> tuple[tuple[Any, ...], Counter[str]]:
    """Return the end and the writes of one operator alone."""
    stage = world()
    alone = Operator(stage, "alone")
    settle(stage, alone.cycle)
    return end(stage), Counter(alone.writes)


def write_numbers() -> list[int]:
    """Return the numbers of all writes of the undisturbed run."""
    return list(range(1, sum(undisturbed()[1].values()) + 1))


@pytest.mark.parametrize("number", write_numbers())
def test_with_the_lease_the_other_only_looks(number: int) -> None:
    """However the cycles interleave, every write is done once, all by the holder."""
    stage = world()
    first, second = Operator(stage, "first"), Operator(stage, "second")
    first.leadership.renew()
    at_write(stage, number, lambda: assert_held_back(second.cycle()))
    settle(stage, first.cycle, second.cycle)
    assert (end(stage), Counter(first.writes)) == undisturbed()
    assert second.writes == []


def assert_held_back(outcome: CycleOutcome) -> None:
    """It planned, and says who holds the lease."""
    assert outcome.result == "standby"
    assert outcome.plan is not None
    assert "first holds the lease" in outcome.sentence


@pytest.mark.parametrize("number", write_numbers())
def test_without_a_lease_versions_and_names_protect(number: int) -> None:
    """A whole cycle of another operator before a write: nothing is made twice, removed wrongly, or fought over."""
    stage = world()
    first, second = stage.controller(), stage.controller()
    at_write(stage, number, lambda: second.cycle() and None)
    settle(stage, first.cycle, second.cycle)
    assert end(stage) == undisturbed()[0]
    drops = [one.target for one in stage.ksqldb.statements if one.verb == "drop"]
    assert set(drops) == {"ASSET_STREAM_G4"}
    made = [one.target for one in stage.ksqldb.statements if one.verb == "create"]
    assert set(made) == {"ASSET_STREAM_NEW"}
    before = stage.writes
    for controller in (first, second):
        assert controller.cycle().results == ()
    assert stage.writes == before


@pytest.mark.parametrize("number", write_numbers())
def test_one_that_was_stopped_in_the_middle_of_a_cycle_writes_nothing_with_its_old_view(number: int) -> None:
    """Stopped before a write for longer than the lease: the other takes over; the rest of the old plan is dropped."""
    stage = world()
    first, second = Operator(stage, "first"), Operator(stage, "second")
    first.leadership.renew()
    written: list[int] = []

    def stopped() -> None:
        second.leadership.renew()
        stage.now += 16.0
        assert second.cycle().result != "standby"
        written.append(stage.writes)

    at_write(stage, number, stopped)
    while not written:
        outcome = first.cycle()
        stage.now += 3.0
    assert stage.writes - written[0] <= 1, "the write of this number was on its way already"
    assert outcome.result == "standby" or all(one.outcome != "skipped" for one in outcome.results)
    done = list(first.writes)
    settle(stage, second.cycle, first.cycle)
    assert end(stage) == undisturbed()[0]
    assert first.writes == done


def test_a_lease_that_was_lost_and_is_held_again_does_not_revive_an_old_plan() -> None:
    """No one took over meanwhile, and the holder renews late: what it saw before may not be acted upon all the same."""
    stage = world()
    operator = Operator(stage, "only")
    operator.leadership.renew()

    def asleep() -> None:
        stage.now += 3600.0
        operator.leadership.renew()

    at_write(stage, 1, asleep)
    outcome = operator.controller.cycle()
    assert [one.outcome for one in outcome.results].count("ok") == 1, "the one that was on its way"
    assert outcome.result == "standby"
    assert "read again first" in outcome.sentence
    settle(stage, operator.cycle)
    assert end(stage) == undisturbed()[0]


def test_each_request_that_changes_something_stands_behind_the_fence() -> None:
    """An action of several writes is stopped between them too: every write of both sides asks, and no read does."""
    stage = world()
    Operator(stage, "first").leadership.renew()
    second = Operator(stage, "second")
    second.leadership.renew()
    platform, ksqldb = second.controller.deps.platform, second.controller.deps.ksqldb
    state = platform.observe()
    live = state.services["ofa_group_g0"]
    assert live.spec is not None
    statement = second.controller.deps.topology.drop("ASSET_STREAM_G0", delete_topic=False)
    spec, document = live.spec, state.registries[0]
    writes: list[Callable[[], object]] = [
        lambda: ksqldb.execute(statement),
        lambda: platform.create_service(spec),
        lambda: platform.update_service(live, spec),
        lambda: platform.remove_service(live),
        lambda: platform.publish_registry(document.data, "x", 99),
        lambda: platform.remove_registry(document),
    ]
    for write in writes:
        with pytest.raises(LeaseLost, match="first holds the lease"):
            write()
    assert stage.writes == 0
    assert ksqldb.streams()


def test_the_next_takes_over_at_once_or_after_the_duration() -> None:
    """A lease that was given up is taken at the next beat; that of a process that died when it has run out."""
    stage = world()
    first, second, third = (Operator(stage, name) for name in ("first", "second", "third"))
    first.leadership.renew()
    second.leadership.renew()
    first.leadership.stop()
    second.leadership.renew()
    assert second.leadership.leads
    third.leadership.renew()
    stage.now += 14.9
    third.leadership.renew()
    assert (second.leadership.leads, third.leadership.leads) == (False, False)
    stage.now += 0.1
    third.leadership.renew()
    assert third.leadership.leads


def test_a_loop_that_does_not_turn_any_more_loses_the_lease() -> None:
    """The beats come from a thread of their own, so they must not go on for a loop that hangs."""
    stage = world()
    first, second = Operator(stage, "first"), Operator(stage, "second")
    first.leadership.renew()
    first.leadership._alive = lambda: False
    for _ in range(6):
        first.leadership.renew()
        second.leadership.renew()
        stage.now += 3.0
    assert second.leadership.leads


def test_a_bug_in_a_beat_does_not_end_the_beats() -> None:
    """A thread that has ended would never seek the lease again, in a process that looks well."""
    stage = world()
    beats = 0

    def bug(call: str) -> None:
        nonlocal beats
        beats += call == "records"
        if beats == 2:  # the first of the thread's own
            raise RuntimeError("a bug of a platform")

    leadership = Elector(stage.platform, Candidate("me", 0.05))
    stage.platform.fault = bug
    leadership.start()
    deadline = time.monotonic() + 20
    while beats < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert beats >= 5
    leadership.stop()


def test_a_command_beside_a_loop_has_the_lease_and_gives_it_back() -> None:
    """--once --approve ID works while a loop runs: the loop hands over between two writes, and then goes on."""
    stage = Stage(options={"prune_grace": 1.0, "prune_reads": 1, "drain_seconds": 0.0})
    stage.ksqldb.assets = dict(FIVE)
    loop = Operator(stage, "loop")
    settle(stage, loop.cycle)
    stage.ksqldb.assets = {"a0": "g0", "a1": "g1"}
    plan = loop.cycle().plan
    assert plan is not None
    once = Operator(stage, "once", preempts=True, overrides=Overrides(approve=plan.approval))

    def pass_time(seconds: float) -> None:
        stage.now += seconds
        once.leadership.renew()
        loop.cycle()

    once.leadership.renew()
    code, _ = converge(once.controller, 100, sleep=pass_time)
    assert code is Exit.OK
    assert len([name for name in stage.ksqldb.made if name.startswith("ASSET_STREAM_")]) == 2
    once.leadership.stop()
    loop.leadership.renew()
    assert loop.leadership.leads


def test_a_command_asks_for_the_lease_only_to_write() -> None:
    """A --once with nothing to do writes nothing at all; with something to do it takes the lease and gives it up."""
    stage = world()

    def once() -> tuple[Exit, str | None]:
        me = Candidate("once", 15.0, preempts=True)
        lease = Elector(stage.platform, me, lazy=True, clock=lambda: stage.now, wall=lambda: stage.wall)
        controller = stage.controller()
        controller.deps = guard_by_lease(controller.deps, lease.writing)
        controller.write_gate = lease

        def pass_time(seconds: float) -> None:
            stage.now += seconds
            if lease.role:
                lease.renew()

        code, _ = converge(controller, 100, sleep=pass_time)
        role = lease.role
        lease.stop()
        return code, role

    assert once() == (Exit.OK, "leader")
    assert stage.platform.records()["lease"].fields["holder"] == ""
    records, writes = dict(stage.platform.records()), stage.writes
    assert once() == (Exit.OK, None)
    assert (stage.platform.records(), stage.writes) == (records, writes)


def test_a_command_that_does_not_get_the_lease_is_refused_and_names_the_holder() -> None:
    """Another --once is at work: exit code 4 after the time limit, nothing written."""
    stage = world()
    first, second = Operator(stage, "first", preempts=True), Operator(stage, "second", preempts=True)

    def pass_time(seconds: float) -> None:
        stage.now += seconds
        first.leadership.renew()
        second.leadership.renew()

    first.leadership.renew()
    second.leadership.renew()
    code, outcome = converge(second.controller, 30, sleep=pass_time)
    assert code is Exit.REFUSED
    assert "first holds the lease" in outcome.sentence
    assert second.writes == []
    assert stage.writes == 0


def test_what_standing_by_costs_and_shows() -> None:
    """A waiter reads and plans, exports what it sees, and hands out the registry that is published."""
    stage = world()
    first, second = Operator(stage, "first"), Operator(stage, "second")
    first.leadership.renew()
    shown: list[str] = []
    second.controller.reporter.on_registry = lambda _data, revision: shown.append(revision)
    outcome = second.cycle()
    assert outcome.plan is not None
    assert len(outcome.plan.actions) > 1
    assert shown == [outcome.plan.registry_before]
    assert second.leadership.role == "standby"
    assert stage.writes == 0
