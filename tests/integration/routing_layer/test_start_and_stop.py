"""SIGTERM at any time after the start of a program ends it soon, without a kill, in each of its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.harness.ports import free_port

_ROOT = Path(__file__).resolve().parents[3]
#: Seconds from the start to the signal: from the interpreter's own start to a program that serves.
_DELAYS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5)
#: Ended by itself, by the handler that is there before the imports, or by the system before there was any.
_CLEAN = {0, 128 + signal.SIGTERM, -signal.SIGTERM}
_PROGRAMS = {
    "routing_layer": {},
    "routing_layer with workers": {"ROUTING_LAYER_WORKERS": "3"},
    "demo.ksqldb": {},
    "demo.factory": {},
    "group_service": {"GROUP_NAME": "Weld", "KAFKA_BROKER": "127.0.0.1:1", "KAFKA_TOPIC": "asset_stream_Weld"},
    "state_api": {},
}


def _environment(name: str) -> dict[str, str]:
    port = str(free_port())
    ports = dict.fromkeys(("ROUTING_LAYER_PORT", "PORT", "GROUP_SERVICE_PORT", "STATE_API_PORT"), port)
    away = {"KSQLDB_URL": "http://127.0.0.1:1", "RECONCILER_URL": "http://127.0.0.1:1", "REGISTRY_FILE": "/nonexistent"}
    return {**os.environ, **ports, **away, "LOG_LEVEL": "critical", "DRAIN_SECONDS": "1", **_PROGRAMS[name]}


def _alive(group: int) -> bool:
    """Whether any process of a group is still there."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("name", _PROGRAMS)
def test_sigterm_is_never_lost(name: str) -> None:
    """Whenever it comes: a clean end, no traceback, and no process of the program is left."""
    command = [sys.executable, "-m", name.split(maxsplit=1)[0]]
    started = []
    for delay in _DELAYS:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, env=_environment(name), cwd=_ROOT, stderr=pipe, stdout=pipe, start_new_session=True
        )
        started.append(process)
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
    try:
        for delay, process in zip(_DELAYS, started, strict=True):
            _, errors = process.communicate(timeout=30)
            assert process.returncode in _CLEAN, (delay, process.returncode, errors)
            assert b"Traceback" not in errors, (delay, errors)
            deadline = time.monotonic() + 10
            while _alive(process.pid):
                assert time.monotonic() < deadline, f"a process is left after {delay} s"
                time.sleep(0.02)
    finally:
        for process in started:
            process.kill()


def test_the_handler_is_there_before_the_imports() -> None:
    """Process 1 of a container ignores a signal without a handler: no module that takes time is loaded before it."""
    program = (
        "import sys, signal\n"
        "class Seen:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.split('.')[0] in {'uvloop', 'aiohttp', 'pydantic', 'structlog', 'asyncio'}:\n"
        "            print(name, signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)\n"
        "            raise SystemExit(0)\n"
        "sys.meta_path.insert(0, Seen())\n"
        "import runpy\n"
        "sys.argv = [sys.argv[1]]\n"
        "runpy.run_module(sys.argv[0], run_name='__main__')\n"
    )
    for name in {program.split()[0] for program in _PROGRAMS}:
        done = subprocess.run(
            [sys.executable, "-c", program, name], cwd=_ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout.endswith(" True\n"), (name, done.stdout)
