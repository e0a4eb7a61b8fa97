"""`ENVIRONMENT=local`: services on host ports, the routing layer in a terminal on the developer's own machine."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.docker_platform.plant import Plant
from tests.e2e.system import free_ports
from tests.swarm.sandbox import docker, eventually, remove_network

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]


@pytest.fixture
def network() -> Iterator[str]:
    """An overlay network of this test's own."""
    name = f"t{uuid.uuid4().hex[:8]}-net"
    docker("network", "create", "--driver", "overlay", "--attachable", name)
    yield name
    remove_network(name)


@pytest.fixture
def plant(images: None, network: str, tmp_path: Path) -> Iterator[Plant]:  # noqa: ARG001 - only that they are there
    """An installation whose operator and routing layer run on this host."""
    routing, operator, base = free_ports(3)
    options = {
        "ENVIRONMENT": "local",
        "ROUTING_LAYER_PORT": str(routing),
        "RECONCILER_PORT": str(operator),
        "FASTAPI_GROUP_PORT_BASE": str(base),
        "RECONCILE_INTERVAL": "1s",
    }
    with Plant(tmp_path, network, options) as made:
        try:
            yield made
        finally:
            made.tear_down()


@pytest.fixture
def running(plant: Plant) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes of this host that end with the test."""
    processes = [plant.start(), plant.start("runserver")]
    yield processes
    for process in processes:
        process.terminate()
        process.communicate(timeout=30)


def services(plant: Plant) -> list[str]:
    """Ask the engine itself for the services of ours."""
    label = f"label=org.openfactory.owner={plant.name}"
    return sorted(docker("service", "ls", "--filter", label, "--format", "{{.Name}}").split())


def published(plant: Plant, part: str) -> int:
    """Return the host port of a service."""
    form = "{{range .Spec.EndpointSpec.Ports}}{{.PublishMode}} {{.PublishedPort}}{{end}}"
    mode, port = docker("service", "inspect", f"{plant.name}_{part}", "--format", form).split()
    assert mode == "host"
    return int(port)


def registered(plant: Plant) -> dict[str, str]:
    """Return the groups that are served, as the operator on this host publishes them; none before it answers."""
    with suppress(httpx.TransportError, json.JSONDecodeError, KeyError):
        answer = httpx.get(f"http://127.0.0.1:{plant.options['RECONCILER_PORT']}/registry")
        groups: dict[str, str] = answer.json()["groups"]
        return groups
    return {}


@pytest.mark.usefixtures("running")
def test_a_developers_machine_serves_events(plant: Plant) -> None:
    """Groups are reached through host ports that stay while others come; `runserver` routes, and nothing else does."""
    port = int(plant.options["ROUTING_LAYER_PORT"])
    plant.place("WELD-1", workcenter="Weld")
    assert plant.event(port, "WELD-1")["asset_uuid"] == "WELD-1"
    weld = published(plant, "group_Weld")
    assert registered(plant) == {"Weld": f"http://localhost:{weld}/asset_stream"}

    plant.place("ASSEMBLY-1", workcenter="Assembly")
    assert plant.event(port, "ASSEMBLY-1")["asset_uuid"] == "ASSEMBLY-1"
    assembly = published(plant, "group_Assembly")
    assert registered(plant) == {
        "Assembly": f"http://localhost:{assembly}/asset_stream",
        "Weld": f"http://localhost:{weld}/asset_stream",
    }
    assert published(plant, "group_Weld") == weld
    base = int(plant.options["FASTAPI_GROUP_PORT_BASE"])
    assert {weld, assembly, published(plant, "state_api")} == {base, base + 1, base + 2}
    question = f"http://127.0.0.1:{port}/asset_state?asset_uuid=WELD-1"  # its task may still be starting
    eventually(lambda: httpx.get(question, timeout=20), lambda answer: answer.is_success)
    assert services(plant) == [f"{plant.name}_{part}" for part in ("group_Assembly", "group_Weld", "state_api")]
