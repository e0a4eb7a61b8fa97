"""What a worker reports of the demand for groups, and what the accounts of several say together."""

from __future__ import annotations

from typing import Any

from routing_layer.demand import Demand, merge


class Clock:
    """Seconds that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def test_a_group_is_idle_from_its_last_request_or_the_end_of_its_last_stream() -> None:
    """An open stream, and a request that waits, are demand now; an answer of no group is none."""
    clock = Clock()
    demand = Demand(clock)
    demand.ask("Weld")
    demand.ask("Paint")
    demand.ask("")
    clock.now += 30
    with demand.wait("Paint"):
        assert demand.snapshot("r1", ["Fit", "Fit", ""]) == {
            "revision": "r1",
            "uptime_seconds": 30.0,
            "groups": {
                "Fit": {"open": 2, "waiting": 0, "idle_seconds": 0.0},
                "Paint": {"open": 0, "waiting": 1, "idle_seconds": 0.0},
                "Weld": {"open": 0, "waiting": 0, "idle_seconds": 30.0},
            },
        }
    demand.ask("Fit")  # its streams have ended
    clock.now += 5
    groups = demand.snapshot("r1", [])["groups"]
    assert {group: one["idle_seconds"] for group, one in groups.items()} == {"Fit": 5.0, "Paint": 5.0, "Weld": 35.0}


def account(revision: str, uptime: float, **groups: tuple[int, int, float]) -> dict[str, Any]:
    """One worker's account: open, waiting and idle seconds of each group."""
    fields = ("open", "waiting", "idle_seconds")
    found = {group: dict(zip(fields, one, strict=True)) for group, one in groups.items()}
    return {"revision": revision, "uptime_seconds": uptime, "groups": found}


def test_workers_are_added_up() -> None:
    """Counts are sums, times the least; one that did not answer, and two revisions, are shown."""
    one = account("r1", 50, Weld=(2, 0, 0), Fit=(0, 0, 9))
    other = account("r1", 40, Weld=(1, 1, 0), Paint=(0, 0, 3))
    both = merge([one, other], 2)
    assert (both["revision"], both["complete"], both["uptime_seconds"]) == ("r1", True, 40)
    assert both["groups"] == account("", 0, Weld=(3, 1, 0), Fit=(0, 0, 9), Paint=(0, 0, 3))["groups"]
    assert merge([one], 2)["complete"] is False
    assert merge([one, account("r2", 40)], 2)["revision"] == ""
    assert one == account("r1", 50, Weld=(2, 0, 0), Fit=(0, 0, 9)), "what was given is left as it was"
