"""Where the proxy learns what to do: a ksqlDB and an operator, both real servers whose mishaps a test decides.

The ksqlDB answers only the three questions of the proxy, in the recorded shapes, and can lie the way the real one does.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import ssl
from collections.abc import Callable
from typing import Any

from aiohttp import web

from openfactory_common.registry import ROLE_HEADER
from tests.harness.ports import free_port


class FakeKsqldb:
    """A table of assets and groups behind the three statements of the proxy.

    Attributes:
        credentials: ``user:password`` that a request must carry; empty: none.
        lists_nothing: pulls answer no rows, as a server does for a moment after its restart.
        hides: assets that pulls leave out, as one does whose host serves only some partitions.
        mute: changes are not shown to those who watch, as by a push query that died inside the server.
        refuses: every request is answered with 503.
        hangs: questions for one asset are not answered.
        asked_now: the assets that are being asked for.
        raw: one more row of every watch and list, as it is.
        questions: the statements of all pulls.
        refused: how many requests came without the credentials.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, credentials: str = "") -> None:
        """Start with an empty table, for all clients, or only for those that send ``user:password``."""
        self.port = free_port()
        self._tls = tls
        self.credentials = credentials
        self.hides: set[str] = set()
        self.mute = False
        self.refused = 0
        self.table: dict[str, str | None] = {}
        self.history: list[tuple[str, str | None, bool]] = []
        self.lists_nothing = False
        self.refuses = False
        self.hangs = False
        self.asked_now: list[str] = []
        self.raw = b""
        self.questions: list[str] = []
        self._watchers: set[web.StreamResponse] = set()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def watchers(self) -> int:
        """Open push queries."""
        return len(self._watchers)

    async def start(self) -> FakeKsqldb:
        """Listen."""
        app = web.Application()
        app.router.add_post("/query", self._query)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True, ssl_context=self._tls).start()
        return self

    async def stop(self) -> None:
        """Go away, with every open query."""
        if self._runner is not None:
            for response in list(self._watchers):
                _cut(response)
            await self._runner.cleanup()
            self._runner = None

    async def put(self, asset: str, group: str | None) -> None:
        """Map an asset, as a record of the table's topic."""
        self.table[asset] = group
        await self._record(asset, group, gone=False)

    async def drop(self, asset: str) -> None:
        """Remove an asset: a tombstone."""
        self.table.pop(asset, None)
        await self._record(asset, None, gone=True)

    async def end_watches(self) -> None:
        """End every push query the way a dropped table does."""
        for response in list(self._watchers):
            await response.write(b'{"finalMessage":"Query Completed"}]')
            _cut(response)

    async def poison(self, data: bytes) -> None:
        """Send bytes to everybody who watches, as they are; those who come later do not get them."""
        for response in list(self._watchers):
            await response.write(data)

    async def _record(self, asset: str, group: str | None, *, gone: bool) -> None:
        self.history.append((asset, group, gone))
        for response in [] if self.mute else list(self._watchers):
            await response.write(self._row(asset, group, gone=gone) + b",\n")

    async def _query(self, request: web.Request) -> web.StreamResponse:
        wanted = f"Basic {base64.b64encode(self.credentials.encode()).decode()}"
        if self.credentials and request.headers.get("Authorization") != wanted:
            self.refused += 1
            return web.Response(
                status=401, text='{"@type":"generic_error","error_code":40100,"message":"Unauthorized"}'
            )
        if self.refuses:
            return web.Response(status=503, text='{"@type":"generic_error","error_code":50302,"message":"starting"}')
        statement = (await request.json())["ksql"]
        if "EMIT CHANGES" in statement:
            return await self._push(request)
        self.questions.append(statement)
        rows = {} if self.lists_nothing else {key: value for key, value in self.table.items() if key not in self.hides}
        where = re.search(r"WHERE `\w+` = '((?:[^']|'')*)';$", statement)
        if where is not None:
            asset = where[1].replace("''", "'")
            await self._hang(asset)
            rows = {asset: rows[asset]} if asset in rows else {}
        lines = [self._header(key=True), *(self._row(asset, group, gone=False) for asset, group in rows.items())]
        return web.Response(body=b"[" + b",\n".join(lines) + b"]", content_type="application/vnd.ksql.v1+json")

    async def _hang(self, asset: str) -> None:
        self.asked_now.append(asset)
        try:
            while self.hangs:  # noqa: ASYNC110 - a test says when it ends
                await asyncio.sleep(0.01)
        finally:
            self.asked_now.remove(asset)

    async def _push(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/vnd.ksql.v1+json"})
        await response.prepare(request)
        past = b"".join(self._row(asset, group, gone=gone) + b",\n" for asset, group, gone in self.history) + self.raw
        await response.write(b"[" + self._header(key=False) + b",\n" + past)
        self._watchers.add(response)
        try:
            await asyncio.Event().wait()
        finally:
            self._watchers.discard(response)
        return response

    @staticmethod
    def _header(*, key: bool) -> bytes:
        schema = "`ASSET_UUID` STRING KEY, `UNS_GROUP` STRING" if key else "`ASSET_UUID` STRING, `UNS_GROUP` STRING"
        return json.dumps({"header": {"queryId": "q", "schema": schema}}).encode()

    @staticmethod
    def _row(asset: str, group: str | None, *, gone: bool) -> bytes:
        row: dict[str, Any] = {"columns": [asset, group]}
        if gone:
            row["tombstone"] = True
        return json.dumps({"row": row}).encode()


def _cut(response: web.StreamResponse) -> None:
    """Close the connection of a response that is being sent."""
    if response.task is not None:
        response.task.cancel()


class FakeOperator:
    """Serves the registry with an ETag and counts nudges.

    Attributes:
        document: the bytes that are served; None: 503.
        nudged: how often ``POST /reconcile`` came.
        on_nudge: what a nudge makes happen.
        standby: every other question reaches an operator that only stands by.
        token: what a nudge, and with ``closed`` every question, must have; None: nothing.
        closed: reading needs the token too.
        authorizations: the `Authorization` field of each question.
    """

    def __init__(self) -> None:
        """Start with no document."""
        self.port = free_port()
        self.document: bytes | None = None
        self.nudged = 0
        self.on_nudge: Callable[[], None] = lambda: None
        self.not_modified = 0
        self.asked = 0
        self.standby = False
        self.token: str | None = None
        self.closed = False
        self.authorizations: list[str | None] = []
        self._turn = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """The operator's URL."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> FakeOperator:
        """Listen."""
        app = web.Application()
        app.router.add_get("/registry", self._registry)
        app.router.add_post("/reconcile", self._reconcile)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return self

    async def stop(self) -> None:
        """Go away."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _registry(self, request: web.Request) -> web.Response:
        self.asked += 1
        if not self._knows(request, needed=self.closed):
            return web.Response(status=401)
        if self._elsewhere():
            return web.Response(status=503, headers={ROLE_HEADER: "standby"})
        if self.document is None:
            return web.Response(status=503)
        etag = '"' + hashlib.sha256(self.document).hexdigest()[:12] + '"'
        if request.headers.get("If-None-Match") == etag:
            self.not_modified += 1
            return web.Response(status=304, headers={"ETag": etag})
        return web.Response(body=self.document, headers={"ETag": etag})

    def _knows(self, request: web.Request, *, needed: bool) -> bool:
        self.authorizations.append(request.headers.get("Authorization"))
        return not needed or self.token is None or self.authorizations[-1] == f"Bearer {self.token}"

    def _elsewhere(self) -> bool:
        self._turn += self.standby
        return self._turn % 2 == 1

    async def _reconcile(self, request: web.Request) -> web.Response:
        if not self._knows(request, needed=True):
            return web.Response(status=401)
        if self._elsewhere():
            return web.Response(status=503, headers={ROLE_HEADER: "standby"})
        self.nudged += 1
        self.on_nudge()
        return web.Response(status=202)


def registry(groups: dict[str, str], state_api: str | None = None, **changes: Any) -> bytes:
    """Return a registry document."""
    document: dict[str, Any] = {
        "version": 1,
        "identity": {"kafka": "k1", "ksqldb": "default_"},
        "groups": groups,
        "state_api": state_api,
        "membership": {"table": "asset_to_uns_map", "key": "ASSET_UUID", "levels": ["workcenter"], "separator": "-"},
    }
    return json.dumps({**document, **changes}, sort_keys=True).encode()
