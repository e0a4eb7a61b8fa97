"""The strategy keeps to what the operator expects of one: ``python -m pytest`` in this directory."""

# ruff: noqa: INP001 - one module, not a package

from __future__ import annotations

import pytest
from two_levels import TwoLevels

from demo.conformance import EmbeddedKsqldb
from reconciler.testing.grouping import GroupingBench, GroupingConformance


class TestTwoLevels(GroupingConformance):
    """Every rule, for area and workcenter."""

    @pytest.fixture
    def bench(self) -> GroupingBench:
        """Workcenters of one name in two areas, and assets that lack one of the levels or both."""
        return GroupingBench(
            ksqldb=EmbeddedKsqldb,
            make=TwoLevels,
            settings={"uns_fastapi_group_grouping_level": "area, workcenter"},
            assets={
                "W1": {"area": "North", "workcenter": "Weld"},
                "W2": {"area": "North", "workcenter": "Weld"},
                "W3": {"area": "South", "workcenter": "Weld"},
                "O1": {"area": "O'Brien", "workcenter": "Paint & Co"},
                "X1": {"area": "North"},
                "X2": {"workcenter": "Weld"},
                "X3": {},
            },
            groups={
                "W1": "North-Weld",
                "W2": "North-Weld",
                "W3": "South-Weld",
                "O1": "O'Brien-Paint & Co",
                "X1": None,
                "X2": None,
                "X3": None,
            },
        )
