"""Containers that are replaced, fail, are tampered with and go, on a real engine."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import pytest

from openfactory_common.errors import PlatformRefused
from reconciler.domain.services import Healthcheck, LiveService, Port, Publish
from reconciler.platforms.docker.platform import DockerPlatform
from tests.docker_platform.sandbox import ContainerSandbox
from tests.e2e.system import free_ports
from tests.swarm.conftest import _built
from tests.swarm.sandbox import docker, eventually

pytestmark = pytest.mark.engine


class Crash(BaseException):
    """The process ends here; nothing may catch it."""


def mortal(sandbox: ContainerSandbox) -> DockerPlatform:
    """Return a platform that dies right after the first write that it sends."""
    platform = sandbox.process()
    send: Callable[..., Any] = platform._engine._request

    def once(method: str, *arguments: Any, **options: Any) -> Any:
        answer = send(method, *arguments, **options)
        if method != "GET":
            raise Crash
        return answer

    platform._engine._request = once  # type: ignore[method-assign]
    return platform


@pytest.mark.parametrize(("beside", "writes"), [(True, 5), (False, 5)])
def test_killed_after_every_write_of_an_update(sandbox: ContainerSandbox, beside: bool, writes: int) -> None:
    """Side by side or one after the other: the next process goes on, and the end is one container as wanted."""
    ports = () if beside else (Port(8000, free_ports(1)[0], Publish.HOST),)
    old = sandbox.create(sandbox.spec(ports=ports, start_first=beside))
    spec = dataclasses.replace(old, env={"CHANGED": "1"})
    deaths = 0

    def process() -> LiveService:
        nonlocal deaths
        victim = mortal(sandbox)
        live = victim.observe().services[spec.name.lower()]
        try:
            if live.spec != spec:
                victim.update_service(live, spec)
        except Crash:
            deaths += 1
        finally:
            victim.close()
        return live

    eventually(process, lambda live: live.spec == spec and live.running == 1)
    assert deaths == writes, "create, start, stop, delete and rename, in one order or the other"
    assert list(sandbox.containers()) == [spec.name]


def test_options_of_a_service_are_in_its_container_and_come_back(sandbox: ContainerSandbox) -> None:
    """All at once, with a second network in which it has its name; what is taken back is gone from the next one."""
    more = f"{sandbox.network}-more"
    plain = sandbox.spec()
    spec = dataclasses.replace(
        plain,
        memory_limit=64 << 20,
        memory_reservation=8 << 20,
        labels={"team": "welders"},
        networks=(more,),
        log_driver="json-file",
        log_options={"max-size": "1m"},
        healthcheck=Healthcheck("true", 1.0),
    )
    sandbox.create(spec)
    assert sandbox.drift(spec) == ()
    shown = sandbox.inspect(spec.name)
    assert spec.name in shown["NetworkSettings"]["Networks"][more]["Aliases"]
    assert (shown["HostConfig"]["Memory"], shown["HostConfig"]["LogConfig"]["Config"]) == (64 << 20, {"max-size": "1m"})
    sandbox.wait(spec, lambda live: live.running == 1)
    docker("network", "disconnect", more, spec.name)
    assert [one.field for one in sandbox.drift(spec)] == ["networks"]
    sandbox.converge(spec)
    sandbox.converge(plain)
    shown = sandbox.inspect(spec.name)
    assert list(shown["NetworkSettings"]["Networks"]) == [sandbox.network]
    assert (shown["HostConfig"]["Memory"], "team" in shown["Config"]["Labels"]) == (0, False)


def test_no_container_joins_a_network_of_a_swarm(sandbox: ContainerSandbox) -> None:
    """There services have the names of ours, and clients of either would reach both."""
    spec = sandbox.spec()
    overlay = f"{spec.name}-swarm-net"
    docker("network", "create", "--driver", "overlay", "--attachable", overlay)
    try:
        with pytest.raises(PlatformRefused, match=f"DOCKER_NETWORK={overlay} is a network of a Swarm"):
            sandbox.platform.create_service(dataclasses.replace(spec, network=overlay))
        assert sandbox.containers() == {}
    finally:
        docker("network", "rm", overlay)


def test_the_old_one_serves_until_the_new_one_is_healthy(sandbox: ContainerSandbox, unhealthy_image: str) -> None:
    """A new container that never gets well takes nothing away; going back only removes it."""
    good = sandbox.create(sandbox.spec())
    before = sandbox.containers()[good.name]
    bad = dataclasses.replace(good, image=unhealthy_image)
    sandbox.step(bad)
    assert sandbox.drift(bad) == (), "nothing is left to be done again and again"
    live = sandbox.live(bad)
    assert (live.running, live.update_state) == (0, "updating")
    assert sandbox.inspect(before)["State"]["Running"]
    assert sandbox.converge(good).running == 1
    assert sandbox.containers() == {good.name: before}


def test_a_container_that_crashes_says_so_and_replaces_no_one(sandbox: ContainerSandbox) -> None:
    """Without a healthcheck, running for a moment is no proof."""
    good = sandbox.create(sandbox.spec())
    before = sandbox.containers()[good.name]
    bad = dataclasses.replace(good, image=_built('CMD ["/bin/false"]'))
    sandbox.step(bad)
    live = sandbox.wait(bad, lambda live: "exited with code 1" in live.error)
    assert live.running == 0
    assert sandbox.drift(bad) == ()
    assert sandbox.inspect(before)["State"]["Running"]


def test_what_a_person_does_is_undone(sandbox: ContainerSandbox) -> None:
    """Stopped, killed, limited, told not to restart: the same container goes on."""
    spec = sandbox.create(sandbox.spec())
    identity = sandbox.containers()[spec.name]
    for command in (
        ("stop", "--time", "1"),
        ("kill",),
        ("update", "--cpus", "0.1"),
        ("update", "--restart", "no"),
    ):
        docker(*command, identity)
        assert sandbox.drift(spec) != (), command
        sandbox.converge(spec)
    assert sandbox.containers() == {spec.name: identity}


def test_a_container_under_a_name_of_its_own_is_a_persons(sandbox: ContainerSandbox) -> None:
    """A copy with all our labels, and a container that was renamed: shown, never changed or removed, by no name."""
    spec = sandbox.create(sandbox.spec())
    labels = sandbox.inspect(spec.name)["Config"]["Labels"]
    given = [option for name, value in labels.items() for option in ("--label", f"{name}={value}")]
    docker("run", "--detach", *given, "--name", f"{sandbox.owner}_copy", sandbox.image)
    docker("rename", spec.name, f"{sandbox.owner}_elsewhere")
    others = sandbox.containers()
    state = sandbox.platform.observe().services
    assert set(state) == {f"{sandbox.owner}_copy", f"{sandbox.owner}_elsewhere"}
    assert all(live.owner == sandbox.owner and live.spec is not None for live in state.values())
    sandbox.create(spec)
    sandbox.converge(dataclasses.replace(spec, env={"CHANGED": "1"}))
    sandbox.platform.remove_service(sandbox.live(spec))
    assert sandbox.containers() == others


def test_a_hardened_container_has_a_root_that_cannot_be_written(sandbox: ContainerSandbox) -> None:
    """Nor any capability, nor a way to new ones; what a container cannot change is created again, both ways."""
    spec = sandbox.create(sandbox.spec(hardened=True))
    host = sandbox.inspect(spec.name)["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["SecurityOpt"]) == (True, ["ALL"], ["no-new-privileges"])
    docker("exec", spec.name, "/bin/sh", "-c", "echo x >/tmp/x && ! (echo x >/x) 2>/dev/null")
    soft = dataclasses.replace(spec, hardened=False)
    assert [item.field for item in sandbox.drift(soft)] == ["hardened"]
    sandbox.converge(soft)
    sandbox.converge(spec)
    assert sandbox.drift(spec) == ()


def test_values_reach_a_container_as_they_are(sandbox: ContainerSandbox) -> None:
    """Nothing is a template here, so nothing is escaped."""
    value = '{{.Node.Hostname}} {{ x }} {{ }} {{"{{"}} %s $HOME \\ \n'
    spec = sandbox.create(sandbox.spec(env={"GROUP_NAME": value}))
    assert sandbox.drift(spec) == ()
    assert docker("exec", spec.name, "/bin/sh", "-c", 'printf "%s|" "$GROUP_NAME"') == f"{value}|"


def test_an_update_of_one_that_was_not_renamed_yet(sandbox: ContainerSandbox) -> None:
    """A process died before the last step of an update, and the settings changed since."""
    port = Port(8000, free_ports(1)[0], Publish.HOST)
    spec = sandbox.create(sandbox.spec(ports=(port,), start_first=False))
    docker("rename", spec.name, f"{spec.name}.next")
    changed = dataclasses.replace(spec, env={"CHANGED": "1"})
    sandbox.converge(changed)
    assert list(sandbox.containers()) == [spec.name]


def test_what_cannot_be_undone_is_replaced(sandbox: ContainerSandbox) -> None:
    """Taken out of its network, or stopped while the network was removed: a new container takes its place."""
    spec = sandbox.create(sandbox.spec())
    docker("network", "disconnect", "--force", sandbox.network, spec.name)
    assert [item.field for item in sandbox.drift(spec)] == ["network"]
    sandbox.converge(spec)
    docker("stop", "--time", "1", spec.name)
    docker("network", "rm", sandbox.network)
    sandbox.converge(spec)
    assert list(sandbox.containers()) == [spec.name]


def test_a_container_created_again_by_hand_is_seen(sandbox: ContainerSandbox) -> None:
    """Tools copy all labels when they edit a container; what they changed shows all the same."""
    spec = sandbox.create(sandbox.spec())
    labels = sandbox.inspect(spec.name)["Config"]["Labels"]
    docker("rm", "--force", spec.name)
    given = [option for name, value in labels.items() for option in ("--label", f"{name}={value}")]
    where = ["--network", sandbox.network, "--network-alias", spec.name, "--restart", "unless-stopped"]
    limits = ["--cpus", "0.5", "--stop-timeout", "1", "--memory", "64m"]
    env = ["--env", "GROUP_NAME=Weld", "--env", "LOG_LEVEL=debug", "--env", "MORE=1"]
    docker("run", "--detach", "--name", spec.name, *given, *where, *limits, *env, spec.image)
    assert {item.field for item in sandbox.drift(spec)} == {"env LOG_LEVEL", "env MORE", "memory_limit"}
    sandbox.converge(spec)
    assert sandbox.inspect(spec.name)["HostConfig"]["Memory"] == 0


def test_a_port_that_is_taken_is_said_and_taken_later(sandbox: ContainerSandbox) -> None:
    """The engine's own words; the container that could not start is started as soon as it can be."""
    [port] = free_ports(1)
    first = sandbox.create(sandbox.spec("A", ports=(Port(8000, port, Publish.HOST),), start_first=False))
    second = dataclasses.replace(first, name=f"{sandbox.owner}_group_B", group="B")
    with pytest.raises(PlatformRefused, match="port is already allocated"):
        sandbox.platform.create_service(second)
    assert "port is already allocated" in sandbox.live(second).error
    sandbox.platform.remove_service(sandbox.live(first))
    sandbox.converge(second)


