"""From an asset to its group: from memory, or by one direct question to ksqlDB."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from reconciler.errors import KsqlError
from reconciler.registry import Membership as Source
from routing_layer import problems
from routing_layer.ksql import Ksql
from routing_layer.membership import UNKNOWN, Membership, NegativeCache, _Unknown
from routing_layer.metrics import Metrics
from routing_layer.watch import Follower

#: Questions in flight at once (ksqlDB's pull pool has 50 threads and the operator needs some).
_AT_ONCE = 8
#: Questions that may wait for their turn; more are refused, so that invented names cannot fill the memory.
_WAITING = 2000


class Lookup:
    """Answers which group an asset is in."""

    def __init__(
        self,
        members: Membership,
        follower: Follower,
        ksql: Ksql,
        negative: NegativeCache,
        metrics: Metrics,
        source: Callable[[], Source | None],
    ) -> None:
        """Read ``members`` first; ask ``ksql`` for ``source`` on a miss."""
        self._members = members
        self._follower = follower
        self._ksql = ksql
        self._negative = negative
        self._metrics = metrics
        self._asking: dict[str, asyncio.Task[str | _Unknown | None]] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._source = source

    async def group_of(self, asset: str) -> str:
        """Return the asset's group.

        Raises:
            Problem: 404 for an unknown asset and one without the level, 503 while neither can be told.
        """
        group = self._members.group_of(asset)
        if isinstance(group, _Unknown):
            group = await self._ask(asset)
        if isinstance(group, _Unknown):
            raise self._unknown(asset)
        if group is None:
            source = self._source()
            raise problems.asset_without_level(asset, source.group if source else "level")
        return group

    def _unknown(self, asset: str) -> problems.Problem:
        # A server that has just been started answers "no such row" for a moment: it is believed only once the whole
        # list is known to be there.
        if not self._members.complete:
            return problems.not_ready(f"asset {asset!r} is not known yet: the membership has not been listed")
        self._negative.add(asset)
        return problems.unknown_asset(asset)

    async def _ask(self, asset: str) -> str | _Unknown | None:
        self._metrics.lookup_misses.inc()
        if asset in self._negative:
            return UNKNOWN
        task = self._asking.get(asset)
        if task is None:
            if len(self._asking) >= _WAITING:
                raise problems.not_ready("too many unknown assets are being asked for")
            task = self._asking[asset] = asyncio.create_task(self._question(asset))
            task.add_done_callback(lambda _: self._asking.pop(asset, None))
        try:
            return await asyncio.shield(task)
        except KsqlError as error:
            raise problems.not_ready(f"asset {asset!r} is not in memory and ksqlDB cannot be asked: {error}") from error

    async def _question(self, asset: str) -> str | _Unknown | None:
        source = self._source()
        if source is None:
            raise problems.not_ready("no registry has been read yet")
        async with self._turns:
            with self._members.noting(asset) as changed:
                group = await self._ksql.one(source, asset)
            if changed():  # the watch was faster, and it is in order
                return self._members.group_of(asset)
        if not isinstance(group, _Unknown):
            self._negative.discard(asset)
            self._follower.found(asset, group)
        return group
