"""The three queries that the proxy sends to ksqlDB, all in StreamedRow form."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp

from openfactory_common.errors import KsqlUnreachable, KsqlWrongShape
from openfactory_common.ksqldb.failures import brief, error_of
from openfactory_common.ksqldb.levels import membership_sql
from openfactory_common.ksqldb.wire import ROWS_ACCEPT, Row, RowFeed, column, fold_name, literal
from openfactory_common.registry import GroupLookup as Source
from openfactory_common.settings_types import strip_user
from routing_layer.membership.store import UNKNOWN, Group
from routing_layer.settings import Settings

#: Changes come at once instead of at the next commit (2 s); the opening content then comes record by record.
_NO_BUFFERING = {"ksql.streams.cache.max.bytes.buffering": 0}
#: A pull that takes longer between two rows is not going to end (a server without Kafka: minutes).
_LIST_ROW_SECONDS = 20.0
_CONNECT_SECONDS = 3
_LOOKUP_SECONDS = 5
_WATCH_HEAD_SECONDS = 20
_CHUNK = 64 * 1024
_MAX_ERROR = 64 * 1024


class MembershipQueries:
    """ksqlDB as the proxy sees it: every failure is one of ``KsqlError``."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """Send to the server at ``url`` through ``session``, which has the credentials: no message has them."""
        self._session = session
        self._url = f"{strip_user(url)}/query"

    async def list_all(self, source: Source) -> dict[str, str | None]:
        """Return the group of every asset.

        Raises:
            KsqlError: no answer, an error, or an answer that is not complete.
        """
        listed, loop = dict[str, str | None](), asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_LIST_ROW_SECONDS) as limit, self._query(f"{_select(source)};") as response:
                async for rows in _rows(response):
                    listed.update(map(parse_member, rows))
                    if rows:
                        limit.reschedule(loop.time() + _LIST_ROW_SECONDS)
        except TimeoutError as error:
            raise KsqlUnreachable(f"{self._url}: no row of the list in {_LIST_ROW_SECONDS:g} s") from error
        return listed

    async def look_up(self, source: Source, asset: str) -> Group:
        """Return one asset's group, None if it has no level, ``UNKNOWN`` if there is no such asset.

        Raises:
            KsqlError: no answer, an error, or an answer that is not complete.
        """
        group: Group = UNKNOWN
        # The name comes from a client and is escaped.
        statement = f"{_select(source)} WHERE {column(fold_name(source.key))} = {literal(asset)};"
        async with self._query(statement, total=_LOOKUP_SECONDS) as response:
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
                async with self._query(f"{_select(source)} EMIT CHANGES;", _NO_BUFFERING) as response:
                    limit.reschedule(None)
                    yield _rows(response)
        except TimeoutError as error:
            raise KsqlUnreachable(f"{self._url}: the watch was not opened in {_WATCH_HEAD_SECONDS} s") from error

    @asynccontextmanager
    async def _query(
        self, statement: str, properties: dict[str, Any] | None = None, total: float | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            # A redirect is an error: followed, the credentials would go to the host that it names.
            async with self._session.post(
                self._url,
                json={"ksql": statement, "streamsProperties": properties or {}},
                headers={"Accept": ROWS_ACCEPT, "Accept-Encoding": "identity"},
                timeout=aiohttp.ClientTimeout(total=total, sock_connect=_CONNECT_SECONDS),
                allow_redirects=False,
            ) as response:
                if response.status != HTTPStatus.OK:
                    body = await response.content.read(_MAX_ERROR)
                    raise error_of(response.status, body, response.headers.get("Content-Type", ""))
                yield response
        # UnicodeError: the host of KSQLDB_URL has an empty label or one of more than 63 characters.
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeError) as error:
            raise KsqlUnreachable(f"KSQLDB_URL: {self._url}: {type(error).__name__}: {error}") from error


def _select(source: Source) -> str:
    return membership_sql(source.table, source.key, source.level)


async def _rows(response: aiohttp.ClientResponse) -> AsyncIterator[list[Row]]:
    feed = RowFeed()
    async for chunk in response.content.iter_any():
        # Rows are parsed in pieces, so that a large answer does not block the streams.
        for start in range(0, len(chunk), _CHUNK):
            yield [item for item in feed.feed(chunk[start : start + _CHUNK]) if isinstance(item, Row)]
            if len(chunk) > _CHUNK:
                await asyncio.sleep(0)
    feed.close()


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


def basic_auth(user: str, password: str) -> dict[str, str]:
    """Return the header of HTTP basic authentication."""
    token = base64.b64encode(f"{user}:{password}".encode(errors="surrogateescape")).decode()
    return {"Authorization": f"Basic {token}"}


def auth_from_url(url: str) -> dict[str, str]:
    """Return the header for the user and password that may be in a URL; none without."""
    parts = urlsplit(url)
    return {} if parts.username is None else basic_auth(unquote(parts.username), unquote(parts.password or ""))


def _keepalive_socket(address: Any) -> socket.socket:
    """Make a socket that notices within half a minute that the other machine is gone (watches may be silent)."""
    sock = socket.socket(address[0], address[1], address[2])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    return sock


def open_session(settings: Settings) -> aiohttp.ClientSession:
    """Return the session for ksqlDB, with the credentials and the CA of the settings."""
    user, password = settings.ksqldb_username, settings.ksqldb_password.get_secret_value()
    ca_file = settings.ksqldb_ca_file
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,
            ttl_dns_cache=1,
            ssl=True if ca_file is None else ssl.create_default_context(cafile=str(ca_file)),
            socket_factory=_keepalive_socket,
        ),
        headers=basic_auth(user, password) if user else auth_from_url(settings.ksqldb_url),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )
