"""The platform in memory, on which the fast tests rest, is one that conforms."""

from __future__ import annotations

import pytest

from openfactory_common.errors import PlatformRefused
from reconciler.domain.services import Kind, LiveService, ServiceSpec
from reconciler.testing.platform import PlatformBench, PlatformConformance
from tests.harness.fakes import FakePlatform

ABSENT = "absent:1"


class Picky(FakePlatform):
    """A platform in memory in which one image cannot be had."""

    def create_service(self, spec: ServiceSpec) -> None:
        """Refuse that image."""
        self._need(spec)
        super().create_service(spec)

    def update_service(self, live: LiveService, spec: ServiceSpec, *marks: str) -> None:
        """Refuse that image."""
        self._need(spec)
        super().update_service(live, spec, *marks)

    @staticmethod
    def _need(spec: ServiceSpec) -> None:
        if spec.image == ABSENT:
            raise PlatformRefused(f"{spec.image}: not found")


def in_memory() -> PlatformBench:
    """A platform in memory, as two owners see it."""
    platform = Picky(kept_records={})
    spec = ServiceSpec("ofa_group_Weld", Kind.GROUP, "Weld", "image:1", {"A": "1"}, 1, 0.5, 0.1, "net")
    return PlatformBench(
        platform=platform,
        spec=spec,
        stranger=FakePlatform(owner="other", prefix="other", kept_records={}),
        disturb=lambda name: platform.touch(name, env={"X": "1"}),
        absent_image=ABSENT,
        patience=1.0,
    )


class TestFakePlatform(PlatformConformance):
    """Every rule, in memory."""

    @pytest.fixture
    def bench(self) -> PlatformBench:
        """A new one for each test."""
        return in_memory()
