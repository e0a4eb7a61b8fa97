"""The client over a real socket against a server that gives the recorded answers of a real ksqlDB."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from openfactory_common.errors import KsqlBadStatement, KsqlNotReady
from openfactory_common.ksqldb.wire import Column
from reconciler.ksqldb.client import KsqlClient
from reconciler.ksqldb.transport import Timeouts
from tests.integration.ksqldb.bodies import listed
from tests.integration.ksqldb.corpus import Case, corpus_path, read_cases
from tests.integration.ksqldb.server import Manner, Reply, Request, in_turn, serve

if not corpus_path().exists() and os.environ.get("CI") != "true":
    pytest.skip("no recorded traffic; KSQLDB_CORPUS names the file", allow_module_level=True)

CASES = {case.name: case for case in read_cases(corpus_path())}
REPLAYED = (
    "info",
    "healthcheck",
    "list-topics",
    "topology-list-streams",
    "ksql-ctype-text",
    "topology-list-queries",
    "topology-describe",
    "describe-missing-case-hint",
    "pull-groups-query",
    "pull-key-missing-query",
)
GROUPS = (Column("UNS_GROUP", "STRING", key=True), Column("MEMBERS", "BIGINT"))


def reply_of(case: Case) -> Reply:
    """Return a recorded answer as it was sent."""
    manner = Manner.CHUNKED if "rows" in case.path or case.path.startswith("/query") else Manner.WHOLE
    return Reply(case.body, case.status or 500, case.content_type, manner)


def replay(request: Request) -> Reply:
    """Answer with the recorded case of the same path and statement."""
    sent = json.loads(request.body) if request.body else {}
    sql = " ".join(str(sent.get("ksql") or "").replace("`", "").split())
    for name in REPLAYED:
        case = CASES.get(name)
        if case and case.path == request.path and case.sql.replace("`", "") == sql:
            return reply_of(case)
    return Reply(status=404, content_type="text/html", body=b"<html>")


@pytest.fixture
def client() -> Iterator[KsqlClient]:
    """A client of the replaying server."""
    with serve(replay) as site:
        speaker = KsqlClient(site.url, Timeouts(connect=1.0, read=5.0))
        yield speaker
        speaker.close()


def test_identity_and_health(client: KsqlClient) -> None:
    """Who answers, and that it is well."""
    assert client.info().ksql_service_id == "default_"
    assert client.health().ready


def test_lists(client: KsqlClient) -> None:
    """Streams, tables, queries and topics of the topology that was run."""
    assert {one.name for one in client.streams()} == {
        "OFA_ASSETS_WITH_UNS",
        "ENRICHED_ASSETS_STREAM",
        "asset_stream_Weld",
    }
    assert "ASSET_TO_UNS_MAP" in {one.name for one in client.tables()}
    assert {sink for query in client.queries() for sink in query.sinks} >= {"OFA_GROUPS", "asset_stream_Weld"}
    assert all(query.status_count == {"RUNNING": 1} for query in client.queries())
    assert "enriched_assets_stream_topic" in client.topics()


def test_describe(client: KsqlClient) -> None:
    """A stream's definition and its writer; what does not exist is None, or an error with ksqlDB's code."""
    found = client.describe("asset_stream_Weld")
    assert (found.kind, found.topic) == ("STREAM", "asset_stream_Weld")
    assert [query.id for query in found.write_queries] == ["CSAS_ASSET_STREAM_WELD_9"]
    assert client.describe_or_none("asset_stream_Weld") == found
    missing = CASES["describe-missing-case-hint"]
    with serve(in_turn(reply_of(missing))) as site:
        other = KsqlClient(site.url)
        assert other.describe_or_none("ASSET_STREAM_WELD") is None
        with pytest.raises(KsqlBadStatement) as caught:
            other.describe("ASSET_STREAM_WELD")
        assert caught.value.code == 40001
        assert other.failures == 0
        other.close()


def test_pull(client: KsqlClient) -> None:
    """Rows with the types that the header says; an empty answer of a complete body is no row."""
    rows = client.pull("SELECT * FROM ofa_groups;", GROUPS)
    assert rows == [("O'Brien", 1), ("Paint", 1), ("Weld", 3)]
    columns = (
        Column("ASSET_UUID", "STRING", key=True),
        Column("UNS_ID", "STRING"),
        Column("UNS_LEVELS", "MAP<STRING, STRING>"),
        Column("UPDATED_AT", "TIMESTAMP"),
    )
    assert client.pull("SELECT * FROM asset_to_uns_map WHERE asset_uuid='ZZ';", columns) == []


@pytest.mark.parametrize("name", ["pull-right-after-ctas", "restart-100-query-stream-400-1", "restart-10-info-503-3"])
def test_a_server_that_restarts_is_not_ready(name: str) -> None:
    """The recorded answers of a start, a restore and a stop are told from bad statements."""
    with serve(in_turn(reply_of(CASES[name]))) as site:
        speaker = KsqlClient(site.url)
        with pytest.raises(KsqlNotReady):
            speaker.pull("SELECT * FROM ofa_groups;", GROUPS)
        speaker.close()


def test_the_limit_of_queries_is_read() -> None:
    """LIST PROPERTIES names it; a server that does not say has none that we know of."""
    line = {"name": "ksql.query.persistent.active.limit", "scope": "KSQL", "value": "40", "editable": False}
    with serve(in_turn(Reply(listed("properties", [line])), Reply(listed("properties", [])))) as site:
        speaker = KsqlClient(site.url)
        assert [speaker.query_limit(), speaker.query_limit()] == [40, None]
        speaker.close()


def test_only_an_offset_that_counts_is_the_servers() -> None:
    """As 7.7.0 lists it: one for `consumer.` alone is listed too, and joins have their events all the same."""
    consumer = {"name": "ksql.streams.consumer.auto.offset.reset", "scope": "KSQL", "value": "latest"}
    own = {"name": "ksql.streams.auto.offset.reset", "scope": "KSQL", "value": "earliest"}
    lists = [[consumer], [consumer, own], []]
    with serve(in_turn(*(Reply(listed("properties", lines)) for lines in lists))) as site:
        speaker = KsqlClient(site.url)
        assert [speaker.offset_reset() for _ in lists] == ["", "earliest", ""]
        speaker.close()
