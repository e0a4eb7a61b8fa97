"""Where a token is looked for, what is let in, what is kept of it, and what a service gets."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing_layer.access import gate as module
from routing_layer.access.gate import Gate, Permit, RawHeaders
from routing_layer.access.refusals import Refusal
from routing_layer.problems import Problem, ProblemType
from routing_layer.settings import Settings
from routing_layer.trusted_proxies import TrustedProxies
from routing_layer.upstream.dialer import Target
from routing_layer.upstream.request_head import RequestHeads
from tests.harness.issuer import AUDIENCE, ISSUER, key_set, make_token, public_jwk

_GRANT = {"assets": ["WELD-*"], "groups": ["Paint"]}


def _settings(**more: Any) -> Settings:
    return Settings(_env_file=None, **{"ksqldb_url": "http://127.0.0.1:1", **more})


class _Guarded:
    """A gate with the keys of a file, and what it refused."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "keys.json"
        self.file.write_bytes(key_set(public_jwk("ES256", "one"), public_jwk("ES256", "two")))
        settings = _settings(auth_keys_file=self.file, auth_issuer=ISSUER, auth_audience=AUDIENCE)
        self.refused: list[Refusal] = []
        self.gate = Gate(settings, self.refused.append)

    async def read(self) -> None:
        assert self.gate.keys is not None
        await self.gate.keys.read()


@pytest.fixture
def guarded(tmp_path: Path) -> _Guarded:
    """A gate that has not read its keys yet."""
    return _Guarded(tmp_path)


def headers(*lines: str) -> RawHeaders:
    """Return raw headers."""
    pairs = (line.split(": ", 1) for line in ("Host: proxy.test", *lines))
    return [(name.encode(), value.encode("latin-1")) for name, value in pairs]


async def refusal_of(gate: Gate, fields: RawHeaders) -> Problem:
    """Return why a request is refused."""
    with pytest.raises(Problem) as refused:
        await gate.admit(fields)
    return refused.value


_ONE, _TWO = (make_token(name=name, openfactory=_GRANT) for name in ("one", "two"))


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ([f"Authorization: Bearer {_ONE}"], "one"),
        ([f"authorization: bearer   {_ONE}"], "one"),
        ([f"AUTHORIZATION: BEARER {_ONE}"], "one"),
        ([f"Cookie: openfactory_token={_ONE}"], "one"),
        ([f"cookie: a=b; openfactory_token={_ONE}; c"], "one"),
        ([f'Cookie: openfactory_token="{_ONE}"'], "one"),
        ([f"Cookie: openfactory_token={_ONE}; openfactory_token={_ONE}"], "one"),
        ([f"Cookie: openfactory_token={_ONE}", f"Cookie: openfactory_token={_ONE}"], "one"),
        ([f"Cookie: openfactory_token={_ONE}", f"Authorization: Bearer {_TWO}"], "two"),
        ([f"Cookie: openfactory_token={_ONE}", "Authorization: Basic dTpw"], "one"),
        ([f"Cookie: openfactory_token={_ONE}; OPENFACTORY_TOKEN=x; openfactory_token2=y"], "one"),
        ([f"Authorization: Bearer {_ONE}", f"Authorization: Bearer {_ONE}"], "one"),
    ],
)
async def test_a_token_is_found(guarded: _Guarded, lines: list[str], key: str) -> None:
    """In `Authorization`, otherwise in the cookie."""
    await guarded.read()
    permit = await guarded.gate.admit(headers(*lines))
    assert permit.key is not None
    assert permit.key.kid == key
    assert guarded.gate.recall(headers(*lines)) is permit
    assert not guarded.refused


