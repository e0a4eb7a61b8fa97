"""Event ids and points in time, from which a client resumes: text to values and back. Pure.

``Weld/0/4711@1764370800000`` is a record: the group's slug, the partition, the offset, the record's timestamp in
milliseconds. ``Weld/0:12,1:7@1764370800000`` has the last record of each partition: what a stream of a whole group
needs if its topic has several partitions. ``@1764370800000`` is a point in time. A second time after a comma is that of
the client's own last event: the record before the present position is often one of another asset.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from openfactory_common.settings_types import seconds

#: What may become a part of a topic's name: an id comes from a client.
SLUG = re.compile(r"[A-Za-z0-9_-]{1,200}")
_PLACE = r"\d{1,9}%s(?:-1|\d{1,18})"
_ID = re.compile(
    rf"(?:(?P<slug>{SLUG.pattern})/(?:(?P<one>{_PLACE % '/'})|(?P<all>{_PLACE % ':'}(?:,{_PLACE % ':'})*)))?"
    r"(?:@(?P<ms>-1|\d{1,19})(?:,(?P<since>-1|\d{1,19}))?)?",
    re.ASCII,
)
#: The last time after which Kafka can be asked for another millisecond. Producers write times in other units, too.
_LAST_MS = 2**63 - 2

Position = Mapping[int, int]
"""By partition, the offset of the next record that a client is to receive."""


@dataclass(frozen=True)
class ResumePoint:
    """Where a client stopped.

    Attributes:
        slug: of the group whose records it received; empty for a point in time.
        last: by partition, the offset of the last record that it received; -1 for none.
        whole: ``last`` has every partition of which a record was received.
        ms: timestamp of the last record, or the point in time, in milliseconds since the epoch; None if unknown.
        since: time after which the client wants its events, wherever they are; None if unknown.
    """

    slug: str
    last: Mapping[int, int]
    whole: bool
    ms: int | None
    since: int | None


def parse_id(text: str) -> ResumePoint:
    """Parse what a client sends as ``Last-Event-ID``.

    Raises:
        ValueError: it is no id of a group service.
    """
    found = _ID.fullmatch(text)
    if found is None or not text:
        raise ValueError("this is no event id of a group service")
    places = (found["one"] or "").replace("/", ":") or found["all"]
    last = {int(p): int(o) for p, o in (place.split(":") for place in places.split(","))} if places else {}
    ms = min(int(found["ms"]), _LAST_MS) if found["ms"] else None
    since = min(int(found["since"]), _LAST_MS) if found["since"] else ms
    return ResumePoint(found["slug"] or "", last, found["all"] is not None, ms, since)


def parse_since(text: str, now_ms: int) -> ResumePoint:
    """Parse the query parameter ``since``: a duration (``15m``), or a date and time with its zone (RFC 3339).

    Raises:
        ValueError: it is neither.
    """
    try:
        ms = now_ms - int(seconds(text) * 1000)
    except (ValueError, OverflowError):  # the latter: 400 digits
        # In a query string, an unescaped + is a blank.
        moment = datetime.fromisoformat(re.sub(r" (?=\d\d:\d\d$)", "+", text))
        if moment.tzinfo is None:
            raise ValueError("a time needs its zone: Z or an offset") from None
        ms = int(moment.timestamp() * 1000)
    return point_in_time(max(0, ms))


def point_in_time(ms: int) -> ResumePoint:
    """Return the point of a client that wants everything from a time on."""
    return ResumePoint("", {}, whole=False, ms=ms, since=ms)


def format_position(slug: str, position: Position, ms: int | None = None, since: int | None = None) -> str:
    """Return the id of the last records before ``position``.

    Args:
        slug: of the group.
        position: in each partition.
        ms: timestamp of the last record; with one partition it must be exactly that, or None.
        since: time of the client's own last event, if it is another one.
    """
    later = "" if since is None or since == ms else f",{since}"
    moment = "" if ms is None else f"@{ms}{later}"
    if len(position) == 1 and (ms is not None or not later):
        [(partition, offset)] = position.items()
        return f"{slug}/{partition}/{offset - 1}{moment}"
    places = ",".join(f"{partition}:{offset - 1}" for partition, offset in sorted(position.items()))
    return f"{slug}/{places}{moment or later.replace(',', '@')}" if places else f"@{ms or since or 0}"
