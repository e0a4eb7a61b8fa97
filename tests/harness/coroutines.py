"""Lets tests be coroutines, each on a loop of its own with a deadline (for the ``conftest`` of a folder), and wait."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable

import pytest

_DEADLINE_SECONDS = 30
#: How long a condition may take to come true.
PATIENCE = 20.0


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test to its end; leave every other test to pytest."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in wanted}
    # A test with a longer limit has it here, too, and ends a moment before pytest's own limit.
    longer = pyfuncitem.get_closest_marker("timeout")
    deadline = longer.args[0] - 5 if longer else _DEADLINE_SECONDS
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), deadline))
    return True


async def until(condition: Callable[[], bool], what: str = "") -> None:
    """Wait for a condition; fail if it does not come true."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - the condition is about another process
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"never came true: {what or condition}") from None
