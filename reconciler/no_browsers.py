"""No page may make a browser change something here.

The operator's server has no users and no cookies; what protects it is the network that it is in. A browser inside of
that network would carry a request of any page on the web in there, and a name that changes its address (DNS rebinding)
makes such a page look like one of ours. The status page sends nothing but GET, so whatever else a browser sends is
refused: it says that it is one with ``Origin`` or ``Sec-Fetch-Site``. Programs send neither.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

_SAFE = ("GET", "HEAD")
_BROWSERS = ("Origin", "Sec-Fetch-Site")


@web.middleware
async def no_browsers(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer 403 to a change that a page in a browser asks for."""
    if request.method not in _SAFE and any(name in request.headers for name in _BROWSERS):
        detail = "a page in a browser may not do this; use `reconciler pause`, or a program that sends no Origin"
        return web.json_response({"title": "a browser's page", "detail": detail}, status=403)
    return await handler(request)
