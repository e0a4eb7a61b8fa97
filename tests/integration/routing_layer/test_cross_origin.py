"""Pages of other origins, over sockets and in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.coroutines import until
from tests.harness.ports import free_port
from tests.integration.routing_layer.event_source_page import browsing
from tests.integration.routing_layer.proxy_system import Connection, Response, chunk, start_system

_OURS, _OTHER = "https://plant.example", "https://evil.example"
_TARGETS = {
    "/asset_stream?asset_uuid=A1": 200,
    "/group/Weld/asset_stream": 200,
    "/asset_state?asset_uuid=A1": 200,
    "/asset_stream?asset_uuid=unknown": 404,
    "/asset_stream": 400,
    "/nothing": 404,
    "/healthz": 200,
    "/readyz": 200,
    "/metrics": 200,
}
_HEAD = (
    b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\naccess-control-expose-headers: X-Theirs\r\nVary: Accept\r\n"
)


async def _answer(connection: Connection) -> None:
    if b"asset_state" in connection.request:
        await connection.send(_HEAD + b"Content-Length: 2\r\n\r\n{}")
    else:
        await connection.send(_HEAD + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")


def _fields(answer: Response) -> list[str]:
    """Return the field lines of the answer that are about origins, in lower case and in order."""
    return sorted(line.lower() for line in answer.lines if line.lower().startswith(("access-control-", "vary: o")))


_ALLOWED = [
    "access-control-allow-credentials: true",
    f"access-control-allow-origin: {_OURS}",
    "access-control-expose-headers: retry-after, www-authenticate",
    "vary: origin",
]


async def test_every_answer_to_an_allowed_origin_can_be_read() -> None:
    """A stream's head, a state, the proxy's own answers and its problem documents; a service's own fields are gone."""
    async with start_system(state=_answer, CORS_ORIGINS=f"http://b.example,{_OURS}") as system:
        system.weld.answer = _answer
        for target, status in _TARGETS.items():
            for origin, fields in ((_OURS, _ALLOWED), (_OTHER, ["vary: origin"]), ("null", ["vary: origin"])):
                answer = await system.proxy.get(target, f"Origin: {origin}")
                assert (answer.status, _fields(answer)) == (status, fields), (target, origin)
                answer.leave()
            answer = await system.proxy.get(target)
            assert _fields(answer) == ["vary: origin"], target
            answer.leave()
        answer = await system.proxy.get("/asset_state", f"Origin: {_OURS}", method="HEAD")
        assert _fields(answer) == _ALLOWED
        assert "Vary: Accept" in answer.lines
        answer = await system.proxy.get("/asset_state", f"Origin: {_OURS}", method="DELETE")
        assert (answer.status, _fields(answer)) == (405, _ALLOWED)
        await system.weld.stop()
        answer = await system.proxy.get("/asset_stream?asset_uuid=A1", f"Origin: {_OURS}")
        assert (answer.status, _fields(answer)) == (502, _ALLOWED)


async def test_without_the_setting_a_services_own_fields_pass() -> None:
    """And the proxy's own answers have none; a preflight is a method that is not supported."""
    async with start_system(state=_answer) as system:
        answer = await system.proxy.get("/asset_state", f"Origin: {_OURS}")
        assert _fields(answer) == ["access-control-allow-origin: *", "access-control-expose-headers: x-theirs"]
        answer = await system.proxy.get("/asset_stream", f"Origin: {_OURS}")
        assert _fields(answer) == []
        asked = f"Origin: {_OURS}", "Access-Control-Request-Method: GET"
        assert (await system.proxy.get("/asset_state", *asked, method="OPTIONS")).status == 405


async def test_a_redirect_can_be_read() -> None:
    """A browser follows it only with the fields."""
    async with start_system(ROUTING_MODE="redirect", CORS_ORIGINS="*") as system:
        answer = await system.proxy.get("/asset_stream?asset_uuid=A1", f"Origin: {_OTHER}")
        assert answer.status == 307
        assert _fields(answer) == [
            "access-control-allow-origin: *",
            "access-control-expose-headers: retry-after, www-authenticate",
        ]


async def test_preflights_are_answered_by_the_proxy() -> None:
    """On one connection, for every path that exists, whether its service runs or not; an unknown path is a 405."""
    async with start_system(CORS_ORIGINS=_OURS) as system:
        await system.weld.stop()
        asked = "Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: authorization\r\n\r\n"
        for origin in (_OURS, _OTHER):
            client = await system.proxy.get("/healthz")
            for target in ("/asset_stream?asset_uuid=A1", "/group/Weld/asset_stream", "/asset_state", "/healthz"):
                await client.rest()
                client.writer.write(f"OPTIONS {target} HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n{asked}".encode())
                answer = Response(client.reader, client.writer, await client.reader.readuntil(b"\r\n\r\n"))
                assert answer.status == 204, target
                assert answer.header("Content-Length") in (None, "0")
                assert answer.header("Access-Control-Allow-Origin") == (_OURS if origin == _OURS else None)
                allowed = "Authorization, Last-Event-ID, Cache-Control" if origin == _OURS else None
                assert answer.header("Access-Control-Allow-Headers") == allowed
                assert answer.header("Access-Control-Allow-Methods") == ("GET, HEAD" if allowed else None)
                assert answer.header("Access-Control-Max-Age") == ("600" if allowed else None)
                assert answer.header("Vary") == "Origin"
                client.writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                client = Response(client.reader, client.writer, await client.reader.readuntil(b"\r\n\r\n"))
        asked_lines = f"Origin: {_OURS}", "Access-Control-Request-Method: GET"
        refused = await system.proxy.get("/nothing", *asked_lines, method="OPTIONS")
        assert refused.status == 405
        refused = await system.proxy.get("/asset_state", f"Origin: {_OURS}", method="OPTIONS")
        assert refused.status == 405
        counted = await system.proxy.metrics()
        assert counted['routing_layer_requests_total{code="204",route="asset_stream"}'] == 2
        assert system.weld.connections == system.state.connections == []


@pytest.mark.timeout(300)
async def test_a_browser_shows_streams_only_to_pages_that_are_allowed(chromium: str, tmp_path: Path) -> None:
    """A page of another origin opens an EventSource with cookies: its origin decides, whatever the service says."""

    async def stream(connection: Connection) -> None:
        await _answer(connection)
        await connection.send(chunk(b"id: 1\ndata: hello\n\n"))

    port = free_port()
    for allowed in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
        async with start_system(CORS_ORIGINS=allowed) as system:
            system.weld.answer = stream
            url = f"http://127.0.0.1:{system.proxy.port}/asset_stream?asset_uuid=A1"
            profile = tmp_path / str(system.proxy.port)
            async with browsing(chromium, profile, url, port=port, credentials=True) as page:
                await until(lambda page=page: len(page.reports) > 1 or page.kinds("error"), "an event or an error")
            assert system.weld.connections
        if "127.0.0.1" in allowed:
            assert page.messages == [("hello", "1")]
        else:
            assert page.reports == [{"kind": "error", "closed": True}]
