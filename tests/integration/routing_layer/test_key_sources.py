"""Where the keys come from: a server that is away, slow or lies, a set that changes, a file."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.harness.coroutines import until
from tests.harness.issuer import AUDIENCE, ISSUER, encode, key_set, make_token, public_jwk
from tests.integration.ksqldb.tls import Authority
from tests.integration.routing_layer.fake_keys import (
    QUICK_KEYS,
    WELD,
    FakeKeyServer,
    answer_state,
    bearer,
    never,
    start_guarded,
    valid,
    wait_refused,
)
from tests.integration.routing_layer.proxy_system import ProxySystem, start_system

_TARGET = "/asset_stream?asset_uuid=A1"
_BROWSER = "Accept: text/event-stream"
_TWO = valid(name="two", exp=time.time() + 86_400)


async def status(system: ProxySystem, *headers: str) -> int:
    """Return the status of a request for a stream."""
    response = await system.proxy.get(_TARGET, *headers)
    response.leave()
    return response.status


async def issues(system: ProxySystem) -> list[str]:
    """Return why the proxy is not ready."""
    response = await system.proxy.get("/ready")
    found: list[str] = json.loads(await response.rest()).get("issues", [])
    return found


async def wait_status(system: ProxySystem, wanted: int, *headers: str) -> None:
    """Wait until requests have this status."""
    async with asyncio.timeout(20):
        while await status(system, *headers) != wanted:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def test_a_server_that_is_away_at_the_start() -> None:
    """503 and never open; not ready, with the reason; an event source is held until the keys are there."""
    async with start_guarded(started=False, ready=False) as (system, server):
        await system.proxy.wait_metric("routing_layer_membership_relists_total", 1)
        assert await issues(system) == ["no key set has been read"]
        for target in (_TARGET, "/group/Weld/asset_stream", "/asset_state"):
            refused = await system.proxy.get(target, valid())
            assert (refused.status, refused.header("Retry-After")) == (503, "2")
            assert (await refused.problem())["type"].endswith(":not-ready")
        assert await status(system) == 401
        before = (await system.proxy.metrics())['routing_layer_access_refused_total{reason="no_keys"}']
        holding = asyncio.create_task(system.proxy.get(_TARGET, valid(), _BROWSER))
        await wait_refused(system, "no_keys", before + 2)
        assert not holding.done()
        await server.start()
        assert (await holding).status == 200
        await system.proxy.wait_ready()
        assert await status(system, valid()) == 200


async def test_a_server_that_goes_away_later() -> None:
    """The last good set stays in use: streams go on, new ones come; an unknown key is no wrong key meanwhile."""
    async with start_guarded() as (system, server):
        stream = await system.stream("A1", valid())
        await server.stop()
        assert await status(system, valid(sub="new")) == 200
        holding = asyncio.create_task(system.proxy.get(_TARGET, _TWO, _BROWSER))
        await wait_refused(system, "no_keys", 2)
        assert await status(system, _TWO) == 503
        assert await issues(system) == []
        await system.weld.open[0].event("still here")
        assert (await stream.event()).data == "still here"
        server.keys = key_set(public_jwk("ES256", "one"), public_jwk("ES256", "two"))
        await server.start()
        assert (await holding).status == 200


async def test_a_rotated_set_is_read_for_the_first_token_of_a_new_key() -> None:
    """The token of a key that is not in the set is refused, until it is; then those of a removed key are."""
    async with start_guarded() as (system, server):
        one, same = valid(), valid(sub="same")
        stream = await system.stream("A1", one)
        assert await status(system, _TWO) == 401
        server.keys = key_set(public_jwk("ES256", "two"))
        assert await status(system, same) == 200, "nothing asks for the new set yet"
        await asyncio.sleep(0.2)
        assert await status(system, _TWO) == 200
        assert await status(system, one) == 401, "what was known of it is forgotten"
        await stream.rest()
        assert stream.complete, "and what it had opened ends"


async def test_unknown_keys_are_no_way_to_make_the_proxy_ask() -> None:
    """A crowd with invented keys: one read for all that come at the same time, and no other one for a while."""
    constants = {**QUICK_KEYS, "routing_layer.access.keys:_UNKNOWN_KEY_GAP": 3600.0}
    async with start_guarded(constants=constants) as (system, server):
        server.answer, keys = never, server.keys
        before = server.asked
        crowd = [asyncio.create_task(status(system, valid(header={"kid": f"k{number}"}))) for number in range(50)]
        await until(lambda: server.asked > before, "asked")
        assert not any(task.done() for task in crowd)
        await server.stop()
        assert {await task for task in crowd} == {503}
        server.answer, server.keys = None, keys
        await server.start()
        assert {await status(system, valid(header={"kid": f"x{number}"})) for number in range(20)} == {503}
        assert await status(system, valid()) == 200
        assert server.asked == before + 1


async def test_a_set_is_read_again_from_time_to_time() -> None:
    """Also if no token asks for it: a key that is removed is no longer used."""
    constants = {**QUICK_KEYS, "routing_layer.access.keys:KeyServer.interval": 0.1}
    async with start_guarded(constants=constants) as (system, server):
        assert await status(system, valid()) == 200
        server.keys = key_set(public_jwk("ES256", "two"))
        await wait_status(system, 200, _TWO)
        assert await status(system, valid()) == 401
        assert (await system.proxy.metrics())["routing_layer_keys_age_seconds"] < 20


def _lie(**answer: Any) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def respond(_request: web.Request) -> web.StreamResponse:
        return web.Response(**answer)

    return respond


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'{"keys": [')
    while True:
        await response.write(b" " * 65536)


_HMAC = key_set({"kty": "oct", "kid": "two", "k": encode(bytes(range(64)))})
_LIES = {
    "html": _lie(text="<html>login</html>", content_type="text/html"),
    "error": _lie(status=500, body=key_set(public_jwk("ES256", "two"))),
    "not found": _lie(status=404),
    "redirect": _lie(status=302, headers={"Location": "/elsewhere"}, body=key_set(public_jwk("ES256", "two"))),
    "empty": _lie(body=b""),
    "no keys": _lie(body=b'{"keys": []}'),
    "secrets": _lie(body=_HMAC),
    "two values": _lie(body=b'{"keys": [], ' + key_set(public_jwk("ES256", "two"))[1:]),
    "deep": _lie(body=b"[" * 400_000),
    "huge": _lie(body=key_set(public_jwk("ES256", "two", x5c=["x" * 600_000]))),
    "endless": _endless,
}


@pytest.mark.parametrize("lie", _LIES)
async def test_a_server_that_lies_changes_nothing(lie: str) -> None:
    """Before it had told the truth once it opens nothing; afterwards the last good set stays in use."""
    constants = {**QUICK_KEYS, "routing_layer.access.keys:KeyServer.retry": 0.1}
    server = FakeKeyServer()
    server.answer = _LIES[lie]
    async with start_guarded(keys=server, ready=False, constants=constants) as (system, _):
        await until(lambda: server.asked > 1, "asked again after the lie")
        assert await status(system, valid()) == 503
        server.answer = None
        await system.proxy.wait_ready()
        assert await status(system, valid()) == 200
        server.answer = _LIES[lie]
        secret = bearer(make_token("HS256", "two", openfactory=WELD))
        assert {await status(system, token) for token in (_TWO, secret)} <= {401, 503}
        assert await status(system, valid(sub="new")) == 200


async def test_a_slow_server_keeps_no_one_waiting_but_those_who_need_it() -> None:
    """A token of a known key is checked while the set is being read."""
    async with start_guarded() as (system, server):
        server.answer = never
        waiting = asyncio.create_task(status(system, _TWO))
        await until(lambda: server.asked > 1, "asked")
        assert await status(system, valid()) == 200
        assert not waiting.done()
        assert await waiting == 503, "after the limit for the whole answer"


async def test_a_server_with_a_certificate_of_the_plant(tmp_path: Path) -> None:
    """AUTH_CA_FILE is trusted, and without it the server is not."""
    authority = Authority.make(tmp_path / "ca")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.sign("IP:127.0.0.1"))
    trusted = {"AUTH_CA_FILE": str(authority.certificate)}
    async with start_guarded(keys=FakeKeyServer(context), **trusted) as (system, _):
        assert await status(system, valid()) == 200
    async with start_guarded(keys=FakeKeyServer(context), ready=False) as (system, server):
        await system.proxy.wait_metric("routing_layer_membership_relists_total", 1)
        assert await status(system, valid()) == 503
        assert server.asked == 0


async def test_a_server_with_a_password(tmp_path: Path) -> None:
    """The credentials of the URL are sent, and are not in the log when it cannot be read."""
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        return web.Response(body=server.keys)

    server, errors = FakeKeyServer(), tmp_path / "stderr"
    server.answer = answer
    url = server.url.replace("://", "://bob:sesame@")
    async with start_guarded(keys=server, AUTH_JWKS_URL=url, LOG_LEVEL="debug", errors=errors) as (system, _):
        assert await status(system, valid()) == 200
        await server.stop()
        assert await status(system, _TWO) == 503
    assert seen == ["Basic Ym9iOnNlc2FtZQ=="]
    log = errors.read_text()
    assert "AUTH_JWKS_URL has no key set" in log
    assert "AUTH_JWKS_URL is not https" in log
    assert "sesame" not in log


def _write(path: Path, data: bytes) -> None:
    """Replace a file as tools do: at once."""
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)


async def test_keys_of_a_file_are_followed(tmp_path: Path) -> None:
    """A secret may be in it; a broken file keeps the old set and is logged once; a pipe does not block."""
    file, errors = tmp_path / "keys.json", tmp_path / "stderr"
    secret = {"kty": "oct", "kid": "s", "k": encode(bytes(range(64)))}
    of_secret = bearer(make_token("HS256", "s", openfactory=WELD))
    environment = {"AUTH_KEYS_FILE": str(file), "AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE, "LOG_LEVEL": "info"}
    options: dict[str, Any] = {"state": answer_state, "constants": QUICK_KEYS, "errors": errors, **environment}
    async with start_system(ready=False, **options) as system:
        await system.proxy.wait_metric("routing_layer_membership_relists_total", 1)
        assert await issues(system) == ["no key set has been read"]
        assert await status(system, valid()) == 503
        _write(file, key_set(public_jwk("ES256", "one"), secret))
        await system.proxy.wait_ready()
        assert [await status(system, token) for token in (valid(), of_secret, _TWO)] == [200, 200, 401]
        stream = await system.stream("A1", valid())
        for broken in (b"", b'{"keys": []}', b"[" * 100_000):
            _write(file, broken)
            await asyncio.sleep(0.3)
            assert [await status(system, token) for token in (valid(), of_secret)] == [200, 200]
        file.unlink()
        os.mkfifo(file)
        await asyncio.sleep(0.3)
        assert await status(system, valid()) == 200
        _write(file, key_set(public_jwk("ES256", "two")))
        await wait_status(system, 200, _TWO)
        assert [await status(system, token) for token in (valid(), of_secret)] == [401, 401]
        await stream.rest()  # a key that is taken back ends what it has opened
        assert stream.complete
    lines = [json.loads(line)["event"] for line in errors.read_text().splitlines()]
    broken_lines = [line for line in lines if "last good set stays" in line]
    assert len(broken_lines) == len(set(broken_lines)) > 0
    assert all(line.startswith("keys: AUTH_KEYS_FILE has no key set: ") for line in broken_lines)


async def test_the_start_says_that_everything_is_open(tmp_path: Path) -> None:
    """One line, also with several workers; none with a source of keys that cannot be changed on its way."""
    for environment, expected in (
        ({"ROUTING_LAYER_WORKERS": "2"}, 1),
        ({"AUTH_KEYS_FILE": "/none", "AUTH_ISSUER": "i", "AUTH_AUDIENCE": "a"}, 0),
    ):
        errors = tmp_path / f"stderr{expected}"
        async with start_system(ready=False, errors=errors, LOG_LEVEL="info", **environment):
            pass
        text = errors.read_text()
        assert text.count("every client may read every asset") == expected
