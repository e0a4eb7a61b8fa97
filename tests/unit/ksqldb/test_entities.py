"""Whether the queries that groups depend on run on every server: a table of lists of queries."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from reconciler.ksqldb.entities import QueryInfo, count_servers, find_not_running

MAP = {"ASSET_TO_UNS_MAP", "ASSET_TO_UNS_MAP_RAW"}
RUNNING: Mapping[str, int] = {"RUNNING": 2}


Count = Mapping[str, int]


def query(name: str, text: str, count: Count, sinks: tuple[str, ...], kind: str = "PERSISTENT") -> QueryInfo:
    """Return one line of LIST QUERIES."""
    return QueryInfo(name, text, sinks, kind, count)


def copy(count: Mapping[str, int]) -> QueryInfo:
    """Return the query that writes the map."""
    text = "CREATE TABLE ASSET_TO_UNS_MAP AS SELECT * FROM ASSET_TO_UNS_MAP_RAW ASSET_TO_UNS_MAP_RAW EMIT CHANGES;"
    return query("CTAS_MAP", text, count, ("ASSET_TO_UNS_MAP",))


def raw(count: Mapping[str, int]) -> QueryInfo:
    """Return the query that writes what the map is made from, by an INSERT INTO."""
    text = "INSERT INTO `ASSET_TO_UNS_MAP_RAW` SELECT * FROM `plants`;"
    return query("INSERT_1", text, count, ("ASSET_TO_UNS_MAP_RAW",))


def further(count: Mapping[str, int]) -> QueryInfo:
    """Return the query of a source table that the map's source is made from: it has no sink."""
    return query("CST_1", "CREATE SOURCE TABLE `plants` (ID STRING PRIMARY KEY) WITH (KAFKA_TOPIC='p');", count, ())


def ours(count: Mapping[str, int]) -> QueryInfo:
    """Return a query of ours."""
    return query("CSAS_G1", "CREATE STREAM G1 AS SELECT * FROM OURS;", count, ("G1",))


def theirs(count: Mapping[str, int], kind: str = "PERSISTENT") -> QueryInfo:
    """Return a query that has nothing to do with groups, though its text quotes the map's name."""
    text = "CREATE STREAM X AS SELECT * FROM Y WHERE A = ' FROM ASSET_TO_UNS_MAP';"
    return query("CSAS_X", text, count, ("X",), kind)


LOST = {"RUNNING": 1, "UNRESPONSIVE": 1}


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ([], ""),
        ([copy(RUNNING), raw(RUNNING), further(RUNNING), ours(RUNNING), theirs(RUNNING)], ""),
        ([copy({"RUNNING": 1}), ours({"RUNNING": 1})], ""),
        ([copy({"RUNNING": 2, "UNRESPONSIVE": 0})], ""),
        ([copy(LOST)], "query CTAS_MAP is UNRESPONSIVE on 1 of 2 servers"),
        ([copy(RUNNING), raw(LOST)], "query INSERT_1 is UNRESPONSIVE on 1 of 2 servers"),
        ([copy(RUNNING), raw(RUNNING), further(LOST)], "query CST_1 is UNRESPONSIVE on 1 of 2 servers"),
        ([copy(RUNNING), ours(LOST)], "query CSAS_G1 is UNRESPONSIVE on 1 of 2 servers"),
        ([copy(RUNNING), theirs(LOST)], ""),
        ([copy(RUNNING), theirs(LOST, "PUSH")], ""),
        ([query("push", "SELECT * FROM ASSET_TO_UNS_MAP EMIT CHANGES;", LOST, ("ASSET_TO_UNS_MAP",), "PUSH")], ""),
        ([copy({"ERROR": 1, "RUNNING": 1})], "query CTAS_MAP is ERROR on 1 of 2 servers"),
        ([ours({"ERROR": 2})], "query CSAS_G1 is ERROR on 2 of 2 servers"),
        ([ours({"PAUSED": 2})], ""),
        ([ours({"PAUSED": 1, "RUNNING": 1})], "query CSAS_G1 is PAUSED on 1 of 2 servers"),
        ([copy({"PAUSED": 2})], "query CTAS_MAP is PAUSED on 2 of 2 servers"),
        ([copy({})], "query CTAS_MAP is on no server"),
        ([copy({"SOMETHING_NEW": 2})], "query CTAS_MAP is SOMETHING_NEW on 2 of 2 servers"),
        ([copy(LOST), ours(LOST)], "query CSAS_G1 is UNRESPONSIVE on 1 of 2 servers (and 1 more)"),
    ],
)
def test_what_runs_not_everywhere(listed: list[QueryInfo], expected: str) -> None:
    """Queries of ours, of the map and of all that it is made from must run on every server; others need not."""
    assert find_not_running(listed, MAP, lambda one: "FROM OURS" in one.text) == expected


@pytest.mark.parametrize(
    ("listed", "expected"),
    [([], 0), ([copy(RUNNING)], 2), ([copy(LOST), ours({"RUNNING": 1})], 2), ([theirs({"RUNNING": 3}, "PUSH")], 0)],
)
def test_how_many_servers_there_are(listed: list[QueryInfo], expected: int) -> None:
    """As many as the query that runs on the most of them; transient queries run on one."""
    assert count_servers(listed) == expected
