"""The one seam of the operator's adapters: every call is numbered, written down, and can be spoiled.

It stands between the controller and the two sides, so that whatever the operator reads or writes passes through it: a
method that is added to a port and that no one has sorted into reads and writes is an error.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, Protocol, cast

from openfactory_common.errors import (
    KsqlConflict,
    KsqlTransient,
    KsqlTruncated,
    KsqlUnknownOutcome,
    KsqlUnreachable,
    PlatformConflict,
    PlatformError,
    PlatformUnreachable,
    ReconcilerError,
)
from reconciler.ksqldb.api import Ksqldb
from reconciler.platforms.protocol import Platform, Records
from tests.harness.fakes import FakeKsqldb, FakePlatform

READS = frozenset(
    {
        "info",
        "health",
        "streams",
        "tables",
        "queries",
        "query_limit",
        "offset_reset",
        "describe_or_none",
        "topics",
        "members",
        "pull",
    }
    | {"members_directly", "level_names", "describe_extended", "sample", "observe", "records"}
)
WRITES = frozenset(
    {"execute", "create_service", "update_service", "remove_service", "publish_registry", "remove_registry"}
    | {"write_record", "remove_record"}
)
#: What asks nothing of the other side.
LOCAL = frozenset({"close", "stop_waiting", "failures"})
#: Reads of a list, after a change, that may still show how it was before.
MEMORY = 3
#: Calls after which a statement that was applied late is applied, unless another statement comes first.
LATENESS = 12


class Crash(BaseException):
    """The process ends here; nothing may catch it."""


class Fault(StrEnum):
    """What can happen to one call."""

    CRASH_BEFORE = "crash before"
    CRASH_AFTER = "crash after"
    TIMED_OUT = "timed out (a write: though applied)"
    LATE = "timed out, applied later"
    SERVER_ERROR = "5xx"
    CONFLICT = "conflict"
    STALE_ONCE = "stale once"
    STALE_TWICE = "stale twice"
    STALE_THRICE = "stale three times"
    TRUNCATED = "truncated body"
    BUG_BEFORE = "unexpected exception before"
    BUG_AFTER = "unexpected exception after"

    @property
    def crashes(self) -> bool:
        """The process ends with it."""
        return self in (Fault.CRASH_BEFORE, Fault.CRASH_AFTER)

    @property
    def is_bug(self) -> bool:
        """What is raised is no error that anything was prepared for."""
        return self in (Fault.BUG_BEFORE, Fault.BUG_AFTER)


STALE = {Fault.STALE_ONCE: 1, Fault.STALE_TWICE: 2, Fault.STALE_THRICE: 3}
_ANY = (
    Fault.CRASH_BEFORE,
    Fault.CRASH_AFTER,
    Fault.TIMED_OUT,
    Fault.SERVER_ERROR,
    Fault.TRUNCATED,
    Fault.BUG_BEFORE,
)
BUGS = (RuntimeError("unexpected"), KeyError("unexpected"), MemoryError(), TypeError("unexpected"))


@dataclass(frozen=True)
class Call:
    """One call of a port.

    Attributes:
        number: counted from 0 over both sides.
        side: ``ksqldb`` or ``platform``, or of a second operator ``ksqldb2`` or ``platform2``.
        name: of the method.
        about: the object, for a write.
        seen: how often this was read since the last change of its side.
    """

    number: int
    side: str
    name: str
    about: str = ""
    seen: int = 0

    @property
    def of_ksqldb(self) -> bool:
        """It goes to ksqlDB."""
        return self.side.startswith("ksqldb")

    @property
    def writes(self) -> bool:
        """It may change something."""
        return self.name in WRITES

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What can happen to it."""
        if not self.writes:
            return (*_ANY, *(fault for fault, times in STALE.items() if self.seen + times <= MEMORY))
        return (*_ANY, Fault.BUG_AFTER, Fault.CONFLICT, *([Fault.LATE] if self.of_ksqldb else []))

    def __str__(self) -> str:
        """Return it as a line of a log."""
        return f"{self.number} {self.side}.{self.name} {self.about}".rstrip()


