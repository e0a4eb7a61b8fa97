"""Who may write when several operators of one owner run. Pure.

One record says who holds the lease; it is changed only by compare-and-swap. As in Kubernetes' leader election, nobody
compares clocks of two machines: the holder changes the record at every beat, and a waiter takes over once the record
has not changed for its whole duration *by the waiter's own clock*. The holder stops writing after `WRITE_PART` of the
duration without a successful beat, counted from before that beat was sent, so it has stopped before anybody can take
over.

A command that a person gave (``--once``, ``teardown``) asks for the lease by writing its name into the record: a loop
hands it over between two writes, and has it back afterwards.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

#: Name of the record.
LEASE_RECORD = "lease"
#: Part of its duration for which the holder may write after a beat; the rest is for a request that is on its way.
WRITE_PART = 2 / 3
#: Beats in one duration.
BEATS = 5
#: Longest duration that a record is believed to have, in seconds: nonsense in it must not keep everybody out for ever.
LONGEST = 600.0
#: The largest number that is read back; only nonsense in a record comes near it.
_LAST_TERM = 10**15 - 1
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?")


@dataclass(frozen=True)
class Lease:
    """What the record says.

    Attributes:
        holder: who may write; ``""`` when nobody does.
        term: how often it has changed hands.
        beat: how often this holder has renewed it.
        seconds: how long it must not have changed before another may take it.
        wanted: who asks for it.
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
    """Read a record of this or another version; unknown fields are ignored, spoilt ones read as defaults.

    One that names no holder in a way that we know is taken for held: whoever wrote it may be writing. What it says is
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
        seconds=min(_number(fields.get("seconds")), LONGEST) or Lease.seconds,
        wanted=wanted if isinstance(wanted := fields.get("wanted", ""), str) else "",
    )


def _number(text: object) -> float:
    return float(text) if isinstance(text, str) and _NUMBER.fullmatch(text) else 0.0


@dataclass(frozen=True)
class Candidate:
    """One process.

    Attributes:
        name: nobody else has it, not even the same container after a restart.
        seconds: duration of the lease when it holds it.
        preempts: it is a command: it asks for the lease and gives it to nobody until it has ended.
    """

    name: str
    seconds: float
    preempts: bool = False


@dataclass(frozen=True)
class ObservedLease:
    """What one process has seen: the record, and since when (its own seconds) holder and beat are what they are.

    ``term`` is the highest that it has ever seen, for one that goes on from a record that was spoilt or removed: with
    the same term again, whoever has not looked meanwhile would see no sign of life in it.
    """

    lease: Lease | None = None
    since: float = 0.0
    longest: float = 0.0
    term: int = 0

    def of(self, lease: Lease | None, now: float) -> ObservedLease:
        """See the record now; of the durations that it has had since the last beat the longest counts."""
        seconds = lease.seconds if lease is not None else 0.0
        term = max(self.term, lease.term if lease is not None else 0)
        if self.lease is not None and lease is not None and _life(lease) == _life(self.lease):
            return ObservedLease(lease, self.since, max(seconds, self.lease.seconds, self.longest), term)
        return ObservedLease(lease, now, seconds, term)

    def stale(self, now: float, at_least: float = 0.0) -> bool:
        """Whether whoever should change the record has not done so for its whole duration.

        The record may have been spoilt: a duration that is shorter than the waiter's own is not believed.
        """
        return self.lease is not None and now - self.since >= max(self.lease.seconds, self.longest, at_least)


def _life(lease: Lease) -> tuple[str, int, int]:
    return lease.holder, lease.term, lease.beat


def must_yield(me: Candidate, lease: Lease | None) -> bool:
    """Whether a command asks for the lease that a loop holds."""
    return lease is not None and not me.preempts and lease.wanted not in ("", me.name)


def next_lease(me: Candidate, sight: ObservedLease, now: float, *, paused: bool, writing: bool) -> Lease | None:
    """Return the record as this process should write it now, None to leave it as it is.

    Args:
        me: the process.
        sight: what it has just seen.
        now: its own seconds.
        paused: writes are held back, so that it should not hold the lease either.
        writing: one of its writes is on its way, so that it cannot give the lease up yet.
    """
    lease = sight.lease
    if lease is not None and lease.holder == me.name:
        closed = paused or must_yield(me, lease)
        return release(me, lease) if closed and not writing else replace(lease, beat=lease.beat + 1, seconds=me.seconds)
    if paused:
        return None
    seen = max(sight.term, lease.term if lease is not None else 0)
    term = seen + 1 if seen < _LAST_TERM else 1
    if lease is None:
        return Lease(me.name, term, 0, me.seconds)
    free = lease.holder == "" and lease.wanted in ("", me.name)
    if free or sight.stale(now, me.seconds):
        return Lease(me.name, term, 0, me.seconds)
    if me.preempts and not lease.wanted:
        return replace(lease, wanted=me.name)
    return None


def release(me: Candidate, lease: Lease) -> Lease:
    """Return the record after this process has given up what it holds or asks for."""
    return replace(
        lease,
        holder="" if lease.holder == me.name else lease.holder,
        wanted="" if lease.wanted == me.name else lease.wanted,
    )
