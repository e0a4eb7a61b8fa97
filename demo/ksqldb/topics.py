"""Topics: bounded logs of keyed JSON records, one partition each, in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from demo.ksqldb.values import Key

WEEK_MS = 604_800_000
RECORD_CAP = 20_000
COMPACTION_SLACK = 20_000


@dataclass(frozen=True, slots=True)
class Record:
    """One record; a `value` of None is a tombstone, `timestamp` is in milliseconds since 1970."""

    key: Key
    value: dict[str, Any] | None
    timestamp: int
    offset: int


class Reader(Protocol):
    """Receives every new record of a topic."""

    def accept(self, record: Record) -> None:
        """Take one record."""
        ...


@dataclass
class Topic:
    """A log with the settings that ksqlDB compares when a statement names an existing topic.

    Attributes:
        retention_ms: how long records are kept; ignored for a compacted topic.
        compacted: keep the newest record of every key instead of a time span.
    """

    name: str
    partitions: int = 1
    replicas: int = 1
    retention_ms: int = WEEK_MS
    compacted: bool = False
    end: int = 0
    records: list[Record] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    keys: dict[Key, int] = field(default_factory=dict)

    def append(self, key: Key, value: dict[str, Any] | None, timestamp: int | None = None) -> None:
        """Add a record and hand it to every reader before this returns."""
        now = int(time.time() * 1000) if timestamp is None else timestamp
        record = Record(key, value, now, self.end)
        self.end += 1
        self.records.append(record)
        if self.compacted:
            self.keys[key] = record.offset
        self._trim(now)
        for reader in tuple(self.readers):
            reader.accept(record)

    def since(self, offset: int) -> Iterator[Record]:
        """The records from `offset` on that are still kept."""
        first = next((i for i, each in enumerate(self.records) if each.offset >= offset), len(self.records))
        return islice(tuple(self.records), first, None)

    def _trim(self, now: int) -> None:
        if self.compacted:
            if len(self.records) > 2 * len(self.keys) + COMPACTION_SLACK:
                self.records = [each for each in self.records if self.keys.get(each.key) == each.offset]
            return
        expired = len(self.records) > RECORD_CAP + RECORD_CAP // 10
        if expired:
            del self.records[: len(self.records) - RECORD_CAP]
        if self.records and self.records[0].timestamp < now - self.retention_ms:
            self.records = [each for each in self.records if each.timestamp >= now - self.retention_ms]
