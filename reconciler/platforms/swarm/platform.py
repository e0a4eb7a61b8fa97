"""Docker Swarm as a platform: full reads, versioned writes, no memory but caches.

Facts this rests on, measured on engine 20.10: one list of services with status costs 4 ms for 200 of them;
``RunningTasks`` counts a task with a healthcheck only once it is healthy; network names are resolved by the engine
when it stores a spec, so that live specs carry ids; a config's data never changes, its labels may.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from openfactory_common.errors import PlatformConflict, PlatformError, PlatformRefused, PlatformUnreachable
from reconciler.domain.services import LiveRegistry, LiveService, PlatformState, Record, ServiceSpec
from reconciler.platforms.engine import PRIVILEGES_API, Engine, NotFound, OnRequest
from reconciler.platforms.protocol import INSTALLATION, KIND, OWNER, Reference
from reconciler.platforms.swarm.references import missing_references
from reconciler.platforms.swarm.spec import live_image, network_ids, repaired, to_engine
from reconciler.platforms.swarm.state import (
    RECORD_FIELD,
    RECORD_KIND,
    REGISTRY_KIND,
    SEQUENCE,
    Tasks,
    by_service,
    in_trouble,
    is_down,
    is_of_kind,
    is_registry,
    is_relevant,
    live_record,
    live_registry,
    live_service,
    miscounted,
    mounted_configs,
    networks_of,
    newest_first,
    sequence_of,
)

Raw = Mapping[str, Any]

#: Seconds for which a digest, or that none could be had, is not asked for again: many services share an image.
DIGEST_TTL = 300.0
#: Seconds between two questions whether a node is down; the Swarm itself takes some 15 to 45 to notice it.
NODES_EVERY = 30.0
#: Seconds of the longest wait before a question is asked again that was refused the last times.
LONGEST_WAIT = 3600.0
#: What the config of a record holds for a person who looks inside.
_RECORD_DATA = base64.b64encode(b"What operators agree on stands in the labels of this config.\n").decode()
_LOG = logging.getLogger(__name__)


class SwarmPlatform:
    """The services and configs of one owner in one Swarm.

    Attributes:
        owner: value of the label ``org.openfactory.owner`` on everything that is ours.
        prefix: what the names of our services and configs start with.
    """

    def __init__(
        self,
        owner: str,
        prefix: str,
        *,
        pin_digests: bool,
        base_url: str | None = None,
        timeout: float = 10.0,
        on_request: OnRequest | None = None,
    ) -> None:
        """Remember where the Swarm is; nothing is sent before the first call.

        Args:
            owner: whose objects we keep.
            prefix: of names.
            pin_digests: run images by the digest that their tag has when it is first used (best effort).
            base_url: of a manager's engine; None for Docker's usual variables (``DOCKER_HOST``, ...).
            timeout: seconds for a connection and for each part of an answer.
            on_request: told about every request: see `swarm_engine.OnRequest`.
        """
        self.owner = owner
        self.prefix = prefix
        self._engine = Engine(base_url, timeout, on_request)
        self._digests = _Digests(self._engine) if pin_digests else None
        self._networks: Mapping[str, str] = {}
        self._nodes = _Nodes(self._engine)
        self._miscounted = False

    def observe(self) -> PlatformState:
        """Read everything: services, our configs, and tasks where the engine's counts cannot do.

        These are at most 3 requests, whatever the number of services. There is one more for the API version after a
        (re)connect, and one for the networks when a service of ours is in one that no task of ours is in.

        Raises:
            PlatformError: nothing was read that is complete.
        """
        services = self._engine.get("/services", params={"status": "true"})
        configs = self._engine.get("/configs", params={"filters": {"label": [f"{OWNER}={self.owner}"]}})
        relevant = [raw for raw in services if is_relevant(raw, self.owner, self.prefix)]
        own = [raw for raw in relevant if self._owns(raw)]
        tasks = self._tasks_if_needed(own)
        read = [self._pin_checked(live_service(raw, self.owner, self._networks, tasks), raw) for raw in relevant]
        mounted = mounted_configs(services)
        return PlatformState(
            services={service.name.lower(): service for service in read},
            registries=newest_first(live_registry(raw, mounted) for raw in configs if is_registry(raw)),
            records=self._records_of(configs),
        )

    def create_service(self, spec: ServiceSpec) -> None:
        """Create it.

        Raises:
            PlatformConflict: the name is taken, or a config that it mounts is not there (any more).
            PlatformRefused: the engine does not accept the spec.
            PlatformUnreachable: it may or may not have been created.
        """
        image = self._pinned(spec.image)
        body = self._body(spec, image)
        self._engine.post("/services/create", body=body, headers=self._engine.credentials(image))

    def update_service(self, live: LiveService, spec: ServiceSpec) -> None:
        """Make ``live`` equal to ``spec``, at the version that was read.

        Labels of others, the ``ForceUpdate`` counter, and the digest of an image that stays are kept.

        Raises:
            PlatformConflict: the service changed or went since it was read.
            PlatformRefused: the engine does not accept the spec, for example another mode or name.
            PlatformUnreachable: it may or may not have been updated.
        """
        raw = self._engine.get("/services/{}", live.id)
        if raw["Version"]["Index"] != live.version:
            raise PlatformConflict(f"service {live.name} changed since it was read: update out of sequence")
        self._learn_networks([raw])
        image = live_image(raw["Spec"], spec) or spec.image
        fresh = self._body(spec, image if "@" in image else self._pinned(spec.image))
        body = repaired(raw["Spec"], spec, fresh, self._networks)
        headers = self._engine.credentials(image)
        self._engine.post("/services/{}/update", live.id, body=body, version=live.version, headers=headers)

    def remove_service(self, live: LiveService) -> None:
        """Remove it by id, so that a new one of the same name is safe; one that is already gone is no error."""
        self._remove("/services/{}", live.id)

    def publish_registry(self, data: bytes, revision: str, sequence: int) -> None:
        """Make the document current: create it under its content's name, or renew the one that exists.

        Raises:
            PlatformConflict: somebody else published at the same time.
            PlatformRefused: the name belongs to somebody else or to other content, or the document is too large.
            PlatformUnreachable: it may or may not have been published.
        """
        name = f"{self.prefix}_registry-{revision}"
        labels = {OWNER: self.owner, KIND: REGISTRY_KIND, SEQUENCE: str(sequence), **_installation(data)}
        body = {"Name": name, "Labels": labels, "Data": base64.b64encode(data).decode()}
        try:
            self._engine.post("/configs/create", body=body)
        except PlatformConflict as taken:
            existing = self._configs([name]).get(name)
            if existing is None:
                raise
            self._renew(existing, body, sequence, taken)

    def remove_registry(self, registry: LiveRegistry) -> None:
        """Remove a document; one that is already gone is no error, one that a service mounts is `PlatformRefused`."""
        self._remove("/configs/{}", registry.id)

    def records(self) -> Mapping[str, Record]:
        """Read all records of ours.

        Raises:
            PlatformError: they cannot be read.
        """
        labels = [f"{OWNER}={self.owner}", f"{KIND}={RECORD_KIND}"]
        return self._records_of(self._engine.get("/configs", params={"filters": {"label": labels}}))

    def write_record(self, name: str, fields: Mapping[str, str], before: Record | None) -> None:
        """Write the record's labels, at the version that was read; the config's data never changes.

        Raises:
            PlatformConflict: somebody else wrote, made or removed it meanwhile.
            PlatformRefused: a config of this name exists without our labels.
            PlatformUnreachable: it may or may not have been written.
        """
        full = f"{self.prefix}_{name}"
        labels = {OWNER: self.owner, KIND: RECORD_KIND, **{f"{RECORD_FIELD}{key}": fields[key] for key in fields}}
        body = {"Name": full, "Labels": labels, "Data": _RECORD_DATA}
        if before is not None:
            self._engine.post("/configs/{}/update", before.id, body=body, version=before.version)
            return
        try:
            self._engine.post("/configs/create", body=body)
        except PlatformConflict as taken:
            existing = self._configs([full]).get(full)
            if existing is not None and not (self._owns(existing) and is_of_kind(existing, RECORD_KIND)):
                raise PlatformRefused(f"config {full} exists without our labels, not touched") from taken
            raise

    def remove_record(self, record: Record) -> None:
        """Remove the record's config; one that is already gone is no error."""
        self._remove("/configs/{}", record.id)

    def missing_references(self, kind: Reference, names: Collection[str]) -> Mapping[str, str]:
        """Return the networks or secrets that services could not use, each with the reason and what helps.

        Raises:
            PlatformError: it cannot be told; a filter before the engine may refuse the list of secrets.
        """
        return missing_references(self._engine, kind, names)

    def close(self) -> None:
        """Close the connections to the engine."""
        self._engine.close()

    def _body(self, spec: ServiceSpec, image: str) -> dict[str, Any]:
        old = self._engine.api_version < PRIVILEGES_API
        return to_engine(spec, self.owner, self._mounted_ids(spec), image, new_privileges=old)

    def _pin_checked(self, live: LiveService, raw: Raw) -> LiveService:
        """Show an image that has lost its digest as drift, where the digest is to be had: otherwise nothing helps."""
        if self._digests is None or live.spec is None:
            return live
        image = str(raw["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"])
        if "@" in image or "@" not in self._digests.pinned(image):
            return live
        return replace(live, spec=replace(live.spec, unexpected=(*live.spec.unexpected, "unpinned_image")))

    def _renew(self, existing: Raw, body: Raw, sequence: int, taken: PlatformConflict) -> None:
        live = existing["Spec"]
        labels = live.get("Labels") or {}
        if any(labels.get(name) != body["Labels"][name] for name in (OWNER, KIND)):
            raise PlatformRefused(f"config {body['Name']} exists without our labels, not touched") from taken
        if (live.get("Data") or "") != body["Data"]:
            raise PlatformRefused(f"config {body['Name']} exists with other content, not touched") from taken
        if sequence_of(existing) != sequence:
            renewed = {**live, "Labels": {**labels, **body["Labels"]}}
            self._engine.post("/configs/{}/update", existing["ID"], body=renewed, version=existing["Version"]["Index"])

    def _remove(self, path: str, identity: str) -> None:
        try:
            self._engine.delete(path, identity)
        except NotFound:
            _LOG.debug("%s was gone already", path.format(identity))

    def _owns(self, raw: Raw) -> bool:
        return bool((raw["Spec"].get("Labels") or {}).get(OWNER) == self.owner)

    def _records_of(self, configs: Sequence[Raw]) -> Mapping[str, Record]:
        """A copy under another name is none of ours; a person may have made one."""
        ours = (raw for raw in configs if is_of_kind(raw, RECORD_KIND))
        read = [live_record(raw, self.prefix) for raw in ours if raw["Spec"]["Name"].startswith(f"{self.prefix}_")]
        return {record.name: record for record in read}

    def _learn_networks(self, services: Sequence[Raw]) -> None:
        if self._unknown_networks(services):
            needed = {target for raw in services for target in network_ids(raw["Spec"])}
            networks = {raw["Id"]: raw["Name"] for raw in self._engine.get("/networks")}
            if needed - networks.keys():  # measured: without a leader this is a 200 without the Swarm's own networks
                raise PlatformUnreachable("GET /networks: the list lacks networks that services are in: no leader?")
            self._networks = networks

    def _tasks_if_needed(self, own: Sequence[Raw]) -> Tasks | None:
        """Read all tasks of ours where one may be missing, or not run although it is counted; None if all is well.

        The first look has them, too, for the names of the networks that they are in. Otherwise the nodes are asked
        for now and then: one that is down makes the next look read the tasks.
        """
        if not (self._miscounted or self._unknown_networks(own) or any(in_trouble(raw) for raw in own)):
            self._miscounted = self._nodes.are_down()
            return None
        labels = [f"{OWNER}={self.owner}"]  # of their services
        listed = self._engine.get("/tasks", params={"filters": {"label": labels}})
        tasks = by_service(listed)
        self._networks = {**self._networks, **networks_of(listed)}
        self._learn_networks(own)
        self._miscounted = any(miscounted(tasks.get(raw["ID"], ())) for raw in own)
        return tasks

    def _unknown_networks(self, services: Sequence[Raw]) -> bool:
        return any(target not in self._networks for raw in services for target in network_ids(raw["Spec"]))

    def _mounted_ids(self, spec: ServiceSpec) -> dict[str, str]:
        found: dict[str, str] = {}
        for kind, mounts in (("config", spec.configs), ("secret", spec.secrets)):
            names = [mount.name for mount in mounts]
            there = self._named(f"/{kind}s", names)
            if missing := sorted(set(names) - there.keys()):
                raise PlatformConflict(f"service {spec.name} mounts {kind} {', '.join(missing)}, which is not there")
            found |= {name: str(raw["ID"]) for name, raw in there.items()}
        return found

    def _configs(self, names: Sequence[str]) -> dict[str, Raw]:
        return self._named("/configs", names)

    def _named(self, path: str, names: Sequence[str]) -> dict[str, Raw]:
        """Find configs or secrets by name; the engine's filter also matches parts of names."""
        if not names:
            return {}
        found = self._engine.get(path, params={"filters": {"name": list(names)}})
        return {raw["Spec"]["Name"]: raw for raw in found if raw["Spec"]["Name"] in names}

    def _pinned(self, image: str) -> str:
        return image if self._digests is None else self._digests.pinned(image)


