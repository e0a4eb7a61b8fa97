"""A stand-in for ksqlDB on a real socket: it plays the part of the server that the simulated factory talks to.

It understands no SQL beyond the first words; tests decide what pull queries answer.
Shapes and error texts are those of a recorded ksqlDB 7.7.0.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Body = dict[str, Any]

RESTORING = "Error starting pull query: Cannot determine which host contains the required partitions."


def streamed(columns: tuple[str, ...], rows: list[list[Any]]) -> str:
    """Return a complete pull answer in the StreamedRow form."""
    items = [header(columns), *({"row": {"columns": row}} for row in rows)]
    return "[" + ",\n".join(json.dumps(item) for item in items) + "]"


def header(columns: tuple[str, ...]) -> Body:
    """Return the first item of an answer."""
    return {"header": {"queryId": "query_1", "schema": ", ".join(f"`{name}` STRING" for name in columns)}}


@dataclass
class KsqlStandIn:
    """The server's state, in the hands of the test.

    Attributes:
        sources: the type (STREAM or TABLE) by name.
        statements: everything sent to /ksql but LIST, in order.
        queries: the body of everything sent to /query.
        pull: answers a pull query's SQL with a status and a body.
    """

    sources: dict[str, str] = field(default_factory=dict)
    statements: list[str] = field(default_factory=list)
    queries: list[Body] = field(default_factory=list)
    pull: Callable[[str], tuple[int, str]] = lambda _sql: (200, streamed(("A",), []))
    port: int = 0
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Return the base URL; the port stays the same over a restart."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Begin to answer."""
        app = web.Application()
        app.router.add_get("/info", self._info)
        app.router.add_post("/ksql", self._ksql)
        app.router.add_post("/query", self._query)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Break all connections and refuse new ones."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _info(self, _request: web.Request) -> web.Response:
        return web.json_response({"KsqlServerInfo": {"version": "7.7.0", "serverStatus": "RUNNING"}})

    async def _ksql(self, request: web.Request) -> web.Response:
        sql = (await request.json())["ksql"]
        if match := re.match(r"LIST (STREAMS|TABLES);", sql):
            kind = match[1].lower()
            found = [{"type": kind, "name": name} for name, of in self.sources.items() if f"{of}S" == match[1]]
            return web.json_response([{"@type": kind, "statementText": sql, kind: found}])
        self.statements.append(sql)
        if match := re.match(r"CREATE (STREAM|TABLE) (\w+)", sql):
            self.sources[match[2].upper()] = match[1]
            return web.json_response([{"@type": "currentStatus", "commandStatus": {"status": "SUCCESS"}}])
        return self._insert(sql)

    def _insert(self, sql: str) -> web.Response:
        name = sql.split()[2].upper()
        if name in self.sources:
            return web.json_response([])
        message = f"Cannot insert values into an unknown stream/table: `{name}`"
        return web.json_response({"@type": "generic_error", "error_code": 40000, "message": message}, status=400)

    async def _query(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.queries.append(body)
        status, text = self.pull(body["ksql"])
        return web.Response(status=status, text=text, content_type="application/vnd.ksql.v1+json")


def refusal(message: str, code: int = 40001) -> tuple[int, str]:
    """Return a pull query's 400."""
    return 400, json.dumps({"@type": "statement_error", "error_code": code, "message": message, "entities": []})


@asynccontextmanager
async def running_ksql() -> AsyncIterator[KsqlStandIn]:
    """Start a stand-in on a free port, stop it at the end."""
    ksql = KsqlStandIn()
    await ksql.start()
    try:
        yield ksql
    finally:
        await ksql.stop()


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """Serve ``app`` on a free port as the programs do, and give its base URL."""
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for ``condition``; fail when it has not come true by a generous deadline."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is another program's state
            await asyncio.sleep(0.01)


async def until_status(get: Callable[[], Awaitable[int]], expected: int, seconds: float = 20.0) -> None:
    """Wait until ``get`` gives the ``expected`` status."""
    async with asyncio.timeout(seconds):
        while await get() != expected:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