@pytest.mark.parametrize(
    ("lines", "refusal"),
    [
        ([], Refusal.NO_TOKEN),
        (["Authorization: Basic dTpw"], Refusal.NO_TOKEN),
        ([f"Authorization: {_ONE}"], Refusal.NO_TOKEN),
        ([f"Authorization: Token {_ONE}"], Refusal.NO_TOKEN),
        ([f"Proxy-Authorization: Bearer {_ONE}"], Refusal.NO_TOKEN),
        ([f"X-Authorization: Bearer {_ONE}"], Refusal.NO_TOKEN),
        ([f"Cookie: other={_ONE}"], Refusal.NO_TOKEN),
        ([f"Cookie: OpenFactory_Token={_ONE}"], Refusal.NO_TOKEN),
        (["Authorization: Bearer"], Refusal.MALFORMED),
        (["Cookie: openfactory_token="], Refusal.MALFORMED),
        (["Cookie: openfactory_token"], Refusal.MALFORMED),
        (["Authorization: Bearer \xff\xfe"], Refusal.MALFORMED),
        (["Authorization: Bearer", f"Cookie: openfactory_token={_ONE}"], Refusal.MALFORMED),
        ([f"Authorization: Bearer {_ONE} {_TWO}"], Refusal.MALFORMED),
        ([f"Authorization: Bearer {_ONE}, Bearer {_TWO}"], Refusal.MALFORMED),
        ([f"Authorization: Bearer {_ONE}", f"Authorization: Bearer {_TWO}"], Refusal.SEVERAL_TOKENS),
        ([f"Authorization: Bearer {_ONE}", "Authorization: Basic dTpw"], Refusal.SEVERAL_TOKENS),
        ([f"Cookie: openfactory_token={_ONE}; openfactory_token={_TWO}"], Refusal.SEVERAL_TOKENS),
        ([f"Cookie: openfactory_token={_ONE}; openfactory_token="], Refusal.SEVERAL_TOKENS),
        ([f"Cookie: openfactory_token={_ONE}", "Cookie: openfactory_token=x"], Refusal.SEVERAL_TOKENS),
    ],
)
async def test_a_request_without_one_token_is_refused(guarded: _Guarded, lines: list[str], refusal: Refusal) -> None:
    """401, counted, and nothing of the token in the response."""
    await guarded.read()
    problem = await refusal_of(guarded.gate, headers(*lines))
    assert (problem.type, guarded.refused) == (ProblemType.UNAUTHORIZED, [refusal])
    assert ("error=" in problem.challenge) is (refusal is not Refusal.NO_TOKEN)
    assert problem.challenge.startswith('Bearer realm="openfactory"')
    assert problem.challenge.isprintable()
    assert "eyJ" not in problem.detail + problem.challenge


def _forwarded(fields: Sequence[tuple[bytes, bytes]], cookie: bytes | None) -> list[tuple[bytes, bytes]]:
    """Return the client's fields that a service gets."""
    target = Target("service", 80, "/asset_stream")
    lines = RequestHeads(TrustedProxies(), cookie).build("/x", target, fields, "192.0.2.1", "http", None).split(b"\r\n")
    pairs = [(name, value) for name, _, value in (line.partition(b": ") for line in lines[1:] if line)]
    return [pair for pair in pairs if pair[0] != b"Host" and not pair[0].startswith(b"X-Forwarded-")]


async def test_without_a_source_of_keys_everything_is_open() -> None:
    """And nothing of a request is held back from its service."""
    gate = Gate(_settings(), [].append)
    fields = headers(f"Authorization: Bearer {_ONE}", f"Cookie: openfactory_token={_ONE}")
    permit = await gate.admit(fields)
    permit.check_group("any")
    assert await permit.find_group("any", _find("Weld")) == "Weld"
    assert permit.expires == float("inf")
    assert set(_forwarded(fields, None)) == {field for field in fields if field[0] != b"Host"}
    await gate.close()


def _find(group: str | ProblemType) -> Callable[[str], Any]:
    async def find(asset: str) -> str:
        if isinstance(group, ProblemType):
            raise Problem(group, f"asset {asset!r}")
        return group

    return find


async def _never(asset: str) -> str:
    raise AssertionError(f"{asset} is looked up")


async def permit_for(guarded: _Guarded, claim: Any) -> Permit:
    """Return the permit of a token with this claim."""
    await guarded.read()
    return await guarded.gate.admit(headers(f"Authorization: Bearer {make_token(openfactory=claim)}"))


_ABSENT = ProblemType.UNKNOWN_ASSET
_NO_LEVEL = ProblemType.ASSET_WITHOUT_LEVEL
_BUSY = ProblemType.NOT_READY
_NO = ProblemType.FORBIDDEN


