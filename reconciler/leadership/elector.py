"""Leader election: a background thread renews the lease; every write checks that it is still valid.

The thread renews whatever the loop is busy with (a statement may take 15 s, a read 10 s), but only while the loop makes
progress. It reads and writes through a connection of its own.
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
from typing import Any, Protocol

import structlog

from openfactory_common.errors import LeaseLost, PlatformConflict, PlatformError
from reconciler.domain.services import Record
from reconciler.domain.status import CycleResult
from reconciler.leadership.lease import (
    LEASE_RECORD,
    RENEWALS,
    WRITE_PART,
    Candidate,
    Lease,
    ObservedLease,
    must_hand_over,
    next_lease,
    parse,
    release_lease,
)
from reconciler.leadership.pause import Pause, read_pause
from reconciler.platforms.protocol import Records

log = structlog.get_logger()


def boot_clock() -> float:
    """Return seconds of a clock that also runs while the machine is suspended, where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def own_name(command: str = "") -> str:
    """Return a name that no other process has had or will have.

    A command is in it: the history of the operator that gave it the lease has nothing else of what it wrote.
    """
    return "-".join(part for part in (socket.gethostname(), command, os.urandom(4).hex()) if part)


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
        """Note that a cycle begins to read: only what it reads from here on may be acted upon."""

    def write_block(self) -> WriteBlock | None:
        """Return why nothing may be written now, None if it may."""


class EventLog(Protocol):
    """Where it is logged that the lease is gained and lost: `structlog`, or the operator's history."""

    def info(self, event: str, **fields: Any) -> object:
        """Write a line."""

    def warning(self, event: str, **fields: Any) -> object:
        """Write a line about a problem."""


class AlwaysLeader:
    """The gate of an operator that is alone by construction: in a test, or where nothing is written."""

    role: str | None = None

    def begin(self) -> None:
        """Nothing to note."""

    def write_block(self) -> WriteBlock | None:
        """It may always write."""
        return None


