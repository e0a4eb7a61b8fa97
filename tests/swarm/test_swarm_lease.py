"""Two operators as processes, with a Swarm and the embedded ksqlDB: stopped, woken up, killed, and commanded.

What they did is read from their own logs, and what there is from the engine and ksqlDB themselves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.system import free_ports
from tests.harness.serving import Served

from .sandbox import Sandbox, docker, eventually, logged

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]
ROOT = Path(__file__).resolve().parents[2]
#: Seconds; the lease of a process that died is free after them.
LEASE = 3


class Process:
    """One operator.

    Attributes:
        name: its part of the names of holders.
    """

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        """Start the loop."""
        [port] = free_ports(1)
        self._log = log
        self._url = f"http://127.0.0.1:{port}"
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "reconciler"],
                env={**environment, "RECONCILER_PORT": str(port)},
                stdout=output,
                stderr=output,
            )
        self.name = str(eventually(self._started, bool)[0]["name"])

    def _started(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["event"] == "operator started"]

    def lines(self) -> list[dict[str, Any]]:
        """Return everything that it has logged."""
        return logged(self._log)

    def writes(self, since: int = 0) -> list[str]:
        """Return what it has written."""
        return [f"{one['action']} {one['object']}" for one in self.lines()[since:] if one["event"] == "write done"]

    def ready(self) -> dict[str, Any]:
        """Return what it says of itself."""
        return dict(httpx.get(f"{self._url}/readyz", trust_env=False).json())

    def wait(self, role: str, text: str = "") -> None:
        """Wait until it has this role and its last cycle says this."""
        eventually(self.ready, lambda said: said["role"] == role and text in said["last"])

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; after one that ends it, it has ended."""
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait(30)


class Pair:
    """Operators of one owner, and what they have in common."""

    def __init__(self, sandbox: Sandbox, directory: Path) -> None:
        """Start ksqlDB with two groups; no operator yet."""
        self.sandbox = sandbox
        self.ksqldb = Served()
        self.ksqldb.assign({"a0": "g0", "a1": "g1"})
        self.all: list[Process] = []
        self._directory = directory
        given = {
            "KAFKA_BROKER": "k:9092",
            "KSQLDB_URL": self.ksqldb.url,
            "ENVIRONMENT": "devswarm",
            "RECONCILER_OWNER": sandbox.owner,
            "RESOURCE_PREFIX": sandbox.owner,
            "DOCKER_NETWORK": sandbox.network,
            "ROUTING_LAYER_PUBLISH": "none",
            "LEASE_SECONDS": str(LEASE),
            "RECONCILE_INTERVAL": "1",
            # A command has another log level than the operators: that is a rollout, which would take a minute.
            "ROLLOUT_BAKE": "0s",
            "ROLLOUT_MAX_PARALLEL": "1",
        }
        for part in ("ROUTING_LAYER", "FASTAPI_GROUP", "STATE_API"):
            given |= {f"{part}_IMAGE": sandbox.image, f"{part}_CPU_RESERVATION": "0.01"}
        self.environment = {**os.environ, **given, "PYTHONPATH": str(ROOT)}

    def start(self) -> Process:
        """Start one more."""
        self.all.append(Process(self.environment, self._directory / f"operator{len(self.all)}.log"))
        return self.all[-1]

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run a command; return its exit code and all that it said."""
        program = [sys.executable, "-m", "reconciler", *arguments]
        # A port at which no one answers: a command must find everything in the Swarm.
        environment = {**self.environment, "RECONCILER_PORT": str(free_ports(1)[0]), "LOG_LEVEL": "warning"}
        done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False, timeout=90)
        return done.returncode, done.stdout + done.stderr

    def holder(self) -> str:
        """Return who holds the lease, by the engine's own word."""
        form = '{{index .Spec.Labels "org.openfactory.record.holder"}}'
        return docker("config", "inspect", "--format", form, f"{self.sandbox.owner}_lease")

    def services(self) -> list[str]:
        """Return the names of the group services."""
        names = docker("service", "ls", "--filter", f"name={self.sandbox.owner}_group_", "--format", "{{.Name}}")
        return sorted(name.rpartition("_")[2] for name in names.split())

    def close(self) -> None:
        """End everything."""
        for one in self.all:
            if one.process.poll() is None:
                one.process.send_signal(signal.SIGCONT)
                one.send(signal.SIGKILL)
        self.ksqldb.stop()


