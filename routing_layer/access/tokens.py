"""Verifies one JSON Web Token (RFC 7519) against a key set at a given time. Pure; PyJWT checks the signature."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from routing_layer.access.key_set import ALGORITHMS, VERIFYING, Key
from routing_layer.access.refusals import DETAILS, Refusal
from routing_layer.access.strict_json import parse_json

#: A longer token is refused unread. A browser keeps cookies of up to 4 KiB.
LONGEST_TOKEN = 8 * 1024
_COMPACT = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
#: A later time is no time: it cannot be told apart from its neighbours.
_LAST_TIME = 2**53


class TokenRefused(Exception):
    """The token is not valid; the text is for the client and has nothing of the token."""

    def __init__(self, refusal: Refusal) -> None:
        """Keep which check failed."""
        super().__init__(DETAILS[refusal])
        self.refusal = refusal


@dataclass(frozen=True)
class Expected:
    """What a token must say.

    Attributes:
        issuer: its ``iss``.
        audience: one of its ``aud``.
        leeway: seconds by which the issuer's clock may be ahead (``nbf``, ``iat``); ``exp`` has none.
    """

    issuer: str
    audience: str
    leeway: float


@dataclass(frozen=True)
class VerifiedToken:
    """What a valid token says.

    Attributes:
        claims: all claims.
        expires: its ``exp``, in seconds since 1970.
        key: the key that verified it.
    """

    claims: dict[str, Any]
    expires: float
    key: Key


def verify(token: bytes, keys: Iterable[Key], expected: Expected, now: float) -> VerifiedToken:
    """Return what a token says if it is valid at ``now`` (seconds since 1970).

    The signature is checked before anything that is signed is read.

    Raises:
        TokenRefused: it is not valid; says which check failed.
    """
    compact = _COMPACT.fullmatch(token) if len(token) <= LONGEST_TOKEN else None
    if compact is None:
        raise TokenRefused(Refusal.MALFORMED)
    header = _parse_part(compact[1])
    # An extension that must be understood is not (RFC 7515, 4.1.11); `b64` changes what is signed (RFC 7797).
    if "crit" in header or "b64" in header:
        raise TokenRefused(Refusal.MALFORMED)
    signature = _decode(compact[3])
    signed = token[: compact.end(2)]
    for key in _choose_keys(keys, header):
        if ALGORITHMS[header["alg"]].verify(signed, key.material, signature):
            return _check_claims(_parse_part(compact[2]), key, expected, now)
    raise TokenRefused(Refusal.SIGNATURE)


def _choose_keys(keys: Iterable[Key], header: dict[str, Any]) -> list[Key]:
    """Return the keys that the header may mean. Keys that a header brings along (jwk, jku, x5c, x5u) are not read."""
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or ("kid" in header and not isinstance(kid, str)):
        raise TokenRefused(Refusal.MALFORMED)
    if algorithm not in VERIFYING:
        raise TokenRefused(Refusal.ALGORITHM)
    # With an id: several keys of different types may share one (RFC 7517, 4.5).
    named = list(keys) if kid is None else [key for key in keys if key.kid == kid]
    fitting = [key for key in named if algorithm in key.algorithms]
    if not named or (kid is None and len(fitting) != 1):
        raise TokenRefused(Refusal.UNKNOWN_KEY)
    if not fitting:
        raise TokenRefused(Refusal.ALGORITHM)
    return fitting


def _check_claims(claims: dict[str, Any], key: Key, expected: Expected, now: float) -> VerifiedToken:
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    expires = _parse_time(claims, "exp")
    if expires is None:
        raise TokenRefused(Refusal.MALFORMED)
    if claims.get("iss") != expected.issuer:
        raise TokenRefused(Refusal.ISSUER)
    if expected.audience not in audiences:
        raise TokenRefused(Refusal.AUDIENCE)
    if now >= expires:
        raise TokenRefused(Refusal.EXPIRED)
    for name in ("nbf", "iat"):
        begins = _parse_time(claims, name)
        if begins is not None and begins - expected.leeway > now:
            raise TokenRefused(Refusal.NOT_YET_VALID)
    return VerifiedToken(claims, expires, key)


def _parse_time(claims: dict[str, Any], name: str) -> float | None:
    """Return a NumericDate (RFC 7519, 2) in seconds since 1970; None if the claim is absent."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _LAST_TIME:
        raise TokenRefused(Refusal.MALFORMED)
    return float(value)


def _parse_part(part: bytes) -> dict[str, Any]:
    try:
        found = parse_json(_decode(part))
    except ValueError:
        raise TokenRefused(Refusal.MALFORMED) from None
    if not isinstance(found, dict):
        raise TokenRefused(Refusal.MALFORMED)
    return found


def _decode(part: bytes) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except ValueError:
        raise TokenRefused(Refusal.MALFORMED) from None
