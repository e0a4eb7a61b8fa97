"""The factory that is simulated: which assets it has, where they stand in the namespace, what they report. No I/O."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

ENTERPRISE = "acme"
SITE = "plant-1"

_AREAS = {"weld": "body-shop", "paint": "paint-shop", "assembly": "final-assembly"}
_MACHINES = {
    "weld": ("WELD-ROBOT", "WELD-CELL"),
    "paint": ("PAINT-BOOTH", "PAINT-ROBOT"),
    "assembly": ("ASSEMBLY-PRESS", "ASSEMBLY-ROBOT"),
}


@dataclass(frozen=True)
class Placement:
    """Where an asset stands in the Unified Namespace.

    Attributes:
        asset: the ``asset_uuid``.
        workcenter: the level by which assets are grouped.
    """

    asset: str
    workcenter: str

    @property
    def levels(self) -> Mapping[str, str]:
        """Return all levels, from the enterprise down to the asset."""
        area = _AREAS.get(self.workcenter.lower(), "production")
        return {
            "enterprise": ENTERPRISE,
            "site": SITE,
            "area": area,
            "workcenter": self.workcenter,
            "asset": self.asset,
        }

    @property
    def uns_id(self) -> str:
        """Return the levels as one path."""
        return "/".join(self.levels.values())


def initial_placements(workcenters: Iterable[str], assets_each: int) -> list[Placement]:
    """Return the assets that the factory starts with, e.g. WELD-ROBOT-01 and WELD-CELL-01 in Weld."""
    return [
        Placement(_asset_name(workcenter, number), workcenter)
        for workcenter in workcenters
        for number in range(assets_each)
    ]


def _asset_name(workcenter: str, number: int) -> str:
    plain = re.sub(r"[^A-Za-z0-9]+", "-", workcenter).strip("-").upper() or "UNIT"
    machines = _MACHINES.get(workcenter.lower(), (f"{plain}-MACHINE",))
    return f"{machines[number % len(machines)]}-{number // len(machines) + 1:02d}"


@dataclass(frozen=True)
class Reading:
    """One event of one data item.

    Attributes:
        type: ``Events`` for states, ``Samples`` for measured values.
        timestamp: UTC, ISO 8601 with microseconds and ``Z``.
    """

    asset: str
    data_item: str
    value: str
    type: str
    tag: str
    timestamp: str


@dataclass(frozen=True)
class Signal:
    """A measured value that wanders between limits and is drawn back to the middle."""

    data_item: str
    tag: str
    low: float
    high: float
    digits: int = 1

    def after(self, value: float | None, chance: random.Random) -> float:
        """Return the value one step after ``value`` (None: at the start)."""
        middle, span = (self.low + self.high) / 2, self.high - self.low
        if value is None:
            return middle + chance.uniform(-span, span) / 8
        step = chance.gauss(0, span / 40) + (middle - value) / 25
        return min(self.high, max(self.low, value + step))


TEMPERATURE = Signal("temperature", "Temperature", 35.0, 75.0)
POWER = Signal("power", "Wattage", 400.0, 4200.0, digits=0)
_PROCESS = {
    "WELD": Signal("weld_current", "Amperage", 160.0, 240.0),
    "PAINT": Signal("paint_flow", "Flow", 180.0, 320.0),
    "ASSEMBLY": Signal("torque", "Torque", 8.0, 42.0, digits=2),
}
SPINDLE_SPEED = Signal("spindle_speed", "RotaryVelocity", 0.0, 12_000.0, digits=0)

_EXECUTION = {
    "ACTIVE": ("ACTIVE", "ACTIVE", "ACTIVE", "ACTIVE", "INTERRUPTED", "READY"),
    "INTERRUPTED": ("INTERRUPTED", "ACTIVE", "ACTIVE"),
    "READY": ("ACTIVE", "ACTIVE", "READY"),
}


@dataclass
class Machine:
    """One asset's present state: each call of ``next_reading`` reports the next of its data items."""

    asset: str
    chance: random.Random
    _values: dict[str, float] = field(default_factory=dict)
    _execution: str = "ACTIVE"
    _turn: int = 0

    def next_reading(self, now: datetime) -> Reading:
        """Return the next event: every data item has its turn, so the state is complete after six."""
        process = _PROCESS.get(self.asset.partition("-")[0].upper(), SPINDLE_SPEED)
        turns = (self._availability, TEMPERATURE, process, self._advance_execution, POWER, process)
        turn = turns[self._turn % len(turns)]
        self._turn += 1
        data_item, value, kind, tag = self._sample(turn) if isinstance(turn, Signal) else turn()
        stamp = now.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return Reading(self.asset, data_item, value, kind, tag, stamp)

    def _sample(self, signal: Signal) -> tuple[str, str, str, str]:
        value = signal.after(self._values.get(signal.data_item), self.chance)
        self._values[signal.data_item] = value
        return signal.data_item, f"{value:.{signal.digits}f}", "Samples", signal.tag

    def _availability(self) -> tuple[str, str, str, str]:
        return "avail", "AVAILABLE", "Events", "Availability"

    def _advance_execution(self) -> tuple[str, str, str, str]:
        self._execution = self.chance.choice(_EXECUTION[self._execution])
        return "execution", self._execution, "Events", "Execution"
