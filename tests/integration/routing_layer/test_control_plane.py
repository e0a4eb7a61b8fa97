"""What the proxy reads from ksqlDB and from the operator, when they, or servers in their place, misbehave."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from openfactory_common.errors import KsqlTruncated, KsqlUnreachable
from openfactory_common.ksqldb.wire import Row
from openfactory_common.registry import LIMIT_BYTES, Registry
from openfactory_common.registry import GroupLookup as Source
from routing_layer.membership import ksqldb
from routing_layer.membership.ksqldb import MembershipQueries
from routing_layer.membership.store import MembershipStore
from routing_layer.membership.watch import MembershipWatcher
from routing_layer.metrics import Metrics
from routing_layer.registry_client import RegistryClient
from tests.harness.coroutines import until
from tests.harness.ports import free_port
from tests.integration.routing_layer import fake_sources
from tests.integration.routing_layer.fake_sources import registry
from tests.integration.routing_layer.proxy_system import ProxySystem, start_system
from tests.integration.routing_layer.quick_proxy import QUICK

_ERRORS = "routing_layer_membership_errors_total"
_SOURCE = Source(table="asset_to_uns_map", key="ASSET_UUID", levels=("workcenter",))


def refused(reason: str) -> str:
    """Return the name of the counter of refused documents."""
    return f'routing_layer_registry_refused_total{{reason="{reason}"}}'


async def offered(system: ProxySystem, document: bytes, reason: str) -> None:
    """Publish a document and wait until the proxy has refused it."""
    before = await system.proxy.metric(refused(reason))
    system.operator.document = document
    await system.proxy.wait_metric(refused(reason), before + 1)


async def used(system: ProxySystem, document: bytes) -> None:
    """Publish a document and wait until the proxy has it: it asks for changes to it."""
    system.operator.document, before = document, system.operator.not_modified
    await until(lambda: system.operator.not_modified > before, "it is in use")


class _Failing(MembershipQueries):
    """Fails in its own code a few times, as a bug does."""

    left = 3

    @asynccontextmanager
    async def watch(self, source: Source) -> AsyncIterator[AsyncIterator[list[Row]]]:
        if self.left:
            self.left -= 1
            raise LookupError("a bug")
        async with super().watch(source) as rows:
            yield rows


async def test_the_watch_survives_any_exception() -> None:
    """An exception other than KsqlError is counted and the watch retried; only a cancellation ends it."""
    ksql, metrics = await fake_sources.FakeKsqldb().start(), Metrics()
    await ksql.put("A1", "Weld")
    store = MembershipStore(lambda *_: None)
    async with aiohttp.ClientSession() as session:
        watcher = MembershipWatcher(_Failing(session, ksql.url), store, metrics, 60.0)
        task = asyncio.create_task(watcher.run(_SOURCE))
        try:
            await until(lambda: store.group_of("A1") == "Weld", "it follows in the end")
            assert metrics.membership_errors._value.get() >= 3
            assert not task.done()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await ksql.stop()


class _Breaking(MembershipQueries):
    """Its watch breaks on demand."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        super().__init__(session, url)
        self.broken = asyncio.Event()
        self.opened = 0

    @asynccontextmanager
    async def watch(self, _: Source) -> AsyncIterator[AsyncIterator[list[Row]]]:
        self.opened += 1

        async def rows() -> AsyncIterator[list[Row]]:
            yield []
            await self.broken.wait()
            self.broken.clear()
            raise KsqlTruncated("it is stopping, too")

        yield rows()


