"""5,000 cycles in which one group cannot be written: the others are reconciled, and a cycle costs the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from fakes import Stage

from reconciler.controller import Controller
from reconciler.errors import KsqlBadStatement
from reconciler.ksqldb.statement import Statement
from reconciler.platforms.base import ServiceSpec

CYCLES = 5000
PART = CYCLES // 5


@dataclass
class Failing:
    """A world in which one side of the group ``Aaa`` cannot be made."""

    error: Exception
    side: str
    tried: int = 0
    stage: Stage = field(default_factory=lambda: Stage(options={"prune_grace": 30.0, "drain_seconds": 10.0}))

    def __post_init__(self) -> None:
        """Put the failure in place."""
        self.stage.ksqldb.assets = {"a": "Aaa", "k1": "keep1", "k2": "keep2", "k3": "keep3"}
        self._execute, self._create = self.stage.ksqldb.execute, self.stage.platform.create_service
        self.stage.ksqldb.execute = self._statement  # type: ignore[method-assign]
        self.stage.platform.create_service = self._service  # type: ignore[method-assign]

    def _statement(self, statement: Statement) -> object:
        self._fail("stream", statement.target == "ASSET_STREAM_AAA")
        return self._execute(statement)

    def _service(self, spec: ServiceSpec) -> None:
        self._fail("service", spec.group == "Aaa")
        self._create(spec)

    def _fail(self, side: str, hits: bool) -> None:
        if hits and side == self.side:
            self.tried += 1
            raise self.error

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
    memory, backoff, contest, changes = controller.memory, controller.backoff, controller.contest, controller._changes
    kept = (memory.missing, memory.silent, memory.unregistered, backoff.failures, contest.written, contest.held)
    return sum(map(len, kept)) + len(changes._said) + len(changes._well)


@pytest.mark.parametrize(("error", "side"), [(KsqlBadStatement("never"), "service"), (RuntimeError("boom"), "stream")])
def test_one_group_fails_for_five_thousand_cycles(error: Exception, side: str) -> None:
    """Every hundredth cycle another group comes or goes and is served or gone in time; calls and memory stay flat."""
    failing = Failing(error, side)
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
    assert CYCLES * 10 / 300 * 0.8 < failing.tried < CYCLES * 10 / 300 * 1.4
    assert "ofa_group_aaa" not in failing.stage.platform.services
