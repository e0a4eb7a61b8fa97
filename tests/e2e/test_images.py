"""What an image that lies, or does not work, costs: its own group and no other.

One deployment, whose group services run an image that is honest for every group but those that name a lie.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.system import IMAGE, ROOT, Client, System
from tests.swarm.sandbox import docker, eventually

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

HONEST = ("Weld", "Paint", "Assembly", "Press", "Laser")
#: What the status says of each lie.
LIES = {
    "WrongPort": "nothing listens on port 8000",
    "Deaf": "no answer within 2 s",
    "NotAssigned": "no partition is assigned",
    "NoKafka": "Kafka does not answer",
    "NotFound": "404",
    "OtherGroup": 'answers for group "Paint"',
    "CrashLoop": "non-zero exit (3)",
}


def build(name: str, text: str) -> str:
    """Build an image without context from the lines of a Dockerfile; return its reference."""
    docker("build", "-q", "-t", name, "-", stdin=text.encode())
    return name


@pytest.fixture(scope="module")
def plant(images: None) -> Iterator[System]:  # noqa: ARG001 - only that they are there
    """The demo with five groups and the image that lies; removed afterwards, with its images."""
    system = System()
    lines = (ROOT / "build" / "images.env").read_text().splitlines()
    real = dict(line.split("=", 1) for line in lines)["FASTAPI_GROUP_IMAGE"]
    program = (ROOT / "tests" / "e2e" / "liar.py").read_text()
    entry = json.dumps(["python3", "-c", program])
    made = [
        build(f"{system.name}:liar", f"FROM {real}\nHEALTHCHECK NONE\nENTRYPOINT {entry}\n"),
        build(f"{system.name}:better", f"FROM {system.name}:liar\nENV BETTER=1\n"),
        build(f"{system.name}:broken", f'FROM {real}\nHEALTHCHECK NONE\nENTRYPOINT ["sh", "-c", "sleep 1; exit 7"]\n'),
    ]
    system.configure(FASTAPI_GROUP_IMAGE=made[0], WORKCENTERS=",".join(HONEST))
    try:
        system.demo("up")
        yield system
    finally:
        system.demo("down")
        subprocess.run(["docker", "rmi", "-f", *made], capture_output=True, check=False)


def items(system: System) -> dict[str, dict[str, Any]]:
    """Return what the operator says of each group; nothing while it restarts."""
    try:
        status = httpx.get(f"http://127.0.0.1:{system.operator}/status", timeout=30).raise_for_status().json()
    except httpx.HTTPError:
        return {}
    return {item["group"]: item for item in status["items"] if item["group"]}


def test_no_lie_is_ready_and_each_is_called_by_its_name(plant: System) -> None:
    """Seven groups whose image lies: all are Degraded with the cause, none is registered, and the honest ones are."""
    for lie in LIES:
        plant.place(f"ASSET-{lie}", lie)
    seen: list[str] = []

    def told() -> dict[str, str]:
        found = items(plant)
        seen.extend(lie for lie in LIES if found.get(lie, {}).get("condition") == "Ready")
        return {lie: str(found[lie]["detail"]) for lie in LIES if found.get(lie, {}).get("condition") == "Degraded"}

    eventually(told, lambda texts: all(LIES[lie] in texts.get(lie, "") for lie in LIES))
    assert seen == []
    assert set(plant.registry()) == set(HONEST)
    assert {items(plant)[group]["condition"] for group in HONEST} == {"Ready"}
    plant.set(PRUNE_MAX_FRACTION="1")
    for lie in LIES:
        plant.place(f"ASSET-{lie}", "Weld")
    eventually(lambda: set(items(plant)), lambda groups: groups == set(HONEST))


def test_a_broken_image_touches_one_group_and_is_taken_back(plant: System) -> None:
    """Five groups get an image that exits after its start: four serve on without a cut, one is back on the old image.

    `why` tells the task's own error; a good image afterwards goes to all groups.
    """
    eventually(lambda: plant.cli("status"), lambda status: "in sync" in status)
    assets = {group: plant.asset_of(group) for group in HONEST}
    clients = {group: Client(plant.stream_url(asset)) for group, asset in assets.items()}
    eventually(lambda: all(client.events for client in clients.values()), bool)
    before = images_of(plant)
    touched: set[str] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.3):
            touched.update(group for group, image in images_of(plant).items() if image.endswith(":broken"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        plant.set(FASTAPI_GROUP_IMAGE=f"{plant.name}:broken", ROLLOUT_TIMEOUT="10s", ROLLOUT_BAKE="2s")
        eventually(lambda: touched, bool)
        eventually(lambda: images_of(plant), lambda found: found == before)
        # Held: the operator has read the failed group again and leaves all as they are.
        held = eventually(
            lambda: items(plant),
            lambda found: bool(found) and all("rollout" in str(one["detail"]) for one in found.values()),
        )
    finally:
        stop.set()
        watcher.join()
    [group] = touched
    assert {one["condition"] for name, one in held.items() if name != group} == {"Held"}
    assert all(clients[other].connected for other in HONEST if other != group)
    assert "non-zero exit (7)" in plant.cli("why", group)
    assert plant.receives(assets[group])

    # The short time was for what cannot become ready. On a busy machine a good task takes longer than it to start, and
    # would be rolled back, as it should be.
    plant.set(FASTAPI_GROUP_IMAGE=f"{plant.name}:better", ROLLOUT_TIMEOUT="120s")
    # One group after the other, each with its start and its bake time.
    eventually(lambda: set(images_of(plant).values()), lambda found: found == {f"{plant.name}:better"}, 240)
    eventually(lambda: plant.cli("status"), lambda status: "in sync" in status)
    assert all(plant.receives(asset) for asset in assets.values())


def images_of(system: System) -> dict[str, str]:
    """Return the image of each group's service."""
    names = [system.group(group) for group in HONEST]
    found = docker("service", "inspect", *names, "--format", "{{.Spec.Name}} " + IMAGE).splitlines()
    return {name.rpartition("_")[2]: image for name, image in (line.split() for line in found)}
