"""What a browser may do here: read what it was sent for, and change nothing.

The operator's server has no users and no cookies; what protects it is the network that it is in. A browser inside of
that network would carry a request of any page on the web in there, and a name that changes its address (DNS rebinding)
makes such a page look like one of ours: it could read everything. Two rules close that. A request names the host that
it is for, and only hosts that no page on the web can have are answered: addresses, names without a dot (such as a
service's in the Swarm), `localhost`, and what `RECONCILER_ALLOWED_HOSTS` names. And the status page sends nothing but
GET, so whatever else a browser sends is refused: it says that it is one with ``Origin`` or ``Sec-Fetch-Site``.
Programs send neither.
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

_SAFE = ("GET", "HEAD")
_BROWSERS = ("Origin", "Sec-Fetch-Site")
_WITHOUT_DOT = re.compile(r"[a-z0-9_-]+")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.ASCII)
_SHOWN = 100
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
"""Sent with every answer that has none of its own by these names."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def allowed_hosts(settings: Settings) -> frozenset[str]:
    """Return the hosts by which this operator is asked besides those that are always answered."""
    named = (settings.swarm_node_host, urlsplit(settings.reconciler_url).hostname or "")
    return frozenset(name.lower() for name in (*settings.allowed_hosts, *named) if name)


def is_answered(host: str, allowed: Collection[str]) -> bool:
    """Return whether a request to ``host`` (a ``Host`` header, with or without a port) is answered.

    Args:
        host: as it came; an empty one names no host, as programs that speak HTTP/1.0 do.
        allowed: names in lower case; one that begins with a dot stands for all names below it.
    """
    if not host:
        return True
    found = _HOST.fullmatch(host.strip().lower())
    if found is None:
        return False
    name = found[1].removesuffix(".")
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        pass
    else:
        return True
    if name == "localhost" or name.endswith(".localhost") or _WITHOUT_DOT.fullmatch(name):
        return True
    return name in allowed or any(one.startswith(".") and name.endswith(one) for one in allowed)


def known_hosts(allowed: Collection[str]) -> Any:
    """Return the middleware that answers 421 to a request for a host that is none of ours."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        hosts = request.headers.getall("Host", [])
        hosts += [request.host] if hosts else []  # that of the request line, where it has one
        wrong = next((host for host in hosts if not is_answered(host, allowed)), None)
        if wrong is None:
            return await handler(request)
        detail = (
            f"this operator is not asked by the name {printable(wrong[:_SHOWN])!r}: use an address or a name without a "
            "dot, or add the name to RECONCILER_ALLOWED_HOSTS"
        )
        status = HTTPStatus.MISDIRECTED_REQUEST
        return web.json_response({"title": "another host", "detail": detail}, status=status)

    return check


@web.middleware
async def no_browsers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer 403 to a change that a page in a browser asks for."""
    if request.method not in _SAFE and any(name in request.headers for name in _BROWSERS):
        detail = "a page in a browser may not do this; use `reconciler pause`, or a program that sends no Origin"
        return web.json_response({"title": "a browser's page", "detail": detail}, status=403)
    return await handler(request)


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Tell browsers to take every answer for what it says it is, and to run nothing in it."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
