"""The status page at ``/`` and the same for programs at ``/status``, from the last full read: they read nothing.

Any text from the UNS can be on this page, so the template engine escapes everything, and the page may run and load only
its own script and its own style sheet.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Iterable
from importlib.resources import files

from aiohttp import web
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from openfactory_common import __version__
from openfactory_common.text import printable, printable_json
from reconciler.control.loop import Loop
from reconciler.domain.status import Condition
from reconciler.report.documents import (
    OperatorDocument,
    StatusDocument,
    backoff_documents,
    event_document,
    status_document,
)
from reconciler.report.why import describe_pause
from reconciler.web.status_view import Filter, make_view

#: Seconds after which a browser without JavaScript loads the page again.
REFRESH = 10


def _read_part(ending: str) -> str:
    return (files("reconciler.web") / f"status_page.{ending}").read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


_STYLE, _SCRIPT = _read_part("css"), _read_part("js")
_TEMPLATE = Environment(
    autoescape=True,
    undefined=StrictUndefined,
    finalize=lambda value: printable(value) if type(value) is str else value,  # not `Markup`: our style and script
    trim_blocks=True,
    lstrip_blocks=True,
).from_string(_read_part("html"))
HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; connect-src 'self'; "
        "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
}
"""Sent with the page. The style and script are named by their hashes, so that nothing else in it can ever run."""


class StatusPage:
    """Shows one loop to people and programs."""

    def __init__(self, loop: Loop) -> None:
        """Show ``loop``."""
        self._loop = loop

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the routes of the server."""
        return (web.get("/", self._get_page), web.get("/status", self._get_status))

    async def _get_page(self, request: web.Request) -> web.Response:
        try:
            condition = Condition(request.query["condition"]) if request.query.get("condition") else None
        except ValueError:
            raise web.HTTPBadRequest(text=f"condition: one of {', '.join(Condition)}\n") from None
        filter_ = Filter(request.query.get("q", "").strip(), condition, bool(request.query.get("all")))
        text = await asyncio.to_thread(self.render, filter_)
        return web.Response(
            body=text.encode("utf-8", "replace"), content_type="text/html", charset="utf-8", headers=HEADERS
        )

    async def _get_status(self, _: web.Request) -> web.Response:
        document = await asyncio.to_thread(self.make_document)
        if document is None:
            last = self._loop.history.last
            detail = last.sentence if last else "the first cycle has not ended"
            return web.json_response({"title": "nothing read yet", "detail": detail}, status=503)
        return web.Response(text=printable_json(document.model_dump_json(indent=2)), content_type="application/json")

    def make_document(self) -> StatusDocument | None:
        """Return the last full read and the state of the operator; None before the first full read."""
        read = self._loop.history.read
        if read is None or read.plan is None or read.survey is None:
            return None
        return status_document(read.plan, read.survey, self._make_operator_document())

    def render(self, filter_: Filter) -> str:
        """Return the page."""
        read, settings = self._loop.history.read, self._loop.controller.deps.settings
        operator, document = self._make_operator_document(), self.make_document()
        events = tuple(map(event_document, self._loop.controller.reporter.journal.after()))
        return _TEMPLATE.render(
            view=make_view(settings, operator, document, read.plan if read else None, filter_, events),
            settings=settings,
            operator=operator,
            document=document,
            filter=filter_,
            style=Markup(_STYLE),  # noqa: S704 - our own file
            script=Markup(_SCRIPT),  # noqa: S704 - our own file
            refresh=REFRESH,
        )

    def _make_operator_document(self) -> OperatorDocument | None:
        """Return the state of the operator; None before its first cycle has ended."""
        history, controller = self._loop.history, self._loop.controller
        if history.last is None or history.ended is None:
            return None
        return OperatorDocument(
            version=__version__,
            last_result=history.last.result,
            last_sentence=history.last.sentence,
            last_cycle=history.ended,
            last_read=history.read_at,
            last_write=history.written_at,
            role=controller.write_gate.role,
            paused=describe_pause(controller) or None,
            backoff=backoff_documents(controller.memory.backoff, controller.clocks.monotonic()),
        )
