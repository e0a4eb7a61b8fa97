"""The routing layer, as a process, and an operator that wants a token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.harness.coroutines import until
from tests.integration.routing_layer.proxy_system import ProxySystem, start_system

TOKEN, OTHER = "right-" + "a" * 32, "another-installation-" + "b" * 32
REFUSED = 'routing_layer_registry_refused_total{reason="unauthorized"}'


def lines_of(errors: Path) -> list[dict[str, Any]]:
    """Return what the proxy has logged."""
    return [json.loads(line) for line in errors.read_text().splitlines()]


async def nudged(system: ProxySystem) -> None:
    """Ask for an asset whose group has no service, which nudges the operator."""
    await system.ksql.put("A9", "New")
    await system.proxy.ask("/asset_stream?asset_uuid=A9")


async def test_with_the_token_it_reads_and_nudges(tmp_path: Path) -> None:
    """Of several the first; where the file changes, the next request has the new one."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n{OTHER}\n")
    async with start_system(ready=False, RECONCILER_TOKEN_FILE=str(file)) as system:
        system.operator.token, system.operator.closed = TOKEN, True
        await system.proxy.wait_ready()
        await system.stream("A1")
        await nudged(system)
        await until(lambda: system.operator.nudged > 0)
        system.operator.token = OTHER
        await system.proxy.wait_metric(REFUSED, 1)
        file.write_text(OTHER)
        confirmed = system.operator.not_modified
        await until(lambda: system.operator.not_modified > confirmed, "the new token is sent")


async def test_without_a_token_nothing_is_sent(tmp_path: Path) -> None:
    """An operator that wants none gets none, and the log says which variable is missing where one is wanted."""
    errors = tmp_path / "stderr"
    async with start_system(errors=errors, LOG_LEVEL="warning") as system:
        client = await system.stream("A1")
        assert set(system.operator.authorizations) == {None}
        system.operator.token = TOKEN
        await nudged(system)
        await system.proxy.wait_metric(REFUSED, 1)
        system.operator.closed = True
        refused = await system.proxy.metric(REFUSED)
        await system.proxy.wait_metric(REFUSED, refused + 2)
        await system.weld.open[0].event("alive")
        assert (await client.event()).data == "alive"
        await system.stream("A2")
    said = [line["event"] for line in lines_of(errors)]
    why = "the operator at RECONCILER_URL answers 401: RECONCILER_TOKEN_FILE is not set"
    assert f"registry: no nudge: {why}" in said
    assert len([event for event in said if event.startswith(f"registry: {why}; revision ")]) == 1


@pytest.mark.parametrize("closed", [False, True])
async def test_a_wrong_token_is_named_and_never_logged(tmp_path: Path, *, closed: bool) -> None:
    """The token of another installation: what was served before is served on."""
    file, errors = tmp_path / "token", tmp_path / "stderr"
    file.write_text(OTHER)
    async with start_system(errors=errors, LOG_LEVEL="debug", RECONCILER_TOKEN_FILE=str(file)) as system:
        system.operator.token, system.operator.closed = TOKEN, closed
        await nudged(system)
        await system.proxy.wait_metric(REFUSED, 1)
        assert system.operator.nudged == 0
        await system.stream("A1")
        file.unlink()
        seen = system.operator.asked
        await until(lambda: system.operator.asked >= seen + 2, "it polls on")
        assert system.operator.authorizations[-1] == f"Bearer {OTHER}", "the last good token stays in use"
        system.proxy.terminate()
        await system.proxy.exit_code()
    text = errors.read_text()
    assert "answers 401: it does not accept the first token of RECONCILER_TOKEN_FILE" in text
    assert "RECONCILER_TOKEN_FILE: No such file or directory; the tokens of before stay in use" in text
    assert "another-installation" not in text


async def test_a_token_goes_with_no_user_and_password(tmp_path: Path) -> None:
    """One field of that name: two would be no credentials at all."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    async with start_system(ready=False) as system:
        await system.proxy.stop()
        url = system.operator.url.replace("://", "://user:secret@")
        system.proxy.environment |= {"RECONCILER_URL": url, "RECONCILER_TOKEN_FILE": str(file)}
        system.operator.authorizations.clear()
        await system.proxy.start()
        await system.proxy.wait_ready()
        assert set(system.operator.authorizations) == {f"Bearer {TOKEN}"}
