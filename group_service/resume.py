"""Brings one client from where it stopped to the present: from memory, from its topic, from another group's topic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import structlog

from group_service.archive import Archive, Portion, Request, SourceError, TopicMissing
from group_service.events import Event, Reason, chunk, gap_frame
from group_service.hub import Client, Hub, frames
from group_service.ids import Position, ResumePoint, format_position

T = TypeVar("T")
_log = structlog.get_logger()
#: Another replica has sent a record that this one has not read yet.
_LAG_SECONDS = 0.02
_RETRY_SECONDS = 1.0
#: A client that others wait for is cut when it does not take a portion in this time; it comes back and goes on.
#: A record of 1 MB passes at 9 KB/s.
_WRITE_SECONDS = 120.0
#: After so many events another set of them is begun, and the one before the last is forgotten: 100,000 take 8 MB.
_REMEMBERED = 50_000
#: The query of the group that an asset has left can still write its last events (it writes every 0.1 s).
SETTLE_SECONDS = 1.0


class Ended(Exception):
    """The stream is to end."""


class Resumption:
    """The way of one client to the present."""

    def __init__(
        self, hub: Hub, archive: Archive, client: Client, write: Callable[[bytes], Awaitable[None]], limit: int
    ) -> None:
        """Resume for ``client``.

        Args:
            hub: where it goes live.
            archive: what is not in memory.
            client: its asset and data item.
            write: writes to it, and waits until it has read enough.
            limit: records that are read for it at most.
        """
        self._hub, self._archive, self._client, self._write, self._limit = hub, archive, client, write, limit
        self._position: dict[int, int] = {}
        self._ms: int | None = None
        self._last_id = ""
        self._sent: set[int] = set()
        self._sent_before: set[int] = set()
        self._has_turn = False
        self._had: Position = {}
        self._learned_ms = 0

    async def run(self, point: ResumePoint | None, given: str, *, unknown: bool) -> None:
        """Send everything from ``point`` on, then go live.

        Args:
            point: where the client stopped; None: it wants what comes from now on.
            given: its id as it was sent.
            unknown: what it sent is no id: it is told so.

        Raises:
            Ended: the stream is to end.
            SourceError: never; reading is tried again until the client leaves.
        """
        while not self._hub.filled:
            await self._pause(_LAG_SECONDS)
        self._last_id, generation = given, self._hub.generation
        self._ms = None if point is None else point.since
        await self._start(point)
        if unknown:
            await self._tell_gap(Reason.UNKNOWN, given)
        while True:
            if generation != self._hub.generation:
                generation = self._hub.generation
                await self._start_in_new_topic()
            elif self._hub.history.covers(self._position):
                events, are_all = self._hub.history.take(self._position, self._client.asset)
                if await self._learn(self._hub.slug, events):
                    continue  # the history may have moved on
                if are_all:
                    # Nothing else runs between the look into the history and the first live event.
                    framed = self._frame(events)
                    self._client.since = self._client.since if self._ms is None else self._ms
                    # From here on it can come back to the present position, even if no event of its asset follows.
                    self._client.write(
                        chunk(b"%b: live\nid: %b\n\n" % (b"".join(framed), self._hub.head(self._client).encode()))
                    )
                    self._hub.metrics.deliveries.inc(len(framed))
                    self._hub.go_live(self._client)
                    return
                await self._send(events)
            else:
                async with self._turn():
                    while generation == self._hub.generation and not self._hub.history.covers(self._position):
                        await self._read_own()

    async def _start(self, point: ResumePoint | None) -> None:
        hub = self._hub
        if point is None or (not point.last and point.ms is None):
            self._position = dict(hub.history.next)
        elif not point.slug and point.ms is not None:
            self._position = dict(await self._locate(point.ms))
        elif point.slug == hub.slug:
            await self._start_in_own(point)
        else:
            await self._start_in_other(point)

    async def _start_in_own(self, point: ResumePoint) -> None:
        for partition, offset in point.last.items():
            if offset >= 0 and not await self._is_same(partition, offset, None if point.whole else point.ms):
                await self._start_in_new_topic()
                return
        others: Position = dict.fromkeys(self._hub.history.next, 0)
        if not point.whole and len(others) > 1:
            others = self._hub.history.next if point.since is None else await self._locate(point.since)
        self._position = {p: point.last[p] + 1 if p in point.last else offset for p, offset in others.items()}
        if not self._hub.history.covers(self._position):
            self._set_had(point)

    async def _is_same(self, partition: int, offset: int, ms: int | None) -> bool:
        """Whether the topic still has, or had, this record; wait until this replica has read it as well."""
        history = self._hub.history
        found, end = history.timestamp(partition, offset), history.next.get(partition, 0)
        if offset >= end or (found is None and ms is not None):
            try:
                found, end = await self._retry(lambda: self._archive.probe(self._hub.slug, partition, offset))
            except TopicMissing:
                return False
        generation = self._hub.generation
        while offset < end and history.next.get(partition, 0) <= offset and generation == self._hub.generation:
            await self._pause(_LAG_SECONDS)
        return offset < end and (found is None or ms is None or found == ms)

    async def _start_in_new_topic(self) -> None:
        """The topic was deleted and made again: go on after the time of the last event, and tell it."""
        last = self._last_id or format_position(self._hub.slug, self._position)
        self._position = dict(self._hub.history.start if self._ms is None else await self._locate(self._ms + 1))
        await self._tell_gap(Reason.RECREATED, last)

    async def _start_in_other(self, point: ResumePoint) -> None:
        """The asset was in another group: send the rest of its events there, then go on here from that time."""
        ms, reason, given = point.since, Reason.MOVED, self._last_id
        if self._client.asset is not None:
            try:
                ms, reason_or_none = await self._read_other(point)
            except TopicMissing:
                reason_or_none = Reason.DELETED
            self._had = {}
            if reason_or_none is None and ms is not None:
                self._position = dict(await self._locate(ms))
                return
            reason = reason_or_none or Reason.UNKNOWN
        self._position = dict(self._hub.history.next if ms is None else await self._locate(ms))
        await self._tell_gap(reason, given)

    async def _read_other(self, point: ResumePoint) -> tuple[int | None, Reason | None]:
        """Send the rest of another group's topic; return the time of the client's record, and what went wrong."""
        ms = point.since
        for partition, offset in point.last.items():
            found, end = await self._retry(lambda p=partition, o=offset: self._archive.probe(point.slug, p, max(o, 0)))  # type: ignore[misc]
            if offset >= end or (not point.whole and found is not None and point.ms not in (None, found)):
                return ms, Reason.RECREATED
            ms = found if ms is None and offset >= 0 else ms
        request = Request(
            point.slug, {p: o + 1 for p, o in point.last.items()}, until=None, asset=self._client.asset, limit=None
        )
        self._set_had(point)
        records = 0
        for settle in (0.0, SETTLE_SECONDS):
            await self._pause(settle)
            done = False
            async with self._turn():
                while not done:
                    portion = await self._retry(lambda one=request: self._archive.read(one))  # type: ignore[misc]
                    records += portion.records
                    if portion.reason is not None:
                        await self._tell_gap(portion.reason, self._last_id, format_position(point.slug, portion.start))
                    await self._learn(point.slug, portion.events)
                    fresh = self._drop_repeated(portion.events)
                    await self._write_events([event.frame for event in fresh])
                    if fresh:
                        self._last_id = _id_of(fresh[-1])
                    request, done = replace(request, position=portion.position), portion.done
                    if records > self._limit and not done:
                        return ms, Reason.LIMIT
        return ms, None

    async def _read_own(self) -> None:
        """Read the next portion of our own topic."""
        portion: Portion = await self._retry(
            lambda: self._archive.read(
                Request(self._hub.slug, self._position, self._hub.history.start, self._client.asset, self._limit)
            ),
            missing_is_final=False,
        )
        self._hub.metrics.replays.inc()
        if portion.reason is not None:
            last = self._last_id or format_position(self._hub.slug, self._position)
            self._position = dict(portion.start)
            await self._tell_gap(portion.reason, last)
        await self._learn(self._hub.slug, portion.events)
        await self._send(portion.events)
        self._position = dict(portion.position)
        if not portion.records:  # the topic has lost records that were there: the live reader will notice
            await self._pause(_LAG_SECONDS)

    def _set_had(self, point: ResumePoint) -> None:
        """Keep what the client has of a topic, of which events may come a second time."""
        self._had = {partition: offset + 1 for partition, offset in point.last.items()}
        self._learned_ms = 0 if point.since is None else point.since + 1

    async def _learn(self, slug: str, events: list[Event]) -> bool:
        """Read what the client has from the time of the oldest of these events on; False if none can repeat it.

        A stream that is created again writes events once more, after the client's position.
        """
        oldest = min(
            (event.ms for event in events if self._wants(event) and not self._has(event)), default=self._learned_ms
        )
        if not self._had or oldest >= self._learned_ms:
            return False
        final = slug != self._hub.slug  # our own topic comes again
        found = await self._retry(lambda: self._archive.locate(slug, oldest), missing_is_final=final)
        begin = {partition: found.get(partition, end) for partition, end in self._had.items()}
        request, done = Request(slug, begin, self._had, self._client.asset, self._limit), False
        while not done:
            portion = await self._retry(lambda one=request: self._archive.read(one), missing_is_final=final)  # type: ignore[misc]
            self._drop_repeated(portion.events)
            request, done = replace(request, position=portion.position), portion.done
        self._learned_ms = oldest
        return True

    def _drop_repeated(self, events: list[Event]) -> list[Event]:
        """Return the events that the client wants and has not, each once; from now on it has them."""
        fresh = []
        for event in events:
            if self._wants(event) and not self._has(event):
                if len(self._sent) >= _REMEMBERED:
                    self._sent_before, self._sent = self._sent, set()
                self._sent.add(event.fingerprint)
                fresh.append(event)
        return fresh

    def _has(self, event: Event) -> bool:
        """Whether the client has an event that was sent to it a while ago at most."""
        return event.fingerprint in self._sent or event.fingerprint in self._sent_before

    async def _locate(self, ms: int) -> Position:
        found = self._hub.history.locate(ms)
        if found is not None:
            return found
        return await self._retry(lambda: self._archive.locate(self._hub.slug, ms), missing_is_final=False)

    async def _retry(self, ask: Callable[[], Awaitable[T]], *, missing_is_final: bool = True) -> T:
        """Ask until there is an answer: a broker that restarts must not cost events."""
        while True:
            if self._client.ended.done():
                raise Ended
            try:
                return await ask()
            except SourceError as error:
                if missing_is_final and isinstance(error, TopicMissing):
                    raise
                _log.warning("cannot read for a client that resumes", reason=str(error))
            await self._pause(_RETRY_SECONDS)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait until few enough others read what is not in memory.

        Raises:
            Ended: the stream is to end.
        """
        turn: asyncio.Future[Any] = asyncio.ensure_future(self._hub.replays.acquire())
        try:
            await asyncio.wait({turn, self._client.ended}, return_when=asyncio.FIRST_COMPLETED)
            await self._pause(0)
            self._has_turn = True
            yield
        finally:
            self._has_turn = False
            if not turn.cancel():
                self._hub.replays.release()

    async def _pause(self, pause: float) -> None:
        if self._client.ended.done():
            raise Ended
        await asyncio.sleep(pause)

    async def _tell_gap(self, reason: Reason, start: str, end: str = "") -> None:
        self._hub.metrics.gaps[reason].inc()
        self._last_id = end or format_position(self._hub.slug, self._position)
        await self._write(gap_frame(start, self._last_id, reason))

    def _wants(self, event: Event) -> bool:
        return self._client.item is None or self._client.item == event.item

    def _frame(self, events: list[Event]) -> list[bytes]:
        """Return the frames of the events that the client wants, each event once, and advance the position over all."""
        if not events:
            return []
        self._ms, self._last_id = events[-1].ms, ""
        fresh = self._drop_repeated(events)
        whole = self._client.asset is None
        framed = frames(self._hub.slug, fresh, self._position) if whole else [event.frame for event in fresh]
        self._position.update((event.partition, event.offset + 1) for event in events)
        return framed

    async def _send(self, events: list[Event]) -> None:
        await self._write_events(self._frame(events))

    async def _write_events(self, framed: list[bytes]) -> None:
        if self._client.ended.done():
            raise Ended
        if framed:
            self._client.quiet = 0
            try:
                async with asyncio.timeout(_WRITE_SECONDS if self._has_turn else None):
                    await self._write(b"".join(framed))
            except TimeoutError:
                self._client.abort()
                self._hub.metrics.cut.inc()
                raise Ended from None
            self._hub.metrics.deliveries.inc(len(framed))


def _id_of(event: Event) -> str:
    return event.frame[4 : event.frame.index(b"\n")].decode()
