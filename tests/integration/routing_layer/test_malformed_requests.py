"""What is not HTTP, or not quite, is refused with the one JSON shape, and leaves nothing in the log."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from tests.harness.coroutines import PATIENCE, until
from tests.integration.routing_layer.proxy_system import Connection, Proxy, Response, start_system

_MALFORMED = {
    "no request": b"GARBAGE\r\n\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "a target that is too long": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "two lengths": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
    "a length and chunks": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "two equal lengths": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 0\r\n\r\n",
    "a length with a sign": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +0\r\n\r\n",
    "a length of 5,000 digits": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "a blank before the colon": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length : 0\r\n\r\n",
    "an unknown coding": b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    "nearly chunked": b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "chunked twice": b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked in two lines": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n",
    "a chunk's size with 0x": b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "chunks that end with LF": b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
    "LF alone": b"GET / HTTP/1.1\nHost: x\n\n",
    "LF alone in a head": b"GET / HTTP/1.1\r\nHost: x\nX-A: b\r\n\r\n",
    "CR alone": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: b\rc\r\n\r\n",
    "a zero byte in a field": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: b\0c\r\n\r\n",
    "ESC in a field": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: b\x1bc\r\n\r\n",
    "ESC in the target": b"GET /\x1b[31m HTTP/1.1\r\nHost: x\r\n\r\n",
    "raw UTF-8 in the target": "GET /\u202e HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "a folded line": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: b\r\n c\r\n\r\n",
    "a folded first line": b"GET / HTTP/1.1\r\n X-A: b\r\nHost: x\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "two hosts in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n",
    "a list of hosts": b"GET / HTTP/1.1\r\nHost: x, y\r\n\r\n",
    "a host with a blank": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a host with a user": b"GET / HTTP/1.1\r\nHost: u@x\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n",
    "an absolute target with a user": b"GET http://u:p@x/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "an absolute target without a host": b"GET http:///healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a port that is none": b"GET / HTTP/1.1\r\nHost: x:65536\r\n\r\n",
    "an absolute target with a port that is none": b"GET http://x:99999/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "another scheme": b"GET ftp://x/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target with a fragment": b"GET /healthz#x HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target without a slash": b"GET healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "no version": b"GET /healthz\r\n\r\n",
    "HTTP/0.9": b"GET /healthz HTTP/0.9\r\nHost: x\r\n\r\n",
    "HTTP/1.2": b"GET /healthz HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/2 without TLS": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a zero byte": b"GET /asset_stream?asset_uuid=A1\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
}


async def _status(proxy: Proxy, data: bytes) -> int:
    """Return the status of the answer to what is sent."""
    return (await _send(proxy, data)).status


async def _send(proxy: Proxy, data: bytes) -> Response:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(data)
    async with asyncio.timeout(PATIENCE):
        return Response(reader, writer, await reader.readuntil(b"\r\n\r\n"))


async def test_malformed_requests() -> None:
    """400 as a problem document, then the end of the connection; the next client is served."""
    async with start_system() as system:
        for what, data in _MALFORMED.items():
            answer = await _send(system.proxy, data)
            assert answer.status == 400, what
            problem = await answer.problem()
            assert problem["type"] == "urn:openfactory:routing-layer:bad-request", what
            assert problem["detail"], what
            assert await answer.reader.read() == b"", what
        await system.stream("A1")


#: What people and programs get wrong, and what has to be in the answer.
_EXPLAINED = [
    ("/asset_stream?asset_uuid=Ofen-ä", "'ä' in it; percent-encode it: %C3%A4"),
    ("/asset_state?asset_uuid=A1&id=温度", "'温' in it; percent-encode it: %E6%B8%A9"),
    ("/group/Schweißen/asset_stream", "'ß' in it; percent-encode it: %C3%9F"),
    ("http://plant.example/asset_stream?asset_uuid=Ofen-ä", "'ä' in it; percent-encode it: %C3%A4"),
    ("/asset_stream?asset_uuid=Ofen 1", "' ' in it; percent-encode it: %20"),
    ("/asset_stream?asset_uuid=\u202e", "percent-encode it: %E2%80%AE"),
    ("ftp://plant.example/healthz", "the scheme ftp"),
    ("http:///healthz", ""),
    ("/asset_stream?asset_uuid=Ofen#1", "percent-encode a # as %23"),
    ("healthz", ""),
]


async def test_a_target_that_is_refused_is_explained() -> None:
    """400 whose detail names the character and how to write it, or what else is wrong; then the end."""
    async with start_system() as system:
        for target, words in _EXPLAINED:
            answer = await _send(system.proxy, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert answer.status == 400, target
            detail = (await answer.problem())["detail"]
            assert words in detail, (target, detail)
            assert detail.isprintable(), target
            assert await answer.reader.read() == b"", target
        latin = await _send(system.proxy, b"GET /asset_stream?asset_uuid=Ofen-\xe4 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert "not UTF-8; percent-encode it: %E4" in (await latin.problem())["detail"]
        await system.ksql.put("Ofen-ä", "Weld")
        assert (await system.proxy.get("/asset_stream?asset_uuid=Ofen-%C3%A4")).status == 200


async def test_a_request_that_never_ends_is_bounded() -> None:
    """A head without an end is refused before it fills the memory."""
    async with start_system() as system:
        endless = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(100_000))
        answer = await _send(system.proxy, endless)
        assert answer.status == 431
        assert json.loads(await answer.rest())["status"] == 431


@pytest.mark.parametrize("target", ["/asset_stream?asset_uuid=%ff", "/group/%ff/asset_stream", "/asset_stream?x=%zz"])
async def test_targets_that_are_no_text(target: str) -> None:
    """400 or 404, never a 500."""
    async with start_system() as system:
        answer = await system.proxy.get(target)
        assert answer.status in (400, 404)
        await answer.problem()


async def test_another_protocol_is_named() -> None:
    """505, and the end of the connection."""
    async with start_system() as system:
        for version in ("2.0", "3.0"):
            answer = await _send(system.proxy, f"GET /healthz HTTP/{version}\r\nHost: x\r\n\r\n".encode())
            if version == "2.0":
                assert answer.status == 505
                problem = await answer.problem()
                assert problem["type"] == "urn:openfactory:routing-layer:unsupported-version"
            else:
                assert answer.status in (400, 505)
                await answer.problem()
            assert await answer.reader.read() == b""


async def test_a_whole_url_is_its_path() -> None:
    """Absolute-form (RFC 9112, 3.2.2): answered as its path is, and its host replaces the one of the field."""
    async with start_system() as system:
        target = b"GET http://plant.example:80/asset_stream?asset_uuid=A1&x=http://y/?z HTTP/1.1\r\nHost: other\r\n\r\n"
        assert (await _send(system.proxy, target)).status == 200
        [connection] = system.weld.open
        assert connection.target == "/asset_stream?asset_uuid=A1&x=http://y/?z"
        assert connection.header("Host") == connection.header("X-Forwarded-Host") == ["plant.example:80"]
        assert (await system.proxy.get("HTTPS://x/healthz")).status == 200
        assert (await system.proxy.get("http://x?asset_uuid=A1")).status == 404
        assert (await system.proxy.get("http://x")).status == 404
        group = await system.proxy.get("http://x/group/Weld/asset_stream?asset_uuid=A1")
        assert group.status == 200
        assert (await system.proxy.get("/http://x/healthz")).status == 404


@pytest.mark.parametrize(
    ("body", "answered"),
    [
        (b"Content-Length: 45\r\n\r\nGET /asset_state HTTP/1.1\r\nHost: x\r\nX: yz\r\n\r\n", (200, 404)),
        (b"Transfer-Encoding: chunked\r\n\r\n1b\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n\r\n0\r\n\r\n", (200,)),
    ],
)
async def test_the_body_of_a_request_is_no_request(body: bytes, answered: tuple[int, ...]) -> None:
    """It is read past, and what follows it is answered, or after chunks nothing; the service never sees it."""
    async with start_system() as system:
        reader, writer = await asyncio.open_connection("127.0.0.1", system.proxy.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + body + b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        for status in answered:
            answer = Response(reader, writer, await reader.readuntil(b"\r\n\r\n"))
            assert answer.status == status
            await answer.rest()
        if len(answered) == 1:
            assert answer.header("Connection") == "close"
            assert await reader.read() == b""
        assert system.state.connections == []
        answer = await _send(system.proxy, b"GET /asset_stream?asset_uuid=A1 HTTP/1.1\r\nHost: x\r\n" + body)
        assert answer.status == 200
        [connection] = system.weld.open
        assert connection.header("Content-Length") == connection.header("Transfer-Encoding") == []


async def test_the_trailers_of_a_request_are_not_fields_of_the_next() -> None:
    """Behind a reverse proxy the next request is another client's: it would have gone out with them."""
    async with start_system(state=_clean) as system:
        reader, writer = await asyncio.open_connection("127.0.0.1", system.proxy.port)
        first = b"GET /asset_state HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nCookie: theirs\r\n\r\n"
        writer.write(first + b"GET /asset_state?second HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = Response(reader, writer, await reader.readuntil(b"\r\n\r\n"))
        assert (answer.status, answer.header("Connection")) == (200, "close")
        assert await reader.read() == b"{}"
        assert [asked.header("Cookie") for asked in system.state.connections] == [[]]


async def _clean(asked: Connection) -> None:
    await asked.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


async def test_a_long_head_is_refused() -> None:
    """However many fields make it long."""
    async with start_system() as system:
        head = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: %b\r\n" % (i, b"y" * 7000) for i in range(5))
        answer = await _send(system.proxy, head)
        assert answer.status == 431
        assert (await answer.problem())["type"].endswith(":long-request")


@pytest.mark.parametrize("before", [b"", b"GET /asset_stream?asset_uuid=A1 HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_long_heads_are_not_kept(before: bytes) -> None:
    """By the parser's limits each could be 1 MiB: it ends the connection, or waits unread behind a stream."""
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: %b\r\n" % (i, b"y" * 8000) for i in range(100))
    async with start_system() as system:
        at_rest = system.proxy.memory()
        clients = [await asyncio.open_connection("127.0.0.1", system.proxy.port) for _ in range(100)]
        for reader, writer in clients:
            writer.write(before + head)
            with contextlib.suppress(ConnectionError, TimeoutError):
                await asyncio.wait_for(writer.drain() if before else reader.read(), 0.1)
        assert await _status(system.proxy, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") == 200
        assert system.proxy.memory() - at_rest < 40 * 1024  # 100 heads are 80 MiB
        for _, writer in clients:
            writer.transport.abort()


async def test_a_long_body_is_not_read() -> None:
    """Its request is answered, and the connection ends."""
    async with start_system() as system:
        reader, writer = await asyncio.open_connection("127.0.0.1", system.proxy.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n"))[9:12] == b"405"
        with pytest.raises(ConnectionError):
            await _pour(writer, 90_000_000)
        assert await _status(system.proxy, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") == 200


@pytest.mark.parametrize(("method", "size", "status"), [("POST", 200_000, 405), ("GET", 40_000, 200)])
async def test_the_answer_to_a_long_body_is_not_lost(method: str, size: int, status: int) -> None:
    """The connection ends after it, and not with a reset, which would take the answer back."""
    async with start_system() as system:
        reader, writer = await asyncio.open_connection("127.0.0.1", system.proxy.port)
        writer.write(f"{method} /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * size)
        async with asyncio.timeout(PATIENCE):
            answer = await reader.read()
        assert int(answer[9:12]) == status
        assert b"\r\nConnection: close\r\n" in answer
        writer.close()


async def test_a_long_body_that_comes_late_ends_its_connection() -> None:
    """Its length says so with the head, and the answer does not wait for it."""
    async with start_system() as system:
        reader, writer = await asyncio.open_connection("127.0.0.1", system.proxy.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 40000\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"x" * 40_000)
            await reader.read()
        assert b"\r\nConnection: close\r\n" in head
        writer.close()


async def test_the_answer_to_a_long_head_is_not_lost() -> None:
    """Neither."""
    async with start_system() as system:
        reader, writer = await asyncio.open_connection("127.0.0.1", system.proxy.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: %b\r\n" % (b"y" * 7000) * 60)
        async with asyncio.timeout(PATIENCE):
            assert (await reader.read()).startswith(b"HTTP/1.1 431 ")
        writer.close()


async def test_a_body_does_not_count_for_the_next_head() -> None:
    """Each has its limit."""
    async with start_system() as system:
        reader, writer = await asyncio.open_connection("127.0.0.1", system.proxy.port)
        for field, body in ((b"Content-Length: 32000", b"x" * 32_000), (b"X-Long: " + b"y" * 2000, b"")):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n%b" % (field, body))
            answer = Response(reader, writer, await reader.readuntil(b"\r\n\r\n"))
            assert answer.status == 200
            await answer.rest()


async def test_who_sends_much_behind_a_stream_is_cut() -> None:
    """It would get nothing for it, and it could not be seen to leave."""
    async with start_system() as system:
        reader, writer = await asyncio.open_connection("127.0.0.1", system.proxy.port)
        writer.write(b"GET /asset_stream?asset_uuid=A1 HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2000)
        await until(lambda: not system.weld.open, "the service is free")


async def _pour(writer: asyncio.StreamWriter, size: int) -> None:
    for _ in range(size // 1_000_000):
        writer.write(b"x" * 1_000_000)
        await writer.drain()


async def test_what_a_client_types_is_escaped_in_what_it_is_told() -> None:
    """Raw ESC, C1 controls and characters that turn the direction of writing are in no problem document."""
    typed = "%1b%5b31m%e2%80%ae%c2%9b%0d%0a%e2%81%a6"
    targets = (
        f"/{typed}",
        f"/asset_stream?asset_uuid={typed}",
        f"/group/{typed}/asset_stream",
        f"/group/Weld/asset_stream?asset_uuid={typed}",
        f"/asset_state/{typed}",
    )
    async with start_system() as system:
        for target in targets:
            answer = await system.proxy.get(target)
            problem = await answer.problem()
            assert answer.status == 404, target
            assert problem["detail"].isprintable(), target
            assert "31m" in problem["detail"], target
