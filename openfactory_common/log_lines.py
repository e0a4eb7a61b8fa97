"""Every line of a program's standard error in one form, that of libraries and of uncaught exceptions included.

A line is a JSON object in a container and coloured text on a terminal. Text of others is escaped (`text.py`).
What repeats does not fill a disk: equal lines appear once per interval, and one place in the code writes a limited
number of different lines per interval; the next line says how many were left out.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from openfactory_common.text import printable

#: Seconds within which a line that is equal to an earlier one is left out.
INTERVAL = 60.0
#: Different lines that one place in the code may write within the interval (their text may come from clients).
PER_PLACE = 30
#: Lines and places that are remembered at most.
_REMEMBERED = 1000
_MULTILINE = ("exception", "stack")
#: What differs between two lines that say the same.
_DIFFERS = ("timestamp", "reconcile_id")
#: Likewise in a library's line: an object's address in memory, and a time. Measured: where descriptors have run out,
#: asyncio writes 2 kB for each of the 128 clients that it tried to accept at once.
_OBJECTS = re.compile(r"0x[0-9a-f]+|\d+\.\d{4,}")


class RepeatedLines(logging.Filter):
    """Leaves out what was written a moment ago; lines of DEBUG always pass. Safe to use from several threads."""

    def __init__(
        self, interval: float = INTERVAL, per_place: int = PER_PLACE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start with nothing written."""
        super().__init__()
        self._interval = interval
        self._per_place = per_place
        self._clock = clock
        self._lock = threading.Lock()
        #: Until when, how many have passed, how many were left out.
        self._lines: OrderedDict[object, list[float]] = OrderedDict()
        self._places: OrderedDict[object, list[float]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is to be written; counts what was left out before it into ``record.left_out``."""
        if record.levelno <= logging.DEBUG:
            return True
        place = (record.pathname, record.lineno)
        with self._lock:
            left_out = self._passes(self._lines, (place, _said(record)), 1)
            if left_out is not None:
                more = self._passes(self._places, place, self._per_place)
                left_out = None if more is None else left_out + more
        if left_out:
            record.left_out = int(left_out)
        return left_out is not None

    def _passes(self, table: OrderedDict[object, list[float]], key: object, most: int) -> float | None:
        now = self._clock()
        entry = table.get(key)
        if entry is None or entry[0] <= now:
            left_out = entry[2] if entry is not None else 0.0
            table[key] = [now + self._interval, 1, 0]
            table.move_to_end(key)
            if len(table) > _REMEMBERED:
                table.popitem(last=False)
            return left_out
        if entry[1] < most:
            entry[1] += 1
            return 0.0
        entry[2] += 1
        return None


def _said(record: logging.LogRecord) -> object:
    """Return what makes two lines equal: all of the line but when it was said."""
    if isinstance(record.msg, dict):
        return hash(repr([(key, value) for key, value in record.msg.items() if key not in _DIFFERS]))
    error = record.exc_info[1] if record.exc_info else None
    return hash(_OBJECTS.sub("", repr((record.msg, record.args, error))))


def escape_values(_logger: object, _name: str, event: EventDict) -> EventDict:
    """Escape each value; numbers and the like stay as they are."""
    for key, value in event.items():
        if not isinstance(value, bool | int | float | None):
            event[key] = printable(str(value), keep="\n\t" if key in _MULTILINE else "")
    return event


def note_left_out(_logger: object, _name: str, event: EventDict) -> EventDict:
    """Say how many lines `RepeatedLines` left out before this one."""
    record = event.get("_record")
    left_out = getattr(record, "left_out", 0)
    if left_out:
        event["left_out"] = left_out
    return event


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines; one that cannot be formatted is a line in the same form."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say which line could not be written."""
        error = sys.exc_info()[1]
        place = f"{record.name}: {record.pathname}:{record.lineno}"
        line = {"level": "error", "event": printable(f"a log line cannot be written ({place}): {error!r}")}
        try:
            self.stream.write(json.dumps(line) + "\n")
        except (OSError, ValueError):  # standard error is closed: there is no place left to say it
            return


def install(level: int, stream: TextIO | None = None) -> None:
    """Log at ``level`` and above to ``stream`` (standard error): structlog, logging, warnings, uncaught exceptions."""
    stream = sys.stderr if stream is None else stream
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    human = stream.isatty()
    last: Processor = (
        structlog.dev.ConsoleRenderer() if human else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(stream)
    handler.addFilter(RepeatedLines())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*before, structlog.stdlib.add_logger_name],
            processors=[
                note_left_out,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                escape_values,
                last,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("asyncio", "aiohttp", "httpx", "httpcore", "urllib3", "docker"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> Any:
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    found = error if error is not None else kind()
    logging.getLogger("uncaught").critical("an exception that nothing caught", exc_info=(kind, found, traceback))
