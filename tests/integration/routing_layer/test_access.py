"""Who may read what, over real sockets: every endpoint, every kind of token."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from tests.harness.coroutines import until
from tests.harness.issuer import encode, make_token, public_jwk, unsigned
from tests.integration.routing_layer.fake_keys import QUICK_KEYS, answer_state, bearer, start_guarded, valid
from tests.integration.routing_layer.proxy_system import ProxySystem, Response, chunk, start_system

#: Each answers a client that may read group Weld.
_ENDPOINTS = (
    "/asset_stream?asset_uuid=A1",
    "/group/Weld/asset_stream?asset_uuid=A1",
    "/group/Weld/asset_stream",
    "/asset_state?asset_uuid=A1",
    "/asset_state",
)
#: The last one asks for no asset in particular: any grant is enough.
_OF_AN_ASSET = _ENDPOINTS[:-1]
_OPEN = ("/healthz", "/ready", "/readyz", "/metrics")
_BROWSER = "Accept: text/event-stream"


async def outcome(system: ProxySystem, target: str, *headers: str, method: str = "GET") -> tuple[int, str]:
    """Return status and, of a problem, its kind."""
    response = await system.proxy.get(target, *headers, method=method)
    kind = ""
    if response.header("Content-Type") == "application/problem+json":
        assert (response.header("WWW-Authenticate") is not None) is (response.status in (401, 403))
        if method == "GET":
            kind = (await response.problem())["type"].rpartition(":")[2]
    response.leave()
    return response.status, kind


def _tampered() -> str:
    head, payload, signature = make_token(openfactory={"groups": ["Paint"]}).split(".")
    del payload
    claims = {"iss": "https://issuer.test/plant", "aud": "openfactory", "exp": time.time() + 60}
    return f"{head}.{encode(json.dumps({**claims, 'openfactory': {'groups': ['Weld']}}).encode())}.{signature}"


def _matrix() -> dict[str, tuple[tuple[str, ...], int, str]]:
    """Return each case: what the client sends, the status, and a part of the detail."""
    weld, now = {"groups": ["Weld"]}, time.time()
    return {
        "no token": ((), 401, "a token is needed"),
        "bad signature": ((bearer(_tampered()),), 401, "signature"),
        "foreign key": ((bearer(make_token("ES256", "own", header={"kid": "one"}, openfactory=weld)),), 401, "signat"),
        "alg none": ((bearer(unsigned(openfactory=weld)),), 401, "algorithm"),
        "other issuer": ((valid(iss="https://other.test"),), 401, "another issuer"),
        "other audience": ((valid(aud="other"),), 401, "another audience"),
        "expired": ((valid(exp=now - 1),), 401, "expired"),
        "not yet valid": ((valid(nbf=now + 300),), 401, "not valid yet"),
        "wrong key id": ((valid(header={"kid": "two"}),), 401, "not known"),
        "no claim": ((valid(None),), 403, "grants no asset and no group"),
        "empty claim": ((valid({}),), 403, "grants no asset and no group"),
        "two tokens": ((valid(), valid(sub="x")), 401, "several"),
        "two cookies": (
            (f"Cookie: openfactory_token={make_token(openfactory=weld)}; openfactory_token=x",),
            401,
            "several",
        ),
        "nonsense": ((bearer("nonsense"),), 401, "not a signed"),
        "in the header": ((valid(),), 200, ""),
        "in the cookie": ((f"Cookie: a=b; openfactory_token={make_token(openfactory=weld)}",), 200, ""),
        "in both": ((valid(), "Cookie: openfactory_token=x"), 200, ""),
        "other scheme, cookie": (
            ("Authorization: Basic dTpw", f"Cookie: openfactory_token={make_token(openfactory=weld)}"),
            200,
            "",
        ),
        "all groups": ((valid({"groups": ["*"]}),), 200, ""),
        "group by pattern": ((valid({"groups": ["W*d"]}),), 200, ""),
    }


async def test_every_endpoint_and_every_token() -> None:
    """GET and HEAD; a browser's event source is refused at once, too; what is open is open to all of them."""
    wrong: list[str] = []
    async with start_guarded() as (system, _):
        for name, (headers, status, detail) in _matrix().items():
            for target in _ENDPOINTS:
                for more in ((), (_BROWSER,)):
                    response = await system.proxy.get(target, *headers, *more)
                    problem = await response.problem() if response.status != 200 else {"detail": ""}
                    if response.status != status or detail not in problem["detail"]:
                        wrong.append(f"{name} at {target} {more}: {response.status} {problem}")
                    _check_challenge(response, problem, name)
                    response.leave()
                found = (await outcome(system, target, *headers, method="HEAD"))[0]
                wrong += [f"{name}: HEAD {target}: {found}"] if found != status else []
            for target in _OPEN:
                found = (await outcome(system, target, *headers))[0]
                wrong += [f"{name} at {target}: {found}"] if found != 200 else []
        for target in _ENDPOINTS:
            assert (await outcome(system, target, valid(), method="POST"))[0] == 405
        assert await outcome(system, "/nowhere") == (404, "unknown-path")
    assert wrong == []


