"""What goes wrong in a soak: faults of single calls, reads that lie, and spells of a cluster that is not itself."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.harness.fakes import WELL, Stage
from tests.integration.faults.matrix_seam import STALE, Call, Fault

#: Faults of a call in calm, rough and stormy weather.
CHANCES = (0.0, 0.02, 0.1)
#: A server does not forget who it is; and a scan and the last question that are wrong about the same group in the same
#: moment are more than anybody can see through.
NEVER_STALE = frozenset({"info", "members_directly"})


@dataclass
class Weather:
    """Chooses faults; changes every so often.

    Attributes:
        dice: where all chance comes from.
        chance: of a fault, for each call.
        lie: what the reads of this cycle say instead of the truth; ``""`` for the truth.
        struck: faults so far.
        over: no fault any more.
        unexpected: an exception that nothing is prepared for has struck in this cycle.
    """

    dice: random.Random
    chance: float = 0.0
    lie: str = ""
    struck: int = 0
    over: bool = False
    unexpected: bool = False
    _ends: list[tuple[int, Callable[[], None]]] = field(default_factory=list)

    def next_cycle(self, number: int, stage: Stage) -> None:
        """Let the weather of one more cycle come."""
        self.unexpected = False
        for end in [end for end in self._ends if end[0] <= number]:
            self._ends.remove(end)
            end[1]()
        if self.dice.random() < 0.05:
            self.chance = self.dice.choice(CHANCES)
        self.lie = self.dice.choice(("empty", "half", "shrunk")) if self.dice.random() < 0.1 else ""
        if not self._ends and self.dice.random() < 0.04:
            self._spell(number, stage)

    def clear_up(self) -> None:
        """End all faults."""
        self.over, self.lie, self.unexpected = True, "", False
        for _, end in self._ends:
            end()
        self._ends.clear()

    def fault_of(self, call: Call) -> Fault | None:
        """Choose the fault of one call, or none."""
        if self.over or self.dice.random() >= self.chance:
            return None
        faults = call.faults
        if call.name in NEVER_STALE:
            faults = tuple(fault for fault in faults if fault not in STALE)
        self.struck += 1
        fault = self.dice.choice(faults)
        self.unexpected = self.unexpected or fault.is_bug
        return fault

    def alter(self, call: Call, answer: Any) -> Any:
        """Let a whole, well-formed answer be wrong, as a server's that starts or stops."""
        if call.name == "members" and self.lie == "empty":
            return ()
        if call.name == "members" and self.lie == "half":
            return tuple(row for row in answer if self.dice.random() < 0.5)
        if call.name == "queries" and self.lie == "shrunk":
            return answer[: self.dice.randrange(len(answer) + 1)]
        return answer

    def _spell(self, number: int, stage: Stage) -> None:
        """For some cycles another cluster answers, the server is not well, or a service's tasks do not run."""
        ksqldb, platform = stage.ksqldb, stage.platform
        match self.dice.choice(("identity", "runner", "kafka", "sick", "limit")):
            case "identity" if platform.registries:  # before the first document any cluster is the right one
                ksqldb.identity = ("kafka-2", "default_")
            case "runner":
                ksqldb.well = replace(WELL, command_runner=False, healthy=False)
            case "kafka":
                ksqldb.well = replace(WELL, kafka=False, healthy=False)
            case "limit":
                ksqldb.limit = len(ksqldb.made)
            case "sick":
                name = self.dice.choice(sorted(platform.services)) if platform.services else ""
                platform.healthy = lambda service: service.casefold() != name
        self._ends.append((number + self.dice.randrange(1, 12), lambda: _be_well(stage)))


def _be_well(stage: Stage) -> None:
    stage.ksqldb.identity, stage.ksqldb.well, stage.ksqldb.limit = ("kafka-1", "default_"), WELL, None
    stage.platform.healthy = lambda _name: True
