"""A healthcheck in the form that both platforms send and read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.domain.services import Healthcheck

_SECOND = 1_000_000_000


def write_healthcheck(check: Healthcheck | None) -> dict[str, Any] | None:
    """Return a healthcheck as an engine takes it; None for the image's own."""
    if check is None:
        return None
    return {
        "Test": ["CMD-SHELL", check.command],
        "Interval": round(check.interval * _SECOND),
        "Timeout": round(check.timeout * _SECOND),
        "StartPeriod": round(check.start_period * _SECOND),
        "Retries": check.retries,
    }


def read_healthcheck(raw: Mapping[str, Any] | None) -> Healthcheck | None:
    """Read a healthcheck back; None where there is none of our form (see `is_other_healthcheck`)."""
    given = raw or {}
    match given.get("Test"):
        case ["CMD-SHELL", str(command)]:
            interval, timeout, start = (
                (given.get(name) or 0) / _SECOND for name in ("Interval", "Timeout", "StartPeriod")
            )
            return Healthcheck(command, interval, timeout, given.get("Retries") or 0, start)
    return None


def is_other_healthcheck(raw: Mapping[str, Any] | None) -> bool:
    """Whether a healthcheck is set that no spec of ours has: another form, or a setting of a later engine."""
    given = {name: value for name, value in (raw or {}).items() if value}
    wanted = write_healthcheck(read_healthcheck(raw)) or {}
    return given != {name: value for name, value in wanted.items() if value}
