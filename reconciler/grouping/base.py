"""How assets are grouped: the protocol that a grouping strategy fulfils."""

from __future__ import annotations

from typing import Protocol

from reconciler.ksqldb.levels import Level
from reconciler.model import Membership
from reconciler.registry import Membership as Lookup


class GroupingStrategy(Protocol):
    """Reads which groups there are.

    A strategy only reads. A read that is not complete raises a `reconciler.errors.KsqlError`; it never returns less
    than there is.

    Attributes:
        level: by what assets are grouped: the streams and the routing layer work out the same groups from it as
            `read` does.
    """

    @property
    def level(self) -> Level:
        """By what assets are grouped."""

    def read(self) -> Membership:
        """Read all assets and their groups, with one request."""

    def has_members(self, group: str) -> bool:
        """Ask directly whether any asset belongs to ``group``: the last question before it is removed."""

    def lookup(self) -> Lookup:
        """Say how the proxy finds the group of one asset."""
