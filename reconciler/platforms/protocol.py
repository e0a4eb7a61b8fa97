"""The interface of a deployment platform.

`ServiceSpec` is the desired state of a service; a platform translates it into its own form and translates live services
back into a `ServiceSpec`, so that drift is the difference of two values and the plan depends on no engine.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from reconciler.domain.facts import EngineFacts
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
#: Id of the installation that an object belongs to: distinguishes two with the same owner id.
INSTALLATION = f"{LABEL}installation"
#: `LiveService.failed` and `LiveService.failure` of a service.
FAILED = f"{LABEL}failed"
FAILURE = f"{LABEL}failure"
#: Bytes of the ``/tmp`` of a hardened service; its content counts as the service's memory.
TMP_BYTES = 64 * 1024 * 1024
#: Seconds for which a task must have run before the end of the one before it is history; a platform starts one that
#: ended again within a few seconds.
STEADY_AFTER = 15.0


def label_failure(failed: str, failure: str) -> dict[str, str]:
    """Return the labels of a service that say which spec failed, and why; none where none did."""
    return {label: value for label, value in ((FAILED, failed), (FAILURE, failure)) if value}


class Records(Protocol):
    """Storage for what the operators of one owner must agree on; it has the lifetime of the platform's own state.

    Reads are never older than the last confirmed write. Errors are those of `Platform`.
    """

    def records(self) -> Mapping[str, Record]:
        """Read all records of ours, by name, with one call."""

    def write_record(self, name: str, fields: Mapping[str, str], before: Record | None) -> None:
        """Replace ``before``, or create it; `PlatformConflict` if the record is no longer equal to ``before``."""

    def remove_record(self, record: Record) -> None:
        """Remove it, also if it has changed; one that is already gone is no error."""


class Platform(Records, Protocol):
    """A platform that runs services.

    Every method raises `openfactory_common.errors.PlatformError` or a subclass and nothing else on purpose; a read
    that is not complete raises. No method retries a write: the next cycle observes again.
    """

    def observe(self, suspects: Collection[str] = ()) -> PlatformState:
        """Read everything with a fixed number of calls (Swarm: at most 3), whatever the number of groups.

        ``suspects`` are names of services, in lower case, that may end right after each start: `LiveService.error` says
        so of them also where their tasks happen to run now.
        """

    def create_service(self, spec: ServiceSpec) -> None:
        """Create it; `PlatformConflict` if the name is taken."""

    def update_service(self, live: LiveService, spec: ServiceSpec, failed: str = "", failure: str = "") -> None:
        """Make ``live`` equal to ``spec``, at the version that was read; otherwise `PlatformConflict`.

        ``failed`` and ``failure`` are stored with the service and read back as those of `LiveService`; empty ones clear
        what was stored. Storing them replaces no task. Rollouts need them, and `LiveService.previous`, to roll back;
        a platform that keeps none of the three ignores them.

        It is also called with the spec that ``live`` has, where more tasks run than wanted (`LiveService.has_surplus`):
        those that are too many are to end, and the others stay.
        """

    def remove_service(self, live: LiveService) -> None:
        """Remove it; one that is already gone is no error."""

    def publish_registry(self, data: bytes, revision: str, sequence: int) -> None:
        """Make the document current: create it under its content's name, or renew the one that exists."""

    def remove_registry(self, registry: LiveRegistry) -> None:
        """Remove a document that nothing mounts; one that is already gone is no error."""

    def close(self) -> None:
        """Release connections."""


class Reference(StrEnum):
    """Something that a spec refers to, that is not ours and must exist."""

    NETWORK = "network"
    SECRET = "secret"  # noqa: S105 - a word, not a secret


@runtime_checkable
class Inspectable(Protocol):
    """An optional part of a `Platform`: it describes its engine, for ``doctor``. It only reads."""

    def inspect(self, network: str, images: Collection[str]) -> EngineFacts:
        """Return what the engine says of itself, of this network and of these images.

        Raises:
            PlatformError: it does not answer.
        """


@runtime_checkable
class Checkable(Protocol):
    """An optional part of a `Platform`: it finds missing references before a write.

    Only commands use it, such as ``plan``. A platform that creates what is missing, or cannot check, leaves it out.
    """

    def missing_references(self, kind: Reference, names: Collection[str]) -> Mapping[str, str]:
        """Return those of the names that services could not use, each with a predicate: why, and what helps.

        Raises:
            PlatformError: the read failed.
        """


@dataclass(frozen=True)
class LogLine:
    """One line that a task has written: ``task`` as a person finds it, ``ofa_group_Weld.1``."""

    task: str
    text: str


@runtime_checkable
class TaskLogs(Protocol):
    """An optional part of a `Platform`: it reads what tasks write.

    Only the command ``logs`` uses it. A platform that keeps no output of its tasks leaves it out.
    """

    def task_logs(self, live: LiveService, tail: int, *, follow: bool) -> Iterator[LogLine]:
        """Return the last ``tail`` lines of each task of a service; with ``follow`` also all new ones, without end.

        Raises:
            PlatformError: the read failed, perhaps after some lines.
        """
