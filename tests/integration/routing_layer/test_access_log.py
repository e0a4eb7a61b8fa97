"""No token gets into a log, nor into a response, whatever happens to the request that has it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from pathlib import Path
from typing import Any

from tests.harness.coroutines import until
from tests.harness.issuer import key_set, make_token, public_jwk, unsigned
from tests.integration.routing_layer.fake_keys import WELD, start_guarded
from tests.integration.routing_layer.proxy_system import Connection, Proxy

_TARGETS = (
    "/asset_stream?asset_uuid=A1",
    "/asset_stream?asset_uuid=unknown",
    "/asset_stream",
    "/group/Weld/asset_stream",
    "/group/%ff/asset_stream",
    "/asset_state?asset_uuid=A1",
    "/asset_state?asset_uuid=%ff",
    "/healthz",
    "/nowhere",
)


def _tokens() -> list[str]:
    """Return a token for each check that can fail, and a valid one."""
    now, short = time.time(), make_token(openfactory=WELD)
    return [
        short,
        short[:-10] + "AAAAAAAAAA",
        short.rpartition(".")[0],
        unsigned(openfactory=WELD),
        make_token("HS256", "one", openfactory=WELD),
        make_token(header={"kid": "two"}, openfactory=WELD),
        make_token(header={"crit": ["x"]}, openfactory=WELD),
        *(make_token(openfactory=WELD, **{name: "other"}) for name in ("iss", "aud", "exp")),
        make_token(openfactory=WELD, exp=now - 1),
        make_token(openfactory=WELD, nbf=now + 900),
        make_token(openfactory=WELD, exp=now + 0.5),
        make_token(openfactory={"groups": ["Paint"]}),
        make_token(much="x" * 9000),
    ]


async def _raw(proxy: Proxy, lines: bytes) -> bytes:
    """Send what may be no request, and return the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(lines)
    writer.write_eof()
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(5):
            return await reader.read()
    return b""


async def _wrong(connection: Connection) -> None:
    await connection.send(b"no HTTP\r\n\r\n")


async def test_no_token_is_in_the_log_or_in_an_answer(tmp_path: Path) -> None:
    """At level debug, with the interpreter's own warnings: requests that are served, refused and broken."""
    errors, tokens, answers = tmp_path / "stderr", _tokens(), []
    noisy: dict[str, Any] = {"errors": errors, "LOG_LEVEL": "debug", "PYTHONDEVMODE": "1", "DRAIN_SECONDS": "0.5"}
    async with start_guarded(**noisy) as (system, server):
        for broken in (False, True):
            system.weld.answer = _wrong if broken else None
            for token in tokens:
                for headers in ((f"Authorization: Bearer {token}",), (f"Cookie: a=b; openfactory_token={token}",)):
                    for target in _TARGETS[: 1 if broken else None]:
                        response = await system.proxy.get(target, *headers, "Accept: */*")
                        answers.append("\n".join(response.lines).encode())
                        if response.status != 200:
                            answers.append(await response.rest())
                        response.leave()
        system.weld.answer = None
        valid = tokens[0].encode()
        heads = (
            b"GET /asset_stream?asset_uuid=A1 HTTP/1.1\r\nAuthorization: Bearer %b\r\n\r\n",
            b"GET /asset_stream?asset_uuid=A1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\x00\r\n\r\n",
            b"GET /asset_stream?asset_uuid=A1 HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer %b\r\n\r\n",
            b"GET /asset_stream?asset_uuid=A1 HTTP/1.1\r\nHost: x\r\nCookie: openfactory_token=%b\n\r\n",
            b"GET /asset_stream?asset_uuid=A1 HTTP/9.9\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n",
            b"POST /asset_stream?asset_uuid=A1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n",
            b"Authorization: Bearer %b\r\n\r\n",
        )
        answers += [await _raw(system.proxy, head % valid) for head in heads]
        stream = await system.stream("A1", f"Authorization: Bearer {tokens[0]}")
        await until(lambda: bool(system.weld.open))
        await system.weld.cut()
        stream.leave()
        server.keys = key_set(public_jwk("ES256", "three"))
        (await system.proxy.get(_TARGETS[0], f"Authorization: Bearer {tokens[5]}")).leave()
        await server.stop()
        (await system.proxy.get(_TARGETS[0], f"Authorization: Bearer {tokens[5]}")).leave()
        answers.append(str(await system.proxy.metrics()).encode())
        system.proxy.terminate()
        assert await system.proxy.exit_code() == 0
    log = errors.read_text(encoding="utf-8")
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert {"stream starts", "stream ends"} <= set(events), "the log is at level debug"
    for text in (log, b"\n".join(answers).decode("latin-1")):
        assert re.findall(r"eyJ.{40}|bearer [^r].{40}", text, re.IGNORECASE) == []
        for token in tokens:
            for part in token.split("."):
                # Of a signature not even a piece is there, which a search could begin with.
                pieces = (part[at : at + 12] for at in range(0, len(part) - 11, 6))
                assert [piece for piece in pieces if piece in text] == []
