"""`make demo` and `make cli` around an engine that says what a test wants: ports, restarts, guests in the network."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.ports import free_port

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "demo.py"
#: Answers of the engine by the beginning of the command; anything else is answered with nothing.
_DOCKER = """#!/bin/bash
line="$*"
while IFS='|' read -r begin answer; do
  case "$line" in "$begin"*) printf "$answer"; [ "$answer" = FAIL ] && exit 1; exit 0;; esac
done <"$ANSWERS"
exit 0
"""


class Demo:
    """The script with an engine of a test's own."""

    def __init__(self, directory: Path) -> None:
        """Let the engine answer nothing."""
        self._answers = directory / "answers"
        self._answers.write_text("")
        docker = directory / "docker"
        docker.write_text(_DOCKER)
        docker.chmod(0o755)
        self.ports = {name: str(free_port()) for name in ("KSQLDB_PORT", "ROUTING_LAYER_PORT", "RECONCILER_PORT")}
        self._env = {"PATH": f"{directory}:{os.environ['PATH']}", "ANSWERS": str(self._answers), "DEMO_TIMEOUT": "0"}

    def answer(self, *pairs: tuple[str, str]) -> None:
        """Let the engine answer these commands."""
        self._answers.write_text("".join(f"{begin}|{answer}\n" for begin, answer in pairs))

    def run(self, *arguments: str, **extra: str) -> tuple[int, str]:
        """Return the exit code and what it said."""
        env = {**self._env, **self.ports, "DEMO_RESTARTED_WITHIN": "0.1", **extra}
        done = subprocess.run(
            [sys.executable, SCRIPT, *arguments], env=env, capture_output=True, text=True, check=False, timeout=60
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    """The script, with free ports."""
    return Demo(tmp_path)


@pytest.mark.parametrize("variable", ["KSQLDB_PORT", "ROUTING_LAYER_PORT", "RECONCILER_PORT"])
def test_a_process_that_holds_a_port_is_named_before_anything_is_deployed(demo: Demo, variable: str) -> None:
    """With its id, its name and the variable; the demo ends at once."""
    with socket.create_server(("127.0.0.1", int(demo.ports[variable]))):
        code, said = demo.run("up")
    assert code == 1
    port, comm = demo.ports[variable], Path("/proc/self/comm").read_text().strip()
    assert f"port {port} ({variable}) is in use by process {os.getpid()} ({comm})" in said
    assert "deploying" not in said


def test_a_container_or_a_service_that_publishes_a_port_is_named(demo: Demo) -> None:
    """Another's; the demo's own are what it deploys again."""
    port, other = demo.ports["RECONCILER_PORT"], demo.ports["KSQLDB_PORT"]
    demo.answer(
        (f"ps --filter publish={port}", "grafana\\t\\n"),
        ("service ls --format", f"shop_web\\t*:{other}->80/tcp\\n"),
    )
    code, said = demo.run("up")
    assert code == 1
    assert f"port {port} (RECONCILER_PORT) is in use by container grafana" in said
    demo.answer(("service ls --format", f"shop_web\\t*:{other}->80/tcp\\n"))
    assert f"port {other} (KSQLDB_PORT) is in use by service shop_web" in demo.run("up")[1]
    demo.answer(
        (f"ps --filter publish={port}", "x\\tofa_reconciler\\n"),
        ("service ls --format", f"ofa_x\\t*:{other}->1/tcp\\n"),
    )
    assert "is in use by" not in demo.run("up")[1]


@pytest.mark.parametrize("value", ["", "http", "0", "65536", "-1", "٣"])
def test_what_is_no_port_is_said(demo: Demo, value: str) -> None:
    """Before it is given to the engine."""
    code, said = demo.run("up", RECONCILER_PORT=value)
    assert (code, "is not a port" in said) == (1, True)


def test_an_operator_that_is_being_started_again_is_waited_for(demo: Demo) -> None:
    """What is said is true: not deployed, deployed and not running with its state, or the command's own output."""
    code, said = demo.run("cli", "--", "status")
    assert code == 1
    assert "the operator is not deployed; start it with: make demo" in said
    demo.answer(("service ls", "abc\\n"), ("service ps", "Pending no suitable node\\n"))
    code, said = demo.run("cli", "--", "status")
    assert code == 1
    assert "the operator is restarting; waiting for it" in said
    assert "is deployed but does not run: Pending no suitable node" in said
    demo.answer(("ps -q", "c1\\n"), ("exec", "all is in order\\n"))
    assert demo.run("cli", "--", "status") == (0, "all is in order\n")


def test_what_else_is_in_the_network_is_named(demo: Demo) -> None:
    """The demo is removed all the same, and the way on is said, also of what is only named like a service of ours."""
    demo.answer(
        ("network ls -q", "n1\\n"),
        ("ps --filter network=", "grafana\\t\\nx.1.y\\tshop_web\\nz.1.z\\tofa_group_mine\\n"),
    )
    code, said = demo.run("down")
    assert code == 1
    assert "container grafana, service ofa_group_mine, service shop_web" in said
    assert "docker network disconnect factory-net" in said
