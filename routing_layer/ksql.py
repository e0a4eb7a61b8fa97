"""The three questions that the proxy asks ksqlDB, all in StreamedRow form."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import aiohttp

from openfactory_common.errors import KsqlError, KsqlTruncated, KsqlUnreachable, KsqlWrongShape
from openfactory_common.ksqldb.levels import membership_sql
from openfactory_common.ksqldb.wire import ROWS_ACCEPT, Row, RowFeed, brief, column, error_of, literal, stored
from openfactory_common.registry import GroupLookup as Source
from routing_layer.membership import UNKNOWN, _Unknown
from routing_layer.settings import Settings

#: Changes come at once instead of at the next commit (2 s); the opening content then comes record by record.
_AT_ONCE = {"ksql.streams.cache.max.bytes.buffering": 0}
#: A pull that takes longer between two rows is not going to end (a server without Kafka: minutes).
_LIST_ROW_SECONDS = 20.0
_LIST_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=3)
_ONE_TIMEOUT = aiohttp.ClientTimeout(total=5, sock_connect=3)
_WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=None)
_WATCH_HEAD_SECONDS = 20
_CHUNK = 64 * 1024
_LONGEST_ERROR = 64 * 1024


def list_statement(source: Source) -> str:
    """The pull query that answers the whole membership."""
    return f"{membership_sql(source.table, source.key, source.level)};"


def watch_statement(source: Source) -> str:
    """The push query that answers the whole membership and then its changes."""
    return f"{membership_sql(source.table, source.key, source.level)} EMIT CHANGES;"


def one_statement(source: Source, asset: str) -> str:
    """The pull query for one asset; its name comes from a client and is escaped."""
    everything = membership_sql(source.table, source.key, source.level)
    return f"{everything} WHERE {column(stored(source.key))} = {literal(asset)};"


class Ksql:
    """ksqlDB as the proxy sees it: every failure is one of ``KsqlError``."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """Ask the server at ``url`` through ``session``, which has the credentials: no message has them."""
        self._session = session
        self._url = f"{without_user(url)}/query"

    async def everything(self, source: Source) -> dict[str, str | None]:
        """Return the group of every asset.

        Raises:
            KsqlError: no answer, an error, or an answer that is not complete.
        """
        feed, listed, loop = RowFeed(), dict[str, str | None](), asyncio.get_running_loop()
        try:
            async with (
                asyncio.timeout(_LIST_ROW_SECONDS) as limit,
                self._asked(list_statement(source), {}, _LIST_TIMEOUT) as response,
            ):
                async for chunk in _chunks(response):
                    before = len(listed)
                    listed.update(_pair(item) for item in feed.feed(chunk) if isinstance(item, Row))
                    if len(listed) > before:
                        limit.reschedule(loop.time() + _LIST_ROW_SECONDS)
        except TimeoutError as error:
            raise KsqlUnreachable(f"{self._url}: no row of the list in {_LIST_ROW_SECONDS:g} s") from error
        feed.close()
        return listed

    async def one(self, source: Source, asset: str) -> str | _Unknown | None:
        """Return one asset's group, None if it has no level, ``UNKNOWN`` if there is no such asset.

        Raises:
            KsqlError: no answer, an error, or an answer that is not complete.
        """
        feed, group = RowFeed(), UNKNOWN
        found: str | _Unknown | None = group
        async with self._asked(one_statement(source, asset), {}, _ONE_TIMEOUT) as response:
            async for chunk in _chunks(response):
                for item in feed.feed(chunk):
                    if isinstance(item, Row):
                        found = _pair(item)[1]
        feed.close()
        return found

    @asynccontextmanager
    async def watch(self, source: Source) -> AsyncIterator[AsyncIterator[list[Row]]]:
        """Open the push query and give its rows as they come; it never ends by itself.

        Raises:
            KsqlError: no answer, an error, or the end of the rows.
        """
        try:
            async with asyncio.timeout(_WATCH_HEAD_SECONDS) as limit:
                async with self._asked(watch_statement(source), _AT_ONCE, _WATCH_TIMEOUT) as response:
                    limit.reschedule(None)
                    yield _rows(response)
        except TimeoutError as error:
            raise KsqlUnreachable(f"{self._url}: the watch was not opened in {_WATCH_HEAD_SECONDS} s") from error

    @asynccontextmanager
    async def _asked(
        self, statement: str, properties: dict[str, Any], limits: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        body = {"ksql": statement, "streamsProperties": properties}
        headers = {"Accept": ROWS_ACCEPT, "Accept-Encoding": "identity"}
        try:
            # A redirect is an error: followed, the credentials would go to whichever host it names.
            async with self._session.post(
                self._url, json=body, headers=headers, timeout=limits, allow_redirects=False
            ) as response:
                if response.status != HTTPStatus.OK:
                    said = await response.content.read(_LONGEST_ERROR)
                    raise error_of(response.status, said, response.headers.get("Content-Type", ""))
                yield response
        # UnicodeError: the host of KSQLDB_URL has an empty label or one of more than 63 characters.
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeError) as error:
            raise KsqlUnreachable(f"KSQLDB_URL: {self._url}: {type(error).__name__}: {error}") from error


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for chunk in response.content.iter_any():
        # Rows are parsed in pieces, so that a large answer does not hold up the streams.
        for start in range(0, len(chunk), _CHUNK):
            yield chunk[start : start + _CHUNK]
            if len(chunk) > _CHUNK:
                await asyncio.sleep(0)


async def _rows(response: aiohttp.ClientResponse) -> AsyncIterator[list[Row]]:
    feed = RowFeed()
    async for chunk in _chunks(response):
        rows = [item for item in feed.feed(chunk) if isinstance(item, Row)]
        if rows:
            yield rows
    raise KsqlTruncated("ksqlDB ended the watch")


def _pair(row: Row) -> tuple[str, str | None]:
    """Return a row's asset and group.

    Raises:
        KsqlWrongShape: it is not two columns of text.
    """
    match row.values:
        case [str() as asset, str() | None as group]:
            # One string a group, not one a row: of a million rows, three copies are alive while they are compared.
            return asset, group if group is None else sys.intern(group)
        case _:
            raise KsqlWrongShape(f"not an asset and its group: {brief(row.values)}", status=HTTPStatus.OK)


def pair(row: Row) -> tuple[str, str | None]:
    """Return the asset and the group of a watched row (a tombstone has no group)."""
    return _pair(row)


def basic_auth(user: str, password: str) -> dict[str, str]:
    """Return the header of HTTP basic authentication."""
    token = base64.b64encode(f"{user}:{password}".encode(errors="surrogateescape")).decode()
    return {"Authorization": f"Basic {token}"}


def auth_in(url: str) -> dict[str, str]:
    """Return the header for the user and password that may be in a URL; none without."""
    parts = urlsplit(url)
    if parts.username is None:
        return {}
    return basic_auth(unquote(parts.username), unquote(parts.password or ""))


def without_user(url: str) -> str:
    """Return a URL without the user and password that may be in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


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
    headers = basic_auth(user, password) if user else auth_in(settings.ksqldb_url)
    connector = aiohttp.TCPConnector(
        limit=0,
        ttl_dns_cache=1,
        ssl=_tls(settings.ksqldb_ca_file),
        socket_factory=_keepalive_socket,
    )
    jar = aiohttp.DummyCookieJar()
    return aiohttp.ClientSession(connector=connector, headers=headers, cookie_jar=jar, auto_decompress=False)


def _tls(ca_file: Path | None) -> ssl.SSLContext | bool:
    return True if ca_file is None else ssl.create_default_context(cafile=str(ca_file))


__all__ = ["Ksql", "KsqlError", "auth_in", "basic_auth", "open_session", "pair", "without_user"]
