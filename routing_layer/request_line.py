"""What a request must be before it is answered: the rules of RFC 9112 that aiohttp's parser leaves to its user."""

from __future__ import annotations

from aiohttp.http import HttpVersion, HttpVersion10, HttpVersion11, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from routing_layer.problems import Problem, ProblemType
from routing_layer.request_target import find_host_fault, find_target_fault, to_origin_form

#: Key of a request that is refused as it is: the problem.
REFUSED = "refused"
_OLDEST = HttpVersion(0, 9)


def prepare(message: RawRequestMessage) -> tuple[RawRequestMessage, Problem | None]:
    """Return the request in origin-form, and why it is refused; None if it is not.

    A refused request is made HTTP/1.0 and ends its connection, so that its refusal can be written.
    """
    message = _to_origin_form(message)
    problem = _check(message)
    if problem is not None:
        message = message._replace(version=HttpVersion10, should_close=True)
    return message, problem


def _to_origin_form(message: RawRequestMessage) -> RawRequestMessage:
    """Make the target a path: the host that absolute-form names replaces ``Host`` (3.2.2)."""
    path, authority = to_origin_form(message.path)
    if authority is None:
        return message
    raw_path, _, rest = path.partition("?")
    url = URL.build(path=raw_path, query_string=rest.partition("#")[0], encoded=True)
    headers = CIMultiDict(message.headers)
    headers["Host"] = authority
    raw = tuple((name, value) for name, value in message.raw_headers if name.lower() != b"host")
    raw += ((b"Host", authority.encode("utf-8", "surrogateescape")),)
    return message._replace(path=path, url=url, headers=CIMultiDictProxy(headers), raw_headers=raw)


def _check(message: RawRequestMessage) -> Problem | None:
    version, headers = message.version, message.headers
    detail = find_host_fault(headers.getall("Host", []), required=version >= HttpVersion11)
    if version <= _OLDEST:
        detail = "the request line names no HTTP version"
    elif version.major != 1:
        detail = f"HTTP/{version.major}.{version.minor} is not served here, HTTP/1.1 is"
        return Problem(ProblemType.UNSUPPORTED_VERSION, detail)
    elif version < HttpVersion11 and "Transfer-Encoding" in headers:
        detail = detail or "HTTP/1.0 has no Transfer-Encoding"
    elif message.method in ("GET", "HEAD"):
        detail = detail or find_target_fault(message.path)
    return None if detail is None else Problem(ProblemType.BAD_REQUEST, detail)
