"""The HTTP side: ksqlDB's REST API, its content negotiation and its error bodies."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from demo.ksqldb import ast, development, properties
from demo.ksqldb.answering import QueryRequest, answer
from demo.ksqldb.commands import Session, parsed
from demo.ksqldb.errors import BAD_REQUEST, NOT_FOUND, SERVER_ERROR, KsqlRefusal
from demo.ksqldb.formats import DELIMITED, accepts_json, negotiate
from demo.ksqldb.queries import parsed_query
from demo.ksqldb.requests import body_of, properties_of, sql_of
from demo.ksqldb.responses import bare, json_response, refused, strip_content_type
from demo.ksqldb.runner import health
from demo.ksqldb.server import VERSION, DevServer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
QUERY_FAILED = (
    "The server encountered an internal error when processing the query. Please consult the server logs for more "
    "information."
)
_NO_PAGE = "<html><body><h1>Resource not found</h1></body></html>"
_MAX_BODY = 64 * 1024 * 1024


class Api:
    """The routes."""

    def __init__(self, server: DevServer) -> None:
        """Bind the server."""
        self._server = server
        self._get: dict[str, Handler] = {
            "/info": self._info,
            "/healthcheck": self._health,
            "/status": self._statuses,
            "/clusterStatus": self._cluster_status,
            "/v1/metadata": self._metadata,
            "/v1/metadata/id": self._metadata_id,
        }
        self._post: dict[str, Handler] = {
            "/ksql": self._ksql,
            "/query": self._query,
            "/query-stream": self._query_stream,
            "/close-query": self._close_query,
            "/inserts-stream": self._inserts_stream,
        }

    def application(self) -> web.Application:
        """The aiohttp application: one handler, because ksqlDB's order of checks is its own."""
        application = web.Application(client_max_size=_MAX_BODY)
        application.router.add_route("*", "/{path:.*}", self.handle)
        application.on_response_prepare.append(strip_content_type)
        return application

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        path = request.path
        if path.startswith("/dev/"):
            return await development.handle(self._server, request)
        if path in {"/chc/ready", "/chc/live"}:
            return json_response({})
        self._server.requests[f"{request.method} {path}"] += 1
        gate = await self._gate()
        return gate if gate is not None else await self._route(request, path)

    async def _gate(self) -> web.Response | None:
        use = self._server.faults.use
        if use("not_ready"):
            return bare(KsqlRefusal("KSQL is not yet ready to serve requests.", code=50302).body(), 503)
        if use("unauthorized"):
            return bare(KsqlRefusal("Unauthorized", code=40100).body(), 401)
        seconds = use("hang")
        if seconds is not None:
            await asyncio.sleep(float(seconds))
        return None

    async def _route(self, request: web.Request, path: str) -> web.StreamResponse:
        if path == "/":
            response = bare(status=307)
            response.headers["Location"] = "/info"
            return response
        handler = self._handler(path)
        if handler is None:
            headers = {"Content-Type": "text/html; charset=utf-8"}
            return web.Response(body=_NO_PAGE.encode(), status=404, headers=headers)
        method, run = handler
        if request.method != method:
            return bare(status=405)
        querying = path in {"/query", "/query-stream"}
        if not querying and path not in {"/close-query", "/inserts-stream"} and not accepts_json(_accept(request)):
            return bare(status=406)
        try:
            return await run(request)
        except KsqlRefusal as refusal:
            return refused(refusal, typed=not querying)
        except (ArithmeticError, TypeError, ValueError, LookupError, AttributeError) as error:
            # A request must not end in a page of the web framework: clients parse every body as ksqlDB's.
            sys.stderr.write(f"{request.method} {path}: {error!r}\n")
            return refused(KsqlRefusal(QUERY_FAILED, code=SERVER_ERROR), typed=not querying)

    def _handler(self, path: str) -> tuple[str, Handler] | None:
        if path in self._post:
            return "POST", self._post[path]
        if path in self._get:
            return "GET", self._get[path]
        if path.startswith("/status/"):
            return "GET", self._status
        return ("GET", self._valid_property) if path.startswith("/is_valid_property/") else None

    async def _info(self, _: web.Request) -> web.Response:
        cluster, service = self._server.identity()
        status = health(self._server.faults)[2]
        info = {"version": VERSION, "kafkaClusterId": cluster, "ksqlServiceId": service, "serverStatus": status}
        return json_response({"KsqlServerInfo": info})

    async def _health(self, _: web.Request) -> web.Response:
        kafka, runner = health(self._server.faults)[:2]
        details = {
            "metastore": {"isHealthy": True},
            "kafka": {"isHealthy": kafka},
            "commandRunner": {"isHealthy": runner},
        }
        return json_response({"isHealthy": runner and kafka, "details": details, "serverState": "READY"})

    async def _statuses(self, _: web.Request) -> web.Response:
        found = {name: each.status for name, each in self._server.catalog.statuses.items()}
        return json_response({"commandStatuses": found})

    async def _status(self, request: web.Request) -> web.Response:
        parts = unquote(request.rel_url.raw_path).removeprefix("/status/").split("/")
        kind = parts[0].upper()
        if kind not in {"TOPIC", "STREAM", "TABLE", "TERMINATE", "PAUSE", "RESUME", "CLUSTER"}:
            reason = f"No enum constant io.confluent.ksql.rest.entity.CommandId.Type.{kind}"
            return bare(KsqlRefusal(reason, code=SERVER_ERROR).body(), 500)
        status = self._server.catalog.statuses.get("/".join(parts))
        if status is None:
            raise KsqlRefusal("Command not found", code=NOT_FOUND)
        return json_response(status.body())

    async def _cluster_status(self, _: web.Request) -> web.Response:
        return web.Response(status=404, headers={"Content-Type": "application/json"})

    async def _metadata(self, _: web.Request) -> web.Response:
        return json_response({"version": VERSION, "clusterId": self._cluster()})

    async def _metadata_id(self, _: web.Request) -> web.Response:
        return json_response(self._cluster())

    def _cluster(self) -> dict[str, Any]:
        cluster, service = self._server.identity()
        return {"scope": {"path": [], "clusters": {"kafka-cluster": cluster, "ksql-cluster": service}}, "id": ""}

    async def _valid_property(self, request: web.Request) -> web.Response:
        name = request.path.removeprefix("/is_valid_property/")
        refusal = properties.prohibited(name)
        if refusal is not None:
            raise refusal
        return json_response(properties.known(name))

    async def _ksql(self, request: web.Request) -> web.Response:
        body = body_of(await request.read(), "KsqlRequest")
        sql = body.get("ksql")
        sql = sql if isinstance(sql, str) else ""
        overrides = properties_of(body, "streamsProperties")
        await self._wait_for_sequence(body.get("commandSequenceNumber"))
        properties.check(overrides, sql)
        statements = parsed(sql)
        self._server.count(statements)
        variables = {str(name): str(value) for name, value in (body.get("sessionVariables") or {}).items()}
        session = Session(sql, overrides, variables)
        return json_response(await self._server.runner.run(statements, session))

    async def _wait_for_sequence(self, wanted: Any) -> None:
        if not isinstance(wanted, int) or wanted < self._server.catalog.next_sequence:
            return
        await asyncio.sleep(self._server.config.command_timeout)
        if wanted >= self._server.catalog.next_sequence:
            reason = "Timed out while waiting for a previous command to execute. command sequence number: "
            raise KsqlRefusal(f"{reason}{wanted}", code=50301)

    async def _query(self, request: web.Request) -> web.StreamResponse:
        form = negotiate(_accept(request), "/query")
        if form is None:
            return bare(status=406)
        body = body_of(await request.read(), "KsqlRequest")
        if not isinstance(body.get("ksql"), str):
            return json_response(KsqlRefusal('"ksql" field must be populated', code=BAD_REQUEST).body(), 400)
        return await self._answer(request, body["ksql"], form, properties_of(body, "streamsProperties"))

    async def _query_stream(self, request: web.Request) -> web.StreamResponse:
        form = negotiate(_accept(request), "/query-stream")
        if form is None:
            return bare(status=406)
        raw = await request.read()
        body = body_of(raw, "QueryStreamArgs")
        return await self._answer(request, sql_of(body, raw), form, properties_of(body, "properties"))

    async def _answer(self, request: web.Request, sql: str, form: str, overrides: dict[str, Any]) -> web.StreamResponse:
        prepared = parsed_query(sql)
        self._server.count([prepared])
        if isinstance(prepared.statement, ast.PrintTopic) and form != DELIMITED:
            return bare(status=406)
        if properties.bad_offset(overrides):
            return bare(KsqlRefusal(QUERY_FAILED, code=SERVER_ERROR).body(), 500)
        statement = prepared.statement
        if not isinstance(statement, (ast.Query, ast.PrintTopic)):
            raise TypeError(statement)  # parsed_query lets nothing else through
        return await answer(self._server, request, QueryRequest(statement, prepared.text, form, overrides))

    async def _close_query(self, request: web.Request) -> web.Response:
        query_id = str(body_of(await request.read(), "CloseQueryArgs").get("queryId"))
        if not self._server.end_push(query_id):
            return bare(KsqlRefusal(f"No query with id {query_id}", code=BAD_REQUEST).body(), 400)
        # Measured: from another HTTP/1.1 connection the query is closed and the answer is an error all the same.
        return bare(KsqlRefusal("On wrong context or worker", code=SERVER_ERROR).body(), 500)

    async def _inserts_stream(self, _: web.Request) -> web.Response:
        reason = "This endpoint is only available when using HTTP2"
        return bare(KsqlRefusal(reason, code=40004).body(), 400)


def _accept(request: web.Request) -> str | None:
    return request.headers.get("Accept")