def _installation(data: bytes) -> dict[str, str]:
    """Repeat in a label what a registry document says, for a person who lists configs."""
    try:
        said = json.loads(data).get("installation")
    except (ValueError, AttributeError):
        return {}
    return {INSTALLATION: said} if isinstance(said, str) else {}


class _Nodes:
    """Whether nodes are down, asked now and then."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._next = -math.inf
        self._wait = 0.0

    def are_down(self) -> bool:
        """Ask, unless that was done lately.

        A refusal is said once and asked about again later and later: a filter before the engine may not let the
        question pass, but a manager that restarts refuses it too, for a moment.
        """
        if self._clock() < self._next:
            return False
        try:
            down = any(is_down(raw) for raw in self._engine.get("/nodes"))
        except PlatformRefused as refusal:
            if not self._wait:
                _LOG.warning("whether nodes are down is not known, asked again later: %s", refusal)
            self._wait = min(max(2 * self._wait, NODES_EVERY), LONGEST_WAIT)
            self._next = self._clock() + self._wait
            return False
        if self._wait:
            _LOG.info("whether nodes are down is known again")
        self._wait, self._next = 0.0, self._clock() + NODES_EVERY
        return down


class _Digests:
    """The digests of tags, asked of the registry through the engine, for a while."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._known: dict[str, tuple[float, float, str]] = {}  # until when, for how long that is, the reference

    def pinned(self, image: str) -> str:
        """Return the image with its tag's present digest, or as it is where that cannot be had."""
        if "@" in image:
            return image
        until, wait, reference = self._known.get(image, (-math.inf, DIGEST_TTL / 2, ""))
        if self._clock() >= until:
            reference = self._ask(image)
            # One that cannot be had may cost the whole time limit, each time.
            wait = DIGEST_TTL if "@" in reference else min(2 * wait, LONGEST_WAIT)
            self._known[image] = (self._clock() + wait, wait, reference)
        return reference

    def _ask(self, image: str) -> str:
        try:
            answer = self._engine.get("/distribution/{}/json", image, headers=self._engine.credentials(image))
        except PlatformError as problem:
            _LOG.warning("the digest of %s is not known, its tag is used: %s", image, problem)
            return image
        return f"{image}@{answer['Descriptor']['digest']}"
