"""`ServiceSpec` to the engine's service spec and back. Pure.

What is written here and what is read back are each other's inverse once the engine has stored it, so that drift is
a difference of two values. Names of settings that we never set, but a live service has, go to ``unexpected``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.domain.services import ConfigMount, Kind, Port, Publish, SecretMount, ServiceSpec
from reconciler.platforms.protocol import GROUP, INSTALLATION, KIND, LABEL, OWNER, TMP_BYTES
from reconciler.platforms.swarm.unexpected import unexpected

#: The image as it was asked for, where a digest stands in the spec: what tells a pinned digest from a wanted one.
IMAGE = f"{LABEL}image"
_OURS = frozenset({OWNER, KIND, GROUP, IMAGE, INSTALLATION})

_SECOND = 1_000_000_000
_CORE = 1_000_000_000
#: The engine's own default where a spec does not say.
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

#: What makes a service's container read-only and powerless; ``/tmp`` is in memory, as many programs need one.
HARDENED: Mapping[str, Any] = {
    "ReadOnly": True,
    "CapabilityDrop": ["ALL"],
    "Mounts": [{"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"SizeBytes": TMP_BYTES, "Mode": 0o1777}}],  # noqa: S108 - a mount in a spec
}
#: Besides, for engines that take it.
NO_NEW_PRIVILEGES: Mapping[str, Any] = {"Privileges": {"NoNewPrivileges": True}}

#: SwarmKit expands Go templates in variables: ``{{.Node.Hostname}}``. An action that prints two braces stands for them.
_BRACES, _ESCAPED = "{{", '{{"{{"}}'

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
        new_privileges: the engine cannot take them from a service.
    """
    image = image or spec.image
    hardening = {**HARDENED, **({} if new_privileges else NO_NEW_PRIVILEGES)} if spec.hardened else {}
    return {
        "Name": spec.name,
        "Labels": _labels(spec, owner, image),
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": image,
                "Env": [escaped(f"{name}={value}") for name, value in sorted(spec.env.items())],
                "StopGracePeriod": round(spec.stop_grace * _SECOND),
                "Configs": [_reference("Config", mount, ids) for mount in spec.configs],
                "Secrets": [_reference("Secret", mount, ids) for mount in spec.secrets],
                **hardening,
            },
            "Resources": {"Limits": _cores(spec.cpu_limit), "Reservations": _cores(spec.cpu_reservation)},
            "RestartPolicy": dict(RESTART_POLICY),
            "Networks": [{"Target": spec.network}],
        },
        "Mode": {"Replicated": {"Replicas": spec.replicas}},
        "UpdateConfig": {**UPDATE_POLICY, "Order": "start-first" if spec.start_first else "stop-first"},
        "EndpointSpec": {"Mode": endpoint_mode(spec.ports), "Ports": [_published(port) for port in spec.ports]},
    }


def from_engine(raw: Raw, networks: Mapping[str, str]) -> ServiceSpec | None:
    """Read a live service spec back.

    Args:
        raw: the ``Spec`` of a service as the engine answers it.
        networks: network names by id.

    Returns:
        The spec, or None where it is none of ours: no label that says what it is for, not a container, or
        another mode than replicated (which the engine never changes).
    """
    labels = raw.get("Labels") or {}
    task = raw["TaskTemplate"]
    container = task.get("ContainerSpec")
    if labels.get(KIND) not in set(Kind) or not container or raw["Mode"].get("Replicated") is None:
        return None
    ports = _ports(raw)
    resources = task.get("Resources") or {}
    return ServiceSpec(
        name=raw["Name"],
        kind=Kind(labels[KIND]),
        group=labels.get(GROUP),
        image=_tag(container["Image"], labels.get(IMAGE)),
        env=_environment(container),
        replicas=_replicas(raw),
        cpu_limit=_cpus(resources.get("Limits")),
        cpu_reservation=_cpus(resources.get("Reservations")),
        network=",".join(sorted(networks.get(target, target) for target in network_ids(raw))),
        ports=ports,
        configs=tuple(sorted(ConfigMount(*mount) for mount in _mounts(container, "Config"))),
        secrets=tuple(sorted(SecretMount(*mount) for mount in _mounts(container, "Secret"))),
        start_first=(raw.get("UpdateConfig") or {}).get("Order") == "start-first",
        stop_grace=container.get("StopGracePeriod", _DEFAULT_GRACE) / _SECOND,
        hardened=is_hardened(container),
        unexpected=_unexpected(raw, ports),
        installation=labels.get(INSTALLATION, ""),
    )


