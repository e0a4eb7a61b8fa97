"""Logging: one line an event, JSON in a container, coloured on a terminal; always on stderr."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import Processor

from reconciler.settings import LogLevel

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
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
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
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.value.upper())
    for name in ("httpx", "httpcore", "urllib3", "docker", "asyncio", "aiohttp.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
