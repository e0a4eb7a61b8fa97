"""The kinds of numbers that settings are: each with the limits beyond which it can only be a mistake."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)\s*")
_CENTURY = 3_155_760_000.0
_DAY = 86_400.0
#: Of a processor, that a container can be limited to (engine 20.10 and later).
_LEAST_CORES = 0.01


def seconds(value: Any) -> Any:
    """Read ``90``, ``90s``, ``1.5m``, ``168h`` or ``7d`` as seconds."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ValueError(f"{value!r} is not a duration: use seconds, or a number with ms, s, m, h or d")
    return float(match[1]) * _UNITS[match[2]]


def cores(value: float) -> float:
    """Refuse a part of a core that the engine refuses, when the first service is made with it."""
    if 0 < value < _LEAST_CORES:
        raise ValueError(f"it must be 0 (none) or at least {_LEAST_CORES:g} cores: the engine takes no less")
    return value


Seconds = Annotated[float, BeforeValidator(seconds), Field(ge=0, le=_CENTURY)]
"""A time that may be nothing."""
Limit = Annotated[float, BeforeValidator(seconds), Field(gt=0, le=_DAY)]
"""A time after which something is done: never at once, and within a day."""
Wait = Annotated[float, BeforeValidator(seconds), Field(ge=0, le=_DAY)]
"""A time that is waited for: it may be nothing, and is over within a day."""
Retention = Annotated[float, BeforeValidator(seconds), Field(ge=1, le=_CENTURY)]
"""How long Kafka keeps events; nothing would be kept for less than a second."""
Cores = Annotated[float, Field(ge=0, le=4096), AfterValidator(cores)]
Tasks = Annotated[int, Field(ge=0, le=10_000)]
TcpPort = Annotated[int, Field(ge=1, le=65535)]
