"""Docker Swarm as a platform: full reads, versioned writes, no memory but caches.

Measured on engine 20.10: one list of services with status costs 4 ms for 200 of them; ``RunningTasks`` counts a task
with a healthcheck only once it is healthy; the engine resolves network names when it stores a spec, so live specs
have ids; a config's data never changes, its labels may.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from openfactory_common.errors import PlatformConflict, PlatformError, PlatformRefused, PlatformUnreachable
from reconciler.domain.facts import EngineFacts
from reconciler.domain.services import Kind, LiveRegistry, LiveService, PlatformState, Record, ServiceSpec
from reconciler.platforms.engine import PRIVILEGES_API, Engine, NotFound, OnRequest
from reconciler.platforms.inspection import inspect_swarm
from reconciler.platforms.protocol import INSTALLATION, KIND, OWNER, LogLine, Reference, label_failure
from reconciler.platforms.swarm.placement import find_unmet
from reconciler.platforms.swarm.spec import from_engine, live_image, merge_update, network_ids, to_engine
from reconciler.platforms.swarm.state import (
    RECORD_FIELD,
    RECORD_KIND,
    REGISTRY_KIND,
    SEQUENCE,
    Tasks,
    count_stale_tasks,
    find_ends,
    group_by_service,
    is_of_kind,
    is_relevant,
    labels_of,
    needs_tasks,
    network_names,
    read_records,
    read_registries,
    read_service,
    sequence_of,
)

Raw = Mapping[str, Any]

#: Seconds for which a digest, or that there is none, is cached: many services share an image.
DIGEST_TTL = 300.0
#: Seconds between two reads of the nodes; the Swarm itself needs about 15 to 45 to notice that one is down.
NODES_EVERY = 30.0
#: Seconds between two reads of the tasks that have ended, where nothing else needs the tasks.
ENDS_EVERY = 60.0
#: The longest backoff in seconds after a request that was refused repeatedly.
LONGEST_WAIT = 3600.0
#: The data of a record's config, for a person who reads it.
_RECORD_DATA = base64.b64encode(b"What operators agree on stands in the labels of this config.\n").decode()
#: Networks of each node that services may join, too.
_PREDEFINED_NETWORKS = frozenset({"bridge", "host", "none"})
_LOG = logging.getLogger(__name__)


class SwarmPlatform:
    """The services and configs of one owner in one Swarm.

    Attributes:
        owner: value of the label ``org.openfactory.owner`` on everything that is ours.
        prefix: of the names of our services and configs.
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
        """Set up; nothing is sent before the first call.

        Args:
            owner: of the objects.
            prefix: of names.
            pin_digests: run images by the digest that their tag has when it is first used (best effort).
            base_url: of a manager's engine; None for Docker's usual variables (``DOCKER_HOST``, ...).
            timeout: seconds for a connection and for each part of an answer.
            on_request: called after every request: see `engine.OnRequest`.
        """
        self.owner = owner
        self.prefix = prefix
        self._engine = Engine(base_url, timeout, on_request)
        self._digests = _Digests(self._engine) if pin_digests else None
        self._networks: Mapping[str, str] = {}
        self._nodes = _Nodes(self._engine)
        self._has_stale_tasks = False
        self._ended: Tasks = {}
        self._ends_due = time.monotonic() + ENDS_EVERY

    def observe(self, suspects: Collection[str] = ()) -> PlatformState:
        """Read everything: services, our configs, and tasks where the engine's counts are not enough, or of suspects.

        These are at most 3 requests, whatever the number of services. There is one more for the API version after a
        (re)connect, and one for the networks when a service of ours is in one that no task of ours is in.

        Raises:
            PlatformError: a read failed or was not complete.
        """
        services = self._engine.get("/services", params={"status": "true"})
        configs = self._engine.get("/configs", params={"filters": {"label": [f"{OWNER}={self.owner}"]}})
        relevant = [raw for raw in services if is_relevant(raw, self.owner, self.prefix)]
        own = [raw for raw in relevant if self._owns(raw)]
        tasks = self._read_tasks_if_needed(own, suspects)
        ended = find_ends(own, self._ended if tasks is None else tasks)
        now = datetime.now(UTC)
        live = (read_service(raw, self.owner, self._networks, tasks, now) for raw in relevant)
        read = [self._report_lost_digest(one, raw) for one, raw in zip(live, relevant, strict=True)]
        return PlatformState(
            services={service.name.lower(): service for service in read},
            registries=read_registries(configs, services),
            records=read_records(configs, self.prefix),
            ended=ended,
        )

    def create_service(self, spec: ServiceSpec) -> None:
        """Create it.

        Raises:
            PlatformConflict: the name is taken, or a config that it mounts does not exist (any more).
            PlatformRefused: the engine does not accept the spec.
            PlatformUnreachable: it may or may not have been created.
        """
        image = self._pin(spec.image)
        body = self._build_body(spec, image)
        self._engine.post("/services/create", body=body, headers=self._engine.credentials(image))

    def update_service(self, live: LiveService, spec: ServiceSpec, failed: str = "", failure: str = "") -> None:
        """Make ``live`` equal to ``spec``, at the version that was read.

        Labels of others, the ``ForceUpdate`` counter, and the digest of an image that stays are kept. With ``failed``,
        the image has the digest that it had before: its tag may be that of another image by now.

        Raises:
            PlatformConflict: the service changed or was removed since it was read.
            PlatformRefused: the engine does not accept the spec, for example another mode or name, or no node fulfils
                new constraints.
            PlatformUnreachable: it may or may not have been updated.
        """
        raw = self._engine.get("/services/{}", live.id)
        if raw["Version"]["Index"] != live.version:
            raise PlatformConflict(f"service {live.name} changed since it was read: update out of sequence")
        if live.spec is None or live.spec.constraints != spec.constraints:
            self._check_placement(spec)
        self._learn_networks([raw])
        image = live_image(raw["Spec"], spec)
        if image is None and failed and raw.get("PreviousSpec"):
            image = live_image(raw["PreviousSpec"], spec)
        image = image or spec.image
        fresh = self._build_body(spec, image if "@" in image else self._pin(spec.image))
        fresh["Labels"] |= label_failure(failed, failure)
        body = merge_update(raw["Spec"], spec, fresh, self._networks)
        headers = self._engine.credentials(image)
        self._engine.post("/services/{}/update", live.id, body=body, version=live.version, headers=headers)

    def remove_service(self, live: LiveService) -> None:
        """Remove it by id, so that a new one of the same name is safe; one that is already gone is no error."""
        self._remove("/services/{}", live.id)

    def publish_registry(self, data: bytes, revision: str, sequence: int) -> None:
        """Make the document current: create it under its content's name, or renew the one that exists.

        Raises:
            PlatformConflict: another operator published at the same time.
            PlatformRefused: the name is taken by another owner or other content, or the document is too large.
            PlatformUnreachable: it may or may not have been published.
        """
        name = f"{self.prefix}_registry-{revision}"
        labels = {OWNER: self.owner, KIND: REGISTRY_KIND, SEQUENCE: str(sequence), **_label_installation(data)}
        body = {"Name": name, "Labels": labels, "Data": base64.b64encode(data).decode()}
        try:
            self._engine.post("/configs/create", body=body)
        except PlatformConflict as taken:
            existing = self._find_named("/configs", [name]).get(name)
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
        return read_records(self._engine.get("/configs", params={"filters": {"label": labels}}), self.prefix)

    def write_record(self, name: str, fields: Mapping[str, str], before: Record | None) -> None:
        """Write the record's labels, at the version that was read; the config's data never changes.

        Raises:
            PlatformConflict: another operator wrote, made or removed it meanwhile.
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
            existing = self._find_named("/configs", [full]).get(full)
            if existing is not None and not (self._owns(existing) and is_of_kind(existing, RECORD_KIND)):
                raise PlatformRefused(f"config {full} exists without our labels, not touched") from taken
            raise

    def remove_record(self, record: Record) -> None:
        """Remove the record's config; one that is already gone is no error."""
        self._remove("/configs/{}", record.id)

    def missing_references(self, kind: Reference, names: Collection[str]) -> Mapping[str, str]:
        """Return the networks or secrets that services could not use, each with the reason and what helps.

        Raises:
            PlatformError: the read failed; a filter before the engine may refuse the list of secrets.
        """
        if kind is Reference.SECRET:
            found = self._find_named("/secrets", names)
            why = "does not exist in this Swarm: services that mount it cannot be created; docker secret create {} FILE"
            return {name: why.format(name) for name in names if name not in found}
        listed = self._engine.get("/networks")
        usable = {raw["Name"] for raw in listed if raw["Scope"] == "swarm"}
        if not usable:  # measured: without a leader this is a 200 without the Swarm's own networks
            raise PlatformUnreachable("GET /networks: the list has no network of the Swarm: no leader?")
        of_node = {raw["Name"] for raw in listed} - usable
        missing = {}
        for name in names:
            if name not in usable | _PREDEFINED_NETWORKS:
                why = "belongs to one node and not to the Swarm" if name in of_node else "does not exist in this Swarm"
                command = f"docker network create --driver overlay --attachable {name}"
                missing[name] = f"{why}: no service can be created; {command}"
        return missing

    def task_logs(self, live: LiveService, tail: int, *, follow: bool) -> Iterator[LogLine]:
        """Return what the tasks of a service have written, the last lines of each.

        Raises:
            PlatformError: the read failed, perhaps after some lines.
        """
        listed = self._engine.get("/tasks", params={"filters": {"service": [live.id]}})
        names = {task.get("ID"): f"{live.name}.{task.get('Slot', '?')}" for task in listed}
        for line in self._engine.read_output("/services/{}/logs", live.id, tail=tail, follow=follow, details=True):
            details, _, text = line.partition(" ")
            task = dict(one.partition("=")[::2] for one in details.split(",")).get("com.docker.swarm.task.id", "")
            yield LogLine(names.get(task, f"{live.name} {task}".strip()), text)

    def read_foreign(self, live: LiveService) -> ServiceSpec | None:
        """Return the spec of a service that is not ours, as if it were a group's; None where it cannot be one.

        Raises:
            PlatformError: the read failed.
        """
        raw = self._engine.get("/services/{}", live.id)
        networks = {one["Id"]: one["Name"] for one in self._engine.get("/networks")}
        return from_engine(raw["Spec"], networks, Kind.GROUP)

    def inspect(self, network: str, images: Collection[str]) -> EngineFacts:
        """Return what the engine says of itself, its Swarm, the network and the images; it only reads.

        Raises:
            PlatformError: it does not answer, or its Swarm has no leader.
        """
        raws = self._engine.get("/configs")
        others = {raw["Spec"]["Name"] for raw in raws if not (self._owns(raw) and is_of_kind(raw, RECORD_KIND))}
        return replace(inspect_swarm(self._engine, self.owner, network, images), configs=frozenset(others))

    def close(self) -> None:
        """Close the connections to the engine."""
        self._engine.close()

    def _owns(self, raw: Raw) -> bool:
        return labels_of(raw).get(OWNER) == self.owner

    def _build_body(self, spec: ServiceSpec, image: str) -> dict[str, Any]:
        ids: dict[str, str] = {}
        for kind, mounts in (("config", spec.configs), ("secret", spec.secrets)):
            names = [mount.name for mount in mounts]
            found = self._find_named(f"/{kind}s", names)
            if missing := sorted(set(names) - found.keys()):
                raise PlatformConflict(f"service {spec.name} mounts {kind} {', '.join(missing)}, which does not exist")
            ids |= {name: str(raw["ID"]) for name, raw in found.items()}
        lacks_setting = self._engine.api_version < PRIVILEGES_API
        return to_engine(spec, self.owner, ids, image, new_privileges=lacks_setting)

    def _check_placement(self, spec: ServiceSpec) -> None:
        """Refuse constraints that no node fulfils.

        Swarm ends running tasks at once where their node does not fulfil new constraints, before others have started
        (measured on 20.10, with ``start-first`` too), so a misspelt label would end the service.
        """
        try:
            why = find_unmet(spec.constraints, self._engine.get("/nodes")) if spec.constraints else ""
        except PlatformRefused:  # a filter before the engine may not allow the question
            return
        if why:
            raise PlatformRefused(f"service {spec.name}: {why}: it stays as it is, as its tasks would end")

    def _report_lost_digest(self, live: LiveService, raw: Raw) -> LiveService:
        """Show an image without its digest as drift, if the digest can be read: otherwise an update does not help."""
        if self._digests is None or live.spec is None:
            return live
        image = str(raw["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"])
        if "@" in image or "@" not in self._digests.pin(image):
            return live
        return replace(live, spec=replace(live.spec, unexpected=(*live.spec.unexpected, "unpinned_image")))

    def _pin(self, image: str) -> str:
        return image if self._digests is None else self._digests.pin(image)

    def _renew(self, existing: Raw, body: Raw, sequence: int, taken: PlatformConflict) -> None:
        live, labels = existing["Spec"], labels_of(existing)
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
            _LOG.debug("%s was already gone", path.format(identity))

    def _find_named(self, path: str, names: Collection[str]) -> dict[str, Raw]:
        """Find configs or secrets by name; the engine's filter also matches parts of names."""
        if not names:
            return {}
        found = self._engine.get(path, params={"filters": {"name": list(names)}})
        return {raw["Spec"]["Name"]: raw for raw in found if raw["Spec"]["Name"] in names}

    def _read_tasks_if_needed(self, own: Sequence[Raw], suspects: Collection[str]) -> Tasks | None:
        """Read all tasks of ours where one may be missing, or be counted although it does not run; None otherwise.

        The first observation needs them, too, for the names of the networks that they are in. In between, the nodes
        are read periodically: one that is down makes the next observation read the tasks. So are the tasks: of one that
        has ended, and was replaced at once, only they tell, and those in its place say why.
        """
        suspected = any(needs_tasks(raw) or raw["Spec"]["Name"].lower() in suspects for raw in own)
        if not (self._has_stale_tasks or self._has_unknown_networks(own) or suspected):
            self._ended = {}
            if time.monotonic() >= self._ends_due:  # and the nodes at the next observation: three requests at most
                self._ended = self._read_tasks()
            else:
                self._has_stale_tasks = self._nodes.are_down()
            return None
        tasks = self._read_tasks()
        self._networks = {**self._networks, **network_names(task for each in tasks.values() for task in each)}
        self._learn_networks(own)
        self._has_stale_tasks = any(count_stale_tasks(tasks.get(raw["ID"], ())) for raw in own)
        return tasks

    def _read_tasks(self) -> Tasks:
        """Read the tasks of our services, by service."""
        self._ends_due = time.monotonic() + ENDS_EVERY
        labels = {"label": [f"{OWNER}={self.owner}"]}  # of their services
        return group_by_service(self._engine.get("/tasks", params={"filters": labels}))

    def _learn_networks(self, services: Sequence[Raw]) -> None:
        if self._has_unknown_networks(services):
            needed = {target for raw in services for target in network_ids(raw["Spec"])}
            networks = {raw["Id"]: raw["Name"] for raw in self._engine.get("/networks")}
            if needed - networks.keys():  # measured: without a leader this is a 200 without the Swarm's own networks
                raise PlatformUnreachable("GET /networks: the list lacks networks that services are in: no leader?")
            self._networks = networks

    def _has_unknown_networks(self, services: Sequence[Raw]) -> bool:
        return any(target not in self._networks for raw in services for target in network_ids(raw["Spec"]))


