"""Tasks that run beside each other, and their end.

Not by `asyncio.TaskGroup`: before Python 3.13 it loses the cancellation of its own task if a child fails in the same
moment, and in Python 3.11.2 (Debian 12) a child that fails while the group waits leaves its task marked as being
cancelled, after which `asyncio.timeout` ends it for good. A routing layer that was stopped together with its ksqlDB
never ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

#: Seconds after which a task that has not ended is cancelled again.
_AGAIN_SECONDS = 2.0


async def run_until_one_ends(*works: Coroutine[Any, Any, object]) -> None:
    """Run coroutines beside each other; when the first ends, the others are cancelled and what it raised is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        for ended in (await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))[0]:
            ended.result()
    finally:
        await cancel_until_ended(tasks)


async def cancel_until_ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until all have ended, as one cancellation may be lost; what they return or raise is ignored."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        ended, pending = await asyncio.wait(pending, timeout=_AGAIN_SECONDS)
        for task in ended:
            _ = task.cancelled() or task.exception()  # seen, so it is not logged as forgotten
