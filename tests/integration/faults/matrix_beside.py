"""A second installation beside ours in the fault matrix: one ksqlDB, the same owner id, another Swarm.

A group comes to ours while the second is given one of its commands, and any call of either is spoiled. Whatever
happens, neither touches what the other made, and both come to the end that they come to without a fault.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from openfactory_common.errors import ReconcilerError
from reconciler.control.controller import Controller
from reconciler.control.teardown import remove_records, teardown
from reconciler.domain.installation import RECORD, Installation
from reconciler.domain.services import Record
from reconciler.ksqldb.entities import Statement
from reconciler.ksqldb.statements import Topology
from reconciler.leadership.pause import end_pause, start_pause, write_pause
from reconciler.migration import migrate
from reconciler.migration.legacy import OldService, create_old_stream, stand_in_name
from reconciler.planning.guards import Overrides
from tests.harness.fakes import FakeKsqldb, FakePlatform, Stage
from tests.integration.faults.matrix import LIMIT, SURE, Cell, Figures, Run, is_done, operator
from tests.integration.faults.matrix_oracle import Watch, differences, end_of
from tests.integration.faults.matrix_scenarios import STEP, clone
from tests.integration.faults.matrix_seam import BUGS, Call, Crash, Fault, Seam

SECOND = Installation("5ec0d000")
#: Faults of this part; those of a single operator's calls are played in the other scenarios.
_READS = (Fault.TIMED_OUT, Fault.STALE_ONCE)
#: Reads that can show how the other installation's objects were before.
_LISTS = frozenset({"streams", "queries", "describe_or_none", "topics", "observe"})
_WRITES = (Fault.CRASH_AFTER, Fault.TIMED_OUT, Fault.LATE, Fault.CONFLICT, Fault.BUG_AFTER)
#: Seconds at which the change and the command come.
START = 1600.0
#: How a command, or a process, may end.
_FAILURES = (Crash, ReconcilerError, *(type(bug) for bug in BUGS))
_OPTIONS: dict[str, object] = {"prune_grace": 0.0, "prune_reads": 2, "drain_seconds": 5.0}


@dataclass
class Neighbour(Stage):
    """The second installation's Swarm, with the same ksqlDB."""

    @property
    def topology(self) -> Topology:
        """What its streams should be."""
        return replace(super().topology, installation=SECOND)


class NoOldServices:
    """Nothing is left of the system before this one."""

    def observe(self) -> tuple[OldService, ...]:
        """Find none."""
        return ()

    def publish(self, service: OldService, port: int | None) -> None:
        """Nothing can be asked for."""
        raise AssertionError(service, port)

    def remove(self, service: OldService) -> None:
        """Nothing can be asked for."""
        raise AssertionError(service)


@dataclass
class Both:
    """Both installations, and who made what in ksqlDB; sees every write.

    Attributes:
        first: ours.
        second: the one beside it.
        judges: whether the second is a running operator, whose writes have an order.
    """

    first: Stage
    second: Neighbour
    judges: bool = True
    watches: Mapping[str, Watch] = field(init=False)

    def __post_init__(self) -> None:
        """Divide what is there."""
        mine, other = Watch(self.first), Watch(self.second)
        made = set(self.first.ksqldb.made)
        seconds = {name for name in made if SECOND.id.upper() in name or SECOND.id.upper() in self._text(name)}
        mine.theirs |= seconds
        other.theirs |= made - seconds
        self.watches = {"": mine, "2": other}
        self._note()

    def before(self, call: Call, args: tuple[Any, ...]) -> None:
        """Judge a write that is about to take effect."""
        who = call.side.removeprefix("ksqldb").removeprefix("platform")
        watch = self.watches[who]
        # A CREATE of a name that is there is refused by the server, and touches nothing.
        touches = call.name == "execute" and args[0].verb != "create"
        if touches and args[0].target.removeprefix("CSAS_") in watch.theirs:
            watch.wrong.append(f"{call}: it is not of installation {who or '1'}")
        if self.judges or not who:
            watch.before(call, args)

    def after(self, call: Call, args: tuple[Any, ...]) -> None:
        """Count what it did; what one makes is the others' to leave alone."""
        who = call.side.removeprefix("ksqldb").removeprefix("platform")
        for one, watch in self.watches.items():
            if one == who:
                watch.after(call, args)
            elif isinstance(args[0], Statement) and args[0].verb == "create":
                watch.theirs.add(args[0].target)
        self._note()

    @property
    def wrong(self) -> list[str]:
        """What should not have happened."""
        return [text for watch in self.watches.values() for text in watch.wrong]

    def _note(self) -> None:
        for watch in self.watches.values():
            watch.note_others()

    def _text(self, name: str) -> str:
        return self.first.ksqldb.made[name][1]


