"""Recorded answers of a cluster of two ksqlDB servers, one of which was killed or joined: what is made of them."""

from __future__ import annotations

import os
from contextlib import closing

import pytest

from openfactory_common.errors import KsqlUnreachable
from openfactory_common.ksqldb.wire import Column
from reconciler.ksqldb.client import KsqlClient
from reconciler.ksqldb.entities import Consumed, QueryInfo, count_servers, find_not_running
from reconciler.ksqldb.ownership import Whose
from reconciler.ksqldb.statements import Topology
from reconciler.ksqldb.transport import Timeouts
from tests.integration.ksqldb.corpus import corpus_path, read_cases
from tests.integration.ksqldb.server import Manner, Reply, in_turn, serve

PATH = corpus_path().with_name("corpus-2.jsonl")
if not PATH.exists() and os.environ.get("CI") != "true":
    pytest.skip("no recorded traffic; KSQLDB_CORPUS names the file beside it", allow_module_level=True)

CASES = {case.name: case for case in read_cases(PATH)}
TOPOLOGY = Topology("enriched_assets_stream", "asset_to_uns_map_raw", "workcenter", 3_600_000, 604_800_000, "r2")
MAP = {"ASSET_TO_UNS_MAP", "ASSET_TO_UNS_MAP_RAW"}
ROWS = (Column("ASSET_UUID", "STRING", key=True), Column("UNS_GROUP", "STRING"))


def reply(name: str) -> Reply:
    """Return a recorded answer; one that did not come is silence."""
    case = CASES[name]
    if case.status is None:
        return Reply(manner=Manner.SILENT)
    return Reply(case.body, case.status, case.content_type, Manner.CHUNKED if case.path == "/query" else Manner.WHOLE)


def queries(name: str) -> tuple[QueryInfo, ...]:
    """Return what a recorded LIST QUERIES says."""
    with serve(in_turn(reply(name))) as site, closing(KsqlClient(site.url)) as client:
        return client.queries()


def ours(query: QueryInfo) -> bool:
    """Whether a recorded query is of the installation that was recorded."""
    return any(TOPOLOGY.ownership(sink, query.text).whose is not Whose.FOREIGN for sink in query.sinks)


@pytest.mark.parametrize(
    ("name", "hosts", "degraded"),
    [
        ("two-list-queries-1", 2, False),
        ("two-list-queries-2", 2, False),
        ("two-kill-queries-1", 2, False),  # killed a moment ago: not noticed yet
        ("two-kill-queries-2", 2, True),
        ("two-kill-queries-4", 1, False),  # taken over: the number of servers tells
        ("two-join-queries-1", 1, False),  # joining gives no sign at all: the last question has to tell
        ("two-join-queries-2", 1, False),
        ("two-join-queries-4", 1, False),
        ("kafka4m-queries", 1, False),
    ],
)
def test_a_server_that_is_away_shows_in_the_list_of_queries(name: str, hosts: int, degraded: bool) -> None:
    """Every query of the map and of ours is UNRESPONSIVE on one of two servers while one is dead, and then on none."""
    listed = queries(name)
    assert count_servers(listed) == hosts
    for is_ours in (ours, lambda _query: False):
        text = find_not_running(listed, MAP, is_ours)
        assert ("UNRESPONSIVE on 1 of 2 servers" in text) is degraded
        assert bool(text) is degraded


@pytest.mark.parametrize("name", ["two-health-1", "two-kill-health-1", "two-join-health-1"])
def test_the_health_check_tells_nothing(name: str) -> None:
    """While one server is dead or joins, the other says that it is healthy and READY."""
    with serve(in_turn(reply(name))) as site, closing(KsqlClient(site.url)) as client:
        assert client.health().ready


def test_a_scan_that_is_not_answered_is_an_error() -> None:
    """Between the partial answers some are none at all."""
    silent = in_turn(reply("two-kill-group-3"))
    with (
        serve(silent) as site,
        closing(KsqlClient(site.url, Timeouts(read=0.2))) as client,
        pytest.raises(KsqlUnreachable),
    ):
        client.pull(CASES["two-kill-group-3"].sql, ROWS)


def test_a_group_of_a_topic_with_three_partitions_is_described() -> None:
    """DESCRIBE names the query's state on the servers that answer."""
    with serve(in_turn(reply("two-describe-1"))) as site, closing(KsqlClient(site.url)) as client:
        found = client.describe("ASSET_STREAM_WC03")
    assert [query.status_count for query in found.write_queries] == [{"RUNNING": 1}]


def test_how_far_a_query_has_read_is_described() -> None:
    """Over all partitions of its topic, with what the asked server has written; the short form has no offsets."""
    name = "ASSET_STREAM_WC03"
    with serve(in_turn(reply("two-describe-ext-1"))) as site, closing(KsqlClient(site.url)) as client:
        found = client.describe_extended(name)
    assert found is not None
    assert found.consumed == {
        "r2_assets_with_uns_b18cd379": Consumed(end=20872 + 14549 + 19772, read=20853 + 14536 + 19754)
    }
    assert found.written == 561
    with serve(in_turn(reply("two-describe-2"))) as site, closing(KsqlClient(site.url)) as client:
        other = client.describe(name)
    assert (other.consumed, other.written) == ({}, 62), "the other server has written other partitions"
