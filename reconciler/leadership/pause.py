"""Suspends writes for a while: one record that every operator of an owner reads, and that survives restarts.

The end is a time of day (UTC), not a duration: it has to mean the same to every replica and after a restart, which no
monotonic clock does. A clock that jumps ends a pause early or late and nothing else: grace times are counted by the
monotonic clock, and still counted while paused, because a paused operator still reads.

A pause is ended by its time or by a record that says so. A record that has vanished ends nothing: ``teardown`` removes
it while operators still run.

Single groups have pauses of their own, in one record for all of them. That record is read anew in every cycle, so one
that is gone ends them: the pause of a teardown suspends its operators anyway. What a person asks for one group, such as
its removal, is kept in the same form (`DELETIONS_RECORD`): it ends by itself too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from openfactory_common.errors import PlatformConflict
from openfactory_common.text import printable
from reconciler.domain.services import Record
from reconciler.platforms.protocol import Records

#: Name of the record.
PAUSE_RECORD = "pause"
#: Longest pause, in seconds: a pause that is never resumed must end by itself.
LONGEST_PAUSE = 24 * 3600.0
#: Name of the record of the pauses of single groups.
GROUP_PAUSES_RECORD = "group-pauses"
#: Longest pause of a single group, in seconds.
LONGEST_GROUP_PAUSE = 31 * 24 * 3600.0
#: Name of the record of the groups that a person wants removed now, and for how many seconds that is valid.
DELETIONS_RECORD = "deletions"
DELETION_SECONDS = 3600.0
_LONGEST_TEXT = 200
#: Seconds by which the clock of the machine that paused may be ahead of ours.
_CLOCKS_APART = 3600.0
_TRIES = 5
_FORM = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Pause:
    """Who paused until when and why; ``until`` is None where the pause has been ended."""

    until: datetime | None
    by: str
    reason: str = ""

    @property
    def fields(self) -> dict[str, str]:
        """As a record."""
        return {
            "until": self.until.astimezone(UTC).strftime(_FORM) if self.until else "",
            "by": self.by[:_LONGEST_TEXT],
            "reason": self.reason[:_LONGEST_TEXT],
        }

    @property
    def text(self) -> str:
        """The pause as part of a sentence; it does not depend on the present time."""
        until = f"{self.until:%Y-%m-%d %H:%M:%S} UTC" if self.until else "now"
        reason = f": {printable(self.reason)}" if self.reason else ""
        return f"paused until {until} by {printable(self.by)}{reason}"

    def active(self, now: datetime, longest: float = LONGEST_PAUSE) -> bool:
        """Whether it suspends writes at this time; an end that no command could have set is ignored."""
        return self.until is not None and now < self.until <= now + timedelta(seconds=longest + _CLOCKS_APART)


def start_pause(now: datetime, seconds: float, by: str, reason: str = "", longest: float = LONGEST_PAUSE) -> Pause:
    """Pause from now on for some seconds, at least one: the record has whole ones."""
    end = now.astimezone(UTC) + timedelta(seconds=max(1.0, min(seconds, longest)))
    return Pause(end.replace(microsecond=0), by, reason)


def end_pause(by: str) -> Pause:
    """End a pause."""
    return Pause(None, by)


def read_pause(before: Pause | None, records: Mapping[str, Record]) -> Pause | None:
    """Return the pause that is on record; without a record that is the one of before."""
    record = records.get(PAUSE_RECORD)
    return before if record is None else parse(record.fields)


def parse(fields: Mapping[str, str]) -> Pause:
    """Read a record of this or another version; an end that cannot be read is none, so that no pause is endless."""
    until, by, reason = (
        value if isinstance(value := fields.get(name), str) else "" for name in ("until", "by", "reason")
    )
    try:
        end = datetime.fromisoformat(until)
        end = (end if end.tzinfo is not None else end.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):  # an end in the year 1 or 9999 leaves the calendar in another time zone
        return Pause(None, by)
    return Pause(end, by, reason)


def write_pause(records: Records, pause: Pause) -> None:
    """Write the record, also while others write it: the last write counts.

    Raises:
        openfactory_common.errors.PlatformError: it may or may not have been written.
    """
    _write(records, PAUSE_RECORD, lambda _before: pause.fields)


def read_marks(record: str, records: Mapping[str, Record], now: datetime) -> Mapping[str, Pause]:
    """Return what is in force for single groups, by group: pauses, or what `DELETIONS_RECORD` asks for."""
    longest = DELETION_SECONDS if record == DELETIONS_RECORD else LONGEST_GROUP_PAUSE
    found = records.get(record)
    try:
        marks = json.loads(found.fields.get("groups", "")) if found is not None else {}
    except (TypeError, ValueError, RecursionError):
        return {}
    if not isinstance(marks, dict):
        return {}
    parsed = {group: parse(fields) for group, fields in sorted(marks.items()) if isinstance(fields, dict)}
    return {group: mark for group, mark in parsed.items() if mark.active(now, longest)}


def write_mark(records: Records, record: str, group: str, mark: Pause | None, now: datetime) -> Pause | None:
    """Write what is in force for one group, None to end it, and return what it replaces; ended ones are left out.

    Raises:
        openfactory_common.errors.PlatformError: it may or may not have been written.
    """
    was: list[Pause | None] = []

    def change(before: Record | None) -> dict[str, str]:
        marks = dict(read_marks(record, {record: before} if before else {}, now))
        was.append(marks.pop(group, None))
        marks |= {group: mark} if mark is not None else {}
        return {"groups": json.dumps({name: marks[name].fields for name in sorted(marks)})}

    _write(records, record, change)
    return was[-1]


def _write(records: Records, name: str, change: Callable[[Record | None], Mapping[str, str]]) -> None:
    for left in reversed(range(_TRIES)):
        before = records.records().get(name)
        try:
            records.write_record(name, change(before), before)
        except PlatformConflict:
            if not left:
                raise
        else:
            return