@dataclass(frozen=True)
class Command:
    """What the second installation is given to do.

    Attributes:
        name: of the command.
        act: one attempt or cycle of it, by an operator's process; true once there is nothing left to do.
        options: settings that it is given.
        judges: whether it works as a running operator.
        overrides: options of the command line.
        race: the new group comes to both, and anyone who is first has it; then only its ownership can be compared.
    """

    name: str
    act: Callable[[Both, Controller], bool]
    options: Mapping[str, object] = field(default_factory=dict)
    judges: bool = True
    overrides: Overrides = field(default_factory=Overrides)
    race: bool = False


def _cycle(_both: Both, operator_: Controller) -> bool:
    return is_done(operator_.cycle())


def _plan_pause_resume(both: Both, operator_: Controller) -> bool:
    if both.second.now < START + 3 * STEP:
        operator_.plan(*operator_.observe())
        write_pause(operator_.deps.platform, start_pause(both.second.wall, 600.0, "someone"))
        operator_.cycle()
        return False
    write_pause(operator_.deps.platform, end_pause("someone"))
    return is_done(operator_.cycle())


def _migrate(_both: Both, operator_: Controller) -> bool:
    old = NoOldServices()
    for step in (
        lambda scene: migrate.start(scene, operator_.deps, lambda _seconds: None),
        lambda scene: migrate.switch(scene, old),
        lambda scene: migrate.remove_old(scene, operator_.deps, old),
        lambda scene: migrate.restore_names(scene, operator_.deps, lambda _seconds: None),
    ):
        try:
            list(step(migrate.observe(operator_, old)))
        except migrate.StepRefused:
            continue
    return True


def _teardown_and_back(both: Both, operator_: Controller) -> bool:
    if any(result.outcome != "ok" for result in list(teardown(operator_.deps))):
        return False
    if both.second.platform.kept_records:
        remove_records(operator_.deps.platform, streams_left=False)
    return _migrate(both, operator_)


LEVEL, RETENTION = "uns_fastapi_group_grouping_level", "shared_retention"
COMMANDS = (
    Command("the loop, one new group", _cycle, race=True),
    Command("plan, pause, resume", _plan_pause_resume),
    Command("--once, another retention", _cycle, {RETENTION: 7200.0}),
    Command(
        "--once, another level, all overrides",
        _cycle,
        {LEVEL: "line", "delete_topics": True},
        overrides=Overrides(allow_empty=True, accept_identity=True, approve="12345678"),
    ),
    Command("migrate", _migrate, judges=False),
    Command("teardown, migrate --back", _teardown_and_back, {LEVEL: "workcenter", "delete_topics": True}, judges=False),
)


@cache
def _settled() -> Both:
    """Ours serves g0 and g1; the second groups by area, serves h1, and has a conflict for g0, whose names are ours.

    Ours came from the system before it, and old group services still live on its stand-in for g1's stream.
    """
    first = Stage(FakePlatform(), FakeKsqldb(), dict(_OPTIONS))
    first.ksqldb.assets = {"a0": "g0", "a1": "g1"}
    first.ksqldb.levels = {"area": {"a0": "g0", "a1": "h1"}, "line": {"a0": "l0"}}
    first.settle(first.controller(), step=STEP)
    stand_in = create_old_stream("g1", stand_in_name("g1", first.settings), first.settings)
    first.ksqldb.execute(stand_in)
    record = Record(RECORD, 1, RECORD, SECOND.fields)
    platform = FakePlatform(kept_records={RECORD: record})
    second = Neighbour(platform, first.ksqldb, {**_OPTIONS, LEVEL: "area"})
    second.settle(second.controller(), step=STEP)
    first.now = second.now = START
    return Both(first, second)


