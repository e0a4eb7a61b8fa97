"""When a group sleeps: the pure decision, a line a case; and the whole protocol against every order of events."""

from __future__ import annotations

import os
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from reconciler.domain.demand import DemandReport, GroupDemand, TaskDemand
from reconciler.planning.sleep import Demand, GroupState, Sleep, decide_sleep, judge_demand

IDLE, NOW, REVISION = 100.0, 1_000_000, "r2"


def task(idle: float | None = None, *, open_: int = 0, waiting: int = 0, **changes: object) -> TaskDemand:
    """What a task reports that was asked for Weld ``idle`` seconds ago (None: never)."""
    groups = {"Paint": GroupDemand(open=3)}
    if idle is not None:
        groups["Weld"] = GroupDemand(open_, waiting, idle)
    return replace(TaskDemand(REVISION, complete=True, uptime=5000.0, groups=groups), **changes)  # type: ignore[arg-type]


def report(*tasks: TaskDemand, complete: bool = True, **changes: object) -> DemandReport:
    """What these tasks report."""
    return replace(DemandReport(NOW, tasks, complete), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (report(task(150)), Demand.IDLE),
        (report(task(), task(100)), Demand.IDLE),  # one was never asked for it, since 5,000 s
        (report(task(99.9)), Demand.ASKED),
        (report(task(150), task(3)), Demand.ASKED),
        (report(task(0, open_=1)), Demand.ASKED),
        (report(task(0, waiting=1)), Demand.ASKED),
        (report(task(0, waiting=1), complete=False), Demand.ASKED),  # one task's word is enough
        (report(task(150), complete=False), Demand.UNKNOWN),
        (report(task(150), task(uptime=99.0)), Demand.UNKNOWN),  # it does not know the time before
        (report(), Demand.UNKNOWN),
    ],
)
def test_one_task_proves_demand_and_all_prove_that_there_is_none(given: DemandReport, expected: Demand) -> None:
    """Weld alone counts; Paint has open streams throughout."""
    assert judge_demand("Weld", given, IDLE) is expected


NOBODY, ASKED, UNKNOWN = report(task(150)), report(task(3)), report(task(150), complete=False)
OLDER = report(task(150), task(150, revision="r1"))
AWAKE = GroupState(registered=True, replicas=2, unchanged=150.0)
LEAVING = GroupState(since=NOW - 5, replicas=2, unchanged=150.0)
STOPPED = GroupState(since=NOW - 5, replicas=0)
ASLEEP = GroupState(since=NOW - 500, replicas=0, paused=True)
KEPT = Sleep(NOW - 500, stopped=True, paused=True)

CASES = {
    "nobody asks": (AWAKE, NOBODY, Sleep(NOW)),
    "a client asks": (AWAKE, ASKED, None),
    "not every task answers": (AWAKE, UNKNOWN, None),
    "nobody was asked": (AWAKE, None, None),
    "it is not served yet": (replace(AWAKE, registered=False), NOBODY, None),
    "its service was changed": (replace(AWAKE, unchanged=99.0), NOBODY, None),
    "a person paused its query": (replace(AWAKE, paused=True), NOBODY, None),
    "a person stopped its service": (replace(AWAKE, replicas=0), NOBODY, None),
    "leaving: all have let go": (LEAVING, NOBODY, Sleep(NOW - 5, stopped=True, paused=True)),
    "leaving: one has an older registry": (LEAVING, OLDER, Sleep(NOW - 5)),
    "leaving: not every task answers": (LEAVING, UNKNOWN, Sleep(NOW - 5)),
    "leaving: a client asks": (LEAVING, ASKED, None),
    "half stopped": (STOPPED, NOBODY, Sleep(NOW - 5, stopped=True, paused=True)),
    "half stopped: not every task answers": (STOPPED, UNKNOWN, Sleep(NOW - 5, stopped=True)),
    "half paused: not every task answers": (replace(LEAVING, paused=True), UNKNOWN, Sleep(NOW - 5, paused=True)),
    "half paused: a client asks": (replace(LEAVING, paused=True), ASKED, Sleep(NOW - 5)),
    "all of it runs again: a client asks": (replace(ASLEEP, replicas=2, paused=False), ASKED, None),
    "asleep: nobody asks": (ASLEEP, NOBODY, KEPT),
    "asleep: a client asks": (ASLEEP, ASKED, Sleep(NOW - 500)),
    "asleep: its query runs, a client asks": (replace(ASLEEP, paused=False), ASKED, Sleep(NOW - 500)),
    "asleep: its stream is to move": (replace(ASLEEP, moved=True), NOBODY, KEPT),
    "asleep: its stream is to move, a client asks": (replace(ASLEEP, moved=True), ASKED, Sleep(NOW - 500)),
    "asleep: its stream is to move, in doubt": (
        replace(ASLEEP, moved=True),
        replace(UNKNOWN, doubtful=True),
        Sleep(NOW - 500),
    ),
    "its stream is to move, its query has read": (
        replace(ASLEEP, replicas=2, moved=True, paused=False),
        replace(ASKED, caught_up=frozenset({"Weld"})),
        None,
    ),
    "its stream is to move, its query had read": (
        replace(ASLEEP, moved=True),
        replace(ASKED, caught_up=frozenset({"Weld"})),
        Sleep(NOW - 500),
    ),
    "awake: its stream is to move": (replace(AWAKE, moved=True, registered=False), ASKED, None),
    "asleep: a client asks a task of an incomplete report": (ASLEEP, replace(ASKED, complete=False), Sleep(NOW - 500)),
    "asleep: a task has just started": (ASLEEP, report(task(150), task(uptime=1.0, revision="r1")), KEPT),
    "asleep: not every task answers": (ASLEEP, UNKNOWN, KEPT),
    "asleep: not every task answers for long": (ASLEEP, replace(UNKNOWN, doubtful=True), Sleep(NOW - 500)),
    "asleep: nobody was asked": (ASLEEP, None, KEPT),
    "asleep: its service was removed": (replace(ASLEEP, replicas=None), NOBODY, KEPT),
}


