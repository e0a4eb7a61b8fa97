"""A reverse proxy that serves the operator under `/openfactory/`, as an edge does: it strips the prefix."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

PREFIX = "/openfactory"


@dataclass
class PrefixProxy:
    """A running proxy: its address, and what was asked for outside of the prefix."""

    url: str = ""
    outside: list[str] = field(default_factory=list)


@asynccontextmanager
async def serving(operator: str, token: str = "") -> AsyncIterator[PrefixProxy]:
    """Serve the operator at a base URL; with a token, each request gets it, as for people who have logged in."""
    proxy, credentials = PrefixProxy(), {"Authorization": f"Bearer {token}"} if token else {}

    async def forward(request: web.Request) -> web.Response:
        path = request.raw_path
        if path == PREFIX:
            raise web.HTTPMovedPermanently(f"{PREFIX}/")
        if not path.startswith((f"{PREFIX}/", f"{PREFIX}?")):
            proxy.outside.append(path)
            raise web.HTTPNotFound
        names = {"Host", "Origin", "Sec-Fetch-Site", "X-Forwarded-Host"} & set(request.headers)
        headers = {**{name: request.headers[name] for name in names}, **credentials}
        url = operator.rstrip("/") + path.removeprefix(PREFIX)
        async with session.request(request.method, url, headers=headers, allow_redirects=False) as answer:
            kept = {k: v for k, v in answer.headers.items() if k not in ("Content-Length", "Transfer-Encoding", "Date")}
            return web.Response(status=answer.status, headers=kept, body=await answer.read())

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield proxy
        finally:
            await runner.cleanup()
