"""The grouping strategy that ``--strategy`` names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.testing.grouping import GroupingBench, GroupingConformance
from reconciler.testing.plugin import named


class TestStrategy(GroupingConformance):
    """Every rule, on a new bench each."""

    @pytest.fixture
    def bench(self, request: pytest.FixtureRequest) -> Iterator[GroupingBench]:
        """Set up what is tested."""
        with named(request.config, "strategy")() as bench:
            yield bench
