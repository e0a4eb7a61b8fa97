"""`ServiceSpec` to the engine's service spec and back. Pure.

What we write and what we read back are inverse to each other once the engine has stored it, so that drift is a
difference of two values. Settings that we never set, but a live service has, are listed in ``unexpected``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from reconciler.domain.service_values import RESERVED_LABELS
from reconciler.domain.services import (
    TASK_SLOT,
    ConfigMount,
    Kind,
    Port,
    Publish,
    SecretMount,
    ServiceSpec,
)
from reconciler.platforms.healthcheck import is_other_healthcheck, read_healthcheck, write_healthcheck
from reconciler.platforms.protocol import FAILED, FAILURE, GROUP, INSTALLATION, KIND, LABEL, OWNER, TMP_BYTES

#: The configured image, where the spec has a digest: tells a digest that we pinned from a configured one.
IMAGE = f"{LABEL}image"
_OUR_LABELS = frozenset({OWNER, KIND, GROUP, IMAGE, INSTALLATION, FAILED, FAILURE})

_SECOND = 1_000_000_000
_CORE = 1_000_000_000
#: The engine's default.
_DEFAULT_GRACE = 10 * _SECOND
#: A bad image must not loop: the update stops and the old task stays (design, safety rule 9).
UPDATE_POLICY: Mapping[str, Any] = {
    "Parallelism": 1,
    "Delay": 0,
    "FailureAction": "pause",
    "Monitor": 5 * _SECOND,
    "MaxFailureRatio": 0,
}
RESTART_POLICY: Mapping[str, Any] = {"Condition": "any", "Delay": 2 * _SECOND, "MaxAttempts": 0, "Window": 0}

#: Makes a service's container read-only and unprivileged; ``/tmp`` is in memory, because many programs need one.
HARDENED: Mapping[str, Any] = {
    "ReadOnly": True,
    "CapabilityDrop": ["ALL"],
    "Mounts": [{"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"SizeBytes": TMP_BYTES, "Mode": 0o1777}}],  # noqa: S108 - a mount in a spec
}
#: In addition, for engines that support it.
NO_NEW_PRIVILEGES: Mapping[str, Any] = {"Privileges": {"NoNewPrivileges": True}}

#: SwarmKit expands Go templates in variables: ``{{.Node.Hostname}}``. An action that prints two braces escapes them.
_BRACES, _ESCAPED = "{{", '{{"{{"}}'
_SLOT = "{{.Task.Slot}}"

# The allowed settings: ours and harmless ones. A setting that a later engine invents is therefore reported as soon as
# a service has it.
_SPEC = frozenset({"Name", "Labels", "TaskTemplate", "Mode", "UpdateConfig", "Networks", "EndpointSpec"})
#: ForceUpdate is the counter of `docker service update --force`.
_TASK = frozenset(
    {"ContainerSpec", "Resources", "RestartPolicy", "Placement", "Networks", "ForceUpdate", "Runtime", "LogDriver"}
)
#: Init and Isolation come from clients' defaults and change nothing that we rely on.
_CONTAINER = frozenset(
    {"Image", "Env", "StopGracePeriod", "Configs", "Secrets", "Init", "Isolation", "Labels", "Healthcheck"}
)
#: Platforms is what a client read from the image when it resolved the digest.
_PLACEMENT = frozenset({"Platforms", "Constraints"})
_RESOURCES = frozenset({"NanoCPUs", "MemoryBytes"})
_PORT = frozenset({"TargetPort", "PublishedPort", "PublishMode", "Protocol"})
_FILE = {"UID": "0", "GID": "0", "Mode": 0o444}
_NAMES = {"Labels": "container_labels", "DNSConfig": "dns_config", "TTY": "tty"}
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

Raw = Mapping[str, Any]


def to_engine(
    spec: ServiceSpec,
    owner: str,
    ids: Mapping[str, str],
    image: str | None = None,
    *,
    new_privileges: bool = True,
) -> dict[str, Any]:
    """Return the whole service spec, as ``POST /services/create`` takes it.

    Args:
        spec: what should be.
        owner: value of the owner label.
        ids: id of each mounted config and secret by its name (the engine wants both).
        image: the reference to run where it is not ``spec.image`` itself: the same with a digest.
        new_privileges: the engine has no setting against new privileges.
    """
    image = image or spec.image
    hardening = {**HARDENED, **({} if new_privileges else NO_NEW_PRIVILEGES)} if spec.hardened else {}
    labels = {OWNER: owner, KIND: spec.kind.value}
    if spec.group is not None:
        labels[GROUP] = spec.group
    if spec.installation:
        labels[INSTALLATION] = spec.installation
    if "@" in image:
        labels[IMAGE] = spec.image
    optional = {
        "Placement": {"Constraints": list(spec.constraints)} if spec.constraints else None,
        "LogDriver": {"Name": spec.log_driver, "Options": dict(spec.log_options)} if spec.log_driver else None,
    }
    of_container = {"Labels": dict(spec.labels), "Healthcheck": write_healthcheck(spec.healthcheck)}
    return {
        "Name": spec.name,
        "Labels": {**spec.labels, **labels},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": image,
                "Env": [escape(f"{name}={value}") for name, value in sorted(spec.env.items())],
                "StopGracePeriod": round(spec.stop_grace * _SECOND),
                "Configs": [_mount("Config", mount, ids) for mount in spec.configs],
                "Secrets": [_mount("Secret", mount, ids) for mount in spec.secrets],
                **hardening,
                **{name: value for name, value in of_container.items() if value},
            },
            "Resources": {
                "Limits": _write_resources(spec.cpu_limit, spec.memory_limit),
                "Reservations": _write_resources(spec.cpu_reservation, spec.memory_reservation),
            },
            "RestartPolicy": dict(RESTART_POLICY),
            "Networks": [{"Target": name} for name in (spec.network, *spec.networks)],
            **{name: value for name, value in optional.items() if value},
        },
        "Mode": {"Replicated": {"Replicas": spec.replicas}},
        "UpdateConfig": {**UPDATE_POLICY, "Order": "start-first" if spec.start_first else "stop-first"},
        "EndpointSpec": {
            "Mode": choose_endpoint_mode(spec.ports),
            "Ports": [
                {
                    "Protocol": "tcp",
                    "TargetPort": port.target,
                    "PublishedPort": port.published,
                    "PublishMode": port.mode.value,
                }
                for port in spec.ports
            ],
        },
    }


def from_engine(raw: Raw, networks: Mapping[str, str], unlabelled: Kind | None = None) -> ServiceSpec | None:
    """Read a live service spec back.

    Args:
        raw: the ``Spec`` of a service as the engine answers it.
        networks: network names by id.
        unlabelled: the kind of one that has no label with a kind of ours; None: it is not read.

    Returns:
        The spec, or None where it is not ours: it has no label with a kind of ours, is not a container, or its mode
        is not replicated (which the engine never changes).
    """
    labels = raw.get("Labels") or {}
    task = raw["TaskTemplate"]
    container = task.get("ContainerSpec")
    kind = Kind(labels[KIND]) if labels.get(KIND) in set(Kind) else unlabelled
    if kind is None or not container or raw["Mode"].get("Replicated") is None:
        return None
    ports = _read_ports(raw)
    resources = task.get("Resources") or {}
    limits, reservations = (resources.get(name) or {} for name in ("Limits", "Reservations"))
    joined = [networks.get(target, target) for target in network_ids(raw)]
    log_driver = task.get("LogDriver") or {}
    variables = (_unescape(item).partition("=") for item in container.get("Env") or ())
    return ServiceSpec(
        name=raw["Name"],
        kind=kind,
        group=labels.get(GROUP),
        image=_remove_digest(container["Image"], labels.get(IMAGE)),
        env={name: value for name, _, value in variables},
        replicas=int(raw["Mode"]["Replicated"].get("Replicas", 0)),
        cpu_limit=limits.get("NanoCPUs", 0) / _CORE,
        cpu_reservation=reservations.get("NanoCPUs", 0) / _CORE,
        network=joined[0] if joined else "",
        ports=ports,
        configs=tuple(sorted(ConfigMount(*mount) for mount in _read_mounts(container, "Config"))),
        secrets=tuple(sorted(SecretMount(*mount) for mount in _read_mounts(container, "Secret"))),
        start_first=(raw.get("UpdateConfig") or {}).get("Order") == "start-first",
        stop_grace=container.get("StopGracePeriod", _DEFAULT_GRACE) / _SECOND,
        hardened=_is_hardened(container),
        unexpected=tuple(sorted(set(_find_unexpected(raw, choose_endpoint_mode(ports))))),
        installation=labels.get(INSTALLATION, ""),
        memory_limit=limits.get("MemoryBytes", 0),
        memory_reservation=reservations.get("MemoryBytes", 0),
        constraints=tuple(sorted((task.get("Placement") or {}).get("Constraints") or ())),
        labels=_read_labels(raw),
        networks=tuple(sorted(joined[1:])),
        log_driver=log_driver.get("Name") or "",
        log_options=log_driver.get("Options") or {},
        healthcheck=read_healthcheck(container.get("Healthcheck")),
    )


def merge_update(live: Raw, spec: ServiceSpec, fresh: Mapping[str, Any], networks: Mapping[str, str]) -> dict[str, Any]:
    """Return ``fresh`` (see `to_engine`) as an update of ``live`` that changes no more than it must.

    Labels of others stay; those that the container has too are of an earlier spec of ours. The task template stays as
    it is wherever it already says what it should, because any difference in it, even one without meaning, replaces the
    tasks; otherwise its ``ForceUpdate`` counter stays.
    """
    ours = _OUR_LABELS | _read_labels(live).keys()
    foreign = {name: value for name, value in (live.get("Labels") or {}).items() if name not in ours}
    merged = {**fresh, "Labels": {**foreign, **fresh["Labels"]}}
    kept = {**merged, "TaskTemplate": live["TaskTemplate"]}
    same_image = live["TaskTemplate"]["ContainerSpec"]["Image"] == fresh["TaskTemplate"]["ContainerSpec"]["Image"]
    if same_image and from_engine(kept, networks) == spec:
        return kept
    counter = live["TaskTemplate"].get("ForceUpdate", 0)
    return {**merged, "TaskTemplate": {**fresh["TaskTemplate"], "ForceUpdate": counter}}


def live_image(raw: Raw, spec: ServiceSpec) -> str | None:
    """Return the live reference, digest included, where it stands for the image of ``spec``."""
    live = str((raw["TaskTemplate"].get("ContainerSpec") or {}).get("Image", ""))
    return live if _remove_digest(live, (raw.get("Labels") or {}).get(IMAGE)) == spec.image else None


def network_ids(raw: Raw) -> tuple[str, ...]:
    """Return the networks of a live spec by id; old clients put them beside the task template."""
    attached = raw["TaskTemplate"].get("Networks") or raw.get("Networks") or ()
    return tuple(str(item["Target"]) for item in attached)


def choose_endpoint_mode(ports: tuple[Port, ...]) -> str:
    """Return how the service's name resolves.

    Without a virtual IP no connection tracking cuts a stream that is idle for 15 minutes, and it works on kernels
    without IPVS; the ingress network needs a virtual IP.
    """
    return "vip" if any(port.mode is Publish.INGRESS for port in ports) else "dnsrr"


def escape(text: str) -> str:
    """Escape a variable so that SwarmKit's templates give it back unchanged, with the task's number at `TASK_SLOT`."""
    return text.replace(_BRACES, _ESCAPED).replace(TASK_SLOT, _SLOT)


def _unescape(text: str) -> str:
    # The first step protects data that reads like the template of a slot.
    return _BRACES.join(part.replace(_SLOT, TASK_SLOT) for part in text.split(_ESCAPED))


def _write_resources(cores: float, memory: int) -> dict[str, int]:
    found = {"NanoCPUs": round(cores * _CORE), "MemoryBytes": memory}
    return {name: value for name, value in found.items() if value}


def _read_labels(raw: Raw) -> dict[str, str]:
    """Return the labels that the service and its containers have: one of the service alone is a person's.

    `docker stack deploy` gives its own labels to both, and no spec of ours has them.
    """
    of_service = raw.get("Labels") or {}
    of_container = raw["TaskTemplate"]["ContainerSpec"].get("Labels") or {}
    return {
        name: value
        for name, value in of_container.items()
        if of_service.get(name) == value and not name.startswith(RESERVED_LABELS)
    }


def _is_hardened(container: Raw) -> bool:
    return all(container.get(name) == value for name, value in HARDENED.items())


def _remove_digest(live: str, configured: str | None) -> str:
    """Return the configured reference: without the digest, unless the digest was part of it."""
    if configured is not None and (live == configured or live.startswith(f"{configured}@")):
        return configured
    return live.partition("@")[0]


def _mount(kind: str, mount: ConfigMount | SecretMount, ids: Mapping[str, str]) -> dict[str, Any]:
    return {f"{kind}ID": ids[mount.name], f"{kind}Name": mount.name, "File": {"Name": mount.path, **_FILE}}


def _read_mounts(container: Raw, kind: str) -> list[tuple[str, str]]:
    found = container.get(f"{kind}s") or ()
    return [(item[f"{kind}Name"], (item.get("File") or {}).get("Name", "")) for item in found]


def _read_ports(raw: Raw) -> tuple[Port, ...]:
    ports = []
    for item in (raw.get("EndpointSpec") or {}).get("Ports") or ():
        mode = item.get("PublishMode") or "ingress"
        # A mode that a later engine invents counts as none, which no port of ours has.
        known = Publish(mode) if mode in set(Publish) else Publish.NONE
        ports.append(Port(item.get("TargetPort", 0), item.get("PublishedPort", 0), known))
    return tuple(sorted(ports, key=lambda port: (port.target, port.published, port.mode)))


def _find_unexpected(raw: Raw, endpoint_mode: str) -> Iterator[str]:
    """Yield the names of the settings that no spec of ours ever has; empty values count as not set.

    The engine fills in empty structures, and leaves out what is zero.
    """
    task, endpoint = raw["TaskTemplate"], raw.get("EndpointSpec") or {}
    resources = task.get("Resources") or {}
    yield from _list_extra(raw, _SPEC)
    yield from _list_extra(task, _TASK)
    yield from _find_unexpected_in_container(task["ContainerSpec"])
    if (task["ContainerSpec"].get("Labels") or {}).keys() != _read_labels(raw).keys():
        yield "container_labels"
    yield from _list_extra(task.get("Placement"), _PLACEMENT)
    yield from _list_extra(resources.get("Limits"), _RESOURCES, "limit_")
    yield from _list_extra(resources.get("Reservations"), _RESOURCES, "reservation_")
    yield from _list_extra(resources, {"Limits", "Reservations"}, "resource_")
    yield from _list_extra(endpoint, {"Mode", "Ports"}, "endpoint_")
    if (endpoint.get("Mode") or "vip") != endpoint_mode:
        yield "endpoint_mode"
    for port in endpoint.get("Ports") or ():
        yield from _list_extra(port, _PORT, "port_")
        if port.get("Protocol", "tcp") != "tcp":
            yield "port_protocol"
    for network in task.get("Networks") or raw.get("Networks") or ():
        yield from _list_extra(network, {"Target"}, "network_")
    policies = {
        "update_config": (raw.get("UpdateConfig"), UPDATE_POLICY),
        "restart_policy": (task.get("RestartPolicy"), RESTART_POLICY),
    }
    for label, (live, ours) in policies.items():
        if any((live or {}).get(name, type(value)()) != value for name, value in ours.items()):
            yield label


def _find_unexpected_in_container(container: Raw) -> Iterator[str]:
    variables = container.get("Env") or ()
    if _is_hardened(container):
        yield from _list_extra(container, _CONTAINER | HARDENED.keys() | NO_NEW_PRIVILEGES.keys())
        yield from _list_extra(container.get("Privileges"), {"NoNewPrivileges"}, "privileges_")
    else:
        yield from _list_extra(container, _CONTAINER)
    if len({item.partition("=")[0] for item in variables}) < len(variables) or any("=" not in v for v in variables):
        yield "env"
    if any(escape(_unescape(item)) != item for item in variables):
        yield "env_template"
    if is_other_healthcheck(container.get("Healthcheck")):
        yield "healthcheck"
    for kind in ("Config", "Secret"):
        for mount in container.get(f"{kind}s") or ():
            yield from _list_extra(mount, {"File", f"{kind}ID", f"{kind}Name"}, f"{kind.lower()}_")
            file = mount.get("File")
            if file and any(file.get(name) != value for name, value in _FILE.items()):
                yield f"{kind.lower()}_file"


def _list_extra(settings: Raw | None, allowed: AbstractSet[str], prefix: str = "") -> Iterator[str]:
    for name, value in (settings or {}).items():
        if name not in allowed and _is_set(value):
            yield prefix + (_NAMES.get(name) or _WORD_START.sub("_", name).lower())


def _is_set(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_is_set(item) for item in value.values())
    return bool(value)
