"""Responses with and without a content-type: ksqlDB sends both."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from demo.ksqldb.errors import KsqlRefusal
from demo.ksqldb.formats import encoded
from demo.ksqldb.requests import BareRefusal


def json_response(body: Any, status: int = 200) -> web.Response:
    """A JSON body with ksqlDB's content-type."""
    return web.Response(body=encoded(body).encode(), status=status, headers={"Content-Type": "application/json"})


class Bare(web.Response):
    """A response whose content-type is taken out again just before it is sent."""


def bare(body: Any = None, status: int = 200) -> web.Response:
    """A body without a content-type: what ksqlDB's failure handler writes."""
    return Bare(body=b"" if body is None else encoded(body).encode(), status=status)


def refused(refusal: KsqlRefusal, *, typed: bool) -> web.Response:
    """The answer to a refusal; `typed` gives it a content-type."""
    if typed and not isinstance(refusal, BareRefusal):
        return json_response(refusal.body(), refusal.status)
    return bare(refusal.body(), refusal.status)


async def strip_content_type(_: web.Request, response: web.StreamResponse) -> None:
    """Take out the content-type that aiohttp puts into every response."""
    if isinstance(response, Bare):
        response.headers.popall("Content-Type", None)
