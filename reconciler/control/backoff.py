"""When an object may not be written yet: after a failure, while another writer changes it, soon after a cure. Pure.

All are lost at a restart. The operator then tries sooner what failed or was contested, and cures a surplus later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from openfactory_common.errors import KsqlUnknownOutcome, ReconcilerError, Retry, describe
from reconciler.domain.actions import (
    Action,
    CreateService,
    Effect,
    PauseStream,
    PublishRegistry,
    QueryAction,
    RecreateStream,
    ReplaceStream,
    ResubmitService,
    ResumeStream,
    UpdateService,
)
from reconciler.domain.services import LiveService

#: Seconds after the first failure, and at most.
FIRST_DELAY, LONGEST_DELAY = 2.0, 300.0
#: Seconds after a write of unknown outcome: a server that executes it late does so within about a minute (measured: a
#: DDL that was given up after 10 s ran when Kafka came back); until then a repetition could create it twice. The
#: outcome of a write that ended in an unexpected exception is unknown, too.
UNKNOWN_OUTCOME_DELAY = 60.0
#: Doublings after which the delay does not grow any more; 2.0 ** 1024 is an OverflowError (after 3.5 days of failures).
_DOUBLINGS = 8
#: Seconds within which writes of one object are counted.
CONTEST_WINDOW = 600.0
#: Writes of one desired state within `CONTEST_WINDOW` that are considered normal.
CONTEST_TIMES = 5
#: Seconds for which a contested object is not written.
CONTEST_PAUSE = 300.0
#: Seconds for which a service must have had more tasks than wanted, in one version, before it is written again.
#: Measured on engine 20.10: after quick updates the number is right within 10 s, or never.
SURPLUS_SECONDS = 60.0
#: The longest wait in seconds after such a write.
LONGEST_SURPLUS = 3600.0


@dataclass(frozen=True)
class Failure:
    """The last error of one object, how often in a row, when (monotonic seconds) it may be tried again, and of what."""

    times: int
    until: float
    text: str
    verb: str = ""


@dataclass(frozen=True)
class Backoff:
    """Objects whose write failed, by the action's key."""

    failures: Mapping[str, Failure] = field(default_factory=dict)

    def add_failure(self, key: str, error: Exception, now: float, verb: str = "") -> Backoff:
        """Let ``key`` wait: twice as long after each failure in a row, up to five minutes; ``verb`` is what failed."""
        times = self.failures[key].times + 1 if key in self.failures else 1
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(times - 1, _DOUBLINGS))
        if isinstance(error, KsqlUnknownOutcome) or not isinstance(error, ReconcilerError):
            delay = max(delay, UNKNOWN_OUTCOME_DELAY)
        elif error.retry is Retry.LOOK_FIRST:
            delay = 0.0 if times == 1 else delay / 2  # the next cycle observes first; then as after any failure
        return Backoff({**self.failures, key: Failure(times, now + delay, describe(error), verb)})

    def forget(self, key: str) -> Backoff:
        """Forget the failures of ``key``."""
        return Backoff({name: failure for name, failure in self.failures.items() if name != key})

    def keep_only(self, keys: Collection[str]) -> Backoff:
        """Forget what no plan wants any more."""
        return Backoff({name: failure for name, failure in self.failures.items() if name in keys})

    def forget_opposites(self, actions: Iterable[Action]) -> Backoff:
        """Forget what failed where the opposite is planned now: a group that cannot be paused must still wake at once.

        Should the server execute the other one late, the next cycle sees it and repairs it.
        """
        verbs = {action.key: action.verb for action in actions if isinstance(action, QueryAction)}
        opposites = {PauseStream.verb, ResumeStream.verb}
        return Backoff(
            {
                key: failure
                for key, failure in self.failures.items()
                if key not in verbs or failure.verb not in opposites - {verbs[key]}
            }
        )

    def find_waiting(self, now: float) -> frozenset[str]:
        """Return the objects that must not be tried yet."""
        return frozenset(key for key, failure in self.failures.items() if now < failure.until)

    @property
    def errors(self) -> Mapping[str, str]:
        """The last error of every object whose write failed."""
        return {key: failure.text for key, failure in self.failures.items()}


@dataclass(frozen=True)
class WriteHistory:
    """What was written to an object, and when (monotonic seconds), within `CONTEST_WINDOW`."""

    desired: object
    times: tuple[float, ...]


@dataclass(frozen=True)
class Suspended:
    """Until when (monotonic seconds) this desired state is not written again, and why."""

    desired: object
    until: float
    text: str


