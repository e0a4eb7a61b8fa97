"""The platform that ``--platform`` names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.testing.platform import PlatformBench, PlatformConformance
from reconciler.testing.plugin import named


class TestPlatform(PlatformConformance):
    """Every rule, on a new bench each."""

    @pytest.fixture
    def bench(self, request: pytest.FixtureRequest) -> Iterator[PlatformBench]:
        """Set up what is tested."""
        with named(request.config, "platform")() as bench:
            yield bench
