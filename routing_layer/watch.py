"""Keeps the membership equal to ksqlDB's table: one list, one watch, and what to believe of either.

The watch (a push query) is opened first. It repeats the table's whole history, tombstones included, and goes on with
its changes, without a mark where the past ends; so its rows are staged. The list (a full pull) is read beside it and
says what is true now. When the watch has shown every asset of the list and has come to rest, the stage replaces what
was known, and from then on every row is applied as it comes.

The map in use is never emptied: while ksqlDB is away, and while it is listed again, the last good one serves. An
asset is removed only when both agree, because a complete, well-formed list may lie (after each restart ksqlDB answers
200 with no rows for 0.3 s).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from openfactory_common.errors import KsqlError, KsqlTruncated, Retry
from openfactory_common.ksqldb.wire import Row
from openfactory_common.registry import GroupLookup as Source
from routing_layer.ksql import Ksql, pair
from routing_layer.membership import Membership
from routing_layer.memory import trim
from routing_layer.metrics import Metrics

_log = structlog.get_logger(__name__)

#: A list with less than this part of what is known, or with nothing at all, is doubted ...
_COLLAPSE = 0.5
#: ... until this many in a row, a second apart, say the same: the lying window of a restart is 0.3 s.
_DOUBTS = 5
_PAUSE = 1.0
#: The stage is at rest when no row came for this long (the server sends history without pauses) ...
_REST = 0.5
#: ... or, on a table that never rests, this long after every listed asset was seen.
_RESTLESS = 5.0
#: A watch that shows nothing for this long shows nothing more of the past.
_SILENT = 20.0
_BACKOFF = (0.2, 5.0)
_SLICE = 5000
_V = TypeVar("_V")


@dataclass(frozen=True)
class _Gone:
    """The asset's last row was a tombstone."""


_GONE = _Gone()


class Stage:
    """What a newly opened watch has shown so far: the last state of each asset."""

    def __init__(self) -> None:
        """Start before the first row."""
        self.seen: dict[str, str | _Gone | None] = {}
        self._last = time.monotonic()
        self._all_seen: float | None = None

    def fold(self, asset: str, group: str | None, *, gone: bool) -> None:
        """Take one row."""
        self.seen[asset] = _GONE if gone else group
        self._last = time.monotonic()

    @property
    def alive(self) -> int:
        """How many assets it shows that are not gone."""
        return sum(state is not _GONE for state in self.seen.values())

    def caught_up(self, listed: Mapping[str, str | None]) -> bool:
        """Whether the history is over: everything listed was seen, and the watch rests."""
        now = time.monotonic()
        if self._all_seen is None and len(self.seen) >= len(listed) and listed.keys() <= self.seen.keys():
            self._all_seen = now
        if self._all_seen is None:
            return now - self._last > _SILENT
        return now - self._last > _REST or now - self._all_seen > _RESTLESS