@dataclass(frozen=True)
class Contest:
    """What was written lately, and which objects are contested, by the action's key.

    Two installations that re-create each other's stream, or a pipeline that scales our service, or that makes again
    what we remove, would be answered several times a second without end. Only writes that succeed count, and only
    those of one desired state, of which "removed" is one: settings that a person changes, and what we make again after
    we removed it, are not contested.
    """

    written: Mapping[str, WriteHistory] = field(default_factory=dict)
    held: Mapping[str, Suspended] = field(default_factory=dict)

    def add_write(self, action: Action, now: float, wall: datetime) -> Contest:
        """Count a write that succeeded at ``now`` (monotonic seconds); ``wall`` is the time of day, for the text."""
        recent = {key: one for key, one in self.written.items() if now - one.times[-1] < CONTEST_WINDOW}
        held = {key: one for key, one in self.held.items() if now < one.until}
        key, desired = action.key, _desired_state(action)
        before = recent.get(key)
        times = before.times if before is not None and before.desired == desired else ()
        times = (*(time for time in times if now - time < CONTEST_WINDOW), now)
        if len(times) <= CONTEST_TIMES:
            held.pop(key, None)
        else:
            text = (
                f"contested: another writer {_describe_other_writer(action, wall)}; "
                f"{'removed' if action.effect is Effect.REMOVE else 'written'} {len(times)} times within "
                f"{CONTEST_WINDOW / 60:.0f} minutes, not again before "
                f"{_time(wall + timedelta(seconds=CONTEST_PAUSE))}: stop the other writer"
            )
            held[key] = Suspended(desired, now + CONTEST_PAUSE, text)
        return Contest({**recent, key: WriteHistory(desired, times[-CONTEST_TIMES - 1 :])}, held)

    def suspends(self, action: Action, now: float) -> bool:
        """Whether ``action`` must not be done yet; one for another desired state may."""
        held = self.held.get(action.key)
        return held is not None and now < held.until and held.desired == _desired_state(action)

    def find_contested(self, now: float) -> Mapping[str, str]:
        """Return why each contested object is not written, by the action's key."""
        return {key: held.text for key, held in self.held.items() if now < held.until}


@dataclass(frozen=True)
class Surplus:
    """Which services have more tasks than wanted, and when that may be cured; times in monotonic seconds.

    What the cure does not help has it again only after twice as long as the surplus had lasted: ever more rarely.

    Attributes:
        since: since when each has been seen so, by its name in lower case and its version.
        until: when each that was cured may be again, by its name in lower case.
    """

    since: Mapping[tuple[str, int], float] = field(default_factory=dict)
    until: Mapping[str, float] = field(default_factory=dict)

    def observe(self, services: Mapping[str, LiveService], now: float) -> Surplus:
        """Count from now what was not so at the last observation, or is another version since."""
        found = [(key, live.version) for key, live in services.items() if live.has_surplus]
        until = {key: at for key, at in self.until.items() if key in services}
        return Surplus({one: self.since.get(one, now) for one in found}, until)

    def find_due(self, now: float) -> frozenset[str]:
        """Return the services that may be cured now, by name in lower case."""
        return frozenset(
            key
            for (key, _), since in self.since.items()
            if now - since >= SURPLUS_SECONDS and now >= self.until.get(key, now)
        )

    def add_cure(self, action: ResubmitService, now: float) -> Surplus:
        """Let a service wait that was written at ``now``."""
        key = action.live.name.casefold()
        lasted = now - self.since.get((key, action.live.version), now)
        return Surplus(self.since, {**self.until, key: now + min(2 * lasted, LONGEST_SURPLUS)})


def _desired_state(action: Action) -> object:
    """Return what the object should be; a stream's definition is one and the same for the life of an operator."""
    if action.effect is Effect.REMOVE:
        return Effect.REMOVE
    match action:
        case CreateService() | UpdateService():
            return action.spec
        case PublishRegistry():
            return action.document
        case PauseStream():  # a group that falls asleep and wakes is no dispute
            return action.verb
    return action.key


def _describe_other_writer(action: Action, wall: datetime) -> str:
    """Name what the other writer does, and when it last did so: the engine's time stamp, or that of our own read."""
    match action:
        case UpdateService():
            fields = ", ".join(drift.field for drift in action.drift)
            return f"changes {fields} (last at {_time(action.live.updated_at or wall)})"
        case ReplaceStream() | RecreateStream():
            does = f"changes it, {action.why}"
        case ResumeStream():
            does = "pauses its query"
        case PauseStream():
            does = "resumes its query"
        case PublishRegistry():
            does = "replaces it"
        case _:
            does = "makes it again" if action.effect is Effect.REMOVE else "removes it"
    return f"{does} (seen at {_time(wall)})"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%H:%M:%S} UTC"
