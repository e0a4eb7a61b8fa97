"""Groups are the values of one UNS level, e.g. the workcenters, or of several joined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from openfactory_common.ksqldb.levels import SEPARATOR, Level, add_fallback, split_level
from openfactory_common.registry import GroupLookup
from openfactory_common.text import list_some
from reconciler.domain.observed import MapSnapshot
from reconciler.settings import Settings

#: Key column of the UNS map (upstream's schema).
KEY = "ASSET_UUID"
#: Assets whose levels are read where none has ours, and levels that are then named.
_SAMPLE, _NAMED = 50, 20


class UnsMap(Protocol):
    """What this strategy needs of ksqlDB."""

    def members(self, table: str, key: str, level: Level) -> tuple[tuple[str, str | None], ...]:
        """Every asset with its value at ``level``; complete or an error."""

    def level_names(self, table: str, key: str, assets: Sequence[str]) -> frozenset[str]:
        """The names of all UNS levels that these assets have; complete or an error."""

    def members_directly(self, table: str, key: str, level: Level, at_least: int) -> tuple[tuple[str, str | None], ...]:
        """The same, read from Kafka; complete or an error."""


class LevelGrouping:
    """Groups assets by their values in the UNS map; a custom strategy has only to give the level.

    Attributes:
        level: by what assets are grouped, with the group of `UNS_FALLBACK_GROUP`.
        variable: the setting that names the level, for messages.
    """

    variable = "GROUPING_STRATEGY"

    def __init__(self, settings: Settings, ksqldb: UnsMap, level: Level) -> None:
        """Read the table that ``settings`` name from ``ksqldb``."""
        self.level = add_fallback(level, settings.uns_fallback_group)
        self._table = settings.ksqldb_uns_map.upper()
        self._ksqldb = ksqldb

    def read(self) -> MapSnapshot:
        """Read all assets and their groups.

        Raises:
            openfactory_common.errors.KsqlError: the read was not complete.
        """
        rows = self._ksqldb.members(self._table, KEY, self.level)
        found = self._make_snapshot(rows)
        if found.groups.keys() - {split_level(self.level)[1]} or not rows:
            return found
        return replace(found, unknown_level=self._explain_unknown_level([asset for asset, _ in rows[:_SAMPLE]]))

    def _explain_unknown_level(self, assets: Sequence[str]) -> str:
        """Return a message if no asset has our level and some have others: its name is likely misspelt."""
        names, _ = split_level(self.level)
        seen = self._ksqldb.level_names(self._table, KEY, assets)
        unknown = [name for name in names if name not in seen]
        if not seen or not unknown:
            return ""
        levels = "level" if len(unknown) == 1 else "levels"
        missing = " and ".join(map(repr, unknown))
        return f"no asset has {levels} {missing}; levels seen: {list_some(sorted(seen), _NAMED)} ({self.variable})"

    def read_directly(self, at_least: int) -> MapSnapshot:
        """Read all assets and their groups from Kafka.

        Raises:
            openfactory_common.errors.KsqlError: the read was not complete, or names fewer than ``at_least`` assets.
        """
        return self._make_snapshot(self._ksqldb.members_directly(self._table, KEY, self.level, at_least))

    def lookup(self) -> GroupLookup:
        """Return how the proxy finds the group of one asset."""
        return GroupLookup.of(self._table, KEY, self.level)

    def _make_snapshot(self, rows: tuple[tuple[str, str | None], ...]) -> MapSnapshot:
        groups = Counter(group for _, group in rows if group is not None)
        return MapSnapshot(len(rows), dict(sorted(groups.items())), fallback=split_level(self.level)[1])


class UNSLevelGroupingStrategy(LevelGrouping):
    """Groups assets by their values at the UNS levels named by `UNS_FASTAPI_GROUP_GROUPING_LEVEL`."""

    variable = "UNS_FASTAPI_GROUP_GROUPING_LEVEL"

    def __init__(self, settings: Settings, ksqldb: UnsMap) -> None:
        """Read from ``ksqldb``, with table and level from ``settings``."""
        super().__init__(settings, ksqldb, settings.grouping_level)

    def _make_snapshot(self, rows: tuple[tuple[str, str | None], ...]) -> MapSnapshot:
        found = super()._make_snapshot(rows)
        return replace(found, ambiguous=_find_ambiguous(found.groups, self.level))


def _find_ambiguous(groups: Iterable[str], level: Level) -> Mapping[str, str]:
    """Return why each of these groups is not served.

    With several levels a value that has the separator in it can give the name of other values (``A/B`` + ``C`` and
    ``A`` + ``B/C``), and then two machines' data would be in one stream. Which values a name was made of cannot be seen
    in it, so every name with too many separators is refused.
    """
    names, fallback = split_level(level)
    if len(names) == 1:
        return {}
    why = (
        f"a value at {' or '.join(names)} has a {SEPARATOR} in it, so other values could give the same name: change it "
        f"in the UNS"
    )
    return {group: why for group in groups if group.count(SEPARATOR) >= len(names) and group != fallback}
