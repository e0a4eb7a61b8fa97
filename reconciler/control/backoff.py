"""When an object whose write failed may be tried again. Pure; lost at a restart, which only tries sooner."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from openfactory_common.errors import KsqlUnknownOutcome, ReconcilerError, Retry, describe

FIRST = 2.0
LONGEST = 300.0
UNKNOWN = 60.0
"""After a write of unknown outcome: a server that executes it late does so within about a minute (measured: a DDL
that was given up after 10 s ran when Kafka came back); until then a repetition could create it twice. The
outcome of a write that ended in an unexpected exception is unknown, too."""
#: Doublings after which the delay does not grow any more; 2.0 ** 1024 is an OverflowError (after 3.5 days of failures).
_DOUBLINGS = 8


@dataclass(frozen=True)
class Failure:
    """The last error of one object, how often in a row, and when (monotonic seconds) it may be tried again."""

    times: int
    until: float
    text: str


@dataclass(frozen=True)
class Backoff:
    """All objects that wait."""

    failures: Mapping[str, Failure] = field(default_factory=dict)

    def failed(self, key: str, error: Exception, now: float) -> Backoff:
        """Let ``key`` wait: twice as long after each failure in a row, up to five minutes."""
        times = self.failures[key].times + 1 if key in self.failures else 1
        delay = min(LONGEST, FIRST * 2.0 ** min(times - 1, _DOUBLINGS))
        if isinstance(error, KsqlUnknownOutcome) or not isinstance(error, ReconcilerError):
            delay = max(delay, UNKNOWN)
        elif error.retry is Retry.LOOK_FIRST:
            delay = 0.0 if times == 1 else delay / 2  # once at once: the next look tells; then like any failure
        return Backoff({**self.failures, key: Failure(times, now + delay, describe(error))})

    def succeeded(self, key: str) -> Backoff:
        """Forget the failures of ``key``."""
        return Backoff({name: failure for name, failure in self.failures.items() if name != key})

    def only(self, keys: Collection[str]) -> Backoff:
        """Forget what no plan wants any more: its failure is history."""
        return Backoff({name: failure for name, failure in self.failures.items() if name in keys})

    def waits(self, key: str, now: float) -> bool:
        """Whether ``key`` must not be tried yet."""
        failure = self.failures.get(key)
        return failure is not None and now < failure.until

    def texts(self) -> Mapping[str, str]:
        """The last error of every object that waits."""
        return {key: failure.text for key, failure in self.failures.items()}

    def waiting(self, now: float) -> frozenset[str]:
        """Objects that must not be tried yet."""
        return frozenset(key for key, failure in self.failures.items() if now < failure.until)
