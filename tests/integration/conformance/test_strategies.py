"""The built-in grouping strategy conforms."""

from __future__ import annotations

import pytest

from demo.conformance import EmbeddedKsqldb
from reconciler.grouping.unslevel import UNSLevelGroupingStrategy
from reconciler.testing.grouping import GroupingBench, GroupingConformance


class TestUNSLevel(GroupingConformance):
    """Every rule, for the value of one level."""

    @pytest.fixture
    def bench(self) -> GroupingBench:
        """Five assets, one of them without the level, one with a value that is hard to quote."""
        return GroupingBench(
            ksqldb=EmbeddedKsqldb,
            make=UNSLevelGroupingStrategy,
            assets={
                "W1": {"area": "North", "workcenter": "Weld"},
                "W2": {"area": "South", "workcenter": "Weld"},
                "P1": {"workcenter": "Paint"},
                "O1": {"workcenter": "O'Brien & Söhne"},
                "N1": {"area": "North"},
            },
            groups={"W1": "Weld", "W2": "Weld", "P1": "Paint", "O1": "O'Brien & Söhne", "N1": None},
        )


TWO = {
    "W1": {"area": "A1", "workcenter": "Weld"},
    "W2": {"area": "A2", "workcenter": "Weld"},
    "W3": {"area": "A2", "workcenter": "Weld"},
    "N1": {"area": "A1"},
    "N2": {"area": "A1", "workcenter": " "},
    "N3": {},
}


class TestTwoUNSLevels(GroupingConformance):
    """Every rule, for the joined values of two levels."""

    @pytest.fixture
    def bench(self) -> GroupingBench:
        """Assets that have both levels, one, and none."""
        return GroupingBench(
            ksqldb=EmbeddedKsqldb,
            make=UNSLevelGroupingStrategy,
            assets=TWO,
            groups={"W1": "A1/Weld", "W2": "A2/Weld", "W3": "A2/Weld", "N1": None, "N2": None, "N3": None},
            settings={"uns_fastapi_group_grouping_level": "area/workcenter"},
        )


class TestFallback(GroupingConformance):
    """Every rule, where assets without a value are in a group of their own."""

    @pytest.fixture
    def bench(self) -> GroupingBench:
        """Assets without a level, with a blank one, and one whose real group has the fallback's name."""
        real = {"R1": {"area": "Else", "workcenter": "where's"}}
        rest = dict.fromkeys(("N1", "N2", "N3", "R1"), "Else/where's")
        return GroupingBench(
            ksqldb=EmbeddedKsqldb,
            make=UNSLevelGroupingStrategy,
            assets=TWO | real,
            groups={"W1": "A1/Weld", "W2": "A2/Weld", "W3": "A2/Weld"} | rest,
            settings={"uns_fastapi_group_grouping_level": "area/workcenter", "uns_fallback_group": "Else/where's"},
        )
