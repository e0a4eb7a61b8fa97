"""Drift and repair, field by field, with what a real engine makes of a spec."""

from __future__ import annotations

import dataclasses

import pytest

from openfactory_common.errors import PlatformRefused
from reconciler.domain.services import Port, Publish, ServiceSpec

from .sandbox import Sandbox, docker

pytestmark = pytest.mark.engine

BY_HAND = {
    "env-add": (("--env-add", "X=1"), "env X"),
    "env-changed": (("--env-add", "LOG_LEVEL=debug"), "env LOG_LEVEL"),
    "env-removed": (("--env-rm", "LOG_LEVEL"), "env LOG_LEVEL"),
    "replicas": (("--replicas", "2"), "replicas"),
    "limit-cpu": (("--limit-cpu", "0.25"), "cpu_limit"),
    "limit-memory": (("--limit-memory", "64m"), "memory_limit"),
    "reserve-cpu": (("--reserve-cpu", "0.02"), "cpu_reservation"),
    "args": (("--args", "echo"), "unexpected"),
    "constraint": (("--constraint-add", "node.role==worker"), "constraints"),
    "hostname": (("--hostname", "other"), "unexpected"),
    "user": (("--user", "1000"), "unexpected"),
    "mount": (("--mount-add", "type=tmpfs,target=/x"), "unexpected"),
    "container-label": (("--container-label-add", "a=b"), "unexpected"),
    "health-cmd": (("--health-cmd", "true"), "healthcheck"),
    "image": (("--image", "localhost:1/other:1"), "image"),
    "group label": (("--label-rm", "org.openfactory.group"), "group"),
    "update-order": (("--update-order", "stop-first"), "start_first"),
    "update-failure-action": (("--update-failure-action", "rollback"), "unexpected"),
    "restart-condition": (("--restart-condition", "none"), "unexpected"),
    "rollback-order": (("--rollback-order", "start-first"), "unexpected"),
    "stop-grace-period": (("--stop-grace-period", "2s"), "stop_grace"),
    "endpoint-mode": (("--endpoint-mode", "vip"), "unexpected"),
    "publish": (("--publish-add", "mode=host,target=80,published=18473"), "ports"),
}


@pytest.fixture
def idle(sandbox: Sandbox) -> ServiceSpec:
    """A service without tasks: its spec is stored like any other, and nothing has to start."""
    return sandbox.create(sandbox.spec(replicas=0))


def test_a_created_service_has_no_drift(sandbox: Sandbox) -> None:
    """All kinds of settings at once: what was created is what is read back."""
    mount = sandbox.publish("{}", "a1", 1)
    spec = sandbox.spec(
        group="A",
        env={"B": "2", "A": "=x y", "EMPTY": ""},
        replicas=0,
        ports=(Port(80, 18471, Publish.HOST), Port(81, 18472, Publish.HOST)),
        configs=(mount,),
        start_first=False,
        stop_grace=2.5,
    )
    sandbox.create(spec)
    assert sandbox.drift(spec) == ()


@pytest.mark.parametrize(("cpu", "ports"), [(0.0, ()), (0.001, (Port(80, 18474, Publish.INGRESS),))])
def test_limits_and_ingress_ports_have_no_drift(sandbox: Sandbox, cpu: float, ports: tuple[Port, ...]) -> None:
    """No limit at all, a very small one, and a port through ingress, which needs a virtual IP."""
    spec = sandbox.create(sandbox.spec(replicas=0, cpu_limit=cpu, cpu_reservation=cpu, ports=ports, env={}))
    assert sandbox.drift(spec) == ()


@pytest.mark.parametrize("change", BY_HAND)
def test_a_change_from_outside_is_seen_and_repaired(sandbox: Sandbox, idle: ServiceSpec, change: str) -> None:
    """Each setting changed by the engine's own client is drift in one field, and one update ends it."""
    options, field = BY_HAND[change]
    sandbox.by_hand(idle, *options)
    assert [item.field for item in sandbox.drift(idle)] == [field]
    sandbox.repair(idle)
    assert sandbox.drift(idle) == ()


def test_a_lost_owner_label_makes_it_a_strangers(sandbox: Sandbox, idle: ServiceSpec) -> None:
    """The service is seen, because its name is ours, but it has no owner and no spec to compare."""
    sandbox.by_hand(idle, "--label-rm", "org.openfactory.owner")
    live = sandbox.live(idle)
    assert (live.owner, live.spec) == (None, None)


