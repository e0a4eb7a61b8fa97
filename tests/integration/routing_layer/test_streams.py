"""An asset's events on their way through the proxy."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.harness.coroutines import until
from tests.integration.routing_layer.proxy_system import HEAD, Connection, chunk, start_system
from tests.integration.routing_layer.sse_parser import Event


async def test_events_come_through_as_they_were_sent() -> None:
    """Framing, blank lines, comments, ids and U+2028 inside of data reach the client unchanged."""
    async with start_system() as system:
        client = await system.stream("A1")
        assert client.header("Content-Type") == "text/event-stream"
        assert client.header("X-Accel-Buffering") == "no"
        (service,) = system.weld.connections
        text = json.dumps({"value": "a\u2028b\u0085c"}, ensure_ascii=False)
        await service.send(
            chunk(f"event: asset_update\nid: 7\ndata: {text}\n\n: ping\n\ndata: x\ndata: y\n\n".encode())
        )
        assert await client.event() == Event(text, "asset_update", "7")
        assert await client.event() == Event("x\ny", "message", "7")


async def test_a_large_event_cut_anywhere() -> None:
    """One event of 1 MB in one chunk, and one whose chunk headers are cut, arrive whole."""
    async with start_system() as system:
        client = await system.stream("A1")
        (service,) = system.weld.connections
        large = "x" * 1_000_000
        await service.event(large)
        assert (await client.event()).data == large
        for byte in chunk(b"data: slowly\n\n") + chunk(b"data: twice\n\n"):
            await service.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.event()).data == "slowly"
        assert (await client.event()).data == "twice"


async def test_the_request_reaches_the_service_untouched() -> None:
    """The query string keeps its bytes; Host and end-to-end headers pass, hop-by-hop ones do not."""
    async with start_system() as system:
        target = "/asset_stream?asset_uuid=A1&id=b%2Fc&id=%41+x&empty="
        client = await system.proxy.get(
            target, "Last-Event-ID: 41", "Authorization: Bearer t", "Connection: keep-alive, X-Mine", "X-Mine: 1"
        )
        assert client.status == 200
        (service,) = system.weld.connections
        assert service.target == target
        assert service.header("Host") == ["proxy.test:5555"]
        assert service.header("Last-Event-ID") == ["41"]
        assert service.header("Authorization") == ["Bearer t"]
        assert service.header("X-Forwarded-For") == ["127.0.0.1"]
        assert service.header("X-Mine") == service.header("Connection") == []


async def test_status_and_headers_of_the_service_pass() -> None:
    """A refusal of the service is the client's answer, with its body and every header in order."""

    async def refuse(connection: Connection) -> None:
        head = (
            b"HTTP/1.1 418 Teapot\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 5\r\nKeep-Alive: x\r\n\r\n"
        )
        await connection.send(head + b"short")

    async with start_system() as system:
        system.weld.answer = refuse
        client = await system.proxy.get("/asset_stream?asset_uuid=A1")
        assert client.status == 418
        assert [line for line in client.lines if line.startswith("Set-Cookie")] == [
            "Set-Cookie: a=1",
            "Set-Cookie: b=2",
        ]
        assert client.header("Keep-Alive") is None
        assert await client.rest() == b"short"


async def test_the_head_waits_for_the_service() -> None:
    """The client gets no head before the service's came."""
    asked = asyncio.Event()
    go = asyncio.Event()

    async def wait(connection: Connection) -> None:
        asked.set()
        await go.wait()
        await connection.send(HEAD)

    async with start_system() as system:
        system.weld.answer = wait
        opening = asyncio.create_task(system.proxy.get("/asset_stream?asset_uuid=A1"))
        await asked.wait()
        await asyncio.sleep(0.2)
        assert not opening.done()
        go.set()
        assert (await opening).status == 200


async def test_a_clean_end_of_the_service_is_a_clean_end() -> None:
    """The last chunk reaches the client."""
    async with start_system() as system:
        client = await system.stream("A1")
        await system.weld.connections[0].send(chunk(b"data: last\n\n") + b"0\r\n\r\n")
        assert await client.rest() == b"data: last\n\n"
        assert client.complete


