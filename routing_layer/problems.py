"""What a client is told when it cannot be served: one JSON shape for every failure (RFC 9457)."""

from __future__ import annotations

import json
from http import HTTPStatus

from aiohttp import web

from openfactory_common.connections import REFUSALS, RETRY_AFTER
from openfactory_common.text import printable

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):
    """A request that cannot be served, as the client will see it.

    Attributes:
        status: the HTTP status of the answer.
        kind: last part of the ``type`` URN, stable, for programs.
        detail: what happened to this request, for people.
        retry_after: seconds after which trying again can help; None where it cannot.
        ends_connection: nothing that follows on the connection can be trusted, or is wanted.
        passing: nothing was sent to a service and the cause is likely to be over in seconds.

    As text it is the cause, which may name what is internal and is for the log alone; without one, the detail.
    """

    def __init__(
        self,
        status: HTTPStatus,
        kind: str,
        detail: str,
        *,
        retry_after: int | None = None,
        ends_connection: bool = False,
        passing: bool = False,
        cause: str = "",
    ) -> None:
        """Keep what the answer needs."""
        super().__init__(cause or detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after
        self.ends_connection = ends_connection
        self.passing = passing

    def response(self) -> web.Response:
        """Return the answer."""
        headers = {"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = "GET, HEAD"  # of every resource
        return web.Response(status=int(self.status), body=self.document(), headers=headers)

    def document(self) -> bytes:
        """Return the answer's body; what a client has typed is escaped."""
        document = {
            "type": f"urn:openfactory:routing-layer:{self.kind}",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": printable(self.detail),
        }
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def bad_request(detail: str) -> Problem:
    """The request itself is wrong."""
    return Problem(HTTPStatus.BAD_REQUEST, "bad-request", detail)


def unsupported_version(version: str) -> Problem:
    """The request is of another protocol."""
    detail = f"{version} is not served here, HTTP/1.1 is"
    return Problem(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "unsupported-version", detail, ends_connection=True)


def late_request() -> Problem:
    """The head of the request did not come in time."""
    detail = "the head of the request was not complete in time"
    return Problem(HTTPStatus.REQUEST_TIMEOUT, "late-request", detail, ends_connection=True)


def long_request() -> Problem:
    """The request is longer than what is read of one."""
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    return Problem(status, "long-request", REFUSALS[status], ends_connection=True)


def overloaded() -> Problem:
    """This process has no descriptors left for one more client, or for one more of this address."""
    detail = "there is no room for more clients, or for more from this address"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    return Problem(status, "too-many-connections", detail, retry_after=RETRY_AFTER, ends_connection=True)


def unknown_path(path: str) -> Problem:
    """There is no such resource."""
    return Problem(HTTPStatus.NOT_FOUND, "unknown-path", f"nothing is served at {path}")


def wrong_method(method: str) -> Problem:
    """The resources of the proxy are read-only."""
    detail = f"{method} is not supported here, GET and HEAD are"
    return Problem(HTTPStatus.METHOD_NOT_ALLOWED, "wrong-method", detail)


def unknown_asset(asset: str) -> Problem:
    """KsqlDB has no such asset."""
    return Problem(HTTPStatus.NOT_FOUND, "unknown-asset", f"asset {asset!r} is not in the UNS map")


def asset_without_level(asset: str, level: str) -> Problem:
    """The asset is mapped, but not below the level that makes the groups."""
    detail = f"asset {asset!r} is in the UNS map, but has no {level}, so it belongs to no group"
    return Problem(HTTPStatus.NOT_FOUND, "asset-without-level", detail)


def asset_elsewhere(asset: str, group: str, actual: str) -> Problem:
    """A group was asked for an asset of another group."""
    detail = f"asset {asset!r} is in group {actual!r}, not in {group!r}"
    return Problem(HTTPStatus.NOT_FOUND, "asset-elsewhere", detail)


def unknown_group(group: str) -> Problem:
    """No asset is in the group, and nothing serves it."""
    return Problem(HTTPStatus.NOT_FOUND, "unknown-group", f"there is no group {group!r}")


def not_deployed(group: str, waited: float) -> Problem:
    """The group exists, its service does not serve yet."""
    detail = f"group {group!r} has no service yet (waited {waited:g} s); the operator has been told"
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "group-not-deployed", detail, retry_after=5)


def not_ready(detail: str) -> Problem:
    """The proxy lacks what it needs to answer."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "not-ready", detail, retry_after=2, passing=True)


def unreachable(detail: str, cause: str, *, passing: bool = False) -> Problem:
    """The service behind could not be connected to, or broke before it answered; ``detail`` names nothing internal."""
    status = HTTPStatus.BAD_GATEWAY
    return Problem(status, "upstream-unreachable", detail, retry_after=2, passing=passing, cause=cause)


def late(seconds: float) -> Problem:
    """The service behind accepted the request and did not answer in time."""
    detail = f"the service did not answer within {seconds:g} s"
    return Problem(HTTPStatus.GATEWAY_TIMEOUT, "upstream-late", detail, retry_after=2)


def internal() -> Problem:
    """A bug of ours."""
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "an unexpected error; it has been logged")
