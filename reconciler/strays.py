"""Streams that no query writes and whose names tell nothing: whose they are, and of which group.

A stream's lineage is read from its query. One that lost its query has none, and once its group's service and
registry entry are gone its name alone would have to do, which proves nothing. Its own definition still tells.
"""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.ksqldb.topology import Topology
from reconciler.model import Membership, SourceState
from reconciler.names import STREAM_PREFIX, names_of
from reconciler.ports import Ksqldb


class Strays:
    """Asks for the definitions of such streams, one at each look, so that a look costs one more read at most.

    One that is ours is asked about again in its turn, for somebody may have made another of its name; one that is not
    ours stays so while no query writes it. Before anything is done to a stream it is asked once more
    (`reconciler.apply`).
    """

    def __init__(self, ksqldb: Ksqldb, topology: Topology) -> None:
        """Ask ``ksqldb``; nothing is known yet."""
        self._ksqldb = ksqldb
        self._topology = topology
        self._known: Mapping[str, str] = {}

    def look(self, source: SourceState, membership: Membership) -> Mapping[str, str]:
        """Return the statements that made such streams, by name; ``""`` for one that is gone meanwhile.

        Raises:
            reconciler.errors.KsqlError: the read failed.
        """
        there = self._without_a_query(source, membership)
        known = {name: text for name, text in self._known.items() if name in there}
        unknown = sorted(there - known.keys())
        for name in [*unknown, *(name for name, text in known.items() if self._is_ours(text))][:1]:
            known.pop(name, None)
            found = self._ksqldb.describe_or_none(name)
            known[name] = found.statement if found else ""
        self._known = known
        return known

    def _is_ours(self, text: str) -> bool:
        definition = self._topology.definition_of(text)
        if definition is None:
            return False
        return self._topology.is_shared(definition.source) or self._topology.is_shared_form(text)

    def _without_a_query(self, source: SourceState, membership: Membership) -> frozenset[str]:
        silent = [name for name in source.streams if name not in source.queries and self._could_be_ours(name)]
        if not silent:
            return frozenset()
        return frozenset(silent) - {names_of(group).stream for group in membership.groups}

    def _could_be_ours(self, name: str) -> bool:
        """The shared stream of today is left out: a plan puts it right by its name."""
        topology = self._topology
        return name.startswith(STREAM_PREFIX) or (topology.is_shared(name) and name != topology.shared_name)
