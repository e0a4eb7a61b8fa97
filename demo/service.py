"""Settings from the environment, logs and signals of the simulated factory."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import structlog
import uvloop
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

CONFIGURATION_ERROR = 2
LogLevel = Annotated[
    str, BeforeValidator(lambda value: str(value).lower()), Field(pattern="^(debug|info|warning|error|critical)$")
]
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^/\s]+"), AfterValidator(lambda url: url.rstrip("/"))]


class ServiceSettings(BaseSettings):
    """The variables that every program of the demonstration reads; unknown ones are ignored.

    Attributes:
        ksqldb_url: where ksqlDB's REST API is.
        log_level: debug, info, warning, error or critical.
    """

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    ksqldb_url: HttpUrl = "http://localhost:8088"
    log_level: LogLevel = "info"


SettingsType = TypeVar("SettingsType", bound=BaseSettings)


def load(settings: type[SettingsType], **overrides: Any) -> SettingsType:
    """Read ``settings`` from the environment; ``overrides`` (not None) win over it.

    A bad value ends the program with exit code 2 and one clear line for each variable.
    """
    try:
        return settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        for fault in error.errors():
            name = "_".join(str(part) for part in fault["loc"]).upper()
            sys.stderr.write(f"{name}: {fault['msg']}\n")
        raise SystemExit(CONFIGURATION_ERROR) from None


def configure_logging(level: str) -> None:
    """Log to stderr: coloured lines on a terminal, JSON elsewhere."""
    renderer: Any = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def run(program: Coroutine[Any, Any, int | None]) -> int:
    """Run ``program`` on uvloop and return its exit code; an interrupt from the keyboard is a normal end."""
    try:
        return uvloop.run(program) or 0
    except KeyboardInterrupt:
        return 0


def until_stopped() -> Coroutine[Any, Any, object]:
    """Return what completes at SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return stopped.wait()
