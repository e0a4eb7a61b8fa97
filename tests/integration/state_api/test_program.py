"""The state API as a program: its command line, its settings, its start and its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.harness.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
_PATIENCE = 60.0
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "KSQLDB_URL": "http://127.0.0.1:1"}


def start(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start the program in an empty folder, with nothing of the caller's environment."""
    return subprocess.Popen(
        [sys.executable, "-m", "state_api", *arguments],
        env={**ENVIRONMENT, **environment},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_help_names_every_path_and_setting(tmp_path: Path) -> None:
    """``--help`` is enough to use it."""
    out, _ = start(tmp_path, "--help").communicate(timeout=_PATIENCE)
    for word in ("/asset_state?asset_uuid=", "/ready", "/healthz", "/metrics", "KSQLDB_URL [required]", "PORT [5555]",
                 "KSQLDB_ASSETS_TABLE [assets]", "KSQLDB_PASSWORD_FILE", "KSQLDB_CA_FILE", "Exit codes"):  # fmt: skip
        assert word in out


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"KSQLDB_URL": ""}, "KSQLDB_URL is required and not set"),
        ({"KSQLDB_URL": "k:8088"}, "KSQLDB_URL='k:8088': it must be a URL such as http://host:8088"),
        ({"PORT": "http"}, "PORT='http'"),
        ({"KSQLDB_ASSETS_TABLE": "a b"}, "KSQLDB_ASSETS_TABLE='a b': it must be a name as ksqlDB takes it"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL='loud'"),
        ({"KSQLDB_PASSWORD_FILE": "/nowhere/at/all"}, "KSQLDB_PASSWORD_FILE"),
        ({"KSQLDB_CA_FILE": __file__}, "there is no PEM certificate in it"),
    ],
)
def test_a_wrong_setting_is_a_line_that_names_it(tmp_path: Path, environment: dict[str, str], line: str) -> None:
    """Exit code 2, one line, no traceback."""
    process = start(tmp_path, **environment)
    _, errors = process.communicate(timeout=_PATIENCE)
    assert (process.returncode, line in errors, errors.count("\n")) == (2, True, 1), errors


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """Exit code 2, and the line names the variable."""
    with socket.create_server(("0.0.0.0", 0)) as other:
        port = other.getsockname()[1]
        process = start(tmp_path, PORT=str(port), LOG_LEVEL="error")
        _, errors = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 2
    assert f"PORT={port} cannot be opened" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    """It is alive without a ksqlDB, ready only with one, and ends with code 0 while a client is connected."""
    port = free_port()
    process = start(tmp_path, PORT=str(port))
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=_PATIENCE, trust_env=False) as client:
            deadline = time.monotonic() + _PATIENCE
            while not _is_alive(client):
                assert process.poll() is None and time.monotonic() < deadline, "it does not serve"  # noqa: PT018 - one reason
                time.sleep(0.05)
            assert client.get("/ready").status_code == 503
            process.send_signal(number)
            assert process.wait(_PATIENCE) == 0
    finally:
        process.kill()
        process.communicate()


def _is_alive(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").json() == {"status": "alive"}
    except httpx.ConnectError:
        return False
