"""One request of a client, and the rules of RFC 9112 that the parser (llhttp) leaves to its user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from routing_layer.problems import Problem, ProblemType
from routing_layer.request_target import find_host_fault, find_target_fault, to_origin_form

if TYPE_CHECKING:
    from routing_layer.client.connection import ClientConnection

#: Name and value of a header, as they came, without the blanks around the value.
Field = tuple[bytes, bytes]
#: Bytes of a request's target. Its log lines and error documents stay short, and no service of ours takes more.
LONGEST_TARGET = 8190
_READ = frozenset((b"host", b"transfer-encoding", b"content-length"))


@dataclass(slots=True, eq=False)
class Head:
    """The head of a request.

    Attributes:
        method: in upper case.
        raw_path: the target in origin-form, as it came: a path and perhaps a query.
        raw_headers: the fields in order.
        http11: the client understands chunks; otherwise it speaks HTTP/1.0.
        keep_alive: the client may use the connection again.
        path: the target without its query.
        query: the query as it came, without the question mark.
        known: the same bytes may come again, and none of them is a credential.
    """

    method: str
    raw_path: str
    raw_headers: tuple[Field, ...]
    http11: bool
    keep_alive: bool
    path: str = field(init=False)
    query: str = field(init=False)
    known: bool = False

    def __post_init__(self) -> None:
        """Divide the target."""
        self.path, _, self.query = self.raw_path.partition("?")


class Request:
    """A request whose head is complete.

    Attributes:
        connection: where it came, and where its answer goes.
        head: what it says.
        method, raw_path, raw_headers, path, query, http11: those of its head.
        keep_alive: the connection may carry another request after the answer.
        on_end: called when its answer is complete, or its client has left.
        arrived: when it came, in milliseconds since 1970; set for streams.
        held: it had to wait, for a service or for its asset that moves.
        route: the route that it is counted under.
    """

    __slots__ = (
        "arrived", "connection", "head", "held", "http11", "keep_alive", "method", "on_end", "path", "query",
        "raw_headers", "raw_path", "route",
    )  # fmt: skip

    def __init__(self, connection: ClientConnection, head: Head) -> None:
        """Begin to answer it."""
        self.connection = connection
        self.head = head
        self.method, self.raw_path, self.raw_headers = head.method, head.raw_path, head.raw_headers
        self.path, self.query, self.http11, self.keep_alive = head.path, head.query, head.http11, head.keep_alive
        self.on_end: Callable[[], None] | None = None
        self.arrived = 0
        self.held = False
        self.route = "other"

    @property
    def remote(self) -> str:
        """The address of the peer."""
        return self.connection.remote

    @property
    def scheme(self) -> str:
        """``http`` or ``https``: what the client speaks with this process."""
        return self.connection.scheme

    def header(self, name: bytes) -> bytes | None:
        """Return the value of the first field with this name (lower case)."""
        for known, value in self.raw_headers:
            if known.lower() == name:
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
    target, authority = to_origin_form(target)
    if authority is not None:  # it replaces Host (RFC 9112, section 3.2.2)
        fields = [*(one for one in fields if one[0].lower() != b"host"), (b"Host", authority.encode())]
    fault = find_target_fault(target) if method in ("GET", "HEAD") else None
    if fault is not None:
        raise _bad(fault)
    return target, fields, _read_fields(version, fields)


def _read_fields(version: str, fields: Sequence[Field]) -> Framing:
    read: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        lowered = name.lower()
        if lowered in _READ:
            read.setdefault(lowered, []).append(value)
    codings = read.get(b"transfer-encoding", ())
    fault = find_host_fault([host.decode("latin-1") for host in read.get(b"host", ())], required=version == "1.1")
    if fault is not None:
        raise _bad(fault)
    if codings:
        if version == "1.0":
            raise _bad("HTTP/1.0 has no Transfer-Encoding")
        if [coding.lower() for coding in codings] != [b"chunked"]:
            raise _bad("a Transfer-Encoding that is not 'chunked' alone")
        return Framing(chunked=True)
    # Its digits, and that there is one, were checked by the parser.
    return Framing(int(read[b"content-length"][0])) if b"content-length" in read else _NO_BODY


def _bad(detail: str) -> Problem:
    return Problem(ProblemType.BAD_REQUEST, detail)
