"""Logging: one line an event, JSON in a container, coloured on a terminal; always on stderr."""

from __future__ import annotations

import logging
import math
import sys

import structlog
from structlog.typing import Processor

from openfactory_common.log_lines import RepeatedLines, escape_values, note_left_out
from openfactory_common.settings_types import LogLevel

#: Seconds in which an equal line is not written again: a full table of descriptors made 13 MB of them in 16 s.
REPEATED_AFTER = 10.0
#: Different lines that one place in the code may write in that time: the writes of a cycle are all logged.
PER_PLACE = 5_000

#: Without the values of local variables, which structlog shows by default: they have the credentials of the settings.
_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


def configure(level: LogLevel) -> None:
    """Log at ``level`` and above; standard library loggers (ours and of libraries) go the same way."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    human = sys.stderr.isatty()
    last: list[Processor] = (
        [structlog.processors.format_exc_info, escape_values, structlog.dev.ConsoleRenderer()]
        if human
        else [_TRACEBACKS, structlog.processors.JSONRenderer()]
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
            processors=[note_left_out, structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    handler.addFilter(RepeatedLines(REPEATED_AFTER, PER_PLACE))
    refused = RepeatedLines()  # what clients get wrong, each with a traceback, in words of theirs
    handler.addFilter(lambda record: record.name != "aiohttp.server" or refused.filter(record))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.value.upper())
    for name in ("httpx", "httpcore", "urllib3", "docker", "asyncio", "aiohttp.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


def only_once() -> None:
    """Write no line twice from now on: for a command that looks again and again until it is done."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(RepeatedLines(math.inf, PER_PLACE))
