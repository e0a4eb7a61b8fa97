"""Tests over sockets can be coroutines, and find a browser."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.harness.coroutines import pytest_pyfunc_call
from tests.integration.routing_layer.proxy_system import ROOT

__all__ = ["pytest_pyfunc_call"]


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Debian's Chromium, installed if it can be; in CI it has to be there."""
    done = subprocess.run([ROOT / "scripts" / "chromium.sh"], capture_output=True, text=True, check=False)
    found = shutil.which("chromium")
    if done.returncode == 0 and found:
        return found
    if os.environ.get("CI") == "true":
        pytest.fail(f"no browser: {done.stderr}")
    pytest.skip(f"no browser: {done.stderr}")
