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
