"""Follows the group's stream by one push query. Its past is the memory alone: anything older is told as a gap."""

from __future__ import annotations

import asyncio
import json
import random
import time

import aiohttp
import structlog

from group_service.archive import Portion, Request, TopicMissing
from group_service.events import Event, Reason
from group_service.hub import Hub
from group_service.ids import Position
from openfactory_common.errors import KsqlError, KsqlTruncated, KsqlWrongShape
from openfactory_common.ksqldb.wire import Header, Row, RowFeed, identifier
from openfactory_common.ksqldb_http import KsqldbSession

_log = structlog.get_logger()
_PAUSE_SECONDS = (0.5, 2.0)
#: The query tells no end of what is there: it has been read when no row comes for so long.
_QUIET_SECONDS = 0.5
#: The first row takes longer; a stream without one is empty.
_FIRST_ROW_SECONDS = 5.0
_FILL_SECONDS = 30.0
_SILENT_SECONDS = 15.0
_PLACE = ("ROWPARTITION", "ROWOFFSET", "ROWTIME")
_PROPERTIES = {"auto.offset.reset": "earliest", "ksql.streams.cache.max.bytes.buffering": 0}


class KsqldbReader:
    """The source and, for what is in memory, the archive."""

    def __init__(self, hub: Hub, session: KsqldbSession, stream: str) -> None:
        """Read ``stream`` into ``hub``."""
        self._hub, self._session = hub, session
        self._sql = f"SELECT *, {', '.join(_PLACE)} FROM {identifier(stream)} EMIT CHANGES;"  # noqa: S608 - an identifier
        self._first: dict[int, tuple[int, int]] = {}

    async def run(self) -> None:
        """Open the query, take its rows, and after any end open it again."""
        while True:
            try:
                await self._follow()
                continue
            except KsqlError as error:
                reason = f"ksqlDB does not answer: {error}"
            except Exception as error:  # noqa: BLE001 - a bug must not leave a live service deaf for ever
                reason = f"bug: {error!r}"
                _log.exception("following failed")
            self._hub.set_issue("ksqldb", reason)
            _log.warning("push query lost", reason=reason)
            await asyncio.sleep(random.uniform(*_PAUSE_SECONDS))  # noqa: S311 - spreads the groups, no secret

    async def read(self, request: Request) -> Portion:
        """Say that what is not in memory cannot be given."""
        if request.slug != self._hub.slug:
            raise TopicMissing("the streams of other groups are not read")
        start = dict(self._hub.history.start)
        return Portion(start, Reason.EXPIRED, [], start, records=1, done=True)

    async def locate(self, slug: str, ms: int) -> Position:
        """Return the beginning of what is in memory: it begins after this time."""
        return {} if slug == self._hub.slug and ms else self._hub.history.next

    async def probe(self, slug: str, partition: int, offset: int) -> tuple[int | None, int]:
        """Return what the memory tells about a record."""
        if slug != self._hub.slug:
            raise TopicMissing("the streams of other groups are not read")
        history = self._hub.history
        return history.timestamp(partition, offset), history.next.get(partition, 0)

    async def _follow(self) -> None:
        """Take the rows of one query until none has come for `_SILENT_SECONDS`.

        A query does not end when its stream is dropped, and one on a stream that was made again reads the old topic.
        """
        async with self._session.query(self._sql, _PROPERTIES) as response:
            self._hub.set_issue("ksqldb", "")
            feed, names, seen = RowFeed(), list[str](), set[int]()
            began_ms = int(time.time() * 1000)
            fill_until = time.monotonic() + _FILL_SECONDS
            silent_at = time.monotonic() + _SILENT_SECONDS
            while (now := time.monotonic()) < silent_at:
                quiet = _QUIET_SECONDS if seen else _FIRST_ROW_SECONDS
                piece = await _next_piece(response.content, silent_at - now if self._hub.filled else quiet)
                if piece is None:
                    self._hub.set_filled()
                events = []
                for item in feed.feed(piece or b""):
                    if isinstance(item, Header):
                        names = [column.name for column in item.columns]
                        if tuple(names[-3:]) != _PLACE:
                            raise KsqlWrongShape(f"columns {', '.join(names)}", status=200)
                    elif isinstance(item, Row) and not item.tombstone:
                        events.append(_event_of(self._hub.slug, names, item.values))
                if events:
                    silent_at = time.monotonic() + _SILENT_SECONDS
                    self._publish(events, seen)
                    # A stream that is never quiet has been read when its rows are of this time.
                    if now > fill_until and max(event.ms for event in events) >= began_ms:
                        self._hub.set_filled()

    def _publish(self, events: list[Event], seen: set[int]) -> None:
        """Publish what is new: each query begins at the first row, so it repeats all that a stream still has.

        Args:
            events: the next ones.
            seen: partitions of which this query has returned a row.
        """
        history = self._hub.history
        for event in events:
            first = (event.offset, event.ms)
            if event.partition not in history.next:
                history.add_partition(event.partition, event.offset)
            elif event.partition not in seen:
                before = self._first.get(event.partition, first)
                if first[0] < before[0] or (first[0] == before[0] and first[1] != before[1]):
                    self._hub.restart({event.partition: event.offset}, {event.partition}, Reason.RECREATED)
            if event.partition not in seen:
                seen.add(event.partition)
                self._first[event.partition] = first
        new = [event for event in events if event.offset >= history.next[event.partition]]
        self._hub.publish(new, {event.partition: event.offset + 1 for event in new})


async def _next_piece(body: aiohttp.StreamReader, seconds: float) -> bytes | None:
    """Return the next piece of the answer; None if none has come within ``seconds``.

    Raises:
        KsqlTruncated: the answer has ended.
    """
    try:
        async with asyncio.timeout(seconds):
            piece = await body.readany()
    except TimeoutError:
        return None
    if not piece:
        raise KsqlTruncated("the push query has ended", status=200)
    return piece


def _event_of(slug: str, names: list[str], values: list[object]) -> Event:
    """Return the event of a row: the first column is the key, the last three are the record's place and time."""
    key, partition, offset, ms = values[0], *values[-3:]
    if not isinstance(partition, int) or not isinstance(offset, int) or not isinstance(ms, int):
        raise KsqlWrongShape(f"a row without its place: {values!r:.120}", status=200)
    document = dict(zip(names[1:-3], values[1:-3], strict=True))
    value = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Event(slug, str(key or "").encode(), value, partition, offset, ms)
