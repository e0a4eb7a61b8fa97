"""What the operator asks of a deployment platform, in the platform's absence.

`ServiceSpec` says what a service should be; a platform turns it into its own words and turns what is live back
into a `ServiceSpec`, so that drift is the difference of two values and the plan needs to know no engine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Protocol, runtime_checkable

from reconciler.domain.services import (
    LiveRegistry,
    LiveService,
    PlatformState,
    Record,
    ServiceSpec,
)

LABEL = "org.openfactory."
OWNER = f"{LABEL}owner"
KIND = f"{LABEL}kind"
GROUP = f"{LABEL}group"
#: Id of the installation that an object is of: what tells two with the same owner id apart.
INSTALLATION = f"{LABEL}installation"
#: Bytes of the ``/tmp`` of a hardened service; what is written there counts as its memory.
TMP_BYTES = 64 * 1024 * 1024


class Records(Protocol):
    """Where the operators of one owner keep what they must agree on; it lives and dies with the platform's own state.

    Reads are never older than the last write that was answered. Errors are those of `Platform`.
    """

    def records(self) -> Mapping[str, Record]:
        """Read all records of ours, by name, with one call."""

    def write_record(self, name: str, fields: Mapping[str, str], before: Record | None) -> None:
        """Replace what ``before`` says, or create it; `PlatformConflict` if it is not as ``before`` any more."""

    def remove_record(self, record: Record) -> None:
        """Remove it, whatever it says by now; one that is already gone is no error."""


class Platform(Records, Protocol):
    """A place where services run.

    Every method raises `openfactory_common.errors.PlatformError` or a subclass and nothing else on purpose; a read
    that is not complete raises. No method retries a write: the next cycle looks again.
    """

    def observe(self) -> PlatformState:
        """Read everything with a fixed number of calls (Swarm: at most 3), whatever the number of groups."""

    def create_service(self, spec: ServiceSpec) -> None:
        """Create it; a name that is taken is a `PlatformConflict`."""

    def update_service(self, live: LiveService, spec: ServiceSpec) -> None:
        """Make ``live`` equal to ``spec``, at the version that was read; otherwise `PlatformConflict`."""

    def remove_service(self, live: LiveService) -> None:
        """Remove it; one that is already gone is no error."""

    def publish_registry(self, data: bytes, revision: str, sequence: int) -> None:
        """Make the document current: create it under its content's name, or renew the one that exists."""

    def remove_registry(self, registry: LiveRegistry) -> None:
        """Remove a document that nothing mounts; one that is already gone is no error."""

    def close(self) -> None:
        """Release connections."""


class Reference(StrEnum):
    """Something that a spec names, that is not ours and must be there."""

    NETWORK = "network"
    SECRET = "secret"  # noqa: S105 - a word, not a secret


@runtime_checkable
class Checkable(Protocol):
    """What a `Platform` may have besides: it can tell before a write what the write would miss.

    Only commands ask, such as ``plan``. A platform that makes what is missing, or cannot tell, leaves this out.
    """

    def missing_references(self, kind: Reference, names: Collection[str]) -> Mapping[str, str]:
        """Return those of the names that services could not use, each with a predicate: why, and what helps.

        Raises:
            PlatformError: it cannot be told.
        """
