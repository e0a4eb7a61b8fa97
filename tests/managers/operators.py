"""The operator as it is run: a process with settings in its environment, beside the engine that it is given."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from tests.harness.processes import WITH_US
from tests.managers.machine import Machine
from tests.swarm.sandbox import logged

#: Seconds that managers may need to find each other again: after an outage they try ever more rarely.
RECOVERY = 180.0
ROOT = Path(__file__).resolve().parents[2]
#: Writes that add; and old registry documents are forgotten by number. Every other write takes away or restarts.
_ADDING = frozenset(
    {
        "record_installation",
        "create_shared_stream",
        "create_stream",
        "create_service",
        "publish_registry",
        "remove_registry",
    }
)


class Operator:
    """One process of the operator.

    Attributes:
        url: of its own HTTP server.
    """

    def __init__(self, machine: Machine, environment: dict[str, str], log: Path) -> None:
        """Start the loop with the machine's engine; its memory is empty.

        Args:
            machine: whose engine's socket it has.
            environment: its settings.
            log: file for what it says.
        """
        self._log = log
        self.url = f"http://127.0.0.1:{environment['RECONCILER_PORT']}"
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [*WITH_US, sys.executable, "-m", "reconciler"],
                env=_environment(machine, environment),
                stdout=output,
                stderr=output,
            )

    def die(self) -> None:
        """Lose the process, as with its node."""
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> None:
        """End the process as the engine does at an update: it gives the lease up, so that the next need not wait."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.die()

    def lines(self) -> list[dict[str, Any]]:
        """Return everything that it has logged."""
        return logged(self._log)

    def said(self) -> int:
        """Return how much it has logged, to look at what comes later."""
        return len(self.lines())

    def cycles(self, since: int = 0) -> list[dict[str, Any]]:
        """Return the lines that sum a cycle up."""
        return [line for line in self.lines()[since:] if "result" in line]

    def writes(self, since: int = 0) -> list[str]:
        """Return every write that was done or tried, as ``action object``."""
        return [f"{line['action']} {line['object']}" for line in self.lines()[since:] if "action" in line]

    def complete_cycles(self) -> int:
        """Return how many cycles have read everything and written nothing.

        The operator counts them, because equal lines of its log are written once. The cycle in which it takes the lease
        is one: it reads, and writes nothing.
        """
        text = httpx.get(f"{self.url}/metrics").text
        found = re.findall(r'^reconciler_reconcile_total\{result="(\w+)"\} (\S+)$', text, re.MULTILINE)
        assert found, "the metric has another name"
        quiet = ("in_sync", "progressing", "refused", "standby")
        return sum(int(float(number)) for result, number in found if result in quiet)

    def complete_cycles_before_a_write(self, since: int) -> int:
        """Return `complete_cycles` as it is when the operator writes, asked more often than it reads."""
        deadline = time.monotonic() + RECOVERY
        while True:
            now = self.complete_cycles()
            if self.writes(since):
                return now
            assert time.monotonic() < deadline, f"never a write; at last: {self.cycles()[-3:]}"
            time.sleep(0.1)

    def wait_for(self, result: str, text: str, since: int = 0) -> dict[str, Any]:
        """Wait for a cycle with this result whose sentence has this text."""

        def found() -> list[dict[str, Any]]:
            assert self._process.poll() is None, self._log.read_text()[-2000:]
            return [line for line in self.cycles(since) if line["result"] == result and text in line["event"]]

        deadline = time.monotonic() + RECOVERY
        while not (seen := found()):
            assert time.monotonic() < deadline, f"never: {result}, {text!r}; at last: {self.cycles()[-3:]}"
            time.sleep(0.1)
        return seen[0]

    def wait_until_in_sync(self, groups: int, since: int = 0) -> None:
        """Wait for a cycle that finds so many groups ready and nothing to do."""
        self.wait_for("in_sync", f"{groups} of {groups} groups ready", since)

    def disturbances(self, since: int = 0) -> list[str]:
        """Return every write that takes something away, creates it again or restarts it."""
        return [write for write in self.writes(since) if write.split()[0] not in _ADDING]

    def health(self) -> int:
        """Return the status of `/healthz`."""
        return httpx.get(f"{self.url}/healthz").status_code

    def registry(self) -> set[str]:
        """Return the groups that it publishes; none while it only stands by."""
        return set(httpx.get(f"{self.url}/registry").json().get("groups", ()))


def command(machine: Machine, environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Run one command of the operator on a machine; return its exit code and all that it said."""
    program = [sys.executable, "-m", "reconciler", *arguments]
    variables = _environment(machine, environment)
    done = subprocess.run(program, env=variables, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def _environment(machine: Machine, environment: dict[str, str]) -> dict[str, str]:
    return {**os.environ, **environment, "DOCKER_HOST": machine.url, "PYTHONPATH": str(ROOT)}
