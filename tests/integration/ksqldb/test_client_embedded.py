"""The client and the SQL of our streams against the embedded server, as a process of its own with its own parser."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openfactory_common.errors import KsqlBadStatement, KsqlConflict, KsqlRefused, KsqlTruncated
from reconciler.domain.names import names_of
from reconciler.ksqldb.client import KsqlClient
from reconciler.ksqldb.definition import Definition, definition_of
from reconciler.ksqldb.ownership import Whose
from reconciler.ksqldb.statements import Topology
from reconciler.ksqldb.transport import Timeouts

TOPOLOGY = Topology("enriched_assets_stream", "asset_to_uns_map_raw", "workcenter", 3_600_000, 604_800_000)
EVENTS = (
    "CREATE STREAM enriched_assets_stream (key VARCHAR KEY, asset_uuid VARCHAR, id VARCHAR, value VARCHAR, "
    "type VARCHAR, tag VARCHAR, timestamp VARCHAR) "
    "WITH (KAFKA_TOPIC='enriched_assets_stream_topic', VALUE_FORMAT='JSON', PARTITIONS=1);"
)
MAP = (
    "CREATE TABLE asset_to_uns_map_raw (asset_uuid VARCHAR PRIMARY KEY, uns_id VARCHAR, "
    "uns_levels MAP<VARCHAR, VARCHAR>, updated_at TIMESTAMP) "
    "WITH (KAFKA_TOPIC='asset_to_uns_map_topic', KEY_FORMAT='KAFKA', VALUE_FORMAT='JSON', PARTITIONS=1);"
)
UPSTREAM = (
    EVENTS,
    MAP,
    "CREATE TABLE asset_to_uns_map AS SELECT * FROM asset_to_uns_map_raw EMIT CHANGES;",
    "INSERT INTO asset_to_uns_map_raw (asset_uuid, uns_id, uns_levels) VALUES ('A1', 'x', MAP('workcenter':='Weld'));",
    "INSERT INTO asset_to_uns_map_raw (asset_uuid, uns_id, uns_levels) VALUES ('A2', 'y', MAP('area':='North'));",
)
HOSTILE = st.one_of(
    st.text(min_size=1, max_size=300),
    st.sampled_from(
        [
            "'; DROP STREAM `ENRICHED_ASSETS_STREAM`; --",
            "' OR '1'='1",
            "''",
            "${group}",
            "/* */ -- x\n;",
            "\\' ; LIST STREAMS;",
            "`\"'",
            "A--B",
            "9",
            "x" * 300,
        ]
    ),
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """An embedded server with upstream's stream and tables, and two assets."""
    server = subprocess.Popen([sys.executable, "-m", "demo.ksqldb", "--port", "0"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    port = re.search(r":(\d+)", server.stdout.readline())
    assert port is not None
    address = f"http://127.0.0.1:{port[1]}"
    for sql in UPSTREAM:
        httpx.post(f"{address}/ksql", json={"ksql": sql}, timeout=10.0).raise_for_status()
    yield address
    server.terminate()
    server.communicate(timeout=20)


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[KsqlClient]:
    """A client of that server, with the shared stream in place."""
    with closing(KsqlClient(url, Timeouts(quiet=0.3))) as speaker:
        speaker.execute(TOPOLOGY.create_shared())
        yield speaker


def definition(client: KsqlClient, stream: str) -> Definition:
    """Return what LIST QUERIES says of a stream, which must be what DESCRIBE says."""
    (query,) = [query for query in client.queries() if stream in query.sinks]
    described = client.describe(stream)
    found = definition_of(query.text)
    assert found is not None
    assert definition_of(described.statement) == found
    assert [query.id for query in described.write_queries] == [query.id]
    return found


def test_members_are_read(client: KsqlClient) -> None:
    """Each asset with its group; without the level, None."""
    members = client.members("asset_to_uns_map", "asset_uuid", "workcenter")
    assert sorted(members) == [("A1", "Weld"), ("A2", None)]
    assert client.members_directly("asset_to_uns_map", "asset_uuid", "workcenter", 2) == members
    with pytest.raises(KsqlTruncated):
        client.members_directly("asset_to_uns_map", "asset_uuid", "workcenter", 3)


def test_a_table_that_was_not_made_by_a_query_cannot_be_pulled(client: KsqlClient) -> None:
    """The plain table is no server that stops: waiting would not help."""
    with pytest.raises(KsqlBadStatement):
        client.members("asset_to_uns_map_raw", "asset_uuid", "workcenter")


def test_the_life_of_a_group_stream(client: KsqlClient) -> None:
    """Created, read back as ours, replaced in place, read by no one, dropped; the shared stream refuses meanwhile."""
    names = names_of("Weld")
    shared = client.describe(TOPOLOGY.shared_name).statement
    assert TOPOLOGY.ownership(TOPOLOGY.shared_name, shared).whose is Whose.SHARED
    assert TOPOLOGY.current({TOPOLOGY.shared_name: shared}) == TOPOLOGY
    client.execute(TOPOLOGY.create_group(names))
    created = client.describe(names.stream).write_queries
    assert TOPOLOGY.group_differences(definition(client, names.stream), names) == ()
    assert names.topic in client.topics()
    with pytest.raises(KsqlConflict):
        client.execute(TOPOLOGY.create_group(names))
    client.execute(TOPOLOGY.replace_group(names))
    assert [one.id for one in client.describe(names.stream).write_queries] == [one.id for one in created]
    assert client.describe(TOPOLOGY.shared_name).constraints == (names.stream,)
    with pytest.raises(KsqlRefused):
        client.execute(TOPOLOGY.drop(TOPOLOGY.shared_name))
    client.execute(TOPOLOGY.drop(names.stream))
    assert client.describe_or_none(names.stream) is None
    assert names.topic in client.topics()


def test_a_paused_query_loses_and_repeats_nothing(client: KsqlClient, url: str) -> None:
    """What comes meanwhile is written once, after RESUME; PAUSE twice is as once. Another group's query goes on."""
    weld, other = names_of("Weld"), names_of("Other")

    def written(stream: str) -> int:
        described = client.describe_extended(stream)
        assert described is not None
        return described.written or 0

    def send(number: int) -> None:
        values = f"('A1', 'A1', 'x', '{number}', 'Samples', 'T', '0')"
        sql = f"INSERT INTO enriched_assets_stream (key, asset_uuid, id, value, type, tag, timestamp) VALUES {values};"
        httpx.post(f"{url}/ksql", json={"ksql": sql}, timeout=10.0).raise_for_status()

    def wait_for(number: int) -> None:
        deadline = time.monotonic() + 20
        while written(weld.stream) < number:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    for names in (weld, other):
        client.execute(TOPOLOGY.create_group(names))
    send(0)
    wait_for(1)
    (query,) = client.describe(weld.stream).write_queries
    for _ in range(2):
        client.execute(TOPOLOGY.pause(query.id))
    assert {one.id: one.paused for one in client.queries()}[query.id]
    assert not any(one.paused for one in client.queries() if other.stream in one.sinks)
    for number in (1, 2, 3):
        send(number)
    assert written(weld.stream) == 1
    client.execute(TOPOLOGY.resume(query.id))
    send(4)
    wait_for(5)
    assert written(weld.stream) == 5
    for names in (weld, other):
        client.execute(TOPOLOGY.drop(names.stream, delete_topic=True))


def test_another_retention_is_refused_and_says_why(client: KsqlClient) -> None:
    """A topic keeps the retention with which it was made."""
    names = names_of("Keep")
    client.execute(TOPOLOGY.create_group(names))
    with pytest.raises(KsqlRefused, match="1000 retention"):
        client.execute(TOPOLOGY.replace_group(names, retention_ms=1000))
    client.execute(TOPOLOGY.drop(names.stream, delete_topic=True))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(group=HOSTILE)
def test_no_group_value_becomes_sql(client: KsqlClient, group: str) -> None:
    """One statement each, the value intact on the way there and back, nothing else touched."""
    names = names_of(group)
    before = {stream.name for stream in client.streams()}
    client.execute(TOPOLOGY.create_group(names))
    try:
        assert {stream.name for stream in client.streams()} == before | {names.stream}
        found = definition(client, names.stream)
        assert found.filter_literal == group
        assert TOPOLOGY.ownership(names.stream, client.describe(names.stream).statement).group == group
    finally:
        client.execute(TOPOLOGY.drop(names.stream, delete_topic=True))
    assert {stream.name for stream in client.streams()} == before


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(level=HOSTILE)
def test_no_question_becomes_another(client: KsqlClient, level: str) -> None:
    """A hostile level matches nothing, and every asset is still listed once."""
    assert sorted(client.members("asset_to_uns_map", "asset_uuid", level)) == [("A1", None), ("A2", None)]


@pytest.mark.parametrize("name", ["a b", "a`; DROP STREAM x; --", "ä", ""])
def test_no_source_name_becomes_sql(client: KsqlClient, name: str) -> None:
    """A name that ksqlDB would not take is refused before anything is sent."""
    with pytest.raises(KsqlBadStatement):
        client.describe(name)
