"""What a real Swarm has, and has not, of what services are to refer to."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from openfactory_common.errors import PlatformUnreachable
from reconciler.platforms.protocol import Checkable, Reference
from reconciler.platforms.swarm.platform import SwarmPlatform

from .sandbox import Sandbox, docker, remove_network

pytestmark = pytest.mark.engine


@pytest.fixture
def of_node(sandbox: Sandbox) -> Iterator[str]:
    """A network of this node alone, as a `docker network create` without a driver makes it."""
    name = f"{sandbox.owner}-node"
    docker("network", "create", name)
    yield name
    remove_network(name)


@pytest.fixture
def secret(sandbox: Sandbox) -> Iterator[str]:
    """A secret of this sandbox's."""
    name = f"{sandbox.owner}-pw"
    docker("secret", "create", name, "-", stdin=b"x")
    yield name
    docker("secret", "rm", name)


def test_a_network_has_to_be_the_swarms_own(sandbox: Sandbox, of_node: str, sent: list[str]) -> None:
    """One that is not there, and one of a node alone, are told apart, with one request; the others are fine."""
    gone = f"{sandbox.owner}-gone"
    assert isinstance(sandbox.platform, Checkable)
    found = sandbox.platform.missing_references(Reference.NETWORK, (sandbox.network, "host", of_node, gone))
    cure = "no service can be created; docker network create --driver overlay --attachable"
    assert found == {
        of_node: f"belongs to one node and not to the Swarm: {cure} {of_node}",
        gone: f"does not exist in this Swarm: {cure} {gone}",
    }
    assert [request.partition("/networks")[1] for request in sent if "version" not in request] == ["/networks"]


def test_the_engine_says_the_same_at_the_write(sandbox: Sandbox, of_node: str) -> None:
    """What is noted as missing is what a service cannot be created with, and nothing else is."""
    for network in (of_node, f"{sandbox.owner}-gone"):
        command = ["docker", "service", "create", "--detach", "--replicas", "0", "--no-resolve-image"]
        command += ["--name", f"{sandbox.owner}_x", "--network", network, sandbox.image]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, "not found" in done.stderr) == (1, True), done.stderr
    docker(*command[1:-3], "--network", "host", sandbox.image)


def test_a_missing_secret_is_told_by_its_whole_name(sandbox: Sandbox, secret: str) -> None:
    """The engine's own filter would find it by a part of its name."""
    part = secret.removesuffix("w")
    assert sandbox.platform.missing_references(Reference.SECRET, (secret, part)) == {
        part: "does not exist in this Swarm: services that mount it cannot be created; "
        f"docker secret create {part} FILE"
    }


def test_no_one_there_is_no_missing_network() -> None:
    """Where the engine does not answer, nothing is said to be missing."""
    platform = SwarmPlatform("x", "x", pin_digests=False, base_url="tcp://127.0.0.1:1")
    with pytest.raises(PlatformUnreachable):
        platform.missing_references(Reference.NETWORK, ("factory-net",))
