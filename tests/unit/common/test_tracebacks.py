"""What the log says of an unexpected exception: where it came from, and no value of a local variable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import structlog
from openfactory_common.logs import configure
from openfactory_common.settings_types import LogLevel
configure(LogLevel.INFO)
def connect():
    password = "canary-of-a-password"
    raise KeyError("commandStatus")
try:
    connect()
except KeyError as error:
    structlog.get_logger().error("bug", exc_info=error)
"""


def test_a_traceback_shows_no_local_variables() -> None:
    """They hold credentials, and whole worlds: rendering one took minutes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert "commandStatus" in done.stderr
    assert '"name": "connect"' in done.stderr
    assert "canary" not in done.stderr