def _check_challenge(response: Response, problem: dict[str, Any], case: str) -> None:
    challenge = response.header("WWW-Authenticate")
    if response.status == 200:
        assert challenge is None
        return
    assert (
        problem["type"] == f"urn:openfactory:routing-layer:{'unauthorized' if response.status == 401 else 'forbidden'}"
    )
    assert challenge is not None
    error = {401: ', error="invalid_token", error_description="', 403: ', error="insufficient_scope", error_des'}
    expected = 'Bearer realm="openfactory"' + ("" if case == "no token" else error[response.status])
    assert challenge.startswith(expected), case
    assert response.header("Cache-Control") == "no-store"
    assert "eyJ" not in challenge + problem["detail"]


@pytest.mark.parametrize(
    ("claim", "allowed"),
    [
        ({"assets": ["A1"]}, {0, 1, 3, 4}),
        ({"assets": ["A*"]}, {0, 1, 3, 4}),
        ({"assets": ["*"]}, {0, 1, 3, 4}),
        ({"groups": ["Weld"]}, {0, 1, 2, 3, 4}),
        ({"assets": ["A2"]}, {4}),
        ({"assets": ["a1", "A", "A11"]}, {4}),
        ({"groups": ["Paint", "weld"]}, {4}),
        ({"assets": ["Weld"]}, {4}),
        ({"groups": ["A1"]}, {4}),
    ],
    ids=str,
)
async def test_a_grant_opens_what_it_names(claim: Any, allowed: set[int]) -> None:
    """And nothing else: of a group's stream an asset is no part."""
    async with start_guarded() as (system, _):
        for number, target in enumerate(_ENDPOINTS):
            expected = (200, "") if number in allowed else (403, "forbidden")
            assert await outcome(system, target, valid(claim)) == expected, target
        if 0 not in allowed:
            assert not system.weld.connections, "nothing reaches the service"


async def test_no_one_finds_out_which_assets_there_are() -> None:
    """Unknown, without a level and forbidden are one answer, at every endpoint, but for those who may read all."""
    async with start_guarded() as (system, _):
        await system.ksql.put("A9", None)
        mine = valid({"assets": ["B*"], "groups": ["Weld"]})
        for path in ("/asset_stream", "/group/Weld/asset_stream", "/asset_state"):
            answers = set()
            for asset in ("A2", "A8", "A9"):  # of another group, unknown, without a level
                response = await system.proxy.get(f"{path}?asset_uuid={asset}", mine)
                body = (await response.rest()).decode().replace(asset, "")
                head = tuple(line for line in response.lines if not line.startswith("Date:"))
                answers.add((response.status, head, body))
            [(status, _, _)] = answers
            assert status == 403, path
        everything = valid({"groups": ["*"]})
        assert await outcome(system, "/asset_stream?asset_uuid=A8", everything) == (404, "unknown-asset")
        assert await outcome(system, "/asset_stream?asset_uuid=A9", everything) == (404, "asset-without-level")
        assert await outcome(system, "/asset_stream?asset_uuid=B1", mine) == (404, "unknown-asset")
        assert await outcome(system, "/asset_state?asset_uuid=B1", mine) == (200, "")
        assert await outcome(system, "/group/Paint/asset_stream", mine) == (403, "forbidden")
        assert await outcome(system, "/group/None/asset_stream", mine) == (403, "forbidden")
        assert await outcome(system, "/group/None/asset_stream", everything) == (404, "unknown-group")
        assert await outcome(system, "/asset_stream", mine) == (400, "bad-request")
        assert await outcome(system, "/asset_state?asset_uuid=A1&asset_uuid=A2", mine) == (400, "bad-request")
        assert await outcome(system, "/asset_state?asset%5fuuid=A2", mine) == (403, "forbidden")


