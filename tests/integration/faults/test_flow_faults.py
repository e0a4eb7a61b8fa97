"""Events go in and none come out, though everything is RUNNING: seen, said, and forgotten when they come again.

The operator is a real one against the embedded server, whose switch `silent_query` lets a query run and write nothing
(`drops`), or read nothing (`stuck`).
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import httpx
import pytest
import structlog
from structlog.testing import capture_logs

from reconciler.control.controller import Controller
from reconciler.control.flow import STRIKES, FlowWatch
from reconciler.domain.status import Condition, ObjectStatus
from tests.harness.serving import Plant, front, plant
from tests.integration.ksqldb.server import Manner, Reply

GROUPS = 3
TOPIC = "enriched_assets_stream_topic"
SHARED = "OFA_ASSETS_WITH_UNS_"


@pytest.fixture
def settled() -> Iterator[Plant]:
    """Three groups of one asset each, in place."""
    with plant(GROUPS) as made:
        yield made


def watching(made: Plant, url: str = "") -> Controller:
    """Start an operator that checks the flow in each of its cycles, with short looks at the events."""
    operator = made.operator(url)
    world = operator.deps
    operator.memory.flow = FlowWatch(
        world.ksqldb,
        world.strategy,
        60.0,
        start=lambda check: check(),
        seconds=0.25,  # type: ignore[arg-type]
    )
    return operator


@contextmanager
def events(made: Plant, *assets: str) -> Iterator[None]:
    """Let these assets send an event some twenty times a second."""
    over = threading.Event()

    def send() -> None:
        with httpx.Client(base_url=made.ksqldb.url, timeout=20.0, trust_env=False) as http:
            for number, asset in enumerate(itertools.cycle(assets)):
                value = {"asset_uuid": asset, "id": "t", "value": str(number), "type": "Samples"}
                http.post("/dev/produce", json={"topic": TOPIC, "key": asset, "value": value})
                if over.wait(0.02):
                    return

    sender = threading.Thread(target=send)
    if assets:
        sender.start()
    try:
        yield
    finally:
        over.set()
        if assets:
            sender.join()


def groups_of(made: Plant, operator: Controller, checks: int = STRIKES + 2) -> Mapping[str | None, ObjectStatus]:
    """Run so many cycles with a check in each, and one more that shows them."""
    outcome = made.run(operator, checks + 1, step=60)[-1]
    assert outcome.plan is not None
    return {item.group: item for item in outcome.plan.items}


def groups_when_silent(made: Plant, operator: Controller, expected: set[str]) -> Mapping[str | None, ObjectStatus]:
    """Check until these groups are silent: on a busy machine a check may see no event, and does not count."""
    for _ in range(10):
        items = groups_of(made, operator)
        if silent(items) == expected:
            break
    return items


def silent(items: Mapping[str | None, ObjectStatus]) -> set[str | None]:
    """Return the groups that are said to be silent."""
    return {group for group, item in items.items() if item.detail.startswith("Silent")}


def test_a_shared_stream_that_drops_everything_is_said_of_every_group(settled: Plant) -> None:
    """Its join reads and writes nothing; afterwards it is Ready again, and no write was done about it."""
    operator, before = watching(settled), settled.platform.writes
    with events(settled, "a0", "a1"):
        assert silent(groups_of(settled, operator)) == set()
        settled.ksqldb.switch(silent_query={"match": f"CREATE STREAM {SHARED}"})
        items = groups_when_silent(settled, operator, {"g0", "g1", "g2"})
        assert silent(items) == {"g0", "g1", "g2"}
        assert {items[group].condition for group in silent(items)} == {Condition.DEGRADED}
        assert SHARED in items["g0"].detail
        assert "TERMINATE CSAS_OFA_ASSETS_WITH_UNS_" in items["g0"].detail
        settled.ksqldb.good_day()
        items = groups_of(settled, operator, 2)
        assert {items[group].condition for group in ("g0", "g1", "g2")} == {Condition.READY}
    assert settled.platform.writes == before


def test_a_shared_stream_that_never_wrote_is_said_of_every_group() -> None:
    """From its creation on nothing comes out: no group's query has read anything, and none is listed as reading."""
    with plant(2) as made:
        made.ksqldb.switch(silent_query={"match": f"CREATE STREAM {SHARED}"})
        with events(made, "a0"):
            assert silent(groups_when_silent(made, watching(made), {"g0", "g1"})) == {"g0", "g1"}