@pytest.mark.parametrize("case", CASES)
def test_each_phase(case: str) -> None:
    """What is live, and what is reported: how it sleeps afterwards; None is awake."""
    state, given, expected = CASES[case]
    assert decide_sleep("Weld", state, given, REVISION, idle_after=IDLE) == expected


@pytest.mark.parametrize("state", [AWAKE, LEAVING, STOPPED, ASLEEP])
@pytest.mark.parametrize("given", [None, NOBODY, ASKED, UNKNOWN])
def test_switched_off_wakes_all(state: GroupState, given: DemandReport | None) -> None:
    """Whatever is reported; a group keeps its mark until all of it runs."""
    woken = Sleep(state.since) if state.since is not None and not state.replicas else None
    assert decide_sleep("Weld", state, given, REVISION, idle_after=0.0) == woken
    moved = decide_sleep("Weld", replace(state, moved=True), given, REVISION, idle_after=0.0)
    assert moved == (None if state.since is None else Sleep(state.since)), "its query is to read its source first"
    held = decide_sleep("Weld", state, given, REVISION, idle_after=0.0, held=True)
    assert held == woken


HELD = {
    "awake": (AWAKE, NOBODY, None),
    "leaving": (LEAVING, NOBODY, None),  # it serves, so it gets its URL back
    "leaving: nobody was asked": (LEAVING, None, None),
    "half paused": (replace(LEAVING, paused=True), NOBODY, Sleep(NOW - 5)),
    "half paused: nobody was asked": (replace(LEAVING, paused=True), None, Sleep(NOW - 5)),
    "half stopped": (STOPPED, NOBODY, Sleep(NOW - 5, stopped=True, paused=True)),
    "half stopped: a client asks": (STOPPED, ASKED, Sleep(NOW - 5)),
    "asleep: nobody asks": (ASLEEP, NOBODY, KEPT),
    "asleep: nobody was asked": (ASLEEP, None, KEPT),
    "asleep: a client asks": (ASLEEP, ASKED, Sleep(NOW - 500)),
    "asleep: not every task answers for long": (ASLEEP, replace(UNKNOWN, doubtful=True), Sleep(NOW - 500)),
    "its tasks run, its query is paused": (replace(ASLEEP, replicas=2), ASKED, Sleep(NOW - 500)),
    "its query runs, no task": (replace(ASLEEP, paused=False), ASKED, Sleep(NOW - 500)),
    "all of it runs": (replace(ASLEEP, replicas=2, paused=False), ASKED, None),
    "all of it runs, its stream is to move": (
        replace(ASLEEP, replicas=2, paused=False, moved=True),
        ASKED,
        Sleep(NOW - 500),
    ),
    "all of it runs, its stream is to move, its query has read": (
        replace(ASLEEP, replicas=2, paused=False, moved=True),
        replace(ASKED, caught_up=frozenset({"Weld"})),
        None,
    ),
}


