"""What an engine says of tasks that do not run, and what a person is told: one line a text."""

from __future__ import annotations

import pytest

from reconciler.domain.services import Kind, LiveService, Port, Publish, ServiceSpec
from reconciler.platforms.advice import advice

PREFIX = {Kind.GROUP: "FASTAPI_GROUP", Kind.ROUTING_LAYER: "ROUTING_LAYER", Kind.STATE_API: "STATE_API"}


def live(kind: Kind = Kind.GROUP, error: str = "", waits: str = "") -> LiveService:
    """Return a service that does not run."""
    ports = (Port(8000, 6042, Publish.HOST),)
    spec = ServiceSpec("s", kind, None, "acme/x:1", {}, 1, 1.0, 0.5, network="net-a", ports=ports)
    return LiveService("1", 1, "s", "o", spec, 0, error=error, waits=waits)


ERRORS = [
    ("No such image: acme/x:1", "push the image, or correct {p}_IMAGE (acme/x:1)"),
    ('failed to resolve reference "docker.io/acme/x:1": docker.io/acme/x:1: not found', "correct {p}_IMAGE"),
    ("POST /images/create: manifest for acme/x:1 not found: manifest unknown (HTTP 404)", "correct {p}_IMAGE"),
    ("image acme/x:1 is not here and cannot be pulled: x", "correct {p}_IMAGE"),
    ("pull access denied for acme/x, repository does not exist or may require 'docker login'", "docker login"),
    ("toomanyrequests: You have reached your pull rate limit", "limits pulls"),
    ('Get "https://r/v2/": dial tcp: lookup r: no such host', "does not reach the repository of acme/x:1 ({p}_IMAGE)"),
    ('Get "https://r/v2/": net/http: TLS handshake timeout', "does not reach the repository"),
    ("no suitable node (insufficient resources on 2 nodes)", "lower {p}_CPU_RESERVATION"),
    ("no suitable node (host-mode port already in use on 1 node)", "port 6042"),
    ("driver failed: Bind for 0.0.0.0:6042 failed: port is already allocated", "port 6042"),
    ("listen tcp4 0.0.0.0:6042: bind: address already in use", "port 6042"),
    ("no suitable node (scheduling constraints not satisfied on 1 node)", "docker node ls"),
    ("no suitable node (1 node not available for new tasks)", "docker node ls"),
    ("node is missing network attachments, ip addresses may be exhausted", "no address is free in the network net-a"),
    ("could not find an available IP while allocating VIP", "no address is free in the network net-a"),
    ("no available IPv4 addresses on this network's address pools: net-a", "no address is free in the network net-a"),
    ("task: non-zero exit (137): dockerexec: unhealthy container", "healthcheck fails"),
    ("exec /x: exec format error", "of another processor"),
    ("OSError: [Errno 30] Read-only file system: '/app/x'", "{p}_HARDENED=false"),
    ("network net-a not found", "net-a (DOCKER_NETWORK) is gone"),
]


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(("error", "told"), ERRORS)
def test_an_engines_error_has_its_advice(kind: Kind, error: str, told: str) -> None:
    """Whatever engine says it, the variable of that service is named."""
    assert told.format(p=PREFIX[kind]) in " | ".join(advice(live(kind, error)))


def test_a_taken_port_names_its_variable() -> None:
    """The engine names neither: the port is the service's, the variable depends on what it is for."""
    taken = "no suitable node (host-mode port already in use on 1 node)"
    assert "(FASTAPI_GROUP_PORT_BASE)" in advice(live(Kind.GROUP, taken))[0]
    assert "(FASTAPI_GROUP_PORT_BASE)" in advice(live(Kind.STATE_API, taken))[0]
    assert "(ROUTING_LAYER_PORT)" in advice(live(Kind.ROUTING_LAYER, taken))[0]


STATES = [
    ("new", "no address is free in the network net-a (DOCKER_NETWORK"),
    ("allocated", "docker node ls"),
    ("pending", "FASTAPI_GROUP_CPU_RESERVATION"),
    ("assigned", "the engine of its node does not answer"),
    ("accepted", "log"),
    ("preparing", "pulls acme/x:1 (FASTAPI_GROUP_IMAGE)"),
    ("ready", "a task of before does not end"),
    ("starting", "healthcheck"),
    ("created", "log"),
    ("restarting", "log"),
    ("paused", "docker unpause"),
]


@pytest.mark.parametrize(("state", "told"), STATES)
def test_a_state_that_lasts_has_its_likely_cause(state: str, told: str) -> None:
    """Where the engine gives no error."""
    assert told in " | ".join(advice(live(waits=f"1 task in state {state}")))


@pytest.mark.parametrize("error", ["", "something that nobody has seen", "{0} {x} {{"])
def test_what_is_not_known_has_no_advice(error: str) -> None:
    """Rather nothing than something wrong; a text is never a format."""
    assert advice(live(error=error)) == ()
    assert advice(LiveService("1", 1, "s", "o", None, 0, error=error, waits="1 task in state odd")) == ()
