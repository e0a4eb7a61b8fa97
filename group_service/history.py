"""The last events of a group in memory, by asset and by partition."""

from __future__ import annotations

import time
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
#: Seconds for which it is known where their first event is: thousands of clients that were held together come with
#: times of the same minute, and the way back over a minute takes 11 ms at 1,000 events/s (measured).
_SECONDS = 1000
#: A topic that was made again has been filled again after so long.
_REFILL_SECONDS = 600.0


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
        self._dropped = 0
        self._located: dict[int, tuple[int, Position] | None] = {}

    def add_partition(self, partition: int, start: int) -> None:
        """Add a new partition, which is complete in memory."""
        self.start[partition] = self.next[partition] = start
        self._whole.add(partition)
        self._located.clear()

    def add(self, event: Event) -> bool:
        """Add the newest event of its partition, and drop the oldest ones that exceed the limit; False if it repeats.

        A group's stream that is created again, and a query that continues after a crash (at least once), write events
        a second time that the topic has. Two events of one asset with the same bytes in the same millisecond are one.
        """
        self.next[event.partition] = event.offset + 1
        if (fingerprint := event.fingerprint) in self._fingerprints:
            return False
        self.newest = event
        self._all.append(event)
        self._by_asset.setdefault(event.asset, deque()).append(event)
        self._fingerprints.add(fingerprint)
        self.bytes += event.size
        while self.bytes > self._limit:
            oldest = self._all.popleft()
            self._dropped += 1
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
        [partition] = self.next
        offset = position.get(partition, 0)
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

    def before_refill(self, earlier: Refill) -> Refill:
        """Return what is in memory, with the event that came last, as that which a new topic can repeat.

        Args:
            earlier: what the present topic could repeat; it counts for the assets that have not been filled again.
        """
        events = [*self._all, self.newest] if self.newest is not None else []
        now_ms = int(time.time() * 1000)
        times: dict[str, tuple[int, int]] = {}
        for event in events:
            ms = min(event.ms, now_ms)
            times[event.asset] = min(ms, times.get(event.asset, (ms,))[0]), ms
        return Refill(earlier.fingerprints.union(event.fingerprint for event in events), times | earlier.times)

    def locate(self, ms: int) -> Position | None:
        """Return the position of the first record of each partition at or after a time; None if it may be older.

        Args:
            ms: milliseconds since the epoch.
        """
        second = ms // 1000
        walked = self._located.get(second)
        if second not in self._located or (walked is not None and walked[0] < self._dropped):
            if len(self._located) >= _SECONDS:
                self._located.clear()
            walked = self._located[second] = self._walk_back(second * 1000)
        if walked is None:
            return None
        number, since_second = walked
        found = dict(self.next)
        pending = {partition for partition, offset in found.items() if since_second[partition] < offset}
        for event in islice(self._all, number - self._dropped, None):
            if not pending:
                break
            if event.ms >= ms and event.partition in pending:
                pending.discard(event.partition)
                found[event.partition] = event.offset
        return found

    def _walk_back(self, ms: int) -> tuple[int, Position] | None:
        """Return the number of the first event at or after a time, and the position; None if it may be older."""
        found, end = dict(self.next), self._dropped + len(self._all)
        number = end
        for back, event in enumerate(reversed(self._all), 1):
            if event.ms >= ms:
                found[event.partition], number = event.offset, end - back
            elif event.ms < ms - _DISORDER_MS and len(found) == 1:
                return number, found
        return (number, found) if self._whole.issuperset(self.next) else None


class Refill:
    """What clients had of a topic that was made again: the new one may be filled with it a second time."""

    def __init__(self, fingerprints: set[int], times: dict[str, tuple[int, int]]) -> None:
        """Know events that were in memory, and by asset the times of its oldest and its last one there, until now."""
        self.fingerprints, self.times = fingerprints, times
        self._until = time.monotonic() + _REFILL_SECONDS

    def repeats(self, event: Event) -> bool:
        """Whether an event of the new topic is one that clients had, or older than those in memory were.

        Assets are compared with themselves: the clock of a producer can be late. An asset of which an event has come
        that is newer than all in memory were has been filled again.
        """
        if self.fingerprints and time.monotonic() > self._until:
            self.fingerprints, self.times = set(), {}
        oldest, last = self.times.get(event.asset, (event.ms, event.ms))
        if event.ms > last:
            del self.times[event.asset]
        # Nearly always there is none, and each fingerprint is a hash of the whole event.
        return event.ms < oldest or (bool(self.fingerprints) and event.fingerprint in self.fingerprints)
