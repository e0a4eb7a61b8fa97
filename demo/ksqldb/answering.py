"""Answers of the query endpoints: complete ones for pull queries, open ones for push queries."""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from demo.ksqldb import ast
from demo.ksqldb.catalog import Properties
from demo.ksqldb.errors import KsqlRefusal, StatementFault
from demo.ksqldb.formats import STREAMED, Writer, push_piece
from demo.ksqldb.queries import Cells, Push, Snapshot, not_queryable, print_lines, pull
from demo.ksqldb.responses import Bare
from demo.ksqldb.server import DevServer, OpenPush
from demo.ksqldb.values import Schema

NOT_READY = (
    "Error starting pull query: Cannot determine which host contains the required partitions to serve the pull query. "
    "\nThe underlying persistent query may be restarting (e.g. as a result of ALTER SYSTEM) view the status of your "
    "by issuing <DESCRIBE foo>."
)
SHUTDOWN = "Error starting pull query: KafkaStreams is not running. State is PENDING_SHUTDOWN."
IN_BAND = "The query failed after it had begun to answer."


@dataclass(frozen=True)
class QueryRequest:
    """A request to a query endpoint that has been parsed."""

    statement: ast.Query | ast.PrintTopic
    text: str
    form: str
    properties: Properties


async def answer(server: DevServer, request: web.Request, asked: QueryRequest) -> web.StreamResponse:
    """Answer a SELECT or a PRINT.

    Raises:
        KsqlRefusal: before anything was sent.
    """
    if isinstance(asked.statement, ast.PrintTopic):
        return Bare(body="".join(_printed(server, asked.statement, asked.text)).encode())
    if asked.statement.emit is not None:
        return await _push(server, request, asked, asked.statement)
    return await _pull(server, request, asked, asked.statement)


def _printed(server: DevServer, statement: ast.PrintTopic, text: str) -> list[str]:
    try:
        return print_lines(statement, server.catalog)
    except StatementFault as fault:
        raise KsqlRefusal(str(fault), statement=text) from None


async def _pull(server: DevServer, request: web.Request, asked: QueryRequest, query: ast.Query) -> web.StreamResponse:
    _refuse_by_fault(server, asked.text, query)
    snapshot = pull(query, asked.text, server.catalog, asked.properties)
    snapshot = _distorted(server, asked.text, snapshot)
    writer = Writer(asked.form)
    pieces = [writer.header(snapshot.query_id, snapshot.schema), *map(writer.row, snapshot.rows)]
    ending = (writer.final(snapshot.final) if snapshot.final else "") + writer.end()
    faulty = await _broken(server, request, asked, pieces, ending)
    if faulty is not None:
        return faulty
    return web.Response(body=("".join(pieces) + ending).encode(), headers={"Content-Type": asked.form})


def _refuse_by_fault(server: DevServer, text: str, query: ast.Query) -> None:
    if server.faults.use("pull_shutdown", text):
        raise KsqlRefusal(SHUTDOWN, statement=text)
    if server.faults.use("pull_not_ready", text):
        raise KsqlRefusal(NOT_READY, statement=text)
    if server.faults.use("not_queryable", text):
        raise KsqlRefusal(not_queryable(query.relation.name), statement=text)


def _distorted(server: DevServer, text: str, snapshot: Snapshot) -> Snapshot:
    """A complete, well-formed answer that is not the truth."""
    rows, schema, use = snapshot.rows, snapshot.schema, server.faults.use
    if use("empty_pull", text):
        rows = []
    held = use("lost_server", text)
    if held is not None and snapshot.source.is_table:
        rows = [row for row in rows if _share(row[0]) < held["share"]]
    kept = use("partial_pull", text)
    if kept is not None:
        rows = rows[: int(kept)]
    if use("duplicate_keys", text):
        rows = [each for row in rows for each in (row, row)]
    if use("wrong_schema", text):
        schema = Schema(tuple(replace(each, name=f"{each.name}_X") for each in schema.columns))
    lost = use("lost_row", text)
    if lost is not None and snapshot.source.name == lost["table"]:
        rows = [row for row in rows if lost["key"] not in row]
    return replace(snapshot, rows=rows, schema=schema)


