"""Protection against cross-site requests and DNS rebinding: a browser may read the operator's own pages only.

The operator's server has no users and no cookies; only its network and, where there is one, a token protects it
(`access.py`). A browser in that network also sends
the requests of any web page, and a name that changes its address (DNS rebinding) makes such a page same-origin, so that
it could read everything. Two rules prevent that. Only hosts that no web page can have are served: addresses, names
without a dot (such as that of a Swarm service), `localhost`, and those of `RECONCILER_ALLOWED_HOSTS`. And since the
status page sends only GET, any other request of a browser, known by ``Origin`` or ``Sec-Fetch-Site``, is refused;
programs send neither.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Collection
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from openfactory_common.text import printable
from reconciler.settings import Settings

SAFE_METHODS = ("GET", "HEAD")
_BROWSER_HEADERS = ("Origin", "Sec-Fetch-Site")
_WITHOUT_DOT = re.compile(r"[a-z0-9_-]+")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.ASCII)
_SHOWN_CHARACTERS = 100
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
"""Sent with every response that does not set them itself."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def allowed_hosts(settings: Settings) -> frozenset[str]:
    """Return the hosts of this operator besides those that are always served."""
    named = (settings.swarm_node_host, urlsplit(settings.reconciler_url).hostname or "")
    return frozenset(name.lower() for name in (*settings.allowed_hosts, *named) if name)


def is_allowed(host: str, allowed: Collection[str]) -> bool:
    """Return whether a request to ``host`` (a ``Host`` header, with or without a port) is served.

    Args:
        host: as received; empty for programs that speak HTTP/1.0.
        allowed: names in lower case; one that begins with a dot stands for all names below it.
    """
    if not host:
        return True
    match = _HOST.fullmatch(host.strip().lower())
    if match is None:
        return False
    name = match[1].removesuffix(".")
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        pass
    else:
        return True
    if name == "localhost" or name.endswith(".localhost") or _WITHOUT_DOT.fullmatch(name):
        return True
    return name in allowed or any(one.startswith(".") and name.endswith(one) for one in allowed)


def check_hosts(allowed: Collection[str]) -> Any:
    """Return the middleware that answers 421 to a request for another host."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        hosts = request.headers.getall("Host", [])
        hosts += [request.host] if hosts else []  # that of the request line, where it has one
        wrong = next((host for host in hosts if not is_allowed(host, allowed)), None)
        if wrong is None:
            return await handler(request)
        detail = (
            f"host {printable(wrong[:_SHOWN_CHARACTERS])!r} is not allowed: use an address or a name without a dot, or "
            "add the name to RECONCILER_ALLOWED_HOSTS"
        )
        status = HTTPStatus.MISDIRECTED_REQUEST
        return web.json_response({"title": "host not allowed", "detail": detail}, status=status)

    return check


@web.middleware
async def refuse_browser_writes(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer 403 to a write that a page in a browser requests."""
    if request.method not in SAFE_METHODS and any(name in request.headers for name in _BROWSER_HEADERS):
        detail = "browsers may not write; use `reconciler pause`, or a program that sends no Origin"
        return web.json_response({"title": "cross-site request", "detail": detail}, status=403)
    return await handler(request)


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Tell browsers to respect the content type of every response and to run nothing in it."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
