"""Which groups clients ask for: what the operator must know before it lets a group sleep.

Every worker keeps its own account; a task reports the sum. The account of a worker is read in one step of its loop
together with the revision of the registry that it uses, so "no stream, with a registry without the group" is one fact:
that worker opens no stream of the group before it has read another registry.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

#: Digits of a second that are reported.
_DIGITS = 3


class Demand:
    """The demand that one worker has seen since it started. State requests are none: no group answers them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without any demand; ``clock`` in seconds."""
        self._clock = clock
        self._started = clock()
        self._asked: dict[str, float] = {}
        self._waiting: Counter[str] = Counter()

    def ask(self, group: str) -> None:
        """Note that a client asks for the group, or that a stream of it has just ended."""
        self._asked[group] = self._clock()

    @contextmanager
    def wait(self, group: str) -> Iterator[None]:
        """Note that a request waits for the group's service, for as long as it does."""
        self._waiting[group] += 1
        try:
            yield
        finally:
            self._waiting[group] -= 1
            self.ask(group)

    def snapshot(self, revision: str, streams: Collection[str]) -> dict[str, Any]:
        """Return the account as JSON.

        Args:
            revision: of the registry in use; ``""`` for none.
            streams: the group of each open stream; ``""`` for one of no group.
        """
        now, opened = self._clock(), Counter(streams)
        groups = sorted((self._asked.keys() | opened.keys()) - {""})
        return {
            "revision": revision,
            "uptime_seconds": round(now - self._started, _DIGITS),
            "groups": {
                group: {
                    "open": opened[group],
                    "waiting": self._waiting[group],
                    "idle_seconds": 0.0
                    if opened[group] or self._waiting[group]
                    else round(now - self._asked[group], _DIGITS),
                }
                for group in groups
            },
        }


def merge(snapshots: Sequence[Mapping[str, Any]], workers: int) -> dict[str, Any]:
    """Return the accounts of a task's workers as one. Pure.

    Args:
        snapshots: of those that answered, at least one.
        workers: how many there are.

    Returns:
        ``complete`` is false where a worker did not answer. ``revision`` is ``""`` where they do not all have the same.
    """
    revisions = {one["revision"] for one in snapshots}
    groups: dict[str, dict[str, Any]] = {}
    for group, found in (pair for one in snapshots for pair in one["groups"].items()):
        known = groups.setdefault(group, {**found, "open": 0, "waiting": 0})
        known["open"] += found["open"]
        known["waiting"] += found["waiting"]
        known["idle_seconds"] = min(known["idle_seconds"], found["idle_seconds"])
    return {
        "revision": revisions.pop() if len(revisions) == 1 else "",
        "complete": len(snapshots) == workers,
        "uptime_seconds": min(one["uptime_seconds"] for one in snapshots),
        "groups": groups,
    }
