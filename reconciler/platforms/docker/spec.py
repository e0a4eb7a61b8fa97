"""`ServiceSpec` to a container and back. Pure.

A container never changes after its creation, except for its state, its limits, its networks and its name. Everything
is read back from the container itself; a label has only what an engine without Swarm has no place for, and which
variables are ours and not the image's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from openfactory_common.errors import PlatformRefused
from reconciler.domain.services import ConfigMount, Healthcheck, Kind, Port, Publish, ServiceSpec
from reconciler.platforms.healthcheck import is_other_healthcheck, read_healthcheck, write_healthcheck
from reconciler.platforms.protocol import GROUP, INSTALLATION, KIND, LABEL, OWNER, TMP_BYTES

#: The service that a container belongs to: a person may change the container's name.
SERVICE = f"{LABEL}service"
#: Settings that a container has no place for, as JSON.
ASKED = f"{LABEL}asked"
#: The spec before the last update, as JSON: the container that had it is gone.
PREVIOUS = f"{LABEL}previous"
#: Characters of that label; a longer spec is not kept.
_LONGEST_PREVIOUS = 16_384
#: The only file name that a registry can be mounted as.
REGISTRY_FILE = "registry.json"
#: The engine restarts a crashed container; the next cycle starts one that a person stopped.
RESTART = "unless-stopped"

_CORE = 1_000_000_000
_DEFAULT_GRACE = 10
#: Settings that we never use; `docker update`, or a person who made the container again, may have set them.
_NEVER_SET = (
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
#: Makes a container read-only and unprivileged; ``/tmp`` is in memory, because many programs need one.
HARDENED: Mapping[str, Any] = {
    "ReadonlyRootfs": True,
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges"],
    "Tmpfs": {"/tmp": f"rw,noexec,nosuid,nodev,size={TMP_BYTES},mode=1777"},  # noqa: S108 - a mount in a spec
}
#: An engine whose kernel has no memory cgroup discards these with a warning: without a label they would always differ.
#: One that can limit memory is believed of the limit; a kernel (PREEMPT_RT) may still discard the reservation.
_MEMORY = ("memory_limit", "memory_reservation")
#: Settings that a container has from its image.
_FROM_IMAGE = ("Cmd", "Entrypoint", "User", "WorkingDir")

Raw = Mapping[str, Any]
_SPEC = TypeAdapter(ServiceSpec)
_HEALTHCHECK = TypeAdapter(Healthcheck | None)


@dataclass(frozen=True)
class RegistryLocation:
    """Where the registry is: its directory, as the engine's host sees it, and the name of the current document."""

    directory: str
    current: str = ""


def to_engine(spec: ServiceSpec, owner: str, registry: RegistryLocation) -> dict[str, Any]:
    """Return the body of ``POST /containers/create``.

    Args:
        spec: what should be.
        owner: value of the owner label.
        registry: where the registry is.

    Raises:
        PlatformRefused: a container cannot have this spec.
    """
    if spec.replicas != 1:
        raise PlatformRefused(f"service {spec.name}: {spec.replicas} tasks, but a plain container is always one")
    if spec.constraints:
        raise PlatformRefused(
            f"service {spec.name}: only a Swarm has nodes to choose from, a plain container has no constraints "
            f"({', '.join(spec.constraints)})"
        )
    if spec.secrets:
        raise PlatformRefused(f"service {spec.name}: only a Swarm has secrets, a plain container has none")
    asked: dict[str, Any] = {
        "cpu_reservation": float(spec.cpu_reservation),
        "env": sorted(spec.env),
        "publish": {str(port.target): port.mode.value for port in spec.ports},
        "start_first": spec.start_first,
    }
    optional: dict[str, Any] = {
        **{name: getattr(spec, name) for name in _MEMORY},
        "labels": sorted(spec.labels),
        "log_driver": spec.log_driver,
        "log_options": sorted(spec.log_options),
    }
    optional["healthcheck"] = asdict(spec.healthcheck) if spec.healthcheck else None
    asked |= {name: value for name, value in optional.items() if value}
    labels = {**spec.labels, OWNER: owner, KIND: spec.kind.value, SERVICE: spec.name}
    labels[ASKED] = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    if spec.installation:
        labels[INSTALLATION] = spec.installation
    if spec.group is not None:
        labels[GROUP] = spec.group
    return {
        "Image": spec.image,
        "Env": [f"{name}={value}" for name, value in sorted(spec.env.items())],
        "Labels": labels,
        "ExposedPorts": {f"{port.target}/tcp": {} for port in spec.ports},
        "StopTimeout": round(spec.stop_grace),
        **({"Healthcheck": write_healthcheck(spec.healthcheck)} if spec.healthcheck else {}),
        "HostConfig": {
            **limits(spec),
            "Memory": spec.memory_limit,
            "MemoryReservation": spec.memory_reservation,
            **_log_config(spec),
            "PortBindings": {f"{port.target}/tcp": [{"HostPort": str(port.published)}] for port in spec.ports},
            "Mounts": [_mount(mount, registry) for mount in spec.configs],
            "NetworkMode": spec.network,
            **(HARDENED if spec.hardened else {}),
        },
        "NetworkingConfig": {"EndpointsConfig": {spec.network: {"Aliases": [spec.name]}}},
    }