@pytest.fixture
def pair(sandbox: Sandbox, tmp_path: Path) -> Iterator[Pair]:
    """A ksqlDB, a Swarm, and no operator yet."""
    made = Pair(sandbox, tmp_path)
    yield made
    made.close()


def test_stopped_in_the_middle_woken_up_late_and_killed(pair: Pair) -> None:
    """SIGSTOP in a convergence: the other finishes it; woken up, the first writes nothing; SIGKILL: it takes over."""
    first = pair.start()
    first.wait("leader", "2 of 2 groups ready")
    second = pair.start()
    second.wait("standby", f"{first.name} holds the lease")

    mark = len(first.lines())
    pair.ksqldb.switch(ddl_timeout=0.4)
    pair.ksqldb.assign({f"b{n}": f"n{n}" for n in range(6)})
    eventually(lambda: first.writes(mark), lambda writes: len(writes) >= 2)
    first.send(signal.SIGSTOP)
    second.wait("leader", "8 of 8 groups ready")
    before = len(first.writes(mark))

    first.send(signal.SIGCONT)
    first.wait("standby", f"{second.name} holds the lease")
    assert len(first.writes(mark)) - before <= 1, "the statement that was on its way"
    assert pair.holder() == second.name
    assert pair.services() == sorted([f"n{n}" for n in range(6)] + ["g0", "g1"])
    made = Counter(write for write in first.writes() + second.writes() if write.startswith("create_"))
    assert set(made.values()) == {1}
    # The factory's, the shared one, and each group's once. The one that was on its way is refused if it comes late.
    sent = pair.ksqldb.statements("CREATE STREAM")
    assert sent - (1 + 1 + 8) in (0, 1)
    assert not [line for line in second.lines() if line["event"] in ("write failed", "bug")]

    second.send(signal.SIGKILL)
    pair.ksqldb.assign({"c": "after"})
    first.wait("leader", "9 of 9 groups ready")
    assert pair.ksqldb.statements("CREATE STREAM") == sent + 1
    assert not [write for write in first.writes() + second.writes() if write.startswith(("remove_service", "drop"))]


def test_commands_beside_a_pair(pair: Pair) -> None:
    """Pause survives a restart, --once gets the lease and gives it back, a stop frees it, teardown leaves nothing."""
    first = pair.start()
    first.wait("leader", "2 of 2 groups ready")
    second = pair.start()
    second.wait("standby")

    code, said = pair.run("pause", "--for", "10m", "--reason", "maintenance of the press")
    assert (code, "no operator writes now" in said) == (0, True), said
    assert pair.holder() == ""
    pair.ksqldb.assign({"c": "late"})
    first.send(signal.SIGKILL)
    third = pair.start()
    third.wait("standby", "maintenance of the press")
    code, said = pair.run("--once")
    assert (code, "maintenance of the press" in said) == (4, True), said
    code, said = pair.run("plan")
    assert "note      paused until" in said
    assert pair.services() == ["g0", "g1"]
    assert pair.run("resume")[0] == 0
    eventually(pair.services, lambda names: names == ["g0", "g1", "late"])

    pair.ksqldb.assign({"d": "once"})
    code, said = pair.run("--once")
    assert (code, "4 of 4 groups ready" in said) == (0, True), said
    leader = next(one for one in (second, third) if one.name == eventually(pair.holder, bool))
    other = next(one for one in (second, third) if one is not leader)
    leader.send(signal.SIGTERM)
    assert leader.process.returncode == 0
    assert pair.holder() in ("", other.name)
    other.wait("leader", "4 of 4 groups ready")

    code, said = pair.run("teardown", "--yes")
    assert code == 0, said
    owned = f"label=org.openfactory.owner={pair.sandbox.owner}"
    assert docker("service", "ls", "--quiet", "--filter", owned) == ""
    assert docker("config", "ls", "--quiet", "--filter", owned) == ""
    mark = len(other.lines())
    eventually(
        lambda: [line for line in other.lines()[mark:] if line.get("result") == "paused"], lambda seen: len(seen) > 2
    )
    assert docker("service", "ls", "--quiet", "--filter", owned) == ""
    assert docker("config", "ls", "--quiet", "--filter", owned) == ""
