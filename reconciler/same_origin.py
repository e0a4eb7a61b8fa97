"""No page of somebody else's may make a browser change something here.

The operator's server has no users and no cookies; what protects it is the network that it is in. A browser inside of
that network would carry a request of any page on the web in there, so a POST that a browser says comes from another
page is refused. Programs send neither header.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

_SAFE = ("GET", "HEAD")
_OWN = ("same-origin", "none")


@web.middleware
async def same_origin(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer 403 to what another site's page sends."""
    if request.method not in _SAFE and _is_foreign(request):
        detail = "a page of another site may not do this; use `reconciler pause`, or a program that sends no Origin"
        return web.json_response({"title": "another site", "detail": detail}, status=403)
    return await handler(request)


def _is_foreign(request: web.Request) -> bool:
    own = {f"{scheme}://{request.host}".lower() for scheme in ("http", "https")}  # https: behind a reverse proxy
    if request.headers.get("Origin", f"http://{request.host}").lower() not in own:
        return True
    return request.headers.get("Sec-Fetch-Site", "none") not in _OWN
