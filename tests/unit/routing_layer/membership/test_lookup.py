"""What a client is told of an asset without a group."""

from __future__ import annotations

import asyncio

import pytest

from openfactory_common.ksqldb.levels import JoinedLevels, Level, WithFallback
from openfactory_common.registry import GroupLookup
from routing_layer.membership.lookup import Lookup
from routing_layer.problems import Problem, ProblemType

BOTH = JoinedLevels(("area", "line"), "/")
CASES: list[tuple[Level | None, str]] = [
    ("area", "no level 'area', so it belongs to no group"),
    (BOTH, "no levels 'area' and 'line'"),
    (None, "no level '?'"),
    (WithFallback("area", "Rest"), "no level 'area'"),
    (WithFallback(BOTH, "Rest"), "no levels 'area' and 'line'"),
]


class Store:
    """A membership in which every asset is without a group."""

    complete = True

    def group_of(self, _: str) -> None:
        """Return none."""


@pytest.mark.parametrize(("level", "text"), CASES)
def test_an_asset_without_the_level(level: Level | None, text: str) -> None:
    """With a fallback too: what is known may be older than the fallback."""
    source = GroupLookup.of("T", "K", level) if level else None
    lookup = Lookup(Store(), None, None, None, None, lambda: source)  # type: ignore[arg-type]
    with pytest.raises(Problem) as told:
        asyncio.run(lookup.find_group("a1"))
    assert told.value.type is ProblemType.ASSET_WITHOUT_LEVEL
    assert text in told.value.detail
