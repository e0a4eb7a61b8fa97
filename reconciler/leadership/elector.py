"""This process's part in the lease: a thread that beats, and an answer to "may I write now?" at every write.

The thread beats whatever the loop is busy with (a statement may take 15 s, a read 10 s), but only while the loop turns.
It reads and writes through a connection of its own.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import structlog

from openfactory_common.errors import LeaseLost, PlatformConflict, PlatformError
from reconciler.domain.services import Record
from reconciler.domain.status import CycleResult
from reconciler.leadership.lease import (
    BEATS,
    LEASE_RECORD,
    WRITE_PART,
    Candidate,
    Lease,
    ObservedLease,
    must_yield,
    next_lease,
    parse,
    release,
)
from reconciler.leadership.pause import Pause, read_pause
from reconciler.platforms.protocol import Records

log = structlog.get_logger()


def boot_clock() -> float:
    """Return seconds of a clock that also goes on while the machine is suspended, where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def own_name() -> str:
    """Return a name that no other process has had or will have."""
    return f"{socket.gethostname()}-{os.urandom(4).hex()}"


@dataclass(frozen=True)
class WriteBlock:
    """Why nothing may be written: the cycle's result, and words."""

    result: CycleResult
    text: str


class WriteGate(Protocol):
    """What a cycle asks before it writes."""

    @property
    def role(self) -> str | None:
        """``leader`` or ``standby``; None where no lease decides."""

    def begin(self) -> None:
        """A cycle begins to look: only what it sees from here on may be acted upon."""

    def write_block(self) -> WriteBlock | None:
        """Why nothing may be written now, None if it may."""


class AlwaysLeader:
    """The authority of an operator that is alone by construction: in a test, or where nothing is written."""

    role: str | None = None

    def begin(self) -> None:
        """Nothing to remember."""

    def write_block(self) -> WriteBlock | None:
        """It may always write."""
        return None


