"""Programs of Debian's packages that tests run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "tool.sh"


def find_tool(name: str) -> str:
    """Return the path of a program, installed if it can be; in CI a machine where it cannot be had fails the tests."""
    done = subprocess.run([_SCRIPT, name], capture_output=True, text=True, check=False)
    if done.returncode and os.environ.get("CI") != "true":
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
