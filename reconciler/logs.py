"""Logging: one line an event, JSON in a container, coloured on a terminal; always on stderr."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

from reconciler.settings import LogLevel
from reconciler.text import safe_lines

#: Seconds in which a warning is not written again: a full table of descriptors made 13 MB of equal lines in 16 s.
REPEATED_AFTER = 10.0
_MOST_KNOWN = 1000
#: What differs between two lines that say the same.
_DIFFERS = ("timestamp", "reconcile_id")


def configure(level: LogLevel) -> None:
    """Log at ``level`` and above; standard library loggers (ours and of libraries) go the same way."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    human = sys.stderr.isatty()
    # Without the values of variables: among them are passwords.
    as_dicts = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
    last: list[Processor] = (
        [structlog.processors.format_exc_info, _printable, structlog.dev.ConsoleRenderer()]
        if human
        else [as_dicts, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.value.upper())),
        cache_logger_on_first_use=False,  # a few lines a cycle; a cached logger keeps an older configuration
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    handler.addFilter(Repeats(logging.WARNING, REPEATED_AFTER))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.value.upper())
    for name in ("httpx", "httpcore", "urllib3", "docker", "asyncio", "aiohttp.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


def only_once() -> None:
    """Write no line twice from now on, whatever its level: for a command that looks every second until it is done."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(Repeats(logging.NOTSET, math.inf))


class Repeats(logging.Filter):
    """Lets equal lines through once in an interval; the next one says how many were left out."""

    def __init__(self, level: int, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Look at lines of ``level`` and above; ``interval`` is in seconds."""
        super().__init__()
        self._level = level
        self._interval = interval
        self._clock = clock
        self._known: dict[object, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line is written."""
        if record.levelno < self._level:
            return True
        key, now = _meaning(record), self._clock()
        written, left_out = self._known.get(key, (-math.inf, 0))
        if now - written < self._interval:
            self._known[key] = (written, left_out + 1)
            return False
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[key] = (now, 0)
        if left_out and isinstance(record.msg, dict):
            record.msg["repeated"] = left_out
        elif left_out:
            record.msg = f"{record.msg} ({left_out} equal lines left out)"
        return True


def _meaning(record: logging.LogRecord) -> object:
    """Return what a line says, without when it was said."""
    if isinstance(record.msg, dict):  # structlog's
        return tuple(sorted((name, repr(value)) for name, value in record.msg.items() if name not in _DIFFERS))
    return record.name, record.levelno, str(record.msg), repr(record.args)


def _printable(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Keep what other people typed from commanding the terminal."""
    return {name: safe_lines(value) if isinstance(value, str) else value for name, value in event.items()}
