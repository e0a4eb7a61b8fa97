"""The programs that the system before this one had, as real processes: thin ways to the same commands."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from openfactory_common import __version__
from tests.harness.coroutines import until
from tests.harness.ports import free_port
from tests.integration.routing_layer.proxy_system import ROOT, start_system
from tests.integration.routing_layer.test_worker_processes import accepts


def run(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a module to its end, far from any .env file."""
    base = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**base, "PYTHONPATH": str(ROOT), **environment},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_manage_teaches_its_commands() -> None:
    """`--help` names the three commands and where their options are described; without a command it is usage."""
    shown = run("routing_layer.manage", "--help")
    assert shown.returncode == 0
    assert all(f"\n  {command} " in shown.stdout for command in ("deploy", "teardown", "runserver"))
    assert run("routing_layer.manage").returncode == 2
    refused = run("routing_layer.manage", "plan")
    assert refused.returncode == 2
    assert "'plan'" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["deploy", "--help"], 0, "usage: reconciler deploy"),
        (["teardown", "--no-such-option"], 2, "unrecognized arguments: --no-such-option"),
        (["runserver"], 2, "KAFKA_BROKER"),
    ],
    ids=["deploy", "teardown", "runserver"],
)
def test_manage_passes_options_and_the_exit_code_through(arguments: list[str], code: int, text: str) -> None:
    """Each command is the operator's: its help, its refusal of an option, its error without settings."""
    managed, direct = run("routing_layer.manage", *arguments), run("reconciler", *arguments)
    assert managed.returncode == direct.returncode == code
    assert managed.stdout == direct.stdout
    assert managed.stderr.splitlines()[-1:] == direct.stderr.splitlines()[-1:]
    assert text in managed.stdout + managed.stderr


async def test_the_app_serves_and_ends_with_a_signal(tmp_path: Path) -> None:
    """`python -m routing_layer.app.main` is the proxy: it answers clients, and drains at SIGTERM."""
    async with start_system() as system:
        port = free_port()
        environment = {**system.proxy.environment, "ROUTING_LAYER_PORT": str(port), "DRAIN_SECONDS": "0"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "routing_layer.app.main", env={**environment, "PYTHONPATH": str(ROOT)}, cwd=tmp_path
        )
        try:
            system.proxy.port = port
            await until(lambda: accepts(port), "it listens")
            await system.proxy.wait_ready()
            client = await system.stream("A1")
            await system.weld.open[0].event("one")
            assert (await client.event()).data == "one"
            process.terminate()
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest.mark.parametrize("module", ["routing_layer", "routing_layer.app.main"])
def test_version(module: str) -> None:
    """`--version` needs no settings, and is the project's."""
    shown = run(module, "--version")
    assert (shown.returncode, shown.stdout) == (0, f"routing layer {__version__}\n")
