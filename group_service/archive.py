"""What a source must be able to do for clients that resume: read what is no longer in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from group_service.events import Event, Reason
from group_service.ids import Position


class SourceError(Exception):
    """The source does not answer now."""


class TopicMissing(SourceError):
    """The topic, or one of its partitions, does not exist."""


@dataclass(frozen=True)
class Portion:
    """A part of a topic.

    Attributes:
        start: where it begins: later than asked if ``reason`` is given.
        reason: why what is before ``start`` cannot be given.
        events: the events of the asset, in order.
        position: where the next portion begins.
        records: how many records were read.
        done: everything that was asked for has been read.
    """

    start: Position
    reason: Reason | None
    events: list[Event]
    position: Mapping[int, int]
    records: int
    done: bool


@dataclass(frozen=True)
class Request:
    """A part of a topic that is to be read.

    Attributes:
        slug: of the group whose topic it is.
        position: where to begin, by partition.
        until: where to stop, by partition; None: at the end.
        asset: whose events; None for all.
        limit: records that may be between ``position`` and ``until``: older ones are left out; None for any number.
    """

    slug: str
    position: Position
    until: Position | None
    asset: str | None
    limit: int | None


class Archive(Protocol):
    """A source's past. Every method raises `SourceError`."""

    async def read(self, request: Request) -> Portion:
        """Read the next portion."""

    async def locate(self, slug: str, ms: int) -> Position:
        """Return the position of the first records at or after a time, the end where there is none."""

    async def probe(self, slug: str, partition: int, offset: int) -> tuple[int | None, int]:
        """Return the timestamp of a record (None if it does not exist), and the end of its partition."""
