"""Services that are slow, gone, or broken, and the asset state service."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from tests.harness.coroutines import until
from tests.harness.ports import free_port
from tests.integration.routing_layer.fake_sources import FakeKsqldb
from tests.integration.routing_layer.proxy_system import HEAD, Connection, chunk, start_system

_STATE = b'{"value":1E3,"b":"\\u00e9"}'


async def _state(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 26\r\n\r\n" + _STATE)


async def test_asset_state_passes_bytes() -> None:
    """The body is not read and written again: 1E3 stays 1E3; connections to the service are kept."""
    async with start_system(state=_state) as system:
        for _ in range(3):
            answer = await system.proxy.get("/asset_state?asset_uuid=A1&id=%41")
            assert answer.status == 200
            assert await answer.rest() == _STATE
        assert [connection.target for connection in system.state.connections] == [
            "/asset_state?asset_uuid=A1&id=%41"
        ] * 3
        assert len({connection.writer for connection in system.state.connections}) == 1
        head = await system.proxy.get("/asset_state?asset_uuid=A1", "Connection: close", method="HEAD")
        assert head.header("Content-Length") == "26"
        assert await head.reader.read() == b""


async def test_an_answer_that_breaks_in_its_middle_is_a_502() -> None:
    """A short answer is taken whole first, so its failure is not the client's broken connection."""

    async def half(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        connection.writer.close()

    async with start_system(state=half) as system:
        answer = await system.proxy.get("/asset_state?asset_uuid=A1")
        assert answer.status == 502


async def test_a_large_chunked_answer() -> None:
    """An answer of any size and framing passes."""
    large = b"y" * 3_000_000

    async def chunks(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(large), large))

    async with start_system(state=chunks) as system:
        answer = await system.proxy.get("/asset_state")
        assert await answer.rest() == large


async def test_a_service_that_does_not_listen() -> None:
    """502 with Retry-After, that tells the client nothing of where the service is."""
    async with start_system() as system:
        await system.weld.stop()
        answer = await system.proxy.get("/asset_stream?asset_uuid=A1")
        assert answer.status == 502
        assert answer.header("Retry-After") == "2"
        assert (await answer.problem())["detail"] == "the service cannot be reached"


async def test_a_name_that_is_gone() -> None:
    """502 as well."""
    async with start_system() as system:
        system.publish({"Weld": f"http://gone.invalid:{free_port()}/asset_stream"})
        await until(lambda: system.operator.not_modified > 0)
        await asyncio.sleep(0.3)
        answer = await system.proxy.get("/asset_stream?asset_uuid=A1")
        assert answer.status == 502


_EVENT_SOURCE = "Accept: text/event-stream"


async def test_an_event_source_waits_for_the_next_task_of_its_service() -> None:
    """A service that was there a moment ago refuses: an event source, which would not come back, is held; others not.

    The moment is that of its last stream's end, however long ago that began.
    """
    async with start_system(REPLACE_WAIT="4s") as system:
        client = await system.stream("A1")
        await asyncio.sleep(4.5)
        await system.weld.stop()
        await system.weld.cut()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.rest()
        coming = asyncio.create_task(system.proxy.get("/asset_stream?asset_uuid=A1", _EVENT_SOURCE))
        assert (await system.proxy.get("/asset_stream?asset_uuid=A1")).status == 502
        assert not coming.done()
        await system.weld.start()
        assert (await coming).status == 200


async def test_an_event_source_is_not_held_for_ever() -> None:
    """After the wait it gets the error, and at once where the service has never been seen."""
    async with start_system(REPLACE_WAIT="1s") as system:
        await system.stream("A1")
        for service in (system.weld, system.paint):
            await service.stop()
            await service.cut()
        for asset in ("A1", "A2"):
            answer = await system.proxy.get(f"/asset_stream?asset_uuid={asset}", _EVENT_SOURCE)
            assert answer.status == 502
            assert answer.header("Retry-After") == "2"


async def test_an_event_source_is_held_until_the_proxy_is_ready() -> None:
    """A proxy that has just been started does not end a browser's event source."""
    async with start_system(ready=False, ksql=FakeKsqldb(credentials="a:b")) as system:
        coming = asyncio.create_task(system.proxy.get("/asset_stream?asset_uuid=A1", _EVENT_SOURCE))
        assert (await system.proxy.get("/asset_stream?asset_uuid=A1")).status == 503
        await until(lambda: system.ksql.refused > 1, "it was asked for")
        system.ksql.credentials = ""
        assert (await coming).status == 200