async def test_the_watch_ends_with_a_ksqldb_that_stops_in_the_same_moment() -> None:
    """A cancellation is kept where the watch breaks at once: both are stopped together when a stack is removed."""
    ksql = await fake_sources.FakeKsqldb().start()
    await ksql.put("A1", "Weld")
    store = MembershipStore(lambda *_: None)
    async with aiohttp.ClientSession() as session:
        queries = _Breaking(session, ksql.url)
        task = asyncio.create_task(MembershipWatcher(queries, store, Metrics(), 60.0).run(_SOURCE))
        await until(lambda: store.group_of("A1") == "Weld")
        queries.broken.set()
        await until(lambda: queries.opened > 1, "it begins again")
        assert task.cancelling() == 0, "asyncio.timeout would end the task for good"
        queries.broken.set()
        task.cancel()
        await asyncio.wait((task,), timeout=5)
        assert task.cancelled()
        await ksql.stop()


async def test_a_list_without_rows_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty lines alone keep a connection alive, not a list: the list fails, is counted and read again."""
    monkeypatch.setattr(ksqldb, "_LIST_ROW_SECONDS", 0.3)

    async def dribble(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'[{"header":{"queryId":"q","schema":"`A` STRING KEY, `G` STRING"}},\n')
        while True:
            await response.write(b"\n")
            await asyncio.sleep(0.05)

    app, port = web.Application(), free_port()
    app.router.add_post("/query", dribble)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(KsqlUnreachable, match="no row of the list"):
            await MembershipQueries(session, f"http://127.0.0.1:{port}").list_all(_SOURCE)
    await runner.cleanup()


async def test_the_registry_is_followed_after_any_exception() -> None:
    """What fails while a document is put into use leaves no trace of it, and is tried again."""
    operator, metrics, changes = await fake_sources.FakeOperator().start(), Metrics(), list[Registry | None]()
    operator.document = registry({"Weld": "http://h/asset_stream"})

    def change(before: Registry | None, _now: Registry) -> None:
        changes.append(before)
        if len(changes) < 4:
            raise LookupError("a bug")

    client = RegistryClient(operator.url, Path("/none"), metrics, change)
    task = asyncio.create_task(client.run(0.01))
    try:
        await until(lambda: client.current is not None, "it is used in the end")
        assert changes == [None] * 4
        assert metrics.registry_refused["bug"]._value.get() == 3
        assert not task.done()
    finally:
        task.cancel()
        await client.close()
        await operator.stop()


async def test_a_row_that_cannot_be_read_ends_no_watch_for_good() -> None:
    """Counted; the last known map serves; and once the row is gone changes are followed again."""
    async with start_system() as system:
        await system.proxy.wait_current()
        for value in (b"1" * 5000, b"[" * 5000 + b"]" * 5000, b"[1]"):
            system.ksql.raw = b'{"row":{"columns":["A9",' + value + b"]}},\n"
            before = await system.proxy.metric(_ERRORS)
            await system.ksql.end_watches()
            await system.proxy.wait_metric(_ERRORS, before + 1)
        client = await system.stream("A1")
        system.ksql.raw = b""
        await system.proxy.wait_metric("routing_layer_membership_relists_total", 2)
        await system.ksql.put("A1", "Paint")
        assert await client.rest() == b""


#: What is changed in a good document, and what no one may do with it.
_FOREIGN: tuple[dict[str, Any], ...] = (
    {"membership": {"table": "t; DROP TABLE x", "key": "K", "levels": ["l"]}},
    {"membership": {"table": "t", "key": "K, SECRET", "levels": ["l"]}},
    {"membership": {"table": "t", "key": "K", "group": "UNS_LEVELS['a'] || SECRET"}},
    {"groups": {"Weld": "http://user:pw@127.0.0.1/asset_stream"}},
    {"groups": {"Weld": "http://127.0.0.1/\r\nX-Evil: 1"}},
    {"groups": {"Weld": "http://a..b/asset_stream"}},
    {"state_api": "file:///etc/passwd"},
    {"padding": "x" * 1149 * 1024},
    {"groups": {f"g{n}": f"http://h/{'u' * 1100}" for n in range(1000)}},
)


async def test_a_hostile_document_is_refused() -> None:
    """From a server in the operator's place: nothing of it is kept, and a good one afterwards is used."""
    async with start_system() as system:
        for change in _FOREIGN:
            await offered(system, json.dumps({**json.loads(registry({})), **change}).encode(), "corrupt")
            await system.stream("A2")
        await used(system, registry({"Weld": system.paint.url}))
        await system.stream("A1")
        assert len(system.paint.connections) == len(_FOREIGN) + 1
        assert not any("SECRET" in question or "DROP" in question for question in system.ksql.questions)


