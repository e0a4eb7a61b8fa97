"""T12, T13, T15, T34: every way in which a read of ksqlDB can fail, over real sockets, ends the cycle without a write.

Before each fault a group waits to be created and another one's service waits to be repaired, so a cycle that went on
would write on both sides. Writes are counted by the server and by the platform.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openfactory_common.errors import (
    KsqlError,
    KsqlInBandFailure,
    KsqlNotReady,
    KsqlRefused,
    KsqlTruncated,
    KsqlUnreachable,
    KsqlWrongShape,
)
from reconciler.control.controller import Controller
from reconciler.control.converge import Exit, converge
from tests.harness.serving import Plant, Served, front, plant
from tests.integration.ksqldb.bodies import error, error_row, header, listed, row, rows
from tests.integration.ksqldb.server import Manner, Reply

GROUPS = 6
READS = ("info", "healthcheck", "pull", "LIST STREAMS", "LIST QUERIES")
ROWS = "application/vnd.ksql.v1+json"

# What can happen to any request, and what it is then called.
ANY: dict[str, tuple[Reply | Manner, type[KsqlError]]] = {
    "reset mid-body": (Manner.RESET, KsqlTruncated),
    "closed mid-body": (Manner.CUT, KsqlTruncated),
    "slow drip": (Manner.DRIP, KsqlUnreachable),
    "slow drip of the head": (Manner.DRIP_HEAD, KsqlUnreachable),
    "no answer": (Manner.SILENT, KsqlUnreachable),
    "401": (Reply(error(40100, "Unauthorized"), 401, ""), KsqlRefused),
    "503 while starting": (Reply(error(50302, "KSQL is not yet ready to serve requests."), 503, ""), KsqlNotReady),
    "200 of another party": (Reply(b"<html>welcome</html>", content_type="text/html"), KsqlWrongShape),
}


def members(*items: str) -> Reply:
    """Return an answer to the scan of the UNS map."""
    return Reply(rows(*items), content_type=ROWS, manner=Manner.CHUNKED)


GOOD = rows(header(), *(row(f"a{n}", f"g{n}") for n in range(GROUPS)))
# What can happen to the scan of the map alone.
SCAN = {
    "error row after 10,000 good rows": (
        members(header(), *(row(f"a{n}", "g0") for n in range(10_000)), error_row()),
        KsqlInBandFailure,
    ),
    "missing bracket": (Reply(GOOD[:-1], content_type=ROWS), KsqlTruncated),
    "header only, not closed": (Reply(("[" + header()).encode(), content_type=ROWS), KsqlTruncated),
    "another schema": (members(header("`ASSET_UUID` STRING KEY, `UNS_ID` STRING"), row("a0", "x")), KsqlWrongShape),
    "duplicate keys": (members(header(), row("a0", "g0"), row("a0", "g1")), KsqlWrongShape),
    "a row without its key": (members(header(), row(None, "g0")), KsqlWrongShape),
    "an empty array": (members(), KsqlWrongShape),
}


@pytest.fixture(scope="module")
def settled() -> Iterator[Plant]:
    """Six groups in place, and work that waits: a group to create, a group to remove, a service to repair."""
    with plant(GROUPS) as made:
        made.ksqldb.assign({"b": "New", "a5": None})
        made.platform.touch("ofa_group_g0", image="other:1")
        yield made


def failed(made: Plant, url: str = "") -> KsqlError:
    """Run one cycle, which must fail and write nothing; return the error of its read."""
    before = made.writes
    (outcome,) = made.run(made.operator(url))
    assert outcome.result == "read_error", outcome.sentence
    assert outcome.plan is None
    assert made.writes == before
    assert isinstance(outcome.error, KsqlError)
    return outcome.error


@pytest.mark.parametrize("fault", ANY)
@pytest.mark.parametrize("read", READS)
def test_a_fault_of_any_read_ends_the_cycle_without_a_write(settled: Plant, read: str, fault: str) -> None:
    """T12: whichever of the five reads breaks, and however, nothing is concluded from the other four."""
    reply, kind = ANY[fault]
    with front(settled.ksqldb, {read: reply}) as site:
        assert type(failed(settled, site.url)) is kind
        assert site.requests


@pytest.mark.parametrize("fault", SCAN)
def test_a_fault_within_the_map_ends_the_cycle_without_a_write(settled: Plant, fault: str) -> None:
    """T12: rows that came before the fault are not a result."""
    reply, kind = SCAN[fault]
    with front(settled.ksqldb, {"pull": reply}) as site:
        assert type(failed(settled, site.url)) is kind


@pytest.mark.parametrize(
    ("switches", "kind"),
    [
        ({"reset": 2}, KsqlTruncated),
        ({"slow_drip": 0.2}, KsqlUnreachable),
        ({"unauthorized": True}, KsqlRefused),
        ({"not_ready": True}, KsqlNotReady),
        ({"pull_not_ready": True}, KsqlNotReady),
        ({"pull_shutdown": True}, KsqlNotReady),
        ({"not_queryable": True}, KsqlNotReady),
        ({"error_row": 3}, KsqlInBandFailure),
        ({"truncated": True}, KsqlTruncated),
        ({"header_only": True}, KsqlTruncated),
        ({"wrong_schema": True}, KsqlWrongShape),
        ({"duplicate_keys": True}, KsqlWrongShape),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_day_ends_the_cycle_without_a_write(
    settled: Plant, switches: dict[str, Any], kind: type[KsqlError]
) -> None:
    """T12: the same with a server that has such a day itself."""
    settled.ksqldb.switch(**switches)
    try:
        assert type(failed(settled)) is kind
    finally:
        settled.ksqldb.good_day()


def test_a_refused_connection_ends_the_cycle_without_a_write(settled: Plant) -> None:
    """T12: no one listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert type(failed(settled, f"http://127.0.0.1:{port}")) is KsqlUnreachable


