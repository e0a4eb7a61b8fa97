"""The eleventh bad day: one of two ksqlDB servers is away or joins, and the other answers with its part of the map.

Measured on two servers: 1,371 of 2,000 rows (a group of one asset is gone altogether), with 200 and the closing
bracket, for up to 64 s, and no row at all for 4-5 s of them. A killed server shows as UNRESPONSIVE in LIST QUERIES;
while one joins nothing tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from reconciler.control.controller import Controller
from reconciler.control.outcome import CycleOutcome
from reconciler.domain.status import Condition
from tests.harness.serving import SHORT, Plant, plant

GROUPS = 8
KILLED = {"RUNNING": 1, "UNRESPONSIVE": 1}
JOINING = {"RUNNING": 1}
# Where questions are counted none may fail for want of time on a busy machine: it would be asked again.
PATIENT = replace(SHORT, read=10.0, direct=30.0, first_row=10.0, quiet=0.5)


@pytest.fixture
def settled() -> Iterator[Plant]:
    """Eight groups of one asset each, and twenty assets more in the first, so that few rows are no collapse."""
    with plant() as made:
        made.ksqldb.assign({f"a{n}": f"g{n}" for n in range(GROUPS)} | {f"b{n}": "g0" for n in range(20)})
        made.settle(made.operator())
        yield made


def partial(
    made: Plant, operator: Controller, seconds: float, share: float, status: dict[str, int]
) -> list[CycleOutcome]:
    """Let so many seconds pass with an answer every five; some of them in the middle without a row."""
    made.ksqldb.switch(lost_server={"share": share, "status": status})
    outcomes = made.run(operator, int(seconds / 10), step=5)
    made.ksqldb.switch(lost_server={"share": 0.0, "status": status})
    outcomes += made.run(operator, 1, step=5)
    made.ksqldb.switch(lost_server={"share": share, "status": status})
    return outcomes + made.run(operator, int(seconds / 10), step=5)


def leaving(outcomes: list[CycleOutcome]) -> set[str | None]:
    """Return the groups that were said to leave."""
    plans = [outcome.plan for outcome in outcomes if outcome.plan is not None]
    return {item.group for plan in plans for item in plan.items if item.condition is Condition.LEAVING}


@pytest.mark.parametrize("share", [0.9, 0.66])
@pytest.mark.parametrize("status", [KILLED, JOINING])
@pytest.mark.parametrize("grace", [0.0, 20.0, 60.0])
def test_11_a_part_of_the_map_removes_nothing(
    settled: Plant, share: float, status: dict[str, int], grace: float
) -> None:
    """64 s of partial answers, with a sign or without, whatever the grace time and however few groups are missing."""
    settled.options |= {"prune_grace": grace, "prune_max_fraction": 0.9}
    operator, before = settled.operator(), settled.writes
    settled.run(operator, 2)
    assert leaving(partial(settled, operator, 70, share, status))
    settled.ksqldb.good_day()
    assert settled.run(operator, 2)[-1].result == "in_sync"
    assert settled.writes == before


def test_11_join_and_kill_together_remove_nothing(settled: Plant) -> None:
    """A server joins, the other is killed, and the operator starts in the middle of it: it has seen no whole map."""
    settled.options |= {"prune_grace": 10.0, "prune_max_fraction": 0.9}
    before = settled.writes
    settled.ksqldb.switch(lost_server={"share": 0.66, "status": JOINING})
    operator = settled.operator()
    outcomes = settled.run(operator, 6, step=5)
    assert operator.reporter.metrics.blocked.labels("question")._value.get() > 0, (
        "without the last question they were gone"
    )
    outcomes += partial(settled, operator, 64, 0.66, KILLED)
    assert leaving(outcomes)
    settled.ksqldb.good_day()
    settled.run(operator, 2)
    assert settled.writes == before


def test_11_a_server_that_is_away_is_said(settled: Plant) -> None:
    """`status` names the query and on how many servers it runs; new groups are made all the same."""
    operator = settled.operator()
    settled.ksqldb.switch(lost_server={"share": 1.0, "status": KILLED})
    settled.ksqldb.assign({"new": "New"})
    (outcome, *_) = settled.run(operator, 3)
    assert outcome.survey is not None
    assert "UNRESPONSIVE on 1 of 2 servers" in outcome.survey.observed.source.unhealthy
    assert outcome.plan is not None
    assert [refusal.guard for refusal in outcome.plan.refusals] == ["health"]
    assert "ASSET_STREAM_NEW" in settled.ksqldb.streams


def test_11_a_group_that_is_gone_goes_when_both_servers_are_there(settled: Plant) -> None:
    """No absence counts while one is away; afterwards a removal takes three questions, one a step, and no pull."""
    settled.limits = PATIENT
    operator = settled.operator()
    settled.ksqldb.assign({"a7": None})
    settled.ksqldb.switch(lost_server={"share": 1.0, "status": KILLED})
    settled.run(operator, 20)
    assert "ASSET_STREAM_G7" in settled.ksqldb.streams
    settled.ksqldb.good_day()
    asked = settled.ksqldb.statements("SELECT")
    outcomes = settled.run(operator, 30)
    assert "ASSET_STREAM_G7" not in settled.ksqldb.streams
    scans = len(outcomes)
    assert settled.ksqldb.statements("SELECT") - asked == scans + 3


def test_11_groups_that_go_together_are_asked_for_once(settled: Plant) -> None:
    """One push query answers for all groups that are about to go."""
    settled.options |= {"prune_max_fraction": 0.9}
    settled.limits = PATIENT
    operator = settled.operator()
    settled.ksqldb.assign({"a5": None, "a6": None, "a7": None})
    asked, outcomes = settled.ksqldb.statements("SELECT"), settled.run(operator, 30)
    assert not {"ASSET_STREAM_G5", "ASSET_STREAM_G6", "ASSET_STREAM_G7"} & settled.ksqldb.streams
    assert settled.ksqldb.statements("SELECT") - asked == len(outcomes) + 3


def test_11_a_server_without_push_queries_removes_nothing_and_goes_on() -> None:
    """The last question is refused (the limit is reached): the group stays, the reason is said, and others are made."""
    with plant(GROUPS, push_limit=0) as settled:
        operator = settled.operator()
        settled.ksqldb.assign({"a7": None, "new": "New"})
        outcomes = settled.run(operator, 30)
        assert {"ASSET_STREAM_G7", "ASSET_STREAM_NEW"} <= settled.ksqldb.streams
        assert "read_error" not in {outcome.result for outcome in outcomes}
        details = [item.detail for o in outcomes if o.plan for item in o.plan.items if item.group == "g7"]
        assert any("proved nothing" in detail and "push queries" in detail for detail in details)