async def test_a_token_in_the_query_is_not_read() -> None:
    """It would be in logs and histories."""
    token = make_token(openfactory={"groups": ["*"]})
    async with start_guarded() as (system, _):
        for name in ("token", "access_token", "openfactory_token", "authorization"):
            assert (await outcome(system, f"/asset_stream?asset_uuid=A1&{name}={token}"))[0] == 401


async def test_a_grant_is_lost_by_a_move() -> None:
    """The stream ends cleanly; who comes back is checked again, by the group that the asset is in now."""
    async with start_guarded() as (system, _):
        by_group, by_name = valid(), valid({"assets": ["A1"]})
        streams = [await system.stream("A1", header) for header in (by_group, by_name)]
        await system.proxy.wait_current()
        await system.ksql.put("A1", "Paint")
        for stream in streams:
            await stream.rest()
            assert stream.complete
        for target in ("/asset_stream?asset_uuid=A1", "/asset_state?asset_uuid=A1"):
            assert await outcome(system, target, by_group) == (403, "forbidden")
            assert await outcome(system, target, by_name) == (200, "")
        assert await outcome(system, "/group/Weld/asset_stream?asset_uuid=A1", by_group) == (403, "forbidden")
        assert await outcome(system, "/group/Weld/asset_stream?asset_uuid=A1", by_name) == (404, "asset-elsewhere")
        await system.ksql.put("A1", "Weld")
        await asyncio.sleep(0.3)
        assert await outcome(system, "/asset_stream?asset_uuid=A1", by_group) == (200, "")


async def test_a_move_while_a_stream_is_being_opened_is_checked() -> None:
    """The service of the first group has the request when its asset moves to a group that is not granted."""
    asked = asyncio.Event()

    async def hang(_connection: object) -> None:
        asked.set()

    async with start_guarded() as (system, _):
        await system.proxy.wait_current()
        system.weld.answer = hang
        opening = asyncio.create_task(outcome(system, "/asset_stream?asset_uuid=A1", valid()))
        await asked.wait()
        await system.ksql.put("A1", "Paint")
        assert await opening == (403, "forbidden")
        assert not system.paint.connections


async def test_a_move_while_a_groups_service_is_waited_for_is_checked() -> None:
    """The asset was in the group when its stream was asked for, and is not when the group has a service."""
    async with start_guarded(LAZY_DEPLOY_WAIT="20s") as (system, _):
        await system.ksql.put("A8", "Fit")
        await system.proxy.wait_current()
        token = valid({"groups": ["Fit"]})
        opening = asyncio.create_task(outcome(system, "/group/Fit/asset_stream?asset_uuid=A8", token))
        await until(lambda: system.operator.nudged > 0, "it waits for a service")
        await system.ksql.put("A8", "Paint")
        await system.proxy.wait_current()
        system.publish({"Fit": system.weld.url})
        assert await opening in ((503, "not-ready"), (403, "forbidden"))
        assert not system.weld.connections


async def test_those_without_a_valid_token_take_no_one_elses_place() -> None:
    """While the key server is away, a token of an unknown key is held, and does not count for `MAX_STREAMS`."""
    async with start_guarded(MAX_STREAMS="2") as (system, issuer):
        assert await outcome(system, "/asset_state", valid()) == (200, "")
        await issuer.stop()
        forged = bearer(make_token(header={"kid": "two"}, openfactory={"groups": ["*"]}))
        held = [await system.proxy.ask("/asset_stream?asset_uuid=A1", forged, _BROWSER) for _ in range(4)]
        await system.proxy.wait_metric('routing_layer_access_refused_total{reason="no_keys"}', 4)
        await system.stream("A1", valid())
        for waiting in held:
            waiting.writer.transport.abort()


