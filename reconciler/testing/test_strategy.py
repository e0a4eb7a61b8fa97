"""The grouping strategy that ``--strategy`` names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.testing.grouping import GroupingBench, GroupingConformance
from reconciler.testing.plugin import load_bench


class TestStrategy(GroupingConformance):
    """Every rule, each on a new bench."""

    @pytest.fixture
    def bench(self, request: pytest.FixtureRequest) -> Iterator[GroupingBench]:
        """Set up the plug-in."""
        with load_bench(request.config, "strategy")() as bench:
            yield bench
