"""Lets a request in or not: what the proxy asks for each request. Off without a source of keys."""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

import structlog

from routing_layer.access.grants import ALL, Grants, parse_grants
from routing_layer.access.key_set import Key
from routing_layer.access.keys import KeyFile, KeyServer, KeyStore
from routing_layer.access.refusals import DETAILS, Refusal
from routing_layer.access.tokens import Expected, TokenRefused, verify
from routing_layer.problems import Problem, ProblemType
from routing_layer.settings import Settings

_log = structlog.get_logger(__name__)

#: Fields of a request's head as they came: name and value.
RawHeaders = Sequence[tuple[bytes, bytes]]
#: Counts a refusal.
OnRefusal = Callable[[Refusal], None]
#: Finds the group of an asset; raises Problem.
FindGroup = Callable[[str], Awaitable[str]]

#: Of the tokens whose permits are kept: 16,000 of 1 KiB. A check took 120 us (RS256) to 280 us (ES256), a kept permit
#: 6 us (2026-11-29, two x86-64 cores, busy).
_CACHED_BYTES = 16 * 1024 * 1024
_CHALLENGE = 'Bearer realm="openfactory"'
#: The problems that tell a client whether an asset exists.
_ABSENT = (ProblemType.UNKNOWN_ASSET, ProblemType.ASSET_WITHOUT_LEVEL)


@dataclass(frozen=True, slots=True)
class Permit:
    """What the token of a request allows.

    Attributes:
        grants: what may be read.
        expires: until when, in seconds since 1970; infinite without authentication.
        key: the key that verified the token.
    """

    grants: Grants
    expires: float
    key: Key | None
    _on_refusal: OnRefusal

    async def find_group(self, asset: str, find_group: FindGroup) -> str:
        """Return the group of an asset that may be read, as ``find_group`` finds it.

        Raises:
            Problem: 403, it may not be read; where neither its name nor every group is granted, also if it does not
                exist, so that no one finds out which assets there are. What ``find_group`` raises otherwise.
        """
        if self.grants.covers(asset, None):
            return await find_group(asset)
        if not self.grants.groups:
            raise self._refuse_asset(asset)
        try:
            group = await find_group(asset)
        except Problem as problem:
            if problem.type in _ABSENT and not self.grants.groups.everything:
                raise self._refuse_asset(asset) from None
            raise
        if not self.grants.covers(asset, group):
            raise self._refuse_asset(asset)
        return group

    async def check_asset(self, asset: str | None, find_group: FindGroup) -> None:
        """Check that an asset may be read; None: no asset in particular, for which any grant is enough.

        Raises:
            Problem: as `find_group`.
        """
        if asset is not None and not self.grants.covers(asset, None):
            await self.find_group(asset, find_group)

    def check_group(self, group: str) -> None:
        """Check that everything of a group may be read.

        Raises:
            Problem: 403.
        """
        if group not in self.grants.groups:
            self._on_refusal(Refusal.NOT_GRANTED)
            raise _forbidden(f"the token does not grant group {group!r}")

    def _refuse_asset(self, asset: str) -> Problem:
        self._on_refusal(Refusal.NOT_GRANTED)
        return _forbidden(f"the token does not grant asset {asset!r}")


