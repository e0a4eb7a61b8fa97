"""`ServiceSpec` to a container and back. Pure.

A container never changes: whatever was asked for at its creation is what it is, but for its state, its limits, its
networks and its name. Everything is read back from the container itself; only what an engine without Swarm has no
place for, and which variables came from us and not from the image, is kept in a label beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from openfactory_common.errors import PlatformRefused
from reconciler.domain.services import ConfigMount, Kind, Port, Publish, ServiceSpec
from reconciler.platforms.protocol import GROUP, INSTALLATION, KIND, LABEL, OWNER, TMP_BYTES

#: The service that a container belongs to: its name, which a person may change, is no proof.
SERVICE = f"{LABEL}service"
#: What was asked for and a container has no place for, as JSON (see `_asked`).
ASKED = f"{LABEL}asked"
#: The one file name that a registry can be mounted as.
REGISTRY_FILE = "registry.json"
#: A crashed container is started again, one that a person stopped is not: that is for the next cycle to find.
RESTART = "unless-stopped"

_CORE = 1_000_000_000
_DEFAULT_GRACE = 10
#: What `docker update`, or somebody who made the container anew, may have set, and we never do.
_UNSET = (
    "Memory",
    "MemoryReservation",
    "CpuShares",
    "CpuQuota",
    "CpusetCpus",
    "Privileged",
    "Binds",
    "CapAdd",
    "Devices",
    "ExtraHosts",
    "VolumesFrom",
)
#: What makes a container read-only and powerless; ``/tmp`` is in memory, as many programs need one.
HARDENED: Mapping[str, Any] = {
    "ReadonlyRootfs": True,
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges"],
    "Tmpfs": {"/tmp": f"rw,noexec,nosuid,nodev,size={TMP_BYTES},mode=1777"},  # noqa: S108 - a mount in a spec
}
_AS_IN_IMAGE = ("Cmd", "Entrypoint", "User", "WorkingDir")

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Shelf:
    """Where the registry is: its directory, as the engine's host sees it, and the name of the current document."""

    directory: str
    current: str = ""


def to_engine(spec: ServiceSpec, owner: str, shelf: Shelf) -> dict[str, Any]:
    """Return the body of ``POST /containers/create``.

    Args:
        spec: what should be.
        owner: value of the owner label.
        shelf: where the registry is.

    Raises:
        PlatformRefused: a container cannot be this.
    """
    if spec.replicas != 1:
        raise PlatformRefused(f"service {spec.name}: {spec.replicas} tasks, but a plain container is always one")
    if spec.secrets:
        raise PlatformRefused(f"service {spec.name}: secrets belong to a Swarm, a plain container has none")
    return {
        "Image": spec.image,
        "Env": [f"{name}={value}" for name, value in sorted(spec.env.items())],
        "Labels": _labels(spec, owner),
        "ExposedPorts": {f"{port.target}/tcp": {} for port in spec.ports},
        "StopTimeout": round(spec.stop_grace),
        "HostConfig": {
            **limits(spec),
            "PortBindings": {f"{port.target}/tcp": [{"HostPort": str(port.published)}] for port in spec.ports},
            "Mounts": [_bind(mount, shelf) for mount in spec.configs],
            "NetworkMode": spec.network,
            **(HARDENED if spec.hardened else {}),
        },
        "NetworkingConfig": {"EndpointsConfig": {spec.network: {"Aliases": [spec.name]}}},
    }


def from_engine(raw: Raw, image: Raw | None, shelf: Shelf) -> ServiceSpec | None:
    """Read a container back, without what its state says.

    Args:
        raw: the container as ``GET /containers/{id}/json`` answers it.
        image: the image that it was made from, likewise; None where that is not there any more.
        shelf: where the registry is and which document is current, which is what a mounted registry shows.

    Returns:
        The spec, or None where it is none of ours: no label that says what it is for.
    """
    config, host = raw["Config"], raw["HostConfig"]
    labels = config.get("Labels") or {}
    if labels.get(KIND) not in set(Kind) or SERVICE not in labels:
        return None
    asked = _asked_of(labels)
    return ServiceSpec(
        name=labels[SERVICE],
        kind=Kind(labels[KIND]),
        group=labels.get(GROUP),
        image=config["Image"],
        env=_environment(config, asked, image),
        replicas=1,
        cpu_limit=(host.get("NanoCpus") or 0) / _CORE,
        cpu_reservation=asked.get("cpu_reservation", 0.0),
        network=",".join(sorted(networks(raw))),
        ports=_ports(host, asked),
        configs=tuple(sorted(_mounts(host, shelf))),
        start_first=asked.get("start_first") is True,
        stop_grace=float(config.get("StopTimeout") or _DEFAULT_GRACE),
        hardened=_is_hardened(host),
        unexpected=tuple(sorted(_unexpected(raw, image))),
        installation=labels.get(INSTALLATION, ""),
    )


def limits(spec: ServiceSpec) -> dict[str, Any]:
    """Return what of a container can be changed while it runs, as ``POST /containers/{id}/update`` takes it."""
    return {"NanoCpus": round(spec.cpu_limit * _CORE), "RestartPolicy": {"Name": RESTART}}


