"""Responses to requests that cannot be served: one JSON document for every failure (RFC 9457)."""

from __future__ import annotations

import json
from enum import Enum
from http import HTTPStatus

from openfactory_common.connections import RETRY_AFTER
from openfactory_common.text import printable
from routing_layer.client.response import Response

CONTENT_TYPE = "application/problem+json"
#: The detail of a 503 for a client that does not fit.
NO_ROOM = "there is no room for more clients, or for more from this address"


class ProblemType(Enum):
    """What went wrong: the last part of the ``type`` URN, which is stable for programs, and what follows from it."""

    BAD_REQUEST = "bad-request", HTTPStatus.BAD_REQUEST
    UNAUTHORIZED = "unauthorized", HTTPStatus.UNAUTHORIZED
    FORBIDDEN = "forbidden", HTTPStatus.FORBIDDEN
    UNKNOWN_PATH = "unknown-path", HTTPStatus.NOT_FOUND
    UNKNOWN_ASSET = "unknown-asset", HTTPStatus.NOT_FOUND
    ASSET_WITHOUT_LEVEL = "asset-without-level", HTTPStatus.NOT_FOUND
    ASSET_ELSEWHERE = "asset-elsewhere", HTTPStatus.NOT_FOUND
    UNKNOWN_GROUP = "unknown-group", HTTPStatus.NOT_FOUND
    WRONG_METHOD = "wrong-method", HTTPStatus.METHOD_NOT_ALLOWED
    LATE_REQUEST = "late-request", HTTPStatus.REQUEST_TIMEOUT, None, True
    LONG_REQUEST = "long-request", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, None, True
    INTERNAL = "internal", HTTPStatus.INTERNAL_SERVER_ERROR
    UPSTREAM_UNREACHABLE = "upstream-unreachable", HTTPStatus.BAD_GATEWAY, 2
    GROUP_NOT_DEPLOYED = "group-not-deployed", HTTPStatus.SERVICE_UNAVAILABLE, 5
    NOT_READY = "not-ready", HTTPStatus.SERVICE_UNAVAILABLE, 2
    TOO_MANY_CONNECTIONS = "too-many-connections", HTTPStatus.SERVICE_UNAVAILABLE, RETRY_AFTER, True
    TOO_MANY_STREAMS = "too-many-streams", HTTPStatus.SERVICE_UNAVAILABLE, RETRY_AFTER
    TOO_MANY_STREAMS_OF_CLIENT = "too-many-streams-of-client", HTTPStatus.TOO_MANY_REQUESTS, RETRY_AFTER
    UPSTREAM_LATE = "upstream-late", HTTPStatus.GATEWAY_TIMEOUT, 2
    UNSUPPORTED_VERSION = "unsupported-version", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, None, True

    def __init__(
        self, kind: str, status: HTTPStatus, retry_after: int | None = None, ends_connection: bool = False
    ) -> None:
        """Keep the seconds after which a retry can help (None: it cannot), and whether the connection ends."""
        self.kind = kind
        self.status = status
        self.retry_after = retry_after
        self.ends_connection = ends_connection


class Problem(Exception):
    """A request that cannot be served, as the client sees it.

    Attributes:
        type: what went wrong.
        detail: what happened to this request, for people; names nothing internal.
        transient: nothing was sent to a service and the cause is likely to be over in seconds.
        challenge: which credentials are needed, for ``WWW-Authenticate``; empty: it is not about them.

    As text it is the cause, which may name what is internal and is for the log alone; without one, the detail.
    """

    def __init__(
        self, problem: ProblemType, detail: str, *, transient: bool = False, cause: str = "", challenge: str = ""
    ) -> None:
        """Keep what the response needs."""
        super().__init__(cause or detail)
        self.type = problem
        self.detail = detail
        self.challenge = challenge
        self.transient = transient or problem is ProblemType.NOT_READY

    def response(self) -> Response:
        """Return the response."""
        headers = {"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"}
        if self.type.retry_after is not None:
            headers["Retry-After"] = str(self.type.retry_after)
        if self.challenge:
            headers["WWW-Authenticate"] = self.challenge
        if self.type is ProblemType.WRONG_METHOD:
            headers["Allow"] = "GET, HEAD"  # of every resource
        return Response(int(self.type.status), self.document(), headers, closes=self.type.ends_connection)

    def document(self) -> bytes:
        """Return the body of the response; text from a client is escaped."""
        status = self.type.status
        document = {
            "type": f"urn:openfactory:routing-layer:{self.type.kind}",
            "title": status.phrase,
            "status": int(status),
            "detail": printable(self.detail),
        }
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
