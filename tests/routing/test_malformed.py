"""What is not HTTP, or not quite, is refused with the one JSON shape, and leaves nothing in the log."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.routing.world import PATIENCE, Proxy, Response, world

_MALFORMED = {
    "no request": b"GARBAGE\r\n\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "a target that is too long": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "two lengths": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
    "a length and chunks": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a zero byte": b"GET /asset_stream?asset_uuid=A1\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
}


async def _send(proxy: Proxy, data: bytes) -> Response:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(data)
    async with asyncio.timeout(PATIENCE):
        return Response(reader, writer, await reader.readuntil(b"\r\n\r\n"))


async def test_malformed_requests() -> None:
    """400 as a problem document, then the end of the connection; the next client is served."""
    async with world() as around:
        for what, data in _MALFORMED.items():
            answer = await _send(around.proxy, data)
            assert answer.status == 400, what
            problem = await answer.problem()
            assert problem["type"] == "urn:openfactory:routing-layer:bad-request", what
            assert problem["detail"], what
            assert await answer.reader.read() == b"", what
        await around.stream("A1")


async def test_a_request_that_never_ends_is_bounded() -> None:
    """A head without an end is refused before it fills the memory."""
    async with world() as around:
        endless = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(100_000))
        answer = await _send(around.proxy, endless)
        assert answer.status == 400
        assert json.loads(await answer.rest())["status"] == 400


@pytest.mark.parametrize("target", ["/asset_stream?asset_uuid=%ff", "/group/%ff/asset_stream", "/asset_stream?x=%zz"])
async def test_targets_that_are_no_text(target: str) -> None:
    """400 or 404, never a 500."""
    async with world() as around:
        answer = await around.proxy.get(target)
        assert answer.status in (400, 404)
        await answer.problem()
