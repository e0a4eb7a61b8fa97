"""One request of a client, and the rules of RFC 9112 that the parser (llhttp) leaves to its user."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from routing_layer.problems import Problem, ProblemType

if TYPE_CHECKING:
    from routing_layer.client.connection import ClientConnection

#: Name and value of a header, as they came, without the blanks around the value.
Field = tuple[bytes, bytes]
#: Bytes of a request's target. Its log lines and error documents stay short, and no service of ours takes more.
LONGEST_TARGET = 8190
_ABSOLUTE = re.compile(r"https?://([^/?#]+)(.*)", re.IGNORECASE | re.DOTALL)
#: RFC 3986's host and port, without the commas that a list of several has; no user.
_HOST = re.compile(rb"(?:\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~!$&'()*+;=%-]*)(?::[0-9]{0,5})?")
_READ = frozenset((b"host", b"transfer-encoding", b"content-length"))


@dataclass(slots=True, eq=False)
class Request:
    """A request whose head is complete.

    Attributes:
        connection: where it came, and where its answer goes.
        method: in upper case.
        raw_path: the target in origin-form, as it came: a path and perhaps a query.
        raw_headers: the fields in order.
        http11: the client understands chunks; otherwise it speaks HTTP/1.0.
        keep_alive: the connection may carry another request after the answer.
        arrived: when it came, in milliseconds since 1970; set for streams.
        held: it had to wait, for a service or for its asset that moves.
        route: the route that it is counted under.
    """

    connection: ClientConnection
    method: str
    raw_path: str
    raw_headers: Sequence[Field]
    http11: bool
    keep_alive: bool
    arrived: int = 0
    held: bool = False
    route: str = "other"

    @property
    def remote(self) -> str:
        """The address of the peer."""
        return self.connection.remote

    @property
    def scheme(self) -> str:
        """``http`` or ``https``: what the client speaks with this process."""
        return self.connection.scheme

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.raw_path.partition("?")[0]

    @property
    def query(self) -> str:
        """The query as it came, without the question mark."""
        return self.raw_path.partition("?")[2]

    def header(self, name: bytes) -> bytes | None:
        """Return the value of the first field with this name (lower case)."""
        for field, value in self.raw_headers:
            if field.lower() == name:
                return value
        return None


@dataclass(frozen=True, slots=True)
class Framing:
    """What follows the head of a request.

    Attributes:
        length: bytes of the body that is announced.
        chunked: a body in chunks follows.
    """

    length: int = 0
    chunked: bool = False


_NO_BODY = Framing()


def check(method: str, target: str, version: str, fields: Sequence[Field]) -> tuple[str, Sequence[Field], Framing]:
    """Return the target in origin-form, the fields that go with it, and what follows the head.

    Raises:
        Problem: the request cannot be served as it is (400, 505).
    """
    if version not in ("1.1", "1.0"):
        if version == "0.9":
            raise _bad("the request line names no HTTP version")
        raise Problem(ProblemType.UNSUPPORTED_VERSION, f"HTTP/{version} is not served here, HTTP/1.1 is")
    if len(target) > LONGEST_TARGET:
        raise _bad(f"the request target is longer than {LONGEST_TARGET} bytes")
    if not target.startswith("/"):
        target, fields = _to_origin_form(method, target, fields)
    elif "#" in target:
        raise _bad("the request target is not a path with an optional query")
    return target, fields, _read_fields(version, fields)


def _to_origin_form(method: str, target: str, fields: Sequence[Field]) -> tuple[str, Sequence[Field]]:
    """Make the target a path: the host that absolute-form names replaces ``Host`` (3.2.2)."""
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        if method in ("GET", "HEAD"):
            raise _bad("the request target is not a path with an optional query")
        return target, fields  # such as `OPTIONS *`: refused for its method
    authority, path = absolute[1], absolute[2]
    if "#" in path:
        raise _bad("the request target is not a path with an optional query")
    others = [field for field in fields if field[0].lower() != b"host"]
    return path if path.startswith("/") else f"/{path}", [*others, (b"Host", authority.encode())]


def _read_fields(version: str, fields: Sequence[Field]) -> Framing:
    read: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        lowered = name.lower()
        if lowered in _READ:
            read.setdefault(lowered, []).append(value)
    hosts, codings = read.get(b"host", ()), read.get(b"transfer-encoding", ())
    if len(hosts) > 1 or (version == "1.1" and not hosts):
        raise _bad("a request has exactly one Host")
    if hosts and _HOST.fullmatch(hosts[0]) is None:
        raise _bad("Host is not a host with an optional port")
    if codings:
        if version == "1.0":
            raise _bad("HTTP/1.0 has no Transfer-Encoding")
        if [coding.lower() for coding in codings] != [b"chunked"]:
            raise _bad("a Transfer-Encoding that is not 'chunked' alone")
        return Framing(chunked=True)
    # Its digits, and that there is one, were checked by the parser.
    return Framing(int(read[b"content-length"][0])) if b"content-length" in read else _NO_BODY


def explain(data: bytes, error: str) -> str:
    """Return what is wrong with a head that the parser has refused, for people.

    Args:
        data: the bytes that it was given last.
        error: what it says.
    """
    line = data.partition(b"\r\n")[0]
    raw = re.search(rb"[\x80-\xff]+", line)
    if "url" not in error.lower() or raw is None:
        return error or "not an HTTP/1.1 request"
    text = raw[0].decode("utf-8", "replace")
    encoded = "".join(f"%{byte:02X}" for byte in raw[0])
    return f"the request target has {text!r} as it is: it must be percent-encoded, as {encoded}"


def _bad(detail: str) -> Problem:
    return Problem(ProblemType.BAD_REQUEST, detail)