@pytest.mark.parametrize(
    ("claim", "asset", "group", "expected"),
    [
        ({"assets": ["A*"]}, "A1", "Weld", "Weld"),
        ({"assets": ["A*"]}, "A1", _ABSENT, _ABSENT),
        ({"assets": ["A*"]}, "A1", _BUSY, _BUSY),
        ({"groups": ["Weld"]}, "A1", "Weld", "Weld"),
        ({"groups": ["Weld"]}, "A1", "Paint", _NO),
        ({"groups": ["Weld"]}, "A1", _ABSENT, _NO),
        ({"groups": ["Weld"]}, "A1", _NO_LEVEL, _NO),
        ({"groups": ["Weld"]}, "A1", _BUSY, _BUSY),
        ({"groups": ["*"]}, "A1", "Paint", "Paint"),
        ({"groups": ["*"]}, "A1", _ABSENT, _ABSENT),
        ({"groups": ["*"]}, "A1", _NO_LEVEL, _NO_LEVEL),
        ({"groups": ["**"]}, "A1", _ABSENT, _NO),
    ],
)
async def test_an_asset_needs_a_grant(
    guarded: _Guarded, claim: Any, asset: str, group: str | ProblemType, expected: str | ProblemType
) -> None:
    """Of its name, or of the group that it is in; without either, unknown and forbidden are one answer."""
    permit = await permit_for(guarded, claim)
    if isinstance(expected, str):
        assert await permit.find_group(asset, _find(group)) == expected
        await permit.check_asset(asset, _find(group))
        return
    with pytest.raises(Problem) as refused:
        await permit.find_group(asset, _find(group))
    assert refused.value.type is expected
    if expected is _NO:
        assert refused.value.detail == f"the token does not grant asset {asset!r}"
        assert 'error="insufficient_scope"' in refused.value.challenge
        assert guarded.refused == [Refusal.NOT_GRANTED]


async def test_a_client_without_groups_causes_no_lookup(guarded: _Guarded) -> None:
    """So that not even the time of the answer tells which assets there are."""
    permit = await permit_for(guarded, {"assets": ["A1"]})
    with pytest.raises(Problem, match="does not grant asset 'A2'"):
        await permit.find_group("A2", _never)
    with pytest.raises(Problem, match="does not grant asset 'A2'"):
        await permit.check_asset("A2", _never)
    await permit.check_asset("A1", _never)
    await permit.check_asset(None, _never)
    with pytest.raises(Problem, match="does not grant group 'Weld'"):
        permit.check_group("Weld")


@pytest.mark.parametrize("claim", [None, {}, {"assets": []}, {"assets": "A1"}, ["A1"], "*"], ids=str)
async def test_a_token_that_grants_nothing_is_refused(guarded: _Guarded, claim: Any) -> None:
    """403: it is valid."""
    await guarded.read()
    problem = await refusal_of(guarded.gate, headers(f"Authorization: Bearer {make_token(openfactory=claim)}"))
    assert (problem.type, guarded.refused) == (_NO, [Refusal.NOT_GRANTED])


async def test_no_token_is_checked_without_keys(guarded: _Guarded) -> None:
    """503, which an event source waits for; without a token 401 all the same."""
    fields = headers(f"Authorization: Bearer {_ONE}")
    problem = await refusal_of(guarded.gate, fields)
    assert (problem.type, problem.transient) == (ProblemType.NOT_READY, True)
    assert (await refusal_of(guarded.gate, headers())).type is ProblemType.UNAUTHORIZED
    assert guarded.refused == [Refusal.NO_KEYS, Refusal.NO_TOKEN]
    await guarded.read()
    await guarded.gate.admit(fields)