async def test_a_service_that_never_answers() -> None:
    """504 after the head's limit; the service is freed."""

    async def never(_connection: Connection) -> None:
        return

    async with start_system(HEAD_TIMEOUT="300ms") as system:
        system.weld.answer = never
        answer = await system.proxy.get("/asset_stream?asset_uuid=A1")
        assert answer.status == 504
        await until(lambda: not system.weld.open)


async def test_a_request_is_sent_once() -> None:
    """A service that takes the request and closes is not asked again: 502."""

    async def close(connection: Connection) -> None:
        connection.writer.close()

    async with start_system() as system:
        system.weld.answer = close
        answer = await system.proxy.get("/asset_stream?asset_uuid=A1")
        assert answer.status == 502
        assert len(system.weld.connections) == 1


_FAULTY = {
    "not HTTP": b"SSH-2.0-x\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a hidden field": b"HTTP/1.1 200 OK\r\nX: 1\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n1",
    "a line without an end": b"HTTP/1.1 200 OK\nContent-Length: 1\n\n1",
    "an endless length": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n1",
    "an endless head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    "endless interim responses": b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 4_000,
    "an empty line first": b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1",
    "a zero byte": b"HTTP/1.1 200 OK\r\nX: \x00",
}


async def test_what_is_not_http() -> None:
    """502 at once, whatever it says and over whichever path; the service's connection is closed."""
    says = b""

    async def answer(connection: Connection) -> None:
        await connection.send(says)
        await connection.reader.read()
        connection.left.set()

    async with start_system(state=answer) as system:
        system.weld.answer = answer
        for what, faulty in _FAULTY.items():
            says = faulty
            for target in ("/asset_stream?asset_uuid=A1", "/group/Weld/asset_stream", "/asset_state"):
                refused = await system.proxy.get(target)
                assert refused.status == 502, (what, target)
                assert (await refused.problem())["detail"] == "the service answered what is not HTTP/1.1"
        await until(lambda: not system.weld.open and not system.state.open, "the services are free")


_BROKEN_BODIES = (
    b"zz\r\n",
    b"0x1\r\na\r\n",
    b"1\r\nabc",
    b"1\na\n",
    b"0\r\nX: \x00\r\n\r\n",
    b"0\r\r\n\r\n",
    b"9" * 5000,
)


async def test_a_body_that_is_malformed_cuts_the_client() -> None:
    """What came before is passed, then the connection ends without a last chunk, and nothing of the rest is passed."""
    says, go = b"", asyncio.Event()

    async def answer(connection: Connection) -> None:
        await connection.send(HEAD + chunk(b"data: 1\n\n"))
        await go.wait()
        await connection.send(says + chunk(b"data: 2\n\n"))

    async with start_system() as system:
        system.weld.answer = answer
        for broken in _BROKEN_BODIES:
            says = broken
            go.clear()
            client = await system.stream("A1")
            assert (await client.event()).data == "1"
            go.set()
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await client.rest()
        ended = 'routing_layer_streams_ended_total{reason="upstream_broke"}'
        assert await system.proxy.metric(ended) == len(_BROKEN_BODIES)


async def test_clients_are_told_nothing_internal() -> None:
    """Of a failure they learn what kind it is; where the service is and why it failed is in the log, once."""
    says: bytes | None = b"nonsense"

    async def answer(connection: Connection) -> None:
        if says is not None:
            await connection.send(says)
            connection.writer.close()

    async with start_system(HEAD_TIMEOUT="300ms", LOG_LEVEL="warning") as system:
        await system.proxy.stop()
        system.proxy.process = await system.proxy.spawn(capture=True)
        system.weld.answer = answer
        names = {"Weld": system.weld.url, "Paint": f"http://internal-name.invalid:{system.paint.port}/asset_stream"}
        system.publish(names)
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(ConnectionError):
                    await system.proxy.wait_ready()
                    break
                await asyncio.sleep(0.05)
        details = set()
        for asset, answer in (("A1", b"nonsense"), ("A1", b""), ("A1", None), ("A2", b""), ("A1", b"stopped")):
            says = answer
            if answer == b"stopped":
                await system.weld.stop()
            for _ in range(3):
                details.add((await (await system.proxy.get(f"/asset_stream?asset_uuid={asset}")).problem())["detail"])
        assert details == {
            "the service answered what is not HTTP/1.1",
            "the service ended the connection before its answer",
            "the service did not answer within 0.3 s",
            "the service cannot be reached",
        }
        system.proxy.process.kill()
        _, output = await system.proxy.process.communicate()
        logged = [entry for entry in map(json.loads, output.splitlines()) if "service" in entry]
        causes = {(line["service"], line["cause"].partition(":")[0]) for line in logged}
        weld = f"127.0.0.1:{system.weld.port}"
        assert causes == {
            (weld, "not an HTTP/1.1 response"),
            (weld, "the connection was closed before the response (end of file)"),
            (weld, "no answer within 0.3 s"),
            (weld, "cannot connect"),
            (f"internal-name.invalid:{system.paint.port}", "the name does not resolve"),
        }
        assert len(logged) == len(causes)