@pytest.mark.parametrize("case", HELD)
def test_a_held_group_wakes_and_does_not_fall_asleep(case: str) -> None:
    """It keeps its mark until all of it runs: then nobody takes what a person stopped for what sleeps."""
    state, given, expected = HELD[case]
    assert decide_sleep("Weld", state, given, REVISION, idle_after=IDLE, held=True) == expected


@pytest.mark.parametrize(
    ("since", "paused", "caught_up", "expected"),
    [
        (NOW - 100, True, False, Sleep(NOW - 100, stopped=True, paused=True)),
        (NOW - 101, True, False, Sleep(NOW - 101, stopped=True)),  # more than half of it: its query reads
        (NOW - 101, True, True, Sleep(NOW - 101, stopped=True)),  # what was read before the pause says nothing
        (NOW - 101, False, False, Sleep(NOW - 101, stopped=True)),
        (NOW - 101, False, True, Sleep(NOW, stopped=True)),  # the mark is renewed before it is paused again
        (NOW, False, True, Sleep(NOW, stopped=True, paused=True)),
        (NOW + 3600, True, False, Sleep(NOW + 3600, stopped=True)),  # the clock was set back: nobody knows
    ],
)
@pytest.mark.parametrize("complete", [True, False])
def test_a_paused_query_reads_before_the_shared_topic_forgets(
    since: int, *, paused: bool, caught_up: bool, complete: bool, expected: Sleep
) -> None:
    """With a retention of 200 s; this needs no complete report. Without a limit it is never needed."""
    given = report(task(150), complete=complete, caught_up=frozenset({"Weld"} if caught_up else ()))
    state = GroupState(since, replicas=0, paused=paused)
    for held in (False, True):
        found = decide_sleep("Weld", state, given, REVISION, idle_after=IDLE, retention=200.0, held=held)
        assert found == (expected if complete or paused else replace(expected, paused=False))
    forever = decide_sleep("Weld", state, given, REVISION, idle_after=IDLE)
    assert forever == Sleep(since, stopped=True, paused=complete or paused)


# ---- the protocol: routing layer tasks, clients and an operator that ends anywhere, in any order

#: 10,000 in `make sleep`; the suite runs as many as take some seconds.
SCHEDULES = int(os.environ.get("SLEEP_SCHEDULES", "300"))
RETENTION = 3600.0
#: Seconds after which reports that are not complete wake everything, as `control.demand.DOUBT_SECONDS`.
DOUBT = 60.0


@dataclass
class Task:
    """A task of the routing layer."""

    document: int
    started: float
    open: int = 0
    waiting: int = 0
    asked: float | None = None

    def report(self, now: float) -> TaskDemand:
        """What it answers."""
        busy = self.open or self.waiting
        groups = (
            {}
            if self.asked is None
            else {"Weld": GroupDemand(self.open, self.waiting, 0.0 if busy else now - self.asked)}
        )
        return TaskDemand(str(self.document), complete=True, uptime=now - self.started, groups=groups)


@dataclass(frozen=True)
class Document:
    """What a registry says of Weld."""

    registered: bool
    since: int | None = None