@pytest.mark.parametrize("more", ["ASSET_UUID=A2", "asset_uuid[]=A2", "asset_uuid%5B0%5D=A2", "asset_uuid%20=A2"])
async def test_what_another_service_might_read_as_the_asset_is_refused(more: str) -> None:
    """With authentication on; without, nothing was checked that it could get around."""
    for guarded in (True, False):
        async with start_guarded() if guarded else start_system(state=answer_state) as made:
            system = made[0] if isinstance(made, tuple) else made
            for path in ("/asset_stream", "/asset_state", "/group/Weld/asset_stream"):
                found = await outcome(system, f"{path}?asset_uuid=A1&{more}", *([valid()] if guarded else []))
                assert found == ((400, "bad-request") if guarded else (200, "")), path


async def test_an_answer_for_one_client_is_kept_by_no_cache() -> None:
    """What the service says stays; where it says nothing, it is private."""
    async with start_guarded() as (system, _):
        answer = await system.proxy.get("/asset_state?asset_uuid=A1", valid())
        assert answer.header("Cache-Control") == "private, no-store"
        system.weld.answer = None
        stream = await system.stream("A1", valid())
        assert stream.header("Cache-Control") == "private, no-store"


@pytest.mark.parametrize("ahead", [59, -59])
async def test_clocks_may_differ_by_a_minute(ahead: int) -> None:
    """The issuer's may be ahead of the proxy's; the end of a token is never later than it says."""
    now = time.time()
    async with start_guarded() as (system, _):
        shifted = valid(nbf=now + ahead, iat=now + ahead, exp=now + 300 + ahead)
        assert await outcome(system, "/asset_stream?asset_uuid=A1", shifted) == (200, "")
        early = valid(iat=time.time() + 65)
        assert await outcome(system, "/asset_stream?asset_uuid=A1", early) == (401, "unauthorized")
        late = valid(iat=now - 600, exp=time.time() - 0.5)
        assert await outcome(system, "/asset_stream?asset_uuid=A1", late) == (401, "unauthorized")


async def test_the_issuer_and_the_audience_are_settings() -> None:
    """Tokens of the usual ones are refused where others are set."""
    async with start_guarded(AUTH_ISSUER="https://other.test", AUTH_AUDIENCE="screens") as (system, _):
        for iss, aud, expected in (("https://other.test", "screens", 200), ("", "screens", 401), ("", "", 401)):
            changed = {name: value for name, value in (("iss", iss), ("aud", aud)) if value}
            assert (await outcome(system, _ENDPOINTS[0], valid(**changed)))[0] == expected


async def test_the_leeway_and_the_names_are_settings() -> None:
    """A minute less, another claim and another cookie."""
    settings = {"AUTH_LEEWAY": "0s", "AUTH_CLAIM": "https://plant.test/grants", "AUTH_COOKIE": "plant"}
    async with start_guarded(**settings) as (system, _):
        claim: dict[str, Any] = {"https://plant.test/grants": {"groups": ["Weld"]}}
        token = make_token(**claim)
        assert await outcome(system, _ENDPOINTS[0], f"Cookie: plant={token}") == (200, "")
        assert await outcome(system, _ENDPOINTS[0], f"Cookie: openfactory_token={token}") == (401, "unauthorized")
        assert await outcome(system, _ENDPOINTS[0], valid()) == (403, "forbidden")
        ahead = make_token(**claim, iat=time.time() + 10)
        assert await outcome(system, _ENDPOINTS[0], bearer(ahead)) == (401, "unauthorized")


async def test_a_stream_ends_when_its_token_expires() -> None:
    """Cleanly, after the current event, and only its own; the client that comes back is refused."""
    patient = {**QUICK_KEYS, "routing_layer.upstream.streams:_EVENT_END_SECONDS": 20.0}
    async with start_guarded(constants=patient) as (system, _):
        expires = time.time() + 1.5
        token = valid(exp=expires)
        mine, group = await system.stream("A1", token), await system.proxy.get("/group/Weld/asset_stream", token)
        other = await system.stream("A1", valid())
        services = system.weld.open
        for service in services:
            await service.event("before")
        cut = await system.stream("A1", token)
        await system.weld.open[-1].send(chunk(b"data: half"))
        for stream in (mine, group):
            assert (await stream.event()).data == "before"
            assert await stream.rest() == b""
            assert stream.complete
        assert time.time() >= expires
        await system.weld.connections[-1].send(chunk(b" and half\n\n"))
        assert (await cut.rest()).endswith(b"data: half and half\n\n")
        await system.proxy.wait_metric('routing_layer_streams_ended_total{reason="token_expired"}', 3)
        assert (await other.event()).data == "before"
        assert len(system.weld.open) == 1
        assert await outcome(system, _ENDPOINTS[0], token) == (401, "unauthorized")