_CLAIMS = (
    *("X-Forwarded-For: 6.6.6.6", "x-forwarded-for: 7.7.7.7, 8.8.8.8", "X-Forwarded-For:"),
    *("X-Forwarded-Proto: https", "X-Forwarded-Host: outside.example", "X-Real-IP: 6.6.6.6"),
    *("Forwarded: for=1.1.1.1", 'Forwarded: for="2.2.2.2', 'Forwarded: for="[2::2]:2";by="\\""'),
    *("Via: 1.1 a", "Via: 1.1 b"),
    *("X_Forwarded_For: 9.9.9.9", "x-forwarded_for: 9.9.9.9", "X_FORWARDED-PROTO: gopher", "X_Mine: 1"),
)


@pytest.mark.parametrize("trusted", ["", "10.0.0.0/8", "10.0.0.0/8,127.0.0.1"])
async def test_a_service_gets_only_what_trusted_proxies_state(trusted: str) -> None:
    """Of all others the proxy states what it saw; of a trusted one the last address is its own, in order."""

    async def answer(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with start_system(state=answer, TRUSTED_PROXIES=trusted) as system:
        await system.proxy.get("/asset_state", *_CLAIMS)
        (asked,) = system.state.connections
        stated = [asked.header(name) for name in ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host")]
        if trusted.endswith("127.0.0.1"):
            assert stated == [["6.6.6.6, 7.7.7.7, 8.8.8.8, 127.0.0.1"], ["https"], ["outside.example"]]
            assert asked.header("Forwarded") == ['for=1.1.1.1, for="[2::2]:2";by="\\"", for=127.0.0.1']
            assert asked.header("X-Real-IP") == ["6.6.6.6"]
        else:
            assert stated == [["127.0.0.1"], ["http"], ["proxy.test:5555"]]
            assert asked.header("Forwarded") == ["for=127.0.0.1"]
            assert asked.header("X-Real-IP") == []
        assert asked.header("Host") == ["proxy.test:5555"]
        assert asked.header("Via") == ["1.1 a", "1.1 b"]
        assert [line.partition(b":")[0] for line in asked.request.split(b"\r\n") if b"_" in line] == [
            b"GET /asset_state HTTP/1.1",
            b"X_Mine",
        ]


async def test_without_a_host_a_service_gets_its_own() -> None:
    """HTTP/1.0 has none, and an empty one names nothing."""

    async def answer(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with start_system(state=answer) as system:
        for request in (b"GET /asset_state HTTP/1.0\r\n\r\n", b"GET /asset_state HTTP/1.1\r\nHost:\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", system.proxy.port)
            writer.write(request)
            assert (await reader.readuntil(b"\r\n\r\n"))[9:12] == b"200"
            assert system.state.connections[-1].header("Host") == [f"127.0.0.1:{system.state.port}"]
            writer.close()


async def test_every_line_that_names_hop_by_hop_fields_counts() -> None:
    """In requests and in responses: what any ``Connection`` line names concerns one connection and is not passed on."""

    async def answer(connection: Connection) -> None:
        fields = (
            b"Connection: X-One\r\nX-One: 1\r\nCONNECTION: x-two ,X-Three\r\nX-Two: 2\r\nX-Three: 3\r\nX-Four: 4\r\n"
        )
        await connection.send(b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 0\r\n\r\n")

    async with start_system(state=answer) as system:
        lines = (
            "Connection: keep-alive",
            "connection: X-One, \xffx",
            "CONNECTION: x-two",
            "X-One: 1",
            "X-Two: 2",
            "X-Four: 4",
        )
        passed = await system.proxy.get("/asset_state", *lines)
        assert [passed.header(f"X-{name}") for name in ("One", "Two", "Three", "Four")] == [None, None, None, "4"]
        assert passed.header("Connection") is None
        (asked,) = system.state.connections
        assert [asked.header(f"X-{name}") for name in ("One", "Two", "Four")] == [[], [], ["4"]]
        assert asked.header("Connection") == []


async def test_a_name_with_several_addresses() -> None:
    """Where one address refuses, another is tried: localhost is ::1 and 127.0.0.1, and only one of them listens."""
    async with start_system() as system:
        system.publish({"Weld": f"http://localhost:{system.weld.port}/asset_stream"})
        await until(lambda: system.operator.not_modified > 0)
        await asyncio.sleep(0.3)
        clients = [await system.stream("A1") for _ in range(6)]
        assert len(clients) == len(system.weld.open) == 6