def from_engine(raw: Raw, image: Raw | None, registry: RegistryLocation) -> ServiceSpec | None:
    """Read a container back, without what its state says.

    Args:
        raw: the container as ``GET /containers/{id}/json`` answers it; with ``LimitsMemory`` where its engine can.
        image: the image that it was made from, likewise; None where that is not there any more.
        registry: where it is and which document is current, which is what a container that mounts it has.

    Returns:
        The spec, or None where it is not ours: it has no label with a kind of ours.
    """
    config, host = raw["Config"], raw["HostConfig"]
    labels = config.get("Labels") or {}
    if labels.get(KIND) not in set(Kind) or SERVICE not in labels:
        return None
    asked = _read_asked(labels.get(ASKED, ""))
    joined, first = sorted(networks(raw)), host.get("NetworkMode", "")
    log = (host.get("LogConfig") or {}) if asked.get("log_driver") else {}
    return ServiceSpec(
        name=labels[SERVICE],
        kind=Kind(labels[KIND]),
        group=labels.get(GROUP),
        image=config["Image"],
        env=_read_environment(config, asked, image),
        replicas=1,
        cpu_limit=(host.get("NanoCpus") or 0) / _CORE,
        cpu_reservation=asked.get("cpu_reservation", 0.0),
        network=first if first in joined else ",".join(joined),
        ports=_read_ports(host, asked),
        configs=tuple(sorted(_read_mounts(host, registry))),
        start_first=asked.get("start_first") is True,
        stop_grace=float(config.get("StopTimeout") or _DEFAULT_GRACE),
        hardened=_is_hardened(host),
        unexpected=tuple(sorted(_find_unexpected(raw, image))),
        installation=labels.get(INSTALLATION, ""),
        memory_limit=host.get("Memory") or (0 if raw.get("LimitsMemory") else asked.get("memory_limit", 0)),
        memory_reservation=host.get("MemoryReservation") or asked.get("memory_reservation", 0),
        labels={name: labels[name] for name in asked.get("labels", ()) if name in labels},
        networks=tuple(name for name in joined if name != first) if first in joined else (),
        log_driver=log.get("Type") or "",
        # The engine adds its own options for the driver.
        log_options={name: text for name, text in (log.get("Config") or {}).items() if name in asked["log_options"]},
        healthcheck=asked.get("healthcheck")
        or (read_healthcheck(config.get("Healthcheck")) if _has_own_healthcheck(config, image, asked) else None),
    )


def label_previous(spec: ServiceSpec | None) -> dict[str, str]:
    """Return the label that keeps the spec of the container that a new one replaces; none where that is impossible.

    It shows no more than the container's own variables, which everyone with access to the engine can read.
    """
    text = _SPEC.dump_json(replace(spec, unexpected=())).decode() if spec is not None else ""
    return {PREVIOUS: text} if 0 < len(text) <= _LONGEST_PREVIOUS else {}


def read_previous(raw: Raw) -> ServiceSpec | None:
    """Return the spec that `label_previous` kept; None where there is none, or a person changed the label."""
    try:
        return _SPEC.validate_json((raw["Config"].get("Labels") or {}).get(PREVIOUS, ""))
    except ValueError:
        return None


def limits(spec: ServiceSpec) -> dict[str, Any]:
    """Return what of a container can be changed while it runs, as ``POST /containers/{id}/update`` takes it."""
    return {"NanoCpus": round(spec.cpu_limit * _CORE), "RestartPolicy": {"Name": RESTART}}


def can_run_beside(spec: ServiceSpec) -> bool:
    """Whether a new container can run beside the old one: a port of the host is one container's alone."""
    return spec.start_first and not spec.ports


def lacks_limit(raw: Raw) -> bool:
    """Whether a container has not the memory limit that was asked for: the engine may have discarded it."""
    asked = _read_asked(raw["Config"]["Labels"].get(ASKED, ""))
    return not raw["HostConfig"].get("Memory") and bool(asked.get("memory_limit"))


def networks(raw: Raw) -> Mapping[str, Raw]:
    """Return the networks that a container is in, by name."""
    found: Mapping[str, Raw] = (raw.get("NetworkSettings") or {}).get("Networks") or {}
    return found


def mounts_registry(raw: Raw, registry: RegistryLocation) -> bool:
    """Whether a container mounts our registry's directory."""
    return any(mount.get("Source") == registry.directory for mount in raw["HostConfig"].get("Mounts") or ())


