"""The status page at ``/`` and its twin for machines at ``/status``, from what the loop last saw: they read nothing.

Whatever a person typed into the UNS reaches this page, so everything is escaped (the template engine does it, not the
template), and the page may run and load nothing but the one script and the one style sheet that stand in it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from aiohttp import web
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from openfactory_common.text import printable, printable_json
from reconciler.control.loop import Loop
from reconciler.domain.status import Condition
from reconciler.report.documents import BackoffDocument, OperatorDocument, StatusDocument, status_document
from reconciler.web.status_view import Filter, view

#: Seconds after which a browser without JavaScript loads the page again.
REFRESH = 10


def _part(ending: str) -> str:
    return (files("reconciler.web") / f"status_page.{ending}").read_text(encoding="utf-8").strip()


def _hashed(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


_STYLE, _SCRIPT = _part("css"), _part("js")


def _shown(value: Any) -> Any:
    return printable(value) if type(value) is str else value  # not our own style and script, which are `Markup`


_TEMPLATE = Environment(
    autoescape=True, undefined=StrictUndefined, finalize=_shown, trim_blocks=True, lstrip_blocks=True
).from_string(_part("html"))
HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            f"style-src {_hashed(_STYLE)}",
            f"script-src {_hashed(_SCRIPT)}",
            "connect-src 'self'",
            "img-src data:",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Sent with the page. The style and script are named by their hashes, so that nothing else in it can ever run."""


class StatusPage:
    """Shows one loop to people and machines."""

    def __init__(self, loop: Loop) -> None:
        """Show ``loop``."""
        self._loop = loop

    def routes(self) -> Iterable[web.RouteDef]:
        """Return what the server is to answer here."""
        return (web.get("/", self._page), web.get("/status", self._status))

    async def _page(self, request: web.Request) -> web.Response:
        try:
            condition = Condition(request.query["condition"]) if request.query.get("condition") else None
        except ValueError:
            raise web.HTTPBadRequest(text=f"condition: one of {', '.join(Condition)}\n") from None
        asked = Filter(request.query.get("q", "").strip(), condition, bool(request.query.get("all")))
        text = await asyncio.to_thread(self.html, asked)
        return web.Response(
            body=text.encode("utf-8", "replace"), content_type="text/html", charset="utf-8", headers=HEADERS
        )

    async def _status(self, _: web.Request) -> web.Response:
        document = await asyncio.to_thread(self.document)
        if document is None:
            said = operator_document(self._loop)
            detail = said.last_sentence if said else "the first cycle has not ended"
            return web.json_response({"title": "nothing read yet", "detail": detail}, status=503)
        return web.Response(text=printable_json(document.model_dump_json(indent=2)), content_type="application/json")

    def document(self) -> StatusDocument | None:
        """Return what was last read in full, with how the operator fares; None before the first time."""
        read = self._loop.history.read
        if read is None or read.plan is None or read.survey is None:
            return None
        return status_document(read.plan, read.survey, operator_document(self._loop))

    def html(self, asked: Filter) -> str:
        """Return the page."""
        read = self._loop.history.read
        shown = view(
            self._loop.controller.world.settings,
            operator_document(self._loop),
            self.document(),
            read.plan if read else None,
            asked,
        )
        return _TEMPLATE.render(view=shown, style=Markup(_STYLE), script=Markup(_SCRIPT), refresh=REFRESH)  # noqa: S704 - our own files


def operator_document(loop: Loop) -> OperatorDocument | None:
    """Return how a running operator fares; None before its first cycle has ended."""
    history, pause = loop.history, loop.controller.memory.pause
    if history.last is None or history.ended is None:
        return None
    return OperatorDocument(
        last_result=history.last.result,
        last_sentence=history.last.sentence,
        last_cycle=history.ended,
        last_read=history.read_at,
        last_write=history.written_at,
        role=loop.controller.write_gate.role,
        paused=pause.text if pause is not None and loop.paused else None,
        backoff=tuple(_backoff(loop)),
    )


def _backoff(loop: Loop) -> Iterable[BackoffDocument]:
    controller = loop.controller
    now = controller.clocks.monotonic()
    for key, failure in sorted(controller.memory.backoff.failures.items()):
        left = max(0.0, failure.until - now)
        yield BackoffDocument(object=key, failures=failure.times, retry_in_seconds=round(left, 1), error=failure.text)
