"""The two platforms on a real engine conform."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.platforms.docker.platform import DockerPlatform
from reconciler.platforms.swarm.platform import SwarmPlatform
from reconciler.testing.platform import PlatformBench, PlatformConformance
from tests.docker_platform.conftest import image, swarm
from tests.docker_platform.sandbox import ContainerSandbox
from tests.e2e.system import free_ports
from tests.swarm.conftest import network
from tests.swarm.sandbox import Sandbox, docker

__all__ = ["image", "network", "swarm"]

pytestmark = pytest.mark.engine


class TestSwarm(PlatformConformance):
    """Every rule, on Docker Swarm."""

    @pytest.fixture
    def bench(self, image: str, network: str) -> Iterator[PlatformBench]:
        """An owner of its own in this engine's Swarm."""
        sandbox = Sandbox(image, network)
        stranger = SwarmPlatform(f"{sandbox.owner}x", f"{sandbox.owner}x", pin_digests=False)
        yield PlatformBench(
            platform=sandbox.platform,
            spec=sandbox.spec(),
            stranger=stranger,
            disturb=lambda name: docker(
                "service", "update", "--detach", "--no-resolve-image", "--env-add", "X=1", name
            ),
            port=free_ports(1)[0],
        )
        stranger.close()
        sandbox.clean_up()


class TestDocker(PlatformConformance):
    """Every rule, on plain containers."""

    @pytest.fixture
    def bench(self, image: str, tmp_path: Path) -> Iterator[PlatformBench]:
        """An owner of its own on this engine."""
        sandbox = ContainerSandbox(image, tmp_path)
        stranger = DockerPlatform(f"{sandbox.owner}x", f"{sandbox.owner}x", tmp_path)
        yield PlatformBench(
            platform=sandbox.platform,
            spec=sandbox.spec(),
            stranger=stranger,
            disturb=lambda name: docker("pause", name),
            port=free_ports(1)[0],
        )
        stranger.close()
        sandbox.clean_up()
