"""What an engine says of tasks that do not run, and what helps: the one table of its texts. Pure.

The texts differ between engines (a missing image is ``No such image`` until 29.5 and ``failed to resolve reference``
from 29.6 on), so each entry has several, and nothing but advice depends on them.
"""

from __future__ import annotations

import re

from reconciler.domain.services import Kind, LiveService, Publish

#: Regular expressions for an engine's error, without regard to case, and what helps. The names in braces are those of
#: `_names`.
_ERRORS: tuple[tuple[str, str], ...] = (
    (
        r"port (is )?already (in use|allocated)|address already in use",
        "port {port} ({port_variable}) is taken on the node: free it, or publish another one",
    ),
    (r"insufficient resources", "add cores to the Swarm, or lower {reservation_variable}"),
    (
        r"no such image|failed to resolve reference|manifest (unknown|for \S+ not found)|image \S+ is not here",
        "push the image, or correct {image_variable} ({image})",
    ),
    (
        r"pull access denied|unauthorized|authentication required|no basic auth credentials|denied:",
        "the repository of {image} ({image_variable}) wants a login: `docker login` where the operator runs",
    ),
    (
        r"toomanyrequests|rate limit",
        "the repository of {image} limits pulls: log in, or use a mirror",
    ),
    (
        r"(registry|/v2/|pull|image).*(i/o timeout|connection refused|no such host|TLS handshake|deadline exceeded)",
        "the node does not reach the repository of {image} ({image_variable})",
    ),
    (
        r"no suitable node|scheduling constraints|not available for new tasks|unsupported platform",
        "look at `docker node ls`: no node fits what the service asks for",
    ),
    (
        r"unhealthy",
        "its healthcheck fails: `docker inspect` shows its output; does the image listen on its port?",
    ),
    (r"exec format error", "{image} ({image_variable}) is of another processor than the node"),
    (
        r"read-only file system|operation not permitted|permission denied",
        "the program writes files, or needs a capability: {hardened_variable}=false",
    ),
    (r"no such network|network \S+ not found|could not find network", "the network {network} (DOCKER_NETWORK) is gone"),
    (
        r"network attachments|addresses? .*exhausted|no available (ipv4 |ip )?address|could not find an available",
        "no address is free in the network {network} (DOCKER_NETWORK): make one with a larger subnet",
    ),
    (r"(secret|config) reference|(secret|config) \S+ not found", "a secret or config that it mounts is gone"),
    (r"exit code 0", "its program ends: look at its log"),
)
#: The states in which tasks may stay without an error, and the likely causes.
_STATES: tuple[tuple[str, str], ...] = (
    (
        "new",
        "no address is free in the network {network} (DOCKER_NETWORK; a /24 has some 250): make one of a larger subnet",
    ),
    ("allocated", "the Swarm's scheduler does not get on: look at `docker node ls`"),
    ("pending", "no node takes it: look at `docker node ls`, and at {reservation_variable}"),
    ("assigned", "the engine of its node does not answer: look at `docker node ls`"),
    ("accepted", "the engine of its node does not get on: look at the engine's log there"),
    ("preparing", "its node pulls {image} ({image_variable}): is the repository in reach, has the node space?"),
    ("ready", "a task of before does not end: look at `docker service ps`"),
    ("starting", "its healthcheck does not succeed: does the image listen on its port?"),
    ("created", "the engine did not start it: look at the engine's log"),
    ("restarting", "its program ends: look at its log"),
    ("paused", "someone has paused it: `docker unpause`"),
)
_PREFIX = {Kind.GROUP: "FASTAPI_GROUP", Kind.ROUTING_LAYER: "ROUTING_LAYER", Kind.STATE_API: "STATE_API"}


def advice(live: LiveService) -> tuple[str, ...]:
    """Return what helps a service that does not run: against its error or, without one, by what its tasks wait for."""
    names = _names(live)
    if live.error:
        return tuple(text.format(**names) for words, text in _ERRORS if re.search(words, live.error, re.IGNORECASE))
    return tuple(text.format(**names) for state, text in _STATES if re.search(rf"\bstate {state}\b", live.waits))


def _names(live: LiveService) -> dict[str, str]:
    spec = live.spec
    prefix = _PREFIX[spec.kind] if spec else "FASTAPI_GROUP"
    ports = [port.published for port in spec.ports if port.mode is not Publish.NONE] if spec else []
    routing = spec is not None and spec.kind is Kind.ROUTING_LAYER
    return {
        "port": ", ".join(map(str, ports)) or "of the service",
        "port_variable": "ROUTING_LAYER_PORT" if routing else "FASTAPI_GROUP_PORT_BASE",
        "image": spec.image if spec else "its image",
        "image_variable": f"{prefix}_IMAGE",
        "reservation_variable": f"{prefix}_CPU_RESERVATION",
        "hardened_variable": f"{prefix}_HARDENED",
        "network": spec.network if spec else "of the service",
    }
