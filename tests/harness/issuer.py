"""An issuer of tokens: key pairs, the set of their public halves, and tokens with any claims."""

from __future__ import annotations

import base64
import functools
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import Algorithm, get_default_algorithms

ISSUER = "https://issuer.test/plant"
AUDIENCE = "openfactory"
ALGORITHMS: dict[str, Algorithm] = get_default_algorithms()
_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1(), "ES256K": ec.SECP256K1()}


def private_key(algorithm: str, name: str, bits: int = 2048) -> Any:
    """Return the private key of that name; the same one at each call, because RSA keys take long to make."""
    return _make_key("RSA" if algorithm[:2] in ("RS", "PS") else algorithm, name, bits)


@functools.cache
def _make_key(algorithm: str, name: str, bits: int) -> Any:
    del name
    if algorithm.startswith("HS"):
        return bytes(range(64))
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == "Ed448":
        return ed448.Ed448PrivateKey.generate()
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm])
    return rsa.generate_private_key(65537, bits)


def public_jwk(algorithm: str, name: str, **members: Any) -> dict[str, Any]:
    """Return the public key of that name with ``kid``; members that are None are left out."""
    private = private_key(algorithm, name)
    handler = ALGORITHMS["EdDSA" if algorithm == "Ed448" else algorithm]
    jwk = handler.to_jwk(private if isinstance(private, bytes) else private.public_key(), as_dict=True)
    made = {**jwk, "kid": name, **members}
    made.pop("key_ops", None)
    return {key: value for key, value in ({**made, **members}).items() if value is not None}


def key_set(*jwks: dict[str, Any]) -> bytes:
    """Return a JWK set."""
    return json.dumps({"keys": list(jwks)}).encode()


def make_token(
    algorithm: str = "ES256", name: str = "one", *, header: dict[str, Any] | None = None, **claims: Any
) -> str:
    """Return a token that is valid for ten minutes and grants nothing, unless claims or header say otherwise.

    A claim or a field of the header that is None is left out.
    """
    now = time.time()
    every = {"iss": ISSUER, "aud": AUDIENCE, "exp": now + 600, "iat": now, **claims}
    fields = {"alg": "EdDSA" if algorithm == "Ed448" else algorithm, "kid": name, **(header or {})}
    return sign(
        algorithm,
        name,
        json.dumps({key: value for key, value in fields.items() if value is not None}).encode(),
        json.dumps({key: value for key, value in every.items() if value is not None}).encode(),
    )


def sign(algorithm: str, name: str, header: bytes, payload: bytes) -> str:
    """Return a token of any header and payload, signed with the key of that name."""
    signed = f"{encode(header)}.{encode(payload)}"
    handler = ALGORITHMS["EdDSA" if algorithm == "Ed448" else algorithm]
    return f"{signed}.{encode(handler.sign(signed.encode(), private_key(algorithm, name)))}"


def encode(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(**claims: Any) -> str:
    """Return a token with `alg` none, as PyJWT makes it."""
    now = time.time()
    return jwt.encode({"iss": ISSUER, "aud": AUDIENCE, "exp": now + 600, **claims}, None, algorithm="none")
