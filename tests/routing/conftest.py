"""Lets tests of the proxy be coroutines: each runs on a loop of its own, with a deadline. And finds a browser."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import subprocess

import pytest

from tests.routing.world import ROOT

_DEADLINE_SECONDS = 30


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test to its end; leave every other test to pytest."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in wanted}
    # A test that asks for more time than usual has it here, too, and ends a moment before pytest's own limit.
    longer = pyfuncitem.get_closest_marker("timeout")
    deadline = longer.args[0] - 5 if longer else _DEADLINE_SECONDS
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), deadline))
    return True


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
