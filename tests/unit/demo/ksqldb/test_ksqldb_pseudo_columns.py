"""ROWTIME, ROWPARTITION and ROWOFFSET: the place of every record in its topic."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.unit.demo.ksqldb.running import TOPOLOGY, Running, event, group_stream, mapping, running

EARLIEST = {"auto.offset.reset": "earliest"}
WELD = group_stream("asset_stream_Weld", "Weld")
PLACED = "SELECT ROWTIME, ROWPARTITION, ROWOFFSET, `value` FROM `asset_stream_Weld`"


@pytest.fixture
def server() -> Iterator[Running]:
    """A server with the shared topology, the stream of one group, and an asset of it."""
    with running() as found:
        found.setup(*TOPOLOGY, WELD, mapping("A1", "Weld"))
        yield found


class Rows:
    """The lines of an open push query."""

    def __init__(self, response: Any) -> None:
        """Read the header."""
        self._response = response
        self.schema = self._line()["header"]["schema"]

    def _line(self) -> Any:
        return json.loads(self._response.readline().decode().rstrip().rstrip(",").removeprefix("["))

    def next(self) -> list[Any]:
        """The columns of the next row."""
        return list(self._line()["row"]["columns"])


@contextmanager
def _pushed(server: Running, sql: str, properties: dict[str, Any] | None = None) -> Iterator[Rows]:
    with server.push(sql, properties) as response:
        yield Rows(response)


def _refusal(server: Running, sql: str) -> str:
    answer = server.ksql(sql) if sql.startswith("CREATE") else server.pull(sql)
    assert answer.status == 400, answer.body
    return str(answer.json["message"])


def test_every_record_has_a_time_a_partition_and_the_next_offset(server: Running) -> None:
    """A query's records have the time of the event that they come from, and offsets of their own topic."""
    before = int(time.time() * 1000)
    server.setup(event("A1", "old"), event("A9", "of no group"))
    with _pushed(server, f"{PLACED} EMIT CHANGES;", EARLIEST) as rows:
        assert rows.schema == "`ROWTIME` BIGINT, `ROWPARTITION` INTEGER, `ROWOFFSET` BIGINT, `value` STRING"
        first = rows.next()
        server.setup(event("A1", "new"))
        second = rows.next()
    assert [first[1:], second[1:]] == [[0, 0, "old"], [0, 1, "new"]]
    assert before <= first[0] <= second[0] <= int(time.time() * 1000)
    with _pushed(server, "SELECT ROWTIME, ROWOFFSET FROM enriched_assets_stream EMIT CHANGES;", EARLIEST) as rows:
        source = [rows.next(), rows.next(), rows.next()]
    assert [offset for _, offset in source] == [0, 1, 2]
    assert [source[0][0], source[2][0]] == [first[0], second[0]]


def test_a_condition_may_name_them(server: Running) -> None:
    """A reader goes on after the record that it has."""
    server.setup(*(event("A1", str(number)) for number in range(5)))
    sql = f"{PLACED} WHERE ROWPARTITION = 0 AND ROWOFFSET > 2 EMIT CHANGES;"
    with _pushed(server, sql, EARLIEST) as rows:
        assert [rows.next()[2:], rows.next()[2:]] == [[3, "3"], [4, "4"]]


def test_a_star_leaves_them_out(server: Running) -> None:
    """They have to be named."""
    with _pushed(server, "SELECT * FROM `asset_stream_Weld` EMIT CHANGES;") as rows:
        assert "ROW" not in rows.schema


def test_a_topic_made_again_begins_at_0(server: Running) -> None:
    """A reader of the old topic can tell that the offsets that it knows are of no use."""
    server.setup(event("A1", "1"), event("A1", "2"))
    server.setup("DROP STREAM `asset_stream_Weld` DELETE TOPIC;", WELD.replace("EMIT", "AND `value` = 'x' EMIT"))
    server.setup(event("A1", "x"))
    with _pushed(server, f"{PLACED} EMIT CHANGES;", EARLIEST) as rows:
        assert rows.next()[1:] == [0, 0, "x"]


def test_a_stream_that_gets_a_column_keeps_its_readers_right(server: Running) -> None:
    """CREATE OR REPLACE moves no pseudo column under an open query."""
    with _pushed(server, f"{PLACED} EMIT CHANGES;") as rows:
        wider = WELD.replace("CREATE", "CREATE OR REPLACE").replace("`timestamp` FROM", "`timestamp`, uns_group FROM")
        server.setup(wider, event("A1", "wide"))
        assert rows.next()[1:] == [0, 0, "wide"]


def test_a_join_tells_the_places_of_its_two_sources_apart(server: Running) -> None:
    """In a join they need the alias of their source."""
    join = "FROM enriched_assets_stream s JOIN asset_to_uns_map h ON s.asset_uuid = h.asset_uuid EMIT CHANGES;"
    with _pushed(server, f"SELECT s.asset_uuid AS a, s.ROWOFFSET, h.ROWOFFSET {join}") as rows:
        server.setup(mapping("A2", "Weld"), event("A2", "1"))
        assert rows.schema == "`A` STRING, `S_ROWOFFSET` BIGINT, `H_ROWOFFSET` BIGINT"
        assert rows.next() == ["A2", 0, 1]
    assert "Column 'ROWOFFSET' is ambiguous. Could be H.ROWOFFSET or S.ROWOFFSET." in _refusal(
        server, f"SELECT s.asset_uuid, ROWOFFSET {join}"
    )


def test_a_derived_stream_may_keep_them_under_another_name(server: Running) -> None:
    """What a query writes needs an alias: the new topic has places of its own."""
    server.setup(
        "CREATE STREAM placed AS SELECT asset_key, ROWOFFSET AS came_from FROM `asset_stream_Weld` EMIT CHANGES;"
    )
    server.setup(event("A1", "1"), event("A1", "2"))
    assert server.pull("SELECT came_from, ROWTIME - ROWTIME FROM placed;").rows == [[0, 0], [1, 0]]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT ROWOFFSET + ROWPARTITION FROM asset_to_uns_map;", "in SELECT clauses: `ROWOFFSET`, `ROWPARTITION`\n"),
        ("SELECT * FROM `asset_stream_Weld` WHERE ROWOFFSET > 1;", "in WHERE clauses: `ROWOFFSET`\n"),
        (
            "CREATE STREAM placed AS SELECT asset_key, ROWOFFSET FROM `asset_stream_Weld` EMIT CHANGES;",
            "Reserved column name in select: `ROWOFFSET`. Please remove or alias the column.",
        ),
        (
            "SELECT `value` AS rowtime FROM `asset_stream_Weld` EMIT CHANGES;",
            "`ROWTIME` is a reserved column name. You cannot use it as an alias for a column.",
        ),
        (
            "CREATE STREAM own (rowpartition INT) WITH (KAFKA_TOPIC='own', VALUE_FORMAT='JSON', PARTITIONS=1);",
            "'ROWPARTITION' is a reserved column name. You cannot use it as a name for a column.",
        ),
    ],
)
def test_what_ksqldb_refuses(server: Running, sql: str, message: str) -> None:
    """Pull queries know no partitions and offsets, and nobody may take the names."""
    assert message in _refusal(server, sql)
