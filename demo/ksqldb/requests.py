"""Request bodies to values, with the errors that ksqlDB's JSON reader gives."""

from __future__ import annotations

import json
from typing import Any

from demo.ksqldb.catalog import Properties
from demo.ksqldb.errors import BAD_REQUEST, SERVER_ERROR, KsqlRefusal

_AT = " at [Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: 1, column: "
_ENTITY = "io.confluent.ksql.rest.entity."


class BareRefusal(KsqlRefusal):
    """A refusal that ksqlDB's failure handler writes: its body has no content-type."""


def body_of(raw: bytes, entity: str) -> dict[str, Any]:
    """The JSON object of a request.

    Args:
        raw: the body.
        entity: the class that ksqlDB reads it into, for its error texts.

    Raises:
        BareRefusal: no body (500), no JSON or no object (400).
    """
    if not raw:
        reason = 'Cannot invoke "io.vertx.core.buffer.Buffer.getBytes()" because "buffer" is null'
        raise BareRefusal(reason, code=SERVER_ERROR)
    try:
        body = json.loads(raw)
    except ValueError:
        column = len(raw) + 1
        reason = f"Unexpected end-of-input within/between Object entries\n{_AT}{column}]"
        raise BareRefusal(f"Invalid JSON in request: {reason}", code=BAD_REQUEST) from None
    if not isinstance(body, dict):
        kind = "Array value (token `JsonToken.START_ARRAY`)" if isinstance(body, list) else "a value"
        reason = f"Cannot deserialize value of type `{_ENTITY}{entity}` from {kind}\n{_AT}1]"
        raise BareRefusal(f"Invalid JSON in request: {reason}", code=BAD_REQUEST)
    return body


def properties_of(body: dict[str, Any], member: str) -> Properties:
    """The properties of a request.

    Raises:
        BareRefusal: a property that is null.
    """
    found = body.get(member) or {}
    if not isinstance(found, dict) or any(value is None for value in found.values()):
        raise BareRefusal("Failed to deserialize buffer", code=SERVER_ERROR)
    return dict(found)


def sql_of(body: dict[str, Any], raw: bytes) -> str:
    """The `sql` of a request to /query-stream.

    Raises:
        BareRefusal: it is missing.
    """
    if not isinstance(body.get("sql"), str):
        reason = f"Missing required creator property 'sql' (index 0)\n{_AT}{len(raw)}]"
        chain = f' (through reference chain: {_ENTITY}QueryStreamArgs["sql"])'
        raise BareRefusal(f"Invalid JSON in request: {reason}{chain}", code=BAD_REQUEST)
    return str(body["sql"])