def _share(key: Any) -> float:
    """Where a key lies between 0 and 1: which server has its partition, always the same one."""
    return zlib.crc32(str(key).encode()) / 2**32


async def _broken(
    server: DevServer, request: web.Request, asked: QueryRequest, pieces: list[str], ending: str
) -> web.StreamResponse | None:
    """An answer that stops, stumbles or drips; None when no such fault is on."""
    use, writer = server.faults.use, Writer(asked.form)
    good = use("error_row", asked.text)
    if good is not None:
        return await _stream(request, asked, [*pieces[: int(good) + 1], writer.error(IN_BAND), writer.end()])
    if use("header_only", asked.text):
        return await _stream(request, asked, pieces[:1])
    if use("truncated", asked.text):
        return await _stream(request, asked, pieces)
    sent = use("reset", asked.text)
    if sent is not None:
        return await _stream(request, asked, pieces[: int(sent) + 1], reset=True)
    pause = use("slow_drip", asked.text)
    if pause is not None:
        return await _stream(request, asked, [*pieces, ending], pause=float(pause))
    return None


async def _stream(
    request: web.Request, asked: QueryRequest, pieces: list[str], *, pause: float = 0, reset: bool = False
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": asked.form})
    await response.prepare(request)
    if pause:
        for piece in pieces:
            await response.write(piece.encode())
            await asyncio.sleep(pause)
    else:
        await response.write("".join(pieces).encode())
    if reset and request.transport is not None:
        await asyncio.sleep(0.05)  # let the kernel send what was written before the connection is torn
        request.transport.abort()
    return response


async def _push(server: DevServer, request: web.Request, asked: QueryRequest, query: ast.Query) -> web.StreamResponse:
    _check_push_limit(server, asked.text)
    push, queue = server.open_push(query, asked.text, asked.properties)
    response = web.StreamResponse(headers={"Content-Type": asked.form})
    try:
        await response.prepare(request)
        await _feed(response, asked, push, queue)
        await response.write_eof()
    except ConnectionResetError:
        pass  # the client left; nothing is owed to it
    finally:
        server.close_push(push)
    return response


def _check_push_limit(server: DevServer, text: str) -> None:
    count, limit = len(server.pushes), server.config.push_limit
    if count < limit:
        return
    raise KsqlRefusal(
        f"Not executing statement(s) '{text}' as it would cause the number of active, push queries to exceed the "
        "configured limit. Terminate existing PUSH queries, or increase the 'ksql.max.push.queries' setting via the "
        f"'ksql-server.properties' file. Current push query count: {count}. Configured limit: {limit}.\n"
        f"Statement: {text}",
        statement=text,
    )


async def _feed(response: web.StreamResponse, asked: QueryRequest, push: Push, queue: OpenPush) -> None:
    writer, limit = Writer(asked.form), push.plan.query.limit
    header = writer.header(push.id, push.schema)
    await response.write((header + ",\n" if asked.form == STREAMED else header).encode())
    sent = 0
    while limit is None or sent < limit:
        rows = await queue.take()
        if not rows and queue.ended:
            break
        rows = rows if limit is None else rows[: limit - sent]
        sent += len(rows)
        await response.write("".join(_piece(writer, *each) for each in rows).encode())
    final = "Limit Reached" if limit is not None and sent >= limit else "Query Completed"
    await response.write((writer.final(final).removeprefix(",\n") + writer.end()).encode())


def _piece(writer: Writer, cells: Cells, tombstone: bool) -> str:
    return push_piece(writer.form, writer.tombstone(cells) if tombstone else writer.row(cells))
