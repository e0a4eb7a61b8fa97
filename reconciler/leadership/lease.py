"""Who may write when several operators of one owner run. Pure.

One record says who holds the lease; it is changed only by compare-and-swap. As in Kubernetes' leader election, clocks
of two machines are never compared: the holder changes the record at every renewal, and a candidate takes over once the
record has not changed for its whole duration *by the candidate's own clock*. The holder stops writing after
`WRITE_PART` of the duration without a successful renewal, counted from before that was sent, so it has stopped before
another can take over.

A command (``--once``, ``teardown``) asks for the lease by writing its name into the record: a loop hands it over
between two writes, and takes it again afterwards.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

#: Name of the record.
LEASE_RECORD = "lease"
#: Part of its duration for which the holder may write after a renewal; the rest is for a request in progress.
WRITE_PART = 2 / 3
#: Renewals in one duration.
RENEWALS = 5
#: Longest duration that a record is believed to have, in seconds: nonsense in it must not block all others for ever.
_LONGEST = 600.0
#: The largest number that is read back; only nonsense in a record comes near it.
_LAST_TERM = 10**15 - 1
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?")


@dataclass(frozen=True)
class Lease:
    """What the record says.

    Attributes:
        holder: which process may write; ``""`` when none may.
        term: how often it has changed hands.
        beat: how often this holder has renewed it.
        seconds: how long it must not have changed before another process may take it.
        wanted: which process asks for it.
    """

    holder: str = ""
    term: int = 0
    beat: int = 0
    seconds: float = 15.0
    wanted: str = ""

    @property
    def fields(self) -> dict[str, str]:
        """As a record."""
        return {
            "holder": self.holder,
            "term": str(self.term),
            "beat": str(self.beat),
            "seconds": f"{self.seconds:g}",
            "wanted": self.wanted,
        }


def parse(fields: Mapping[str, str]) -> Lease:
    """Read a record of this or another version; unknown fields are ignored, invalid ones read as defaults.

    One that names no holder in a way that we know is considered held: what wrote it may be writing. Its content is
    part of the holder's name, so that any change of it counts as a sign of life.
    """
    holder = fields.get("holder")
    if not isinstance(holder, str):
        digest = hashlib.sha256(repr(sorted(fields.items(), key=repr)).encode("utf-8", "surrogatepass"))
        holder = f"unreadable-{digest.hexdigest()[:8]}"
    return Lease(
        holder=holder,
        term=int(_number(fields.get("term"))),
        beat=int(_number(fields.get("beat"))),
        seconds=min(_number(fields.get("seconds")), _LONGEST) or Lease.seconds,
        wanted=wanted if isinstance(wanted := fields.get("wanted", ""), str) else "",
    )


def _number(text: object) -> float:
    return float(text) if isinstance(text, str) and _NUMBER.fullmatch(text) else 0.0


@dataclass(frozen=True)
class Candidate:
    """One process.

    Attributes:
        name: unique; the same container has another one after a restart.
        seconds: duration of the lease when it holds it.
        preempts: it is a command: it asks for the lease and keeps it until it has ended.
    """

    name: str
    seconds: float
    preempts: bool = False


@dataclass(frozen=True)
class ObservedLease:
    """What one process has read: the record, and since when (its own seconds) holder and beat are what they are.

    ``term`` is the highest that it has ever read, to continue from when the record is corrupted or removed: with the
    same term again, a process that has not read meanwhile would see no sign of life in it.
    """

    lease: Lease | None = None
    since: float = 0.0
    longest: float = 0.0
    term: int = 0

    def observe(self, lease: Lease | None, now: float) -> ObservedLease:
        """Add what the record says now; of the durations that it has had since the last renewal the longest counts."""
        seconds = lease.seconds if lease is not None else 0.0
        term = max(self.term, lease.term if lease is not None else 0)
        if (
            self.lease is not None
            and lease is not None
            and ((lease.holder, lease.term, lease.beat) == (self.lease.holder, self.lease.term, self.lease.beat))
        ):
            return ObservedLease(lease, self.since, max(seconds, self.lease.seconds, self.longest), term)
        return ObservedLease(lease, now, seconds, term)

    def is_stale(self, now: float, at_least: float = 0.0) -> bool:
        """Whether the record has not been renewed for its whole duration.

        It may be corrupted: a duration that is shorter than the candidate's own (``at_least``) is not believed.
        """
        return self.lease is not None and now - self.since >= max(self.lease.seconds, self.longest, at_least)


def must_hand_over(me: Candidate, lease: Lease | None) -> bool:
    """Whether a command asks for the lease that a loop holds."""
    return lease is not None and not me.preempts and lease.wanted not in ("", me.name)


def next_lease(me: Candidate, observed: ObservedLease, now: float, *, paused: bool, writing: bool) -> Lease | None:
    """Return the record as this process should write it now, None to leave it as it is.

    Args:
        me: the process.
        observed: what it has just read.
        now: its own seconds.
        paused: writes are suspended, so it should not hold the lease either.
        writing: one of its writes is in progress, so it cannot release the lease yet.
    """
    lease = observed.lease
    if lease is not None and lease.holder == me.name:
        closed = paused or must_hand_over(me, lease)
        return (
            release_lease(me, lease)
            if closed and not writing
            else replace(lease, beat=lease.beat + 1, seconds=me.seconds)
        )
    if paused:
        return None
    highest = max(observed.term, lease.term if lease is not None else 0)
    term = highest + 1 if highest < _LAST_TERM else 1
    free = lease is None or (lease.holder == "" and lease.wanted in ("", me.name))
    if free or observed.is_stale(now, me.seconds):
        return Lease(me.name, term, 0, me.seconds)
    if lease is not None and me.preempts and not lease.wanted:
        return replace(lease, wanted=me.name)
    return None


def release_lease(me: Candidate, lease: Lease) -> Lease:
    """Return the record after this process has released what it holds or asks for."""
    return replace(
        lease,
        holder="" if lease.holder == me.name else lease.holder,
        wanted="" if lease.wanted == me.name else lease.wanted,
    )
