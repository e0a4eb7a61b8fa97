"""JSON Web Key sets (RFC 7517): the keys of a document that can verify tokens, each with its algorithms. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import Algorithm, get_default_algorithms
from jwt.exceptions import PyJWTError

from routing_layer.access.strict_json import parse_json

#: Every algorithm that PyJWT has, by its name (RFC 7518, section 3.1).
ALGORITHMS: dict[str, Algorithm] = get_default_algorithms()
#: The algorithms of a key by its type and curve; a key with ``alg`` allows that one only.
_Kinds = dict[tuple[str, str | None], frozenset[str]]
_ASYMMETRIC: _Kinds = {
    ("RSA", None): frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
    ("EC", "P-256"): frozenset(("ES256",)),
    ("EC", "P-384"): frozenset(("ES384",)),
    ("EC", "P-521"): frozenset(("ES512",)),
    ("OKP", "Ed25519"): frozenset(("EdDSA",)),
    ("OKP", "Ed448"): frozenset(("EdDSA",)),
}
_SYMMETRIC: _Kinds = {("oct", None): frozenset(("HS256", "HS384", "HS512"))}
#: Every algorithm that a key can allow: not ``none``.
VERIFYING = frozenset[str]().union(*_ASYMMETRIC.values(), *_SYMMETRIC.values())
#: What makes a key; a private key's other members are left out, so that it can only verify.
_MEMBERS = ("kty", "crv", "n", "e", "x", "y", "k")
_MOST_KEYS = 100
#: RFC 7518, section 3.3, and what no one uses: a check takes longer the more bits there are.
_RSA_BITS = range(2048, 8193)
_LEAST_SECRET = 32


@dataclass(frozen=True)
class Key:
    """A key that verifies tokens; two are equal if they are the same key with the same id and algorithms.

    Attributes:
        kid: its id; None: it has none.
        algorithms: those that it allows.
        digest: SHA-256 of what makes it.
        material: the key as PyJWT takes it.
    """

    kid: str | None
    algorithms: frozenset[str]
    digest: bytes = field(repr=False)
    material: Any = field(repr=False, compare=False)


def parse_key_set(data: bytes, *, symmetric: bool) -> tuple[Key, ...]:
    """Return the keys of a JWK set that can verify a token; others, which RFC 7517 allows, are left out.

    Args:
        data: the document.
        symmetric: whether secrets (``oct``) are taken: not from a server that also publishes them to others.

    Raises:
        ValueError: it is not a JWK set, or none of its keys can be used; the message has nothing of the document.
    """
    document = parse_json(data)
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError('not a JWK set: {"keys": [...]}')  # noqa: TRY004 - the content is wrong
    if len(entries) > _MOST_KEYS:
        raise ValueError(f"it has more than {_MOST_KEYS} keys")
    kinds = {**_ASYMMETRIC, **_SYMMETRIC} if symmetric else _ASYMMETRIC
    keys = tuple(key for entry in entries if (key := _parse_key(entry, kinds)) is not None)
    if not keys:
        raise ValueError("none of its keys can verify a token")
    return keys


def _parse_key(entry: Any, kinds: _Kinds) -> Key | None:
    """Return the key; None if it is of no use here."""
    if not isinstance(entry, dict):
        return None
    kid, operations = entry.get("kid"), entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    members = {name: entry[name] for name in _MEMBERS if name in entry}
    if not isinstance(kid, str | None) or not all(isinstance(member, str) for member in members.values()):
        return None
    kind = members.get("kty", ""), members.get("crv")
    algorithms = kinds.get(kind, frozenset())
    if "alg" in entry:
        algorithms = frozenset(name for name in algorithms if name == entry["alg"])
    if not algorithms:
        return None
    try:
        material = ALGORITHMS[min(algorithms)].from_jwk(members)
    except (PyJWTError, ValueError, KeyError, UnsupportedAlgorithm):
        return None
    if isinstance(material, RSAPublicKey) and material.key_size not in _RSA_BITS:
        return None
    if isinstance(material, bytes) and len(material) < _LEAST_SECRET:
        return None
    digest = hashlib.sha256(json.dumps(members, sort_keys=True).encode()).digest()
    return Key(kid, algorithms, digest, material)
