"""From an asset to its group: from memory, or by one direct question to ksqlDB."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from openfactory_common.errors import KsqlError
from openfactory_common.ksqldb.levels import Level
from openfactory_common.registry import GroupLookup as Source
from routing_layer import problems
from routing_layer.ksql import Ksql
from routing_layer.membership import UNKNOWN, Membership, NegativeCache, _Unknown
from routing_layer.metrics import Metrics
from routing_layer.watch import Follower

_log = structlog.get_logger(__name__)

#: Questions in flight at once (ksqlDB's pull pool has 50 threads and the operator needs some).
_AT_ONCE = 8
#: Questions that may wait for their turn; more are refused, so that invented names cannot fill the memory.
_WAITING = 2000
#: A client that has waited this long, for the turn and the answer together, is told to come back. Measured before:
#: with ksqlDB hanging and 2,500 invented names a new asset had no answer for 158 s.
_ANSWER_SECONDS = 4.0
_LOG_GAP_SECONDS = 10.0

_Answer = str | _Unknown | None


class _Question:
    """A question that is being asked, or waits for its turn, and how many clients wait for its answer."""

    def __init__(self, task: asyncio.Task[_Answer]) -> None:
        self.task = task
        self.clients = 0


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
        self._asking: dict[str, _Question] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._source = source
        self._logged = float("-inf")

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
            raise problems.asset_without_level(asset, _named(source.level) if source else "level")
        return group

    def _unknown(self, asset: str) -> problems.Problem:
        # A server that has just been started answers "no such row" for a moment: it is believed only once the whole
        # list is known to be there.
        if not self._members.complete:
            return problems.not_ready(f"asset {asset!r} is not known yet: the membership has not been listed; retry")
        self._negative.add(asset)
        return problems.unknown_asset(asset)

    async def _ask(self, asset: str) -> _Answer:
        """Ask ksqlDB, once for all clients that wait for the same asset; a question nobody waits for is cancelled."""
        self._metrics.lookup_misses.inc()
        if asset in self._negative:
            return UNKNOWN
        question = self._asking.get(asset)
        if question is None:
            if len(self._asking) >= _WAITING:
                raise problems.not_ready("too many unknown assets are being asked for; retry")
            question = self._asking[asset] = _Question(asyncio.create_task(self._question(asset)))
            question.task.add_done_callback(lambda _: self._forget(asset, question))
        question.clients += 1
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await asyncio.shield(question.task)
        except TimeoutError as error:
            raise self._not_known_now(asset, "ksqlDB has not answered in time") from error
        except KsqlError as error:
            raise self._not_known_now(asset, str(error)) from error
        finally:
            question.clients -= 1
            if not question.clients:
                question.task.cancel()
                self._forget(asset, question)

    def _forget(self, asset: str, question: _Question) -> None:
        if self._asking.get(asset) is question:
            del self._asking[asset]
        if not question.task.cancelled() and question.task.done():
            question.task.exception()  # it has been told to the clients, of which none may be left

    def _not_known_now(self, asset: str, why: str) -> problems.Problem:
        """Tell the client what to do, and the log why, not more often than every ten seconds."""
        now = asyncio.get_running_loop().time()
        if now - self._logged > _LOG_GAP_SECONDS:
            self._logged = now
            _log.warning("lookup: an asset that is not in memory cannot be asked for: %s", why)
        return problems.not_ready(f"asset {asset!r} is not in memory and membership is not known now; retry")

    async def _question(self, asset: str) -> _Answer:
        source = self._source()
        if source is None:
            raise problems.not_ready("no registry has been read yet; retry")
        async with self._turns:
            with self._members.noting(asset) as changed:
                group = await self._ksql.one(source, asset)
            if changed():  # the watch was faster, and it is in order
                return self._members.group_of(asset)
        if not isinstance(group, _Unknown):
            self._negative.discard(asset)
            self._follower.found(asset, group)
        return group


def _named(level: Level) -> str:
    """Return the level for a person."""
    return f"level {level!r}" if isinstance(level, str) else "levels " + " and ".join(map(repr, level.names))
