"""The history of an operator: what it decided and what changed, each with its cause, in memory and bounded.

A line of the log and an entry come from one call, so they have the same words. An entry is kept whatever `LOG_LEVEL`
says. What repeats makes no entry: a problem of one object that is the same as before, except for counts, times and ids,
is one entry until something else happens to that object, or until it has not been said for a quarter of an hour.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

#: Entries that are kept.
KEPT = 1000
#: Objects of which the last problem is remembered.
_REMEMBERED = 5000
#: For how long a repeated problem makes no entry; a failed write is repeated every 5 minutes.
_SAME_FOR = timedelta(minutes=15)
#: Counts, times and ids, which change while the reason is the same.
_VARYING = re.compile(r"[0-9a-f]{12,}|\d+")
#: User and password of a URL within a text.
_CREDENTIALS = re.compile(r"(\w://)[^/\s@]*@")
#: Fields that an entry has as attributes of its own, and those that are for the log alone.
_ATTRIBUTES = ("object", "group", "reason", "error", "exc_info")

log = structlog.get_logger()


def strip_varying(text: str) -> str:
    """Return a reason without its counts, times and ids, so that equal reasons compare equal."""
    return _VARYING.sub("#", text)


@dataclass(frozen=True)
class Entry:
    """One decision or transition.

    Attributes:
        id: grows with every entry, also across restarts: the time in milliseconds, or one more than the last.
        at: when it was recorded (UTC).
        level: ``info``, ``warning`` or ``error``.
        event: what happened, in the words of the log line.
        object: the object that it happened to, None for the whole installation.
        group: the group that the object serves, None where it serves all.
        reason: why, None where the event says it.
        fields: the other fields of the log line.
    """

    id: int
    at: datetime
    level: str
    event: str
    object: str | None
    group: str | None
    reason: str | None
    fields: Mapping[str, Any]

    def concerns(self, group: str) -> bool:
        """Whether it happened to this group, or to several of which it is one."""
        return self.group == group or group in self.fields.get("groups", ())


class Journal:
    """Writes lines to the log and keeps them as entries; safe to use from several threads.

    Attributes:
        on_entry: called after each new entry, in the thread that has made it.
        logs: whether lines go to the log, too. A command that shows what it has read says all of it there.
    """

    logs = True

    def __init__(self, wall: Callable[[], datetime] = lambda: datetime.now(UTC), kept: int = KEPT) -> None:
        """Keep the last ``kept`` entries; ``wall`` is the time of day."""
        self.on_entry: Callable[[], None] = lambda: None
        self._wall = wall
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque(maxlen=kept)
        #: The last id that is not kept: an earlier process may have had entries until then.
        self._lost = self._last = _to_id(wall())
        self._problems: OrderedDict[str, dict[str, tuple[object, datetime]]] = OrderedDict()

    def info(self, event: str, **fields: Any) -> None:
        """Log and keep something that happened."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log a problem, and keep it if it is new."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log a bug, and keep it if it is new."""
        self._write("error", event, fields)

    @property
    def last(self) -> int:
        """The id of the last entry; before the first, that of the start."""
        return self._last

    @property
    def first(self) -> int | None:
        """The id of the oldest entry that is kept; None where there is none."""
        with self._lock:
            return self._entries[0].id if self._entries else None

    def has_lost(self, since: int) -> bool:
        """Whether entries after this id may be gone: they were too many, or of a process before this one."""
        return since < self._lost

    def after(self, since: int = 0, group: str | None = None, limit: int = KEPT) -> tuple[Entry, ...]:
        """Return the newest entries after an id, of one group or of all, oldest first."""
        with self._lock:
            found = [one for one in self._entries if one.id > since and (group is None or one.concerns(group))]
        return tuple(found[max(0, len(found) - limit) :])

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        event, fields = _mask(event), {name: _mask(value) for name, value in fields.items()}
        is_new = self._record(level, event, fields)
        if self.logs or level == "error":  # a bug's traceback is nowhere else
            getattr(log, level)(event, **fields)
        if is_new:
            self.on_entry()

    def _record(self, level: str, event: str, fields: Mapping[str, Any]) -> bool:
        now = self._wall()
        with self._lock:
            if self._is_repeated(level, event, fields, now):
                return False
            if len(self._entries) == self._entries.maxlen:
                self._lost = self._entries[0].id
            self._last = max(self._last + 1, _to_id(now))
            reason = fields.get("reason") or fields.get("error")
            self._entries.append(
                Entry(
                    id=self._last,
                    at=now.astimezone(UTC),
                    level=level,
                    event=event,
                    object=fields.get("object"),
                    group=fields.get("group"),
                    reason=None if reason is None else str(reason),
                    fields={name: value for name, value in fields.items() if name not in _ATTRIBUTES},
                )
            )
        return True

    def _is_repeated(self, level: str, event: str, fields: Mapping[str, Any], now: datetime) -> bool:
        """Whether the object had this problem before; what is no problem ends those that it had."""
        subject = str(fields.get("object") or "")
        if level == "info":
            if subject:
                self._problems.pop(subject, None)
            return False
        problems = self._problems.setdefault(subject, {})
        self._problems.move_to_end(subject)
        if len(self._problems) > _REMEMBERED:
            self._problems.popitem(last=False)
        news = strip_varying(repr(sorted((name, str(value)) for name, value in fields.items() if name != "exc_info")))
        kind = event if subject else strip_varying(event)
        before = problems.get(kind)
        problems[kind] = (news, now)
        return before is not None and before[0] == news and now - before[1] < _SAME_FOR


def _to_id(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _mask(value: Any) -> Any:
    """Return a field without the credentials that a URL in it may have."""
    if type(value) is str:
        return _CREDENTIALS.sub(r"\1***@", value)
    return [_mask(one) for one in value] if isinstance(value, list | tuple) else value
