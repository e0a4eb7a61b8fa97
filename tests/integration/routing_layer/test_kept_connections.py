"""Connections to the asset state service that are kept: no client gets the answer to another's request."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

from tests.harness.coroutines import until
from tests.integration.routing_layer.proxy_system import Connection, ProxySystem, start_system
from tests.integration.routing_layer.quick_proxy import QUICK

_BODY = b'{"mine":1}'
_CLEAN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + _BODY
_FOREIGN = b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n" + b'{"foreign":"!"}'

#: What comes as the answer, what comes after the client has it, and what the client gets for the first.
_POISON = {
    "a second response at once": (_CLEAN + _FOREIGN, b"", 200),
    "a late second response": (_CLEAN, _FOREIGN, 200),
    "a 304 with a body": (b"HTTP/1.1 304 Not Modified\r\n\r\n" + _FOREIGN, b"", 304),
    "a 304 with a late body": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 87\r\n\r\n", _FOREIGN, 304),
    "a 304 with chunks": (b"HTTP/1.1 304 -\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\n\r\n", 304),
    "an idle 408": (_CLEAN, b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 3\r\n\r\nnot", 200),
    "a chunked 204": (b"HTTP/1.1 204 -\r\nTransfer-Encoding: chunked\r\n\r\n", b"3\r\nnot\r\n0\r\n\r\n", 502),
    "a 204 with a body": (b"HTTP/1.1 204 -\r\n\r\n" + _FOREIGN, b"", 204),
    "a 204 with a length": (b"HTTP/1.1 204 -\r\nContent-Length: 87\r\n\r\n", _FOREIGN, 502),
    "a body that is a byte too long": (_CLEAN + b"}", b"", 200),
    "a body that is a byte too long, late": (_CLEAN, b"}", 200),
    "a body that is a byte short": (_CLEAN[:-1], b"", 504),
    "an empty line": (_CLEAN, b"\r\n", 200),
    "a late interim response": (_CLEAN, b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 200),
    "a length and chunks": (_CLEAN[:-14] + b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", _FOREIGN, 502),
    "a switch of protocols": (b"HTTP/1.1 101 -\r\nUpgrade: x\r\n\r\n", _FOREIGN, 502),
    "an end": (_CLEAN, b"end", 200),
}


class _Poisoner:
    """The state service: answers the request that has ``poison`` as it says, and every other with a clean answer."""

    def __init__(self) -> None:
        self.answer = self.after = b""
        self.served = asyncio.Event()  # the client has its answer
        self.sent = asyncio.Event()

    async def __call__(self, connection: Connection) -> None:
        if "poison" not in connection.target:
            await connection.send(_CLEAN)
            return
        await connection.send(self.answer)
        await self.served.wait()
        if self.after == b"end":
            connection.writer.write_eof()
        else:
            await connection.send(self.after)
        self.sent.set()


async def _ask(system: ProxySystem, target: str, method: str = "GET") -> tuple[int, bytes]:
    """Ask on a connection of its own; return the status and all bytes after the head."""
    answer = await system.proxy.get(target, "Connection: close", method=method)
    return answer.status, await answer.reader.read()


async def test_no_answer_reaches_the_next_client() -> None:
    """Bytes in addition to one answer to one request end the connection before it is used again."""
    service = _Poisoner()
    async with start_system(state=service, HEAD_TIMEOUT="400ms") as system:
        for (what, (service.answer, service.after, status)), first in itertools.product(
            _POISON.items(), ("GET", "HEAD")
        ):
            service.served.clear()
            service.sent.clear()
            assert (await _ask(system, "/asset_state?poison", first))[0] == status, what
            (poisoned,) = [each for each in system.state.connections if "poison" in each.target]
            service.served.set()
            await service.sent.wait()
            for _ in range(3):
                assert await _ask(system, "/asset_state") == (200, _BODY), what
            await until(poisoned.left.is_set, f"the connection is closed: {what}")
            assert [each.writer for each in system.state.connections].count(poisoned.writer) == 1, what
            system.state.connections.clear()


async def test_an_idle_connection_buffers_nothing() -> None:
    """A service that pours into a kept connection loses it at once; the proxy goes on and its memory stays."""
    cut = asyncio.Event()

    async def pour(connection: Connection) -> None:
        await connection.send(_CLEAN)
        if "poison" in connection.target:
            await asyncio.sleep(0.1)
            try:
                for _ in range(64):
                    await connection.send(b"x" * 1024 * 1024)
            except ConnectionError:
                cut.set()

    async with start_system(state=pour) as system:
        await _ask(system, "/asset_state")
        before = system.proxy.memory()
        assert await _ask(system, "/asset_state?poison") == (200, _BODY)
        await asyncio.wait_for(cut.wait(), 10)
        assert await _ask(system, "/asset_state") == (200, _BODY)
        assert system.proxy.memory() - before < 8 * 1024


async def test_an_answer_that_no_client_waits_for() -> None:
    """The client left, or got a 504: the connection is closed, not kept for an answer that may still come."""
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(connection: Connection) -> None:
        if "poison" in connection.target:
            asked.set()
            await go.wait()
            await connection.send(_FOREIGN)
        else:
            await connection.send(_CLEAN)

    async with start_system(state=slow, HEAD_TIMEOUT="1s") as system:
        leaving = await system.proxy.ask("/asset_state?poison")
        await asked.wait()
        leaving.writer.transport.abort()
        assert (await _ask(system, "/asset_state?poison"))[0] == 504
        go.set()
        for _ in range(3):
            assert await _ask(system, "/asset_state") == (200, _BODY)
        await until(lambda: all(each.left.is_set() for each in system.state.connections if "poison" in each.target))


_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def test_a_kept_connection_that_had_ended_is_no_failure() -> None:
    """It breaks when it is used again, before a byte of the answer: the request is sent once more, on a new one."""
    breaks: str | None = None

    async def answer(connection: Connection) -> None:
        used = [each for each in system.state.connections if each.writer is connection.writer]
        if breaks is not None and len(used) > 1:
            await connection.send(_TIMEOUT if breaks == "408" else b"")
            if breaks == "reset":
                connection.writer.transport.abort()
            connection.writer.close()
        else:
            await connection.send(_CLEAN)

    async with start_system(state=answer) as system:
        assert await _ask(system, "/asset_state") == (200, _BODY)
        for breaks, method in itertools.product(("end", "reset", "408"), ("GET", "HEAD")):
            before = len(system.state.connections)
            assert await _ask(system, "/asset_state", method) == (200, _BODY if method == "GET" else b""), breaks
            old, new = system.state.connections[before:]
            assert old.writer is system.state.connections[before - 1].writer is not new.writer


async def test_a_request_is_repeated_at_most_once() -> None:
    """A new connection that breaks is a 502; so is an old one that breaks after a byte of the answer."""
    sent: bytes | None = None

    async def answer(connection: Connection) -> None:
        if sent is None:
            await connection.send(_CLEAN)
        else:
            await connection.send(sent)
            connection.writer.close()

    async with start_system(state=answer) as system:
        for broken in (b"", b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"):
            sent = None
            assert await _ask(system, "/asset_state") == (200, _BODY)
            sent = broken
            for kept in (True, False):
                before = len(system.state.connections)
                assert (await _ask(system, "/asset_state"))[0] == 502
                assert len(system.state.connections) - before == (2 if kept and not broken else 1), broken


#: A busy machine must not let them end by themselves before a test uses them.
_KEPT = {**QUICK, "routing_layer.upstream.forwarder:_KEEP_SECONDS": 60.0}


async def test_however_many_kept_connections_have_ended_each_request_is_answered() -> None:
    """All at once, as when the service is restarted: each request is sent once more, on a new connection."""
    count, dead, together = 8, set[asyncio.StreamWriter](), asyncio.Event()

    async def answer(connection: Connection) -> None:
        if connection.writer in dead:
            connection.writer.transport.abort()
            return
        if len({each.writer for each in system.state.connections} - dead) == count:
            together.set()
        await together.wait()
        await connection.send(_CLEAN)

    async with start_system(state=answer, constants=_KEPT) as system:
        for method in ("GET", "HEAD", "GET"):
            for asked in (count, 2 * count):
                system.state.connections.clear()
                together.clear()
                answers = await asyncio.gather(*(_ask(system, "/asset_state", method) for _ in range(count)))
                assert answers == [(200, _BODY if method == "GET" else b"")] * count
                assert len(system.state.connections) == asked
                if asked == count:
                    dead.update(each.writer for each in system.state.connections)


async def test_a_service_that_is_gone_is_not_asked_again() -> None:
    """The kept connection ends, and a new one is refused: 502, and the next request is served when it is back."""
    gone = False

    async def answer(connection: Connection) -> None:
        if gone:
            connection.writer.transport.abort()
        else:
            await connection.send(_CLEAN)

    async with start_system(state=answer, constants=_KEPT) as system:
        for method in ("GET", "HEAD"):
            assert await _ask(system, "/asset_state") == (200, _BODY)
            gone = True
            await system.state.stop()
            asked = len(system.state.connections)
            refused = await system.proxy.get("/asset_state", method=method)
            assert (refused.status, refused.header("Retry-After")) == (502, "2")
            assert len(system.state.connections) == asked + 1
            gone = False
            await system.state.start()
            assert await _ask(system, "/asset_state") == (200, _BODY)


async def test_a_stream_has_a_connection_of_its_own() -> None:
    """Also where its service has one that is kept: a stream's request is sent once, so never on an old one."""

    async def answer(connection: Connection) -> None:
        await connection.send(_CLEAN)

    async with start_system(state=answer, constants=_KEPT) as system:
        system.publish({"Weld": f"http://127.0.0.1:{system.state.port}/asset_state", "Paint": system.paint.url})
        asked = system.operator.not_modified
        await until(lambda: system.operator.not_modified > asked, "the proxy has the registry")
        for _ in range(3):
            assert await _ask(system, "/asset_state?mine") == (200, _BODY)
            stream = await system.proxy.get("/asset_stream?asset_uuid=A1", "Connection: close")
            assert (stream.status, await stream.reader.read()) == (200, _BODY)
        states = {each.writer for each in system.state.connections if "mine" in each.target}
        streams = [each.writer for each in system.state.connections if "mine" not in each.target]
        assert len(states) == 1
        assert len(set(streams)) == len(streams) == 3
        assert not states & set(streams)


async def test_kept_connections_are_not_kept_for_ever() -> None:
    """Without another request they are closed by us, and used before that."""

    async def answer(connection: Connection) -> None:
        await connection.send(_CLEAN)

    async with start_system(state=answer) as system:
        clients = await asyncio.gather(*(system.proxy.get("/asset_state") for _ in range(10)))
        with contextlib.suppress(asyncio.IncompleteReadError):
            await asyncio.gather(*(client.rest() for client in clients))
        await until(lambda: all(each.left.is_set() for each in system.state.connections), "all are closed")