class Gate:
    """Lets requests in by their tokens.

    Attributes:
        keys: the key set; None: authentication is off, and every request may read everything.
        cookie: the name of the cookie that may have the token.
    """

    def __init__(
        self, settings: Settings, on_refusal: OnRefusal, on_keys: Callable[[Collection[Key]], None] = lambda _: None
    ) -> None:
        """Open the source of keys, of which nothing is read before `KeyStore.run`.

        ``on_keys`` is called with the keys when the set has changed.
        """
        self._on_keys = on_keys
        self.keys: KeyStore | None = None
        if settings.auth_jwks_url:
            self.keys = KeyStore(KeyServer(settings.auth_jwks_url, settings.auth_ca_file), self._drop_removed_keys)
        elif settings.auth_keys_file is not None:
            self.keys = KeyStore(KeyFile(settings.auth_keys_file), self._drop_removed_keys)
        self._expected = Expected(settings.auth_issuer, settings.auth_audience, settings.auth_leeway)
        self.cookie = settings.auth_cookie.encode()
        self._claim = settings.auth_claim
        self._on_refusal = on_refusal
        self._everything = Permit(ALL, math.inf, None, on_refusal)
        self._permits = OrderedDict[bytes, tuple[int, Permit]]()  # by the digest of the token: none is kept
        self._cached_bytes = 0

    async def admit(self, raw_headers: RawHeaders) -> Permit:
        """Return what a request may read.

        Raises:
            Problem: 401, it has no valid token; 403, its token grants nothing; 503, no token can be checked now.
        """
        permit = self.recall(raw_headers)
        return await self._check(self._find_token(raw_headers)) if permit is None else permit

    def recall(self, raw_headers: RawHeaders) -> Permit | None:
        """Return what a request may read if that is known without a check of its token; None: `admit` finds out.

        Raises:
            Problem: 401, it has no token, or several.
        """
        if self.keys is None:
            return self._everything
        cached = self._permits.get(_digest(self._find_token(raw_headers)))
        return cached[1] if cached is not None and time.time() < cached[1].expires else None

    async def close(self) -> None:
        """Close the source of keys."""
        if self.keys is not None:
            await self.keys.close()

    def _find_token(self, raw_headers: RawHeaders) -> bytes:
        fields = {value for name, value in raw_headers if name.lower() == b"authorization"}
        cookies = self._find_cookies(raw_headers)
        if len(fields) > 1 or len(cookies) > 1:
            raise self._unauthorized(Refusal.SEVERAL_TOKENS)
        bearer = _bearer_of(fields.pop()) if fields else None
        if bearer is None and not cookies:
            raise self._unauthorized(Refusal.NO_TOKEN)
        return cookies.pop() if bearer is None else bearer

    def _find_cookies(self, raw_headers: RawHeaders) -> set[bytes]:
        values = (value for name, value in raw_headers if name.lower() == b"cookie")
        pairs = (pair for value in values for pair in _split_cookies(value) if _name_of(pair) == self.cookie)
        return {pair.partition(b"=")[2].strip(b' \t"') for pair in pairs}

    async def _check(self, token: bytes) -> Permit:
        keys = self.keys
        if keys is None or not keys.current:
            raise self._no_keys()
        try:
            try:
                verified = verify(token, keys.current, self._expected, time.time())
            except TokenRefused as refused:
                if refused.refusal is not Refusal.UNKNOWN_KEY:
                    raise
                await keys.read_for_unknown_key()
                # While the source cannot be read, nothing says that the key does not exist: an event source is held.
                if keys.failing:
                    raise self._no_keys() from None
                verified = verify(token, keys.current, self._expected, time.time())
        except TokenRefused as refused:
            raise self._unauthorized(refused.refusal) from None
        grants = parse_grants(verified.claims.get(self._claim))
        permit = Permit(grants, verified.expires, verified.key, self._on_refusal)
        if not grants:
            self._on_refusal(Refusal.NOT_GRANTED)
            raise _forbidden("the token grants no asset and no group")
        self._keep(token, permit)
        return permit

    def _keep(self, token: bytes, permit: Permit) -> None:
        digest = _digest(token)
        if digest in self._permits:
            self._forget(digest)
        self._permits[digest] = len(token), permit
        self._cached_bytes += len(token)
        while self._cached_bytes > _CACHED_BYTES:
            self._forget(next(iter(self._permits)))

    def _forget(self, digest: bytes) -> None:
        self._cached_bytes -= self._permits.pop(digest)[0]

    def _drop_removed_keys(self) -> None:
        """Check tokens again whose key is not in the set any more."""
        current = self.keys.current if self.keys is not None else ()
        for digest in [digest for digest, (_, permit) in self._permits.items() if permit.key not in current]:
            self._forget(digest)
        self._on_keys(current)

    def _no_keys(self) -> Problem:
        self._on_refusal(Refusal.NO_KEYS)
        return Problem(ProblemType.NOT_READY, DETAILS[Refusal.NO_KEYS])

    def _unauthorized(self, refusal: Refusal) -> Problem:
        self._on_refusal(refusal)
        detail = DETAILS[refusal]
        # RFC 6750, 3.1: a request without any credentials gets no error code.
        error = "" if refusal is Refusal.NO_TOKEN else f', error="invalid_token", error_description="{detail}"'
        return Problem(ProblemType.UNAUTHORIZED, detail, challenge=_CHALLENGE + error)


def log_mode(settings: Settings) -> None:
    """Say at the start what is not protected."""
    if not (settings.auth_jwks_url or settings.auth_keys_file):
        _log.warning("authentication is off: every client may read every asset (AUTH_JWKS_URL, AUTH_KEYS_FILE)")
    elif settings.auth_jwks_url.lower().startswith("http:"):
        _log.warning("AUTH_JWKS_URL is not https: who can change its answers can make valid tokens")


def _forbidden(detail: str) -> Problem:
    described = f'error="insufficient_scope", error_description="{DETAILS[Refusal.NOT_GRANTED]}"'
    return Problem(ProblemType.FORBIDDEN, detail, challenge=f"{_CHALLENGE}, {described}")


def _bearer_of(authorization: bytes) -> bytes | None:
    """Return the token of an ``Authorization``; None if it has another scheme."""
    scheme, _, token = authorization.strip().partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else None


def _split_cookies(value: bytes) -> list[bytes]:
    return [pair.strip() for pair in value.split(b";")]


def _name_of(pair: bytes) -> bytes:
    return pair.partition(b"=")[0].strip()


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
