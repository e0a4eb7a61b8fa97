"""Each line on standard error in one form, including those of libraries and of uncaught exceptions.

A line is a JSON object in a container and coloured text on a terminal. Text from elsewhere is escaped (`text.py`).
Repetition does not fill a disk: an equal line appears once per interval, and one place in the code writes a limited
number of different lines per interval; the next line says how many were left out.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from openfactory_common.text import printable

# structlog imports rich for tracebacks that are not used here: 150 of the 250 ms of processor time of its import.
_WITHOUT_RICH = "rich" not in sys.modules
if _WITHOUT_RICH:
    sys.modules["rich"] = None  # type: ignore[assignment]  # makes "import rich" fail
import structlog  # noqa: E402 - after the line above
from structlog.typing import EventDict, Processor  # noqa: E402

if _WITHOUT_RICH:
    del sys.modules["rich"]

#: Different lines that the operator writes from one place within an interval: all writes of a cycle are logged.
PER_PLACE = 5_000
#: The same for lines whose text clients choose.
PER_PLACE_OF_CLIENTS = 30
#: Lines and places that are remembered at most.
_REMEMBERED = 1000
_MULTILINE = ("exception", "stack")
#: What differs between two equal lines.
_DIFFERS = ("timestamp", "reconcile_id")
#: What differs in a library's line: an object's address in memory, and a time. Measured: when descriptors run out,
#: asyncio writes 2 kB for each of the 128 clients that it tried to accept at once.
_OBJECTS = re.compile(r"0x[0-9a-f]+|\d+\.\d{4,}")
#: Without the values of local variables, which structlog shows by default: they contain credentials.
_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


def configure(level: str, *, interval: float = 10.0, per_place: int = PER_PLACE, cache: bool = False) -> None:
    """Log to standard error: structlog, logging, warnings, uncaught exceptions.

    Args:
        level: the least severe level that is written, ``debug`` ... ``critical``.
        interval: seconds within which an equal line is not repeated. (A full table of descriptors made 13 MB in 16 s.)
        per_place: different lines that one place in the code may write within the interval.
        cache: keep each logger as it is at its first line, which is faster; a later call does not change it.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = (
        [structlog.processors.format_exc_info, _escape_values, structlog.dev.ConsoleRenderer()]
        if sys.stderr.isatty()
        else [_TRACEBACKS, _escape_values, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=cache,
    )
    handler = _Handler(sys.stderr)
    ours, of_clients = RepeatedLines(interval, per_place), RepeatedLines()
    handler.addFilter(lambda record: (of_clients if record.name == "aiohttp.server" else ours).filter(record))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*before, structlog.stdlib.add_logger_name],
            processors=[_add_left_out, structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in ("asyncio", "aiohttp", "httpx", "httpcore", "urllib3", "docker"):
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def only_once() -> None:
    """Write no line twice from now on: for a command that repeats its reads until it is done."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(RepeatedLines(math.inf, PER_PLACE))


class RepeatedLines(logging.Filter):
    """Leaves out recent lines; lines of DEBUG always pass. Safe to use from several threads."""

    def __init__(
        self,
        interval: float = 60.0,
        per_place: int = PER_PLACE_OF_CLIENTS,
        clock: Callable[[], float] = time.monotonic,
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
            left_out = self._count(self._lines, (place, _content_of(record)), 1)
            if left_out is not None:
                more = self._count(self._places, place, self._per_place)
                left_out = None if more is None else left_out + more
        if left_out:
            record.left_out = int(left_out)
        return left_out is not None

    def _count(self, table: OrderedDict[object, list[float]], key: object, most: int) -> float | None:
        """Return how many were left out before this one, None where this one is left out too."""
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


def _content_of(record: logging.LogRecord) -> object:
    """Return what makes two lines equal: all of the line except its time."""
    if isinstance(record.msg, dict):
        return hash(repr([(key, value) for key, value in record.msg.items() if key not in _DIFFERS]))
    error = record.exc_info[1] if record.exc_info else None
    return hash(_OBJECTS.sub("", repr((record.msg, record.args, error))))


def _escape_values(_logger: object, _name: str, event: EventDict) -> EventDict:
    """Escape text; the renderers escape what is in lists."""
    for key, value in event.items():
        if not isinstance(value, bool | int | float | list | dict | None):
            event[key] = printable(str(value), keep="\n\t" if key in _MULTILINE else "")
    return event


def _add_left_out(_logger: object, _name: str, event: EventDict) -> EventDict:
    left_out = getattr(event.get("_record"), "left_out", 0)
    return {**event, "left_out": left_out} if left_out else event


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


def _log_uncaught(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt | SystemExit):
        found = error if error is not None else kind()
        logging.getLogger("uncaught").critical("uncaught exception", exc_info=(kind, found, traceback))
