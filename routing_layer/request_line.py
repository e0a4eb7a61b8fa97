"""What a request must be before it is answered: the rules of RFC 9112 that aiohttp's parser leaves to its user."""

from __future__ import annotations

import re

from aiohttp.http import HttpVersion, HttpVersion10, HttpVersion11, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from routing_layer import problems

#: A request that is refused as it stands carries the problem under this key.
REFUSED = "refused"
_ABSOLUTE = re.compile(r"https?://([^/?#]+)(.*)", re.IGNORECASE | re.DOTALL)
#: RFC 3986's host and port, without the commas that a list of several has; no user.
_HOST = re.compile(r"(?:\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~!$&'()*+;=%-]*)(?::[0-9]{0,5})?")
_OLDEST = HttpVersion(0, 9)


def origin_form(message: RawRequestMessage) -> RawRequestMessage:
    """Return the request with its target as a path: what absolute-form names as the host replaces ``Host`` (3.2.2)."""
    absolute = None if message.path.startswith("/") else _ABSOLUTE.fullmatch(message.path)
    if absolute is None:
        return message
    authority, path = absolute[1], absolute[2]
    path = path if path.startswith("/") else f"/{path}"
    headers = CIMultiDict(message.headers)
    headers["Host"] = authority
    raw = tuple((name, value) for name, value in message.raw_headers if name.lower() != b"host")
    raw += ((b"Host", authority.encode("utf-8", "surrogateescape")),)
    return message._replace(path=path, url=_url(path), headers=CIMultiDictProxy(headers), raw_headers=raw)


def refusal(message: RawRequestMessage) -> problems.Problem | None:
    """Return why the request cannot be answered; None if it can."""
    version, headers = message.version, message.headers
    if version <= _OLDEST:
        return problems.bad_request("the request line names no HTTP version")
    if version.major != 1:
        return problems.unsupported_version(f"HTTP/{version.major}.{version.minor}")
    hosts = headers.getall("Host", [])
    if len(hosts) > 1 or (version >= HttpVersion11 and not hosts):
        return problems.bad_request("a request has exactly one Host")
    if hosts and _HOST.fullmatch(hosts[0]) is None:
        return problems.bad_request("Host is not a host with an optional port")
    if version < HttpVersion11 and "Transfer-Encoding" in headers:
        return problems.bad_request("HTTP/1.0 has no Transfer-Encoding")
    if message.method in ("GET", "HEAD") and (not message.path.startswith("/") or "#" in message.path):
        return problems.bad_request("the request target is not a path with an optional query")
    return None


def answerable(message: RawRequestMessage) -> RawRequestMessage:
    """Return a refused request as one whose refusal can be written: HTTP/1.0, and the connection ends with it."""
    return message._replace(version=HttpVersion10, should_close=True)


def prepared(message: RawRequestMessage) -> tuple[RawRequestMessage, problems.Problem | None]:
    """Return the request in origin-form, and why it is refused if it is."""
    message = origin_form(message)
    refused = refusal(message)
    return (answerable(message), refused) if refused is not None else (message, None)


def _url(path: str) -> URL:
    raw, _, rest = path.partition("?")
    return URL.build(path=raw, query_string=rest.partition("#")[0], encoded=True)