def test_a_container_of_another_owner_is_reported_and_left(sandbox: ContainerSandbox) -> None:
    """It has our name and no label of ours: no update can be asked for, and removing ours leaves it."""
    spec = sandbox.spec()
    docker("create", "--name", spec.name, sandbox.image)
    live = sandbox.live(spec)
    assert (live.owner, live.spec) == (None, None)
    other = sandbox.create(sandbox.spec("Other"))
    sandbox.platform.remove_service(sandbox.live(other))
    assert sandbox.live(spec) == live


def test_the_network_is_made_and_goes_with_the_last_container(sandbox: ContainerSandbox) -> None:
    """With our label; while a container of anybody is in it, it stays."""
    first, second = sandbox.create(sandbox.spec("A")), sandbox.create(sandbox.spec("B"))
    sandbox.platform.remove_service(sandbox.live(first))
    assert sandbox.networks() == [sandbox.network]
    guest = docker("run", "--detach", "--name", f"{sandbox.owner}-guest", "--network", sandbox.network, sandbox.image)
    sandbox.platform.remove_service(sandbox.live(second))
    assert sandbox.networks() == [sandbox.network]
    docker("rm", "--force", guest)
    sandbox.platform.remove_service(sandbox.live(sandbox.create(first)))
    assert sandbox.networks() == []


