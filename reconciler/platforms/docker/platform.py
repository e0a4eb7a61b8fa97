"""Plain containers of one Docker engine as a platform: for a laptop, without a Swarm.

A container cannot be updated, so an update is a replacement: the new container starts beside the old one under a
temporary name; when it is healthy, the old one is removed and the new one takes its name. Each of these steps is
decided from what is observed, so the next cycle continues after an interruption at any step.

Measured on engine 20.10: a renamed container keeps the name in DNS that it was started under, so both have the
service's name as an alias, and a connection that is refused by one goes to the other; the list of containers lacks
variables and limits, so each of ours is inspected.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from openfactory_common.errors import PlatformConflict, PlatformRefused
from reconciler.domain.facts import EngineFacts
from reconciler.domain.services import LiveRegistry, LiveService, PlatformState, Record, ServiceSpec
from reconciler.platforms.answers import parse_time
from reconciler.platforms.docker.records import RecordFiles
from reconciler.platforms.docker.registry import RegistryFiles
from reconciler.platforms.docker.spec import (
    SERVICE,
    Raw,
    can_run_beside,
    from_engine,
    label_previous,
    lacks_limit,
    limits,
    mounts_registry,
    networks,
    to_engine,
)
from reconciler.platforms.docker.state import (
    ID_SEPARATOR,
    NEXT,
    Containers,
    Fault,
    find_ends,
    group_by_service,
    name_of,
    read_copies,
    read_foreign,
    read_service,
    read_spec,
)
from reconciler.platforms.engine import Engine, NotFound, OnRequest
from reconciler.platforms.inspection import inspect_docker
from reconciler.platforms.protocol import KIND, OWNER, LogLine, label_failure

#: Value of the kind label on a network that we made.
NETWORK_KIND = "network"
#: Seconds that a container has to run before an older one is removed for it, unless a healthcheck says more.
MONITOR = 5.0
#: Seconds that the pull of an image may show no progress.
_PULL_SILENCE = 120.0
#: Seconds that a stop may take beyond the container's grace period.
_STOP_MARGIN = 10.0


class DockerPlatform:
    """The containers of one owner on one engine, and the registry's files.

    Attributes:
        owner: value of the label ``org.openfactory.owner`` on everything that is ours.
        prefix: of the names of our services and registry documents.
    """

    def __init__(
        self,
        owner: str,
        prefix: str,
        registry_dir: Path,
        *,
        base_url: str | None = None,
        timeout: float = 10.0,
        on_request: OnRequest | None = None,
        monitor: float = MONITOR,
    ) -> None:
        """Set up; nothing is sent before the first call.

        Args:
            owner: of the objects.
            prefix: of names.
            registry_dir: where each owner's registry has a directory; the engine must see it under the same path.
            base_url: of the engine; None for Docker's usual variables (``DOCKER_HOST``, ...).
            timeout: seconds for a connection and for each part of an answer.
            on_request: called after every request: see `engine.OnRequest`.
            monitor: seconds that a container without a healthcheck has to run before an older one is removed for it.
        """
        self.owner = owner
        self.prefix = prefix
        self._files = RegistryFiles(registry_dir.resolve() / owner, prefix)
        self._records = RecordFiles(registry_dir.resolve() / owner)
        self._engine = Engine(base_url, timeout, on_request)
        self._monitor = monitor
        self._images: dict[str, Raw] = {}
        self._limits_memory: bool | None = None

    def observe(self, suspects: Collection[str] = ()) -> PlatformState:  # noqa: ARG002 - each container is read
        """Read everything: the list of containers, each of ours, images that were not read before, the files.

        Raises:
            PlatformError: a read failed or was not complete.
        """
        rows = self._engine.get("/containers/json", params={"all": "true"})
        self._limits_memory = None  # the engine may have been started again, with the cgroup
        ours = [raw for row in rows if self._owns(row) for raw in self._inspect(row["Id"])]
        images, registry = self._images_of(ours), self._files.locate()
        reserved = f"/{self.prefix.lower()}_"
        foreign = [row for row in rows if not self._owns(row)]
        read = [
            read_foreign(row)
            for row in foreign
            if any(name.lower().startswith(reserved) for name in row.get("Names") or ())
        ]
        read += read_copies(ours, images, registry)
        now = datetime.now(UTC)
        groups = self._group_by_service(ours).values()
        read += [read_service(one, images, registry, now) for one in groups]
        mounted = any(mounts_registry(raw, registry) for raw in ours)
        return PlatformState(
            services={service.name.lower(): service for service in read},
            registries=self._files.read(mounted=mounted),
            records=self._records.read(),
            ended=find_ends(groups),
        )

    def create_service(self, spec: ServiceSpec) -> None:
        """Create it, with the image and the network if they are not there yet.

        Raises:
            PlatformConflict: the name is taken, or it mounts a registry document that is not the current one.
            PlatformRefused: the engine does not accept the spec, cannot pull the image, or cannot start it.
            PlatformUnreachable: it may or may not have been created.
        """
        self._start(self._create(spec, spec.name, {}))

    def update_service(self, live: LiveService, spec: ServiceSpec, failed: str = "", failure: str = "") -> None:
        """Do the next step towards ``spec``; the steps after it are differences again.

        ``failed`` and ``failure`` are labels of a new container, so a rollback always makes one, also where the
        container that serves has the spec.

        Raises:
            PlatformConflict: the service changed or was removed since it was read.
            PlatformRefused: the engine does not accept the spec, cannot pull the image, or cannot start it.
            PlatformUnreachable: the step may or may not have been done.
        """
        containers, registry = self._find_containers(live), self._files.locate()
        found = read_spec(containers, self._images_of(containers.all), registry)
        newest, serving = containers.newest, containers.older[-1] if containers.older else None
        if found is not None and _is_repairable(found, spec) and not self._lost_its_network(newest):
            # An engine changes these on a container that runs.
            if found.cpu_limit != spec.cpu_limit or Fault.RESTART_POLICY in found.unexpected:
                self._engine.post("/containers/{}/update", newest["Id"], body=limits(spec))
            self._repair(containers, frozenset(map(Fault, found.unexpected)))
        elif not failed and serving and from_engine(serving, self._read_image(serving["Image"]), registry) == spec:
            self._remove(newest)  # the container that serves has the spec again
        else:
            self._replace(containers, spec, {**label_previous(found), **label_failure(failed, failure)})

    def remove_service(self, live: LiveService) -> None:
        """Remove it by id, the last one with the network that we made. One that is already gone is no error."""
        for identity in live.id.split(ID_SEPARATOR):
            for raw in self._inspect(identity):
                self._remove(raw)
        self._remove_unused_networks()

    def publish_registry(self, data: bytes, revision: str, sequence: int) -> None:
        """Make the document current.

        Raises:
            PlatformConflict: another operator published at the same time.
            PlatformRefused: the files cannot be written.
        """
        self._files.publish(data, revision, sequence)

    def remove_registry(self, registry: LiveRegistry) -> None:
        """Remove a document; one that is already gone is no error, one that is mounted is `PlatformRefused`."""
        self._files.remove(registry)

    def records(self) -> Mapping[str, Record]:
        """Read all records of ours.

        Raises:
            PlatformRefused: their directory cannot be read.
        """
        return self._records.read()

    def write_record(self, name: str, fields: Mapping[str, str], before: Record | None) -> None:
        """Write it, if it is still as it was read.

        Raises:
            PlatformConflict: it is not.
            PlatformRefused: it cannot be written.
        """
        self._records.write(name, fields, before)

    def remove_record(self, record: Record) -> None:
        """Remove it; one that is already gone is no error."""
        self._records.remove(record)

    def task_logs(self, live: LiveService, tail: int, *, follow: bool) -> Iterator[LogLine]:
        """Return what the containers of a service have written, oldest container first; only the newest is followed.

        Raises:
            PlatformError: the read failed, perhaps after some lines.
        """
        identities = live.id.split(ID_SEPARATOR)
        for identity in identities:
            follows = follow and identity == identities[-1]
            for text in self._engine.read_output("/containers/{}/logs", identity, tail=tail, follow=follows):
                yield LogLine(f"{live.name} {identity[:12]}", text)

    def inspect(self, network: str, images: Collection[str]) -> EngineFacts:
        """Return what the engine says of itself, the network and the images; it only reads.

        Raises:
            PlatformError: it does not answer.
        """
        return inspect_docker(self._engine, network, images)

    def close(self) -> None:
        """Close the connections to the engine."""
        self._engine.close()

    def _owns(self, row: Raw) -> bool:
        labels = row.get("Labels") or {}
        return bool(labels.get(OWNER) == self.owner and SERVICE in labels)

    def _inspect(self, identity: str) -> list[Raw]:
        """Read one container; it may be gone since it was listed, and is ours only if its own labels say so."""
        try:
            raw = self._engine.get("/containers/{}/json", identity)
        except NotFound:
            return []
        if not self._owns(raw["Config"]):
            return []
        return [{**raw, "LimitsMemory": self._can_limit_memory()} if lacks_limit(raw) else raw]

    def _can_limit_memory(self) -> bool:
        """Whether a container without the limit that was asked for lost it, once an observation."""
        if self._limits_memory is None:
            self._limits_memory = False
            with suppress(NotFound, PlatformRefused):  # a filter before the engine may refuse the question
                self._limits_memory = self._engine.get("/info").get("MemoryLimit") is True
        return self._limits_memory

    def _group_by_service(self, raws: Iterable[Raw]) -> Mapping[str, Containers]:
        return group_by_service(raws, datetime.now(UTC), self._monitor)

    def _images_of(self, raws: Iterable[Raw]) -> dict[str, Raw | None]:
        return {raw["Image"]: self._read_image(raw["Image"]) for raw in raws}

    def _read_image(self, identity: str) -> Raw | None:
        """Read an image once: the content of an id never changes."""
        if identity not in self._images:
            try:
                self._images[identity] = self._engine.get("/images/{}/json", identity)
            except NotFound:
                return None
        return self._images[identity]

    def _find_containers(self, live: LiveService) -> Containers:
        wanted = {"label": [f"{OWNER}={self.owner}", f"{SERVICE}={live.name}"]}
        rows = self._engine.get("/containers/json", params={"all": "true", "filters": wanted})
        found = self._group_by_service(raw for row in rows for raw in self._inspect(row["Id"])).get(live.name)
        if found is None or found.version != live.version:
            raise PlatformConflict(f"service {live.name} changed since it was read")
        return found

    def _lost_its_network(self, raw: Raw) -> bool:
        """Whether its network was removed while it was stopped; a new network of the same name has another id."""
        attached = {network.get("NetworkID") for network in networks(raw).values()} - {"", None}
        return not attached <= {network["Id"] for network in self._engine.get("/networks")}

    def _repair(self, containers: Containers, faults: frozenset[Fault]) -> None:
        """Repair the newest container without a replacement."""
        newest = containers.newest
        for old in containers.older if Fault.REPLACED in faults else ():
            self._remove(old)
        if name_of(newest) != containers.service and not (containers.older and Fault.REPLACED not in faults):
            self._engine.post("/containers/{}/rename", newest["Id"], params={"name": containers.service})
        if Fault.PAUSED in faults:
            self._engine.post("/containers/{}/unpause", newest["Id"])
        if Fault.STOPPED in faults:
            self._start(newest["Id"])

    def _replace(self, containers: Containers, spec: ServiceSpec, labels: Mapping[str, str]) -> None:
        """Start the new container beside the one that serves; where they would share a port, in its place."""
        serving = containers.newest
        if serving["State"]["Status"] == "paused":  # it serves until the new one does, and permanently if that fails
            self._engine.post("/containers/{}/unpause", serving["Id"])
        if containers.older:  # a replacement with an outdated spec
            serving = containers.older[-1]
            self._remove(containers.newest)
        name = f"{spec.name}{NEXT}"
        if name_of(serving) == name:  # it has not been renamed yet
            name = spec.name
        made = self._create(spec, name, labels)
        if not can_run_beside(spec):
            self._remove(serving)
            if name != spec.name:
                self._engine.post("/containers/{}/rename", made, params={"name": spec.name})
        self._start(made)

    def _create(self, spec: ServiceSpec, name: str, labels: Mapping[str, str]) -> str:
        registry = self._files.locate()
        missing = [mount.name for mount in spec.configs if mount.name != registry.current]
        if missing:
            current = registry.current or "none"
            raise PlatformConflict(
                f"service {spec.name} mounts registry {missing[0]}, but the current one is {current}"
            )
        body = to_engine(spec, self.owner, registry)
        body["Labels"] |= labels
        for network in (spec.network, *spec.networks):
            self._ensure_network(network)
        try:
            self._engine.get("/images/{}/json", spec.image)
        except NotFound:
            self._engine.pull(spec.image, _PULL_SILENCE)
        made = str(self._engine.post("/containers/create", params={"name": name}, body=body)["Id"])
        for network in spec.networks:  # an engine takes one network at the creation; a lost one is a difference
            alias = {"Container": made, "EndpointConfig": {"Aliases": [spec.name]}}
            self._engine.post("/networks/{}/connect", network, body=alias)
        return made

    def _start(self, identity: str) -> None:
        self._engine.post("/containers/{}/start", identity)

    def _remove(self, raw: Raw) -> None:
        grace = int(raw["Config"].get("StopTimeout") or 10)
        with suppress(NotFound):
            if raw["State"]["Status"] not in ("created", "exited", "dead"):
                self._engine.post("/containers/{}/stop", raw["Id"], params={"t": grace}, timeout=grace + _STOP_MARGIN)
            self._engine.delete("/containers/{}", raw["Id"], params={"force": "true", "v": "true"})

    def _ensure_network(self, name: str) -> None:
        network = self._find_network(name)
        if network is None:
            with self._records.lock():  # the engine does not exclude two creations at the same time
                if self._find_network(name) is None:
                    self._create_network(name)
        elif network.get("Scope") == "swarm":
            # Measured: the Swarm's routing layer then reaches our containers, which have its services' names.
            raise PlatformRefused(
                f"DOCKER_NETWORK={name} is a network of a Swarm, in which services of the same names may answer: "
                "set DOCKER_NETWORK (or the NETWORKS of this service) to another name"
            )

    def _find_network(self, name: str) -> Raw | None:
        return next((network for network in self._engine.get("/networks") if network["Name"] == name), None)

    def _create_network(self, name: str) -> None:
        labels = {OWNER: self.owner, KIND: NETWORK_KIND}
        body = {"Name": name, "Driver": "bridge", "CheckDuplicate": True, "Labels": labels}
        with suppress(PlatformConflict):  # another client was faster
            made = self._engine.post("/networks/create", body=body)["Id"]
            # A client that does not use our lock may have made one at the same time; the later one is removed.
            found = [
                (parse_time(one["Created"]), one["Id"]) for one in self._engine.get("/networks") if one["Name"] == name
            ]
            if min(found)[1] != made:
                self._engine.delete("/networks/{}", made)

    def _remove_unused_networks(self) -> None:
        """Remove the networks that we made if no container of ours is left; one that others use stays."""
        if any(self._owns(row) for row in self._engine.get("/containers/json", params={"all": "true"})):
            return
        ours = {"label": [f"{OWNER}={self.owner}", f"{KIND}={NETWORK_KIND}"]}
        for network in self._engine.get("/networks", params={"filters": ours}):
            with suppress(PlatformRefused, NotFound):
                self._engine.delete("/networks/{}", network["Id"])


def _is_repairable(found: ServiceSpec, wanted: ServiceSpec) -> bool:
    """Whether only the state and the limits differ; an engine can set a limit, and not remove it."""
    same = replace(found, unexpected=(), cpu_limit=wanted.cpu_limit) == wanted
    can_be_set = found.cpu_limit == wanted.cpu_limit or wanted.cpu_limit > 0
    return same and can_be_set and set(found.unexpected) <= set(Fault)
