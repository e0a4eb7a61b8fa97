"""By what assets are grouped, as data: the value of one UNS level, or several joined, perhaps with a fallback.

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


@dataclass(frozen=True)
class WithFallback:
    """One level or several, and a group for the assets that lack one of them.

    Attributes:
        levels: by what the other assets are grouped.
        group: of an asset without a value; assets that have this very value are in it too.
    """

    levels: str | JoinedLevels
    group: str


Level = str | JoinedLevels | WithFallback
"""One UNS level by its name, or several joined; perhaps with a fallback."""
#: Stands between the names of several levels in a setting, and between their values in a group.
SEPARATOR = "/"


def parse_level(text: str, fallback: str = "") -> Level:
    """Return the level that a setting names: ``workcenter``, or several as ``area/workcenter``.

    Args:
        text: one name, or several with `SEPARATOR` between them.
        fallback: the group of assets without one of the levels; ``""`` for none.

    Raises:
        ConfigurationError: one of several names is empty.
    """
    names = tuple(text.split(SEPARATOR))
    return add_fallback(text if len(names) == 1 else JoinedLevels(names, SEPARATOR), fallback)


def add_fallback(level: Level, group: str) -> Level:
    """Return the level with this group for assets without a value; as it is for ``""``, or if it has a fallback."""
    return WithFallback(level, group) if group and not isinstance(level, WithFallback) else level


def split_level(level: Level) -> tuple[tuple[str, ...], str]:
    """Return the names of the levels, and the fallback group, ``""`` for none."""
    levels, fallback = (level.levels, level.group) if isinstance(level, WithFallback) else (level, "")
    return ((levels,) if isinstance(levels, str) else levels.names), fallback


def group_sql(level: Level, side: str = "") -> str:
    """Return the expression for the group of a row of the UNS map; NULL for an asset without one.

    A value that is empty or blank is no group: it could not be named in a URL.

    Args:
        level: by what assets are grouped.
        side: what goes before the column in a join (``"H."``).
    """
    names, fallback = split_level(level)
    values = [f"{side}UNS_LEVELS[{literal(name)}]" for name in names]
    # Brackets as the server renders them, so that its text equals the one that was sent.
    present = f"(TRIM({values[0]}) <> '')"
    for value in values[1:]:
        present = f"({present} AND (TRIM({value}) <> ''))"
    levels = level.levels if isinstance(level, WithFallback) else level
    group = values[0] if isinstance(levels, str) else f"CONCAT({f', {literal(levels.separator)}, '.join(values)})"
    return f"CASE WHEN {present} THEN {group}{f' ELSE {literal(fallback)}' if fallback else ''} END"


def membership_sql(table: str, key: str, level: Level) -> str:
    """Return the query for every asset and its group, to be followed by a condition, EMIT CHANGES or nothing.

    Args:
        table: the UNS map, as a person writes it (upper-case unless in quotes).
        key: its key column, likewise.
        level: by what assets are grouped.
    """
    # Everything in it is a quoted name or a literal.
    return f"SELECT {column(fold_name(key))}, {group_sql(level)} AS UNS_GROUP FROM {identifier(fold_name(table))}"  # noqa: S608
