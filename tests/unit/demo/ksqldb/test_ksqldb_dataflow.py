"""Records on their way: insert, join, filter, aggregate, push."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from demo.ksqldb.server import Config
from tests.unit.demo.ksqldb.running import TOPOLOGY, Running, event, group_stream, mapping, running

EARLIEST = {"auto.offset.reset": "earliest"}


@pytest.fixture
def server() -> Iterator[Running]:
    """A server with the shared topology."""
    with running() as found:
        found.setup(*TOPOLOGY)
        yield found


def _line(stream: Any) -> Any:
    return json.loads(stream.readline().decode().rstrip().rstrip(",").removeprefix("["))


def _next_row(stream: Any) -> list[Any]:
    return list(_line(stream)["row"]["columns"])


def _groups(server: Running) -> list[list[Any]]:
    return server.pull("SELECT * FROM ofa_groups;").rows


def test_an_event_reaches_the_stream_of_its_group_alone(server: Running) -> None:
    """The pre-join carries the group, each filter stream takes what is its own."""
    server.setup(group_stream("asset_stream_Weld", "Weld"), group_stream("asset_stream_Paint", "Paint"))
    server.setup(mapping("A1", "Weld"), mapping("A2", "Paint"), event("A1", "1"), event("A2", "2"), event("A9", "3"))
    for name, value in (("Weld", "1"), ("Paint", "2")):
        answer = server.ask(
            "POST",
            "/query",
            {"ksql": f"SELECT `value` FROM `asset_stream_{name}`;"},
            {"Accept": "application/vnd.ksql.v1+json"},
        )
        assert answer.rows == [[value]]


def test_an_open_stream_receives_an_event(server: Running) -> None:
    """A push query with the default offset begins with what comes next."""
    server.setup(group_stream("asset_stream_Weld", "Weld"), mapping("A1", "Weld"), event("A1", "before"))
    with server.push("SELECT `id`, `value` FROM `asset_stream_Weld` EMIT CHANGES;") as stream:
        assert _line(stream)["header"]["schema"] == "`id` STRING, `value` STRING"
        server.setup(event("A1", "after"))
        assert _next_row(stream) == ["temp", "after"]


def test_earliest_begins_with_what_the_topic_holds(server: Running) -> None:
    """A push query on a stream replays the topic when asked to."""
    server.setup(mapping("A1", "Weld"), event("A1", "1"), event("A1", "2"))
    with server.push("SELECT `value` FROM ofa_assets_with_uns EMIT CHANGES;", EARLIEST) as stream:
        _line(stream)
        assert [_next_row(stream), _next_row(stream)] == [["1"], ["2"]]


def test_a_push_query_on_a_table_shows_its_content_then_changes_and_deletions(server: Running) -> None:
    """The whole table comes first whatever the offset says; a deleted row is a tombstone with the key alone."""
    server.setup(mapping("A1", "Weld"))
    with server.push("SELECT asset_uuid, uns_levels['workcenter'] AS g FROM asset_to_uns_map EMIT CHANGES;") as stream:
        _line(stream)
        assert _next_row(stream) == ["A1", "Weld"]
        server.setup(mapping("A1", "Paint"))
        assert _next_row(stream) == ["A1", "Paint"]
        deleted = server.ask("POST", "/dev/tombstone", {"table": "asset_to_uns_map_raw", "key": "A1"})
        assert deleted.status == 200
        assert _line(stream) == {"row": {"columns": ["A1", None], "tombstone": True}}
    assert server.pull("SELECT * FROM asset_to_uns_map;").rows == []


def test_counts_follow_moves_and_an_empty_group_stays_at_zero(server: Running) -> None:
    """COUNT over the map is decremented by a move, a deletion and a mapping without the level."""
    server.setup(mapping("A1", "Weld"), mapping("A2", "Weld"), mapping("A3", "Paint"))
    assert _groups(server) == [["Paint", 1], ["Weld", 2]]
    server.setup(mapping("A1", "Paint"), mapping("A3", None))
    server.ask("POST", "/dev/tombstone", {"table": "asset_to_uns_map_raw", "key": "A2"})
    assert _groups(server) == [["Paint", 1], ["Weld", 0]]


def test_a_limit_ends_a_push_query(server: Running) -> None:
    """LIMIT closes the stream with its message and leaves nothing open."""
    server.setup(mapping("A1", "Weld"))
    answer = server.pull("SELECT asset_uuid FROM asset_to_uns_map EMIT CHANGES LIMIT 1;")
    assert answer.json[-1] == {"finalMessage": "Limit Reached"}
    assert server.inside(lambda: dict(server.server.pushes)) == {}


def test_latest_by_offset_keeps_the_newest_value_of_each_key(server: Running) -> None:
    """The table of the latest values of all data items, as the state API reads it."""
    server.setup(
        "CREATE TABLE assets AS SELECT key, LATEST_BY_OFFSET(value) AS value FROM enriched_assets_stream GROUP BY key;",
        event("A1", "1"),
        event("A1", "2"),
        event("A2", "3"),
    )
    assert server.pull("SELECT * FROM assets;").rows == [["A1|temp", "2"], ["A2|temp", "3"]]
    assert server.pull("SELECT value FROM assets WHERE key = 'A1|temp';").rows == [["2"]]


def test_a_paused_query_catches_up_when_it_is_resumed(server: Running) -> None:
    """Nothing is lost by a pause, and nothing comes twice."""
    server.setup(group_stream("asset_stream_Weld", "Weld"), mapping("A1", "Weld"))
    query = server.ksql("LIST QUERIES;").json[0]["queries"][-1]["id"]
    server.setup(f"PAUSE {query};", event("A1", "1"))
    assert server.pull("SELECT `value` FROM `asset_stream_Weld`;").rows == []
    server.setup(f"RESUME {query};", event("A1", "2"))
    assert server.pull("SELECT `value` FROM `asset_stream_Weld`;").rows == [["1"], ["2"]]


def test_a_replaced_filter_goes_on_where_the_old_one_stopped(server: Running) -> None:
    """CREATE OR REPLACE keeps the query's id and offsets: events before it are not read again."""
    create = group_stream("asset_stream_X", "Weld")
    server.setup(create, mapping("A1", "Weld"), mapping("A2", "Paint"), event("A2", "old"), event("A1", "1"))
    server.setup(create.replace("CREATE", "CREATE OR REPLACE").replace("'Weld'", "'Paint'"), event("A2", "2"))
    assert server.pull("SELECT `value` FROM `asset_stream_X`;").rows == [["1"], ["2"]]


