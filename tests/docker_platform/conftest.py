"""An engine, images and a network of a test's own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker_platform.sandbox import ContainerSandbox
from tests.e2e.conftest import images
from tests.swarm.conftest import image, sent, swarm, unhealthy_image
from tests.swarm.sandbox import docker, remove_network

__all__ = ["image", "images", "sent", "swarm", "unhealthy_image"]


@pytest.fixture
def sandbox(image: str, tmp_path: Path) -> Iterator[ContainerSandbox]:
    """An owner no one else has; whatever it made is gone afterwards."""
    made = ContainerSandbox(image, tmp_path)
    yield made
    made.clean_up()


@pytest.fixture
def bridge(swarm: None) -> Iterator[str]:  # noqa: ARG001 - only that there is an engine
    """A bridge network of this test's own."""
    name = f"t{uuid.uuid4().hex[:8]}-net"
    docker("network", "create", name)
    yield name
    remove_network(name)
