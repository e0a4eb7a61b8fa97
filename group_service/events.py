"""One event and its form on the wire. Pure."""

from __future__ import annotations

import json
import re
from enum import StrEnum

_FIELDS = b"event: asset_update\ndata: "
_LINE_END = re.compile(rb"\r\n|\r|\n")
#: Bytes of an event in memory besides its frame: the object, its numbers, two places in queues and one in a set
#: (measured: 370).
OVERHEAD = 380


class Reason(StrEnum):
    """Why events may be missing."""

    EXPIRED = "expired"
    LIMIT = "limit"
    RECREATED = "recreated"
    DELETED = "deleted"
    MOVED = "moved"
    UNKNOWN = "unknown"


class Event:
    """A record of the group's topic, framed once for all clients.

    Attributes:
        asset: the record's key.
        partition: its partition.
        offset: its offset.
        ms: its timestamp in milliseconds since the epoch.
        frame: the complete server-sent event, blank line included.
    """

    __slots__ = ("_item", "asset", "frame", "ms", "offset", "partition")

    def __init__(self, slug: str, key: bytes, value: bytes, partition: int, offset: int, ms: int) -> None:
        """Frame a record; a line end within the value begins another ``data:`` field, as the standard asks."""
        self.asset = key.decode(errors="surrogateescape")
        self.partition, self.offset, self.ms = partition, offset, ms
        if b"\n" in value or b"\r" in value:
            value = _LINE_END.sub(b"\ndata: ", value)
        self.frame = b"id: %b/%d/%d@%d\n%b%b\n\n" % (slug.encode(), partition, offset, ms, _FIELDS, value)
        self._item: str | None = ""

    @property
    def size(self) -> int:
        """Bytes that it takes in memory."""
        return len(self.frame) + OVERHEAD

    @property
    def item(self) -> str | None:
        """The id of its data item; None for a value that has none. Parsed when it is needed first."""
        if self._item == "":
            self._item = self._parse_item()
        return self._item

    @property
    def fingerprint(self) -> int:
        """Equal for records that differ only in their place: a stream that is created again writes them once more."""
        return hash((self.asset, self.ms, self.frame.partition(b"\n")[2]))

    def frame_as(self, text: str) -> bytes:
        """Return its frame with another id."""
        return b"id: %b\n%b" % (text.encode(), self.frame.partition(b"\n")[2])

    def _parse_item(self) -> str | None:
        data = self.frame.partition(_FIELDS)[2].replace(b"\ndata: ", b"\n")
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            return None
        if not isinstance(document, dict):
            return None
        found = next((value for name, value in document.items() if name.lower() == "id"), None)
        return None if found in (None, "") else str(found)


def gap_frame(start: str, end: str, reason: Reason) -> bytes:
    """Return the event that tells a client what it may miss: everything after ``start``, up to and including ``end``.

    Its id is ``end``, so that the client does not ask again for what cannot be given.
    """
    data = json.dumps({"from": start, "to": end, "reason": reason}, separators=(",", ":"))
    return f"id: {end}\nevent: gap\ndata: {data}\n\n".encode()


def chunk(data: bytes) -> bytes:
    """Return ``data`` as one chunk of an HTTP/1.1 response."""
    return b"%x\r\n%b\r\n" % (len(data), data)