class Elector:
    """Holds, seeks or gives up the lease for one process.

    Attributes:
        me: this process.
        pause: the pause that was seen last.
    """

    def __init__(
        self,
        records: Records,
        me: Candidate,
        *,
        heeds_pause: bool = True,
        alive: Callable[[], bool] = lambda: True,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = boot_clock,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Seek the lease once `start` or `beat` is called.

        Args:
            records: where the lease is kept; used by this thread alone.
            me: this process.
            heeds_pause: give the lease up while a pause holds.
            alive: whether the loop still turns; one that does not renews nothing.
            on_change: told when holder, or what holds writes back, has changed.
            clock: seconds; must go on while the process is stopped.
            wall: the time of day, for the end of a pause.
        """
        self.me = me
        self.pause: Pause | None = None
        self._records = records
        self._heeds_pause = heeds_pause
        self._alive = alive
        self._on_change = on_change
        self._clock = clock
        self._wall = wall
        self._sight = ObservedLease()
        self._until = 0.0
        self._stretch = 0
        self._looked_in = 0
        self._yields = False
        self._paused = False
        self._trouble = ""
        self._told: tuple[str, bool, str] = ("", False, "")
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def lease(self) -> Lease:
        """What the record said last."""
        return self._sight.lease or Lease()

    @property
    def role(self) -> str | None:
        """Whether this process leads or stands by."""
        return "leader" if self.leads else "standby"

    @property
    def leads(self) -> bool:
        """Whether this process holds the lease and has renewed it in time."""
        return self._clock() < self._until

    def begin(self) -> None:
        """Remember in which unbroken stretch of holding the lease a cycle began to look."""
        self._looked_in = self._stretch

    def write_block(self) -> WriteBlock | None:
        """Why nothing may be written now.

        A process that was stopped, or that lost the lease and has it back, may not write either: others may have
        written since it looked.
        """
        if self._paused and self.pause is not None:
            return WriteBlock(CycleResult.PAUSED, self.pause.text)
        if self._yields:
            return WriteBlock(CycleResult.STANDBY, f"the lease goes to {self.lease.wanted}, which asks for it")
        if not self.leads:
            return WriteBlock(CycleResult.STANDBY, self._why_not())
        if self._looked_in != self._stretch:
            return WriteBlock(
                CycleResult.STANDBY, "the lease was taken just now, and everything must be read again first"
            )
        return None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Do one write inside, with the lease held until it has been answered.

        Raises:
            LeaseLost: it must not be done.
        """
        with self._writing:
            held = self.write_block()
            if held is not None:
                raise LeaseLost(f"not written: {held.text}")
            yield

    def beat(self) -> None:
        """Look at the record once, and do what follows from it; an engine that does not answer is waited for."""
        try:
            self._beat()
            self._trouble = ""
        except PlatformConflict as error:
            log.debug("lease: somebody else wrote first", error=str(error))
        except PlatformError as error:
            if not self._trouble:
                log.warning("lease: the record is out of reach", error=str(error))
            self._trouble = str(error)
        self._tell()

    def start(self) -> None:
        """Beat once here, so that a free lease is held when this returns, and then in a thread."""
        self._beat_safely()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def stop(self, *, release: bool = True) -> None:
        """End the thread and give the lease up, so that the next one need not wait."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._until = 0.0
        if release:
            self._release()

    def _release(self) -> None:
        if self._writing.locked():  # the process ends in the middle of a write that is not answered
            log.warning("lease: a write is under way, others wait until the lease has run out")
            return
        try:
            record = self._records.records().get(LEASE_RECORD)
            if record is not None and self.me.name in (record.fields.get("holder"), record.fields.get("wanted")):
                self._records.write_record(LEASE_RECORD, release(self.me, parse(record.fields)).fields, record)
        except Exception as error:  # noqa: BLE001 - a process that ends must come to its end
            log.warning("lease: not given up, others wait until it has run out", error=str(error))

    def _run(self) -> None:
        while not self._ended.wait(self._interval()):
            self._beat_safely()

    def _beat_safely(self) -> None:
        try:
            self.beat()
        except Exception:
            # The lease lapses by itself, which is safe; a thread that has ended would never seek it again.
            log.exception("lease: bug")

    def _interval(self) -> float:
        beat = self.me.seconds / BEATS
        return min(1.0, beat) if self.me.preempts and not self.leads else beat

    def _beat(self) -> None:
        seen = self._records.records()
        now, record = self._clock(), seen.get(LEASE_RECORD)
        self._see(seen, now)
        # Closed before it is asked whether a write is on its way: none can begin in between.
        wanted = next_lease(self.me, self._sight, now, paused=self._paused, writing=self._writing.locked())
        if self.lease.holder != self.me.name:
            self._until = 0.0
        if wanted is None or (wanted.holder == self.me.name and not self._alive()):
            return
        sent = self._clock()
        if wanted.holder != self.me.name:
            self._until = 0.0
        self._records.write_record(LEASE_RECORD, wanted.fields, record)
        self._wrote(wanted, sent)

    def _see(self, seen: Mapping[str, Record], now: float) -> None:
        record = seen.get(LEASE_RECORD)
        self._sight = self._sight.of(parse(record.fields) if record else None, now)
        self.pause = read_pause(self.pause, seen)
        self._paused = self._heeds_pause and self.pause is not None and self.pause.active(self._wall())
        self._yields = self.lease.holder == self.me.name and must_yield(self.me, self._sight.lease)

    def _wrote(self, lease: Lease, sent: float) -> None:
        before = self.lease
        self._sight = ObservedLease(lease, sent, term=max(self._sight.term, lease.term))
        if lease.holder != self.me.name:
            if before.holder == self.me.name:
                log.info("lease given up", to=lease.wanted or "whoever is next", paused=self._paused)
            return
        if before.holder != self.me.name:
            log.info("lease taken", holder=self.me.name, term=lease.term, after=before.holder or "nobody")
        if self._clock() >= self._until:  # it had run out: others could have written, what was seen before is old
            self._stretch += 1
        self._until = sent + lease.seconds * WRITE_PART

    def _why_not(self) -> str:
        holder = self.lease.holder
        if self._trouble:
            return f"the lease cannot be renewed: {self._trouble}"
        if holder == self.me.name:
            return "the lease has not been renewed in time"
        if not holder:
            return f"the lease is free for {self.lease.wanted}" if self.lease.wanted else "nobody holds the lease yet"
        return f"{holder} holds the lease"

    def _tell(self) -> None:
        state = (self.lease.holder, self.leads, self.pause.text if self._paused and self.pause else "")
        if state != self._told:
            self._told = state
            self._on_change()


class LazyElector:
    """The authority of a command that a person gave: it seeks the lease at its first write, not before.

    A command that finds nothing to do writes nothing at all, and takes the lease from nobody. At the first write the
    lease is asked for and that write is put off: what it was decided from may be old by the time the lease is held.
    """

    def __init__(self, leadership: Elector) -> None:
        """Use ``leadership`` once something is to be written."""
        self._leadership = leadership
        self._started = False

    @property
    def role(self) -> str | None:
        """Whether this process leads or stands by; None while it has not asked."""
        return self._leadership.role if self._started else None

    def begin(self) -> None:
        """A cycle begins to look."""
        self._leadership.begin()

    def write_block(self) -> WriteBlock | None:
        """Why nothing may be written now, as far as it is known without having asked."""
        return self._leadership.write_block() if self._started else None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Do one write inside, with the lease held until it has been answered.

        Raises:
            LeaseLost: it must not be done.
        """
        if not self._started:
            self._started = True
            self._leadership.start()
        with self._leadership.writing():
            yield

    def stop(self) -> None:
        """Give the lease up, if it was ever asked for."""
        if self._started:
            self._leadership.stop()