def _unexpected(raw: Raw, ports: tuple[Port, ...]) -> tuple[str, ...]:
    container = raw["TaskTemplate"]["ContainerSpec"]
    hardening = frozenset({*HARDENED, *NO_NEW_PRIVILEGES}) if is_hardened(container) else frozenset[str]()
    found = unexpected(raw, endpoint_mode(ports), UPDATE_POLICY, RESTART_POLICY, hardening)
    templates = any(escaped(_unescaped(item)) != item for item in container.get("Env") or ())
    return tuple(sorted({*found, "env_template"})) if templates else found


def escaped(text: str) -> str:
    """Return a variable as SwarmKit's templates give it back: what is in it is data."""
    return text.replace(_BRACES, _ESCAPED)


def _unescaped(text: str) -> str:
    return text.replace(_ESCAPED, _BRACES)


def is_hardened(container: Raw) -> bool:
    """Whether a container has all that `HARDENED` says, and exactly that."""
    return all(container.get(name) == value for name, value in HARDENED.items())


def repaired(live: Raw, spec: ServiceSpec, fresh: Mapping[str, Any], networks: Mapping[str, str]) -> dict[str, Any]:
    """Return ``fresh`` (see `to_engine`) as an update of ``live`` that disturbs no more than it must.

    Labels of others stay. The task template stays as it is wherever it already says what it should, because any
    difference in it, even one without meaning, replaces the tasks; otherwise its ``ForceUpdate`` counter stays.
    """
    foreign = {name: value for name, value in (live.get("Labels") or {}).items() if name not in _OURS}
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
    return live if _tag(live, (raw.get("Labels") or {}).get(IMAGE)) == spec.image else None


def network_ids(raw: Raw) -> tuple[str, ...]:
    """Return the networks of a live spec by id; old clients put them beside the task template."""
    attached = raw["TaskTemplate"].get("Networks") or raw.get("Networks") or ()
    return tuple(str(item["Target"]) for item in attached)


def endpoint_mode(ports: tuple[Port, ...]) -> str:
    """Return how the service's name resolves.

    Without a virtual IP no connection tracking cuts a stream that is idle for 15 minutes, and it works on kernels
    without IPVS; the ingress network needs a virtual IP.
    """
    return "vip" if any(port.mode is Publish.INGRESS for port in ports) else "dnsrr"


def _labels(spec: ServiceSpec, owner: str, image: str) -> dict[str, str]:
    labels = {OWNER: owner, KIND: spec.kind.value}
    if spec.group is not None:
        labels[GROUP] = spec.group
    if spec.installation:
        labels[INSTALLATION] = spec.installation
    if "@" in image:
        labels[IMAGE] = spec.image
    return labels


def _tag(live: str, asked: str | None) -> str:
    """Return the reference that was asked for: without the digest, unless the digest was part of it."""
    if asked is not None and (live == asked or live.startswith(f"{asked}@")):
        return asked
    return live.partition("@")[0]


def _reference(kind: str, mount: ConfigMount | SecretMount, ids: Mapping[str, str]) -> dict[str, Any]:
    file = {"Name": mount.path, "UID": "0", "GID": "0", "Mode": 0o444}
    return {f"{kind}ID": ids[mount.name], f"{kind}Name": mount.name, "File": file}


def _mounts(container: Raw, kind: str) -> list[tuple[str, str]]:
    found = container.get(f"{kind}s") or ()
    return [(item[f"{kind}Name"], (item.get("File") or {}).get("Name", "")) for item in found]


def _environment(container: Raw) -> dict[str, str]:
    pairs = (_unescaped(item).partition("=") for item in container.get("Env") or ())
    return {name: value for name, _, value in pairs}


def _cores(cores: float) -> dict[str, int]:
    return {"NanoCPUs": round(cores * _CORE)} if cores else {}


def _cpus(resources: Raw | None) -> float:
    return float((resources or {}).get("NanoCPUs", 0)) / _CORE


def _replicas(raw: Raw) -> int:
    return int(raw["Mode"]["Replicated"].get("Replicas", 0))


def _published(port: Port) -> dict[str, Any]:
    return {
        "Protocol": "tcp",
        "TargetPort": port.target,
        "PublishedPort": port.published,
        "PublishMode": port.mode.value,
    }


def _mode(said: str | None) -> Publish:
    """One that a later engine invents is shown as none, which no port of ours is."""
    return Publish(said or "ingress") if (said or "ingress") in set(Publish) else Publish.NONE


def _ports(raw: Raw) -> tuple[Port, ...]:
    found = (raw.get("EndpointSpec") or {}).get("Ports") or ()
    ports = (
        Port(item.get("TargetPort", 0), item.get("PublishedPort", 0), _mode(item.get("PublishMode"))) for item in found
    )
    return tuple(sorted(ports, key=lambda port: (port.target, port.published, port.mode)))
