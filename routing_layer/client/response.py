"""The proxy's own responses."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus


@dataclass(slots=True, eq=False)
class Response:
    """A whole response.

    Attributes:
        status: the status code.
        body: its content; without one, e.g. of a redirect, its length is announced as 0.
        headers: its fields, without those about its length and its connection.
        closes: it ends its connection.
        lines: more field lines, as they are sent.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    closes: bool = False
    lines: tuple[bytes, ...] = ()

    def encode(self, *, keep_alive: bool, head_only: bool = False) -> bytes:
        """Return its bytes; ``head_only`` for an answer to HEAD, whose length is that of GET's."""
        fields = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        length = "" if self.status == HTTPStatus.NO_CONTENT else f"Content-Length: {len(self.body)}\r\n"
        connection = "" if keep_alive else "Connection: close\r\n"
        line = f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\nDate: {_date(int(time.time()))}\r\n"
        more = b"".join(b"%b\r\n" % field for field in self.lines)
        head = f"{line}{fields}{length}{connection}".encode("latin-1", "replace") + more + b"\r\n"
        return head if head_only else head + self.body


@lru_cache(1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
