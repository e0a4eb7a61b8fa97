"""Services of the system before this one on a real Swarm, made as it makes them: found, unpublished, removed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import docker as sdk
import pytest
from docker.types import EndpointSpec

from openfactory_common.errors import PlatformConflict, PlatformRefused
from reconciler.migration.legacy import PORT, OldNames, OldRole, OldService
from reconciler.migration.swarm import SwarmOldServices
from tests.harness.ports import free_port

from .sandbox import docker, eventually

pytestmark = pytest.mark.engine

_CORES = {"Limits": {"NanoCPUs": 100_000_000}, "Reservations": {"NanoCPUs": 10_000_000}}


class OldSystem:
    """What the old system has deployed under names of this test's own."""

    def __init__(self, image: str, network: str) -> None:
        """Deploy nothing yet."""
        mark = f"t{uuid.uuid4().hex[:8]}"
        self.port = free_port()
        self.names = OldNames(f"{mark}_router", f"{mark}-state-api", f"{mark}-group-", self.port)
        self.services = SwarmOldServices(names=self.names)
        self._mark = mark
        self._client = sdk.from_env()
        self._common: dict[str, Any] = {"image": image, "networks": [network], "resources": _CORES}

    def deploy(self, *groups: str) -> None:
        """Deploy everything with the library, the calls and the variables that the old system uses."""
        create: Any = self._client.services.create
        endpoint: Any = EndpointSpec  # its own type hints know no number
        for group in groups:
            variables = [
                "KAFKA_BROKER=broker:9092",
                f"KAFKA_TOPIC=asset_stream_{group}_topic",
                f"KAFKA_CONSUMER_GROUP_ID=asset_stream_{group}_consumer_group",
            ]
            name = self.names.of_group(group)
            create(name=name, mode={"Replicated": {"Replicas": 1}}, env=variables, endpoint_spec=None, **self._common)
        state = {
            "KSQLDB_URL": "u",
            "KSQLDB_ASSETS_TABLE": "assets",
            "LOG_LEVEL": "info",
            "DEPLOYMENT_PLATFORM": "swarm",
        }
        create(name=self.names.state_api, env=state, **self._common)
        variables = ["KSQLDB_URL=u", "KAFKA_BROKER=b", "KSQLDB_ASSETS_STREAM=s", "KSQLDB_UNS_MAP=m", "LOG_LEVEL=info"]
        create(
            name=self.names.router,
            mode={"Replicated": {"Replicas": 1}},
            env=[*variables, "ENVIRONMENT=production"],
            endpoint_spec=endpoint(ports={self.port: PORT}),
            **self._common,
        )

    def one(self, role: OldRole, group: str | None = None) -> OldService:
        """Return a service as it is observed."""
        (found,) = (one for one in self.services.observe() if one.role is role and one.group == group)
        return found

    def clean_up(self) -> None:
        """Remove everything with names of this test."""
        self.services.close()
        self._client.close()
        names = docker("service", "ls", "--filter", f"name={self._mark}", "--format", "{{.Name}}").split()
        if names:
            docker("service", "rm", *names)


@pytest.fixture
def system(image: str, network: str) -> Iterator[OldSystem]:
    """An old system that is gone afterwards."""
    made = OldSystem(image, network)
    yield made
    made.clean_up()


def test_the_old_system_is_found_and_only_its_exact_shape_is_removed(system: OldSystem) -> None:
    """All kinds are known as they were made; one that a user changed is shown as odd, and stays."""
    system.deploy("Weld", "Cell 7")
    found = {one.name: one for one in system.services.observe()}
    assert {one.deviation for one in found.values()} == {""}
    assert {one.group for one in found.values() if one.role is OldRole.GROUP} == {"Weld", "Cell 7"}
    assert system.one(OldRole.ROUTER).ports == (system.port,)
    weld = system.one(OldRole.GROUP, "Weld")
    docker("service", "update", "--detach", "--label-add", "mine=1", weld.name)
    assert system.one(OldRole.GROUP, "Weld").deviation == "it has labels"
    with pytest.raises(PlatformConflict, match="it has labels"):
        system.services.remove(weld)
    docker("service", "update", "--detach", "--label-rm", "mine", "--env-add", "EXTRA=1", weld.name)
    assert "EXTRA" in system.one(OldRole.GROUP, "Weld").deviation
    for one in system.services.observe():
        if not one.deviation:
            system.services.remove(one)
            system.services.remove(one)
    assert [one.name for one in system.services.observe()] == [weld.name]


def test_the_port_goes_and_comes_back(system: OldSystem, image: str) -> None:
    """Meanwhile another service can have the port, and as long as it does, the port is not given back."""
    system.deploy()
    router = eventually(lambda: system.one(OldRole.ROUTER), lambda one: one.running == 1)
    system.services.publish(router, None)
    with pytest.raises(PlatformConflict, match="run it again"):
        system.services.publish(router, None)
    assert system.one(OldRole.ROUTER).ports == ()
    other = system.names.of_group("other")
    publish = f"published={system.port},target={PORT}"
    docker("service", "create", "--detach", "--no-resolve-image", "--name", other, "--publish", publish, image)
    with pytest.raises(PlatformRefused, match="already in use"):
        system.services.publish(system.one(OldRole.ROUTER), system.port)
    docker("service", "rm", other)
    system.services.publish(system.one(OldRole.ROUTER), system.port)
    assert system.one(OldRole.ROUTER).ports == (system.port,)
    assert system.one(OldRole.ROUTER).deviation == ""
    eventually(lambda: system.one(OldRole.ROUTER), lambda one: one.running == 1)


def test_a_router_that_is_published_otherwise_is_left_alone(system: OldSystem) -> None:
    """Another port, kind or mode than the old system's own would be lost when the port is taken and given back."""
    system.deploy()
    router = system.one(OldRole.ROUTER)
    name, port, other = router.name, system.port, free_port()
    assert router.deviation == ""

    def update(*change: str) -> str:
        docker("service", "update", "--detach", "--no-resolve-image", *change, name)
        return system.one(OldRole.ROUTER).deviation

    also = update("--publish-add", f"published={other},target={PORT}")
    assert also == f"it publishes {other} for {PORT} (tcp, ingress)"
    with pytest.raises(PlatformConflict, match="run it again"):
        system.services.publish(system.one(OldRole.ROUTER), None)
    assert system.one(OldRole.ROUTER).ports == tuple(sorted((port, other)))
    own = f"published={port},target={PORT}"
    assert update("--publish-rm", str(PORT), "--publish-add", own) == ""
    assert update("--publish-rm", str(PORT), "--endpoint-mode", "dnsrr") == "its endpoint mode is dnsrr"
    assert update("--endpoint-mode", "vip", "--publish-add", f"{own},protocol=udp").endswith("(udp, ingress)")
    assert update("--publish-rm", f"{PORT}/udp", "--publish-add", f"{own},mode=host").endswith("(tcp, host)")
