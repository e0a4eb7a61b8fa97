"""Who may do what at the operator's server: with `RECONCILER_TOKEN_FILE`, programs show a token to write, or to read.

A token does not travel by cookie, so no web page can use another user's; browsers' writes stay refused.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from openfactory_common.tokens import TokenFile, bearer_token
from reconciler.settings import Protect, Settings
from reconciler.web.csrf import SAFE_METHODS, Handler

#: Always readable: engines, load balancers and Prometheus ask for them and have no token.
OPEN = frozenset(("/healthz", "/readyz", "/metrics"))
CHALLENGE = 'Bearer realm="reconciler"'


def require_token(settings: Settings) -> Any:
    """Return the middleware that answers 401 where `RECONCILER_PROTECT` wants a token and there is none or another."""
    file, protect = settings.reconciler_token_file, settings.reconciler_protect
    tokens = TokenFile(file, "RECONCILER_TOKEN_FILE") if file is not None else None

    def is_open(request: web.Request) -> bool:
        """Whether a request needs no token, by the resource that answers it: a path can be spelled in many ways."""
        resource = request.match_info.route.resource
        reads = request.method in SAFE_METHODS
        return reads and (protect is Protect.WRITES or (resource is not None and resource.canonical in OPEN))

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        fields = request.headers.getall("Authorization", [])
        token = bearer_token(fields)
        if tokens is None or is_open(request) or (token is not None and tokens.accepts(token)):
            return await handler(request)
        return _refuse(settings.reconciler_owner, bool(fields))

    return check


def _refuse(owner: str, sent: bool) -> web.Response:
    """Answer 401; the owner tells a client whose token is asked for before it sends one."""
    detail = (
        "the Authorization field has no token of RECONCILER_TOKEN_FILE, or there are several such fields"
        if sent
        else "this needs a token of RECONCILER_TOKEN_FILE: Authorization: Bearer <token>"
    )
    problem = {
        "type": "urn:openfactory:reconciler:unauthorized",
        "title": "unauthorized",
        "status": 401,
        "detail": detail,
        "owner": owner,
    }
    challenge = f'{CHALLENGE}, error="invalid_token"' if sent else CHALLENGE
    return web.json_response(
        problem,
        status=401,
        headers={"WWW-Authenticate": challenge, "Cache-Control": "no-store"},
        content_type="application/problem+json",
    )