@dataclass
class World:
    """One group, its routing layer and its operator. Times are seconds; tasks have another clock than the wall.

    Attributes:
        moved: its stream is to read another source.
        unread: its query has not read yet what came while it was paused.
        held: it is paused, by a person.
        idle_after: as the setting.
    """

    now: float = 10_000.0
    wall: float = 1_000_000.0
    documents: list[Document] = field(default_factory=lambda: [Document(registered=True)])
    tasks: list[Task] = field(default_factory=lambda: [Task(0, 0.0), Task(0, 0.0)])
    replicas: int = 1
    ready: bool = True
    paused: bool = False
    moved: bool = False
    unread: bool = False
    held: bool = False
    idle_after: float = IDLE
    changed: float = 0.0
    lossless: float | None = None
    asked: list[Task] = field(default_factory=list)
    writes: list[tuple[str, object]] = field(default_factory=list)

    def published(self) -> Document:
        """The current registry."""
        return self.documents[-1]

    def apply(self, one: Task) -> None:
        """A task reads the current registry: it then opens what has waited."""
        one.document = len(self.documents) - 1
        if self.published().registered and one.waiting:
            one.open, one.waiting = one.open + one.waiting, 0

    def observe(self, lost: AbstractSet[int]) -> None:
        """The operator reads everything, and plans; the answers of some tasks are lost."""
        tasks = tuple(one.report(self.now) for n, one in enumerate(self.tasks) if n not in lost)
        complete = len(tasks) == len(self.tasks)
        if complete or self.lossless is None:
            self.lossless = self.now
        doubtful = self.now - self.lossless >= DOUBT
        current = self.published()
        state = GroupState(
            current.since, registered=current.registered and self.ready and not self.moved, replicas=self.replicas,
            paused=self.paused, unchanged=self.wall - self.changed, moved=self.moved,
        )  # fmt: skip
        read = not self.paused and not self.unread
        given = DemandReport(int(self.wall), tasks, complete, doubtful, frozenset({"Weld"} if read else ()))
        revision = str(len(self.documents) - 1)
        sleep = decide_sleep(
            "Weld", state, given, revision, idle_after=self.idle_after, held=self.held, retention=RETENTION
        )
        self.asked = list(self.tasks)
        replicas, paused = (0 if sleep and sleep.stopped else 1), bool(sleep and sleep.paused)
        moved = self.moved and (self.paused or (sleep is not None and not read))
        if self.held:  # only what wakes it or keeps its events, as in `plan._hold_group`
            marked = current.since is not None
            replicas = replicas if marked and not self.replicas else self.replicas
            paused, moved = paused if marked else self.paused, self.moved
        paused = paused and not self.moved
        served = self.ready and self.replicas > 0 and not self.paused and replicas > 0 and not paused and not moved
        if not self.held:
            registered = sleep is None and (current.registered or (served and not self.moved))
            following = Document(registered, sleep.since if sleep else None)
        elif sleep is None and current.since is not None and self.ready and self.replicas and not self.paused:
            following = Document(registered=True)
        else:
            following = Document(current.registered, sleep.since if sleep else current.since)
        wanted = (
            ("pause", self.paused, paused),
            ("move", self.moved, moved),
            ("scale", self.replicas, replicas),
            ("publish", current, following),
        )
        self.writes = [(kind, to) for kind, was, to in wanted if was != to]

    def write(self) -> None:
        """Do the next write of the plan; nothing is stopped under a stream of a task that was asked."""
        kind, to = self.writes.pop(0)
        streams = sum(one.open for one in self.asked if one in self.tasks)
        if kind == "publish":
            assert isinstance(to, Document)
            assert to.registered or not self.held or not self.published().registered, (
                "a paused group is no longer served"
            )
            self.documents.append(to)
        elif kind == "scale":
            assert to or not streams, "a service is stopped under a stream"
            assert to or not self.held, "a paused group is stopped"
            self.replicas, self.ready, self.changed = int(bool(to)), False, self.wall
        elif kind == "move":
            assert not self.unread, "a stream is dropped before its query has read its source"
            assert not self.held, "the stream of a paused group is dropped"
            self.moved = False
        else:
            assert not to or not streams, "a query is paused under a stream"
            assert not to or not self.held or not self.replicas, "the query of a paused group is paused"
            self.paused, self.unread = bool(to), self.unread or bool(to)

    def cycle(self, lost: AbstractSet[int], seconds: float) -> None:
        """One undisturbed cycle, after which all tasks read the registry and a service that was started is ready."""
        self.observe(lost)
        while self.writes:
            self.write()
        self.now, self.wall = self.now + seconds, self.wall + seconds
        self.ready = True
        self.reads()
        for one in self.tasks:
            self.apply(one)

    def reads(self) -> None:
        """Its query reads what there is, where it runs."""
        self.unread = self.unread and self.paused


NUMBER = st.integers(0, 3)
EVENTS = ["asks", "leave", "reads", "all read", "joins", "ends", "is ready"]
EVENTS += ["query reads", "moves", "held", "free", "IDLE_AFTER"]