def test_a_service_of_another_owner_with_our_prefix_is_seen(sandbox: Sandbox, image: str) -> None:
    """A name that we may want is never a surprise; another owner's is shown as theirs."""
    label = "org.openfactory.owner=other"
    docker(
        "service",
        "create",
        "--detach",
        "--replicas",
        "0",
        "--no-resolve-image",
        "--label",
        label,
        "--name",
        f"{sandbox.owner}_GROUP_x",
        image,
    )  # fmt: skip - one command
    live = sandbox.platform.observe().services[f"{sandbox.owner}_group_x"]
    assert (live.name, live.owner, live.spec) == (f"{sandbox.owner}_GROUP_x", "other", None)


def test_a_global_service_with_our_labels_is_seen_without_a_spec(sandbox: Sandbox, image: str) -> None:
    """It is ours by its label, but of a mode that no update of ours can change."""
    labels = ("--label", f"org.openfactory.owner={sandbox.owner}", "--label", "org.openfactory.kind=group")
    constraint = ("--constraint", "node.hostname==nowhere")
    name = f"{sandbox.owner}_group_G"
    docker(
        "service",
        "create",
        "--detach",
        "--mode",
        "global",
        "--no-resolve-image",
        *labels,
        *constraint,
        "--name",
        name,
        image,
    )
    live = sandbox.platform.observe().services[name.lower()]
    assert (live.owner, live.spec, live.running) == (sandbox.owner, None, 0)


def test_a_constraint_that_no_node_fulfils_ends_no_task(sandbox: Sandbox) -> None:
    """The engine would end it at once, before another one runs."""
    spec = sandbox.create_running(sandbox.spec())
    before = sandbox.tasks(spec)
    nowhere = dataclasses.replace(spec, constraints=("node.labels.gpu==nope", "node.role==manager"))
    with pytest.raises(
        PlatformRefused, match=r"nodes that may have tasks fulfils node\.labels\.gpu==nope: it stays as it is"
    ):
        sandbox.repair(nowhere)
    assert (sandbox.tasks(spec), sandbox.live(spec).running) == (before, 1)
    here = dataclasses.replace(spec, constraints=("node.labels.gpu!=nope", "node.role==manager"))
    sandbox.repair(here)
    live = sandbox.wait(here, lambda live: live.running == 1 and live.update_state != "updating")
    assert live.error == ""
    assert sandbox.drift(here) == ()


def test_a_repair_keeps_labels_of_others_and_restarts_no_task(sandbox: Sandbox) -> None:
    """Labels and update policy are repaired around the running task; a foreign label stays where it is."""
    spec = sandbox.create_running(sandbox.spec())
    sandbox.by_hand(
        spec,
        "--label-add",
        "traefik.enable=true",
        "--label-rm",
        "org.openfactory.group",
        "--update-order",
        "stop-first",
    )
    before = sandbox.tasks(spec)
    sandbox.repair(spec)
    assert sandbox.drift(spec) == ()
    assert sandbox.inspect(spec)["Spec"]["Labels"]["traefik.enable"] == "true"
    assert sandbox.wait(spec, lambda live: live.running == 1).error == ""
    assert sandbox.tasks(spec) == before


def test_a_repair_keeps_the_counter_of_forced_updates(sandbox: Sandbox, idle: ServiceSpec) -> None:
    """A forced update is no drift, and a later repair of the template does not turn its counter back."""
    sandbox.by_hand(idle, "--force")
    assert sandbox.drift(idle) == ()
    sandbox.by_hand(idle, "--env-add", "X=1")
    sandbox.repair(idle)
    assert sandbox.inspect(idle)["Spec"]["TaskTemplate"]["ForceUpdate"] == 1


def test_a_digest_pinned_by_a_client_is_no_drift_and_stays(sandbox: Sandbox, idle: ServiceSpec) -> None:
    """The digest of a wanted tag is kept by repairs that are about something else."""
    pinned = f"{idle.image}@sha256:{'a' * 64}"
    sandbox.by_hand(idle, "--image", pinned, "--env-add", "X=1")
    assert [item.field for item in sandbox.drift(idle)] == ["env X"]
    sandbox.repair(idle)
    assert sandbox.inspect(idle)["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == pinned


def test_every_field_can_be_changed(sandbox: Sandbox, idle: ServiceSpec) -> None:
    """A new wish reaches the live service in one update."""
    mount = sandbox.publish("{}", "b1", 1)
    wish = dataclasses.replace(
        idle,
        group="Other",
        image="localhost:1/other:2",
        env={"NEW": "1"},
        replicas=0,
        cpu_limit=0.0,
        cpu_reservation=0.0,
        ports=(Port(80, 18475, Publish.HOST),),
        configs=(mount,),
        start_first=False,
        stop_grace=3.0,
    )
    sandbox.repair(wish)
    assert sandbox.drift(wish) == ()
