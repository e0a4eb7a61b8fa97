"""Whether a service's tasks serve, as they say themselves. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class ReadyState(StrEnum):
    """What the probes of a service's tasks found."""

    READY = "ready"
    NOT_READY = "not ready"
    #: The operator cannot reach the services' network, so the engine's view counts.
    UNREACHABLE = "unreachable"


class ProbeResult(StrEnum):
    """What one task answered; the values of the label ``result`` of ``reconciler_probes_total``."""

    READY = "ready"
    NOT_READY = "not_ready"
    #: It serves another group: the address is a stale one.
    OTHER_GROUP = "other_group"
    REFUSED = "refused"
    NO_ANSWER = "no_answer"
    NO_HTTP = "no_http"
    #: The service's name does not resolve.
    NO_NAME = "no_name"


@dataclass(frozen=True)
class Readiness:
    """The readiness of one service, of the version that its tasks run.

    Attributes:
        state: of all tasks together: ready if each of them is.
        text: why it is not ready, for a person; otherwise a note about how that was found out, or ``""``.
        since: monotonic seconds at which it entered this state; no part of its value, as it is never the same twice.
    """

    state: ReadyState
    text: str = ""
    since: float = field(default=0.0, compare=False)


def find_readiness(known: Mapping[str, Readiness] | None, key: str) -> Readiness | None:
    """Return the readiness of a service by its name in lower case: not ready before the first probe.

    None where nothing is probed.
    """
    return None if known is None else known.get(key, Readiness(ReadyState.NOT_READY))


def is_known_unready(known: Mapping[str, Readiness] | None, key: str) -> bool:
    """Tell whether a probe found a service not ready; one that was not probed yet proves nothing."""
    found = (known or {}).get(key)
    return found is not None and found.state is ReadyState.NOT_READY