class Protocol(RuleBasedStateMachine):
    """Any order of events."""

    def __init__(self) -> None:
        """One task, and a group that is awake."""
        super().__init__()
        self.world = World()

    def _task(self, number: int) -> Task:
        return self.world.tasks[number % len(self.world.tasks)]

    def _do(self, event: str, number: int) -> None:  # noqa: C901, PLR0912 - one case an event
        """One event, at one task where it is of a task."""
        world, one = self.world, self._task(number)
        match event:
            case "write":
                if world.writes:
                    world.write()
            case "asks":  # it gets a stream from a task whose registry has the group, and waits at any other
                registered = world.documents[one.document].registered
                one.asked, one.open, one.waiting = world.now, one.open + registered, one.waiting + (not registered)
            case "leave":
                if one.open or one.waiting:
                    one.open, one.waiting, one.asked = 0, 0, world.now
            case "reads":
                world.apply(one)
            case "all read":
                for each in world.tasks:
                    world.apply(each)
            case "joins":  # with a boot copy that may be old
                world.tasks.append(Task(max(0, len(world.documents) - 1 - number), world.now))
            case "ends":
                if len(world.tasks) > 1:
                    world.tasks.remove(one)
            case "is ready":
                world.ready = world.replicas > 0
            case "query reads":
                world.reads()
            case "moves":  # what a query reads that runs without a mark is little, and not known to the operator
                world.moved = True
                world.unread = world.unread and (world.paused or world.published().since is not None)
            case "held":  # one that is on its way to the registry would get there only after the pause
                world.held = world.published() != Document(registered=False)
            case "free":
                world.held = False
            case "IDLE_AFTER":
                world.idle_after = IDLE - world.idle_after
            case _:
                raise AssertionError(event)

    @initialize(asleep=st.booleans(), moved=st.booleans(), held=st.booleans())
    def begins(self, *, asleep: bool, moved: bool, held: bool) -> None:
        """Many schedules begin with a group that sleeps: few would come so far by themselves."""
        world = self.world
        world.moved, world.held = moved, held
        if asleep:
            world.documents.append(Document(registered=False, since=int(world.wall) - 10))
            world.replicas, world.ready, world.paused, world.unread = 0, False, True, True
            for one in world.tasks:
                world.apply(one)

    @rule(lost=st.sampled_from([frozenset[int](), frozenset({0})]), reads=st.booleans())
    def operator_works(self, lost: AbstractSet[int], *, reads: bool) -> None:
        """A whole cycle."""
        self.world.observe(lost)
        while self.world.writes:
            self.world.write()
        if reads:
            self._do("all read", 0)

    @rule(event=st.sampled_from(EVENTS), number=NUMBER)
    def happens(self, event: str, number: int) -> None:
        """Something outside of a cycle."""
        self._do(event, number)

    @rule(seconds=st.sampled_from([1, 30, 150, 2000]), step=st.sampled_from([0, 0, -5000, -60, 60, 5000]))
    def time_passes(self, seconds: int, step: int) -> None:
        """For both clocks; the wall clock may step besides."""
        self.world.now, self.world.wall = self.world.now + seconds, self.world.wall + seconds + step

    @rule(
        lost=st.sampled_from([frozenset[int](), frozenset({0}), frozenset({1})]),
        script=st.lists(
            st.tuples(st.sampled_from(["write", "write", "asks", "all read", "reads"]), NUMBER), max_size=5
        ),
        forgets=st.booleans(),
    )
    def operator_cycles(self, lost: AbstractSet[int], script: list[tuple[str, int]], *, forgets: bool) -> None:
        """It observes and writes, with other things in between.

        Writes that are left are lost with the next observation: that is also how an operator ends anywhere.
        """
        if forgets:
            self.world.lossless = None
        self.world.observe(lost)
        for event, number in script:
            self._do(event, number)

    def teardown(self) -> None:
        """Whatever has happened: a client that waits is served soon, also at a task that cannot be asked."""
        world, (first, *_) = self.world, self.world.tasks
        world.writes, world.lossless = [], None
        first.asked, first.waiting = world.now, 1
        for _ in range(6):
            world.cycle({0}, DOUBT / 2)
        assert first.waiting == 0
        assert world.replicas
        assert not world.paused
        world.held, world.idle_after = False, IDLE
        world.changed = min(world.changed, world.wall)  # a clock that was set back only makes sleep later
        first.open = first.waiting = 0  # and when it has gone and nobody comes, everything sleeps
        for one in world.tasks:
            one.open = one.waiting = 0
        for _ in range(4):
            world.cycle(set(), IDLE)
        assert (world.replicas, world.paused) == (0, True)
        first.asked, first.waiting = world.now, 1
        for _ in range(2):
            world.cycle(set(), 1)
        assert first.waiting == 0, "where all tasks answer, two cycles and the service's start wake it"


def test_no_order_of_events_stops_a_group_under_a_stream_or_lets_a_client_wait_for_ever() -> None:
    """For a stream of a task that was asked; one that joins after that with an old boot copy can only wake it."""
    run_state_machine_as_test(
        Protocol, settings=hypothesis_settings(max_examples=SCHEDULES, stateful_step_count=40, deadline=None)
    )