def test_a_terminated_query_leaves_a_stream_without_a_writer(server: Running) -> None:
    """After TERMINATE the stream is still described, with no writing query: this is how to see it."""
    server.setup(group_stream("asset_stream_Weld", "Weld"))
    query = server.ksql("LIST QUERIES;").json[0]["queries"][-1]["id"]
    server.setup(f"TERMINATE {query};")
    described = server.ksql("DESCRIBE `asset_stream_Weld`;").json[0]["sourceDescription"]
    assert described["writeQueries"] == []


def test_a_refused_drop_with_delete_topic_has_deleted_the_topic(server: Running) -> None:
    """As on the real server: the statement is refused because of its readers, the topic is gone all the same."""
    server.setup(group_stream("asset_stream_Weld", "Weld"))
    answer = server.ksql("DROP STREAM ofa_assets_with_uns DELETE TOPIC;")
    assert (answer.status, answer.json["error_code"]) == (400, 40001)
    topics = [each["name"] for each in server.ksql("LIST TOPICS;").json[0]["topics"]]
    assert "ofa_assets_with_uns" not in topics
    assert server.ksql(group_stream("asset_stream_Paint", "Paint")).status == 500


def test_a_record_that_does_not_fit_is_skipped(server: Running) -> None:
    """A map that is no object, a null key: the query goes on, as ksqlDB does."""
    server.setup(group_stream("asset_stream_Weld", "Weld"), mapping("A1", "Weld"))
    bad = {"topic": "asset_to_uns_map_topic", "key": "A2", "value": {"UNS_LEVELS": "text"}}
    assert server.ask("POST", "/dev/produce", bad).status == 200
    numeric = {"topic": "enriched_assets_stream_topic", "key": "k", "value": {"asset_uuid": "A1", "VALUE": 5}}
    assert server.ask("POST", "/dev/produce", numeric).status == 200
    assert server.pull("SELECT asset_uuid FROM asset_to_uns_map;").rows == [["A1"]]
    assert server.pull("SELECT `value` FROM `asset_stream_Weld`;").rows == [["5"]]


def test_twenty_thousand_assets_are_read_completely(server: Running) -> None:
    """A full scan of a large map is complete and ordered by key."""

    def fill() -> None:
        for number in range(20_000):
            value = {"UNS_ID": "x", "UNS_LEVELS": {"workcenter": f"G{number % 50}"}}
            server.server.produce("asset_to_uns_map_topic", f"A{number:05d}", value)

    server.inside(fill)
    rows = server.pull("SELECT asset_uuid, uns_levels['workcenter'] AS g FROM asset_to_uns_map;").rows
    assert [rows[0], rows[-1], len(rows)] == [["A00000", "G0"], ["A19999", "G49"], 20_000]
    assert {count for _, count in _groups(server)} == {400}


def test_a_client_that_leaves_takes_its_push_query_with_it(server: Running) -> None:
    """A closed connection removes the query from LIST QUERIES."""
    with server.push("SELECT * FROM asset_to_uns_map EMIT CHANGES;") as stream:
        _line(stream)
        listed = server.ksql("LIST QUERIES;").json[0]["queries"]
        assert [each["queryType"] for each in listed].count("PUSH") == 1
    for _ in range(200):
        if not any(each["queryType"] == "PUSH" for each in server.ksql("LIST QUERIES;").json[0]["queries"]):
            return
    pytest.fail("the push query is still listed")