async def test_a_service_that_breaks_cuts_the_client() -> None:
    """What was sent arrives, then the connection ends without a last chunk."""
    async with start_system() as system:
        client = await system.stream("A1")
        await system.weld.connections[0].event("before")
        assert (await client.event()).data == "before"
        await system.weld.cut()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.rest()
        assert await system.proxy.metric('routing_layer_streams_ended_total{reason="upstream_broke"}') == 1


async def test_a_client_that_leaves_frees_its_service() -> None:
    """A silent service loses its connection as soon as the client is gone."""
    async with start_system() as system:
        clients = [await system.stream("A1") for _ in range(20)]
        assert len(system.weld.open) == 20
        for client in clients:
            client.leave()
        await until(lambda: not system.weld.open, "the services are free")
        assert await system.proxy.metric("routing_layer_streams") == 0
        assert await system.proxy.metric('routing_layer_streams_ended_total{reason="client_left"}') == 20


async def test_a_silent_service_is_cut() -> None:
    """Nothing for the idle time, no ping either: the client is cut, and the reason is counted."""
    async with start_system(IDLE_TIMEOUT="500ms") as system:
        client = await system.stream("A1")
        with pytest.raises(asyncio.IncompleteReadError):
            await client.rest()
        assert await system.proxy.metric('routing_layer_streams_ended_total{reason="upstream_silent"}') == 1


async def test_a_slow_reader_holds_its_service_back() -> None:
    """A client that reads nothing does not fill the proxy's memory, and gets every byte when it reads."""
    async with start_system() as system:
        client = await system.stream("A1")
        (service,) = system.weld.connections
        event = chunk(b"data: " + b"x" * 65_000 + b"\n\n")
        sent = 0

        async def pour() -> None:
            nonlocal sent
            for _ in range(1500):
                await service.send(event)
                sent += 1

        pouring = asyncio.create_task(pour())
        last = -1
        while sent != last:
            last = sent
            await asyncio.sleep(0.5)
        assert sent < 1500
        for _ in range(1500):
            assert len((await client.event()).data) == 65_000
        await pouring


async def test_a_client_that_takes_nothing_is_cut() -> None:
    """For the idle time nothing of what is pending was taken: the service is freed, and the reason is counted."""
    async with start_system(IDLE_TIMEOUT="1s") as system:
        client = await system.stream("A1")
        (service,) = system.weld.connections

        async def pour() -> None:
            while not service.left.is_set():
                await service.send(chunk(b"data: " + b"x" * 65_000 + b"\n\n"))

        pouring = asyncio.create_task(pour())
        await until(lambda: not system.weld.open, "the service is freed")
        await system.proxy.wait_metric('routing_layer_streams_ended_total{reason="client_stalled"}', 1)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.rest()
        await asyncio.gather(pouring, return_exceptions=True)


async def test_head_and_other_methods() -> None:
    """HEAD answers what GET would, without a body and without a stream; other methods get the allowed ones."""
    async with start_system() as system:
        client = await system.proxy.get("/asset_stream?asset_uuid=A1", method="HEAD")
        assert client.status == 200
        assert client.header("Content-Type") == "text/event-stream"
        await until(lambda: not system.weld.open, "no stream is left")
        for method in ("POST", "OPTIONS", "DELETE"):
            client = await system.proxy.get("/asset_stream?asset_uuid=A1", method=method)
            assert client.status == 405
            assert client.header("Allow") == "GET, HEAD"


async def test_an_old_client_without_chunks() -> None:
    """HTTP/1.0 gets the plain bytes and the end of the connection."""
    async with start_system() as system:
        client = await system.proxy.get("/asset_stream?asset_uuid=A1", version="1.0")
        assert client.header("Transfer-Encoding") is None
        await system.weld.connections[0].send(chunk(b"data: one\n\n") + b"0\r\n\r\n")
        assert await client.reader.read() == b"data: one\n\n"
