"""Services that are slow, gone, or broken, and the asset state service."""

from __future__ import annotations

import asyncio

import pytest

from tests.ports import free_port
from tests.routing.sources import Ksql
from tests.routing.world import Connection, until, world

_STATE = b'{"value":1E3,"b":"\\u00e9"}'


async def _state(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 26\r\n\r\n" + _STATE)


async def test_asset_state_passes_bytes() -> None:
    """The body is not read and written again: 1E3 stays 1E3; connections to the service are kept."""
    async with world(state=_state) as around:
        for _ in range(3):
            answer = await around.proxy.get("/asset_state?asset_uuid=A1&id=%41")
            assert answer.status == 200
            assert await answer.rest() == _STATE
        assert [connection.target for connection in around.state.connections] == [
            "/asset_state?asset_uuid=A1&id=%41"
        ] * 3
        assert len({connection.writer for connection in around.state.connections}) == 1
        head = await around.proxy.get("/asset_state?asset_uuid=A1", "Connection: close", method="HEAD")
        assert head.header("Content-Length") == "26"
        assert await head.reader.read() == b""


async def test_an_answer_that_breaks_in_its_middle_is_a_502() -> None:
    """A short answer is taken whole first, so its failure is not the client's broken connection."""

    async def half(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        connection.writer.close()

    async with world(state=half) as around:
        answer = await around.proxy.get("/asset_state?asset_uuid=A1")
        assert answer.status == 502


async def test_a_large_chunked_answer() -> None:
    """An answer of any size and framing passes."""
    large = b"y" * 3_000_000

    async def chunks(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(large), large))

    async with world(state=chunks) as around:
        answer = await around.proxy.get("/asset_state")
        assert await answer.rest() == large


async def test_nobody_listens() -> None:
    """502 with Retry-After, that tells the client nothing of where the service is."""
    async with world() as around:
        await around.weld.stop()
        answer = await around.proxy.get("/asset_stream?asset_uuid=A1")
        assert answer.status == 502
        assert answer.header("Retry-After") == "2"
        assert (await answer.problem())["detail"] == "the service cannot be reached"


async def test_a_name_that_is_gone() -> None:
    """502 as well."""
    async with world() as around:
        around.publish({"Weld": f"http://gone.invalid:{free_port()}/asset_stream"})
        await until(lambda: around.operator.not_modified > 0)
        await asyncio.sleep(0.3)
        answer = await around.proxy.get("/asset_stream?asset_uuid=A1")
        assert answer.status == 502


_EVENT_SOURCE = "Accept: text/event-stream"


async def test_an_event_source_waits_for_the_next_task_of_its_service() -> None:
    """A service that was there a moment ago refuses: whoever would never come back is held, others are told.

    The moment is that of its last stream's end, however long ago that began.
    """
    async with world(REPLACE_WAIT="4s") as around:
        client = await around.stream("A1")
        await asyncio.sleep(4.5)
        await around.weld.stop()
        await around.weld.cut()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.rest()
        coming = asyncio.create_task(around.proxy.get("/asset_stream?asset_uuid=A1", _EVENT_SOURCE))
        assert (await around.proxy.get("/asset_stream?asset_uuid=A1")).status == 502
        assert not coming.done()
        await around.weld.start()
        assert (await coming).status == 200


async def test_an_event_source_is_not_held_for_ever() -> None:
    """After the wait it is told, and at once where the service has never been seen."""
    async with world(REPLACE_WAIT="1s") as around:
        await around.stream("A1")
        for service in (around.weld, around.paint):
            await service.stop()
            await service.cut()
        for asset in ("A1", "A2"):
            answer = await around.proxy.get(f"/asset_stream?asset_uuid={asset}", _EVENT_SOURCE)
            assert answer.status == 502
            assert answer.header("Retry-After") == "2"


async def test_an_event_source_is_held_until_the_proxy_is_ready() -> None:
    """A proxy that has just been started does not send browsers away for good."""
    async with world(ready=False, ksql=Ksql(credentials="a:b")) as around:
        coming = asyncio.create_task(around.proxy.get("/asset_stream?asset_uuid=A1", _EVENT_SOURCE))
        assert (await around.proxy.get("/asset_stream?asset_uuid=A1")).status == 503
        await until(lambda: around.ksql.refused > 1, "it was asked for")
        around.ksql.credentials = ""
        assert (await coming).status == 200


async def test_a_service_that_never_answers() -> None:
    """504 after the head's limit; the service is freed."""

    async def never(_connection: Connection) -> None:
        return

    async with world(HEAD_TIMEOUT="300ms") as around:
        around.weld.answer = never
        answer = await around.proxy.get("/asset_stream?asset_uuid=A1")
        assert answer.status == 504
        await until(lambda: not around.weld.open)


async def test_a_request_is_sent_once() -> None:
    """A service that takes the request and closes is not asked again: 502."""

    async def close(connection: Connection) -> None:
        connection.writer.close()

    async with world() as around:
        around.weld.answer = close
        answer = await around.proxy.get("/asset_stream?asset_uuid=A1")
        assert answer.status == 502
        assert len(around.weld.connections) == 1


async def test_what_is_not_http() -> None:
    """502, whatever it says."""
    for nonsense in (b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"):

        async def answer(connection: Connection, nonsense: bytes = nonsense) -> None:
            await connection.send(nonsense)

        async with world() as around:
            around.weld.answer = answer
            assert (await around.proxy.get("/asset_stream?asset_uuid=A1")).status == 502


async def test_a_name_with_several_addresses() -> None:
    """Where one address refuses, another is tried: localhost is ::1 and 127.0.0.1, and only one of them listens."""
    async with world() as around:
        around.publish({"Weld": f"http://localhost:{around.weld.port}/asset_stream"})
        await until(lambda: around.operator.not_modified > 0)
        await asyncio.sleep(0.3)
        clients = [await around.stream("A1") for _ in range(6)]
        assert len(clients) == len(around.weld.open) == 6
