"""Objects that another writer changes as often as we change them back: they are left alone for a while. Pure.

Two installations that re-create each other's stream, or a pipeline that scales our service, or that makes again what we
remove, would be answered several times a second without end. Only writes that succeed count, and only those of one
desired state, of which "removed" is one: settings that a person changes, and what we make again after we removed it,
are not contested.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from reconciler.domain.actions import (
    Action,
    CreateService,
    Effect,
    PublishRegistry,
    RecreateStream,
    ReplaceStream,
    ResumeStream,
    UpdateService,
)

#: Seconds within which writes of one object are counted.
WINDOW = 600.0
#: Writes of one desired state within `WINDOW` that are taken for our own business.
TIMES = 5
#: Seconds for which a contested object is not written.
HOLD = 300.0


@dataclass(frozen=True)
class WriteHistory:
    """What was written to an object, and when (monotonic seconds), within `WINDOW`."""

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
    """What was written lately, and which objects are contested, by the action's key."""

    written: Mapping[str, WriteHistory] = field(default_factory=dict)
    held: Mapping[str, Suspended] = field(default_factory=dict)

    def wrote(self, action: Action, now: float, wall: datetime) -> Contest:
        """Count a write that succeeded.

        Args:
            action: what was written.
            now: monotonic seconds.
            wall: the time of day, for the text.
        """
        recent = {key: one for key, one in self.written.items() if now - one.times[-1] < WINDOW}
        held = {key: one for key, one in self.held.items() if now < one.until}
        key, desired = action.key, _desired(action)
        before = recent.get(key)
        times = before.times if before is not None and before.desired == desired else ()
        times = (*(time for time in times if now - time < WINDOW), now)
        if len(times) <= TIMES:
            held.pop(key, None)
        else:
            until = wall.astimezone(UTC) + timedelta(seconds=HOLD)
            text = (
                f"contested: another writer {_undoing(action, wall)}; "
                f"{'removed' if action.effect is Effect.REMOVE else 'written'} {len(times)} times within "
                f"{WINDOW / 60:.0f} minutes, not again before {until:%H:%M:%S} UTC: end the other writer"
            )
            held[key] = Suspended(desired, now + HOLD, text)
        return Contest({**recent, key: WriteHistory(desired, times[-TIMES - 1 :])}, held)

    def waits(self, action: Action, now: float) -> bool:
        """Whether ``action`` must not be done yet; one for another desired state is not held."""
        held = self.held.get(action.key)
        return held is not None and now < held.until and held.desired == _desired(action)

    def texts(self, now: float) -> Mapping[str, str]:
        """Why each contested object is not written, by the action's key."""
        return {key: held.text for key, held in self.held.items() if now < held.until}


def _desired(action: Action) -> object:
    """Return what the object should be; a stream's definition is one and the same for the life of an operator."""
    if action.effect is Effect.REMOVE:
        return Effect.REMOVE
    match action:
        case CreateService() | UpdateService():
            return action.spec
        case PublishRegistry():
            return action.document
    return action.key


def _undoing(action: Action, wall: datetime) -> str:
    """Name what the other writer does, and when it last did so: the engine's time stamp, or that of our own read."""
    match action:
        case UpdateService():
            seen = action.live.updated_at or wall
            does = f"changes {', '.join(drift.field for drift in action.drift)} (last at {_time(seen)})"
        case ReplaceStream() | RecreateStream():
            does = f"changes it, {action.why} (seen at {_time(wall)})"
        case ResumeStream():
            does = f"pauses its query (seen at {_time(wall)})"
        case PublishRegistry():
            does = f"replaces it (seen at {_time(wall)})"
        case _ if action.effect is Effect.REMOVE:
            does = f"makes it again (seen at {_time(wall)})"
        case _:
            does = f"removes it (seen at {_time(wall)})"
    return does


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%H:%M:%S} UTC"