def test_a_group_whose_query_never_read_is_said(settled: Plant) -> None:
    """It is stuck from its creation on, so that it is not listed as reading, while others read."""
    settled.ksqldb.switch(silent_query={"value": "stuck", "match": "UNS_GROUP = 'g1'"})
    with events(settled, "a0", "a1"):
        items = groups_when_silent(settled, watching(settled), {"g1"})
    assert silent(items) == {"g1"}
    assert "events wait" in items["g1"].detail


@pytest.mark.parametrize("how", ["drops", "stuck"])
def test_a_group_whose_query_runs_and_writes_nothing_is_said(settled: Plant, how: str) -> None:
    """Of the groups that have events, only the one whose filter does nothing; and it recovers."""
    operator = watching(settled)
    with events(settled, "a0", "a1"):
        groups_of(settled, operator)
        settled.ksqldb.switch(silent_query={"value": how, "match": "UNS_GROUP = 'g1'"})
        items = groups_when_silent(settled, operator, {"g1"})
        assert silent(items) == {"g1"}
        assert "ASSET_STREAM_G1" in items["g1"].detail
        settled.ksqldb.good_day()
        assert silent(groups_of(settled, operator, 2)) == set()


def test_a_stream_that_is_stuck_from_the_shared_one_on_is_said(settled: Plant) -> None:
    """The shared stream's query reads nothing while events wait."""
    operator = watching(settled)
    with events(settled, "a0"):
        groups_of(settled, operator)
        settled.ksqldb.switch(silent_query={"value": "stuck", "match": f"CREATE STREAM {SHARED}"})
        items = groups_when_silent(settled, operator, {"g0", "g1", "g2"})
    assert silent(items) == {"g0", "g1", "g2"}
    assert "events wait" in items["g0"].detail


QUIET: Mapping[str, tuple[tuple[str, ...], Callable[[Plant], None]]] = {
    "a plant that is switched off": ((), lambda _: None),
    "only assets that are not mapped": (("x1", "x2"), lambda _: None),
    "assets without a group": (("a9",), lambda made: made.ksqldb.assign({"a9": None})),
    "one group's machines are off": (("a0", "a1"), lambda _: None),
    "mapped and unmapped ones together": (("a0", "x1"), lambda _: None),
    "its query is not believed to write, though another server may": (
        ("a0",),
        lambda made: made.ksqldb.switch(lost_server={"share": 1.0, "status": {"RUNNING": 2}}),
    ),
}


def test_of_a_plant_without_events_nothing_is_said_in_the_log(settled: Plant) -> None:
    """The server tells how far its queries have read: no topic is in it yet, which is not the same as no answer."""
    structlog.reset_defaults()
    with capture_logs() as said:
        groups_of(settled, watching(settled), 2)
    assert [line for line in said if line["event"].startswith("it is not known")] == []


@pytest.mark.parametrize("case", QUIET)
def test_where_nothing_is_to_come_out_nothing_is_said(settled: Plant, case: str) -> None:
    """Silence is said only of events that were seen going in."""
    assets, change = QUIET[case]
    change(settled)
    with events(settled, *assets):
        items = groups_of(settled, watching(settled))
    assert {items[group].condition for group in ("g0", "g1", "g2")} == {Condition.READY}


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"[]"),
        Reply(b'{"@type":"statement_error","error_code":40001,"message":"no EXTENDED here"}', 400),
        Reply(b"<html>", 500, "text/html"),
        Reply(manner=Manner.RESET, body=b"[{}]"),
    ],
)
def test_a_server_that_does_not_tell_stops_nothing(settled: Plant, reply: Reply) -> None:
    """Whatever DESCRIBE ... EXTENDED answers: groups become Ready, and one warning says that flow is unknown."""
    structlog.reset_defaults()
    with front(settled.ksqldb, {"DESCRIBE EXTENDED": reply}) as site, capture_logs() as said:
        operator = watching(settled, site.url)
        settled.ksqldb.assign({"new": "New"})
        items = groups_of(settled, operator)
    assert {items[group].condition for group in ("g0", "g1", "g2")} == {Condition.READY}
    assert "ASSET_STREAM_NEW" in settled.ksqldb.streams
    assert len([line for line in said if line["event"].startswith("whether events flow is unknown")]) == 1


def test_a_check_costs_a_bounded_number_of_questions() -> None:
    """However many groups there are: ten of them, the shared stream, and nothing between two checks."""
    with plant(25) as made:
        operator = watching(made)
        made.run(operator, 3, step=60)
        described = made.ksqldb.statements("DESCRIBE")
        made.run(operator, 10, step=6)
        assert made.ksqldb.statements("DESCRIBE") - described == 11