def side_by_side(spec: ServiceSpec) -> bool:
    """Whether a new container can run beside the old one: a port of the host is one container's alone."""
    return spec.start_first and not spec.ports


def networks(raw: Raw) -> Mapping[str, Raw]:
    """Return the networks that a container is in, by name."""
    found: Mapping[str, Raw] = (raw.get("NetworkSettings") or {}).get("Networks") or {}
    return found


def shows_registry(raw: Raw, shelf: Shelf) -> bool:
    """Whether a container has our registry's directory."""
    return any(mount.get("Source") == shelf.directory for mount in raw["HostConfig"].get("Mounts") or ())


def _labels(spec: ServiceSpec, owner: str) -> dict[str, str]:
    labels = {OWNER: owner, KIND: spec.kind.value, SERVICE: spec.name, ASKED: _asked(spec)}
    if spec.installation:
        labels[INSTALLATION] = spec.installation
    return labels if spec.group is None else {**labels, GROUP: spec.group}


def _asked(spec: ServiceSpec) -> str:
    asked = {
        "cpu_reservation": float(spec.cpu_reservation),
        "env": sorted(spec.env),
        "publish": {str(port.target): port.mode.value for port in spec.ports},
        "start_first": spec.start_first,
    }
    return json.dumps(asked, sort_keys=True, separators=(",", ":"))


def _asked_of(labels: Mapping[str, str]) -> Mapping[str, Any]:
    """Read the label; one that somebody changed is as good as none: everything then differs and is made anew."""
    try:
        asked = json.loads(labels.get(ASKED, ""))
    except (ValueError, RecursionError):  # not JSON, a number of thousands of digits, or nested as deep
        return {}
    return asked if _is_asked(asked) else {}


def _is_asked(asked: Any) -> bool:
    if not isinstance(asked, dict) or not isinstance(asked.get("env"), list):
        return False
    publish = asked.get("publish")
    if not isinstance(publish, dict) or not isinstance(asked.get("cpu_reservation"), float):
        return False
    return all(isinstance(text, str) for text in (*asked["env"], *publish.values()))


def _bind(mount: ConfigMount, shelf: Shelf) -> dict[str, Any]:
    """Mount the directory, not the file: a file that is replaced in it is seen at once, in the running container."""
    directory, _, file = mount.path.rpartition("/")
    if file != REGISTRY_FILE or not directory:
        raise PlatformRefused(f"a registry is mounted as <directory>/{REGISTRY_FILE} alone, not as {mount.path}")
    return {"Type": "bind", "Source": shelf.directory, "Target": directory, "ReadOnly": True}


def _mounts(host: Raw, shelf: Shelf) -> Iterator[ConfigMount]:
    for mount in host.get("Mounts") or ():
        if mount.get("Source") == shelf.directory and mount.get("ReadOnly") is True:
            yield ConfigMount(shelf.current, f"{mount['Target']}/{REGISTRY_FILE}")
        else:
            yield ConfigMount(str(mount.get("Source", "")), str(mount["Target"]))


def _environment(config: Raw, asked: Raw, image: Raw | None) -> dict[str, str]:
    """Leave out what came from the image, unless we asked for the same."""
    ours = frozenset(asked.get("env") or ())
    variables = _pairs(config)
    if image is None:
        return {name: value for name, value in variables.items() if name in ours}
    theirs = _pairs(image.get("Config") or {})
    return {name: value for name, value in variables.items() if name in ours or theirs.get(name) != value}


def _pairs(config: Raw) -> dict[str, str]:
    pairs = (item.partition("=") for item in config.get("Env") or ())
    return {name: value for name, _, value in pairs}


def _ports(host: Raw, asked: Raw) -> tuple[Port, ...]:
    modes = asked.get("publish") or {}
    found = []
    for key, bindings in (host.get("PortBindings") or {}).items():
        target = key.partition("/")[0]
        mode = Publish(modes[target]) if modes.get(target) in set(Publish) else Publish.HOST  # texts, see `_is_asked`
        found += [Port(_number(target), _number(binding.get("HostPort")), mode) for binding in bindings or ()]
    return tuple(sorted(found, key=lambda port: (port.target, port.published)))


def _number(text: str | None) -> int:
    """Return a port, 0 for what is none of ours: a range, or any free one."""
    return int(text) if text and re.fullmatch("[0-9]{1,5}", text) else 0


def _unexpected(raw: Raw, image: Raw | None) -> Iterator[str]:
    host = raw["HostConfig"]
    if raw["State"]["Status"] == "dead":  # the engine could not remove it whole
        yield "dead"
    yield from (_snake(name) for name in _UNSET if host.get(name))
    if not _is_hardened(host):
        yield from (_snake(name) for name in HARDENED if host.get(name))
    if (host.get("RestartPolicy") or {}).get("Name") != RESTART:
        yield "restart_policy"
    service = raw["Config"]["Labels"][SERVICE]
    if any(service not in (network.get("Aliases") or ()) for network in networks(raw).values()):
        yield "network_alias"
    if image is not None:
        own, theirs = raw["Config"], image.get("Config") or {}
        yield from (_snake(name) for name in _AS_IN_IMAGE if (own.get(name) or None) != (theirs.get(name) or None))


def _is_hardened(host: Raw) -> bool:
    return all(host.get(name) == value for name, value in HARDENED.items())


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
