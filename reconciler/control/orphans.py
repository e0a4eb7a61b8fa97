"""Streams that no query writes and whose names tell nothing: whose they are, and of which group.

A stream's lineage is read from its query. One that lost its query has none, and once its group's service and
registry entry are gone its name alone would have to do, which proves nothing. Its own definition still tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from openfactory_common.errors import KsqlError, Retry, describe
from openfactory_common.registry import Identity
from reconciler.domain.names import STREAM_PREFIX, names_of
from reconciler.domain.observed import MapSnapshot, SourceState
from reconciler.ksqldb.api import Ksqldb
from reconciler.ksqldb.ownership import Whose
from reconciler.ksqldb.statements import Topology


@dataclass
class OrphanStreams:
    """Asks for the definitions of such streams, one at each look, so that a look costs one more read at most.

    One that is ours, or that we may not see, is asked about again in its turn, for somebody may have made another of
    its name; one that is somebody else's stays so while no query writes it. Before anything is done to a stream it is
    asked once more (`reconciler.control.executor`). While one has never been asked, nothing is removed
    (`reconciler.planning.guards`): nobody knows yet how many groups are missing.

    Attributes:
        ksqldb: is asked.
        topology: tells what could be ours, and what is; that of this look.
        on_error: told when a question failed, once for each new error of a stream.
        at_once: how many are asked about at a look; None for all of them, where there will be no other look.
    """

    ksqldb: Ksqldb
    topology: Topology
    on_error: Callable[[str, Exception], None] = lambda _name, _error: None
    at_once: int | None = 1

    def __post_init__(self) -> None:
        """Know nothing yet."""
        self._cluster: Identity | None = None
        self._known: Mapping[str, str] = {}
        self._errors: dict[str, str] = {}

    def observe(self, source: SourceState, membership: MapSnapshot) -> SourceState:
        """Add to what was read the statements that made such streams, and the names of those that are still to ask.

        A question that fails is put again after the others, at another look: it holds removals up and nothing else.
        """
        there = self._without_a_query(source, membership)
        known = {name: text for name, text in self._known.items() if name in there and self._cluster == source.identity}
        self._errors = {name: error for name, error in self._errors.items() if name in there}
        again = [name for name, text in known.items() if not text or self._is_ours(name, text)]
        never = sorted(there - known.keys() - self._errors.keys())
        failed = [name for name in self._errors if name not in known]  # the longest ago comes first
        for name in islice([*never, *failed, *again], self.at_once):
            known.pop(name, None)
            try:
                statement = statement_of(self.ksqldb, name)
            except Exception as error:  # noqa: BLE001 - this stream stays unknown, and nothing else suffers
                self._failed(name, error)
                continue
            self._errors.pop(name, None)
            if statement is not None:
                known[name] = statement
        self._known, self._cluster = known, source.identity
        return replace(
            source, orphans=known, unknown_owners={name: self._errors.get(name, "") for name in there - known.keys()}
        )

    def _failed(self, name: str, error: Exception) -> None:
        """Ask the others before this one, and say why once for each new error."""
        before = self._errors.pop(name, None)
        self._errors[name] = describe(error)
        if self._errors[name] != before:
            self.on_error(name, error)

    def _is_ours(self, name: str, text: str) -> bool:
        return self.topology.ownership(name, text).whose in (Whose.SHARED, Whose.GROUP)

    def _without_a_query(self, source: SourceState, membership: MapSnapshot) -> frozenset[str]:
        silent = [name for name in source.streams if name not in source.queries and self._could_be_ours(name)]
        if not silent:
            return frozenset()
        return frozenset(silent) - {names_of(group).stream for group in membership.groups}

    def _could_be_ours(self, name: str) -> bool:
        """The shared stream of today is left out: a plan puts it right by its name."""
        topology = self.topology
        return name.startswith(STREAM_PREFIX) or (topology.is_shared(name) and name != topology.shared_name)


def statement_of(ksqldb: Ksqldb, name: str) -> str | None:
    """Return what made a source; ``""`` where ksqlDB will never tell us, None where it is not there.

    Raises:
        openfactory_common.errors.KsqlError: it may tell another time.
    """
    try:
        found = ksqldb.describe_or_none(name)
    except KsqlError as error:
        if error.retry is not Retry.PERMANENT:
            raise
        return ""
    return found.statement if found else None