def _read_asked(label: str) -> Mapping[str, Any]:
    """Read the label; one that a person changed counts as none: the container then differs and is replaced."""
    try:
        asked = json.loads(label)
    except (ValueError, RecursionError):  # not JSON, a number of thousands of digits, or nested as deep
        return {}
    match asked:
        case {"env": list(env), "publish": dict(publish), "cpu_reservation": float()}:
            try:
                check = _HEALTHCHECK.validate_python(asked.get("healthcheck"))
            except ValueError:
                return {}
            asked = {"labels": [], "log_options": [], **asked, "healthcheck": check}
            names = (asked["labels"], asked["log_options"])
            texts = [*env, *publish.values(), *(text for one in names if isinstance(one, list) for text in one)]
            lists = all(isinstance(one, list) for one in names)
            lists = lists and all(type(asked.get(name, 0)) is int for name in _MEMORY)
            return asked if lists and all(isinstance(text, str) for text in texts) else {}
    return {}


def _log_config(spec: ServiceSpec) -> dict[str, Any]:
    """Return where the output goes; nothing for the engine's default, which is read back as if it had been asked."""
    return {"LogConfig": {"Type": spec.log_driver, "Config": dict(spec.log_options)}} if spec.log_driver else {}


def _has_own_healthcheck(config: Raw, image: Raw | None, asked: Raw) -> bool:
    """Whether a container has a healthcheck that neither its spec nor its image has.

    Every container shows one: what a spec leaves open, the engine takes from the image. So of one that was asked only
    the label says what was asked, and the two may also be the same.
    """
    theirs = (image or {}).get("Config") or {}
    differs = image is not None and (config.get("Healthcheck") or None) != (theirs.get("Healthcheck") or None)
    return differs and not asked.get("healthcheck")


def _mount(mount: ConfigMount, registry: RegistryLocation) -> dict[str, Any]:
    """Mount the directory, not the file: the running container then sees at once that a file in it was replaced."""
    directory, _, file = mount.path.rpartition("/")
    if file != REGISTRY_FILE or not directory:
        raise PlatformRefused(f"a registry can only be mounted as <directory>/{REGISTRY_FILE}, not as {mount.path}")
    return {"Type": "bind", "Source": registry.directory, "Target": directory, "ReadOnly": True}


def _read_mounts(host: Raw, registry: RegistryLocation) -> Iterator[ConfigMount]:
    for mount in host.get("Mounts") or ():
        if mount.get("Source") == registry.directory and mount.get("ReadOnly") is True:
            yield ConfigMount(registry.current, f"{mount['Target']}/{REGISTRY_FILE}")
        else:
            yield ConfigMount(str(mount.get("Source", "")), str(mount["Target"]))


def _read_environment(config: Raw, asked: Raw, image: Raw | None) -> dict[str, str]:
    """Read the variables without those of the image, unless the spec has the same."""
    ours = frozenset(asked.get("env") or ())
    theirs = _split_variables(image.get("Config") or {}) if image is not None else None
    return {
        name: value
        for name, value in _split_variables(config).items()
        if name in ours or (theirs is not None and theirs.get(name) != value)
    }


def _split_variables(config: Raw) -> dict[str, str]:
    pairs = (item.partition("=") for item in config.get("Env") or ())
    return {name: value for name, _, value in pairs}


def _read_ports(host: Raw, asked: Raw) -> tuple[Port, ...]:
    modes = asked.get("publish") or {}
    found = []
    for key, bindings in (host.get("PortBindings") or {}).items():
        target = key.partition("/")[0]
        mode = Publish(modes[target]) if modes.get(target) in set(Publish) else Publish.HOST  # texts, see `_read_asked`
        found += [Port(_parse_port(target), _parse_port(binding.get("HostPort")), mode) for binding in bindings or ()]
    return tuple(sorted(found, key=lambda port: (port.target, port.published)))


def _parse_port(text: str | None) -> int:
    """Return a port, 0 for anything else: a range, or any free port."""
    return int(text) if text and re.fullmatch("[0-9]{1,5}", text) else 0


def _find_unexpected(raw: Raw, image: Raw | None) -> Iterator[str]:
    host = raw["HostConfig"]
    if raw["State"]["Status"] == "dead":  # the engine could not remove it completely
        yield "dead"
    yield from (_to_snake_case(name) for name in _NEVER_SET if host.get(name))
    if not _is_hardened(host):
        yield from (_to_snake_case(name) for name in HARDENED if host.get(name))
    if (host.get("RestartPolicy") or {}).get("Name") != RESTART:
        yield "restart_policy"
    service = raw["Config"]["Labels"][SERVICE]
    if any(service not in (network.get("Aliases") or ()) for network in networks(raw).values()):
        yield "network_alias"
    check, asked = raw["Config"].get("Healthcheck"), _read_asked(raw["Config"]["Labels"].get(ASKED, ""))
    if _has_own_healthcheck(raw["Config"], image, asked) and is_other_healthcheck(check):
        yield "healthcheck"
    if image is not None:
        own, theirs = raw["Config"], image.get("Config") or {}
        yield from (
            _to_snake_case(name) for name in _FROM_IMAGE if (own.get(name) or None) != (theirs.get(name) or None)
        )


def _is_hardened(host: Raw) -> bool:
    return all(host.get(name) == value for name, value in HARDENED.items())


def _to_snake_case(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
