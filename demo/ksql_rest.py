"""A small asynchronous client of ksqlDB's REST API, for the simulated factory.

It speaks to ``/ksql`` for statements and to ``/query`` for rows, always with an explicit ``Accept``: which format
``*/*`` means differs between the two query endpoints and between versions.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import aiohttp

STREAMED_ROWS = "application/vnd.ksql.v1+json"
STATEMENT_SECONDS = 15.0
PULL_SECONDS = 10.0

Row = dict[str, Any]

_COLUMN = re.compile(r"`((?:[^`]|``)+)`\s+[A-Z]")


class KsqlError(Exception):
    """ksqlDB did not do what was asked."""


class KsqlAway(KsqlError):
    """No usable answer: refused, timed out, broken off, not ready (503), or an internal error. Worth a retry."""


class KsqlRefused(KsqlError):
    """ksqlDB answered and said no (4xx).

    Attributes:
        code: its ``error_code``, e.g. 40001.
    """

    def __init__(self, code: int, message: str) -> None:
        """Keep ksqlDB's own words: they name the statement's fault."""
        super().__init__(message)
        self.code = code

    @property
    def source_is_missing(self) -> bool:
        """Whether the stream or table does not exist, as opposed to not being readable yet."""
        return "does not exist" in str(self) or "unknown stream/table" in str(self)


def literal(value: str) -> str:
    """Return ``value`` as an SQL string literal: a quote doubled, nothing else is special inside one."""
    return "'" + value.replace("'", "''") + "'"


def client_session() -> aiohttp.ClientSession:
    """Return a session for requests that are limited in time."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=3.0)
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout)


def column_names(schema: str) -> list[str]:
    """Return the lower-cased column names of a header's schema, e.g. ```ID` STRING KEY, `M` MAP<STRING, STRING>``.

    Names inside ``STRUCT<...>`` are fields, not columns. Folding the case makes ``id`` of a quoted and ``ID`` of an
    unquoted definition the same column.
    """
    names: list[str] = []
    depth = end = 0
    for match in _COLUMN.finditer(schema):
        between = schema[end : match.start()]
        depth += between.count("<") - between.count(">")
        end = match.end()
        if depth == 0:
            names.append(match[1].replace("``", "`").lower())
    return names


class KsqlRest:
    """One ksqlDB server, spoken to over one session that the caller opens and closes."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """Remember the base URL, e.g. ``http://localhost:8088``."""
        self._session = session
        self._url = url.rstrip("/")

    async def is_ready(self) -> bool:
        """Return whether the server answers ``/info`` with 200 within 5 s."""
        try:
            async with asyncio.timeout(5), self._session.get(f"{self._url}/info", allow_redirects=False) as reply:
                return reply.status == 200  # noqa: PLR2004 - HTTP's own number reads better than a name for it
        except (aiohttp.ClientError, OSError, TimeoutError, UnicodeError):  # the last: of a host with an empty label
            return False

    async def execute(self, sql: str, properties: Mapping[str, object] | None = None) -> list[dict[str, Any]]:
        """Send one statement to ``/ksql`` and return its entities (none for an INSERT).

        Raises:
            KsqlAway: the outcome is unknown: the statement may have been executed. Look before repeating.
            KsqlRefused: it was not executed.
        """
        body = {"ksql": sql, "streamsProperties": dict(properties or {})}
        entities = await self._read("/ksql", body, "application/json", STATEMENT_SECONDS)
        return [entity for entity in entities if isinstance(entity, dict)]

    async def sources(self) -> frozenset[str]:
        """Return the names of all streams and tables, as stored (upper-case unless they were quoted).

        LIST STREAMS and LIST TABLES stay complete while a server starts or stops; LIST QUERIES does not.
        """
        lists = [*await self.execute("LIST STREAMS;"), *await self.execute("LIST TABLES;")]
        return frozenset(source["name"] for entity in lists for source in entity.get(entity["@type"], []))

    async def pull(self, sql: str) -> list[Row]:
        """Run a pull query and return its rows by lower-cased column name.

        Raises:
            KsqlAway: no answer, or one that broke off.
            KsqlRefused: e.g. the table does not exist, or is being restored after a restart.
        """
        items = await self._read("/query", {"ksql": sql, "streamsProperties": {}}, STREAMED_ROWS, PULL_SECONDS)
        return list(_rows(iter(items)))

    async def _read(self, path: str, body: object, accept: str, seconds: float) -> list[Any]:
        try:
            async with (
                asyncio.timeout(seconds),
                self._session.post(
                    self._url + path, json=body, headers={"Accept": accept}, allow_redirects=False
                ) as reply,
            ):
                await _check(reply)
                parsed = json.loads(await reply.read())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise _away(error) from error
        if not isinstance(parsed, list):
            raise KsqlAway(f"{path} did not answer with a list")
        return parsed


def _away(error: Exception) -> KsqlAway:
    return KsqlAway(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


async def _check(reply: aiohttp.ClientResponse) -> None:
    """Raise what an error reply says; its JSON body often comes without a content type."""
    if reply.status == 200:  # noqa: PLR2004 - HTTP's own number reads better than a name for it
        return
    if 300 <= reply.status < 400:  # noqa: PLR2004 - as above
        # Followed, the credentials would go to whichever host it names.
        raise KsqlRefused(reply.status * 100, "redirects are not followed; KSQLDB_URL must be ksqlDB's own address")
    text = (await reply.read()).decode("utf-8", "replace")
    try:
        said = json.loads(text)
        code, message = int(said["error_code"]), str(said["message"])
    except (ValueError, KeyError, TypeError):
        code, message = reply.status * 100, text[:200] or str(reply.reason)
    if reply.status >= 500 or reply.status == 429:  # noqa: PLR2004 - as above
        raise KsqlAway(f"{reply.status}: {message}")
    raise KsqlRefused(code, message)


def _columns(header: Mapping[str, Any]) -> list[str]:
    _raise_in_band(header)
    if "header" not in header:
        raise KsqlAway("the query's answer has no header")
    return column_names(header["header"]["schema"])


def _raise_in_band(item: Mapping[str, Any]) -> None:
    """Raise the error that a query reports inside its 200 answer."""
    if "errorMessage" in item or "error_code" in item:
        said = item.get("errorMessage") or item
        raise KsqlAway(str(said.get("message") if isinstance(said, dict) else said))


def _row(columns: Sequence[str], item: Mapping[str, Any]) -> Row | None:
    """Return the item's row, or nothing for final messages, tokens and tombstones."""
    _raise_in_band(item)
    row = item.get("row")
    if row is None or row.get("tombstone"):
        return None
    values = row["columns"]
    if len(values) != len(columns):
        raise KsqlAway(f"a row has {len(values)} values for {len(columns)} columns")
    return dict(zip(columns, values, strict=True))


def _rows(items: Iterator[Any]) -> Iterator[Row]:
    columns = _columns(next(items, {}))
    for item in items:
        if (row := _row(columns, item)) is not None:
            yield row
