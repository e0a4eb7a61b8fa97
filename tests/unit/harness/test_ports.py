"""The ports of several test runs at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack

from tests.integration.routing_layer.proxy_system import ROOT

#: Takes more ports than it may hold, says so, and keeps those it holds until the other runs have theirs.
_RUN = "from tests.harness.ports import free_port; print(len([free_port() for _ in range(150)]), flush=True); input()"


def test_four_runs_at_a_time_have_ports() -> None:
    """They are the same worker of their runs, so they share its 200 ports."""
    worker = f"gw{10 + os.getpid() % 10}"  # whose ports this run does not use itself
    environment = {**os.environ, "PYTEST_XDIST_WORKER": worker, "PYTHONPATH": str(ROOT)}
    with ExitStack() as stack:
        runs = []
        for _ in range(4):
            process = subprocess.Popen(
                [sys.executable, "-c", _RUN],
                env=environment,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            runs.append(stack.enter_context(process))
            stack.callback(process.kill)
        for process in runs:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            assert line == "150\n", process.stderr.read()