async def test_a_boot_copy_that_is_too_large_is_no_crash(tmp_path: Path) -> None:
    """It starts, says that it lacks a registry, and takes the operator's."""
    copy = tmp_path / "registry.json"
    copy.write_bytes(registry({f"g{n}": f"http://h/{'u' * 1100}" for n in range(1000)}))
    assert copy.stat().st_size > LIMIT_BYTES
    async with start_system(REGISTRY_FILE=str(copy)) as system:
        assert await system.proxy.metric(refused("corrupt")) >= 1
        await system.stream("A1")


async def test_a_level_is_a_literal() -> None:
    """Its name is whatever the operator says: it is looked for, and nothing else happens."""
    hostile = "x'] AS A, SECRET FROM T; --"
    async with start_system() as system:
        system.publish(membership={"table": "asset_to_uns_map", "key": "ASSET_UUID", "levels": [hostile]})
        value = "UNS_LEVELS['x''] AS A, SECRET FROM T; --']"
        wanted = f"CASE WHEN (TRIM({value}) <> '') THEN {value} END AS UNS_GROUP FROM `ASSET_TO_UNS_MAP`;"
        await until(lambda: any(question.endswith(wanted) for question in system.ksql.questions))


async def test_a_new_cluster_is_followed_at_once_when_its_document_says_what_it_replaces() -> None:
    """Accepted by a person; before, and when an operator that has not noticed answers again, it is refused."""
    first, second = {"kafka": "k1", "ksqldb": "default_"}, {"kafka": "k2", "ksqldb": "default_"}
    async with start_system(REGISTRY_POLL="20ms") as system:
        client, stays = await system.stream("A1"), await system.stream("A2")
        old, paint = system.operator.document or b"", {"Paint": system.paint.url}
        await offered(system, registry(paint, identity=second), "identity")
        await offered(system, registry(paint, identity=second, replaces=[{"kafka": "k9", "ksqldb": "x"}]), "identity")
        system.publish(paint, identity=second, replaces=[first])
        assert await client.rest() == b""  # Weld is not served any more
        await offered(system, old, "identity")
        await offered(system, registry({}, identity=first), "identity")
        back = {"Weld": system.weld.url, **paint}
        system.publish(back, identity=first, replaces=[first, second])
        await system.proxy.wait_current()
        await (await system.stream("A1")).writer.drain()
        await offered(system, registry(paint, identity=second, replaces=[first]), "identity")
        await system.paint.open[0].event("untouched")
        assert (await stays.event()).data == "untouched"


async def test_fields_of_a_newer_operator_do_not_stop_the_proxy() -> None:
    """They are ignored at every level, and the rest of the document is used."""
    async with start_system() as system:
        document = json.loads(registry({"Weld": system.paint.url}))
        for place in (document, document["identity"], document["membership"]):
            place["new"] = {"x": 1}
        await used(system, json.dumps(document).encode())
        await system.stream("A1")
        assert len(system.paint.open) == 1


async def test_a_mapping_of_a_new_group_nudges_the_operator() -> None:
    """No client has asked: the watch sees it. A group that is served already is no reason, nor is one more asset."""
    async with start_system() as system:
        await system.proxy.wait_current()
        await system.ksql.put("A3", "Paint")
        await system.proxy.wait_metric("routing_layer_membership_assets", 3)
        assert system.operator.nudged == 0
        await system.ksql.put("A4", "Fit")
        await until(lambda: system.operator.nudged == 1, "the first asset of a group nudges")
        await system.ksql.put("A5", "Fit")
        await system.proxy.wait_metric("routing_layer_membership_assets", 5)
        assert await system.proxy.metric("routing_layer_nudges_total") == 1