def test_a_network_of_another_owner_is_used_and_stays(bridge: str, sandbox: ContainerSandbox) -> None:
    """One that was there under the name is not ours to remove."""
    spec = sandbox.create(sandbox.spec(network=bridge))
    sandbox.platform.remove_service(sandbox.live(spec))
    assert docker("network", "ls", "--filter", f"name={bridge}", "--format", "{{.Name}}") == bridge


def test_an_observation_looks_at_each_container_once(sandbox: ContainerSandbox, sent: list[str]) -> None:
    """One list, and one look at each container of ours; images only at their first sight."""
    for group in ("A", "B", "C"):
        sandbox.create(sandbox.spec(group))
    sandbox.platform.observe()
    sent.clear()
    sandbox.platform.observe()
    assert len(sent) == 1 + 3
    assert all(request.startswith("GET ") for request in sent)


def test_two_operators_at_once_make_one_container(sandbox: ContainerSandbox) -> None:
    """Both want to create the same service: one does, the other is told that it is there."""
    spec = sandbox.spec()
    platforms = [sandbox.process() for _ in range(4)]
    failures: list[str] = []

    def create(platform: DockerPlatform) -> None:
        try:
            platform.create_service(spec)
        except Exception as problem:  # noqa: BLE001 - whatever it was is what the test is about
            failures.append(type(problem).__name__)

    threads = [threading.Thread(target=create, args=(platform,)) for platform in platforms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for platform in platforms:
        platform.close()
    assert failures == ["PlatformConflict"] * 3
    assert list(sandbox.containers()) == [spec.name]
