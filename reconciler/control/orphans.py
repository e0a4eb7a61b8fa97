"""Orphan streams: no query writes them. Whose are they, and of which group?

A stream's lineage is read from its query. One that lost its query, or that a user made over a topic, has none, and its
name alone proves nothing. Its own definition says so.
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
    """Reads the definitions of such streams, one in each cycle, so that a cycle costs one more read at most.

    One that is ours, or that we may not see, is read again in its turn, for it may have been replaced under its name;
    one of another owner stays so while no query writes it. Before anything is done to a stream its definition is read
    once more (`reconciler.control.executor`). While one that no asset's group has has never been read, nothing is
    removed (`reconciler.planning.guards`): it is unknown how many groups are missing.

    Attributes:
        ksqldb: is read from.
        topology: says what could be ours, and what is; that of this cycle.
        on_error: called when a read failed, once for each new error of a stream.
        at_once: how many are read in a cycle; None for all of them, where there will be no other cycle.
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
        """Add the statements that made such streams, and the names of those whose statement is still unknown.

        A read that fails is repeated after the others, in another cycle: it suspends removals and nothing else.
        """
        orphans = self._find_orphans(source)
        wanted = {names_of(group).stream for group in membership.groups} if orphans else set()
        known = {
            name: text for name, text in self._known.items() if name in orphans and self._cluster == source.identity
        }
        self._errors = {name: error for name, error in self._errors.items() if name in orphans}
        again = [name for name, text in known.items() if not text or self._is_ours(name, text)]
        never = sorted(orphans - known.keys() - self._errors.keys(), key=lambda name: (name in wanted, name))
        failed = [name for name in self._errors if name not in known]  # the longest ago comes first
        for name in islice([*never, *failed, *again], self.at_once):
            known.pop(name, None)
            before = self._errors.pop(name, None)
            try:
                statement = read_statement(self.ksqldb, name)
            except Exception as error:  # noqa: BLE001 - this stream stays unknown; all others are unaffected
                self._errors[name] = describe(error)
                if self._errors[name] != before:
                    self.on_error(name, error)
                continue
            if statement is not None:
                known[name] = statement
        self._known, self._cluster = known, source.identity
        unknown = {name: self._errors.get(name, "") for name in orphans - known.keys() - wanted}
        return replace(source, orphans=known, unknown_owners=unknown)

    def _is_ours(self, name: str, text: str) -> bool:
        return self.topology.ownership(name, text).whose in (Whose.SHARED, Whose.GROUP)

    def _find_orphans(self, source: SourceState) -> frozenset[str]:
        """Return streams that could be ours; today's shared stream is not among them: a plan repairs it by its name."""
        topology = self.topology
        return frozenset(
            name
            for name in source.streams
            if name not in source.queries
            and (name.startswith(STREAM_PREFIX) or (topology.is_shared(name) and name != topology.shared_name))
        )


def read_statement(ksqldb: Ksqldb, name: str) -> str | None:
    """Return what made a source; ``""`` where ksqlDB will never say so, None where the source does not exist.

    Raises:
        openfactory_common.errors.KsqlError: it may be readable later.
    """
    try:
        found = ksqldb.describe_or_none(name)
    except KsqlError as error:
        if error.retry is not Retry.PERMANENT:
            raise
        return ""
    return found.statement if found else None
