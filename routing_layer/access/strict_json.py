"""JSON that every parser reads alike. Pure."""

from __future__ import annotations

import json
import math
from typing import Any


def parse_json(data: bytes) -> Any:
    """Return the value of a document.

    Raises:
        ValueError: it is not JSON in UTF-8, or parsers differ about it: a name that an object has twice, NaN, a number
            that is too large, thousands of levels. The message has nothing of the document.
    """
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_unique_names, parse_constant=_refuse_constant, parse_float=_finite
        )
    except (ValueError, RecursionError):
        raise ValueError("not a JSON document without ambiguities") from None


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number