async def test_many_new_groups_are_few_nudges_and_the_last_is_one_of_them() -> None:
    """The operator may have read the map before the last mapping came: it is nudged once more."""
    async with start_system(constants={**QUICK, "routing_layer.registry_client:_NUDGE_GAP": 2.0}) as system:
        await system.proxy.wait_current()
        known, started = list[int](), time.monotonic()
        system.operator.on_nudge = lambda: known.append(len(system.ksql.table))
        await system.ksql.put("B0", "G0")
        await until(lambda: known == [3], "the first one nudges at once")
        for number in range(1, 1000):
            await system.ksql.put(f"B{number}", f"G{number}")
        await until(lambda: known[-1:] == [1002], "the operator is nudged after the last mapping")
        assert len(known) <= 2 + (time.monotonic() - started) / 2.0


async def test_a_group_that_has_been_emptied_is_unknown() -> None:
    """404 instead of a wait for a service that will not come; names of groups are not kept forever."""
    async with start_system(LAZY_DEPLOY_WAIT="100ms") as system:
        await system.proxy.wait_current()
        await system.ksql.put("A9", "Brief")
        await system.proxy.wait_metric("routing_layer_membership_assets", 3)
        assert (await system.proxy.get("/group/Brief/asset_stream")).status == 503
        await system.ksql.put("A9", "Weld")
        statuses = [(await system.proxy.get("/group/Brief/asset_stream")).status for _ in range(20)]
        assert (statuses[-1], set(statuses) - {404, 503}) == (404, set())
        assert (await system.proxy.get("/group/Weld/asset_stream")).status == 200


async def test_no_group_is_unknown_before_the_membership_was_listed() -> None:
    """A proxy that has just started answers 503, not 404: an event source would not come back."""
    async with start_system(ready=False) as system:
        await system.proxy.stop()
        system.ksql.refuses = True
        await system.proxy.start()
        assert (await system.proxy.get("/group/Brief/asset_stream")).status == 503


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def test_questions_of_clients_that_left_are_not_asked() -> None:
    """KsqlDB hangs: a client has its 503 in time, those that leave leave nothing behind, known assets are served.

    They leave with a reset: a client that only ends its half of the connection still waits for its answer.
    """
    async with start_system() as system:
        await system.proxy.wait_current()
        system.ksql.hangs = True
        crowd = [await system.proxy.ask(f"/asset_stream?asset_uuid=invented-{number}") for number in range(300)]
        await until(lambda: len(system.ksql.asked_now) == 8, "as many as are allowed")
        await system.stream("A1")
        late = await system.proxy.ask("/asset_stream?asset_uuid=late")
        for asked in crowd:
            reset(asked.writer)
        await until(lambda: system.ksql.asked_now == ["late"], "the questions of those that left are cancelled")
        answer = await late.head()
        assert (answer.status, answer.header("Retry-After")) == (503, "2")
        assert "127.0.0.1" not in (await answer.problem())["detail"]
        await until(lambda: not system.ksql.asked_now, "without clients nothing is looked up")
        system.ksql.hangs = False
        system.ksql.table["late"] = "Weld"
        await system.stream("late")
        assert len([question for question in system.ksql.questions if "invented" in question]) < 50


async def test_every_client_has_an_answer_while_ksqldb_hangs() -> None:
    """Also those whose query had no turn: 503, to come back."""
    async with start_system() as system:
        await system.proxy.wait_current()
        system.ksql.hangs = True
        crowd = [await system.proxy.ask(f"/asset_stream?asset_uuid=invented-{number % 60}") for number in range(120)]
        async with asyncio.timeout(15):
            answers = [await asked.head() for asked in crowd]
        assert {(answer.status, answer.header("Retry-After")) for answer in answers} == {(503, "2")}
        await until(lambda: not system.ksql.asked_now, "nothing is left")
