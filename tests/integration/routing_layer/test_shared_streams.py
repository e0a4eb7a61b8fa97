"""Clients of the same stream share one of the service, where the service allows it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket

import pytest

from tests.harness.coroutines import until
from tests.integration.routing_layer.proxy_system import HEAD, Connection, ProxySystem, Service, chunk, start_system

_SHAREABLE = HEAD.replace(b"\r\n\r\n", b"\r\nX-OpenFactory-Shareable: 1\r\n\r\n")


def _says(head: bytes, gate: asyncio.Event | None = None) -> Service:
    async def answer(connection: Connection) -> None:
        if gate is not None:
            await gate.wait()
        await connection.send(head)

    return Service(answer)


def _event(number: int) -> bytes:
    return b"id: Weld/0/%d\ndata: %d\n\n" % (number, number)


async def test_clients_of_one_asset_cost_the_service_one_stream() -> None:
    """Who comes later begins with the next event and with the position before it; the last one who leaves ends it."""
    async with start_system() as system:
        system.weld.answer = _says(_SHAREABLE).answer
        first = await system.stream("A1")
        [source] = system.weld.open
        await source.send(chunk(_event(1)))
        assert (await first.event()).data == "1"
        others = [await system.stream("A1") for _ in range(20)]
        await source.send(chunk(_event(2)))
        for client in (first, *others):
            event = await client.event()
            assert (event.last_id, event.data) == ("Weld/0/2", "2")
        assert len(system.weld.connections) == 1
        for client in (first, *others[1:]):
            client.leave()
        await source.send(chunk(_event(3)))
        assert (await others[0].event()).data == "3"
        others[0].leave()
        await until(lambda: not system.weld.open, "the service is free")
        await system.stream("A1")
        assert len(system.weld.connections) == 2


async def test_a_client_that_joins_knows_its_position_before_the_first_event() -> None:
    """Else a connection that breaks in the silence after it would cost the events until it is back."""
    async with start_system() as system:
        system.weld.answer = _says(_SHAREABLE).answer
        first = await system.stream("A1")
        [source] = system.weld.open
        await source.send(chunk(_event(1)) + chunk(b": ping\nid: Weld/0/7\n\n"))
        await asyncio.sleep(0.1)
        joined = await system.stream("A1")
        assert not first.complete
        assert b"id: Weld/0/7\n\n" in await joined.reader.readuntil(b"\n\n\r\n")


async def test_a_client_joins_between_two_events() -> None:
    """However the bytes are cut: it gets no half of an event, and every one after it."""
    async with start_system() as system:
        system.weld.answer = _says(_SHAREABLE).answer
        first = await system.stream("A1")
        [source] = system.weld.open
        await source.send(chunk(_event(1) + b"id: Weld/0/2\nda"))
        assert (await first.event()).data == "1"
        await asyncio.sleep(0.1)
        second = await system.stream("A1")
        await source.send(chunk(b"ta: 2\n"))
        third = await system.stream("A1")
        await source.send(chunk(b"\n" + _event(3)[:9]))
        await source.send(chunk(_event(3)[9:] + _event(4)))
        assert [(await first.event()).data for _ in range(3)] == ["2", "3", "4"]
        for late in (second, third):
            assert [(await late.event()).data for _ in range(2)] == ["3", "4"]
        assert len(system.weld.connections) == 1


@pytest.mark.parametrize(
    ("target", "headers", "method"),
    [
        ("/asset_stream?asset_uuid=A1&id=temp", (), "GET"),
        ("/asset_stream?asset_uuid=A1&since=15m", (), "GET"),
        ("/asset_stream?asset_uuid=A1&lastEventId=Weld/0/1", (), "GET"),
        ("/asset_stream?asset_uuid=A1", ("Last-Event-ID: Weld/0/1",), "GET"),
        ("/asset_stream?asset_uuid=A3", (), "GET"),
        ("/group/Weld/asset_stream", (), "GET"),
        ("/asset_stream?asset_uuid=A1", (), "HEAD"),
    ],
)
async def test_what_asks_for_something_else_is_asked_of_the_service(
    target: str, headers: tuple[str, ...], method: str
) -> None:
    """Another query, a position of its own, another asset, a whole group: an answer of its own."""
    async with start_system() as system:
        await system.ksql.put("A3", "Weld")
        system.weld.answer = _says(_SHAREABLE).answer
        first = await system.stream("A1")
        answer = await system.proxy.get(target, *headers, method=method)
        assert (answer.status, first.complete) == (200, False)
        assert len(system.weld.connections) == 2


@pytest.mark.parametrize(
    "head",
    [
        HEAD,
        HEAD.replace(b"\r\n\r\n", b"\r\nX-OpenFactory-Shareable: 0\r\n\r\n"),
        HEAD.replace(b"\r\n\r\n", b"\r\nX-OpenFactory-Shareable: 1\r\nX-OpenFactory-Shareable: 1\r\n\r\n"),
        _SHAREABLE.replace(b"text/event-stream", b"application/json"),
        _SHAREABLE.replace(b"text/event-stream", b"text/event-stream\r\nContent-Encoding: gzip"),
        _SHAREABLE.replace(b"200 OK", b"201 Created"),
        *(
            _SHAREABLE.replace(b"\r\n\r\n", b"\r\n%b\r\n\r\n" % field)
            for field in (b"Set-Cookie: session=one", b"Vary: Cookie", b"Access-Control-Allow-Origin: https://a.test")
        ),
    ],
)
async def test_what_the_service_does_not_allow_is_not_shared(head: bytes) -> None:
    """Anything but the one header with the one value, on an event stream that we can read."""
    async with start_system() as system:
        system.weld.answer = _says(head).answer
        answers = [await system.proxy.get("/asset_stream?asset_uuid=A1") for _ in range(3)]
        assert len(system.weld.open) == len(answers)


async def test_an_error_does_not_end_the_sharing() -> None:
    """Anyone could have one: the service refuses a request, and the next two clients share again."""

    async def answer(connection: Connection) -> None:
        refused = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
        await connection.send(refused if "x=1" in connection.target else _SHAREABLE)

    async with start_system() as system:
        system.weld.answer = answer
        assert (await system.proxy.get("/asset_stream?asset_uuid=A1&x=1")).status == 400
        clients = [await system.stream("A1") for _ in range(3)]
        assert len(system.weld.connections) == 2
        assert len(clients) == 3


async def test_a_burst_waits_for_the_first_head_and_then_shares() -> None:
    """A hundred at once are one request; of a service that does not share each has its own."""
    for head, streams in ((_SHAREABLE, 1), (HEAD, 100)):
        gate = asyncio.Event()
        async with start_system() as system:
            system.weld.answer = _says(head, gate).answer
            burst = [asyncio.create_task(system.stream("A1")) for _ in range(100)]
            await until(lambda system=system: len(system.weld.connections) == 1, "the service is asked")
            gate.set()
            clients = await asyncio.gather(*burst)
            await until(lambda system=system, streams=streams: len(system.weld.open) == streams, "all are there")
            for source in system.weld.open:
                await source.send(chunk(_event(1)))
            assert {(await client.event()).data for client in clients} == {"1"}


async def test_the_first_client_leaves_before_the_service_has_answered() -> None:
    """The others ask for themselves, and for what was since their request."""
    gate = asyncio.Event()
    async with start_system() as system:
        system.weld.answer = _says(_SHAREABLE, gate).answer
        first = await system.proxy.ask("/asset_stream?asset_uuid=A1")
        await until(lambda: len(system.weld.connections) == 1, "the service is asked")
        others = [asyncio.create_task(system.stream("A1")) for _ in range(5)]
        await asyncio.sleep(0.1)
        sock = first.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, not half an end
        first.writer.transport.abort()
        await until(lambda: len(system.weld.connections) == 6, "it is asked again")
        gate.set()
        assert len(await asyncio.gather(*others)) == 5
        for asked in system.weld.connections[1:]:
            assert re.fullmatch(r"@\d+", asked.header("Last-Event-ID")[0])


async def test_a_task_that_does_not_answer_holds_up_only_its_own_client() -> None:
    """The first client reached a deaf task: the others are served by another one, and miss nothing meanwhile."""
    deaf = True

    async def answer(connection: Connection) -> None:
        nonlocal deaf
        if deaf:
            deaf = False
            return
        await connection.send(_SHAREABLE)

    async with start_system(HEAD_TIMEOUT="4s") as system:
        system.weld.answer = answer
        first = asyncio.create_task(system.proxy.get("/asset_stream?asset_uuid=A1"))
        await until(lambda: len(system.weld.connections) == 1, "the deaf task is asked")
        others = await asyncio.gather(*(system.stream("A1") for _ in range(4)))
        assert len(others) == 4
        assert (await first).status == 504
        for asked in system.weld.connections[1:]:
            assert re.fullmatch(r"@\d+", asked.header("Last-Event-ID")[0])


async def test_a_service_that_fails_is_told_to_all() -> None:
    """Who waited for the first one asks itself."""

    async def cut(connection: Connection) -> None:
        connection.writer.close()

    async with start_system() as system:
        system.weld.answer = cut
        burst = await asyncio.gather(*(system.proxy.get("/asset_stream?asset_uuid=A1") for _ in range(20)))
        assert {answer.status for answer in burst} == {502}


async def _never_reads(system: ProxySystem) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", system.proxy.port))
    await asyncio.get_running_loop().sock_sendall(sock, b"GET /asset_stream?asset_uuid=A1 HTTP/1.1\r\nHost: x\r\n\r\n")
    return sock


async def test_a_client_that_does_not_read_is_cut_and_the_others_do_not_wait() -> None:
    """It comes back and resumes; what was pending for it is bounded."""
    async with start_system(IDLE_TIMEOUT="60s") as system:
        system.weld.answer = _says(_SHAREABLE).answer
        good = await system.stream("A1")
        stalled = await _never_reads(system)
        await asyncio.sleep(0.2)
        [source] = system.weld.open
        for number in range(400):
            await source.send(chunk(b"id: Weld/0/%d\ndata: %b\n\n" % (number, b"x" * 10_000)))
            assert (await good.event()).last_id == f"Weld/0/{number}"
        assert await system.proxy.metric('routing_layer_streams_ended_total{reason="client_stalled"}') == 1
        stalled.close()


async def test_a_move_ends_the_streams_of_its_asset_cleanly() -> None:
    """All clients that shared it; those of another asset in the same group stay."""
    async with start_system() as system:
        await system.ksql.put("A3", "Weld")
        system.weld.answer = _says(_SHAREABLE).answer
        moved = [await system.stream("A1") for _ in range(5)]
        stays = await system.stream("A3")
        await system.ksql.put("A1", "Paint")
        for client in moved:
            assert await client.rest() == b""
        await until(lambda: len(system.weld.open) == 1, "the stream of the moved asset is closed")
        await system.weld.open[0].event("still")
        assert (await stays.event()).data == "still"


async def test_the_end_of_the_service_ends_all() -> None:
    """A clean end has a last chunk, a break has none; the next client opens another stream."""
    for clean in (True, False):
        async with start_system() as system:
            system.weld.answer = _says(_SHAREABLE).answer
            clients = [await system.stream("A1") for _ in range(3)]
            [source] = system.weld.open
            if clean:
                await source.send(b"0\r\n\r\n")
            else:
                source.writer.transport.abort()
            for client in clients:
                with contextlib.suppress(asyncio.IncompleteReadError):
                    await client.rest()
                assert client.complete is clean
            await system.stream("A1")
            assert len(system.weld.connections) == 2


async def test_a_held_request_is_not_shared() -> None:
    """It asks for what it missed while it waited: that is its own."""
    async with start_system() as system:
        await system.ksql.put("A7", "Fit")
        system.weld.answer = _says(_SHAREABLE).answer
        held = [asyncio.create_task(system.proxy.get("/asset_stream?asset_uuid=A7")) for _ in range(2)]
        await until(lambda: system.operator.nudged > 0, "they wait for the group's service")
        system.publish({"Fit": system.weld.url})
        answers = await asyncio.gather(*held)
        assert {answer.status for answer in answers} == {200}
        assert len(system.weld.open) == 2
        for source in system.weld.open:
            assert re.fullmatch(r"@\d+", source.header("Last-Event-ID")[0])
