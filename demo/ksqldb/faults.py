"""The bad days of a real ksqlDB, as switches.

A switch is set by its name with `true`, a number, or an object: `{"value": …, "match": "text of the SQL",
"times": 3}`. `match` limits it to requests whose SQL contains that text, `times` ends it after so many uses.
README.md says for each what the real server did.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# Switch -> the value it has when it is just switched on.
SWITCHES: dict[str, Any] = {
    "empty_pull": True,
    "partial_pull": 1,
    "lost_server": {"share": 0.66, "status": {"RUNNING": 1, "UNRESPONSIVE": 1}},
    "pull_not_ready": True,
    "pull_shutdown": True,
    "not_ready": True,
    "shrinking_queries": 1,
    "not_queryable": True,
    "fenced": True,
    "blocked_runner": 5.2,
    "ddl_timeout": 10,
    "executing": 60,
    "queued": True,
    "dead_runner": 5.2,
    "kafka_down": 60,
    "rate_limited": True,
    "silent_query": "drops",
    "lost_row": {"table": "OFA_GROUPS", "key": ""},
    "identity": {"kafkaClusterId": "another-cluster", "ksqlServiceId": "default_"},
    "error_row": 10_000,
    "truncated": True,
    "header_only": True,
    "slow_drip": 0.2,
    "reset": 0,
    "unauthorized": True,
    "wrong_schema": True,
    "duplicate_keys": True,
    "hang": 60,
}


class UnknownSwitch(ValueError):
    """A name that is not in SWITCHES."""


@dataclass
class Switch:
    """One switch that is on."""

    value: Any
    match: str = ""
    times: int | None = None
    uses: int = 0


@dataclass
class Faults:
    """All switches that are on."""

    active: dict[str, Switch] = field(default_factory=dict)

    def set(self, wanted: dict[str, Any]) -> list[str]:
        """Switch on and off; the names that were switched off come back.

        Raises:
            UnknownSwitch: nothing is changed then.
        """
        unknown = sorted(set(wanted) - set(SWITCHES))
        if unknown:
            raise UnknownSwitch(f"unknown switches: {', '.join(unknown)}")
        ended = []
        for name, value in wanted.items():
            if value is False or value is None:
                if self.active.pop(name, None) is not None:
                    ended.append(name)
            else:
                self.active[name] = _switch(name, value)
        return ended

    def clear(self) -> list[str]:
        """Switch everything off; the names come back."""
        ended = list(self.active)
        self.active.clear()
        return ended

    def use(self, name: str, sql: str = "") -> Any:
        """The value of a switch for this request, counting the use; None when it is off or does not apply."""
        switch = self.active.get(name)
        if switch is None or switch.match not in sql:
            return None
        switch.uses += 1
        if switch.times is not None and switch.uses >= switch.times:
            del self.active[name]
        return switch.value

    def body(self) -> dict[str, Any]:
        """The switches as JSON: those that are on, and all there are."""
        on = {
            name: {"value": each.value, "match": each.match, "times": each.times, "uses": each.uses}
            for name, each in self.active.items()
        }
        return {"active": on, "available": sorted(SWITCHES)}


def _switch(name: str, value: Any) -> Switch:
    default = SWITCHES[name]
    if value is True:
        return Switch(default)
    if isinstance(value, dict) and {"value", "match", "times"} & set(value):
        given = value.get("value", default)
        return Switch(default if given is True else given, str(value.get("match", "")), value.get("times"))
    return Switch({**default, **value} if isinstance(default, dict) and isinstance(value, dict) else value)
