"""The whole system on a laptop without a Swarm: every part a plain container, the operator's command line beside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker_platform.plant import Plant
from tests.e2e.system import free_ports
from tests.swarm.sandbox import docker

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]


@pytest.fixture
def plant(bridge: str, images: None, tmp_path: Path) -> Iterator[Plant]:  # noqa: ARG001 - only that they are there
    """An installation of plain containers with two groups, not deployed yet."""
    made = Plant(tmp_path, bridge, {"DEPLOYMENT_PLATFORM": "docker", "ENVIRONMENT": "devswarm"})
    with made:
        try:
            yield made
        finally:
            made.tear_down()


def containers(plant: Plant) -> dict[str, str]:
    """Ask the engine itself for everything of ours: ids by names."""
    label = f"label=org.openfactory.owner={plant.name}"
    lines = docker("ps", "--all", "--no-trunc", "--filter", label, "--format", "{{.Names}} {{.ID}}").splitlines()
    return dict(line.split() for line in lines)


def test_from_nothing_to_a_routed_event_and_back(plant: Plant) -> None:
    """Groups come and go by the map alone; the rest keeps its containers; teardown leaves nothing.

    A second `--once` changes nothing; `plan` tells drift by its exit code; a new group is served through the routing
    layer that was there before; a removed container comes back; an emptied group's goes.
    """
    [port] = free_ports(1)
    plant.options["ROUTING_LAYER_PORT"] = str(port)
    plant.place("WELD-1", workcenter="Weld")
    plant.place("PAINT-1", workcenter="Paint")
    plant.once()
    assert plant.event(port, "WELD-1")["asset_uuid"] == "WELD-1"
    first = containers(plant)
    parts = ("group_Weld", "group_Paint", "routing_layer", "state_api")
    assert sorted(first) == sorted(f"{plant.name}_{part}" for part in parts)
    plant.once()
    assert containers(plant) == first
    assert plant.run("plan", "--detailed-exitcode")[0] == 0

    plant.place("LASER-1", workcenter="Laser")
    plant.place("PAINT-1", workcenter="Weld")
    docker("rm", "--force", f"{plant.name}_group_Weld")
    assert plant.run("plan", "--detailed-exitcode")[0] == 3
    plant.once()
    after = containers(plant)
    assert sorted(after) == sorted(f"{plant.name}_{part}" for part in ("group_Laser", *parts) if part != "group_Paint")
    kept = (f"{plant.name}_routing_layer", f"{plant.name}_state_api")
    assert {name: after[name] for name in kept} == {name: first[name] for name in kept}
    assert plant.event(port, "LASER-1")["asset_uuid"] == "LASER-1"
    assert plant.event(port, "PAINT-1")["asset_uuid"] == "PAINT-1"

    code, said = plant.run("teardown", "--yes")
    assert code == 0, said
    assert containers(plant) == {}
    assert list(plant.state.iterdir()) == []


def test_a_routing_layer_in_a_terminal(plant: Plant) -> None:
    """`ENVIRONMENT=local` without a Swarm: host ports, and `runserver` follows the registry's file.

    No operator has to run for it: what `--once` publishes is served by the routing layer that is there already.
    """
    port, base = free_ports(2)
    plant.options |= {"ENVIRONMENT": "local", "ROUTING_LAYER_PORT": str(port), "FASTAPI_GROUP_PORT_BASE": str(base)}
    plant.place("WELD-1", workcenter="Weld")
    plant.once()
    assert sorted(containers(plant)) == [f"{plant.name}_group_Weld", f"{plant.name}_state_api"]
    routing = plant.start("runserver")
    try:
        assert plant.event(port, "WELD-1")["asset_uuid"] == "WELD-1"
        plant.place("ASSEMBLY-1", workcenter="Assembly")
        plant.once()
        assert plant.event(port, "ASSEMBLY-1")["asset_uuid"] == "ASSEMBLY-1"
    finally:
        routing.terminate()
        said = routing.communicate(timeout=30)
    assert routing.returncode == 0, said