async def test_a_token_that_expires_before_the_service_answers() -> None:
    """The request that waits for a head gets the answer of a request that comes now."""

    async def hang(_connection: object) -> None:
        pass

    async with start_guarded() as (system, _):
        system.weld.answer = hang
        for target in _ENDPOINTS[:3]:
            assert await outcome(system, target, valid(exp=time.time() + 0.7)) == (401, "unauthorized"), target


async def test_a_held_event_source_is_checked_at_each_attempt() -> None:
    """Its token expires while its group has no service."""
    async with start_guarded() as (system, _):
        await system.ksql.put("A5", "Fit")
        token = valid({"groups": ["Fit"]}, exp=time.time() + 1)
        assert await outcome(system, "/asset_stream?asset_uuid=A5", token, _BROWSER) == (401, "unauthorized")


async def test_a_redirect_names_no_group_to_others() -> None:
    """307 only with a grant, and the group's own path is checked as well."""
    async with start_guarded(ROUTING_MODE="redirect") as (system, _):
        for headers in ((), (valid({"groups": ["Paint"]}),), (valid({"assets": ["A2"]}),)):
            response = await system.proxy.get("/asset_stream?asset_uuid=A1", *headers)
            assert response.status == (403 if headers else 401)
            assert response.header("Location") is None
            assert b"Weld" not in await response.rest()
        response = await system.proxy.get("/asset_stream?asset_uuid=A1", valid())
        assert (response.status, response.header("Location")) == (307, "/group/Weld/asset_stream?asset_uuid=A1")
        assert await outcome(system, "/group/Weld/asset_stream?asset_uuid=A1", valid()) == (200, "")


async def test_the_service_gets_no_token() -> None:
    """Neither that of a stream nor that of a state; other credentials and cookies are passed on."""
    token = make_token(openfactory={"groups": ["Weld"]})
    cookie = f"Cookie: a=1; openfactory_token={token}; b=2"
    async with start_guarded() as (system, _):
        await system.stream("A1", bearer(token), cookie)
        await system.stream("A1", "Authorization: Basic dTpw", f"Cookie: openfactory_token={token}")
        await outcome(system, "/asset_state?asset_uuid=A1", bearer(token), cookie)
        first, second = system.weld.connections
        [state] = system.state.connections
        for connection in (first, state):
            assert connection.header("Authorization") == []
            assert connection.header("Cookie") == ["a=1; b=2"]
        assert second.header("Authorization") == ["Basic dTpw"]
        assert second.header("Cookie") == []
        assert not any(token.encode() in each.request for each in (first, second, state))


async def test_without_authentication_everything_is_passed_on() -> None:
    """As it came: the service may check tokens itself."""
    async with start_system() as system:
        await system.stream("A1", "Authorization: Bearer x", "Cookie: openfactory_token=y")
        [connection] = system.weld.connections
        assert connection.header("Authorization") == ["Bearer x"]
        assert connection.header("Cookie") == ["openfactory_token=y"]


async def test_every_worker_checks() -> None:
    """Each has its own keys; what they refuse is added up."""
    async with start_guarded(ROUTING_LAYER_WORKERS="2") as (system, server):
        await until(lambda: server.asked >= 2, "both have asked for keys")
        await system.proxy.wait_metric("routing_layer_workers", 2)
        for _ in range(20):
            assert await outcome(system, _ENDPOINTS[0]) == (401, "unauthorized")
            assert await outcome(system, _ENDPOINTS[0], valid()) == (200, "")
        await system.proxy.wait_metric('routing_layer_access_refused_total{reason="no_token"}', 20)


async def test_public_keys_of_every_type() -> None:
    """The common ones of issuers, in one set."""
    async with start_guarded() as (system, server):
        kinds = ("RS256", "ES384", "EdDSA")
        jwks = [public_jwk(kind, f"k-{kind}", alg=kind, use="sig") for kind in kinds]
        server.keys = json.dumps({"keys": jwks}).encode()
        for kind in kinds:
            token = make_token(kind, f"k-{kind}", openfactory={"groups": ["Weld"]})
            assert await outcome(system, _ENDPOINTS[0], bearer(token)) == (200, "")
