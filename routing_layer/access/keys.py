"""Keeps the newest good key set: from the issuer's server, or from a file."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

import aiohttp
import structlog

from openfactory_common.files import FileChanges, read_file
from openfactory_common.ksqldb_http import auth_from_url
from openfactory_common.settings_types import strip_user
from routing_layer.access.key_set import Key, parse_key_set
from routing_layer.bounded_reads import read_response

_log = structlog.get_logger(__name__)

#: A set of 100 keys with their certificates has 200 KiB.
_LONGEST = 512 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=5, sock_connect=2)
#: Seconds from one read to the next while there is no set.
_FIRST_SECONDS = 1.0
#: At most one read in this many seconds because a token names a key that is not in the set: anyone can send one.
_UNKNOWN_KEY_GAP = 10.0


class Source(Protocol):
    """Where a key set comes from.

    Attributes:
        name: the variable that names it.
        interval: seconds between two reads.
        retry: seconds from a failed read to the next, if there is a set already.
    """

    name: str
    interval: float
    retry: float

    async def read(self) -> tuple[Key, ...] | None:
        """Return the set; None if it is still the one of the last read.

        Raises:
            OSError, ValueError, aiohttp.ClientError: there is no key set; the text has nothing of a key.
        """

    async def close(self) -> None:
        """Free what it holds."""


class KeyFile:
    """A key set in a file, which may hold secrets."""

    name = "AUTH_KEYS_FILE"
    interval = retry = 1.0

    def __init__(self, path: Path) -> None:
        """Read ``path`` when it has changed."""
        self._path = path
        self._changes = FileChanges(path)

    async def read(self) -> tuple[Key, ...] | None:
        """Return the set if the file has changed."""
        if not self._changes.changed():
            return None
        keys = parse_key_set(read_file(self._path, _LONGEST), symmetric=True)
        self._changes.confirm()
        return keys

    async def close(self) -> None:
        """Do nothing."""


class KeyServer:
    """A key set that the issuer's server publishes."""

    name = "AUTH_JWKS_URL"
    interval = 300.0
    retry = 30.0

    def __init__(self, url: str, ca_file: Path | None) -> None:
        """Read ``url``, with the credentials in it, and verify it with ``ca_file`` (None: the system's)."""
        self._url = strip_user(url)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ttl_dns_cache=1, ssl=True if ca_file is None else ssl.create_default_context(cafile=str(ca_file))
            ),
            headers=auth_from_url(url),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def read(self) -> tuple[Key, ...]:
        """Return the set. A redirect is an error: it would decide whose keys are trusted."""
        headers = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
        async with self._session.get(self._url, headers=headers, timeout=_TIMEOUT, allow_redirects=False) as response:
            if response.status != HTTPStatus.OK:
                raise ValueError(f"HTTP {response.status}")
            body = await read_response(response, _LONGEST + 1)
        if len(body) > _LONGEST:
            raise ValueError(f"more than {_LONGEST} bytes")
        return parse_key_set(body, symmetric=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


class KeyStore:
    """Keeps the newest good key set of one source; a failed read changes nothing.

    Attributes:
        current: the keys in use; empty before the first good read.
    """

    def __init__(self, source: Source, on_change: Callable[[], None]) -> None:
        """Start without keys; ``on_change`` is called for each other set that comes into use."""
        self.current: tuple[Key, ...] = ()
        self._source = source
        self._on_change = on_change
        self._confirmed = time.monotonic()
        self._asked = float("-inf")
        self._failure = ""
        self._reading: asyncio.Task[None] | None = None

    @property
    def age(self) -> float:
        """Seconds since the source last had the set in use; before the first set, since the start."""
        return time.monotonic() - self._confirmed

    @property
    def failing(self) -> bool:
        """Whether the last read failed, so that a key that is not in the set may still exist."""
        return bool(self._failure)

    async def close(self) -> None:
        """End a read that is under way."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,))
        await self._source.close()

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await self.read()
            pause = self._source.retry if self._failure else self._source.interval
            await asyncio.sleep(pause if self.current else _FIRST_SECONDS)

    async def read_for_unknown_key(self) -> None:
        """Read because a token names an unknown key, unless that was done a moment ago."""
        if self._reading is None:
            if time.monotonic() - self._asked < _UNKNOWN_KEY_GAP:
                return
            self._asked = time.monotonic()
        await self.read()

    async def read(self) -> None:
        """Read the source, once for all that ask meanwhile; a failure is logged and changes nothing."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_once())
            self._reading.add_done_callback(self._end_read)
        await asyncio.shield(self._reading)

    def _end_read(self, task: asyncio.Task[None]) -> None:
        self._reading = None
        if not task.cancelled():
            task.exception()  # those that wait get it, of whom none may be left

    async def _read_once(self) -> None:
        try:
            keys = await self._source.read()
        # Among the ValueErrors is UnicodeError: the host of a URL has an empty label or one of more than 63 characters.
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._note_failure(getattr(error, "strerror", None) or str(error) or type(error).__name__)
            return
        if self._failure:
            _log.info("keys: %s can be read again", self._source.name)
        self._confirmed, self._failure = time.monotonic(), ""
        if keys is not None and keys != self.current:
            self.current = keys
            _log.info("keys: %s has a set of %d keys that is now in use", self._source.name, len(keys))
            self._on_change()

    def _note_failure(self, text: str) -> None:
        if text != self._failure:
            kept = "; the last good set stays in use" if self.current else ""
            _log.warning("keys: %s has no key set: %s%s", self._source.name, text, kept)
        self._failure = text