def world(command: Command) -> Both:
    """Return both in place, the second about to be given its command."""
    settled = _settled()
    first = clone(settled.first)
    beside = copy.copy(first.ksqldb)  # another client of the same server: what failed is counted for each
    options = {**settled.second.options, **command.options}
    second = replace(settled.second, platform=settled.second.platform.clone(), ksqldb=beside, options=options)
    first.ksqldb.assets["b"] = "g5"
    if command.race:
        area = {**first.ksqldb.levels["area"], "b": "g5"}
        first.ksqldb.levels = beside.levels = {**first.ksqldb.levels, "area": area}
    return Both(first, second, command.judges)


def run(command: Command, cell: Cell | None = None) -> Run:
    """Let both go on until neither has anything to do, with one call spoiled."""
    both = world(command)
    sides = {"platform": both.first.platform, "ksqldb": both.first.ksqldb}
    sides |= {"platform2": both.second.platform, "ksqldb2": both.second.ksqldb}
    seam = Seam(sides, both)
    calls: list[Call] = []
    seam.on_call = calls.append
    if cell is not None:
        seam.choose = lambda call: cell.fault if call.number == cell.call.number else None
    settled = _converge(both, command, seam)
    wrong = [*both.wrong, *([] if settled else [f"not settled after {LIMIT} cycles"])]
    ends = [end_of(watch.stage, watch) for watch in both.watches.values()] if settled else []
    made = Run(wrong, calls, ends[0] if ends else None, list(seam.log))
    made.beside = ends[1] if ends else None
    return made


def _converge(both: Both, command: Command, seam: Seam) -> bool:
    def begin(who: str) -> Controller:
        if who:
            return operator(both.second, seam, who, command.overrides)
        return operator(both.first, seam)

    running = {who: begin(who) for who in both.watches}
    done = 0
    for _ in range(LIMIT):
        quiet = True
        for who, now in tuple(running.items()):
            try:
                quiet &= command.act(both, now) if who else is_done(now.cycle())
            except _FAILURES:  # a command that fails is given again
                running[who], quiet = begin(who), False
        both.first.now += STEP
        both.second.now += STEP
        done = done + 1 if seam.quiet() and quiet else 0
        if done == SURE:
            return True
    return False


def cells(calls: list[Call]) -> Iterator[Cell]:
    """Every call of either, in the ways that matter for two."""
    for call in calls:
        faults = _WRITES if call.writes else _READS if call.name in _LISTS else _READS[:1]
        for fault in faults:
            if fault in call.faults:
                yield Cell(call, fault, restart=False)


def play(command: Command) -> Figures:
    """Spoil every call of the undisturbed run, one at a time."""
    expected = run(command)
    if expected.wrong or expected.end is None:
        return Figures(command.name, len(expected.calls), 0, 0, (f"undisturbed: {expected.wrong} {expected.log}",))
    chosen = list(cells(expected.calls))
    divergences = [said for cell in chosen if (said := _divergence(command, cell, expected))]
    kinds = len({cell.fault for cell in chosen})
    return Figures(command.name, len(expected.calls), kinds, len(chosen), tuple(divergences))


def _divergence(command: Command, cell: Cell, expected: Run) -> str:
    spoiled = run(command, cell)
    wrong = list(spoiled.wrong)
    for end, wanted in ((spoiled.end, expected.end), (spoiled.beside, expected.beside)) if not command.race else ():
        wrong += differences(end, wanted) if end and wanted else []
    if not wrong:
        return ""
    return "\n".join([f"beside {command.name}, call {cell.call}, {cell.fault}:", *wrong, *spoiled.log])
