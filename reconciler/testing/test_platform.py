"""The platform that ``--platform`` names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.testing.platform import PlatformBench, PlatformConformance
from reconciler.testing.plugin import load_bench


class TestPlatform(PlatformConformance):
    """Every rule, each on a new bench."""

    @pytest.fixture
    def bench(self, request: pytest.FixtureRequest) -> Iterator[PlatformBench]:
        """Set up the plug-in."""
        with load_bench(request.config, "platform")() as bench:
            yield bench