class Follower:
    """Follows one table for ever, whatever happens to ksqlDB."""

    def __init__(self, ksql: Ksql, members: Membership, metrics: Metrics, resync: float) -> None:
        """Keep ``members`` current; compare it with a full list every ``resync`` seconds."""
        self._ksql = ksql
        self._members = members
        self._metrics = metrics
        self._resync = resync
        self._stage: Stage | None = None
        self._found: set[str] = set()
        self._current = False
        self._last_current = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the membership was last known to be current; 0 while the watch is live."""
        return 0.0 if self._current else time.monotonic() - self._last_current

    def found(self, asset: str, group: str | None) -> None:
        """Take the answer to a direct question about one asset."""
        if self._stage is not None:  # later nothing asks for it, and nothing would forget it
            self._found.add(asset)
        self._members.put(asset, group)

    async def run(self, source: Source) -> None:
        """Follow ``source`` until cancelled; any failure is logged, counted and followed by a backoff."""
        delay = _BACKOFF[0]
        while True:
            started = time.monotonic()
            try:
                await self._follow(source)
            except KsqlError as error:
                self._metrics.membership_errors.inc()
                _log.warning("membership: %s; serving the last known of %d assets", error, len(self._members))
            except Exception:  # noqa: BLE001 - a bug must not end the watch for good: it is counted and tried again
                self._metrics.membership_errors.inc()
                _log.exception("membership: a bug; serving the last known of %d assets", len(self._members))
            finally:
                self._lost()
            delay = _BACKOFF[0] if time.monotonic() - started > _BACKOFF[1] else min(delay * 2, _BACKOFF[1])
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries, no secret

    async def _follow(self, source: Source) -> None:
        self._stage = Stage()
        self._found.clear()
        async with self._ksql.watch(source) as rows:
            await _first_failure(self._read(rows), self._list_and_stay(source, self._stage))

    async def _list_and_stay(self, source: Source, stage: Stage) -> None:
        await self._relist(source, stage)
        await self._stay(source)

    async def _relist(self, source: Source, stage: Stage) -> None:
        listed = await self._believed(source, stage)
        async for asset, group in _in_slices(listed):
            self._members.put(asset, group)
        self._members.complete = True
        while not stage.caught_up(listed):  # noqa: ASYNC110 - it waits for time to pass without rows
            await asyncio.sleep(0.1)
        await self._settle(stage, listed)
        del listed
        trim()

    async def _believed(self, source: Source, stage: Stage) -> dict[str, str | None]:
        """Return a full list that can be believed; ask again until there is one."""
        doubts = 0
        while True:
            try:
                listed = await self._ksql.everything(source)
            except KsqlError as error:
                if error.retry is not Retry.TRANSIENT:
                    raise
                _log.info("membership: no list yet: %s", error)
            else:
                if not self._doubtful(listed, len(self._members)):
                    return listed
                doubts += 1
                if doubts >= _DOUBTS and not self._doubtful(listed, stage.alive, empty=False):
                    return listed
                _log.warning("membership: a list of %d assets, %d are known", len(listed), len(self._members))
            self._metrics.membership_errors.inc()
            await asyncio.sleep(_PAUSE)

    @staticmethod
    def _doubtful(listed: Mapping[str, str | None], known: int, *, empty: bool = True) -> bool:
        return (empty and not listed) or len(listed) < known * _COLLAPSE

    async def _settle(self, stage: Stage, listed: Mapping[str, str | None]) -> None:
        """Make the stage the truth and go live; rows that come meanwhile are staged again and follow."""
        for asset in self._members.assets() - listed.keys() - stage.seen.keys() - self._found:
            self._members.remove(asset)
        while stage.seen:
            seen, stage.seen = stage.seen, {}
            async for asset, state in _in_slices(seen):
                self._apply(asset, state)
        self._stage = None
        self._found.clear()
        self._current = True
        self._metrics.relists.inc()
        _log.info("membership: %d assets, following changes", len(self._members))

    async def _read(self, rows: AsyncIterator[list[Row]]) -> None:
        async for batch in rows:
            for row in batch:
                asset, group = pair(row)
                if self._stage is not None:
                    self._stage.fold(asset, group, gone=row.tombstone)
                else:
                    self._apply(asset, _GONE if row.tombstone else group)

    def _apply(self, asset: str, state: str | _Gone | None) -> None:
        if isinstance(state, _Gone):
            self._members.remove(asset)
        else:
            self._members.put(asset, state)

    async def _stay(self, source: Source) -> None:
        """Compare with a full list now and then: a push query may die inside ksqlDB without a word.

        Raises:
            KsqlTruncated: twice in a row the same assets differ, so the watch no longer shows what happens.
        """
        pause = self._resync
        while True:
            await asyncio.sleep(pause)
            started = time.monotonic()
            first = await self._differences(source)
            trim()
            # A large table is read less often: at most a twentieth of the time goes into comparing.
            pause = max(self._resync, 20 * (time.monotonic() - started))
            if first:
                await asyncio.sleep(2 * _PAUSE)
                second = await self._differences(source)
                if first & second:
                    raise KsqlTruncated(f"the watch misses changes of {len(first & second)} assets")

    async def _differences(self, source: Source) -> set[tuple[str, str | None, bool]]:
        try:
            listed = await self._ksql.everything(source)
        except KsqlError as error:
            _log.info("membership: not compared: %s", error)
            return set()
        if self._doubtful(listed, len(self._members)):
            return set()
        difference = self._members.difference(listed)
        changed = {(asset, group, True) for asset, group in difference.changed.items()}
        return changed | {(asset, None, False) for asset in difference.missing}

    def _lost(self) -> None:
        if self._current:
            self._current = False
            self._last_current = time.monotonic()


async def _in_slices(mapping: Mapping[str, _V]) -> AsyncIterator[tuple[str, _V]]:
    """Go through a mapping, giving way to the streams now and then: a million entries take a second."""
    for number, item in enumerate(mapping.items()):
        yield item
        if number % _SLICE == _SLICE - 1:
            await asyncio.sleep(0)


async def _first_failure(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run all until one ends or fails, and end the others."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
