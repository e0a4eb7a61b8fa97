"""Tokens, legal and illegal: a line a case."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from routing_layer.access.key_set import parse_key_set
from routing_layer.access.refusals import DETAILS, Refusal
from routing_layer.access.tokens import LONGEST_TOKEN, Expected, TokenRefused, VerifiedToken, verify
from tests.harness.issuer import (
    AUDIENCE,
    ISSUER,
    encode,
    key_set,
    make_token,
    private_key,
    public_jwk,
    sign,
    unsigned,
)

_NOW = 1_800_000_000
_EXPECTED = Expected(ISSUER, AUDIENCE, 60.0)
_KEYS = parse_key_set(
    key_set(
        public_jwk("ES256", "one"),
        public_jwk("RS256", "rsa"),
        public_jwk("RS256", "only-rs256", alg="RS256"),
        public_jwk("ES384", "e384"),
        public_jwk("ES512", "e512"),
        public_jwk("EdDSA", "ed"),
        public_jwk("HS256", "secret"),
    ),
    symmetric=True,
)


def token(algorithm: str = "ES256", name: str = "one", **more: Any) -> str:
    """Return a token that is valid at the time of the tests."""
    return make_token(algorithm, name, **{"exp": _NOW + 600, "iat": _NOW, **more})


def raw(payload: str, header: str = '{"alg":"ES256","kid":"one"}') -> str:
    """Return a signed token of any text; `%s` in the payload stands for what every token has."""
    usual = f'"iss":"{ISSUER}","aud":"{AUDIENCE}"'
    return sign("ES256", "one", header.encode(), payload.replace("%s", usual).encode())


def check(text: str | bytes) -> VerifiedToken:
    """Verify a token at the time of the tests."""
    return verify(text.encode() if isinstance(text, str) else text, _KEYS, _EXPECTED, _NOW)


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [
        *(("ES256", "one"), ("ES384", "e384"), ("ES512", "e512"), ("EdDSA", "ed"), ("RS256", "only-rs256")),
        *((name, "rsa") for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        *((name, "secret") for name in ("HS256", "HS384", "HS512")),
    ],
)
def test_every_algorithm_is_verified(algorithm: str, name: str) -> None:
    """And a signature by another key of the same type is not."""
    valid = token(algorithm, name, sub="me")
    verified = check(valid)
    assert (verified.claims["sub"], verified.expires, verified.key.kid) == ("me", _NOW + 600, name)
    signed, _, signature = valid.rpartition(".")
    with pytest.raises(TokenRefused) as refused:
        check(f"{signed}.{signature[:-8]}{'A' * 8}")
    assert refused.value.refusal is Refusal.SIGNATURE
    changed = valid.split(".")
    changed[1] = encode(json.dumps({**verified.claims, "sub": "you"}).encode())
    with pytest.raises(TokenRefused) as refused:
        check(".".join(changed))
    assert refused.value.refusal is Refusal.SIGNATURE


_PEM = private_key("RS256", "rsa").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _confused() -> str:
    """Return a token whose HMAC has the public key as its secret, in the form in which it is known."""
    header, payload = b'{"alg":"HS256","kid":"rsa"}', json.dumps({"exp": _NOW + 60}).encode()
    signed = f"{encode(header)}.{encode(payload)}"
    handler = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    return f"{signed}.{encode(handler.sign(signed.encode(), _PEM))}"


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        # Form
        ("", Refusal.MALFORMED),
        ("x", Refusal.MALFORMED),
        ("..", Refusal.MALFORMED),
        ("a.b.c", Refusal.MALFORMED),
        (b"\xff.\xff.\xff", Refusal.MALFORMED),
        (token() + ".x", Refusal.MALFORMED),
        (token().rpartition(".")[0], Refusal.MALFORMED),
        (token() + "=", Refusal.MALFORMED),
        (token() + "\n", Refusal.MALFORMED),
        (" " + token(), Refusal.MALFORMED),
        (token().replace(".", "..", 1), Refusal.MALFORMED),
        ("A" * 5 + token(), Refusal.MALFORMED),
        (token().rpartition(".")[0] + ".AAAAA", Refusal.MALFORMED),
        (token(much="x" * LONGEST_TOKEN), Refusal.MALFORMED),
        ("A" * 10_000_000, Refusal.MALFORMED),
        # Header
        (raw("{}", "[]"), Refusal.MALFORMED),
        (raw("{}", '"ES256"'), Refusal.MALFORMED),
        (raw("{}", "{}"), Refusal.MALFORMED),
        (raw("{}", '{"alg":"ES256","alg":"ES256","kid":"one"}'), Refusal.MALFORMED),
        (raw("{}", '{"alg":"ES256","kid":"one","x":NaN}'), Refusal.MALFORMED),
        (raw("{}", '{"alg":"ES256","kid":"one","x":' + "[" * 3000), Refusal.MALFORMED),
        (token(header={"crit": ["exp"]}), Refusal.MALFORMED),
        (token(header={"crit": []}), Refusal.MALFORMED),
        (token(header={"b64": False, "crit": ["b64"]}), Refusal.MALFORMED),
        (token(header={"b64": True}), Refusal.MALFORMED),
        (token(header={"alg": ["ES256"]}), Refusal.MALFORMED),
        (token(header={"kid": 1}), Refusal.MALFORMED),
        (token(header={"kid": ["one"]}), Refusal.MALFORMED),
        # Algorithm
        (unsigned(), Refusal.ALGORITHM),
        (token(header={"alg": "none"}), Refusal.ALGORITHM),
        (token(header={"alg": "None"}), Refusal.ALGORITHM),
        (token(header={"alg": "es256"}), Refusal.ALGORITHM),
        (token(header={"alg": ""}), Refusal.ALGORITHM),
        (token(header={"alg": "ES256K"}), Refusal.ALGORITHM),
        (token(header={"alg": "RS256"}), Refusal.ALGORITHM),
        (token("RS512", "only-rs256"), Refusal.ALGORITHM),
        (token("RS256", "rsa", header={"alg": "ES256"}), Refusal.ALGORITHM),
        (_confused(), Refusal.ALGORITHM),
        # Key
        (token(header={"kid": "two"}), Refusal.UNKNOWN_KEY),
        (token(header={"kid": ""}), Refusal.UNKNOWN_KEY),
        (token(header={"kid": "ONE"}), Refusal.UNKNOWN_KEY),
        (token(header={"kid": "../../../dev/null"}), Refusal.UNKNOWN_KEY),
        (token(header={"kid": "' OR 1=1 --"}), Refusal.UNKNOWN_KEY),
        (token(header={"kid": "\u0000one"}), Refusal.UNKNOWN_KEY),
        (token("RS256", "rsa", header={"kid": None}), Refusal.UNKNOWN_KEY),
        (token(header={"kid": "ed", "alg": "EdDSA"}), Refusal.SIGNATURE),
        # Keys that a token brings along are not used
        (token("ES256", "own", header={"kid": "own", "jwk": public_jwk("ES256", "own")}), Refusal.UNKNOWN_KEY),
        (token("ES256", "own", header={"kid": "one", "jwk": public_jwk("ES256", "own")}), Refusal.SIGNATURE),
        (token("ES256", "own", header={"kid": "one", "jku": "http://127.0.0.1:1/"}), Refusal.SIGNATURE),
        (token("ES256", "own", header={"kid": "one", "x5u": "http://127.0.0.1:1/"}), Refusal.SIGNATURE),
        (token("ES256", "own", header={"kid": "one", "x5c": ["MIIB"]}), Refusal.SIGNATURE),
        (token().rpartition(".")[0] + ".", Refusal.SIGNATURE),
        # Payload
        (raw("[]"), Refusal.MALFORMED),
        (raw("nonsense"), Refusal.MALFORMED),
        (raw('{%s,"exp":1900000000,"exp":1900000000}'), Refusal.MALFORMED),
        (raw('{%s,"exp":1900000000,"openfactory":{"assets":[],"assets":["*"]}}'), Refusal.MALFORMED),
        (sign("ES256", "one", b'{"alg":"ES256","kid":"one"}', b'{"exp":"\xff"}'), Refusal.MALFORMED),
        (raw('{%s,"exp":1900000000,"x":' + "[" * 3000), Refusal.MALFORMED),
        # Time
        (raw("{%s}"), Refusal.MALFORMED),
        (token(exp=str(_NOW + 600)), Refusal.MALFORMED),
        (token(exp=True), Refusal.MALFORMED),
        (token(exp=[_NOW + 600]), Refusal.MALFORMED),
        (raw('{%s,"exp":null}'), Refusal.MALFORMED),
        (raw('{%s,"exp":NaN}'), Refusal.MALFORMED),
        (raw('{%s,"exp":Infinity}'), Refusal.MALFORMED),
        (raw('{%s,"exp":1e400}'), Refusal.MALFORMED),
        (raw('{%s,"exp":1e300}'), Refusal.MALFORMED),
        (raw('{%s,"exp":1' + "0" * 400 + "}"), Refusal.MALFORMED),
        (token(exp=-1), Refusal.EXPIRED),
        (token(exp=0), Refusal.EXPIRED),
        (token(exp=-(10**300)), Refusal.MALFORMED),
        (token(exp=_NOW), Refusal.EXPIRED),
        (token(exp=_NOW - 0.001), Refusal.EXPIRED),
        (token(nbf=_NOW + 61), Refusal.NOT_YET_VALID),
        (token(iat=_NOW + 61), Refusal.NOT_YET_VALID),
        (token(nbf=str(_NOW)), Refusal.MALFORMED),
        (token(iat="now"), Refusal.MALFORMED),
        (raw('{%s,"exp":1900000000,"nbf":null}'), Refusal.MALFORMED),
        # Issuer and audience
        (token(iss="https://issuer.test"), Refusal.ISSUER),
        (token(iss=ISSUER + "/"), Refusal.ISSUER),
        (token(iss=[ISSUER]), Refusal.ISSUER),
        (token(iss=None), Refusal.ISSUER),
        (token(aud="another"), Refusal.AUDIENCE),
        (token(aud=AUDIENCE + "2"), Refusal.AUDIENCE),
        (token(aud=[]), Refusal.AUDIENCE),
        (token(aud=[[AUDIENCE]]), Refusal.AUDIENCE),
        (token(aud={AUDIENCE: 1}), Refusal.AUDIENCE),
        (token(aud=None), Refusal.AUDIENCE),
    ],
    ids=lambda value: value.value if isinstance(value, Refusal) else "",  # tokens are new in each process
)
def test_what_is_refused(text: str | bytes, refusal: Refusal) -> None:
    """For the first check that fails; the text is the same for every token."""
    with pytest.raises(TokenRefused) as refused:
        check(text)
    assert (refused.value.refusal, str(refused.value)) == (refusal, DETAILS[refusal])


@pytest.mark.parametrize(
    "text",
    [
        token(exp=_NOW + 0.001),
        token(exp=2**53),
        token(nbf=_NOW + 59),
        token(iat=_NOW + 59),
        token(iat=None),
        token(nbf=0.5),
        token(aud=["another", AUDIENCE]),
        token(header={"typ": "at+jwt"}),
        token(header={"kid": None}),
        token("HS512", "secret"),
    ],
    ids=range(10),
)
def test_what_is_accepted(text: str) -> None:
    """To the limits: clocks a minute apart, several audiences, no key id where one key fits."""
    check(text)


def test_keys_of_several_types_may_have_one_id() -> None:
    """The algorithm picks among them (RFC 7517, 4.5), and each of the fitting ones is tried."""
    same = (public_jwk("ES256", "a", kid="same"), public_jwk("ES256", "b", kid="same"), public_jwk("EdDSA", "same"))
    keys = parse_key_set(key_set(*same), symmetric=False)
    for algorithm, name in (("ES256", "a"), ("ES256", "b"), ("EdDSA", "same")):
        text = token(algorithm, name, header={"kid": "same"})
        assert verify(text.encode(), keys, _EXPECTED, _NOW).key in keys


@given(st.data())
def test_no_changed_token_is_accepted(data: st.DataObject) -> None:
    """A byte of another value, a part that is cut out, two tokens mixed: refused, and by no other exception."""
    valid = [_VALID[data.draw(st.integers(0, 3))] for _ in range(2)]
    at = data.draw(st.integers(0, len(valid[0]) - 1))
    to = data.draw(st.integers(at, len(valid[0])))
    text = valid[0][:at] + data.draw(st.binary(max_size=4) | st.just(valid[1][at:to])) + valid[0][to:]
    try:
        verified = verify(text, _KEYS, _EXPECTED, _NOW)
    except TokenRefused:
        return
    # Base64 has bits without a meaning at the end of a part.
    assert text.rpartition(b".")[0] in {each.rpartition(b".")[0] for each in _VALID}
    assert verified.claims["iss"] == ISSUER


_VALID = [token(*key).encode() for key in (("ES256", "one"), ("RS256", "rsa"), ("HS256", "secret"), ("EdDSA", "ed"))]
