"""Services, registry documents and records of a deployment platform, and the drift between two specs. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum

from openfactory_common.settings_types import ROUTING_LAYER_VARIABLES, mask

#: Within a variable: the number of the task that reads it. No value that is data has a NUL.
TASK_SLOT = "\0slot\0"
_CONSUMER_GROUP = "KAFKA_CONSUMER_GROUP_ID"
#: The states of a rolling update in which all tasks are of one version, and the asked one.
_AT_REST = ("", "completed")
#: Names in `ServiceSpec.unexpected` that a platform repairs without new tasks.
_REPAIRED_IN_PLACE = frozenset({"update_config", "stopped", "paused", "renamed", "replaced"})
#: Fields that are in a spec's hash only where they are set: the hash of a spec without them is that of the versions
#: that did not have them, so after an upgrade a spec that failed is still known by its label.
_HASHED_IF_SET = frozenset(
    {
        "memory_limit",
        "memory_reservation",
        "constraints",
        "labels",
        "networks",
        "log_driver",
        "log_options",
        "healthcheck",
    }
)
_MAPPINGS = {"env": "env", "labels": "label", "log_options": "log option"}


class Kind(StrEnum):
    """What a service of ours is for; the value of the label ``org.openfactory.kind``."""

    GROUP = "group"
    ROUTING_LAYER = "routing-layer"
    STATE_API = "state-api"


#: Variables of the routing layer that the operator never sets.
_FREE = frozenset(
    {"AUTH_LEEWAY", "MEMBERSHIP_RESYNC", "NEGATIVE_CACHE_SECONDS", "NEGATIVE_CACHE_SIZE", "REGISTRY_POLL"}
)
#: Variables that the operator sets itself, by the kind of service.
RESERVED_VARIABLES: Mapping[Kind, frozenset[str]] = {
    Kind.GROUP: frozenset(
        {
            "GROUP_NAME",
            "KAFKA_BROKER",
            "KAFKA_CA_FILE",
            "KAFKA_CONFIG_FILE",
            "KAFKA_CONSUMER_GROUP_ID",
            "KAFKA_TOPIC",
            "KSQLDB_STREAM",
            "KSQLDB_URL",
            "LOG_LEVEL",
            "PORT",
        }
    ),
    Kind.ROUTING_LAYER: ROUTING_LAYER_VARIABLES - _FREE,
    Kind.STATE_API: frozenset(
        {
            "DEPLOYMENT_PLATFORM",
            "KSQLDB_ASSETS_TABLE",
            "KSQLDB_CA_FILE",
            "KSQLDB_PASSWORD_FILE",
            "KSQLDB_URL",
            "KSQLDB_USERNAME_FILE",
            "LOG_LEVEL",
            "PORT",
        }
    ),
}


class Publish(StrEnum):
    """How a port is reachable from outside the network."""

    INGRESS = "ingress"
    HOST = "host"
    NONE = "none"


@dataclass(frozen=True)
class Port:
    """A published port: ``target`` inside the container, ``published`` outside."""

    target: int
    published: int
    mode: Publish


@dataclass(frozen=True, order=True)
class ConfigMount:
    """A config of the platform, by name, as a file in the container."""

    name: str
    path: str


@dataclass(frozen=True, order=True)
class SecretMount:
    """A secret of the platform, by name, as a file in the container; its content is never read."""

    name: str
    path: str


@dataclass(frozen=True)
class Healthcheck:
    """How the engine checks a container: a shell command, and its times in seconds."""

    command: str
    interval: float = 10.0
    timeout: float = 5.0
    retries: int = 3
    start_period: float = 10.0

    @property
    def text(self) -> str:
        """As plans show it: without its command, which may have a secret."""
        return (
            f"a command every {self.interval:g} s, timeout {self.timeout:g} s, {self.retries} retries, "
            f"start period {self.start_period:g} s"
        )


@dataclass(frozen=True)
class ServiceSpec:
    """One service as it should be. Engine defaults are spelled out, so equality means "no drift".

    Attributes:
        name: of the service and in DNS.
        kind: what it is for.
        group: the group's original value, None for the services that belong to no group.
        image: reference with tag; a digest that a platform pinned is not part of it.
        env: all environment variables; each task has its own number in place of `TASK_SLOT`.
        replicas: how many tasks.
        cpu_limit: cores a task may use, 0 for no limit.
        cpu_reservation: cores a node must have free for it, 0 for none.
        network: name of the network it joins.
        ports: published ports, sorted by target.
        configs: mounted configs, sorted.
        secrets: mounted secrets, sorted.
        start_first: start the new task before the old one stops at an update.
        stop_grace: seconds between SIGTERM and SIGKILL.
        hardened: a read-only root with a small `/tmp` in memory, no capabilities, and no way to new privileges
            where the engine has that.
        unexpected: names of settings that a live service has and that no spec of ours ever sets
            (``args``, ``mounts``, ...); always empty in a desired spec.
        installation: id of the installation that it is of, the label ``org.openfactory.installation``; ``""`` for none.
        memory_limit: bytes a task may use, 0 for no limit.
        memory_reservation: bytes a node must have free for it, 0 for none.
        constraints: on the nodes that its tasks run on, as ``node.labels.gpu==true``, sorted.
        labels: labels besides ours, of the service and of its containers.
        networks: names of the networks that it joins besides ``network``, sorted.
        log_driver: where its output goes; ``""`` for the engine's default.
        log_options: of the log driver.
        healthcheck: in place of the image's own; None for that.
    """

    name: str
    kind: Kind
    group: str | None
    image: str
    env: Mapping[str, str]
    replicas: int
    cpu_limit: float
    cpu_reservation: float
    network: str
    ports: tuple[Port, ...] = ()
    configs: tuple[ConfigMount, ...] = ()
    secrets: tuple[SecretMount, ...] = ()
    start_first: bool = True
    stop_grace: float = 30.0
    hardened: bool = False
    unexpected: tuple[str, ...] = ()
    installation: str = ""
    memory_limit: int = 0
    memory_reservation: int = 0
    constraints: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    networks: tuple[str, ...] = ()
    log_driver: str = ""
    log_options: Mapping[str, str] = field(default_factory=dict)
    healthcheck: Healthcheck | None = None


@dataclass(frozen=True)
class Drift:
    """One field that differs: as it is live, as it should be."""

    field: str
    live: str
    wanted: str


@dataclass(frozen=True)
class LiveService:
    """One service as it is.

    Attributes:
        id: of the platform.
        version: that a write must carry.
        name: as it is spelled there.
        owner: value of ``org.openfactory.owner``, None where the label is missing.
        spec: read back from the live spec; None where it cannot be (not ours, another mode).
        running: tasks that run and are healthy.
        update_state: of a rolling update: ``""``, ``updating``, ``paused``, ``completed``, ...
        error: why tasks do not run, in the engine's own words; ``""`` where they do.
        updated_at: when the service was last changed (the engine's clock, with time zone); None where unknown.
        waits: what its tasks wait for where that is no error: ``1 task in state new``.
        since: when anything of it last moved, where it is not as it should be (the engine's clock, with time zone);
            None where all is as it should be, or where that is not known.
        installation: value of ``org.openfactory.installation``, ``""`` where the label is missing.
        previous: its spec before the last update; None where that is not known.
        failed: hash of what its last rollback took back (`reconciler.planning.rollout.template_hash`), ``""`` for none.
        failure: why that spec failed; without ``failed``, why the service was not ready before its last update.
    """

    id: str
    version: int
    name: str
    owner: str | None
    spec: ServiceSpec | None
    running: int
    update_state: str = ""
    error: str = ""
    waits: str = ""
    since: datetime | None = None
    installation: str = ""
    updated_at: datetime | None = field(default=None, compare=False)
    previous: ServiceSpec | None = None
    failed: str = ""
    failure: str = ""

    @property
    def converged(self) -> bool:
        """Whether its tasks run, all of one version, as far as the platform can tell."""
        return self.spec is not None and self.running == self.spec.replicas > 0 and self.update_state in _AT_REST

    @property
    def has_surplus(self) -> bool:
        """Whether more of its tasks run than wanted, and no update goes on that would end one of them."""
        return self.spec is not None and self.running > self.spec.replicas and self.update_state in _AT_REST


@dataclass(frozen=True)
class TaskEnd:
    """A task that ended although it should run; another one has taken its place, or will.

    Attributes:
        id: of the platform, another one for each end.
        service: its service's name, as it is spelled there.
        task: the task, as a person finds it: ``ofa_group_Weld.1``.
        at: when it ended (the engine's clock, with time zone).
        reason: why, in the engine's own words.
    """

    id: str
    service: str
    task: str
    at: datetime
    reason: str


@dataclass(frozen=True)
class LiveRegistry:
    """One published registry document of ours.

    Attributes:
        id: of the platform.
        version: that a write must carry.
        name: ``<prefix>_registry-<sha12>``.
        sequence: which publication this was; the highest is the current one.
        data: the document.
        updated_at: when it became current (the engine's clock, with time zone).
        mounted: a current service spec refers to it.
    """

    id: str
    version: int
    name: str
    sequence: int
    data: bytes
    updated_at: datetime
    mounted: bool = False


@dataclass(frozen=True)
class Record:
    """A note that all operators of one owner share: flat text, written only by compare-and-swap.

    Attributes:
        id: of the platform.
        version: that a write must carry.
        name: ``lease``, ``pause``, ``group-pauses``, ``deletions`` or ``installation``.
        fields: what it says.
    """

    id: str
    version: int
    name: str
    fields: Mapping[str, str]


@dataclass(frozen=True)
class PlatformState:
    """Everything of the platform that a plan depends on, from one set of full reads.

    Attributes:
        services: every service whose name starts with our prefix, or that carries our owner label, by the
            name in lower case (names are unique without regard to case).
        registries: our registry documents, newest publication first.
        ended: tasks of ours that have ended lately, as far as this observation knows; for the history alone.
        records: our records by name, from the same calls. No plan depends on them (the lease changes every few
            seconds), so two states that differ in nothing else are equal.
    """

    services: Mapping[str, LiveService] = field(default_factory=dict)
    registries: tuple[LiveRegistry, ...] = ()
    records: Mapping[str, Record] = field(default_factory=dict, compare=False)
    ended: tuple[TaskEnd, ...] = field(default=(), compare=False)


def is_named(registry: LiveRegistry, prefix: str) -> bool:
    """Whether a registry document has a name that we give: a copy of one, or one of another prefix, is not removed."""
    return registry.name.startswith(f"{prefix}_registry-")


def spec_hash(spec: ServiceSpec) -> str:
    """Return 12 hex digits that tell specs apart, the same in every process and version of Python."""
    values = {item.name: getattr(spec, item.name) for item in fields(ServiceSpec)}
    values = {name: value for name, value in values.items() if value or name not in _HASHED_IF_SET}
    text = json.dumps(values, sort_keys=True, default=lambda value: [str(part) for part in astuple(value)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def apply_in_place(live: ServiceSpec, wanted: ServiceSpec) -> ServiceSpec:
    """Return ``live`` with all of ``wanted`` that changes no task: the difference that is left replaces them.

    The number of tasks changes only with the consumer group that is meant for it: of two tasks with one id, one gets
    no event. One that sleeps wakes with one task.
    """
    same = live.env.get(_CONSUMER_GROUP) == wanted.env.get(_CONSUMER_GROUP)
    replicas = wanted.replicas if same or not wanted.replicas else live.replicas or 1
    left = tuple(name for name in live.unexpected if name not in _REPAIRED_IN_PLACE)
    return replace(live, replicas=replicas, group=wanted.group, installation=wanted.installation, unexpected=left)


def drift(live: ServiceSpec, wanted: ServiceSpec) -> tuple[Drift, ...]:
    """Return what differs between a live and a wanted spec; variables, labels and log options one by one."""
    if live == wanted:  # the usual case, and the cheapest comparison
        return ()
    found = []
    for item in fields(ServiceSpec):
        was, want = getattr(live, item.name), getattr(wanted, item.name)
        if item.name in _MAPPINGS:
            # Only what the operator sets itself is known to be no secret.
            open_ = RESERVED_VARIABLES[wanted.kind] if item.name == "env" else frozenset()
            found += _compare_mapping(_MAPPINGS[item.name], was, want, open_)
        elif was != want:
            found.append(Drift(item.name, _show(was), _show(want)))
    return tuple(found)


def _compare_mapping(
    title: str, live: Mapping[str, str], wanted: Mapping[str, str], open_: Collection[str]
) -> list[Drift]:
    names = sorted(live.keys() | wanted.keys())
    return [
        Drift(f"{title} {name}", *(_show_value(one.get(name), hidden=name not in open_) for one in (live, wanted)))
        for name in names
        if live.get(name) != wanted.get(name)
    ]


def _show_value(value: str | None, *, hidden: bool) -> str:
    """Return a value for a plan that others read: without a secret, also within a URL or its query."""
    if value and hidden:
        return "***"
    return _show(None if value is None else mask(value))


def show_number(value: int) -> str:
    """Return a number as a person writes it: one of bytes, which has at least a mebibyte, as ``512m`` or ``2g``."""
    power = next((one for one in (4, 3, 2) if value and value % 1024**one == 0), 0)
    return f"{value // 1024**power}{' kmgt'[power].strip()}"


def _show(value: object) -> str:
    if value is None:
        return "(unset)"
    if isinstance(value, tuple):
        return "[" + ", ".join(_show(item) for item in value) + "]"
    if isinstance(value, Port):
        return f"{value.published}->{value.target}/{value.mode}"
    if isinstance(value, ConfigMount | SecretMount):
        return value.name
    if isinstance(value, Healthcheck):
        return value.text
    if isinstance(value, str) and not isinstance(value, StrEnum):
        return f'"{value.replace(TASK_SLOT, "<slot>")}"'
    return show_number(value) if type(value) is int else str(value)