def test_a_row_that_an_expression_cannot_work_on_is_skipped(server: Running) -> None:
    """A division by zero in one query costs that row there, and nothing anywhere else."""
    server.setup(
        "CREATE STREAM numbers (k VARCHAR KEY, n INT) WITH (KAFKA_TOPIC='numbers', VALUE_FORMAT='JSON', PARTITIONS=1);",
        "CREATE STREAM inverse AS SELECT k, 100 / n AS i FROM numbers;",
        "INSERT INTO numbers (k, n) VALUES ('a', 0);",
        "INSERT INTO numbers (k, n) VALUES ('b', 4);",
    )
    assert server.pull("SELECT k, i FROM inverse;").rows == [["b", 25]]
    failed = server.pull("SELECT 100 / n AS i FROM numbers;")
    assert (failed.status, failed.json["error_code"]) == (500, 50000)


def test_the_query_limit_is_told_and_kept() -> None:
    """LIST PROPERTIES gives the limit; the query beyond it is refused and its topic is not left behind."""
    with running(Config(host="127.0.0.1", port=0, query_limit=4)) as server:
        server.setup(*TOPOLOGY, group_stream("s1", "Weld"))
        listed = server.ksql("LIST PROPERTIES;").json[0]["properties"]
        assert [each["value"] for each in listed if each["name"] == "ksql.query.persistent.active.limit"] == ["4"]
        assert server.ksql(group_stream("s2", "Paint")).json["error_code"] == 40000
        assert "s2" not in [each["name"] for each in server.ksql("LIST TOPICS;").json[0]["topics"]]


JOIN = (
    "CREATE STREAM joined WITH (KAFKA_TOPIC='joined', VALUE_FORMAT='JSON') AS SELECT s.asset_uuid AS k, s.value AS v "
    "FROM enriched_assets_stream s JOIN asset_to_uns_map h ON s.asset_uuid = h.asset_uuid EMIT CHANGES;"
)


@pytest.mark.parametrize("spelling", ["auto.offset.reset", "ksql.streams.auto.offset.reset"])
@pytest.mark.parametrize("where", ["request", "server"])
@pytest.mark.parametrize(
    ("offset", "expected"), [("latest", ["remapped"]), ("", ["2", "remapped"]), ("earliest", ["1", "2", "remapped"])]
)
def test_an_offset_counts_for_both_sides_of_a_join(where: str, spelling: str, offset: str, expected: list[str]) -> None:
    """As measured: an explicit latest empties the table too; none begins now, with the whole table."""
    config = Config(host="127.0.0.1", port=0, offset_reset=offset if where == "server" else "")
    with running(config) as server:
        server.setup(*TOPOLOGY, mapping("A1", "Weld"), event("A1", "1"))
        asked = {spelling: offset} if offset and where == "request" else {}
        assert server.ksql(JOIN, asked).status == 200
        server.setup(event("A1", "2"), mapping("A1", "Weld"), event("A1", "remapped"))
        assert [record.value["V"] for record in server.server.catalog.topics["joined"].records] == expected
        query = next(name for name in server.server.catalog.queries if "JOINED" in name)
        server.setup(
            f"PAUSE {query};", event("A1", "later"), f"RESUME {query};", f"TERMINATE {query};", mapping("A1", "X")
        )
        assert len(server.server.catalog.topics["joined"].records) == len(expected) + 1


@pytest.mark.parametrize("offset", ["latest", "earliest"])
def test_an_offset_for_the_consumer_alone_counts_for_nothing(offset: str) -> None:
    """As measured: the join begins now, with the whole table, as where none is given."""
    with running() as server:
        server.setup(*TOPOLOGY, mapping("A1", "Weld"), event("A1", "1"))
        assert server.ksql(JOIN, {"ksql.streams.consumer.auto.offset.reset": offset}).status == 200
        server.setup(event("A1", "2"))
        assert [record.value["V"] for record in server.server.catalog.topics["joined"].records] == ["2"]


def test_a_request_overrules_the_servers_offset() -> None:
    """And the server's own is listed among its properties, where it has one."""
    with running(Config(host="127.0.0.1", port=0, offset_reset="latest")) as server:
        server.setup(*TOPOLOGY, mapping("A1", "Weld"), event("A1", "1"))
        server.ksql(JOIN, EARLIEST)
        assert [record.value["V"] for record in server.server.catalog.topics["joined"].records] == ["1"]
        listed = {one["name"]: one["value"] for one in server.ksql("LIST PROPERTIES;").json[0]["properties"]}
        assert listed["ksql.streams.auto.offset.reset"] == "latest"
    with running() as server:
        assert not [one for one in server.ksql("LIST PROPERTIES;").json[0]["properties"] if "offset" in one["name"]]
