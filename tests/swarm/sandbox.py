"""What a test of the Swarm platform owns: a unique owner, and a person's hands beside it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from reconciler.domain.services import ConfigMount, Drift, Kind, LiveRegistry, LiveService, ServiceSpec, drift
from reconciler.platforms.swarm.platform import SwarmPlatform

T = TypeVar("T")

#: Seconds that a condition may take on a busy machine before a test gives up.
PATIENCE = 60.0
#: How often a command is given that another write came before.
_TRIES = 5


def docker(*arguments: str, stdin: bytes | None = None) -> str:
    """Do by the engine's own client what a person would do; return what it printed.

    The client reads an object and writes it with the version that it read. Where the engine wrote it in between, as it
    does while a service is being set up, a person repeats the command.
    """
    for _ in range(_TRIES):
        done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, check=False)
        if b"out of sequence" not in done.stderr:
            break
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr.decode()}"
    return done.stdout.decode().strip()


def eventually(look: Callable[[], T], is_it: Callable[[T], bool], patience: float = PATIENCE) -> T:
    """Look until it is so, and fail with what was seen last after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while not is_it(seen := look()):
        assert time.monotonic() < deadline, f"still {seen}"
        time.sleep(0.1)
    return seen


def remove_network(name: str) -> None:
    """Remove a network; that is possible a moment after the last container has left it."""
    remove = ["docker", "network", "rm", name]
    eventually(lambda: subprocess.run(remove, capture_output=True, check=False).returncode, lambda code: code == 0)


def logged(log: Path) -> list[dict[str, Any]]:
    """Return what a process has logged as JSON; a line that is still being written counts when it is whole."""
    whole = log.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]


class Sandbox:
    """Services and configs of one owner that no one else has, in one network.

    Attributes:
        owner: the owner label, and the prefix of all names.
        platform: the platform under test, as this owner.
    """

    def __init__(self, image: str, network: str) -> None:
        """Choose an owner; nothing is created."""
        self.owner = f"t{uuid.uuid4().hex[:8]}"
        self.platform = SwarmPlatform(self.owner, self.owner, pin_digests=False)
        self.image = image
        self.network = network

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

    def create_running(self, spec: ServiceSpec) -> ServiceSpec:
        """Create the service and wait until all its tasks run."""
        self.create(spec)
        self.wait(spec, lambda live: live.running == spec.replicas)
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

    def repair(self, spec: ServiceSpec) -> None:
        """Make the live service equal to the spec."""
        self.platform.update_service(self.live(spec), spec)

    def by_hand(self, spec: ServiceSpec, *options: str) -> None:
        """Change the service outside, as a person does."""
        docker("service", "update", "--detach", "--no-resolve-image", *options, spec.name)

    def tasks(self, spec: ServiceSpec) -> frozenset[str]:
        """Return the ids of all tasks that the service has had."""
        return frozenset(docker("service", "ps", "--quiet", "--no-trunc", spec.name).split())

    def inspect(self, spec: ServiceSpec) -> dict[str, Any]:
        """Return the service as the engine's own client shows it."""
        shown: list[dict[str, Any]] = json.loads(docker("service", "inspect", spec.name))
        return shown[0]

    def publish(self, text: str, revision: str, sequence: int) -> ConfigMount:
        """Publish a registry document and return how a service mounts it."""
        self.platform.publish_registry(text.encode(), revision, sequence)
        return ConfigMount(f"{self.owner}_registry-{revision}", "/registry.json")

    def registries(self) -> tuple[LiveRegistry, ...]:
        """Return the published documents, newest first."""
        return self.platform.observe().registries

    def clean_up(self) -> None:
        """Remove everything whose name starts with this owner's prefix; containers go in their own time."""
        self.platform.close()
        _remove("service", self._named("service"))
        _remove("config", self._named("config"))

    def _named(self, what: str) -> list[str]:
        names = docker(what, "ls", "--filter", f"name={self.owner}", "--format", "{{.Name}}").split()
        return [name for name in names if name.startswith(self.owner)]


def _remove(what: str, names: list[str]) -> None:
    if names:
        docker(what, "rm", *names)
