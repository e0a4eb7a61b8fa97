"""What a proxy writes to its standard error while everything goes wrong: JSON, plain text, and not much of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.integration.routing_layer.proxy_system import Connection, start_system

_TYPED = "%1b%5b31m%e2%80%ae%c2%9b%0d%0a"


async def _nonsense(connection: Connection) -> None:
    await connection.send(b"\x1b[31m\x9b no HTTP \xe2\x80\xae\r\n\r\n")


async def test_every_line_is_json(tmp_path: Path) -> None:
    """With the interpreter's own warnings on, so that libraries log something as well."""
    errors = tmp_path / "stderr"
    noisy = {"PYTHONDEVMODE": "1", "LOG_LEVEL": "debug"}
    async with start_system(errors=errors, state=_nonsense, DRAIN_SECONDS="1", **noisy) as system:
        await system.ksql.put("\x1b[31m\u202e", "Weld")
        client = await system.stream("%1b%5b31m%e2%80%ae")
        for target in (
            f"/{_TYPED}",
            f"/asset_stream?asset_uuid={_TYPED}",
            f"/group/{_TYPED}/asset_stream",
            "/asset_state",
        ):
            (await system.proxy.get(target, f"X-Forwarded-For: {_TYPED}", f"User-Agent: {_TYPED}")).leave()
        system.weld.answer = _nonsense
        for _ in range(50):
            (await system.proxy.get("/asset_stream?asset_uuid=A1")).leave()
        system.operator.document = b'{"groups": "\x1b[31m\xe2\x80\xae'
        await system.ksql.end_watches()
        await system.weld.cut()
        client.leave()
        await asyncio.sleep(0.5)
        await system.ksql.stop()
        await system.operator.stop()
        await asyncio.sleep(1)
        system.proxy.terminate()
        assert await system.proxy.exit_code() == 0
    lines = errors.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert len(lines) > 5
    for line in lines:
        assert line.isprintable(), line
        found = json.loads(line)
        assert found["level"], line
        assert found["event"].isprintable(), line
    assert any("\\x1b[31m\\u202e" in json.loads(line).get("asset", "") for line in lines)
