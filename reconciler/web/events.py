"""The history at ``/events``: as a JSON document, or as a stream of Server-Sent Events that begins with what is missed.

No client has a queue: each reads from the one history at its own speed, and the server's limits end the connection of
one that reads nothing. One that is too slow for the history is told so by a comment, as is one that resumes too late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from aiohttp import web

from openfactory_common.registry import ROLE_HEADER
from openfactory_common.text import printable_json
from reconciler.control.journal import KEPT
from reconciler.control.loop import Loop
from reconciler.report.documents import event_document, events_document

STREAM = "text/event-stream"
#: Seconds after which a comment shows a client that the connection is alive.
ALIVE_SECONDS = 15.0
_MAX_ID = 2**63 - 1


class Events:
    """Serves the history of one loop."""

    def __init__(self, loop: Loop) -> None:
        """Serve the history of ``loop``."""
        self._loop = loop
        self._journal = loop.controller.reporter.journal
        self._readers: set[asyncio.Event] = set()

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the routes of the server."""
        return (web.get("/events", self._get_events),)

    def follow(self, events: asyncio.AbstractEventLoop) -> None:
        """Wake those who wait for an entry, whatever thread makes it; ``events`` is the server's event loop."""

        def wake() -> None:
            for reader in self._readers:
                reader.set()

        def on_entry() -> None:
            with suppress(RuntimeError):  # the server has ended
                events.call_soon_threadsafe(wake)

        self._journal.on_entry = on_entry

    async def _get_events(self, request: web.Request) -> web.StreamResponse:
        query, controller = request.query, self._loop.controller
        streams = request.method == "GET" and STREAM in request.headers.get("Accept", "")
        try:
            resumed = request.headers.get("Last-Event-ID", "") if streams else ""
            since = _parse(resumed or query.get("since", "0"), _MAX_ID)
            limit = _parse(query.get("limit", str(KEPT)), KEPT)
        except ValueError:
            detail = f"?since=ID, ?limit=N up to {KEPT} and Last-Event-ID are whole numbers"
            return web.json_response({"title": "bad request", "detail": detail}, status=400)
        role, group = controller.write_gate.role, query.get("group")
        headers = {"Cache-Control": "no-store", **({ROLE_HEADER: role} if role else {})}
        if streams:
            return await self._stream(request, headers, since, group, limit)
        owner = controller.deps.settings.reconciler_owner
        document = events_document(self._journal, owner, role, since, group, limit)
        text = printable_json(document.model_dump_json())
        return web.Response(text=text, content_type="application/json", headers=headers)

    async def _stream(
        self, request: web.Request, headers: dict[str, str], since: int, group: str | None, limit: int
    ) -> web.StreamResponse:
        """Send the newest entries after an id, at most ``limit``, and then each new one."""
        response = web.StreamResponse(headers={**headers, "Content-Type": STREAM, "X-Accel-Buffering": "no"})
        await response.prepare(request)
        news = asyncio.Event()
        self._readers.add(news)
        try:
            await response.write(b": connected\n\n")
            while True:
                news.clear()
                gap = since > 0 and self._journal.has_lost(since)
                last, entries = self._journal.last, self._journal.after(since, group, limit)
                if gap:
                    await response.write(b": gap: events after this id are gone\n\n")
                for entry in entries:
                    data = printable_json(event_document(entry).model_dump_json())
                    await response.write(f"id: {entry.id}\ndata: {data}\n\n".encode())
                since, limit = max(last, *(entry.id for entry in entries), 0), KEPT
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), ALIVE_SECONDS)
                    continue
                await response.write(b": alive\n\n")
        finally:
            self._readers.discard(news)


def _parse(text: str, most: int) -> int:
    """Return a number from 0 to ``most``.

    Raises:
        ValueError: it is none.
    """
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(most)) or int(text) > most:
        raise ValueError(text)
    return int(text)
