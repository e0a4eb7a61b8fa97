"""5,000 cycles in which two groups cannot be written: the others are reconciled, and a cycle costs the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from openfactory_common.errors import PlatformRefused
from reconciler.control.controller import Controller
from reconciler.domain.services import ServiceSpec
from reconciler.ksqldb.entities import Statement
from tests.harness.fakes import Stage

CYCLES = 5000
PART = CYCLES // 5


@dataclass
class Failing:
    """A world in which the service of the group ``Aaa`` cannot be made, and the stream of ``Bbb``.

    Attributes:
        tried: how often each was tried.
    """

    tried: Counter[str] = field(default_factory=Counter)
    stage: Stage = field(default_factory=lambda: Stage(options={"prune_grace": 30.0, "drain_seconds": 10.0}))

    def __post_init__(self) -> None:
        """Put the failure in place."""
        self.stage.ksqldb.assets = {"a": "Aaa", "b": "Bbb", "k1": "keep1", "k2": "keep2", "k3": "keep3"}
        self._execute, self._create = self.stage.ksqldb.execute, self.stage.platform.create_service
        self.stage.ksqldb.execute = self._statement  # type: ignore[method-assign]
        self.stage.platform.create_service = self._service  # type: ignore[method-assign]

    def _statement(self, statement: Statement) -> object:
        if statement.target == "ASSET_STREAM_BBB":
            self.tried["Bbb"] += 1
            raise RuntimeError("boom")
        return self._execute(statement)

    def _service(self, spec: ServiceSpec) -> None:
        if spec.group == "Aaa":
            self.tried["Aaa"] += 1
            raise PlatformRefused("never")
        self._create(spec)

    def change(self, cycle: int) -> None:
        """Let a group come and go, and see that it is served and gone in time."""
        there = "ofa_group_new" in self.stage.platform.services, "ASSET_STREAM_NEW" in self.stage.ksqldb.made
        match cycle % 100:
            case 0:
                self.stage.ksqldb.assets["n"] = "New"
            case 10:
                assert there == (True, True), cycle
            case 50:
                del self.stage.ksqldb.assets["n"]
            case 75:
                assert there == (False, False), cycle

    @property
    def calls(self) -> int:
        """Calls of both sides so far."""
        return sum(self.stage.ksqldb.calls.values()) + sum(self.stage.platform.calls.values())


def size_of(controller: Controller) -> int:
    """How much the operator remembers."""
    memory, transitions = controller.memory, controller.reporter._transitions
    kept = (
        *(memory.guards.missing, memory.guards.silent, memory.guards.unregistered),
        *(memory.backoff.failures, memory.contest.written, memory.contest.held),
        *(transitions._conditions, transitions._wrong, transitions._ready, transitions._refused),
    )
    return sum(map(len, kept))


def test_two_groups_fail_for_five_thousand_cycles() -> None:
    """One is refused, one is an internal error; the others are served or gone in time, calls and memory stay flat."""
    failing = Failing()
    controller, calls, sizes = failing.stage.controller(), [], []
    for cycle in range(CYCLES):
        failing.change(cycle)
        controller.cycle()
        failing.stage.now += 10
        if cycle % PART == PART - 1:
            calls.append(failing.calls)
            sizes.append(size_of(controller))
    spent = [after - before for before, after in pairwise(calls)]
    assert max(spent) - min(spent) <= 10
    assert max(spent) / PART < 8
    assert max(sizes) <= min(sizes) + 2
    for group in ("Aaa", "Bbb"):
        assert CYCLES * 10 / 300 * 0.8 < failing.tried[group] < CYCLES * 10 / 300 * 1.4
    assert "ofa_group_aaa" not in failing.stage.platform.services
    assert "ASSET_STREAM_BBB" not in failing.stage.ksqldb.made
