"""Services that run, wait, fail and go, on a real engine."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from openfactory_common.errors import PlatformConflict, PlatformRefused
from reconciler.domain.services import LiveService, Port, Publish
from reconciler.platforms.swarm.platform import SwarmPlatform

from .sandbox import Sandbox, docker

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("services", [1, 20])
def test_an_observation_costs_at_most_three_requests(sandbox: Sandbox, sent: list[str], services: int) -> None:
    """However many services there are, running or not: two lists, and one of tasks where some are missing."""
    for number in range(services):
        sandbox.create(sandbox.spec(f"G{number}", cpu_reservation=500.0))
    sandbox.platform.observe()
    sent.clear()
    assert len(sandbox.platform.observe().services) == services
    assert len(sent) == 3


def test_the_first_observation_also_learns_version_and_networks(sandbox: Sandbox, sent: list[str]) -> None:
    """After a start there are two requests more, and one for the nodes at the next; then it is the two lists."""
    sandbox.create_running(sandbox.spec())
    fresh = SwarmPlatform(sandbox.owner, sandbox.owner, pin_digests=False)
    sent.clear()
    costs = []
    for _ in range(4):
        before = len(sent)
        fresh.observe()
        costs.append(len(sent) - before)
    fresh.close()
    assert costs == [4, 3, 2, 2]


def test_a_service_runs_and_is_removed(sandbox: Sandbox) -> None:
    """Created, seen running without an error, removed, and removed again without an error."""
    spec = sandbox.create_running(sandbox.spec(replicas=2))
    live = sandbox.live(spec)
    assert (live.owner, live.name, live.error) == (sandbox.owner, spec.name, "")
    sandbox.platform.remove_service(live)
    sandbox.platform.remove_service(live)
    assert sandbox.platform.observe().services == {}


def test_a_task_counts_only_when_it_is_healthy(sandbox: Sandbox, unhealthy_image: str) -> None:
    """A container that is up but whose healthcheck has not succeeded does not count as running."""
    spec = sandbox.create(sandbox.spec(image=unhealthy_image))
    sandbox.wait(spec, lambda _: "starting" in docker("ps", "--filter", f"name={spec.name}", "--format", "{{.Status}}"))
    assert sandbox.live(spec).running == 0


def test_a_taken_name_is_a_conflict(sandbox: Sandbox) -> None:
    """Names are taken without regard to case."""
    spec = sandbox.create(sandbox.spec(replicas=0))
    with pytest.raises(PlatformConflict):
        sandbox.platform.create_service(dataclasses.replace(spec, name=spec.name.upper()))


def test_a_stale_version_is_a_conflict(sandbox: Sandbox) -> None:
    """A user wrote between our read and our write: nothing is overwritten."""
    spec = sandbox.create(sandbox.spec(replicas=0))
    seen = sandbox.live(spec)
    sandbox.by_hand(spec, "--env-add", "X=1")
    with pytest.raises(PlatformConflict, match="out of sequence"):
        sandbox.platform.update_service(seen, spec)
    assert [item.field for item in sandbox.drift(spec)] == ["env X"]


def test_a_write_between_our_look_and_our_write_is_a_conflict(sandbox: Sandbox) -> None:
    """The engine itself refuses a version that is not the present one; its answer is a 500."""
    spec = sandbox.create(sandbox.spec(replicas=0))
    engine = sandbox.platform._engine
    live = sandbox.live(spec)
    body = sandbox.inspect(spec)["Spec"]
    with pytest.raises(PlatformConflict, match="out of sequence"):
        engine.post("/services/{}/update", live.id, body=body, version=live.version - 1)


def test_an_update_of_a_removed_service_is_a_conflict(sandbox: Sandbox) -> None:
    """It went since it was read: look again."""
    spec = sandbox.create(sandbox.spec(replicas=0))
    seen = sandbox.live(spec)
    docker("service", "rm", spec.name)
    with pytest.raises(PlatformConflict):
        sandbox.platform.update_service(seen, spec)


def test_an_unknown_network_is_refused(sandbox: Sandbox) -> None:
    """The engine's own words name the network."""
    with pytest.raises(PlatformRefused, match="no-such-net"):
        sandbox.platform.create_service(sandbox.spec(network="no-such-net"))


def test_an_invalid_name_is_refused(sandbox: Sandbox) -> None:
    """What the engine never accepts is not tried as if it could be."""
    with pytest.raises(PlatformRefused):
        sandbox.platform.create_service(sandbox.spec(name=f"{sandbox.owner}_a b"))


def test_a_service_that_mounts_an_unknown_config_is_a_conflict(sandbox: Sandbox) -> None:
    """The document was removed since the plan was made: nothing is created."""
    mount = sandbox.publish("{}", "c1", 1)
    sandbox.platform.remove_registry(sandbox.registries()[0])
    with pytest.raises(PlatformConflict, match="registry-c1"):
        sandbox.platform.create_service(sandbox.spec(configs=(mount,)))
    assert sandbox.platform.observe().services == {}


