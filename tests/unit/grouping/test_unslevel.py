"""Which groups the built-in strategy makes of the map's rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from reconciler.grouping.unslevel import UNSLevelGroupingStrategy
from tests.unit.planning.tables import observed, seen, settings, source

Rows = tuple[tuple[str, str | None], ...]


@dataclass
class Map:
    """A UNS map with these rows; every asset has the level ``area``."""

    rows: Rows

    def members(self, *_: object) -> Rows:
        """Return the rows."""
        return self.rows

    members_directly = members

    def level_names(self, *_: object) -> frozenset[str]:
        """Return the one level that there is."""
        return frozenset({"area"})


def strategy(level: str, fallback: str, *groups: str | None) -> UNSLevelGroupingStrategy:
    """Return the strategy over a map of one asset for each group."""
    options = settings(uns_fastapi_group_grouping_level=level, uns_fallback_group=fallback)
    return UNSLevelGroupingStrategy(options, Map(tuple((f"a{n}", group) for n, group in enumerate(groups))))


AMBIGUOUS = [
    # level, fallback, groups, those that are not served
    ("area", "", ["A/B", "A/B/C"], []),
    ("area/line", "", ["A/B", "A/B/C", "A//"], ["A/B/C", "A//"]),
    ("area/line/cell", "", ["A/B/C", "A/B/C/D"], ["A/B/C/D"]),
    ("area/line", "A/B/C", ["A/B", "A/B/C", "D/E/F"], ["D/E/F"]),
]


@pytest.mark.parametrize(("level", "fallback", "groups", "refused"), AMBIGUOUS)
def test_a_name_that_other_values_could_give_is_a_conflict(
    level: str, fallback: str, groups: list[str], refused: list[str]
) -> None:
    """A + B/C and A/B + C would be one group, so neither is served; both reads say so."""
    made = strategy(level, fallback, *groups)
    found = made.read()
    assert found == made.read_directly(0)
    assert sorted(found.groups) == sorted(groups)
    assert sorted(found.ambiguous) == sorted(refused)
    assert all("has a / in it" in why and level.partition("/")[0] in why for why in found.ambiguous.values())


def test_a_refused_group_gets_no_names_and_is_never_missing() -> None:
    """It is a conflict that is shown, not a group to create or to remove."""
    found = strategy("area/line", "", "A/B", "A/B/C").read()
    read = observed(found.groups, source({"A/B": "ok"}))
    survey = seen(replace(read, membership=found))
    assert list(survey.wanted) == ["A/B"]
    assert survey.losers == found.ambiguous
    assert not survey.missing


@pytest.mark.parametrize("fallback", ["", "Rest"])
def test_a_misspelt_level_is_found_also_where_all_assets_are_in_the_fallback(fallback: str) -> None:
    """Otherwise all groups would be missing at once, and nothing would say why."""
    found = strategy("aera", fallback, fallback or None, fallback or None).read()
    assert "no asset has level 'aera'; levels seen: area" in found.unknown_level
    assert strategy("area", fallback, "Weld", fallback or None).read().unknown_level == ""
