"""Streams of another group's service, which has got the address of the one that was asked for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import aiohttp
import pytest

from openfactory_common.service_settings import load
from routing_layer.app.proxy import Proxy
from routing_layer.client.connection import ClientServer
from routing_layer.settings import Settings
from routing_layer.upstream.dialer import Dialer
from routing_layer.workers import WorkerPeers
from tests.harness.coroutines import until
from tests.harness.ports import free_port
from tests.integration.routing_layer.fake_sources import FakeKsqldb, FakeOperator, registry
from tests.integration.routing_layer.proxy_system import HEAD, Connection, start_system

_MISMATCHES = "routing_layer_group_mismatches_total"


def _named(*values: str) -> bytes:
    """The head of a stream that names its group."""
    lines = b"".join(f"X-OpenFactory-Group: {value}\r\n".encode() for value in values)
    return HEAD.replace(b"\r\n\r\n", b"\r\n" + lines + b"\r\n")


async def test_a_stream_of_another_groups_service_is_not_passed_on() -> None:
    """Its address was given to another service: the name is looked up again, and the client notices nothing."""
    heads = [_named("Paint"), _named("Weld")]

    async def answer(connection: Connection) -> None:
        await connection.send(heads.pop(0))

    async with start_system() as system:
        system.weld.answer = answer
        client = await system.stream("A1")
        assert client.header("X-OpenFactory-Group") == "Weld"
        first, second = system.weld.connections
        await until(first.left.is_set, "the wrong stream is closed")
        assert first.header("Last-Event-ID") == []
        assert re.fullmatch(r"@\d+", second.header("Last-Event-ID")[0])
        await second.event("mine")
        assert (await client.event()).data == "mine"
        assert await system.proxy.metric(_MISMATCHES) == 1


@pytest.mark.parametrize("values", [("weld",), ("Weld", "Weld"), ("W%65ld2",), ("Weld%zz",), ("%ff",), ("",)])
async def test_an_address_that_stays_another_groups_is_a_503(values: tuple[str, ...]) -> None:
    """Two attempts for a program; whatever does not say the group's name exactly is another group."""

    async def answer(connection: Connection) -> None:
        await connection.send(_named(*values))

    async with start_system() as system:
        system.weld.answer = answer
        refused = await system.proxy.get("/asset_stream?asset_uuid=A1")
        assert (refused.status, refused.header("Retry-After")) == (503, "2")
        assert "'Weld'" in (await refused.problem())["detail"]
        assert len(system.weld.connections) == await system.proxy.metric(_MISMATCHES) == 2


async def test_an_event_source_waits_for_the_service_of_its_own_group() -> None:
    """It is held while another group's service answers."""
    wrong = True

    async def answer(connection: Connection) -> None:
        await connection.send(_named("Paint" if wrong else "Weld"))

    async with start_system() as system:
        system.weld.answer = answer
        coming = asyncio.create_task(system.proxy.get("/asset_stream?asset_uuid=A1", "Accept: text/event-stream"))
        await until(lambda: len(system.weld.connections) > 2, "it has been tried more than once")
        assert not coming.done()
        wrong = False
        assert (await coming).status == 200


async def test_a_groups_name_is_compared_percent_decoded() -> None:
    """As the service encodes it."""

    async def answer(connection: Connection) -> None:
        await connection.send(_named("O%27Brien%2F2%20%C3%A9"))

    async with start_system() as system:
        system.weld.answer = answer
        system.publish({"O'Brien/2 \u00e9": system.weld.url})
        await system.ksql.put("A6", "O'Brien/2 \u00e9")
        assert (await system.proxy.get("/asset_stream?asset_uuid=A6")).status == 200


@pytest.mark.parametrize("gone", [False, True], ids=["another group's now", "nobody's now"])
async def test_the_name_is_looked_up_again(monkeypatch: pytest.MonkeyPatch, gone: bool) -> None:
    """The first address is not that of Weld's service any more; the second connection goes where the name leads to.

    Either way the request came earlier than the connection that serves it, and asks for what was meanwhile.
    """
    ksql, operator, port = await FakeKsqldb().start(), await FakeOperator().start(), free_port()
    await ksql.put("A1", "Weld")
    operator.document = registry({"Weld": f"http://ofa_group_weld:{port}/asset_stream"})
    for variable, value in {"KSQLDB_URL": ksql.url, "RECONCILER_URL": operator.url, "REGISTRY_POLL": "0.05"}.items():
        monkeypatch.setenv(variable, value)
    lookups, heads = [("127.0.0.2",), ("127.0.0.3",)], list[bytes]()

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return lookups.pop(0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        own = writer.get_extra_info("sockname")[0]
        writer.write(_named("Weld" if own == "127.0.0.3" else "Paint") + b"0\r\n\r\n")

    proxy = Proxy(load(Settings, _env_file=None, registry_file="/nonexistent"), WorkerPeers())
    proxy.forwarder._dialer = Dialer(2.0, 30.0, resolve)
    loop, own_port = asyncio.get_running_loop(), free_port()
    server = await loop.create_server(ClientServer(proxy.handle, proxy.guard), "127.0.0.1", own_port)
    addresses = ("127.0.0.3",) if gone else ("127.0.0.3", "127.0.0.2")
    services = [await asyncio.start_server(answer, address, port) for address in addresses]
    try:
        await proxy.start()
        await until(lambda: not proxy.issues(), "ready")
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{own_port}/asset_stream?asset_uuid=A1") as response,
        ):
            assert response.status == 200
            assert response.headers["X-OpenFactory-Group"] == "Weld"
        assert (lookups, len(heads)) == ([], len(addresses))
        assert re.search(rb"\r\nLast-Event-ID: @\d+\r\n", heads[-1])
    finally:
        for service in services:
            service.close()
        server.close()
        await proxy.close()
        await ksql.stop()
        await operator.stop()
