"""Where each group is served: the boot copy first, then hot from the operator, always the last good document."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import aiohttp
import structlog

from openfactory_common.errors import RegistryError
from openfactory_common.registry import LIMIT_BYTES, ROLE_HEADER, OtherClusterError, Registry, parse, revision_of
from routing_layer.ksql import auth_in, without_user
from routing_layer.metrics import Metrics

_log = structlog.get_logger(__name__)

_TIMEOUT = aiohttp.ClientTimeout(total=5, sock_connect=2)
#: At most one nudge in this many seconds, however many clients wait.
_NUDGE_GAP = 1.0
#: How often a nudge that reached an operator that only stands by is sent again.
_NUDGE_TRIES = 3
#: UnicodeError: the host of RECONCILER_URL has an empty label or one of more than 63 characters.
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError, UnicodeError)

#: Told when another document comes into use: the one before (None: none) and the new one.
OnChange = Callable[[Registry | None, Registry], None]


def open_session(url: str) -> aiohttp.ClientSession:
    """Return the session for the operator, with the credentials that may be in its URL."""
    return aiohttp.ClientSession(headers=auth_in(url), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)


class RegistryFollower:
    """Keeps the newest registry document that can be believed.

    Attributes:
        current: the document in use, None before the first.
    """

    def __init__(
        self, session: aiohttp.ClientSession, url: str, file: Path, metrics: Metrics, on_change: OnChange
    ) -> None:
        """Follow the operator at ``url``, or without one the ``file`` itself."""
        self._file = file
        self._session = session
        self._url = without_user(url)
        self._metrics = metrics
        self._on_change = on_change
        self.current: Registry | None = None
        self._revision = ""
        self._etag: str | None = None
        self._complaint = ""
        self._confirmed = time.monotonic()
        self._nudged = float("-inf")
        self._changed = asyncio.Event()
        self._nudges: set[asyncio.Task[None]] = set()

    @property
    def age(self) -> float:
        """Seconds since the document in use was last confirmed by the operator; without one, by the file."""
        return time.monotonic() - self._confirmed

    def boot(self) -> None:
        """Use the file if it is there and good; the operator may be down for long."""
        try:
            self._use(_content(self._file))
        except OSError as error:
            self._complain("unreachable", f"no boot copy at {self._file} ({error.strerror})")
        except RegistryError as error:
            self._complain(_reason(error), f"{self._file}: {error}")
        else:
            if not self._url:
                self._confirm()

    async def run(self, every: float) -> None:
        """Look at the operator's document each ``every`` seconds until cancelled; any failure is logged and counted."""
        while True:
            try:
                if self._url:
                    await self.look()
                else:
                    self.boot()
            except Exception as error:  # noqa: BLE001 - a bug must not end the follower: it is counted and tried again
                self._complain("bug", f"a bug: {type(error).__name__}", error)
            await asyncio.sleep(every)

    async def look(self) -> None:
        """Ask the operator once; whatever it answers, the last good document stays in use."""
        headers = {"Accept-Encoding": "identity"}
        if self._etag:
            headers["If-None-Match"] = self._etag
        try:
            async with self._session.get(
                f"{self._url}/registry", headers=headers, timeout=_TIMEOUT, allow_redirects=False
            ) as response:
                body = await _at_most(LIMIT_BYTES + 1, response)
                if not _stands_by(response):
                    self._answered(response.status, response.headers.get("ETag"), body)
        except _NO_ANSWER as error:
            self._complain(
                "unreachable", f"the operator at RECONCILER_URL does not answer: {type(error).__name__}: {error}"
            )

    def _answered(self, status: int, etag: str | None, body: bytes) -> None:
        if status == HTTPStatus.OK:
            try:
                self._use(body)
            except RegistryError as error:
                self._complain(_reason(error), str(error))
                return
            self._etag = etag
        elif status != HTTPStatus.NOT_MODIFIED:
            self._complain("unreachable", f"the operator has no registry: HTTP {status}{_redirect(status)}")
            return
        self._confirm()

    async def nudge(self) -> None:
        """Tell the operator that something is missing; a failure is only logged."""
        if not self._url or time.monotonic() - self._nudged < _NUDGE_GAP:
            return
        self._nudged = time.monotonic()
        self._metrics.nudges.inc()
        try:
            for _ in range(_NUDGE_TRIES):
                async with self._session.post(
                    f"{self._url}/reconcile", timeout=_TIMEOUT, allow_redirects=False
                ) as response:
                    await _at_most(LIMIT_BYTES, response)
                    if not _stands_by(response):
                        return
        except _NO_ANSWER as error:
            _log.info("registry: the operator could not be told: %s", error)

    async def url_of(self, group: str, patience: float) -> str | None:
        """Return where the group is served, waiting up to ``patience`` seconds for it to appear; None if it did not."""
        if (url := self._url_now(group)) is not None or patience <= 0:
            return url
        nudge = asyncio.create_task(self.nudge())
        self._nudges.add(nudge)
        nudge.add_done_callback(self._nudges.discard)
        try:
            async with asyncio.timeout(patience):
                while (url := self._url_now(group)) is None:
                    await self._changed.wait()
        except TimeoutError:
            return None
        return url

    def _url_now(self, group: str) -> str | None:
        return self.current.groups.get(group) if self.current else None

    def _use(self, data: bytes) -> None:
        """Take a document into use; whatever goes wrong, nothing of it is kept, and it is tried again."""
        before = self.current
        registry, revision = parse(data, before=before), revision_of(data)
        if revision == self._revision:
            return
        if registry != before:
            self._on_change(before, registry)
        self.current, self._revision = registry, revision
        self._metrics.registry_in_use(revision)
        _log.info("registry: revision %s with %d groups", revision, len(registry.groups))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _confirm(self) -> None:
        """Where the document in use came from still says the same."""
        self._confirmed = time.monotonic()
        self._complaint = ""

    def _complain(self, reason: str, text: str, bug: Exception | None = None) -> None:
        """Count a document that is not used, and log it once, not each second."""
        self._metrics.registry_refused[reason].inc()
        if text != self._complaint:
            self._complaint = text
            kept = f"; revision {self._revision} stays in use" if self.current else ""
            _log.warning("registry: %s%s", text, kept, exc_info=bug)


def _content(path: Path) -> bytes:
    """Return what is in a file.

    Raises:
        OSError: it cannot be read, or is something else, of which a read might never return (a pipe).
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return file.read(LIMIT_BYTES + 1)


def _stands_by(response: aiohttp.ClientResponse) -> bool:
    """Whether this is an operator that does not write: what it knows is older than what the writing one says."""
    return response.headers.get(ROLE_HEADER) == "standby"


def _reason(error: RegistryError) -> str:
    """Tell a document of another cluster from one that is no registry at all."""
    return "identity" if isinstance(error, OtherClusterError) else "corrupt"


def _redirect(status: int) -> str:
    """Say of a redirect that it is not followed: the credentials would go to whichever host it names."""
    redirect = 300 <= status < 400  # noqa: PLR2004 - HTTP's redirects
    return ": redirects are not followed; RECONCILER_URL must be the operator's own address" if redirect else ""


async def _at_most(size: int, response: aiohttp.ClientResponse) -> bytes:
    """Return the body, or as much of it as ``size`` allows."""
    body = bytearray()
    while len(body) < size and (piece := await response.content.read(size - len(body))):
        body += piece
    return bytes(body)
