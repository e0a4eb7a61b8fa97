"""Whether a service's tasks serve, as they say themselves. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class ReadyState(StrEnum):
    """What the probes of a service's tasks found."""

    READY = "ready"
    NOT_READY = "not ready"
    #: The operator cannot reach the services' network, so the engine's view counts.
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Readiness:
    """The readiness of one service, of the version that its tasks run.

    Attributes:
        state: of all tasks together: ready if each of them is.
        text: why it is not ready, for a person; a note about how it was found out otherwise, or ``""``.
        since: monotonic seconds at which it entered this state; no part of its value, as it is never the same twice.
    """

    state: ReadyState
    text: str = ""
    since: float = field(default=0.0, compare=False)
