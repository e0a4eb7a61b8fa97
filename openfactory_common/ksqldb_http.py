"""How the programs that serve clients query ksqlDB over HTTP: one session, answers in StreamedRow form."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp

from openfactory_common.errors import KsqlUnreachable
from openfactory_common.ksqldb.failures import error_of
from openfactory_common.ksqldb.wire import ROWS_ACCEPT
from openfactory_common.service_settings import KsqldbSettings
from openfactory_common.settings_types import strip_user

#: Bytes of an answer that are parsed at a time, so that a large one does not block the streams.
_PIECE = 64 * 1024
_CONNECT_SECONDS = 3
_MAX_ERROR = 64 * 1024


class KsqldbSession:
    """Sends queries to one ksqlDB; every failure is one of ``KsqlError``.

    Attributes:
        url: of the server, without credentials.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """Send to the server at ``url`` through ``session``, which has the credentials: no message has them."""
        self.url = strip_user(url)
        self._session = session

    @asynccontextmanager
    async def query(
        self, statement: str, properties: Mapping[str, Any] | None = None, total: float | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a pull or push query; inside the block its answer can be read, and the block's end closes it.

        Args:
            statement: the query.
            properties: ``streamsProperties`` of the request.
            total: seconds for the whole answer; None: no limit after the connection is open.

        Raises:
            KsqlError: no answer, or an error, also of a read inside the block.
        """
        try:
            # A redirect is an error: followed, the credentials would go to the host that it names.
            async with self._session.post(
                f"{self.url}/query",
                json={"ksql": statement, "streamsProperties": dict(properties or {})},
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
            raise KsqlUnreachable(f"KSQLDB_URL: {self.url}: {type(error).__name__}: {error}") from error


async def pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the body of an answer as it comes, in pieces; others run between two pieces of a large one."""
    async for chunk in response.content.iter_any():
        for start in range(0, len(chunk), _PIECE):
            yield chunk[start : start + _PIECE]
            if len(chunk) > _PIECE:
                await asyncio.sleep(0)


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


def open_session(settings: KsqldbSettings) -> aiohttp.ClientSession:
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
