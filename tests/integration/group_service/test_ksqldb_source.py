"""The group service with ``SOURCE=ksqldb``, as a process, on the embedded ksqlDB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.group_service import GroupService, group_service, wait_for
from tests.harness.serving import Served

STREAM = """CREATE STREAM ASSET_STREAM_WELD (ASSET_KEY VARCHAR KEY, `asset_uuid` VARCHAR, `id` VARCHAR, `value` VARCHAR)
    WITH (KAFKA_TOPIC='asset_stream_Weld', VALUE_FORMAT='JSON', PARTITIONS=1);"""


class Line:
    """A stream of a ksqlDB, and what was produced to it."""

    def __init__(self, ksqldb: Served) -> None:
        """Create the stream."""
        self.ksqldb, self.sent = ksqldb, list[str]()
        ksqldb.sql(STREAM)

    def produce(self, count: int, asset: str = "A") -> None:
        """Write the next records; their values are as ksqlDB writes JSON."""
        for number in range(len(self.sent), len(self.sent) + count):
            value = {"asset_uuid": asset, "id": f"item{number % 2}", "value": f"Größe {number}"}
            body = {"topic": "asset_stream_Weld", "key": asset, "value": value}
            self.ksqldb.http.post("/dev/produce", json=body).raise_for_status()
            self.sent.append(json.dumps(value, ensure_ascii=False, separators=(",", ":")))

    def settings(self, **settings: Any) -> dict[str, Any]:
        """Return the settings of a replica."""
        needed = {"group_name": "Weld", "source": "ksqldb", "kafka_topic": "asset_stream_Weld"}
        return {**needed, "ksqldb_url": self.ksqldb.url, "ksqldb_stream": "ASSET_STREAM_WELD", **settings}


@pytest.fixture
def line() -> Iterator[Line]:
    """A stream with five records."""
    ksqldb = Served()
    made = Line(ksqldb)
    made.produce(5)
    yield made
    ksqldb.stop()


@pytest.fixture
def service(line: Line, tmp_path: Path) -> Iterator[GroupService]:
    """A replica that is ready."""
    with group_service(tmp_path / "log", **line.settings()) as replica:
        yield replica.wait_ready()


def test_events_have_the_record_value_and_its_place(service: GroupService, line: Line) -> None:
    """The value columns as a JSON object; live, by data item, and from the history, which the query has filled."""
    live, item = service.stream("A").wait_live(), service.stream("A", id="item1").wait_live()
    line.produce(2)
    live.wait_values(line.sent[5:])
    item.wait_values(line.sent[5:6])
    assert live.blocks[0].id.startswith("Weld/0/5@")
    resumed = service.stream("A", "Weld/0/2").wait_live()
    assert (resumed.values, resumed.gaps) == (line.sent[3:], [])
    assert service.stream("A", live.blocks[0].id).wait_live().values == line.sent[6:]
    assert service.stream("A", since="1h").wait_live().values == line.sent
    assert not any("has ended" in text for text in service.log.read_text().splitlines())


def test_what_is_not_in_memory_is_told(line: Line, tmp_path: Path) -> None:
    """The memory is all that there is; another group's topic is not read."""
    with group_service(tmp_path / "log", **line.settings(history_bytes="0")) as service:
        service.wait_ready()
        client = service.stream("A", "Weld/0/2").wait_live()
        assert (client.values, client.gaps) == ([], [{"from": "Weld/0/2", "to": "Weld/0/4", "reason": "expired"}])
        moved = service.stream("A", "Paint/0/2@5").wait_live()
        assert [gap["reason"] for gap in moved.gaps] == ["deleted", "expired"]


def test_a_stream_that_is_made_again(service: GroupService, line: Line) -> None:
    """The query notices it by its silence; /ready says so, clients keep their streams and are told."""
    client = service.stream("A").wait_live()
    line.ksqldb.sql("DROP STREAM ASSET_STREAM_WELD DELETE TOPIC;")
    service.wait_issue("ASSET_STREAM_WELD")
    line.sent.clear()
    line.ksqldb.sql(STREAM)
    line.produce(1)
    wait_for(lambda: client.gaps, "the gap is told")
    client.wait_values(line.sent)
    assert [gap["reason"] for gap in client.gaps] == ["recreated"]
    service.wait_ready()
    assert not client.ended
