"""Where each group is served, while that changes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from routing_layer import registry_client
from routing_layer.metrics import Metrics
from routing_layer.registry_client import RegistryClient
from tests.harness.coroutines import until
from tests.integration.routing_layer.fake_sources import FakeOperator, registry
from tests.integration.routing_layer.proxy_system import Proxy, ProxySystem, start_system


async def _seen(system: ProxySystem) -> None:
    """Wait until the proxy has looked at what is published now, twice (the first look may have begun before)."""
    before = system.operator.asked
    await until(lambda: system.operator.asked >= before + 2, "the operator is asked")


async def test_a_hundred_revisions_end_no_stream() -> None:
    """Other groups come and go: the stream of an unchanged group lives through all of them (T24)."""
    async with start_system(REGISTRY_POLL="10ms") as system:
        client = await system.stream("A1")
        usual = {"Weld": system.weld.url, "Paint": system.paint.url}
        for number in range(100):
            system.publish({**usual, f"G{number}": system.paint.url})
            await _seen(system)
        await system.weld.open[0].event("untouched")
        assert (await client.event()).data == "untouched"
        assert len(system.weld.connections) == 1
        assert system.operator.not_modified > 0


async def test_the_streams_of_a_removed_group_end() -> None:
    """Cleanly, and no others."""
    async with start_system() as system:
        client, other = await system.stream("A1"), await system.stream("A2")
        system.publish({"Paint": system.paint.url})
        assert await client.rest() == b""
        await system.paint.open[0].event("alive")
        assert (await other.event()).data == "alive"


async def test_documents_that_must_not_be_used_leave_the_last_good_one() -> None:
    """Corrupt, of another version, of another cluster: refused and counted; clients notice nothing (T25)."""
    async with start_system() as system:
        client = await system.stream("A1")
        groups = {"Weld": system.paint.url}
        offers = {
            b'{"version": 1': "corrupt",
            registry(groups, version=0): "corrupt",
            registry(groups, identity={"kafka": "other", "ksqldb": "default_"}): "identity",
        }
        for offer, reason in offers.items():
            before = await system.proxy.metric(f'routing_layer_registry_refused_total{{reason="{reason}"}}')
            system.operator.document = offer
            await _seen(system)
            await system.stream("A2")
            after = await system.proxy.metric(f'routing_layer_registry_refused_total{{reason="{reason}"}}')
            assert after > before
        await system.weld.open[0].event("alive")
        assert (await client.event()).data == "alive"
        system.publish()
        await _seen(system)
        await system.stream("A1")


async def test_an_operator_that_stands_by_is_no_news() -> None:
    """Of two operators behind one name only the one that writes counts; the other is no failure and ends no stream."""
    async with start_system(REGISTRY_POLL="10ms") as system:
        client = await system.stream("A1")
        refused = 'routing_layer_registry_refused_total{reason="unreachable"}'
        before = await system.proxy.metric(refused)
        system.operator.standby = True
        system.publish({"Weld": system.weld.url, "Paint": system.paint.url, "New": system.paint.url})
        for _ in range(3):
            await _seen(system)
        assert await system.proxy.metric(refused) == before
        await system.weld.open[0].event("alive")
        assert (await client.event()).data == "alive"


async def test_it_starts_from_the_boot_copy_while_the_operator_is_down(tmp_path: Path) -> None:
    """The mounted file is enough to serve; the operator's newer document is used once it is back (T26)."""
    copy = tmp_path / "registry.json"
    async with start_system(ready=False, REGISTRY_FILE=str(copy)) as system:
        await system.proxy.stop()
        await system.operator.stop()
        copy.write_bytes(registry({"Weld": system.weld.url}))
        await system.proxy.start()
        await system.proxy.wait_ready()
        await system.stream("A1")
        await system.operator.start()
        await system.stream("A2")


async def test_without_an_operator_the_file_is_followed(tmp_path: Path) -> None:
    """Where no operator is named, a changed file is used as it is found."""
    copy = tmp_path / "registry.json"
    copy.write_bytes(registry({}))
    async with start_system(REGISTRY_FILE=str(copy), RECONCILER_URL="") as system:
        copy.write_bytes(registry({"Weld": system.weld.url}))
        await system.stream("A1")


