"""By what assets are grouped, as data: the value of one UNS level, or several values joined.

The group of an asset is worked out in three places: by the operator's reads, by the streams and by the routing layer.
All of them get their SQL from here, so they agree, and a grouping strategy brings names and never SQL: whatever is in
them becomes a literal.
"""

from __future__ import annotations

from dataclasses import dataclass

from openfactory_common.errors import ConfigurationError
from openfactory_common.ksqldb.wire import column, fold_name, identifier, literal


@dataclass(frozen=True)
class JoinedLevels:
    """The values of several UNS levels, joined: an asset that lacks one of them is in no group.

    Two different pairs can give the same group (``A-B`` + ``C`` and ``A`` + ``B-C``) and are then served by the same
    service: choose a separator that is in no value.

    Attributes:
        names: of the levels, at least two, in the order in which their values are joined.
        separator: what stands between the values.

    Raises:
        ConfigurationError: fewer than two names, or an empty one.
    """

    names: tuple[str, ...]
    separator: str = "-"

    def __post_init__(self) -> None:
        """Refuse what can give no group."""
        if len(self.names) < 2 or not all(self.names):  # noqa: PLR2004 - two is what joining takes
            raise ConfigurationError(f"several UNS levels are to be joined, not {', '.join(map(repr, self.names))}")


Level = str | JoinedLevels
"""One UNS level by its name, or several joined."""


def group_sql(level: Level, side: str = "") -> str:
    """Return the expression for the group of a row of the UNS map; NULL for an asset without one.

    A value that is empty or blank is no group: it could not be named in a URL.

    Args:
        level: by what assets are grouped.
        side: what goes before the column in a join (``"H."``).
    """
    names = (level,) if isinstance(level, str) else level.names
    values = [f"{side}UNS_LEVELS[{literal(name)}]" for name in names]
    # Brackets as the server renders them, so that its text equals the one that was sent.
    present = f"(TRIM({values[0]}) <> '')"
    for value in values[1:]:
        present = f"({present} AND (TRIM({value}) <> ''))"
    group = values[0] if isinstance(level, str) else f"CONCAT({f', {literal(level.separator)}, '.join(values)})"
    return f"CASE WHEN {present} THEN {group} END"


def membership_sql(table: str, key: str, level: Level) -> str:
    """Return the query for every asset and its group, to be followed by a condition, EMIT CHANGES or nothing.

    Args:
        table: the UNS map, as a person writes it (upper-case unless in quotes).
        key: its key column, likewise.
        level: by what assets are grouped.
    """
    # Everything in it is a quoted name or a literal.
    return f"SELECT {column(fold_name(key))}, {group_sql(level)} AS UNS_GROUP FROM {identifier(fold_name(table))}"  # noqa: S608