def test_a_bad_image_pauses_the_update_and_the_old_task_stays(sandbox: Sandbox) -> None:
    """The service goes on running, the spec stays as asked, so that nothing is left to repeat, and says why."""
    spec = sandbox.create_running(sandbox.spec())
    bad = dataclasses.replace(spec, image="localhost:1/openfactory/absent:1")
    sandbox.repair(bad)
    live = sandbox.wait(bad, lambda live: live.update_state == "paused")
    assert live.running == 1
    assert live.error.startswith("No such image: localhost:1/openfactory/absent:1")
    assert sandbox.drift(bad) == ()


def test_a_paused_update_goes_on_with_a_good_spec(sandbox: Sandbox) -> None:
    """A new spec ends the pause; the old error is not shown any more."""
    spec = sandbox.create_running(sandbox.spec())
    sandbox.repair(dataclasses.replace(spec, image="localhost:1/openfactory/absent:1"))
    sandbox.wait(spec, lambda live: live.update_state == "paused")
    good = dataclasses.replace(spec, env={"FIXED": "1"})
    sandbox.repair(good)

    def is_through(live: LiveService) -> bool:
        return (live.update_state, live.running) == ("completed", 1)

    def is_kept(live: LiveService) -> bool:
        """Whether the engine keeps a task of before, as it does now and then: nothing has moved for 20 s."""
        return live.has_surplus and live.since is not None and (datetime.now(UTC) - live.since).total_seconds() > 20

    live = sandbox.wait(good, lambda live: is_through(live) or is_kept(live))
    if not is_through(live):
        sandbox.repair(good)  # as the operator does
        live = sandbox.wait(good, is_through)
    assert live.error == ""


def test_the_same_spec_written_again_replaces_no_task(sandbox: Sandbox) -> None:
    """So it does no harm to a service that has no task too many, and the one that stays is not restarted."""
    spec = sandbox.create_running(sandbox.spec())
    before, version = sandbox.tasks(spec), sandbox.live(spec).version
    sandbox.repair(spec)
    live = sandbox.wait(spec, lambda live: live.version != version)
    assert (live.running, live.spec, sandbox.tasks(spec)) == (1, spec, before)
    assert sandbox.inspect(spec)["Spec"]["TaskTemplate"].get("ForceUpdate", 0) == 0


def test_an_update_that_is_under_way_shows_no_error_of_the_spec_before(sandbox: Sandbox, unhealthy_image: str) -> None:
    """Only what happens to the present spec counts, also while it is not through yet."""
    spec = sandbox.create_running(sandbox.spec())
    sandbox.repair(dataclasses.replace(spec, image="localhost:1/openfactory/absent:1"))
    sandbox.wait(spec, lambda live: "No such image" in live.error)
    waiting = dataclasses.replace(spec, image=unhealthy_image)
    sandbox.repair(waiting)
    live = sandbox.wait(waiting, lambda live: live.update_state == "updating")
    assert (live.error, live.running) == ("", 1)


def test_a_task_that_fits_nowhere_says_so(sandbox: Sandbox) -> None:
    """The scheduler's reason is shown as it is."""
    spec = sandbox.create(sandbox.spec(cpu_limit=0.0, cpu_reservation=500.0))
    live = sandbox.wait(spec, lambda live: bool(live.error))
    assert "insufficient resources" in live.error
    assert live.running == 0


def test_a_first_image_that_does_not_exist_says_so(sandbox: Sandbox) -> None:
    """A service that never ran shows the engine's reason."""
    spec = sandbox.create(sandbox.spec(image="localhost:1/openfactory/absent:2"))
    assert "No such image" in sandbox.wait(spec, lambda live: bool(live.error)).error


def test_a_host_port_moves_from_task_to_task_with_stop_first(sandbox: Sandbox) -> None:
    """The old task gives the port free before the new one takes it, so that the update ends."""
    port = Port(8000, 18476, Publish.HOST)
    spec = sandbox.create_running(sandbox.spec(ports=(port,), start_first=False))
    changed = dataclasses.replace(spec, env={"CHANGED": "1"})
    sandbox.repair(changed)

    def is_through(live: LiveService) -> bool:
        return live.update_state == "completed" and live.running == 1

    sandbox.wait(changed, is_through)
    assert sandbox.drift(changed) == ()


def test_another_owner_sees_nothing_of_ours(sandbox: Sandbox) -> None:
    """Two operators in one Swarm do not know of each other."""
    sandbox.create(sandbox.spec(replicas=0))
    sandbox.publish("{}", "d1", 1)
    other = SwarmPlatform(f"{sandbox.owner}x", f"{sandbox.owner}x", pin_digests=False)
    state = other.observe()
    other.close()
    assert (state.services, state.registries) == ({}, ())


def test_digests_are_best_effort(sandbox: Sandbox) -> None:
    """An image whose registry cannot be asked runs by its tag, once asked for many services."""
    asked: list[str] = []
    platform = SwarmPlatform(
        sandbox.owner,
        sandbox.owner,
        pin_digests=True,
        on_request=lambda request, _code, _seconds: asked.append(request),
    )
    image = "localhost:1/openfactory/absent:3"
    for group in ("A", "B"):
        platform.create_service(sandbox.spec(group, image=image, replicas=0))
    images = {service.spec.image for service in platform.observe().services.values() if service.spec}
    platform.close()
    assert images == {image}
    assert asked.count("GET /distribution/{}/json") == 1
