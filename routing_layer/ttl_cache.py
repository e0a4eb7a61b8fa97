"""A bounded cache whose entries expire."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class TtlCache(Generic[K, V]):
    """Keeps each entry for ``seconds``, and at most ``size`` of them: the keys come from outside."""

    def __init__(self, seconds: float, size: int = 20_000, clock: Callable[[], float] = time.monotonic) -> None:
        """Start empty."""
        self._seconds = seconds
        self._size = size
        self._clock = clock
        self._entries = OrderedDict[K, tuple[float, V]]()  # the oldest first

    def get(self, key: K) -> V | None:
        """Return the value; None if there is none, or it has expired."""
        entry = self._entries.get(key)
        return entry[1] if entry is not None and entry[0] > self._clock() else None

    def put(self, key: K, value: V) -> None:
        """Keep a value from now, and drop what has expired or is too much."""
        now = self._clock()
        self._entries[key] = now + self._seconds, value
        self._entries.move_to_end(key)
        while len(self._entries) > self._size or (self._entries and next(iter(self._entries.values()))[0] <= now):
            self._entries.popitem(last=False)

    def discard(self, key: K) -> None:
        """Drop an entry if it is there."""
        self._entries.pop(key, None)
