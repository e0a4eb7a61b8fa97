"""Everything together: three managers, a factory, and operators that are started, lost and started elsewhere."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.system import free_ports
from tests.managers.machine import Machine
from tests.managers.operators import RECOVERY, ROOT, Operator
from tests.managers.plant import Follower, Plant, why_not_served
from tests.managers.rack import NETWORK, Rack, runs
from tests.swarm.sandbox import docker, eventually

OWNER = "tm"
PRUNE_READS = 5
#: The images that are deployed, by their settings, and the port on which each listens.
_IMAGES = {"ROUTING_LAYER_IMAGE": 5555, "FASTAPI_GROUP_IMAGE": 8000, "STATE_API_IMAGE": 5555}


@dataclass(frozen=True)
class Inventory:
    """What is there, by identities that a thing created again would not have.

    Attributes:
        services: id of each service by its name.
        queries: id of the query behind each stream by the stream's name.
        tasks: id and machine of each running task by its service's name and slot.
    """

    services: dict[str, str]
    queries: dict[str, str]
    tasks: dict[str, tuple[str, str]]

    def assert_kept(self, now: Inventory, *, lost: Machine | None = None) -> None:
        """Nothing of this is gone or was created again, and no task that was not on the lost machine was replaced."""
        assert self.services.items() <= now.services.items()
        assert self.queries.items() <= now.queries.items()
        kept = {slot: task for slot, task in self.tasks.items() if lost is None or task[1] != lost.name}
        assert kept.items() <= now.tasks.items()

    def without(self, group: str) -> Inventory:
        """Return the same without what belongs to a group."""
        service, stream = f"{OWNER}_group_{group}", f"ASSET_STREAM_{group}".upper()
        return Inventory(
            {name: one for name, one in self.services.items() if name != service},
            {name: one for name, one in self.queries.items() if name != stream},
            {slot: task for slot, task in self.tasks.items() if not slot.startswith(f"{service}.")},
        )


class Site:
    """Three managers, a plant, and the operators of one owner.

    Attributes:
        rack: the managers.
        plant: ksqlDB and the assets.
        groups: that exist, in the order in which they were added.
    """

    def __init__(self, logs: Path) -> None:
        """Describe it; `open` starts it.

        Args:
            logs: directory for what operators say.
        """
        self.rack = Rack()
        self.groups: list[str] = []
        self._logs = logs
        self._ports = free_ports(2)
        self._operators: list[Operator] = []
        self._closing = ExitStack()
        self._images: dict[str, str] = {}

    def open(self) -> None:
        """Start managers and plant."""
        _remove_leftovers()
        built = dict(line.split("=", 1) for line in (ROOT / "build" / "images.env").read_text().split())
        self._images = {name: _watched_cheaply(built[name], port) for name, port in _IMAGES.items()}
        self._closing.callback(lambda: docker("image", "rm", *self._images.values()))
        self._closing.callback(self.rack.demolish)
        self.rack.build(list(self._images.values()))
        self.plant = Plant(self.rack.host)
        self._closing.callback(self.plant.close)

    def close(self) -> None:
        """Remove everything."""
        self.dismiss()
        self._closing.close()

    def dismiss(self) -> None:
        """End all operators that are left."""
        for operator in self._operators:
            operator.stop()
        self._operators.clear()

    def add(self, number: int) -> list[str]:
        """Add groups to the factory; return their names."""
        names = [f"G{len(self.groups) + step + 1:02d}" for step in range(number)]
        self.groups += names
        self.plant.add(*names)
        return names

    def remove(self) -> str:
        """Take the newest group out of the factory; return its name."""
        gone = self.groups.pop()
        self.plant.remove(gone)
        return gone

    def operator(self, machine: Machine, *, reached: bool = True) -> Operator:
        """Start an operator on the machine; services follow the registry of the one that they reach."""
        log = self._logs / f"operator-{len(list(self._logs.iterdir()))}.log"
        started = Operator(machine, self.settings(reached=reached), log)
        self._operators.append(started)
        return started

    def settings(self, *, reached: bool = True) -> dict[str, str]:
        """Return an operator's settings."""
        small = {f"{part}_CPU_RESERVATION": "0.01" for part in ("ROUTING_LAYER", "FASTAPI_GROUP", "STATE_API")}
        return {
            **self._images,
            **small,
            "KAFKA_BROKER": "embedded:9092",
            "KSQLDB_URL": self.plant.url,
            "KSQLDB_UNS_JOIN_TABLE": "asset_to_uns_map_raw",
            "ENVIRONMENT": "devswarm",
            "DOCKER_NETWORK": NETWORK,
            "RECONCILER_OWNER": OWNER,
            "RESOURCE_PREFIX": OWNER,
            "RECONCILER_PORT": str(self._ports[0 if reached else 1]),
            "RECONCILER_URL": f"http://{self.rack.host}:{self._ports[0]}",
            "RECONCILE_INTERVAL": "1s",
            "LEASE_SECONDS": "6s",
            "PRUNE_READS": str(PRUNE_READS),
            "PRUNE_GRACE": "0s",
            "DRAIN_SECONDS": "1s",
            # Two of three: the loss of any machine leaves one that serves and one that can take over.
            "ROUTING_LAYER_REPLICAS": "2",
            "ROUTING_LAYER_PUBLISH": "host",
        }

    def inventory(self) -> Inventory:
        """Look at everything, past the operator."""
        return Inventory(self.rack.ids(), self.plant.queries(), self.rack.tasks())

    def doors(self, *, lost: Machine | None = None) -> list[str]:
        """Return the addresses where a task of the routing layer is, but for a machine that is or will be lost."""
        routing = {where for slot, (_, where) in self.rack.tasks().items() if slot.startswith(f"{OWNER}_routing")}
        return [one.address for one in self.rack.machines if one.name in routing and one is not lost]

    def serves(self, machine: Machine) -> bool:
        """Whether a task of a group is on the machine."""
        return any(
            slot.startswith(f"{OWNER}_group_") and where == machine.name
            for slot, (_, where) in self.rack.tasks().items()
        )

    def follow(self, *, lost: Machine | None = None) -> list[Follower]:
        """Follow every group that nothing of which is on the machine that will be lost, once new clients are served.

        A machine that has just come back, or whose network has, learns only in some time where the others' tasks are.
        """
        self.wait_until_served(self.groups, lost=lost)
        tasks, [door, *_] = self.rack.tasks(), self.doors(lost=lost)
        where = {group: tasks[f"{OWNER}_group_{group}.1"][1] for group in self.groups}
        spared = [group for group in self.groups if lost is None or where[group] != lost.name]
        assert spared, where
        return [Follower(door, group, self.plant) for group in spared]

    def wait_until_served(self, groups: list[str], *, lost: Machine | None = None) -> None:
        """Wait until new clients are served each of the groups by a machine that is not lost."""
        [door, *_] = self.doors(lost=lost)
        with ThreadPoolExecutor(len(groups)) as clients:
            eventually(
                lambda: [why for why in clients.map(lambda group: why_not_served(door, group), groups) if why],
                lambda unserved: not unserved,
                RECOVERY,
            )

    def repair(self) -> None:
        """Put every machine right, however a test left it."""
        self.dismiss()
        for machine in self.rack.machines:
            machine.repair()
        eventually(self.rack.whole, bool)
        for machine in self.rack.find_deaf():
            machine.kill_engine()
            machine.start_engine()
        eventually(self.rack.whole, bool)


def _watched_cheaply(image: str, port: int) -> str:
    """Make the same image with a health check that starts no interpreter: so many of them would fill two cores."""
    check = f'HEALTHCHECK --interval=3s --timeout=3s --retries=5 CMD ["bash", "-c", ": </dev/tcp/127.0.0.1/{port}"]'
    name = f"{image}-{OWNER}{os.getpid()}"
    container = docker("create", image)
    docker("commit", "--change", check, container, name)
    docker("rm", container)
    return name


def _remove_leftovers() -> None:
    """Remove the images that runs left behind that were killed."""
    names = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    made = [(name, name.rpartition(f"-{OWNER}")[2]) for name in names if f"-{OWNER}" in name]
    for name, pid in made:
        if pid.isdigit() and not runs(pid):
            docker("image", "rm", name)
