"""Plain containers of one Docker engine as a platform: for a laptop, without a Swarm.

A container cannot be updated, so an update is a replacement: the new container starts beside the old one under a
passing name, and when it is well, the old one is removed and the new one takes its name. Every one of these steps is
decided from what is observed, so an interruption anywhere is continued by the next cycle.

Facts this rests on, measured on engine 20.10: a renamed container keeps the name in DNS that it was started under, so
both have the service's name as an alias, and a connection that finds nobody at one goes to the other; the list of
containers lacks variables and limits, so each of ours is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from openfactory_common.errors import PlatformConflict, PlatformRefused
from reconciler.domain.services import LiveRegistry, LiveService, PlatformState, Record, ServiceSpec
from reconciler.platforms.answers import moment
from reconciler.platforms.docker.records import RecordFiles
from reconciler.platforms.docker.registry import RegistryFiles
from reconciler.platforms.docker.spec import (
    SERVICE,
    Raw,
    Shelf,
    from_engine,
    limits,
    networks,
    shows_registry,
    side_by_side,
    to_engine,
)
from reconciler.platforms.docker.state import (
    AND,
    NEXT,
    Containers,
    Fault,
    by_service,
    copies,
    foreign,
    live_service,
    name_of,
    spec_of,
)
from reconciler.platforms.engine import Engine, NotFound, OnRequest
from reconciler.platforms.protocol import KIND, OWNER

#: Value of the kind label on the network that we made.
NETWORK_KIND = "network"
#: Seconds that a container has to run before an older one is removed for it, unless a healthcheck says more.
MONITOR = 5.0
#: Seconds that pulling an image may go without a sign of progress.
_PULL_SILENCE = 120.0
#: Seconds that a stop may take beyond the grace time that the container has.
_STOP_MARGIN = 10.0


class DockerPlatform:
    """The containers of one owner on one engine, and the registry's files.

    Attributes:
        owner: value of the label ``org.openfactory.owner`` on everything that is ours.
        prefix: what the names of our services and registry documents start with.
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
        """Remember where the engine is; nothing is sent before the first call.

        Args:
            owner: whose objects we keep.
            prefix: of names.
            registry_dir: where each owner's registry has a directory; the engine must see it under the same path.
            base_url: of the engine; None for Docker's usual variables (``DOCKER_HOST``, ...).
            timeout: seconds for a connection and for each part of an answer.
            on_request: told about every request: see `swarm_engine.OnRequest`.
            monitor: seconds that a container without a healthcheck has to run before an older one is removed for it.
        """
        self.owner = owner
        self.prefix = prefix
        self._files = RegistryFiles(registry_dir.resolve() / owner, prefix)
        self._records = RecordFiles(registry_dir.resolve() / owner)
        self._engine = Engine(base_url, timeout, on_request)
        self._monitor = monitor
        self._images: dict[str, Raw] = {}

    def observe(self) -> PlatformState:
        """Read everything: the list of containers, each of ours, images that were not seen before, the files.

        Raises:
            PlatformError: nothing was read that is complete.
        """
        rows = self._engine.get("/containers/json", params={"all": "true"})
        ours = [raw for row in rows if self._owns(row) for raw in self._inspected(row["Id"])]
        shelf = self._files.shelf()
        read = [foreign(row) for row in rows if not self._owns(row) and self._reserves(row)]
        read += copies(ours, self._images_of(ours), shelf)
        read += [self._live(containers, shelf) for containers in self._by_service(ours).values()]
        shown = any(shows_registry(raw, shelf) for raw in ours)
        return PlatformState(
            services={service.name.lower(): service for service in read},
            registries=self._files.read(mounted=shown),
            records=self._records.read(),
        )

    def create_service(self, spec: ServiceSpec) -> None:
        """Create it, with the image and the network if they are not there yet.

        Raises:
            PlatformConflict: the name is taken, or a registry document that it mounts is not the current one.
            PlatformRefused: the engine does not accept the spec, cannot pull the image, or cannot start it.
            PlatformUnreachable: it may or may not have been created.
        """
        self._start(self._create(spec, spec.name))

    def update_service(self, live: LiveService, spec: ServiceSpec) -> None:
        """Do the next step on the way from what was read to ``spec``; later ones show as differences again.

        Raises:
            PlatformConflict: the service changed or went since it was read.
            PlatformRefused: the engine does not accept the spec, cannot pull the image, or cannot start it.
            PlatformUnreachable: the step may or may not have been done.
        """
        containers = self._containers(live)
        shelf = self._files.shelf()
        found = spec_of(containers, self._images_of(containers.all), shelf)
        if found is not None and _is_repairable(found, spec) and not self._lost_its_network(containers.newest):
            self._limit(containers.newest, found, spec)
            self._repair(containers, frozenset(map(Fault, found.unexpected)))
        elif self._is_older(containers, spec, shelf):
            self._remove(containers.newest)
        else:
            self._replace(containers, spec)

    def remove_service(self, live: LiveService) -> None:
        """Remove it by id; with the last of ours goes the network that we made. One that is gone is no error."""
        for identity in live.id.split(AND):
            for raw in self._inspected(identity):
                self._remove(raw)
        self._remove_unused_networks()

    def publish_registry(self, data: bytes, revision: str, sequence: int) -> None:
        """Make the document current.

        Raises:
            PlatformConflict: somebody else published at the same time.
            PlatformRefused: the files cannot be written.
        """
        self._files.publish(data, revision, sequence)

    def remove_registry(self, registry: LiveRegistry) -> None:
        """Remove a document; one that is already gone is no error, one that is shown is `PlatformRefused`."""
        self._files.remove(registry)

    def records(self) -> Mapping[str, Record]:
        """Read all records of ours.

        Raises:
            PlatformRefused: their directory cannot be read.
        """
        return self._records.read()

    def write_record(self, name: str, fields: Mapping[str, str], before: Record | None) -> None:
        """Write it, if it is as it was read.

        Raises:
            PlatformConflict: it is not.
            PlatformRefused: it cannot be written.
        """
        self._records.write(name, fields, before)

    def remove_record(self, record: Record) -> None:
        """Remove it; one that is already gone is no error."""
        self._records.remove(record)

    def close(self) -> None:
        """Close the connections to the engine."""
        self._engine.close()

    # ---- looking

    def _owns(self, row: Raw) -> bool:
        labels = row.get("Labels") or {}
        return bool(labels.get(OWNER) == self.owner and SERVICE in labels)

    def _reserves(self, row: Raw) -> bool:
        return any(name.lower().startswith(f"/{self.prefix.lower()}_") for name in row.get("Names") or ())

    def _inspected(self, identity: str) -> list[Raw]:
        """Look at one container; it may have gone since it was listed, and is ours only if it says so itself."""
        try:
            raw = self._engine.get("/containers/{}/json", identity)
        except NotFound:
            return []
        return [raw] if self._owns(raw["Config"]) else []

    def _by_service(self, raws: Iterable[Raw]) -> Mapping[str, Containers]:
        return by_service(raws, datetime.now(UTC), self._monitor)

    def _live(self, containers: Containers, shelf: Shelf) -> LiveService:
        return live_service(containers, self._images_of(containers.all), shelf)

    def _images_of(self, raws: Iterable[Raw]) -> dict[str, Raw | None]:
        return {raw["Image"]: self._image(raw["Image"]) for raw in raws}

    def _image(self, identity: str) -> Raw | None:
        """Look at an image once: what has this id never changes."""
        if identity not in self._images:
            try:
                self._images[identity] = self._engine.get("/images/{}/json", identity)
            except NotFound:
                return None
        return self._images[identity]

    def _containers(self, live: LiveService) -> Containers:
        wanted = {"label": [f"{OWNER}={self.owner}", f"{SERVICE}={live.name}"]}
        rows = self._engine.get("/containers/json", params={"all": "true", "filters": wanted})
        found = self._by_service(raw for row in rows for raw in self._inspected(row["Id"])).get(live.name)
        if found is None or found.version != live.version:
            raise PlatformConflict(f"service {live.name} changed since it was read")
        return found

    def _is_older(self, containers: Containers, spec: ServiceSpec, shelf: Shelf) -> bool:
        """Whether the container that serves is what is wanted again, so that the newest can just go."""
        if not containers.older:
            return False
        serving = containers.older[-1]
        return from_engine(serving, self._image(serving["Image"]), shelf) == spec

    def _lost_its_network(self, raw: Raw) -> bool:
        """Whether the network went while the container was stopped: one of the same name is another one to it."""
        attached = {network.get("NetworkID") for network in networks(raw).values()} - {"", None}
        return not attached <= {network["Id"] for network in self._engine.get("/networks")}

    # ---- doing

    def _limit(self, raw: Raw, found: ServiceSpec, spec: ServiceSpec) -> None:
        """Set what an engine can change on a container that runs."""
        if found.cpu_limit != spec.cpu_limit or Fault.RESTART_POLICY in found.unexpected:
            self._engine.post("/containers/{}/update", raw["Id"], body=limits(spec))

    def _repair(self, containers: Containers, faults: frozenset[Fault]) -> None:
        """Bring the newest container to where it should be, without another one."""
        newest = containers.newest
        for old in containers.older if Fault.REPLACED in faults else ():
            self._remove(old)
        if name_of(newest) != containers.service and not (containers.older and Fault.REPLACED not in faults):
            self._engine.post("/containers/{}/rename", newest["Id"], params={"name": containers.service})
        if Fault.PAUSED in faults:
            self._engine.post("/containers/{}/unpause", newest["Id"])
        if Fault.STOPPED in faults:
            self._start(newest["Id"])

    def _replace(self, containers: Containers, spec: ServiceSpec) -> None:
        """Start the wanted container beside the one that serves; where they would share a port, in its place."""
        serving = containers.newest
        if serving["State"]["Status"] == "paused":  # it serves until the new one does, and for good if that cannot be
            self._engine.post("/containers/{}/unpause", serving["Id"])
        if containers.older:  # a replacement that is not wanted any more
            serving = containers.older[-1]
            self._remove(containers.newest)
        name = f"{spec.name}{NEXT}"
        if name_of(serving) == name:  # it has not been renamed yet
            name = spec.name
        made = self._create(spec, name)
        if not side_by_side(spec):
            self._remove(serving)
            if name != spec.name:
                self._engine.post("/containers/{}/rename", made, params={"name": spec.name})
        self._start(made)

    def _create(self, spec: ServiceSpec, name: str) -> str:
        self._need_registry(spec)
        body = to_engine(spec, self.owner, self._files.shelf())
        self._need_network(spec.network)
        self._need_image(spec.image)
        return str(self._engine.post("/containers/create", params={"name": name}, body=body)["Id"])

    def _start(self, identity: str) -> None:
        self._engine.post("/containers/{}/start", identity)

    def _remove(self, raw: Raw) -> None:
        grace = int(raw["Config"].get("StopTimeout") or 10)
        with suppress(NotFound):
            if raw["State"]["Status"] not in ("created", "exited", "dead"):
                self._engine.post("/containers/{}/stop", raw["Id"], params={"t": grace}, timeout=grace + _STOP_MARGIN)
            self._engine.delete("/containers/{}", raw["Id"], params={"force": "true", "v": "true"})

    def _need_registry(self, spec: ServiceSpec) -> None:
        current = self._files.shelf().current
        missing = [mount.name for mount in spec.configs if mount.name != current]
        if missing:
            raise PlatformConflict(
                f"service {spec.name} mounts registry {missing[0]}, but {current or 'none'} is there"
            )

    def _need_network(self, name: str) -> None:
        network = self._network(name)
        if network is not None and network.get("Scope") == "swarm":
            # Measured: the Swarm's routing layer then reaches our containers, which have its services' names.
            raise PlatformRefused(
                f"DOCKER_NETWORK={name} is a network of a Swarm, in which services of the same names may answer: "
                "set DOCKER_NETWORK to another name"
            )
        if network is None:
            with self._records.alone():  # the engine does not keep two creations at once apart
                self._make_network(name)

    def _network(self, name: str) -> Raw | None:
        return next((network for network in self._engine.get("/networks") if network["Name"] == name), None)

    def _make_network(self, name: str) -> None:
        if self._network(name) is not None:
            return
        labels = {OWNER: self.owner, KIND: NETWORK_KIND}
        body = {"Name": name, "Driver": "bridge", "CheckDuplicate": True, "Labels": labels}
        with suppress(PlatformConflict):  # somebody was faster
            made = self._engine.post("/networks/create", body=body)["Id"]
            # Somebody else may have been as fast, whom our lock does not keep out; the later one is taken back.
            found = [
                (moment(one["Created"]), one["Id"]) for one in self._engine.get("/networks") if one["Name"] == name
            ]
            if min(found)[1] != made:
                self._engine.delete("/networks/{}", made)

    def _need_image(self, image: str) -> None:
        try:
            self._engine.get("/images/{}/json", image)
        except NotFound:
            self._engine.pull(image, _PULL_SILENCE)

    def _remove_unused_networks(self) -> None:
        """Remove the networks that we made once nothing of ours is left; one that others use stays."""
        if any(self._owns(row) for row in self._engine.get("/containers/json", params={"all": "true"})):
            return
        ours = {"label": [f"{OWNER}={self.owner}", f"{KIND}={NETWORK_KIND}"]}
        for network in self._engine.get("/networks", params={"filters": ours}):
            with suppress(PlatformRefused, NotFound):
                self._engine.delete("/networks/{}", network["Id"])


def _is_repairable(found: ServiceSpec, wanted: ServiceSpec) -> bool:
    """Whether nothing differs but the state and the limits; an engine sets a limit, and never takes it off."""
    same = replace(found, unexpected=(), cpu_limit=wanted.cpu_limit) == wanted
    can_be_set = found.cpu_limit == wanted.cpu_limit or wanted.cpu_limit > 0
    return same and can_be_set and set(found.unexpected) <= set(Fault)
