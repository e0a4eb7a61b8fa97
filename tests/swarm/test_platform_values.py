"""Values are data, services can be hardened, and what waits without an error is told: on a real engine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from reconciler.domain.advice import service_advice
from reconciler.domain.services import ServiceSpec

from .sandbox import Sandbox, docker, eventually, remove_network

pytestmark = pytest.mark.engine

NASTY = (
    "{{.Node.Hostname}}",
    "{{ x }}",
    "{{",
    "}}",
    "{{{{{",
    "{{- `x` -}}",
    '{{"{{"}}',
    "a}}{{b",
    r"back\slash \n {{.Service.Name}}",
    "line\nbreak {{.Task.ID}}",
    "%s %d",
    "$HOME ${HOME} $$ `id`",
    "a=b",
    "",
)


def container_of(spec: ServiceSpec) -> str:
    """Return the id of the one container of a service that runs."""
    return eventually(lambda: docker("ps", "--quiet", "--filter", f"name={spec.name}."), bool)


def test_values_reach_a_service_as_they_are(sandbox: Sandbox) -> None:
    """SwarmKit's templates are not expanded in what a person called a group; nor is that drift."""
    spec = sandbox.spec(env={f"V{number}": value for number, value in enumerate(NASTY)})
    sandbox.create_running(spec)
    assert sandbox.drift(spec) == ()
    script = "; ".join(f'printf "%s|" "$V{number}"' for number in range(len(NASTY)))
    assert docker("exec", container_of(spec), "/bin/sh", "-c", script) == "".join(f"{value}|" for value in NASTY)


def test_a_template_that_was_set_by_hand_is_drift(sandbox: Sandbox) -> None:
    """It reads like the wanted value, and is another one in the container."""
    spec = sandbox.create_running(sandbox.spec(env={"GROUP_NAME": "{{.Node.Hostname}}"}))
    sandbox.by_hand(spec, "--env-add", "GROUP_NAME={{.Node.Hostname}}")
    assert [item.field for item in sandbox.drift(spec)] == ["unexpected"]
    sandbox.repair(spec)
    assert sandbox.drift(spec) == ()


def test_a_hardened_service_has_a_root_that_cannot_be_written(sandbox: Sandbox) -> None:
    """Nor any capability; its `/tmp` can be written."""
    spec = sandbox.create_running(sandbox.spec(hardened=True))
    assert sandbox.drift(spec) == ()
    script = (
        'echo x >/tmp/x && ! (echo x >/x) 2>/dev/null && while read -r l; do case $l in CapEff*) echo "$l";; esac; done'
    )
    shown = docker("exec", container_of(spec), "/bin/sh", "-c", f"{script} </proc/self/status")
    assert shown.split() == ["CapEff:", "0000000000000000"]


@pytest.mark.parametrize(
    "change",
    [
        ("--read-only=false",),
        ("--mount-rm", "/tmp"),  # noqa: S108 - a mount in a spec
        ("--mount-add", "type=tmpfs,target=/x"),
        ("--cap-add", "NET_ADMIN"),
    ],
    ids=" ".join,
)
def test_what_is_taken_from_it_by_hand_is_put_back(sandbox: Sandbox, change: tuple[str, ...]) -> None:
    """Any of it, and also where something else is added."""
    spec = sandbox.create(sandbox.spec(hardened=True, replicas=0))
    sandbox.by_hand(spec, *change)
    assert sandbox.drift(spec) != ()
    sandbox.repair(spec)
    assert sandbox.drift(spec) == ()


def test_one_that_is_not_hardened_any_more_is_put_right(sandbox: Sandbox) -> None:
    """Both ways; nothing of it is left."""
    spec = sandbox.create(sandbox.spec(hardened=True, replicas=0))
    soft = sandbox.spec(hardened=False, replicas=0)
    assert {item.field for item in sandbox.drift(soft)} == {"hardened"}
    sandbox.repair(soft)
    assert sandbox.drift(soft) == ()
    sandbox.repair(spec)
    assert sandbox.drift(spec) == ()


@pytest.fixture
def small() -> Iterator[str]:
    """An overlay network with room for a few tasks alone."""
    name = f"t{uuid.uuid4().hex[:8]}-small"
    part = uuid.uuid4().int % 250
    docker("network", "create", "--driver", "overlay", "--subnet", f"10.213.{part}.0/29", name)
    yield name
    remove_network(name)


def test_a_network_without_an_address_for_the_node_is_told(image: str, small: str) -> None:
    """Where tasks have taken them all before the node had its own, none of them starts, and the engine says so."""
    sandbox = Sandbox(image, small)
    try:
        spec = sandbox.create(sandbox.spec(replicas=8))
        live = sandbox.wait(spec, lambda live: bool(live.error))
        assert f"no address is free in the network {small}" in service_advice(live)[0]
    finally:
        sandbox.clean_up()


def test_a_network_without_addresses_is_told(image: str, small: str) -> None:
    """The engine reports no error; the state of the tasks, since when, and the likely cause are known all the same."""
    sandbox = Sandbox(image, small)
    try:
        one = sandbox.create_running(sandbox.spec())
        spec = sandbox.spec(replicas=8)
        sandbox.platform.update_service(sandbox.live(one), spec)
        live = sandbox.wait(spec, lambda live: 1 < live.running < 8 and "in state new" in live.waits)
        assert live.error == ""
        assert live.since is not None
        assert f"no address is free in the network {small}" in service_advice(live)[0]
    finally:
        sandbox.clean_up()
