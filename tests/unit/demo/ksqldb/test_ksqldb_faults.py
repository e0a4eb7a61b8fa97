"""The switches that make the bad days of a real ksqlDB."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator

import pytest

from tests.unit.demo.ksqldb.running import TOPOLOGY, Running, group_stream, mapping, running

MAP = "SELECT asset_uuid, uns_id FROM asset_to_uns_map;"


@pytest.fixture
def server() -> Iterator[Running]:
    """A server with the shared topology and three mapped assets."""
    with running() as found:
        found.setup(*TOPOLOGY, mapping("A1", "Weld"), mapping("A2", "Weld"), mapping("A3", "Paint"))
        yield found


def test_empty_and_partial_pulls_are_complete_answers(server: Running) -> None:
    """Nothing in the answer tells that rows are missing: that is the point of these two."""
    server.faults(empty_pull=True)
    assert server.pull(MAP).rows == []
    server.faults(empty_pull=False, partial_pull=2)
    assert [row[0] for row in server.pull(MAP).rows] == ["A1", "A2"]


def test_a_switch_can_be_limited_to_a_table_and_to_a_number_of_uses(server: Running) -> None:
    """`match` and `times` aim a fault at one request."""
    server.faults(empty_pull={"match": "ofa_groups", "times": 1})
    assert len(server.pull(MAP).rows) == 3
    assert server.pull("SELECT * FROM ofa_groups;").rows == []
    assert len(server.pull("SELECT * FROM ofa_groups;").rows) == 2


@pytest.mark.parametrize(
    ("switch", "ending"),
    [("truncated", '"A3","plant/A3"]}}'), ("header_only", 'STRING"}}')],
)
def test_a_body_can_end_too_early(server: Running, switch: str, ending: str) -> None:
    """The HTTP answer is complete, the JSON in it is not."""
    server.faults(**{switch: True})
    answer = server.pull(MAP)
    assert answer.status == 200
    assert answer.body.endswith(ending)
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(answer.body)


def test_an_error_object_can_follow_good_rows(server: Running) -> None:
    """200, two good rows, then the failure inside the body."""
    server.faults(error_row=2)
    body = server.pull(MAP).json
    assert [list(each) for each in body] == [["header"], ["row"], ["row"], ["errorMessage"]]
    assert body[-1]["errorMessage"]["error_code"] == 50000


def test_a_connection_can_be_reset_in_the_middle(server: Running) -> None:
    """The client sees a broken connection, not a short answer."""
    server.faults(reset=1)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        server.pull(MAP)


def test_a_slow_answer_is_still_whole(server: Running) -> None:
    """Dripping changes the pace, not the content."""
    server.faults(slow_drip=0.001)
    assert len(server.pull(MAP).rows) == 3


def test_rows_can_come_twice_and_under_other_names(server: Running) -> None:
    """Duplicate keys and another schema."""
    server.faults(duplicate_keys=True, wrong_schema=True)
    answer = server.pull(MAP)
    assert len(answer.rows) == 6
    assert "`ASSET_UUID_X`" in answer.json[0]["header"]["schema"]


def test_the_query_list_shrinks_while_streams_stay(server: Running) -> None:
    """A server that shuts down lists fewer queries each time, and all streams to the end."""
    server.faults(shrinking_queries=1)
    counts = [len(server.ksql("LIST QUERIES;").json[0]["queries"]) for _ in range(5)]
    assert counts == [3, 2, 1, 0, 0]
    assert len(server.ksql("LIST STREAMS;").json[0]["streams"]) == 2


def test_not_ready_spares_only_the_liveness_probes(server: Running) -> None:
    """503/50302 for everything but /chc/*."""
    server.faults(not_ready=True)
    assert [server.ask("GET", path).status for path in ("/info", "/healthcheck", "/chc/ready")] == [503, 503, 200]
    assert server.pull(MAP).json["error_code"] == 50302


def test_unauthorized_and_another_identity(server: Running) -> None:
    """401 for every endpoint; /info of another cluster."""
    server.faults(unauthorized={"times": 1})
    assert server.ask("GET", "/info").json["error_code"] == 40100
    server.faults(identity={"kafkaClusterId": "other"})
    info = server.ask("GET", "/info").json["KsqlServerInfo"]
    assert (info["kafkaClusterId"], info["ksqlServiceId"]) == ("other", "default_")


def test_a_fenced_statement_is_not_executed(server: Running) -> None:
    """The loser of two parallel DDL requests: 500, nothing done."""
    server.faults(fenced={"times": 1})
    answer = server.ksql(group_stream("s1", "Weld"))
    assert (answer.status, "has been fenced" in answer.body) == (500, True)
    assert server.ksql("DESCRIBE `s1`;").status == 400


def test_a_statement_that_timed_out_is_executed_later(server: Running) -> None:
    """The client gives up; the stream is there all the same, a little later."""
    server.faults(ddl_timeout={"value": 0.5, "times": 1})
    connection = server.connection(timeout=0.1)
    connection.request("POST", "/ksql", json.dumps({"ksql": group_stream("s1", "Weld")}))
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()
    twin = server.ksql(group_stream("s1", "Weld"))
    assert "Another command with the same id" in twin.json["message"]
    _wait_for_stream(server, "s1")


def _wait_for_stream(server: Running, name: str) -> None:
    deadline = time.monotonic() + 10
    while server.ksql(f"DESCRIBE `{name}`;").status != 200:
        assert time.monotonic() < deadline, f"{name} never came"
        time.sleep(0.02)


def test_a_queued_statement_runs_when_the_switch_is_turned_off(server: Running) -> None:
    """QUEUED for ever, until the restart that this stands for."""
    server.faults(queued=True)
    command = server.ksql(group_stream("s1", "Weld")).json[0]
    assert command["commandStatus"]["status"] == "QUEUED"
    assert server.ask("GET", "/status/stream/%60s1%60/create").json["status"] == "QUEUED"
    assert server.ksql("DESCRIBE `s1`;").status == 400
    server.faults(queued=False)
    assert server.ask("GET", "/status/stream/%60s1%60/create").json["status"] == "SUCCESS"


def test_an_executing_statement_ends_by_itself(server: Running) -> None:
    """EXECUTING at first, SUCCESS after the given time."""
    server.faults(executing={"value": 0.2, "times": 1})
    command = server.ksql(group_stream("s1", "Weld")).json[0]
    assert command["commandStatus"]["status"] == "EXECUTING"
    _wait_for_stream(server, "s1")


def test_a_dead_command_runner_shows_in_health_and_info(server: Running) -> None:
    """200 with isHealthy false, ERROR, and DDL that cannot be written; reads go on."""
    server.faults(dead_runner=0)
    health = server.ask("GET", "/healthcheck").json
    assert (health["isHealthy"], health["details"]["commandRunner"]["isHealthy"]) == (False, False)
    assert server.ask("GET", "/info").json["KsqlServerInfo"]["serverStatus"] == "ERROR"
    assert "Could not write the statement" in server.ksql(group_stream("s1", "Weld")).json["message"]
    assert len(server.pull(MAP).rows) == 3


def test_a_groups_table_can_lose_a_row(server: Running) -> None:
    """The aggregate lies, the map does not."""
    server.faults(lost_row={"key": "Paint"})
    assert server.pull("SELECT * FROM ofa_groups;").rows == [["Weld", 2]]
    assert len(server.pull(MAP).rows) == 3


def test_an_unknown_switch_changes_nothing(server: Running) -> None:
    """A typing error is told, not swallowed."""
    answer = server.ask("POST", "/dev/faults", {"empty_pul": True, "fenced": True})
    assert answer.status == 400
    assert server.ask("GET", "/dev/faults").json["active"] == {}


def test_requests_and_writes_are_counted(server: Running) -> None:
    """So that a test can show that nothing was written."""
    server.ask("DELETE", "/dev/requests")
    server.ksql("LIST STREAMS;")
    server.pull(MAP)
    assert server.ask("GET", "/dev/requests").json["writes"] == 0
    server.setup(group_stream("s1", "Weld"), mapping("A4", "Weld"), "DROP STREAM `s1`;")
    counted = server.ask("GET", "/dev/requests").json
    assert counted["writes"] == 3
    assert counted["statements"] == {
        "LIST STREAMS": 1,
        "SELECT": 1,
        "CREATE STREAM": 1,
        "INSERT INTO": 1,
        "DROP STREAM": 1,
    }


def test_one_of_two_servers_answers_with_its_part(server: Running) -> None:
    """The same keys each time, complete and well-formed; LIST QUERIES has the sign, push queries have everything."""
    server.setup(*(mapping(f"B{number}", "Weld") for number in range(30)))
    whole = [row[0] for row in server.pull(MAP).rows]
    server.faults(lost_server=True)
    part = [row[0] for row in server.pull(MAP).rows]
    assert 10 < len(part) < len(whole)
    assert set(part) < set(whole)
    assert [row[0] for row in server.pull(MAP).rows] == part
    counts = [query["statusCount"] for query in server.ksql("LIST QUERIES;").json[0]["queries"]]
    assert counts == [{"RUNNING": 1, "UNRESPONSIVE": 1}] * 3
    server.faults(lost_server={"share": 0, "status": {"RUNNING": 1}})
    assert server.pull(MAP).rows == []
    pushed = server.pull(f"SELECT asset_uuid FROM asset_to_uns_map EMIT CHANGES LIMIT {len(whole)};")
    assert sorted(row[0] for row in pushed.rows) == sorted(whole)
    server.faults(lost_server=False)
    assert server.ksql("LIST QUERIES;").json[0]["queries"][0]["statusCount"] == {"RUNNING": 1}


def test_the_statement_that_describe_shows_is_not_taken_back(server: Running) -> None:
    """Measured: it has a CLEANUP_POLICY, which no statement may name."""
    copy = "CREATE STREAM c WITH (KAFKA_TOPIC='c', VALUE_FORMAT='JSON') AS SELECT * FROM enriched_assets_stream;"
    assert server.ksql(copy).status == 200
    shown = server.ksql("DESCRIBE c;").json[0]["sourceDescription"]["statement"]
    assert server.ksql("DROP STREAM c;").status == 200
    refused = server.ksql(shown)
    assert (refused.status, refused.json["error_code"]) == (400, 40000)
    assert "CLEANUP_POLICY" in refused.json["message"]


def test_a_query_that_has_read_nothing_is_not_listed_as_reading(server: Running) -> None:
    """Measured: its group has committed nothing, so its summary has no topic, wherever the query began."""
    server.ksql("INSERT INTO enriched_assets_stream (key, asset_uuid, id, value) VALUES ('A1', 'A1', 't', '5');")
    copy = "CREATE STREAM c WITH (KAFKA_TOPIC='c', VALUE_FORMAT='JSON') AS SELECT * FROM enriched_assets_stream;"
    assert server.ksql(copy, {"auto.offset.reset": "latest"}).status == 200

    def summaries() -> list[int]:
        found = server.ksql("DESCRIBE c EXTENDED;").json[0]["sourceDescription"]["queryOffsetSummaries"]
        return [topic["offsets"][0]["consumerOffset"] for one in found for topic in one["topicSummaries"]]

    assert summaries() == []
    server.ksql("INSERT INTO enriched_assets_stream (key, asset_uuid, id, value) VALUES ('A1', 'A1', 't', '6');")
    assert summaries() == [2]


@pytest.mark.parametrize(("how", "read"), [("drops", 3), ("stuck", 1)])
def test_a_query_can_run_and_write_nothing(server: Running, how: str, read: int) -> None:
    """It is RUNNING; what it has read shows in DESCRIBE ... EXTENDED; one that was stuck catches up afterwards."""
    server.setup(group_stream("asset_stream_Weld", "Weld"))

    def send() -> None:
        server.ksql("INSERT INTO enriched_assets_stream (key, asset_uuid, id, value) VALUES ('A1', 'A1', 't', '5');")

    def described() -> tuple[int, int, int]:
        found = server.ksql("DESCRIBE `asset_stream_Weld` EXTENDED;").json[0]["sourceDescription"]
        (summary,) = found["queryOffsetSummaries"]
        (topic,) = [one for one in summary["topicSummaries"] if one["kafkaTopic"] == "ofa_assets_with_uns"]
        (offsets,) = topic["offsets"]
        (total,) = [one["value"] for one in found["clusterStatistics"] if one["name"] == "total-messages"]
        return offsets["logEndOffset"], offsets["consumerOffset"], int(total)

    send()
    assert described() == (1, 1, 1)
    server.faults(silent_query={"value": how, "match": "'asset_stream_Weld'"})
    send()
    send()
    assert described() == (3, read, 1)
    (state,) = {query["state"] for query in server.ksql("LIST QUERIES;").json[0]["queries"]}
    assert state == "RUNNING"
    server.faults(silent_query=False)
    send()
    assert described() == (4, 4, 2 if how == "drops" else 4)