async def test_a_pipe_in_place_of_the_file_stops_nothing(tmp_path: Path) -> None:
    """A read of it would never return: neither at the start nor later."""
    copy = tmp_path / "registry.json"
    os.mkfifo(copy)
    async with start_system(ready=False, REGISTRY_FILE=str(copy), RECONCILER_URL="") as system:
        assert not await system.proxy.ready()
        (tmp_path / "good").write_bytes(registry({"Weld": system.weld.url}))
        (tmp_path / "good").replace(copy)
        await system.proxy.wait_ready()
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "pipe").replace(copy)
        await until(lambda: not copy.is_file())
        await system.proxy.wait_metric('routing_layer_registry_refused_total{reason="unreachable"}', 2)
        await system.stream("A1")


async def test_a_document_is_as_old_as_its_last_confirmation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the operator; where none is named by the file, whose age would otherwise raise an alert forever."""
    now = [1000.0]
    monkeypatch.setattr(registry_client, "time", SimpleNamespace(monotonic=lambda: now[0]))
    copy = tmp_path / "registry.json"
    copy.write_bytes(registry({}))
    for url, age in (("", 0.0), ("http://operator.test", 500.0)):
        client = RegistryClient(url, copy, Metrics(), lambda _before, _now: None)
        client.load_file()
        now[0] += 500
        client.load_file()
        assert client.age == age
        copy.write_bytes(b"corrupt")
        now[0] += 1
        client.load_file()
        assert client.age == age + 1
        await client.close()
        copy.write_bytes(registry({}))


async def test_without_any_registry_it_is_alive_and_not_ready() -> None:
    """A corrupt boot copy and no operator: 503 for clients, 200 for the platform."""
    async with start_system(ready=False, REGISTRY_FILE=__file__) as system:
        await system.proxy.stop()
        await system.operator.stop()
        await system.proxy.start()
        assert not await system.proxy.ready()
        assert (await system.proxy.get("/healthz")).status == 200
        assert (await system.proxy.get("/asset_stream?asset_uuid=A1")).status == 503
        assert (await system.proxy.get("/asset_state?asset_uuid=A1")).status == 503


async def test_another_membership_source_is_listed() -> None:
    """When the operator names another table, the watch moves there and the served map stays meanwhile."""
    async with start_system() as system:
        client = await system.stream("A1")
        system.publish(membership={"table": "other_map", "key": "ASSET_UUID", "levels": ["line"]})
        await until(lambda: any("OTHER_MAP" in question for question in system.ksql.questions))
        await system.stream("A2")
        await system.weld.open[0].event("alive")
        assert (await client.event()).data == "alive"


async def test_settings_that_cannot_be_used_name_their_variable() -> None:
    """One line, exit code 2; --help tells every variable."""
    proxy = Proxy({"KSQLDB_URL": "http://127.0.0.1:1", "IDLE_TIMEOUT": "soon"})
    process = await proxy.spawn(capture=True)
    output, errors = await process.communicate()
    assert process.returncode == 2
    assert errors.decode().startswith("IDLE_TIMEOUT='soon': ")
    assert len(errors.splitlines()) == 1
    process = await proxy.spawn("--help", capture=True)
    output, errors = await process.communicate()
    assert process.returncode == 0
    assert b"LAZY_DEPLOY_WAIT [10.0]" in output


async def test_the_operator_is_asked_for_changes_only() -> None:
    """An unchanged document costs a 304."""
    operator = await FakeOperator().start()
    operator.document = registry({})
    proxy = Proxy({"KSQLDB_URL": "http://127.0.0.1:1", "RECONCILER_URL": operator.url, "REGISTRY_POLL": "10ms"})
    try:
        await proxy.start()
        await until(lambda: operator.not_modified >= 3)
        assert operator.asked == operator.not_modified + 1
    finally:
        await proxy.stop()
        await operator.stop()
        await asyncio.sleep(0)
