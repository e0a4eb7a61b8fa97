"""The three queries that the proxy sends to ksqlDB, all in StreamedRow form."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import aiohttp

from openfactory_common.errors import KsqlUnreachable, KsqlWrongShape
from openfactory_common.ksqldb.failures import brief
from openfactory_common.ksqldb.levels import membership_sql
from openfactory_common.ksqldb.wire import Row, RowFeed, column, fold_name, literal
from openfactory_common.ksqldb_http import KsqldbSession, pieces
from openfactory_common.registry import GroupLookup as Source
from routing_layer.membership.store import UNKNOWN, Group

#: Changes come at once instead of at the next commit (2 s); the opening content then comes record by record.
_NO_BUFFERING = {"ksql.streams.cache.max.bytes.buffering": 0}
#: A pull that takes longer between two rows is not going to end (a server without Kafka: minutes).
_LIST_ROW_SECONDS = 20.0
_LOOKUP_SECONDS = 5
_WATCH_HEAD_SECONDS = 20


class MembershipQueries(KsqldbSession):
    """ksqlDB as the proxy sees it: every failure is one of ``KsqlError``."""

    async def list_all(self, source: Source) -> dict[str, str | None]:
        """Return the group of every asset.

        Raises:
            KsqlError: no answer, an error, or an answer that is not complete.
        """
        listed, loop = dict[str, str | None](), asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_LIST_ROW_SECONDS) as limit, self.query(f"{_select(source)};") as response:
                async for rows in _rows(response):
                    listed.update(map(parse_member, rows))
                    if rows:
                        limit.reschedule(loop.time() + _LIST_ROW_SECONDS)
        except TimeoutError as error:
            raise KsqlUnreachable(f"{self.url}: no row of the list in {_LIST_ROW_SECONDS:g} s") from error
        return listed

    async def look_up(self, source: Source, asset: str) -> Group:
        """Return one asset's group, None if it has no level, ``UNKNOWN`` if there is no such asset.

        Raises:
            KsqlError: no answer, an error, or an answer that is not complete.
        """
        group: Group = UNKNOWN
        # The name comes from a client and is escaped.
        statement = f"{_select(source)} WHERE {column(fold_name(source.key))} = {literal(asset)};"
        async with self.query(statement, total=_LOOKUP_SECONDS) as response:
            async for rows in _rows(response):
                for row in rows:
                    group = parse_member(row)[1]
        return group

    @asynccontextmanager
    async def watch(self, source: Source) -> AsyncIterator[AsyncIterator[list[Row]]]:
        """Open the push query: the whole membership and then its changes; it ends only with ksqlDB.

        Raises:
            KsqlError: no answer, an error, or rows that are cut.
        """
        try:
            async with asyncio.timeout(_WATCH_HEAD_SECONDS) as limit:
                async with self.query(f"{_select(source)} EMIT CHANGES;", _NO_BUFFERING) as response:
                    limit.reschedule(None)
                    yield _rows(response)
        except TimeoutError as error:
            raise KsqlUnreachable(f"{self.url}: the watch was not opened in {_WATCH_HEAD_SECONDS} s") from error


async def _rows(response: aiohttp.ClientResponse) -> AsyncIterator[list[Row]]:
    feed = RowFeed()
    async for piece in pieces(response):
        yield [item for item in feed.feed(piece) if isinstance(item, Row)]
    feed.close()


def _select(source: Source) -> str:
    return membership_sql(source.table, source.key, source.level)


def parse_member(row: Row) -> tuple[str, str | None]:
    """Return the asset and the group of a row (a tombstone has no group).

    Raises:
        KsqlWrongShape: it is not two columns of text.
    """
    match row.values:
        case [str() as asset, str() | None as group]:
            # One string a group, not one a row: of a million rows, three copies are alive while they are compared.
            return asset, group if group is None else sys.intern(group)
        case _:
            raise KsqlWrongShape(f"not an asset and its group: {brief(row.values)}", status=HTTPStatus.OK)
