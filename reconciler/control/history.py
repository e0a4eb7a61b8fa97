"""What a running operator remembers for those who watch it: how the last cycles ended, and when. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from reconciler.control.outcome import CycleOutcome


@dataclass(frozen=True)
class History:
    """The last of each kind; all None before the first cycle has ended.

    Attributes:
        last: how the last cycle ended.
        ended: when.
        read: the last cycle that read everything in full.
        read_at: when that ended.
        written_at: when a cycle last wrote something.
    """

    last: CycleOutcome | None = None
    ended: datetime | None = None
    read: CycleOutcome | None = None
    read_at: datetime | None = None
    written_at: datetime | None = None

    def after(self, outcome: CycleOutcome, now: datetime) -> History:
        """Add a cycle that has just ended; one that failed to read keeps the last that did."""
        read = outcome.survey is not None and outcome.plan is not None
        wrote = any(result.outcome == "ok" for result in outcome.results)
        return History(
            last=outcome,
            ended=now,
            read=outcome if read else self.read,
            read_at=now if read else self.read_at,
            written_at=now if wrote else self.written_at,
        )
