"""What a running operator knows from more than one look, so that a command that reads by itself goes on from there.

Pure. A fresh process has seen a missing group once, whatever the operator that runs knows of it, and knows nothing of
streams that are silent, objects that another writer changes and objects that do not get on. Times are sent as ages: the
clocks of two processes have nothing in common.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from reconciler.control.backoff import Backoff, Contest, Failure, Suspended
from reconciler.control.controller import Controller
from reconciler.control.memory import StalledObject
from reconciler.leadership.pause import parse
from reconciler.planning.guards import Absence, GuardMemory
from reconciler.report.documents import text


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class AbsenceCount(_Part):
    """For how many reads, and for how many seconds, something has been missing."""

    reads: int = Field(ge=0)
    seconds: float = Field(ge=0)


class FailureCount(_Part):
    """How often a write has failed in a row, and in how many seconds it is tried again."""

    times: int = Field(ge=1)
    seconds: float = Field(ge=0)
    error: str


class HeldCount(_Part):
    """For how many seconds a contested object is left alone, and why."""

    seconds: float = Field(ge=0)
    text: str


class StandingCount(_Part):
    """What is said of an object that is on its way, for how many seconds, and since which time of day."""

    detail: str
    seconds: float = Field(ge=0)
    at: AwareDatetime


class Counters(_Part):
    """The operator's `GET /counters`; for its own command line, so fields may change with any version."""

    owner: str
    missing: Mapping[str, AbsenceCount]
    silent: Mapping[str, AbsenceCount]
    out_of_registry: Mapping[str, float]
    counts: tuple[tuple[float, int], ...]
    servers: int
    queries: int
    doubt: str
    backoff: Mapping[str, FailureCount]
    contested: Mapping[str, HeldCount] = Field(default_factory=dict)
    silent_streams: Mapping[str, str] = Field(default_factory=dict)
    standing: Mapping[str, StandingCount] = Field(default_factory=dict)
    pause: Mapping[str, str] | None


def counters(controller: Controller) -> Counters:
    """Return what an operator has counted."""
    now, memory, pause = controller.clocks.monotonic(), controller.memory.guards, controller.memory.pause

    def ages(absences: Mapping[str, Absence]) -> Mapping[str, AbsenceCount]:
        return {
            text(name): AbsenceCount(reads=one.reads, seconds=max(0.0, now - one.since))
            for name, one in absences.items()
        }

    return Counters(
        owner=controller.world.settings.reconciler_owner,
        missing=ages(memory.missing),
        silent=ages(memory.silent),
        out_of_registry={text(group): max(0.0, now - since) for group, since in memory.unregistered.items()},
        counts=tuple((max(0.0, now - when), number) for when, number in memory.counts),
        servers=memory.servers,
        queries=memory.queries,
        doubt=text(memory.doubt),
        backoff={
            text(key): FailureCount(times=one.times, seconds=max(0.0, one.until - now), error=text(one.text))
            for key, one in controller.memory.backoff.failures.items()
        },
        contested={
            text(key): HeldCount(seconds=held.until - now, text=text(held.text))
            for key, held in controller.memory.contest.held.items()
            if held.until > now
        },
        silent_streams={text(group): text(why) for group, why in controller.memory.silent().items()},
        standing={
            text(title): StandingCount(detail=text(one.detail), seconds=max(0.0, now - one.since), at=one.at)
            for title, one in controller.memory.stalled.items()
        },
        pause=pause.fields if pause is not None else None,
    )


def count_on(controller: Controller, counted: Counters) -> None:
    """Let a controller that has not read anything yet count on from what another one has counted."""
    now = controller.clocks.monotonic()

    def since(ages: Mapping[str, AbsenceCount]) -> Mapping[str, Absence]:
        return {name: Absence(one.reads, now - one.seconds) for name, one in ages.items()}

    controller.memory.guards = GuardMemory(
        missing=since(counted.missing),
        silent=since(counted.silent),
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
    controller.memory.stalled = {
        title: StalledObject(one.detail, now - one.seconds, one.at) for title, one in counted.standing.items()
    }
    controller.memory.pause = parse(counted.pause) if counted.pause else None
