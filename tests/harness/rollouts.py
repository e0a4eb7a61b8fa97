"""A plant between two fakes whose image changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from reconciler.control.controller import Controller
from reconciler.control.outcome import CycleOutcome
from reconciler.domain.names import names_of
from reconciler.domain.status import Plan
from tests.harness.fakes import NOW, Stage

#: Seconds between two cycles: of `ROLLOUT_TIMEOUT` there are two in it.
STEP = 60


@dataclass
class Rollout:
    """A plant whose image changes; a bad image never becomes ready, and neither does a group whose node is away.

    Attributes:
        groups: how many there are.
        away: those that no image makes ready.
        at_once: the most groups that were on their way at the same time.
    """

    groups: int
    away: frozenset[str] = frozenset()
    parallel: float = 0.25
    stage: Stage = field(default_factory=Stage)
    at_once: int = 0

    def __post_init__(self) -> None:
        """Let all groups be served."""
        self.stage.options = {"rollout_bake": 10, "rollout_max_parallel": self.parallel}
        self.stage.ksqldb.assets = {f"a{number}": f"G{number:02d}" for number in range(self.groups)}
        self.stage.platform.clock = lambda: NOW + timedelta(seconds=self.stage.now)
        self.run(self.stage.controller(), 4)
        self.stage.platform.healthy = self.is_ready

    def is_ready(self, name: str) -> bool:
        """Whether a service's tasks become ready."""
        return name not in self.away and "bad" not in self.image(name)

    def image(self, name: str) -> str:
        """Return a service's image."""
        spec = self.stage.platform.services[name.casefold()].spec
        assert spec is not None
        return spec.image

    @property
    def names(self) -> list[str]:
        """The services of the groups."""
        return [live.name for live in self.stage.platform.services.values() if live.spec and live.spec.group]

    def roll(self, image: str) -> Controller:
        """Start an operator with another image."""
        self.stage.options = {**self.stage.options, "fastapi_group_image": image}
        return self.stage.controller()

    def run(self, controller: Controller, cycles: int) -> Plan:
        """Let cycles pass, `STEP` seconds apart."""
        for _ in range(cycles):
            before = self.changes()
            plan = self.cycle(controller).plan
            assert plan is not None
            after = self.changes()
            self.at_once = max(self.at_once, sum(before[name] != after[name] for name in before))
        return plan

    def cycle(self, controller: Controller) -> CycleOutcome:
        """Let one cycle pass."""
        self.advance()
        outcome = controller.cycle()
        self.stage.now += STEP
        return outcome

    def advance(self) -> None:
        """Let the time of day follow the monotonic clock."""
        self.stage.wall = NOW + timedelta(seconds=self.stage.now)

    def changes(self) -> dict[str, datetime | None]:
        """When each group's service was changed."""
        return {name: self.stage.platform.services[name.casefold()].updated_at for name in self.names}


def away_of(numbers: set[int]) -> frozenset[str]:
    """Names of the services whose node is away."""
    return frozenset(names_of(f"G{number:02d}").service for number in numbers)
