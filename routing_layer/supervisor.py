"""Background tasks that live as long as the process: a task that ends for any reason is restarted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from openfactory_common.tasks import cancel_until_ended

_log = structlog.get_logger(__name__)
#: Seconds before a task that ended is restarted, and the most it becomes by doubling.
_BACKOFF = (0.5, 30.0)
#: A task that has ended before counts as running, and its backoff is reset, after this many seconds.
_STEADY = 5.0

#: Makes the coroutine of a task; called again for each start.
Work = Callable[[], Awaitable[None]]


@dataclass
class _SupervisedTask:
    task: asyncio.Task[None]
    before: tuple[asyncio.Task[None], ...]
    running_since: float | None = None
    ends: int = 0


class Supervisor:
    """Runs named tasks until `close`; an end is logged, reported, and followed by a restart after a backoff."""

    def __init__(
        self, on_end: Callable[[str], None], backoff: tuple[float, float] = _BACKOFF, steady: float = _STEADY
    ) -> None:
        """Start without tasks; ``on_end`` is called with the name of each task that ends unexpectedly."""
        self._on_end = on_end
        self._backoff = backoff
        self._steady = steady
        self._tasks: dict[str, _SupervisedTask] = {}

    def start(self, name: str, work: Work) -> None:
        """Run ``work`` from now on; one of the same name is cancelled, and has ended before the new one begins."""
        known = self._tasks.get(name)
        before = () if known is None else tuple(one for one in (*known.before, known.task) if not one.done())
        task = asyncio.create_task(self._supervise(name, work, before), name=name)
        self._tasks[name] = _SupervisedTask(task, before)

    def is_running(self, name: str) -> bool:
        """Whether the task runs; one that has ended before has to run for a while first."""
        supervised = self._tasks.get(name)
        if supervised is None or supervised.running_since is None or supervised.task.done():
            return False
        return not supervised.ends or time.monotonic() - supervised.running_since >= self._steady

    async def close(self) -> None:
        """Cancel every task and wait for its end."""
        await cancel_until_ended(task for one in self._tasks.values() for task in (*one.before, one.task))

    async def _supervise(self, name: str, work: Work, before: tuple[asyncio.Task[None], ...]) -> None:
        await cancel_until_ended(before)
        delay, longest = self._backoff
        supervised = self._tasks[name]
        while True:
            supervised.running_since = started = time.monotonic()
            try:
                await work()
            except asyncio.CancelledError:
                if supervised.task.cancelling():  # this task is meant; a cancellation inside is an end
                    raise
                _log.exception("background task %s was cancelled from within; it is restarted", name)
            except Exception:  # noqa: BLE001 - whatever ends it, the task has to come back
                _log.exception("background task %s failed; it is restarted", name)
            else:
                _log.error("background task %s ended without an error; it is restarted", name)
            supervised.running_since = None
            supervised.ends += 1
            self._on_end(name)
            if time.monotonic() - started >= self._steady:
                delay = self._backoff[0]
            await asyncio.sleep(delay)
            delay = min(2 * delay, longest)
