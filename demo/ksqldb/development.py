"""What ksqlDB does not have: `/dev/…`, for tests and for people who want to see a bad day.

POST /dev/tombstone {"table", "key"}; POST /dev/produce {"topic", "key", "value"}; GET, POST, DELETE /dev/faults;
GET, DELETE /dev/requests.
"""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from demo.ksqldb.errors import StatementFault
from demo.ksqldb.faults import UnknownSwitch
from demo.ksqldb.server import DevServer


async def handle(server: DevServer, request: web.Request) -> web.Response:
    """Answer a request below /dev/."""
    route = request.method, request.path
    try:
        if route == ("POST", "/dev/faults"):
            return _faults(server, server.faults.set(await _object(request)))
        if route == ("DELETE", "/dev/faults"):
            return _faults(server, server.faults.clear())
        if route == ("POST", "/dev/produce"):
            return _produce(server, await _object(request))
        if route == ("POST", "/dev/tombstone"):
            return _tombstone(server, await _object(request))
    except (ValueError, UnknownSwitch, StatementFault, KeyError) as error:
        return web.json_response({"error": str(error)}, status=400)
    return _read(server, route)


def _read(server: DevServer, route: tuple[str, str]) -> web.Response:
    if route == ("GET", "/dev/faults"):
        return web.json_response(server.faults.body())
    if route == ("DELETE", "/dev/requests"):
        server.requests.clear()
        server.statements.clear()
        server.writes = 0
    if route[1] == "/dev/requests" and route[0] in {"GET", "DELETE"}:
        counted = {"requests": server.requests, "statements": server.statements, "writes": server.writes}
        return web.json_response(counted)
    return web.json_response({"error": "no such development endpoint"}, status=404)


async def _object(request: web.Request) -> dict[str, Any]:
    body = json.loads(await request.read())
    if not isinstance(body, dict):
        raise ValueError("a JSON object is wanted")  # noqa: TRY004 - one kind of error for every bad body
    return body


def _faults(server: DevServer, ended: list[str]) -> web.Response:
    if {"queued", "dead_runner"} & set(ended):
        server.runner.release()
    server.hush()
    return web.json_response(server.faults.body())


def _produce(server: DevServer, body: dict[str, Any]) -> web.Response:
    value = body["value"]
    if value is not None and not isinstance(value, dict):
        raise ValueError("value must be an object or null")
    server.produce(str(body["topic"]), body["key"], value)
    return web.json_response({})


def _tombstone(server: DevServer, body: dict[str, Any]) -> web.Response:
    name = str(body["table"])
    source = server.catalog.sources.get(name) or server.catalog.sources.get(name.upper())
    if source is None or not source.is_table:
        raise ValueError(f"no table {name}")
    server.produce(source.topic.name, body["key"], None)
    return web.json_response({})
