"""The ksqlDB in memory, on which the fast tests rest, and the client on the embedded server keep the same contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from openfactory_common.errors import KsqlBadStatement, KsqlConflict, KsqlError, KsqlRefused
from reconciler.app import topology_of
from reconciler.domain.names import names_of
from reconciler.ksqldb.api import Ksqldb
from reconciler.ksqldb.statements import Topology
from tests.harness.fakes import FakeKsqldb, Stage
from tests.harness.serving import plant

ASSETS: dict[str, str | None] = {"a": "Weld", "b": "Weld", "c": "Paint"}
WELD, PAINT = names_of("Weld"), names_of("Paint")


@dataclass(frozen=True)
class Bench:
    """One side under test, and a person's hands beside it."""

    ksqldb: Ksqldb
    pause: Callable[[str], object]
    terminate: Callable[[str], object]


def _in_memory() -> Iterator[Bench]:
    fake = FakeKsqldb(assets=dict(ASSETS))
    yield Bench(fake, fake.paused.add, fake.terminated.add)


def _served() -> Iterator[Bench]:
    with plant() as made:
        made.ksqldb.assign(ASSETS)
        client, served = made.client(), made.ksqldb
        yield Bench(
            client,
            lambda stream: served.sql(f"PAUSE {_query(client, stream)};"),
            lambda stream: served.sql(f"TERMINATE {_query(client, stream)};"),
        )


def _query(ksqldb: Ksqldb, stream: str) -> str:
    (query,) = (query.id for query in ksqldb.queries() if stream in query.sinks)
    return query


@pytest.fixture(params=[_in_memory, _served], ids=["in memory", "over HTTP"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A side with three assets in two groups, and the shared stream."""
    for made in request.param():
        made.ksqldb.execute(topology().create_shared())
        yield made


def topology() -> Topology:
    """What the streams are."""
    return topology_of(Stage().settings)


def refused(bench: Bench, statement: Any) -> type[KsqlError]:
    """Send a statement that must be refused and change nothing of what exists; return the class of the refusal."""
    before = {stream.name for stream in bench.ksqldb.streams()}
    with pytest.raises(KsqlError) as caught:
        bench.ksqldb.execute(statement)
    assert {stream.name for stream in bench.ksqldb.streams()} == before
    return caught.type


def test_who_answers_and_how_it_is(bench: Bench) -> None:
    """The same identity, running and well, with a limit of queries or none."""
    info = bench.ksqldb.info()
    assert (info.kafka_cluster_id, info.ksql_service_id, info.status) == ("kafka-1", "default_", "RUNNING")
    assert bench.ksqldb.health().ready
    limit = bench.ksqldb.query_limit()
    assert limit is None or limit > 100


def test_the_map(bench: Bench) -> None:
    """Every asset with its group, and the direct question."""
    where = ("ASSET_TO_UNS_MAP", "ASSET_UUID", "workcenter")
    assert dict(bench.ksqldb.members(*where)) == ASSETS
    assert dict(bench.ksqldb.members_directly(*where, len(ASSETS))) == ASSETS


def test_a_created_stream_shows_everywhere(bench: Bench) -> None:
    """In the lists, with its topic, its definition and its reader-to-be."""
    bench.ksqldb.execute(topology().create_group(WELD))
    assert {stream.name: stream.topic for stream in bench.ksqldb.streams()}[WELD.stream] == WELD.topic
    assert WELD.topic in bench.ksqldb.topics()
    (text,) = (query.text for query in bench.ksqldb.queries() if WELD.stream in query.sinks)
    described = bench.ksqldb.describe_or_none(WELD.stream)
    shared = bench.ksqldb.describe_or_none(topology().shared_name)
    assert described is not None
    assert shared is not None
    assert len(described.write_queries) == 1
    assert shared.constraints == (WELD.stream,)
    for shown in (text, described.statement):
        assert topology().ownership(WELD.stream, shown).group == WELD.group


def test_what_does_not_exist_is_none(bench: Bench) -> None:
    """No error, and no empty description."""
    assert bench.ksqldb.describe_or_none(PAINT.stream) is None


def test_a_taken_name_is_a_conflict(bench: Bench) -> None:
    """Nothing is overwritten."""
    bench.ksqldb.execute(topology().create_group(WELD))
    assert refused(bench, topology().create_group(WELD)) is KsqlConflict
    assert refused(bench, topology().create_shared()) is KsqlConflict


def test_a_stream_of_nothing_is_refused(bench: Bench) -> None:
    """Its source has to be there."""
    bench.ksqldb.execute(topology().drop(topology().shared_name))
    assert refused(bench, topology().create_group(WELD)) is KsqlBadStatement


def test_what_is_read_cannot_be_dropped(bench: Bench) -> None:
    """Refused, and with DELETE TOPIC the topic is gone all the same."""
    shared = topology().shared_name
    bench.ksqldb.execute(topology().create_group(WELD))
    assert refused(bench, topology().drop(shared)) is KsqlRefused
    assert shared.lower() in bench.ksqldb.topics()
    assert refused(bench, topology().drop(shared, delete_topic=True)) is KsqlRefused
    assert shared.lower() not in bench.ksqldb.topics()


@pytest.mark.parametrize("delete_topic", [True, False])
def test_a_dropped_stream_is_gone_and_its_topic_as_asked(bench: Bench, delete_topic: bool) -> None:
    """And dropping it again is an error."""
    bench.ksqldb.execute(topology().create_group(WELD))
    bench.ksqldb.execute(topology().drop(WELD.stream, delete_topic=delete_topic))
    assert bench.ksqldb.describe_or_none(WELD.stream) is None
    assert (WELD.topic in bench.ksqldb.topics()) is not delete_topic
    assert refused(bench, topology().drop(WELD.stream)) is KsqlBadStatement


def test_a_replacement_creates_or_replaces(bench: Bench) -> None:
    """With one query, whatever was there before."""
    for _ in range(2):
        bench.ksqldb.execute(topology().replace_group(WELD))
        assert len([query for query in bench.ksqldb.queries() if WELD.stream in query.sinks]) == 1


def test_a_paused_query_says_so_until_it_is_resumed(bench: Bench) -> None:
    """Resuming it once more does no harm; an unknown one is an error."""
    bench.ksqldb.execute(topology().create_group(WELD))
    query = _query(bench.ksqldb, WELD.stream)
    bench.pause(WELD.stream)
    assert [one.paused for one in bench.ksqldb.queries() if one.id == query] == [True]
    for _ in range(2):
        bench.ksqldb.execute(topology().resume(query))
    assert [one.paused for one in bench.ksqldb.queries() if one.id == query] == [False]
    assert refused(bench, topology().resume("CSAS_UNKNOWN_1")) is KsqlBadStatement


def test_a_terminated_query_leaves_a_silent_stream(bench: Bench) -> None:
    """Listed as a stream, not among the queries, described without a writer; a replacement gives it one."""
    bench.ksqldb.execute(topology().create_group(WELD))
    bench.terminate(WELD.stream)
    assert WELD.stream in {stream.name for stream in bench.ksqldb.streams()}
    assert not [query for query in bench.ksqldb.queries() if WELD.stream in query.sinks]
    described = bench.ksqldb.describe_or_none(WELD.stream)
    assert described is not None
    assert described.write_queries == ()
    bench.ksqldb.execute(topology().replace_group(WELD))
    assert len([query for query in bench.ksqldb.queries() if WELD.stream in query.sinks]) == 1
