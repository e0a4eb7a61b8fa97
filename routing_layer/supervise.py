"""Background tasks that live as long as the process: one that ends, for whatever reason, is started again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

_log = structlog.get_logger(__name__)
#: Seconds before a task that ended is started again, and the most it becomes by doubling.
_BACKOFF = (0.5, 30.0)
#: A task that has ended before counts as running, and its backoff begins from the start, after this many seconds.
_STEADY = 5.0

#: Makes the coroutine of a task; called again for each start.
Work = Callable[[], Awaitable[None]]


@dataclass
class _Task:
    task: asyncio.Task[None]
    since: float | None = None
    ended: int = 0


class Supervisor:
    """Runs named tasks until `close`; an end is logged, told, and followed by a new start after a backoff."""

    def __init__(
        self, on_end: Callable[[str], None], backoff: tuple[float, float] = _BACKOFF, steady: float = _STEADY
    ) -> None:
        """Start with no task; ``on_end`` is called with a task's name each time that one ends unasked."""
        self._on_end = on_end
        self._backoff = backoff
        self._steady = steady
        self._tasks: dict[str, _Task] = {}

    def start(self, name: str, work: Work) -> None:
        """Run ``work`` from now on; one of the same name is cancelled, and has ended before the new one begins."""
        before = self._tasks.get(name)
        if before is not None:
            before.task.cancel()
        supervised = _Task(asyncio.create_task(self._keep(name, work, before.task if before else None), name=name))
        self._tasks[name] = supervised

    def running(self, name: str) -> bool:
        """Whether the task runs; one that has ended before has to have run for a while again."""
        supervised = self._tasks.get(name)
        if supervised is None or supervised.since is None or supervised.task.done():
            return False
        return not supervised.ended or time.monotonic() - supervised.since >= self._steady

    async def close(self) -> None:
        """Cancel every task and wait for its end."""
        tasks = [supervised.task for supervised in self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, name: str, work: Work, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait((before,))
        delay, longest = self._backoff
        while True:
            supervised = self._tasks[name]
            supervised.since = started = time.monotonic()
            await self._once(name, work)
            supervised.since = None
            supervised.ended += 1
            self._on_end(name)
            if time.monotonic() - started >= self._steady:
                delay = self._backoff[0]
            await asyncio.sleep(delay)
            delay = min(2 * delay, longest)

    @staticmethod
    async def _once(name: str, work: Work) -> None:
        """Run it to its end.

        Raises:
            asyncio.CancelledError: the supervised task itself was cancelled (a cancellation inside is an end).
        """
        try:
            await work()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            _log.exception("background task %s was cancelled from within; it is started again", name)
        except Exception:  # noqa: BLE001 - whatever ends it, the task has to come back
            _log.exception("background task %s failed; it is started again", name)
        else:
            _log.error("background task %s ended without an error; it is started again", name)
