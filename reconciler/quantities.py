"""The kinds of numbers that settings are: each with the limits beyond which it can only be a mistake."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)\s*")
_CENTURY = 3_155_760_000.0


def seconds(value: Any) -> Any:
    """Read ``90``, ``90s``, ``1.5m``, ``168h`` or ``7d`` as seconds."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ValueError(f"{value!r} is not a duration: use seconds, or a number with ms, s, m, h or d")
    return float(match[1]) * _UNITS[match[2]]


Seconds = Annotated[float, BeforeValidator(seconds), Field(ge=0, le=_CENTURY)]
Limit = Annotated[float, BeforeValidator(seconds), Field(gt=0, le=_CENTURY)]
Cores = Annotated[float, Field(ge=0, le=4096)]
Tasks = Annotated[int, Field(ge=0, le=10_000)]
TcpPort = Annotated[int, Field(ge=1, le=65535)]
