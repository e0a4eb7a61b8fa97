"""Groups assets by two UNS levels: where workcenters of different areas have the same name."""

# ruff: noqa: INP001 - one module, not a package

from __future__ import annotations

from openfactory_common.errors import ConfigurationError
from openfactory_common.ksqldb.levels import JoinedLevels
from reconciler.grouping.unslevel import LevelGrouping, UnsMap
from reconciler.settings import Settings


class TwoLevels(LevelGrouping):
    """Groups assets by the two levels in `UNS_FASTAPI_GROUP_GROUPING_LEVEL`, e.g. ``area,workcenter``."""

    def __init__(self, settings: Settings, ksqldb: UnsMap) -> None:
        """Read from ``ksqldb``, with table and levels from ``settings``.

        Raises:
            ConfigurationError: the variable does not name two levels.
        """
        names = tuple(name.strip() for name in settings.uns_fastapi_group_grouping_level.split(","))
        if len(names) != 2:  # noqa: PLR2004 - two levels
            raise ConfigurationError(
                f"UNS_FASTAPI_GROUP_GROUPING_LEVEL={settings.uns_fastapi_group_grouping_level!r}: GROUPING_STRATEGY="
                "two_levels takes two levels, for example area,workcenter"
            )
        super().__init__(settings, ksqldb, JoinedLevels(names, separator="-"))
