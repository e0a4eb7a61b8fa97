"""How assets are grouped: the protocol that a grouping strategy fulfils."""

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
        level: by what assets are grouped: the streams and the routing layer work out the same groups from it as
            `read` does.
    """

    @property
    def level(self) -> Level:
        """By what assets are grouped."""

    def read(self) -> MapSnapshot:
        """Read all assets and their groups, with one request."""

    def read_directly(self, at_least: int) -> MapSnapshot:
        """Read the same from Kafka: the last question before groups are removed, asked once for all of them.

        What a ksqlDB server holds of a table may be a part of it while another server is away; what is in Kafka is
        all of it.

        Args:
            at_least: assets that there are, or were within the last minutes; an answer that names fewer of them (those
                counted that it knows were deleted) is not complete and raises.
        """

    def lookup(self) -> GroupLookup:
        """Say how the proxy finds the group of one asset."""
