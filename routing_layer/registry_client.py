"""Where each group is served: the boot copy first, then the operator's document, always the last good one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import aiohttp
import structlog

from openfactory_common.errors import RegistryError
from openfactory_common.files import read_file
from openfactory_common.ksqldb_http import auth_from_url
from openfactory_common.registry import LIMIT_BYTES, ROLE_HEADER, OtherClusterError, Registry, parse, revision_of
from openfactory_common.settings_types import strip_user
from openfactory_common.tokens import TokenFile
from routing_layer.bounded_reads import read_response
from routing_layer.metrics import Metrics, Rejection

_log = structlog.get_logger(__name__)

_TIMEOUT = aiohttp.ClientTimeout(total=5, sock_connect=2)
#: At most one nudge in this many seconds, however many groups are new and however many clients wait.
_NUDGE_GAP = 1.0
#: How often a nudge that reached a standby operator is sent again.
_NUDGE_TRIES = 3
#: UnicodeError: the host of RECONCILER_URL has an empty label or one of more than 63 characters.
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError, UnicodeError)

#: Called when another document comes into use: the one before (None: none) and the new one.
OnChange = Callable[[Registry | None, Registry], None]


class RegistryClient:
    """Keeps the newest valid registry document.

    Attributes:
        current: the document in use, None before the first.
    """

    def __init__(
        self, url: str, file: Path, metrics: Metrics, on_change: OnChange, token_file: Path | None = None
    ) -> None:
        """Follow the operator at ``url``, or without one the ``file`` itself.

        Args:
            url: of the operator, with the credentials that are sent where there is no ``token_file``.
            file: the boot copy.
            metrics: counts what is not used.
            on_change: called when another document comes into use.
            token_file: has the operator's tokens, of which the first is sent to it.
        """
        self._file = file
        self._tokens = None if token_file is None else TokenFile(token_file, "RECONCILER_TOKEN_FILE")
        self._session = aiohttp.ClientSession(
            headers=auth_from_url(url), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        )
        self._url = strip_user(url)
        self._metrics = metrics
        self._on_change = on_change
        self.current: Registry | None = None
        self._revision = ""
        self._etag: str | None = None
        self._last_rejection = ""
        self._confirmed = time.monotonic()
        self._nudged = float("-inf")
        self._nudge_due = False
        self._changed = asyncio.Event()
        self._nudges: set[asyncio.Task[None]] = set()

    @property
    def age(self) -> float:
        """Seconds since the document in use was last confirmed by the operator; without one, by the file."""
        return time.monotonic() - self._confirmed

    @property
    def revision(self) -> str:
        """The revision of the document in use; ``""`` before the first."""
        return self._revision

    async def close(self) -> None:
        """Close the connections to the operator."""
        for nudge in self._nudges:
            nudge.cancel()
        await self._session.close()

    async def run(self, interval: float) -> None:
        """Refresh until cancelled; any failure is logged and counted."""
        while True:
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001 - a bug must not end the polling: it is counted and tried again
                self._reject(Rejection.BUG, f"a bug: {type(error).__name__}", error)
            await asyncio.sleep(interval)

    async def refresh(self) -> None:
        """Ask the operator, or read the file, once; the last good document stays in use unless there is a newer one."""
        if not self._url:
            self.load_file()
            return
        headers = {"Accept-Encoding": "identity", **({"If-None-Match": self._etag} if self._etag else {})}
        headers |= self._authorize()
        try:
            async with self._session.get(
                f"{self._url}/registry", headers=headers, timeout=_TIMEOUT, allow_redirects=False
            ) as response:
                body = await read_response(response, LIMIT_BYTES + 1)
        except _NO_ANSWER as error:
            text = f"the operator at RECONCILER_URL does not answer: {type(error).__name__}: {error}"
            self._reject(Rejection.UNREACHABLE, text)
            return
        if response.headers.get(ROLE_HEADER) == "standby":  # it knows older data than the leader
            return
        if response.status == HTTPStatus.OK:
            if not self._use(body):
                return
            self._etag = response.headers.get("ETag")
        elif response.status == HTTPStatus.UNAUTHORIZED:
            self._reject(Rejection.UNAUTHORIZED, self._explain_unauthorized())
            return
        elif response.status != HTTPStatus.NOT_MODIFIED:
            text = f"the operator has no registry: HTTP {response.status}"
            if 300 <= response.status < 400:  # noqa: PLR2004 - HTTP's redirects; followed, they would get the credentials
                text += ": redirects are not followed; RECONCILER_URL must be the operator's own address"
            self._reject(Rejection.UNREACHABLE, text)
            return
        self._confirm()

    def load_file(self) -> None:
        """Use the file if it is there and valid; the operator may be down for long."""
        try:
            used = self._use(read_file(self._file, LIMIT_BYTES + 1), f"{self._file}: ")
        except OSError as error:
            self._reject(Rejection.UNREACHABLE, f"no boot copy at {self._file} ({error.strerror})")
        else:
            if used and not self._url:
                self._confirm()

    def find_url(self, group: str) -> str | None:
        """Return where the group is served, None if it is not."""
        return self.current.groups.get(group) if self.current else None

    async def wait_for_url(self, group: str, patience: float) -> str | None:
        """Return where the group is served, waiting up to ``patience`` seconds for it to appear; None if it did not."""
        try:
            async with asyncio.timeout(patience):
                while (url := self.find_url(group)) is None:
                    await self._changed.wait()
        except TimeoutError:
            return None
        return url

    def notice(self, group: str) -> None:
        """Nudge the operator if the group, which has got its first asset, has no service: now or after the gap.

        A group that comes right after a nudge may not be in what the operator has read for that one.
        """
        if self.current is not None and group not in self.current.groups:
            self._start_nudge()

    def nudge_for(self, group: str) -> None:
        """Nudge the operator because a client waits for the group's service, unless that was done a moment ago.

        For a group that sleeps after the gap then: only a new request wakes it, and the last nudge was before this one.
        """
        if self.current is not None and group in self.current.asleep:
            self.notice(group)
        elif time.monotonic() - self._nudged >= _NUDGE_GAP:
            self._start_nudge()

    def _start_nudge(self) -> None:
        if self._url and not self._nudge_due:
            self._nudge_due = True
            nudge = asyncio.create_task(self._send_nudge())
            self._nudges.add(nudge)
            nudge.add_done_callback(self._nudges.discard)

    async def _send_nudge(self) -> None:
        """Ask the operator to reconcile; a failure is only logged."""
        await asyncio.sleep(self._nudged + _NUDGE_GAP - time.monotonic())
        self._nudged, self._nudge_due = time.monotonic(), False
        self._metrics.nudges.inc()
        try:
            for _ in range(_NUDGE_TRIES):
                async with self._session.post(
                    f"{self._url}/reconcile", headers=self._authorize(), timeout=_TIMEOUT, allow_redirects=False
                ) as response:
                    await read_response(response, LIMIT_BYTES)
                    if response.status == HTTPStatus.UNAUTHORIZED:
                        self._metrics.registry_refused[Rejection.UNAUTHORIZED].inc()
                        _log.warning("registry: no nudge: %s", self._explain_unauthorized())
                    if response.headers.get(ROLE_HEADER) != "standby":
                        return
        except _NO_ANSWER as error:
            _log.info("registry: the operator cannot be nudged: %s", error)

    def _authorize(self) -> dict[str, str]:
        """Return the field with the operator's token; it is read again where its file has changed."""
        return self._tokens.header() if self._tokens is not None else {}

    def _explain_unauthorized(self) -> str:
        problem = "it does not accept the first token of RECONCILER_TOKEN_FILE"
        if self._tokens is None:
            problem = "RECONCILER_TOKEN_FILE is not set"
        return f"the operator at RECONCILER_URL answers 401: {problem}"

    def _use(self, data: bytes, where: str = "") -> bool:
        """Take a document into use; if it is invalid, reject it. On any failure nothing of it is kept."""
        before = self.current
        try:
            registry, revision = parse(data, before=before), revision_of(data)
        except RegistryError as error:
            identity = isinstance(error, OtherClusterError)
            self._reject(Rejection.IDENTITY if identity else Rejection.CORRUPT, f"{where}{error}")
            return False
        if revision == self._revision:
            return True
        if registry != before:
            self._on_change(before, registry)
        self.current, self._revision = registry, revision
        self._metrics.show_revision(revision)
        _log.info("registry: revision %s with %d groups", revision, len(registry.groups))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        return True

    def _confirm(self) -> None:
        """Note that the source of the document in use still has it."""
        self._confirmed = time.monotonic()
        self._last_rejection = ""

    def _reject(self, reason: Rejection, text: str, bug: Exception | None = None) -> None:
        """Count a document that is not used, and log it once, not each second."""
        self._metrics.registry_refused[reason].inc()
        if text != self._last_rejection:
            self._last_rejection = text
            kept = f"; revision {self._revision} stays in use" if self.current else ""
            _log.warning("registry: %s%s", text, kept, exc_info=bug)
