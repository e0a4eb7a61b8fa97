"""Keeps the membership equal to ksqlDB's table: one list, one watch, and what to believe of either.

The watch (a push query) is opened first. It repeats the table's whole history, tombstones included, and goes on with
its changes, without a mark where the past ends; so its rows are staged. The list (a full pull) is read beside it and
says what is true now. When the watch has shown every asset of the list and has come to rest, the stage replaces what
was known, and from then on every row is applied as it comes.

The map in use is never emptied: while ksqlDB is away, and while it is listed again, the last good one serves. An
asset is removed only when both agree, because a complete, well-formed list can be wrong (after each restart ksqlDB
answers 200 with no rows for 0.3 s).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from openfactory_common.errors import KsqlError, KsqlTruncated, Retry
from openfactory_common.ksqldb.wire import Row
from openfactory_common.registry import GroupLookup as Source
from openfactory_common.tasks import run_until_one_ends
from routing_layer.membership.ksqldb import MembershipQueries, parse_member
from routing_layer.membership.store import UNKNOWN, Group, MembershipStore
from routing_layer.metrics import Metrics

_log = structlog.get_logger(__name__)
#: A list with less than this part of what is known, or with nothing at all, is doubted ...
_COLLAPSE = 0.5
#: ... until this many in a row, ``_PAUSE_SECONDS`` apart, agree: a restarted ksqlDB answers nothing for 0.3 s.
_DOUBTS = 5
_PAUSE_SECONDS = 1.0
#: The stage is at rest when no row came for this long (the server sends history without pauses) ...
_REST_SECONDS = 0.5
#: ... or, on a table that never rests, this long after every listed asset was seen.
_RESTLESS_SECONDS = 5.0
#: A watch that shows nothing for this long shows nothing more of the past.
_SILENT_SECONDS = 20.0
#: The first wait after a failure, and the longest.
_BACKOFF_SECONDS = (0.2, 5.0)
_SLICE = 5000
_V = TypeVar("_V")


@dataclass
class _Stage:
    """What a newly opened watch has shown so far: the last state of each asset, ``UNKNOWN`` after a tombstone."""

    seen: dict[str, Group] = field(default_factory=dict)
    last_row: float = field(default_factory=time.monotonic)
    all_seen: float | None = None

    def has_caught_up(self, listed: Mapping[str, str | None]) -> bool:
        """Whether the history is over: everything listed was seen, and the watch rests."""
        now = time.monotonic()
        if self.all_seen is None and len(self.seen) >= len(listed) and listed.keys() <= self.seen.keys():
            self.all_seen = now
        if self.all_seen is None:
            return now - self.last_row > _SILENT_SECONDS
        return now - self.last_row > _REST_SECONDS or now - self.all_seen > _RESTLESS_SECONDS


class MembershipWatcher:
    """Follows one table until cancelled, also over restarts of ksqlDB."""

    def __init__(self, queries: MembershipQueries, store: MembershipStore, metrics: Metrics, resync: float) -> None:
        """Keep ``store`` current; compare it with a full list every ``resync`` seconds."""
        self._queries = queries
        self._store = store
        self._metrics = metrics
        self._resync = resync
        self._stage: _Stage | None = None
        self._looked_up: set[str] = set()
        self._live = False
        self._last_live = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the membership was last known to be current; 0 while the watch is live."""
        return 0.0 if self._live else time.monotonic() - self._last_live

    def add_looked_up(self, asset: str, group: str | None) -> None:
        """Take the result of a direct query for one asset."""
        if self._stage is not None:  # later nothing asks for it, and nothing would forget it
            self._looked_up.add(asset)
        self._store.put(asset, group)

    async def run(self, source: Source) -> None:
        """Follow ``source`` until cancelled; any failure is logged, counted and followed by a backoff."""
        shortest, longest = _BACKOFF_SECONDS
        delay = shortest
        while True:
            started = time.monotonic()
            try:
                self._stage = stage = _Stage()
                self._looked_up.clear()
                async with self._queries.watch(source) as rows:
                    await run_until_one_ends(self._read_rows(rows), self._list_and_compare(source, stage))
            except KsqlError as error:
                self._metrics.membership_errors.inc()
                _log.warning("membership: %s; serving the last known of %d assets", error, len(self._store.groups))
            except Exception:  # noqa: BLE001 - a bug must not end the watch for good: it is counted and tried again
                self._metrics.membership_errors.inc()
                _log.exception("membership: a bug; serving the last known of %d assets", len(self._store.groups))
            finally:
                if self._live:
                    self._live, self._last_live = False, time.monotonic()
            delay = shortest if time.monotonic() - started > longest else min(delay * 2, longest)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries, no secret

    async def _read_rows(self, rows: AsyncIterator[list[Row]]) -> None:
        async for batch in rows:
            for row in batch:
                asset, group = parse_member(row)
                state: Group = UNKNOWN if row.tombstone else group
                if self._stage is not None:
                    self._stage.seen[asset] = state
                    self._stage.last_row = time.monotonic()
                else:
                    self._store.put(asset, state)
        raise KsqlTruncated("ksqlDB ended the watch")

    async def _list_and_compare(self, source: Source, stage: _Stage) -> None:
        listed = await self._list_until_believed(source, stage)
        async for asset, group in _in_slices(listed):
            self._store.put(asset, group)
        self._store.complete = True
        while not stage.has_caught_up(listed):  # noqa: ASYNC110 - it waits for time to pass without rows
            await asyncio.sleep(0.1)
        for asset in self._store.groups.keys() - listed.keys() - stage.seen.keys() - self._looked_up:
            self._store.put(asset, UNKNOWN)
        del listed
        while stage.seen:  # rows that come meanwhile are staged again and follow
            seen, stage.seen = stage.seen, {}
            async for asset, state in _in_slices(seen):
                self._store.put(asset, state)
        self._stage = None
        self._looked_up.clear()
        self._live = True
        self._metrics.relists.inc()
        _log.info("membership: %d assets, following changes", len(self._store.groups))
        await self._compare_regularly(source)

    async def _list_until_believed(self, source: Source, stage: _Stage) -> dict[str, str | None]:
        """Return a full list that can be believed; query again until there is one."""
        doubts = 0
        while True:
            try:
                listed = await self._queries.list_all(source)
            except KsqlError as error:
                if error.retry is not Retry.TRANSIENT:
                    raise
                _log.info("membership: no list yet: %s", error)
            else:
                if not self._is_doubtful(listed):
                    return listed
                doubts += 1
                shown = sum(state is not UNKNOWN for state in stage.seen.values())
                if doubts >= _DOUBTS and len(listed) >= shown * _COLLAPSE:
                    return listed
                _log.warning("membership: a list of %d assets, %d are known", len(listed), len(self._store.groups))
            self._metrics.membership_errors.inc()
            await asyncio.sleep(_PAUSE_SECONDS)

    def _is_doubtful(self, listed: Mapping[str, str | None]) -> bool:
        return not listed or len(listed) < len(self._store.groups) * _COLLAPSE

    async def _compare_regularly(self, source: Source) -> None:
        """Compare with a full list now and then: a push query may die inside ksqlDB without an error.

        Raises:
            KsqlTruncated: twice in a row the same assets differ, so the watch no longer shows what happens.
        """
        pause = self._resync
        while True:
            await asyncio.sleep(pause)
            started = time.monotonic()
            first = await self._compare(source)
            # A large table is read less often: at most a twentieth of the time goes into comparing.
            pause = max(self._resync, 20 * (time.monotonic() - started))
            if first:
                await asyncio.sleep(2 * _PAUSE_SECONDS)
                missed = first & await self._compare(source)
                if missed:
                    raise KsqlTruncated(f"the watch misses changes of {len(missed)} assets")

    async def _compare(self, source: Source) -> set[tuple[str, Group]]:
        try:
            listed = await self._queries.list_all(source)
        except KsqlError as error:
            _log.info("membership: not compared: %s", error)
            return set()
        return set() if self._is_doubtful(listed) else self._store.differences(listed)


async def _in_slices(mapping: Mapping[str, _V]) -> AsyncIterator[tuple[str, _V]]:
    """Iterate over a mapping, giving way to the streams now and then: a million entries take a second."""
    for number, item in enumerate(mapping.items()):
        yield item
        if number % _SLICE == _SLICE - 1:
            await asyncio.sleep(0)
