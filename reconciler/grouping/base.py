"""The protocol of a grouping strategy."""

from __future__ import annotations

from typing import Protocol

from openfactory_common.ksqldb.levels import Level
from openfactory_common.registry import GroupLookup
from reconciler.domain.observed import MapSnapshot


class GroupingStrategy(Protocol):
    """Reads which groups there are.

    A strategy only reads. A read that is not complete raises a `openfactory_common.errors.KsqlError`; it never returns
    less than there is.

    Attributes:
        level: by what assets are grouped: the streams and the routing layer derive the same groups from it as `read`.
    """

    @property
    def level(self) -> Level:
        """By what assets are grouped."""

    def read(self) -> MapSnapshot:
        """Read all assets and their groups, with one request."""

    def read_directly(self, at_least: int) -> MapSnapshot:
        """Read the same from Kafka: the last check before groups are removed, once for all of them.

        A ksqlDB server may have only a part of a table while another server is away; Kafka has all of it.

        Args:
            at_least: assets that there are, or were within the last minutes; an answer that names fewer of them (those
                counted that it knows were deleted) is not complete and raises.
        """

    def lookup(self) -> GroupLookup:
        """Return how the proxy finds the group of one asset."""