async def test_a_known_token_is_not_checked_again(guarded: _Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it expires, or its key is removed; the tokens of other keys stay known."""
    await guarded.read()
    one, two = (headers(f"Authorization: Bearer {token}") for token in (_ONE, _TWO))
    first, second = await guarded.gate.admit(one), await guarded.gate.admit(two)
    checked: list[bytes] = []
    monkeypatch.setattr(module, "verify", lambda token, *_: checked.append(token))
    assert await guarded.gate.admit(one) is first
    assert not checked
    monkeypatch.undo()
    guarded.file.write_bytes(key_set(public_jwk("ES256", "two")))
    await guarded.read()
    assert guarded.gate.recall(two) is second
    assert guarded.gate.recall(one) is None
    assert (await refusal_of(guarded.gate, one)).type is ProblemType.UNAUTHORIZED
    assert guarded.refused == [Refusal.UNKNOWN_KEY]


async def test_a_known_token_ends_to_the_second(guarded: _Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """A permit that is kept is as old as its token."""
    await guarded.read()
    now = time.time()
    fields = headers(f"Authorization: Bearer {make_token(exp=now + 100, openfactory=_GRANT)}")
    permit = await guarded.gate.admit(fields)
    assert permit.expires == now + 100
    monkeypatch.setattr(time, "time", lambda: now + 99.9)
    assert await guarded.gate.admit(fields) is permit
    monkeypatch.setattr(time, "time", lambda: now + 100)
    await refusal_of(guarded.gate, fields)
    assert guarded.refused == [Refusal.EXPIRED]


async def test_what_is_kept_of_tokens_is_bounded(guarded: _Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten, the tokens themselves are not kept, and a refused one is not kept at all."""
    await guarded.read()
    monkeypatch.setattr(module, "_CACHED_BYTES", 4 * len(_ONE))
    tokens = [make_token(jti=f"{number:04}", openfactory=_GRANT) for number in range(20)]
    for token in tokens:
        await guarded.gate.admit(headers(f"Authorization: Bearer {token}"))
    await refusal_of(guarded.gate, headers(f"Authorization: Bearer {make_token(exp=1)}"))
    kept = guarded.gate._permits
    assert 0 < len(kept) <= 4
    assert guarded.gate._cached_bytes == sum(size for size, _ in kept.values())
    assert guarded.gate.recall(headers(f"Authorization: Bearer {tokens[-1]}")) is not None
    assert guarded.gate.recall(headers(f"Authorization: Bearer {tokens[0]}")) is None
    assert {len(digest) for digest in kept} == {32}


@pytest.mark.parametrize(
    ("lines", "forwarded"),
    [
        (["Authorization: Bearer x"], []),
        (["authorization: bearer x", "Accept: a/b"], ["Accept: a/b"]),
        (["Authorization: Basic dTpw"], ["Authorization: Basic dTpw"]),
        (["Cookie: openfactory_token=x"], []),
        (["Cookie: a=1; openfactory_token=x; b=2"], ["Cookie: a=1; b=2"]),
        (["Cookie: a=1;openfactory_token=x ;b=2;openfactory_token=y"], ["Cookie: a=1; b=2"]),
        (["Cookie: openfactory_token =x; OPENFACTORY_TOKEN=y"], ["Cookie: OPENFACTORY_TOKEN=y"]),
        (["Cookie: openfactory_token", "cookie: b=2"], ["cookie: b=2"]),
        (["Cookie: a=1", "Cookie: openfactory_token=x"], ["Cookie: a=1"]),
        (["X-Token: openfactory_token=x"], ["X-Token: openfactory_token=x"]),
        (['Cookie: a="1; openfactory_token=x"'], ['Cookie: a="1']),
    ],
)
def test_a_service_gets_no_token(lines: list[str], forwarded: list[str]) -> None:
    """Other fields, other credentials and other cookies are passed on."""
    found = _forwarded(headers(*lines), b"openfactory_token")
    assert [(name.lower(), value) for name, value in found] == [
        (name.lower(), value) for name, value in headers(*forwarded) if name != b"Host"
    ]


_PART = st.sampled_from([b"openfactory_token", b"=", b";", b" ", b"\t", b'"', b"x", b"a", b",", b"\xff"])


@given(st.lists(st.tuples(st.sampled_from([b"Cookie", b"cookie"]), st.lists(_PART).map(b"".join))))
def test_every_cookie_that_is_read_is_removed(fields: list[tuple[bytes, bytes]]) -> None:
    """Whatever form it has: what the one function finds, the other does not forward."""
    settings = _settings(auth_keys_file="/none", auth_issuer=ISSUER, auth_audience=AUDIENCE)
    gate = Gate(settings, [].append)
    assert gate._find_cookies(_forwarded(fields, b"openfactory_token")) == set()


def test_the_claim_and_the_cookie_have_the_names_of_the_settings() -> None:
    """Others are not read."""
    settings = _settings(
        auth_keys_file="/none", auth_issuer=ISSUER, auth_audience=AUDIENCE, auth_cookie="jwt", auth_claim="plant"
    )
    gate = Gate(settings, [].append)
    assert (gate.cookie, gate._claim) == (b"jwt", "plant")