def _label_installation(data: bytes) -> dict[str, str]:
    """Repeat the registry document's installation in a label, for a person who lists configs."""
    try:
        installation = json.loads(data).get("installation")
    except (ValueError, AttributeError):
        return {}
    return {INSTALLATION: installation} if isinstance(installation, str) else {}


class _Nodes:
    """Whether nodes are down, read periodically."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._next = -math.inf
        self._wait = 0.0

    def are_down(self) -> bool:
        """Read the nodes, unless that was done recently; the Swarm gives up the tasks of a node that is down.

        A refusal is logged once and retried with backoff: a filter before the engine may not allow the request, but
        a manager that restarts refuses it too, for a moment.
        """
        if self._clock() < self._next:
            return False
        try:
            down = any(raw["Status"]["State"] == "down" for raw in self._engine.get("/nodes"))
        except PlatformRefused as refusal:
            if not self._wait:
                _LOG.warning("the nodes' states cannot be read, retrying later: %s", refusal)
            self._wait = min(max(2 * self._wait, NODES_EVERY), LONGEST_WAIT)
            self._next = self._clock() + self._wait
            return False
        if self._wait:
            _LOG.info("the nodes' states can be read again")
        self._wait, self._next = 0.0, self._clock() + NODES_EVERY
        return down


class _Digests:
    """The digests of tags, which the engine asks the image registry for, cached for a while."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._known: dict[str, tuple[float, float, str]] = {}  # valid until, for how many seconds, the reference

    def pin(self, image: str) -> str:
        """Return the image with its tag's present digest, or unchanged if the digest cannot be read."""
        if "@" in image:
            return image
        until, wait, reference = self._known.get(image, (-math.inf, DIGEST_TTL / 2, ""))
        if self._clock() >= until:
            reference = image
            try:
                answer = self._engine.get("/distribution/{}/json", image, headers=self._engine.credentials(image))
                reference = f"{image}@{answer['Descriptor']['digest']}"
            except PlatformError as problem:
                _LOG.warning("the digest of %s cannot be read, the tag is used: %s", image, problem)
            # A failed read may take the whole time limit, each time.
            wait = DIGEST_TTL if "@" in reference else min(2 * wait, LONGEST_WAIT)
            self._known[image] = (self._clock() + wait, wait, reference)
        return reference