class Witness(Protocol):
    """Sees every write just before it takes effect, and just after."""

    def before(self, call: Call, args: tuple[Any, ...]) -> None:
        """The other side is about to do it."""

    def after(self, call: Call, args: tuple[Any, ...]) -> None:
        """The other side has done it."""


@dataclass
class Seam:
    """Both ports, with a fault chosen for each call.

    Attributes:
        fakes: the two sides behind it: fakes, or a client of a real one.
        witness: is told of writes.
        choose: names the fault of a call, or none.
        calls: how many there were.
        log: the last calls, each with what became of it.
        on_call: told of every call.
        alter: may change the answer to a read.
    """

    fakes: dict[str, Any]
    witness: Witness
    choose: Callable[[Call], Fault | None] = lambda _call: None
    calls: int = 0
    log: deque[str] = field(default_factory=lambda: deque(maxlen=60))
    on_call: Callable[[Call], None] = lambda _call: None
    alter: Callable[[Call, Any], Any] = lambda _call, answer: answer
    _past: dict[str, Any] = field(default_factory=dict)
    _doubted: bool = False
    _seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    _stale: dict[tuple[str, str], tuple[int, int, Any]] = field(default_factory=dict)
    _late: list[tuple[int, Call, tuple[Any, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Remember how things are, for the first stale read."""
        self.turn_page()

    @property
    def ksqldb(self) -> Ksqldb:
        """The port of ksqlDB."""
        return self.ports()[0]

    @property
    def platform(self) -> Platform:
        """The port of the platform."""
        return self.ports()[1]

    def ports(self, operator: str = "") -> tuple[Ksqldb, Platform]:
        """Both ports of an operator: "2" is the second."""
        return cast("Ksqldb", _Port(self, f"ksqldb{operator}")), cast("Platform", _Port(self, f"platform{operator}"))

    def quiet(self) -> bool:
        """Say whether all reads since the last such question were fresh, and nothing waits to be applied."""
        doubted, self._doubted = self._doubted, False
        return self.settled and not doubted

    @property
    def settled(self) -> bool:
        """Nothing waits to be applied, and no read will be stale."""
        return not self._late and not any(until >= self.calls for _, until, _ in self._stale.values())

    def turn_page(self) -> None:
        """Make what is now the previous snapshot: something outside is about to change."""
        self._past = {side: _snapshot(fake) for side, fake in self.fakes.items()}
        self._seen.clear()

    def ask(self, side: str, name: str, *args: Any) -> Any:
        """Let one call through, or spoil it."""
        call = self._next(side, name, args)
        self.on_call(call)
        self._catch_up(statement=name == "execute")
        fault = self.choose(call)
        self.log.append(f"{call}{f'  <- {fault}' if fault else ''}")
        if fault is Fault.CRASH_BEFORE:
            raise Crash
        if fault is Fault.BUG_BEFORE:
            raise BUGS[call.number % len(BUGS)]
        try:
            answer = self._write(call, fault, args) if call.writes else self.alter(call, self._read(call, fault, args))
        except ReconcilerError as error:
            self.log[-1] += f"  : {type(error).__name__}: {error}"
            raise
        if fault is Fault.CRASH_AFTER:
            raise Crash
        if fault is Fault.BUG_AFTER:
            raise BUGS[call.number % len(BUGS)]
        return answer

    def _next(self, side: str, name: str, args: tuple[Any, ...]) -> Call:
        number, seen = self.calls, self._seen[side, name]
        self.calls += 1
        if name in WRITES:
            return Call(number, side, name, _about(args))
        self._seen[side, name] += 1
        return Call(number, side, name, seen=seen)

    def _read(self, call: Call, fault: Fault | None, args: tuple[Any, ...]) -> Any:
        error = _read_error(call, fault)
        if error is not None:
            if call.of_ksqldb:
                self.fakes[call.side].failures += 1
            raise error
        if fault in STALE:
            self._stale[call.side, call.name] = (STALE[fault], call.number + LATENESS * MEMORY, self._past[call.side])
        left, until, past = self._stale.pop((call.side, call.name), (0, 0, None))
        if left == 0 or call.number > until:
            return getattr(self.fakes[call.side], call.name)(*args)
        self._doubted = True
        if left > 1:
            self._stale[call.side, call.name] = (left - 1, until, past)
        return getattr(past, call.name)(*args)

    def _write(self, call: Call, fault: Fault | None, args: tuple[Any, ...]) -> Any:
        if fault is Fault.SERVER_ERROR:
            raise KsqlTransient("500") if call.of_ksqldb else PlatformUnreachable("503")
        if fault is Fault.CONFLICT:
            raise KsqlConflict("fenced") if call.of_ksqldb else PlatformConflict("update out of sequence")
        self.witness.before(call, args)  # also what is applied late was decided now
        if fault is Fault.LATE:
            self._late.append((call.number + LATENESS, call, args))
            raise KsqlUnknownOutcome("not final in time")
        answer = self._apply(call, args)
        if fault in (Fault.TIMED_OUT, Fault.TRUNCATED):
            if call.of_ksqldb:
                raise KsqlUnknownOutcome("no whole answer, the statement may have been executed")
            raise PlatformUnreachable("timed out") if fault is Fault.TIMED_OUT else PlatformError("incomplete")
        return answer

    def _apply(self, call: Call, args: tuple[Any, ...]) -> Any:
        fake = self.fakes[call.side]
        before = _snapshot(fake)
        answer = getattr(fake, call.name)(*args)
        self._past[call.side] = before
        self._seen = Counter({key: seen for key, seen in self._seen.items() if key[0] != call.side})
        self.witness.after(call, args)
        return answer

    def _catch_up(self, *, statement: bool) -> None:
        """Apply what was accepted and not answered: statements are executed in the order in which they came."""
        while self._late and (statement or self.calls > self._late[0][0]):
            _, call, args = self._late.pop(0)
            try:
                self._apply(call, args)
                self.log.append(f"{call}  : executed now")
            except ReconcilerError as error:
                self.log.append(f"{call}  : refused now: {error}")


class _Port:
    """One side as the operator sees it."""

    def __init__(self, seam: Seam, side: str) -> None:
        self._seam = seam
        self._side = side

    def __getattr__(self, name: str) -> Any:
        if name in LOCAL:
            return getattr(self._seam.fakes[self._side], name)
        if name not in READS | WRITES:
            raise AssertionError(f"{self._side}.{name} is neither among the reads nor among the writes")
        return partial(self._seam.ask, self._side, name)


def unsorted() -> set[str]:
    """Methods of the ports that are neither reads nor writes nor local here."""
    methods = {name for port in (Ksqldb, Platform, Records) for name in vars(port) if not name.startswith("_")}
    return methods - READS - WRITES - LOCAL


def seam_of(platform: FakePlatform, ksqldb: FakeKsqldb, witness: Witness) -> Seam:
    """Stand before two fakes."""
    return Seam({"platform": platform, "ksqldb": ksqldb}, witness)


def _snapshot(side: Any) -> Any:
    """Return how a fake is now; a real side has no past, and no read of it can be stale."""
    return side.clone() if hasattr(side, "clone") else side


def _read_error(call: Call, fault: Fault | None) -> ReconcilerError | None:
    ours = not call.of_ksqldb
    match fault:
        case Fault.TIMED_OUT:
            return PlatformUnreachable("timed out") if ours else KsqlUnreachable("timed out")
        case Fault.SERVER_ERROR:
            return PlatformUnreachable("503") if ours else KsqlTransient("500")
        case Fault.TRUNCATED:
            return PlatformError("incomplete") if ours else KsqlTruncated("ends before its end")
    return None


def _about(args: tuple[Any, ...]) -> str:
    first = args[0]
    for attribute in ("summary", "name"):
        if hasattr(first, attribute):
            return str(getattr(first, attribute))
    return " ".join(str(part) for part in args[1:])
