"""Which keys of a set are used, and for which algorithms."""

from __future__ import annotations

from typing import Any

import pytest

from routing_layer.access.key_set import parse_key_set
from tests.harness.issuer import encode, key_set, private_key, public_jwk

_RSA = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
_SECRET = encode(bytes(range(32)))


def _name(value: object) -> str:
    """Return a part of a test's name: the same in each process, although the keys are new in each."""
    return f"{value.get('kty')}" if isinstance(value, dict) else ""


@pytest.mark.parametrize(
    ("jwk", "algorithms"),
    [
        (public_jwk("RS256", "r"), _RSA),
        (public_jwk("RS256", "r", alg="RS256"), {"RS256"}),
        (public_jwk("RS256", "r", alg="PS512", use="sig", key_ops=["verify"]), {"PS512"}),
        (public_jwk("ES256", "e"), {"ES256"}),
        (public_jwk("ES384", "e"), {"ES384"}),
        (public_jwk("ES512", "e"), {"ES512"}),
        (public_jwk("EdDSA", "d"), {"EdDSA"}),
        (public_jwk("Ed448", "d"), {"EdDSA"}),
        (public_jwk("ES256", "e", x5c=["MII"], any=[1]), {"ES256"}),
        (public_jwk("ES256", "e", d="AAAA"), {"ES256"}),
        ({"kty": "oct", "k": _SECRET}, {"HS256", "HS384", "HS512"}),
        ({"kty": "oct", "k": _SECRET, "alg": "HS512"}, {"HS512"}),
    ],
    ids=_name,
)
def test_a_key_has_its_algorithms(jwk: dict[str, Any], algorithms: set[str]) -> None:
    """Those of its type and curve, or the one that it names; a private key is taken for its public half."""
    [key] = parse_key_set(key_set(jwk), symmetric=True)
    assert key.algorithms == algorithms
    assert key.kid == jwk.get("kid")
    assert not hasattr(key.material, "sign")


@pytest.mark.parametrize(
    "jwk",
    [
        public_jwk("RS256", "r", use="enc"),
        public_jwk("RS256", "r", use=["sig"]),
        public_jwk("RS256", "r", key_ops=["sign"]),
        public_jwk("RS256", "r", key_ops="verify"),
        public_jwk("RS256", "r", alg="HS256"),
        public_jwk("RS256", "r", alg="ES256"),
        public_jwk("RS256", "r", alg="none"),
        public_jwk("RS256", "r", alg="RSA-OAEP"),
        public_jwk("RS256", "r", alg=["RS256"]),
        public_jwk("RS256", "r", alg={}),
        public_jwk("RS256", "r", kid=5),
        public_jwk("RS256", "r", n=5),
        public_jwk("RS256", "r", n="AQAB"),
        public_jwk("RS256", "r", n="!"),
        public_jwk("RS256", "r", n="\u00e4"),
        public_jwk("RS256", "r", e="AQ"),
        public_jwk("RS256", "r", e=None),
        public_jwk("RS256", "r", crv="P-256"),
        public_jwk("RS256", "r", kty="EC"),
        public_jwk("RS256", "r", kty="oct"),
        public_jwk("RS256", "r", kty="oct", k="c2hvcnQ"),
        public_jwk("RS256", "r", kty=["RSA"]),
        public_jwk("RS256", "r", kty=None),
        public_jwk("RS256", "r", n=encode(b"\xff" * 2048)),
        public_jwk("ES256", "e", crv="P-384"),
        public_jwk("ES256", "e", crv="secp256k1"),
        public_jwk("ES256", "e", y=encode(bytes(32))),
        public_jwk("ES256K", "e"),
        public_jwk("EdDSA", "d", crv="X25519"),
        public_jwk("EdDSA", "d", x="AAAA"),
        {"kty": "oct", "k": encode(bytes(31))},
        {"kty": "oct", "k": ""},
        {"kty": "oct"},
        {},
        [],
        "key",
        None,
    ],
    ids=_name,
)
def test_a_key_of_no_use_is_left_out(jwk: Any) -> None:
    """Others in the same set are used."""
    good = public_jwk("ES256", "good")
    assert [key.kid for key in parse_key_set(key_set(jwk, good), symmetric=True)] == ["good"]
    with pytest.raises(ValueError, match="none of its keys"):
        parse_key_set(key_set(jwk), symmetric=True)


def test_a_short_rsa_key_is_left_out() -> None:
    """RFC 7518 asks for 2048 bits."""
    numbers = private_key("RS256", "short", 1024).public_key().public_numbers()
    jwk = public_jwk("RS256", "r", n=encode(numbers.n.to_bytes(128)))
    with pytest.raises(ValueError, match="none of its keys"):
        parse_key_set(key_set(jwk), symmetric=True)


def test_a_server_gives_no_secrets() -> None:
    """What it publishes is not secret."""
    secret = {"kty": "oct", "k": _SECRET}
    with pytest.raises(ValueError, match="none of its keys"):
        parse_key_set(key_set(secret), symmetric=False)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b"null",
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": [], "keys": []}',
        b"\xff",
        key_set(*[public_jwk("ES256", "e")] * 101),
        b'{"keys":' + b"[" * 100_000,
    ],
    ids=lambda document: repr(document[:20]),
)
def test_what_is_no_key_set_is_refused(document: bytes) -> None:
    """An empty set, too: a server that has lost its keys must not look like one that has revoked them."""
    with pytest.raises(ValueError):  # noqa: PT011 - which of them is the tables' above
        parse_key_set(document, symmetric=True)


def test_a_secret_is_in_no_representation() -> None:
    """Of a key, so that it gets into no log."""
    [key] = parse_key_set(key_set({"kty": "oct", "k": _SECRET}), symmetric=True)
    assert str(bytes(range(32))) not in repr(key)
    assert _SECRET not in repr(key)


def test_keys_are_equal_if_nothing_that_matters_differs() -> None:
    """A certificate that is renewed is no other key; another algorithm is."""
    [one] = parse_key_set(key_set(public_jwk("RS256", "r", x5c=["a"])), symmetric=False)
    [same] = parse_key_set(key_set(public_jwk("RS256", "r", x5c=["b"])), symmetric=False)
    assert one == same
    for change in ({"alg": "RS256"}, {"kid": "other"}, {"n": public_jwk("RS256", "r2")["n"]}):
        [other] = parse_key_set(key_set(public_jwk("RS256", "r", **change)), symmetric=False)
        assert one != other
