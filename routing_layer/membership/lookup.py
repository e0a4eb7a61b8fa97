"""From an asset to its group: from memory, or by one direct query to ksqlDB."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from openfactory_common.errors import KsqlError
from openfactory_common.ksqldb.levels import split_level
from openfactory_common.registry import GroupLookup as Source
from routing_layer.membership.ksqldb import MembershipQueries
from routing_layer.membership.store import UNKNOWN, Absence, Group, MembershipStore
from routing_layer.membership.watch import MembershipWatcher
from routing_layer.metrics import Metrics
from routing_layer.problems import Problem, ProblemType
from routing_layer.ttl_cache import TtlCache

_log = structlog.get_logger(__name__)

#: Queries in flight at once (ksqlDB's pull pool has 50 threads and the operator needs some).
_MAX_RUNNING = 8
#: Queries that may wait for their turn; more are refused, so that invented names cannot fill the memory.
_MAX_QUERIES = 2000
#: A client that has waited this long, for the turn and the answer together, gets a 503. Measured before: with ksqlDB
#: hanging and 2,500 invented names a new asset had no answer for 158 s.
_ANSWER_SECONDS = 4.0
#: A longer name is not cached as unknown: 10,000 request heads of 8 KiB would be 80 MiB.
_MAX_CACHED_NAME = 256


@dataclass(eq=False)
class _Query:
    """A query that runs or waits for its turn, and how many clients wait for its answer."""

    task: asyncio.Task[Group]
    clients: int = 0


class Lookup:
    """Finds the group of an asset."""

    def __init__(
        self,
        store: MembershipStore,
        watcher: MembershipWatcher,
        queries: MembershipQueries,
        unknown: TtlCache[str, bool],
        metrics: Metrics,
        source: Callable[[], Source | None],
    ) -> None:
        """Read ``store`` first; on a miss query ``source``; ``unknown`` keeps what ksqlDB did not know a moment ago."""
        self._store = store
        self._watcher = watcher
        self._queries = queries
        self._unknown = unknown
        self._metrics = metrics
        self._pending: dict[str, _Query] = {}
        self._turns = asyncio.Semaphore(_MAX_RUNNING)
        self._source = source

    async def find_group(self, asset: str) -> str:
        """Return the asset's group.

        Raises:
            Problem: 404 for an unknown asset and one without the level, 503 while that is not known.
        """
        group = self._store.group_of(asset)
        if group is UNKNOWN:
            group = await self._query(asset)
        if isinstance(group, str):
            return group
        if group is None:
            source = self._source()
            names = split_level(source.level)[0] if source is not None else ("?",)
            named = ("level " if len(names) == 1 else "levels ") + " and ".join(map(repr, names))
            detail = f"asset {asset!r} is in the UNS map, but has no {named}, so it belongs to no group"
            raise Problem(ProblemType.ASSET_WITHOUT_LEVEL, detail)
        # A server that has just been started answers "no such row" for a moment: it is believed only once the whole
        # list is known to be there.
        if not self._store.complete:
            detail = f"asset {asset!r} is not known yet: the membership has not been listed; retry"
            raise Problem(ProblemType.NOT_READY, detail)
        if len(asset) <= _MAX_CACHED_NAME:
            self._unknown.put(asset, True)
        raise Problem(ProblemType.UNKNOWN_ASSET, f"asset {asset!r} is not in the UNS map")

    async def _query(self, asset: str) -> Group:
        """Query ksqlDB once for all clients that wait for the same asset; without clients the query is cancelled."""
        self._metrics.lookup_misses.inc()
        if self._unknown.get(asset):
            return UNKNOWN
        query = self._pending.get(asset)
        if query is None:
            if len(self._pending) >= _MAX_QUERIES:
                raise Problem(ProblemType.NOT_READY, "too many unknown assets are being looked up; retry")
            query = self._pending[asset] = _Query(asyncio.create_task(self._run_query(asset)))
            query.task.add_done_callback(lambda _: self._forget(asset, query))
        query.clients += 1
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await asyncio.shield(query.task)
        except (TimeoutError, KsqlError) as error:
            why = str(error) or "ksqlDB has not answered in time"
            _log.warning("lookup: an asset that is not in memory cannot be looked up: %s", why)
            detail = f"asset {asset!r} is not in memory and membership is not known now; retry"
            raise Problem(ProblemType.NOT_READY, detail) from error
        finally:
            query.clients -= 1
            if not query.clients:
                query.task.cancel()
                self._forget(asset, query)

    def _forget(self, asset: str, query: _Query) -> None:
        if self._pending.get(asset) is query:
            del self._pending[asset]
        if query.task.done() and not query.task.cancelled():
            query.task.exception()  # the clients have seen it, of which none may be left

    async def _run_query(self, asset: str) -> Group:
        source = self._source()
        if source is None:
            raise Problem(ProblemType.NOT_READY, "no registry has been read yet; retry")
        async with self._turns:
            with self._store.track(asset) as written:
                group = await self._queries.look_up(source, asset)
            if written.is_set():  # the watch was faster, and it is in order
                return self._store.group_of(asset)
        if not isinstance(group, Absence):
            self._unknown.discard(asset)
            self._watcher.add_looked_up(asset, group)
        return group
