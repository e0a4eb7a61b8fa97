"""Numbers of streams: of a worker, and of one client."""

from __future__ import annotations

import asyncio
import socket
import struct

from tests.harness.coroutines import until
from tests.integration.routing_layer.fake_sources import FakeKsqldb
from tests.integration.routing_layer.proxy_system import Connection, Proxy, Response, start_system

_EVENT_SOURCE = "Accept: text/event-stream"
_STREAM = "/asset_stream?asset_uuid=A1"
_ADMITTED = "routing_layer_streams_admitted"


async def _state(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


async def _stream(proxy: Proxy, *headers: str, source: str = "127.0.0.1") -> Response:
    """Ask for a stream from that address."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, local_addr=(source, 0))
    writer.write("\r\n".join((f"GET {_STREAM} HTTP/1.1", "Host: x", *headers, "", "")).encode())
    return Response(reader, writer, await reader.readuntil(b"\r\n\r\n"))


async def test_a_worker_has_its_number_of_streams() -> None:
    """The next one is refused at once, an event source too; everything else is served, and a place that gets free."""
    async with start_system(state=_state, MAX_STREAMS="3") as system:
        streams = [await system.stream("A1"), await system.stream("A2")]
        streams.append(await system.proxy.get("/group/Weld/asset_stream"))
        for target in (_STREAM, "/group/Weld/asset_stream", "/asset_stream"):
            refused = await system.proxy.get(target, _EVENT_SOURCE)
            assert (refused.status, refused.header("Retry-After")) == (503, "5")
            assert (await refused.problem())["type"] == "urn:openfactory:routing-layer:too-many-streams"
        for target in ("/asset_state", "/healthz", "/readyz"):
            assert (await system.proxy.get(target)).status == 200
        assert await system.proxy.metric(_ADMITTED) == 3
        assert await system.proxy.metric('routing_layer_streams_refused_total{reason="total"}') == 3
        streams.pop().leave()
        await until(lambda: len(system.weld.open) == 1, "one has left")
        streams.append(await system.stream("A1"))
        assert await system.proxy.metric(_ADMITTED) == len(streams) == 3


async def test_what_waits_for_its_stream_counts() -> None:
    """An event source that is held has its place; when it gives up, another one has it."""
    async with start_system(ready=False, ksql=FakeKsqldb(credentials="a:b"), MAX_STREAMS="1") as system:
        waiting = await system.proxy.ask(_STREAM, _EVENT_SOURCE)
        await system.proxy.wait_metric(_ADMITTED, 1)
        assert (await (await system.proxy.get(_STREAM, _EVENT_SOURCE)).problem())["type"].endswith("too-many-streams")
        # With a reset: one that only closes its half of the connection may still wait for its answer.
        reset = struct.pack("ii", 1, 0)
        waiting.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        waiting.writer.transport.abort()
        while await system.proxy.metric(_ADMITTED) > 0:  # noqa: ASYNC110 - it is another process that counts
            await asyncio.sleep(0.05)
        system.ksql.credentials = ""
        await system.proxy.wait_ready()
        await system.stream("A1")


async def test_refusals_take_no_place() -> None:
    """A hundred requests that get no stream leave room for the one that does."""
    async with start_system(MAX_STREAMS="1", MAX_STREAMS_PER_CLIENT="1") as system:
        for number in range(25):
            for target in (f"/asset_stream?asset_uuid=unknown-{number}", "/asset_stream", "/group/None/asset_stream"):
                answer = await system.proxy.get(target)
                assert answer.status in (400, 404)
                answer.leave()
        await system.weld.stop()
        assert (await system.proxy.get(_STREAM)).status == 502
        await system.weld.start()
        assert (await system.proxy.get(_STREAM, method="HEAD")).status == 200
        stream = await system.stream("A1")
        assert await system.proxy.metric(_ADMITTED) == 1
        stream.leave()


async def test_a_client_has_its_number_of_streams() -> None:
    """Clients behind a trusted proxy are told apart by its X-Forwarded-For; what any other peer claims is its own."""
    async with start_system(MAX_STREAMS_PER_CLIENT="2", TRUSTED_PROXIES="127.0.0.1") as system:
        answers: list[Response] = []

        async def statuses(*clients: str, source: str = "127.0.0.1") -> list[int]:
            found = [await _stream(system.proxy, f"X-Forwarded-For: {client}", source=source) for client in clients]
            answers.extend(found)  # their connections stay
            return [answer.status for answer in found]

        assert await statuses("10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2") == [200, 200, 429, 200]
        assert await statuses("6.6.6.6, 10.0.0.1", "7.7.7.7, 10.0.0.1") == [429, 429]
        assert await statuses("10.0.0.3, 127.0.0.1", "10.0.0.3:80", "10.0.0.3") == [200, 200, 429]
        assert await statuses("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1") == [200, 200, 429, 200]
        assert await statuses("10.0.0.4", "10.0.0.5", "10.0.0.6", source="127.0.0.2") == [200, 200, 429]
        refused = await _stream(system.proxy, _EVENT_SOURCE, source="127.0.0.2")
        assert (refused.status, refused.header("Retry-After")) == (429, "5")
        assert (await refused.problem())["type"] == "urn:openfactory:routing-layer:too-many-streams-of-client"
        assert await system.proxy.metric('routing_layer_streams_refused_total{reason="client"}') == 7
        await system.weld.cut()
        while await system.proxy.metric(_ADMITTED) > 0:  # noqa: ASYNC110 - it is another process that counts
            await asyncio.sleep(0.05)
        assert await statuses("10.0.0.1", "10.0.0.1", "10.0.0.1") == [200, 200, 429]
