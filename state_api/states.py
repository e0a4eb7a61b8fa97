"""The states of assets, read from ksqlDB by pull queries.

The table has one row for each data item, keyed ``asset_uuid|id``. Answers have the shape of the old system's state
API. Equal questions at one time are asked once.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog

from openfactory_common.errors import KsqlError, KsqlNotReady, KsqlUnreachable, KsqlWrongShape
from openfactory_common.ksqldb.wire import Header, Item, Row, RowFeed, literal
from openfactory_common.ksqldb_http import KsqldbSession, pieces
from state_api.metrics import Metrics

_ITEM = ("id", "value", "type", "tag", "timestamp")
#: Less than the proxy waits for the head of an answer (10 s): its client then learns the reason.
_PULL_SECONDS = 8.0
#: After a restart ksqlDB first refuses pull queries, then answers for 0.3 to 0.4 s without rows, then with all of them
#: (measured with 7.7.0). So soon after a failure "no rows" is not yet a fact.
_SETTLING_SECONDS = 5.0
#: Pull queries at once: each takes a descriptor here and a thread there (ksqlDB's pool has 50), and more only wait.
_MAX_RUNNING = 64
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Answer:
    """What a client gets: a status and a JSON document."""

    status: HTTPStatus
    body: bytes


@dataclass(eq=False)
class _Question:
    """A question that is being asked, and how many clients wait for its answer."""

    task: asyncio.Task[Answer]
    clients: int = 0


class AssetStates:
    """The table of data items of one ksqlDB."""

    def __init__(self, ksqldb: KsqldbSession, table: str, metrics: Metrics) -> None:
        """Read ``table``, a name as ksqlDB folds it, through ``ksqldb``."""
        self._ksqldb = ksqldb
        self._select = f"SELECT asset_uuid, {', '.join(_ITEM)} FROM {table}"  # noqa: S608 - the setting is a plain name
        self._metrics = metrics
        self._failed_at = float("-inf")
        self._turns = asyncio.Semaphore(_MAX_RUNNING)
        self._asked: dict[tuple[str, str | None], _Question] = {}

    async def ask(self, asset: str, item: str | None) -> Answer:
        """Answer the state of an asset, or of one of its data items.

        200 with the state; 404 if there is none; 503 while ksqlDB cannot say, whatever the reason: the statement's
        form is fixed, so a refusal means a table that is not there yet or not readable yet.
        """
        asked = self._asked.get((asset, item))
        if asked is None:
            asked = self._asked[asset, item] = _Question(asyncio.create_task(self._answer(asset, item)))
        asked.clients += 1
        try:
            # A client that leaves must not end the query of the others.
            return await asyncio.shield(asked.task)
        finally:
            asked.clients -= 1
            if not asked.clients:
                asked.task.cancel()
                del self._asked[asset, item]

    async def issues(self) -> list[str]:
        """Return what keeps the table from being read, as one sentence, or nothing."""
        try:
            await self._pull("key = ''")
        except KsqlError as error:
            return [f"ksqlDB does not answer for the table of data items: {error}"]
        return []

    async def _answer(self, asset: str, item: str | None) -> Answer:
        key = f"asset_uuid = {literal(asset)}" if item is None else f"key = {literal(f'{asset}|{item}')}"
        try:
            rows = await self._pull(key)
            if not rows and time.monotonic() - self._failed_at < _SETTLING_SECONDS:
                raise KsqlNotReady("the table is being restored")
        except KsqlError as error:
            _log.warning("no state", asset_uuid=asset, reason=str(error))
            return _answer(HTTPStatus.SERVICE_UNAVAILABLE, {"detail": "ksqlDB cannot answer at the moment"})
        if not rows:
            what = "asset_uuid" if item is None else "asset_uuid and id"
            return _answer(HTTPStatus.NOT_FOUND, {"detail": f"No data found for the given {what}."})
        items = [dict(zip(_ITEM, values[1:], strict=True)) for values in rows]
        if item is not None:
            return _answer(HTTPStatus.OK, {"asset_uuid": asset, **items[0]})
        listed = sorted(items, key=lambda one: str(one["id"]))
        return _answer(HTTPStatus.OK, {"asset_uuid": asset, "dataItems": listed})

    async def _pull(self, condition: str) -> list[list[Any]]:
        """Return the rows of the complete answer.

        Raises:
            KsqlError: no answer, an error, or an answer that is cut or not of six columns.
        """
        feed = RowFeed()
        items: list[Item] = []
        try:
            async with asyncio.timeout(_PULL_SECONDS), self._turns:
                with self._metrics.query_seconds.time():
                    async with self._ksqldb.query(f"{self._select} WHERE {condition};") as response:
                        async for piece in pieces(response):
                            items += feed.feed(piece)
                feed.close()
            return _rows(items)
        except (KsqlError, TimeoutError) as error:
            self._failed_at = time.monotonic()
            self._metrics.failures.inc()
            if isinstance(error, TimeoutError):
                raise KsqlUnreachable(f"no answer within {_PULL_SECONDS:g} s") from error
            raise


def _rows(items: list[Item]) -> list[list[Any]]:
    if not items or not isinstance(items[0], Header):
        raise KsqlWrongShape("an answer without a header", status=HTTPStatus.OK)
    rows = [item.values for item in items if isinstance(item, Row)]
    if any(len(values) != 1 + len(_ITEM) for values in rows):
        raise KsqlWrongShape(f"a row that has not {1 + len(_ITEM)} columns", status=HTTPStatus.OK)
    return rows


def _answer(status: HTTPStatus, document: dict[str, Any]) -> Answer:
    return Answer(status, json.dumps(document).encode())