@pytest.mark.parametrize("schema", [("streams", {}), ("streams", [{"name": 7}]), ("tables", []), ("streams", None)])
def test_a_list_of_another_shape_is_no_empty_list(settled: Plant, schema: tuple[str, Any]) -> None:
    """T12: LIST STREAMS with other members, or the answer to another question, does not mean "no streams"."""
    with front(settled.ksqldb, {"LIST STREAMS": Reply(listed(*schema))}) as site:
        assert type(failed(settled, site.url)) is KsqlWrongShape


def refuses(made: Plant, operator: Controller, text: str) -> None:
    """Run cycles and `--once`: each is refused with this text, nothing is written, and the exit code is 4."""
    before = made.writes
    for outcome in made.run(operator, 8):
        assert outcome.result == "refused"
        assert text in outcome.sentence
    code, _ = converge(operator, 100, sleep=lambda _: None)
    assert code is Exit.REFUSED
    assert made.writes == before


def test_a_complete_and_empty_map_is_refused(settled: Plant) -> None:
    """T13: a whole, well-formed answer without a row: no write for as long as it lasts, and exit code 4."""
    with front(settled.ksqldb, {"pull": members(header())}) as site:
        refuses(settled, settled.operator(site.url), "names no group")


def test_a_map_without_our_level_is_refused() -> None:
    """T13: every row is there, and none has the level: likewise, and the levels that there are are named."""
    with plant(GROUPS) as made:
        made.ksqldb.relabel("area")
        refuses(made, made.operator(), "no asset has level 'workcenter'; levels seen: area")


@pytest.mark.parametrize(
    "identity",
    [
        {"kafkaClusterId": "kafka-2", "ksqlServiceId": "default_"},
        {"kafkaClusterId": "kafka-1", "ksqlServiceId": "other_"},
    ],
    ids=["another Kafka", "another ksqlDB"],
)
def test_another_clusters_valid_map_is_refused(settled: Plant, identity: dict[str, str]) -> None:
    """T34: all reads are whole, and another cluster's: no write at all, and exit code 4."""
    settled.ksqldb.switch(identity=identity)
    try:
        refuses(settled, settled.operator(), "another cluster answers")
    finally:
        settled.ksqldb.good_day()


def test_half_of_the_rows_once_remove_nothing() -> None:
    """T15: between good reads one that misses half of the map changes nothing, nor do three in a row."""
    with plant(GROUPS) as made:
        operator = made.operator()
        made.run(operator, 2)
        before = made.writes
        for reads in (1, 3):
            made.ksqldb.switch(partial_pull=GROUPS // 2)
            made.run(operator, reads, step=30)
            made.ksqldb.good_day()
            made.run(operator, 3, step=30)
        assert made.writes == before
        assert operator.memory.guards.missing == {}


def test_a_server_that_is_gone_and_comes_back_costs_no_write(tmp_path: Path) -> None:
    """T12, T38: refused while it is away, in sync as soon as it is back, with nothing done in between or after."""
    options: dict[str, Any] = {"data_file": tmp_path / "journal"}
    with plant(GROUPS, **options) as made:
        operator = made.operator()
        made.run(operator, 2)
        before = made.platform.writes
        made.ksqldb.stop()
        assert [outcome.result for outcome in made.run(operator, 3)] == ["read_error"] * 3
        made.ksqldb = Served(made.ksqldb.port, **options)
        assert [outcome.result for outcome in made.run(operator, 3)] == ["in_sync"] * 3
        assert made.ksqldb.counted()["writes"] == 0
        assert made.platform.writes == before


def test_without_a_fault_the_same_cycle_writes(settled: Plant) -> None:
    """What waited all the time is done as soon as the reads are good, so the tests above could have failed."""
    ksqldb, platform = settled.writes
    with front(settled.ksqldb, {}) as site:
        settled.settle(settled.operator(site.url))
    assert "ASSET_STREAM_NEW" in settled.ksqldb.streams
    assert "ASSET_STREAM_G5" not in settled.ksqldb.streams
    assert settled.writes[0] >= ksqldb + 2
    assert settled.writes[1] >= platform + 4
