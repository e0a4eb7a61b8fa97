"""The issuer's server of keys, which can be away, slow, or lie; and a proxy that asks it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.harness.issuer import AUDIENCE, ISSUER, key_set, make_token, public_jwk
from tests.harness.ports import free_port
from tests.integration.routing_layer.proxy_system import Connection, ProxySystem, start_system
from tests.integration.routing_layer.quick_proxy import QUICK

#: Keys are read again soon, so that a test need not wait.
QUICK_KEYS: dict[str, Any] = {
    **QUICK,
    "routing_layer.access.keys:_UNKNOWN_KEY_GAP": 0.1,
    "routing_layer.access.keys:_FIRST_SECONDS": 0.1,
    "routing_layer.access.keys:KeyServer.interval": 600.0,
    "routing_layer.access.keys:KeyServer.retry": 600.0,
    "routing_layer.access.keys:KeyFile.interval": 0.1,
    "routing_layer.access.keys:KeyFile.retry": 0.1,
}
#: What a token of a test grants unless the test says otherwise.
WELD = {"groups": ["Weld"]}


class FakeKeyServer:
    """Serves a JWK set.

    Attributes:
        keys: the document.
        answer: answers instead, if it is set.
        asked: how often it was asked.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """Start with one key, ``one``."""
        self.port = free_port()
        self.keys = key_set(public_jwk("ES256", "one"))
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self.asked = 0
        self._tls = tls
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where the set is."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/keys?v=1"

    async def start(self) -> FakeKeyServer:
        """Listen."""
        app = web.Application()
        app.router.add_get("/keys", self._keys)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True, ssl_context=self._tls).start()
        return self

    async def stop(self) -> None:
        """Go away."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _keys(self, request: web.Request) -> web.StreamResponse:
        assert request.query_string == "v=1"
        self.asked += 1
        return await self.answer(request) if self.answer else web.Response(body=self.keys)


def bearer(token: str) -> str:
    """Return the field that has the token."""
    return f"Authorization: Bearer {token}"


def valid(claim: Any = WELD, **more: Any) -> str:
    """Return the field of a valid token."""
    return bearer(make_token(openfactory=claim, **more))


async def answer_state(connection: Connection) -> None:
    """Answer a request for a state."""
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


@contextlib.asynccontextmanager
async def start_guarded(
    *, keys: FakeKeyServer | None = None, started: bool = True, **more: Any
) -> AsyncIterator[tuple[ProxySystem, FakeKeyServer]]:
    """Start a system whose proxy checks tokens, and the server of keys unless it is to be away."""
    server = keys or FakeKeyServer()
    if started:
        await server.start()
    environment = {"AUTH_JWKS_URL": server.url, "AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE}
    environment |= {"state": answer_state, "constants": QUICK_KEYS, **more}
    try:
        async with start_system(**environment) as system:
            yield system, server
    finally:
        await server.stop()


async def wait_refused(system: ProxySystem, reason: str, least: float) -> None:
    """Wait until so many requests were refused for a reason."""
    await system.proxy.wait_metric(f'routing_layer_access_refused_total{{reason="{reason}"}}', least)


async def never(_request: web.Request) -> web.StreamResponse:
    """Answer nothing."""
    await asyncio.sleep(3600)
    return web.Response()
