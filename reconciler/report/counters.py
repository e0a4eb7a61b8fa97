"""What a running operator knows from more than one cycle, so that a command that reads directly can continue from it.

Pure. A new process has read a missing group once, whatever the running operator has counted, and knows nothing of
silent streams, readiness, contested objects and stalled objects. Times are sent as ages, because the monotonic clocks
of two processes are unrelated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pydantic import AwareDatetime, Field

from reconciler.control.backoff import Backoff, Contest, Failure, Suspended
from reconciler.control.controller import Controller
from reconciler.control.memory import StalledObject
from reconciler.domain.readiness import Readiness
from reconciler.leadership.pause import parse
from reconciler.planning.guards import Absence, GuardMemory
from reconciler.report.documents import ExtensibleDocument


class AbsenceCount(ExtensibleDocument):
    """For how many reads and seconds something has been missing."""

    reads: int = Field(ge=0)
    seconds: float = Field(ge=0)


class FailureCount(ExtensibleDocument):
    """How often a write has failed in a row, and the seconds until the next try."""

    times: int = Field(ge=1)
    seconds: float = Field(ge=0)
    error: str


class SuspendedCount(ExtensibleDocument):
    """For how many seconds a contested object is not written, and why."""

    seconds: float = Field(ge=0)
    text: str


class StalledCount(ExtensibleDocument):
    """The detail of an object in progress, for how many seconds it has been the same, and since when."""

    detail: str
    seconds: float = Field(ge=0)
    at: AwareDatetime


class Counters(ExtensibleDocument):
    """The operator's `GET /counters`, for its own command line; fields may change with any version."""

    owner: str
    missing: Mapping[str, AbsenceCount]
    silent: Mapping[str, AbsenceCount]
    out_of_registry: Mapping[str, float]
    counts: tuple[tuple[float, int], ...]
    servers: int
    queries: int
    doubt: str
    backoff: Mapping[str, FailureCount]
    contested: Mapping[str, SuspendedCount] = Field(default_factory=dict)
    silent_streams: Mapping[str, str] = Field(default_factory=dict)
    readiness: Mapping[str, Readiness] | None = None
    standing: Mapping[str, StalledCount] = Field(default_factory=dict)
    pause: Mapping[str, str] | None


def make_counters(controller: Controller) -> Counters:
    """Return the counters of an operator."""
    now, memory, pause = controller.clocks.monotonic(), controller.memory.guards, controller.memory.pause

    def to_ages(absences: Mapping[str, Absence]) -> Mapping[str, AbsenceCount]:
        return {
            name: AbsenceCount(reads=one.reads, seconds=max(0.0, now - one.since)) for name, one in absences.items()
        }

    return Counters(
        owner=controller.deps.settings.reconciler_owner,
        missing=to_ages(memory.missing),
        silent=to_ages(memory.silent),
        out_of_registry={group: max(0.0, now - since) for group, since in memory.unregistered.items()},
        counts=tuple((max(0.0, now - when), number) for when, number in memory.counts),
        servers=memory.servers,
        queries=memory.queries,
        doubt=memory.doubt,
        backoff={
            key: FailureCount(times=one.times, seconds=max(0.0, one.until - now), error=one.text)
            for key, one in controller.memory.backoff.failures.items()
        },
        contested={
            key: SuspendedCount(seconds=held.until - now, text=held.text)
            for key, held in controller.memory.contest.held.items()
            if held.until > now
        },
        silent_streams=controller.memory.silent(),
        readiness=_convert_ages(controller.memory.readiness, now),
        standing={
            title: StalledCount(detail=one.detail, seconds=max(0.0, now - one.since), at=one.at)
            for title, one in controller.memory.stalled.items()
        },
        pause=pause.fields if pause is not None else None,
    )


def restore(controller: Controller, counted: Counters) -> None:
    """Let a new controller continue from the counters of another one."""
    now = controller.clocks.monotonic()

    def from_ages(ages: Mapping[str, AbsenceCount]) -> Mapping[str, Absence]:
        return {name: Absence(one.reads, now - one.seconds) for name, one in ages.items()}

    controller.memory.guards = GuardMemory(
        missing=from_ages(counted.missing),
        silent=from_ages(counted.silent),
        unregistered={group: now - age for group, age in counted.out_of_registry.items()},
        counts=tuple((now - age, number) for age, number in counted.counts),
        servers=counted.servers,
        queries=counted.queries,
        doubt=counted.doubt,
    )
    controller.memory.backoff = Backoff(
        {key: Failure(one.times, now + one.seconds, one.error) for key, one in counted.backoff.items()}
    )
    controller.memory.contest = Contest(
        held={key: Suspended(None, now + one.seconds, one.text) for key, one in counted.contested.items()}
    )
    controller.memory.silent_streams = counted.silent_streams
    controller.memory.readiness = _convert_ages(counted.readiness, now)
    controller.memory.stalled = {
        title: StalledObject(one.detail, now - one.seconds, one.at) for title, one in counted.standing.items()
    }
    controller.memory.pause = parse(counted.pause) if counted.pause else None


def _convert_ages(found: Mapping[str, Readiness] | None, now: float) -> Mapping[str, Readiness] | None:
    """Return the same with `Readiness.since` as an age, or with that age as a moment of this clock."""
    return None if found is None else {name: replace(one, since=now - one.since) for name, one in found.items()}
