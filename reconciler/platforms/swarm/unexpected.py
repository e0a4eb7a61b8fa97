"""Which settings a live service has that no spec of ours ever sets. Pure.

The lists say what is ours or harmless, not what is bad: a setting that a later engine invents is reported as soon
as somebody uses it. Empty values count as not set, because the engine fills in empty structures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

Raw = Mapping[str, Any]

_SPEC = frozenset({"Name", "Labels", "TaskTemplate", "Mode", "UpdateConfig", "Networks", "EndpointSpec"})
#: ForceUpdate is the counter of `docker service update --force`.
_TASK = frozenset({"ContainerSpec", "Resources", "RestartPolicy", "Placement", "Networks", "ForceUpdate", "Runtime"})
#: Init and Isolation come from clients' defaults and change nothing that we rely on.
_CONTAINER = frozenset({"Image", "Env", "StopGracePeriod", "Configs", "Secrets", "Init", "Isolation"})
#: Platforms is what a client read from the image when it resolved the digest.
_PLACEMENT = frozenset({"Platforms"})
_CORES = frozenset({"NanoCPUs"})
_NETWORK = frozenset({"Target"})
_PORT = frozenset({"TargetPort", "PublishedPort", "PublishMode", "Protocol"})
_MOUNT = {kind: frozenset({"File", f"{kind}ID", f"{kind}Name"}) for kind in ("Config", "Secret")}
_FILE = {"UID": "0", "GID": "0", "Mode": 0o444}

_NAMES = {"Labels": "container_labels", "DNSConfig": "dns_config", "TTY": "tty"}
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def unexpected(
    raw: Raw, endpoint_mode: str, update_policy: Raw, restart_policy: Raw, hardening: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """Return the names, sorted; settings of ours whose value is one of two policies are compared with it.

    Args:
        raw: the ``Spec`` of a service.
        endpoint_mode: that it should have.
        update_policy: likewise.
        restart_policy: likewise.
        hardening: the settings of its container that make it hardened, where it is.
    """
    task = raw["TaskTemplate"]
    found = {*_extra(raw, _SPEC), *_extra(task, _TASK), *_container(task.get("ContainerSpec") or {}, hardening)}
    found.update(_extra(task.get("Placement"), _PLACEMENT))
    found.update(_resources(task.get("Resources") or {}))
    found.update(_endpoint(raw.get("EndpointSpec") or {}, endpoint_mode))
    for network in task.get("Networks") or raw.get("Networks") or ():
        found.update(_extra(network, _NETWORK, "network_"))
    if _differs(raw.get("UpdateConfig"), update_policy):
        found.add("update_config")
    if _differs(task.get("RestartPolicy"), restart_policy):
        found.add("restart_policy")
    return tuple(sorted(found))


def _container(container: Raw, hardening: frozenset[str]) -> Iterator[str]:
    yield from _extra(container, _CONTAINER | hardening)
    if hardening:
        yield from _extra(container.get("Privileges"), frozenset({"NoNewPrivileges"}), "privileges_")
    variables = container.get("Env") or ()
    if len({item.partition("=")[0] for item in variables}) < len(variables) or any("=" not in v for v in variables):
        yield "env"
    for kind, known in _MOUNT.items():
        for mount in container.get(f"{kind}s") or ():
            yield from _extra(mount, known, f"{kind.lower()}_")
            file = mount.get("File")
            if file and any(file.get(name) != value for name, value in _FILE.items()):
                yield f"{kind.lower()}_file"


def _resources(resources: Raw) -> Iterator[str]:
    yield from _extra(resources.get("Limits"), _CORES, "limit_")
    yield from _extra(resources.get("Reservations"), _CORES, "reservation_")
    yield from _extra(resources, frozenset({"Limits", "Reservations"}), "resource_")


def _endpoint(endpoint: Raw, wanted_mode: str) -> Iterator[str]:
    yield from _extra(endpoint, frozenset({"Mode", "Ports"}), "endpoint_")
    if (endpoint.get("Mode") or "vip") != wanted_mode:
        yield "endpoint_mode"
    for port in endpoint.get("Ports") or ():
        yield from _extra(port, _PORT, "port_")
        if port.get("Protocol", "tcp") != "tcp":
            yield "port_protocol"


def _differs(live: Raw | None, wanted: Raw) -> bool:
    """Compare a policy; the engine leaves out what is zero."""
    return any((live or {}).get(name, type(value)()) != value for name, value in wanted.items())


def _extra(settings: Raw | None, known: frozenset[str], prefix: str = "") -> Iterator[str]:
    for name, value in (settings or {}).items():
        if name not in known and _is_set(value):
            yield prefix + (_NAMES.get(name) or _WORD.sub("_", name).lower())


def _is_set(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_is_set(item) for item in value.values())
    return bool(value)