class Elector:
    """Seeks, holds and releases the lease for one process.

    With ``lazy`` it is that of a command: it seeks the lease at its first write, not before. A command that finds
    nothing to do writes nothing at all, and takes the lease from no other process. At the first write the lease is
    asked for and that write is put off: what it was decided from may be old by the time the lease is held.

    Attributes:
        me: this process.
        pause: the pause that was read last.
        events: where gain and loss of the lease are logged.
    """

    def __init__(  # noqa: PLR0913 - the process's own callbacks, and clocks for tests
        self,
        records: Records,
        me: Candidate,
        *,
        lazy: bool = False,
        heeds_pause: bool = True,
        alive: Callable[[], bool] = lambda: True,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = boot_clock,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Seek the lease once `start` or `renew` is called; with ``lazy``, once something is to be written.

        Args:
            records: where the lease is kept; used by this thread alone.
            me: this process.
            lazy: do not ask for the lease before the first write.
            heeds_pause: release the lease during a pause.
            alive: whether the loop makes progress; for one that does not, nothing is renewed.
            on_change: called when the holder, or what suspends writes, has changed.
            clock: seconds; must run while the process is stopped.
            wall: the time of day, for the end of a pause.
        """
        self.me = me
        self.pause: Pause | None = None
        self.events: EventLog = log
        self._records = records
        self._dormant = lazy
        self._heeds_pause = heeds_pause
        self._alive = alive
        self._on_change = on_change
        self._clock = clock
        self._wall = wall
        self._observed = ObservedLease()
        self._valid_until = 0.0
        #: Number of the unbroken period of holding the lease, and that in which the cycle began to read.
        self._period = self._cycle_period = 0
        self._hands_over = False
        self._paused = False
        self._error = ""
        self._reported: tuple[str, bool, str] = ("", False, "")
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def lease(self) -> Lease:
        """What the record said last."""
        return self._observed.lease or Lease()

    @property
    def role(self) -> str | None:
        """Whether this process leads or is on standby; None while it has not asked for the lease."""
        return None if self._dormant else "leader" if self.leads else "standby"

    @property
    def leads(self) -> bool:
        """Whether this process holds the lease and has renewed it in time."""
        return self._clock() < self._valid_until

    def begin(self) -> None:
        """Note in which unbroken period of holding the lease a cycle began to read."""
        self._cycle_period = self._period

    def write_block(self) -> WriteBlock | None:
        """Return why nothing may be written now, as far as that is known without having asked for the lease.

        A process that was stopped, or that lost the lease and has it again, may not write either: others may have
        written since it read.
        """
        if self._dormant:
            return None
        if self._paused and self.pause is not None:
            return WriteBlock(CycleResult.PAUSED, self.pause.text)
        if self._hands_over:
            text = f"the lease goes to {self.lease.wanted}, which asks for it"
        elif not self.leads:
            text = self._explain_standby()
        elif self._cycle_period != self._period:
            text = "the lease was taken just now, and everything must be read again first"
        else:
            return None
        return WriteBlock(CycleResult.STANDBY, text)

    def _explain_standby(self) -> str:
        holder, wanted = self.lease.holder, self.lease.wanted
        if self._error:
            return f"the lease cannot be renewed: {self._error}"
        if holder == self.me.name:
            return "the lease has not been renewed in time"
        if holder:
            return f"{holder} holds the lease"
        return f"the lease is free for {wanted}" if wanted else "no operator holds the lease yet"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Do one write inside, with the lease held until it has been answered.

        Raises:
            LeaseLost: it must not be done.
        """
        if self._dormant:
            self.start()
        with self._writing:
            block = self.write_block()
            if block is not None:
                raise LeaseLost(f"not written: {block.text}")
            yield

    def start(self) -> None:
        """Renew once here, so that a free lease is held when this returns, and then in a thread."""
        self._dormant = False
        self._renew_safely()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        interval = self.me.seconds / RENEWALS
        while not self._ended.wait(min(1.0, interval) if self.me.preempts and not self.leads else interval):
            self._renew_safely()

    def _renew_safely(self) -> None:
        try:
            self.renew()
        except Exception:
            # The lease expires by itself, which is safe; a thread that has ended would never seek it again.
            log.exception("lease: bug")

    def stop(self, *, release: bool = True) -> None:
        """End the thread and release the lease, if it was ever asked for, so that the next process need not wait."""
        if self._dormant:
            return
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._valid_until = 0.0
        if not release:
            return
        if self._writing.locked():  # the process ends in the middle of a write that is not answered
            log.warning("lease: a write is in progress, others wait until the lease has expired")
            return
        try:
            record = self._records.records().get(LEASE_RECORD)
            if record is not None and self.me.name in (record.fields.get("holder"), record.fields.get("wanted")):
                self._records.write_record(LEASE_RECORD, release_lease(self.me, parse(record.fields)).fields, record)
        except Exception as error:  # noqa: BLE001 - a process that ends must come to its end
            log.warning("lease: not released, others wait until it has expired", error=str(error))

    def renew(self) -> None:
        """Read the record once and do what follows from it; an engine that does not answer is waited for."""
        try:
            self._read_and_write()
            self._error = ""
        except PlatformConflict as error:
            log.debug("lease: another process wrote first", error=str(error))
        except PlatformError as error:
            if not self._error:
                self.events.warning("lease: the record cannot be read or written", error=str(error))
            self._error = str(error)
        state = (self.lease.holder, self.leads, self.pause.text if self._paused and self.pause else "")
        if state != self._reported:
            before, self._reported = self._reported, state
            self._log_change(before[0], led=before[1])
            self._on_change()

    def _log_change(self, before: str, *, led: bool) -> None:
        """Log that the lease was lost, or who has it; that it was taken or released is logged where it is written."""
        holder, me = self.lease.holder, self.me.name
        if led and not self.leads and holder:  # without a holder it was released
            self.events.warning("lease lost", holder=holder, reason=self._explain_standby())
        elif holder not in (before, me, ""):
            self.events.info("standby", holder=holder, reason=self._explain_standby())

    def _read_and_write(self) -> None:
        records = self._records.records()
        now, record = self._clock(), records.get(LEASE_RECORD)
        self._observe(records, now)
        # Closed before it is asked whether a write is in progress: none can begin in between.
        wanted = next_lease(self.me, self._observed, now, paused=self._paused, writing=self._writing.locked())
        if self.lease.holder != self.me.name:
            self._valid_until = 0.0
        if wanted is None or (wanted.holder == self.me.name and not self._alive()):
            return
        sent = self._clock()
        if wanted.holder != self.me.name:
            self._valid_until = 0.0
        self._records.write_record(LEASE_RECORD, wanted.fields, record)
        self._note_written(wanted, sent)

    def _observe(self, records: Mapping[str, Record], now: float) -> None:
        record = records.get(LEASE_RECORD)
        self._observed = self._observed.observe(parse(record.fields) if record else None, now)
        self.pause = read_pause(self.pause, records)
        self._paused = self._heeds_pause and self.pause is not None and self.pause.active(self._wall())
        self._hands_over = self.lease.holder == self.me.name and must_hand_over(self.me, self._observed.lease)

    def _note_written(self, lease: Lease, sent: float) -> None:
        before, me = self.lease.holder, self.me.name
        self._observed = ObservedLease(lease, sent, term=max(self._observed.term, lease.term))
        if lease.holder != me:
            if before == me:
                self.events.info("lease released", to=lease.wanted or "the next candidate", paused=self._paused)
            return
        if before != me:
            self.events.info("lease acquired", holder=me, term=lease.term, after=before or "no holder")
        if self._clock() >= self._valid_until:  # it had expired: others may have written, what was read before is old
            self._period += 1
        self._valid_until = sent + lease.seconds * WRITE_PART
