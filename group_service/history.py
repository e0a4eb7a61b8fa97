"""The last events of a group in memory, by asset and by partition."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from itertools import islice

from group_service.events import Event
from group_service.ids import Position

#: An asset's events go to a client that resumes in portions of so many bytes.
PORTION = 256 * 1024
#: Timestamps of records are not in order: producers have clocks of their own. A point in time is looked up in memory
#: only where the oldest event in memory is older by so much.
_DISORDER_MS = 60_000


class History:
    """A ring of events, limited in bytes.

    Attributes:
        start: by partition, the first offset that is complete in memory from there on.
        next: by partition, the offset that comes next.
        bytes: what the events take.
        newest: the event that came last.
    """

    def __init__(self, limit: int) -> None:
        """Hold at most ``limit`` bytes."""
        self._limit = limit
        self.reset({}, ())

    def reset(self, start: Position, whole: Iterable[int]) -> None:
        """Begin empty at ``start``; of the partitions in ``whole``, that is the first record which exists."""
        self.start, self.next = dict(start), dict(start)
        self._whole = set(whole)
        self.bytes = 0
        self.newest: Event | None = None
        self._all: deque[Event] = deque()
        self._by_asset: dict[str, deque[Event]] = {}
        self._fingerprints: set[int] = set()

    def add_partition(self, partition: int, start: int) -> None:
        """Add a new partition, which is complete in memory."""
        self.start[partition] = self.next[partition] = start
        self._whole.add(partition)

    def add(self, event: Event) -> bool:
        """Add the newest event of its partition, and drop the oldest ones that exceed the limit; False if it repeats.

        A group's stream that is created again, and a query that continues after a crash (at least once), write events
        a second time that the topic has. Two events of one asset with the same bytes in the same millisecond are one.
        """
        self.next[event.partition] = event.offset + 1
        if event.fingerprint in self._fingerprints:
            return False
        self.newest = event
        self._all.append(event)
        self._by_asset.setdefault(event.asset, deque()).append(event)
        self._fingerprints.add(event.fingerprint)
        self.bytes += event.size
        while self.bytes > self._limit:
            oldest = self._all.popleft()
            self.bytes -= oldest.size
            self._fingerprints.discard(oldest.fingerprint)
            self.start[oldest.partition] = oldest.offset + 1
            self._whole.discard(oldest.partition)
            of_asset = self._by_asset[oldest.asset]
            of_asset.popleft()
            if not of_asset:
                del self._by_asset[oldest.asset]
        return True

    def covers(self, position: Position) -> bool:
        """Whether everything from ``position`` on is in memory."""
        return all(position.get(partition, 0) >= start for partition, start in self.start.items())

    def take(self, position: Position, asset: str | None) -> tuple[list[Event], bool]:
        """Return the next events of an asset (None: of all) from ``position`` on, and whether these are all.

        About `PORTION` bytes are returned at most.
        """
        events = self._all if asset is None else self._by_asset.get(asset, deque[Event]())
        found: list[Event] = []
        total = 0
        for event in islice(events, self._find(events, position), None):
            if event.offset >= position.get(event.partition, 0):
                total += len(event.frame)
                if total > PORTION and found:
                    return found, False
                found.append(event)
        return found, True

    def _find(self, events: deque[Event], position: Position) -> int:
        """Return an index before which no event is at or after ``position``."""
        if len(self.next) != 1:
            return 0
        [offset] = position.values()
        return bisect_left(events, offset, key=lambda event: event.offset)

    def timestamp(self, partition: int, offset: int) -> int | None:
        """Return the timestamp of a record in milliseconds; None if it is not in memory."""
        if offset >= self.start.get(partition, offset + 1):
            for event in islice(self._all, self._find(self._all, {partition: offset}), None):
                if event.partition == partition and event.offset >= offset:
                    return event.ms if event.offset == offset else None
        return None

    def last_ms(self, asset: str) -> int:
        """Return the timestamp of an asset's last event; -1 if none is in memory."""
        events = self._by_asset.get(asset)
        return events[-1].ms if events else -1

    def locate(self, ms: int) -> Position | None:
        """Return the position of the first record of each partition at or after a time; None if it may be older.

        Args:
            ms: milliseconds since the epoch.
        """
        found = dict(self.next)
        for event in reversed(self._all):
            if event.ms >= ms:
                found[event.partition] = event.offset
            elif event.ms < ms - _DISORDER_MS and len(found) == 1:
                return found
        return found if self._whole.issuperset(self.next) else None
