"""What a test of the platform of plain containers owns: a unique owner, and a person's hands beside it."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reconciler.domain.services import Drift, Kind, LiveService, ServiceSpec, drift
from reconciler.platforms.docker.platform import DockerPlatform
from tests.swarm.sandbox import docker, eventually, remove_network


class ContainerSandbox:
    """Containers, a network and registry files of one owner that no one else has.

    Attributes:
        owner: the owner label, and the prefix of all names.
        platform: the platform under test, as this owner.
        files: the directory that its registry is kept below.
    """

    def __init__(self, image: str, files: Path) -> None:
        """Choose an owner; nothing is created."""
        self.owner = f"t{uuid.uuid4().hex[:8]}"
        self.files = files
        self.platform = self.process()
        self.image = image
        self.network = f"{self.owner}-net"

    def process(self) -> DockerPlatform:
        """Return a platform as a freshly started process has it."""
        return DockerPlatform(self.owner, self.owner, self.files, monitor=0.5)

    def spec(self, group: str = "Weld", **changes: Any) -> ServiceSpec:
        """Return the spec of a small group service, with some fields changed."""
        spec = ServiceSpec(
            name=f"{self.owner}_group_{group}",
            kind=Kind.GROUP,
            group=group,
            image=self.image,
            env={"GROUP_NAME": group, "LOG_LEVEL": "info"},
            replicas=1,
            cpu_limit=0.5,
            cpu_reservation=0.01,
            network=self.network,
            stop_grace=1.0,
        )
        return dataclasses.replace(spec, **changes)

    def create(self, spec: ServiceSpec) -> ServiceSpec:
        """Create the service through the platform."""
        self.platform.create_service(spec)
        return spec

    def live(self, spec: ServiceSpec) -> LiveService:
        """Return the service as the platform observes it."""
        return self.platform.observe().services[spec.name.lower()]

    def wait(self, spec: ServiceSpec, is_it: Callable[[LiveService], bool]) -> LiveService:
        """Observe until the service is as wanted."""
        return eventually(lambda: self.live(spec), is_it)

    def drift(self, spec: ServiceSpec) -> tuple[Drift, ...]:
        """Return what differs live, the way the plan finds out."""
        live = self.live(spec).spec
        assert live is not None
        return drift(live, spec)

    def step(self, spec: ServiceSpec) -> None:
        """Do what one cycle does: update the service if it differs."""
        if self.drift(spec):
            self.platform.update_service(self.live(spec), spec)

    def converge(self, spec: ServiceSpec) -> LiveService:
        """Do cycles until the service runs as wanted."""

        def cycle() -> LiveService:
            live = self.live(spec)
            if live.spec != spec:
                self.platform.update_service(live, spec)
            return live

        return eventually(cycle, lambda live: live.spec == spec and live.running == 1)

    def containers(self) -> dict[str, str]:
        """Ask the engine itself for all containers of ours: their ids by their names."""
        label = f"label=org.openfactory.owner={self.owner}"
        lines = docker("ps", "--all", "--no-trunc", "--filter", label, "--format", "{{.Names}} {{.ID}}").splitlines()
        return dict(line.split() for line in lines)

    def inspect(self, name: str) -> dict[str, Any]:
        """Return a container as the engine's own client shows it."""
        shown: list[dict[str, Any]] = json.loads(docker("inspect", name))
        return shown[0]

    def networks(self) -> list[str]:
        """Ask the engine itself for networks of our name."""
        return docker("network", "ls", "--filter", f"name={self.network}", "--format", "{{.Name}}").split()

    def clean_up(self) -> None:
        """Remove everything that carries this owner's label or name."""
        self.platform.close()
        named = docker("ps", "--all", "--quiet", "--no-trunc", "--filter", f"name={self.owner}").split()
        ids = {*self.containers().values(), *named}
        if ids:
            docker("rm", "--force", "--volumes", *ids)
        for network in docker("network", "ls", "--quiet", "--filter", f"name={self.network}").split():
            remove_network(network)
