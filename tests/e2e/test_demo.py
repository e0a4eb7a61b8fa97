"""What `make demo` shows, and what a user who follows its hints sees.

The tests share one deployment and leave it as they found it: three groups, in sync.
"""

from __future__ import annotations

import json
import re
import signal
from contextlib import suppress

import httpx
import pytest

from tests.e2e.system import WORKCENTERS, Client, Host, System
from tests.swarm.sandbox import docker, eventually

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

#: Calls that one complete observation may cost, whatever the number of groups.
OBSERVE_CALLS = 8


def test_bringing_it_up_shows_three_ready_groups_and_five_events_of_one_asset(system: System) -> None:
    """The status has a row for each group, and five events of the asset in the title arrive through the router."""
    for group in WORKCENTERS:
        row = next(line for line in system.shown.splitlines() if re.match(rf"\s*{group}\b", line))
        assert re.search(rf"Ready\s+4\s+asset_stream_{group}\b", row, re.IGNORECASE)
        assert f"http://{system.group(group)}:8000/asset_stream" in row
    [asset] = re.findall(r"live events of asset (\S+),", system.shown)
    received = [json.loads(data) for data in re.findall(r"^data: (.*)$", system.shown, re.MULTILINE)]
    assert [event["asset_uuid"] for event in received] == [asset] * 5
    assert "What to try next" in system.shown


def test_bringing_it_up_again_changes_nothing(system: System) -> None:
    """A second `make demo` finds everything as it should be: every service keeps its id and its version."""
    before = system.services(), system.versions()
    system.demo("up")
    assert (system.services(), system.versions()) == before


def test_an_asset_in_a_new_workcenter_is_served_and_an_emptied_one_goes_in_order(system: System) -> None:
    """A mapping inserted at ksqlDB is enough for both.

    The new group's asset is served with no one touching anything. When it moves away again, its group leaves the
    registry while the service is there, and the service goes while the stream is there.
    """
    system.place("LASER-01", "Laser")
    eventually(lambda: system.receives("LASER-01"), bool)

    system.place("LASER-01", "Weld")
    seen = []

    def left() -> tuple[bool, bool, bool]:
        # Read from the last to go to the first: nothing can slip between two reads and look out of order.
        stream = "ASSET_STREAM_LASER" in system.streams()
        service = system.group("Laser") in system.services()
        found = ("Laser" in system.registry(), service, stream)
        seen.append(found)
        return found

    eventually(left, lambda found: not any(found))
    steps = [now for before, now in zip([None, *seen], seen, strict=False) if now != before]
    assert steps[0] == (True, True, True)
    assert all(registered <= served <= streamed for registered, served, streamed in steps)
    assert (False, True, True) in steps
    assert set(system.registry()) == set(WORKCENTERS)
    eventually(lambda: system.receives("LASER-01"), bool)


def test_a_removed_service_comes_back(system: System) -> None:
    """`docker service rm` of a group's service is repaired, and its group never left the registry."""
    service = system.group("Paint")
    before = system.services()[service]
    docker("service", "rm", service)
    eventually(lambda: system.services().get(service, before), lambda found: found != before)
    assert "Paint" in system.registry()
    eventually(lambda: system.healthy(service), bool)
    eventually(lambda: system.receives("PAINT-BOOTH-01"), bool)


def test_a_changed_service_is_set_back(system: System) -> None:
    """`docker service update --env-add X=1` is undone on the same service; what we set is as before."""
    service = system.group("Weld")
    before = system.services()[service], system.environment(service)
    docker("service", "update", "--detach", "--env-add", "X=1", service)
    eventually(lambda: (system.services()[service], system.environment(service)), lambda found: found == before)
    eventually(lambda: system.healthy(service), bool)
    eventually(lambda: system.receives("WELD-ROBOT-01"), bool)


def test_nothing_is_deleted_while_ksqldb_is_away(system: System) -> None:
    """With ksqlDB stopped for longer than the grace time nothing changes, and everything goes on afterwards.

    The operator stays alive, every service stays as it is, and a client keeps its connection, on which events arrive
    again when ksqlDB is back.
    """
    client = Client(system.stream_url("ASSEMBLY-PRESS-01"))
    eventually(lambda: client.events, bool)
    before = system.services(), system.versions(), system.registry()
    system.scale("ksqldb", 0)
    failed = system.failed_reads()
    # Each failed cycle is a chance to do harm; these take longer than the grace time of a removal.
    eventually(system.failed_reads, lambda count: count >= failed + 4)
    assert system.alive()
    assert (system.services(), system.versions(), system.registry()) == before
    system.scale("ksqldb", 1)
    counted = client.events
    eventually(lambda: client.events, lambda count: count > counted + 2)
    assert client.connected
    eventually(lambda: system.cli("status"), lambda status: "in sync" in status)
    assert (system.services(), system.versions(), system.registry()) == before


def test_a_second_once_writes_nothing_and_plan_tells_changes_by_its_exit_code(system: System) -> None:
    """Writes are counted between the operator and both servers.

    The second `--once` in a row sends none and exits 0; then `plan --detailed-exitcode` exits 0, costs at most 8
    calls, and exits 3 after a user changed a service by hand, which the next `--once` repairs.
    """
    with system.on_this_host() as host:
        assert host.run("--once")[0] == 0
        code, said = host.run("--once")
        assert (code, host.engine.writes, host.ksqldb.writes) == (0, [], []), said
        code, said = host.run("plan", "--detailed-exitcode")
        assert code == 0, said
        assert 0 < calls(host) <= OBSERVE_CALLS

        docker("service", "update", "--detach", "--env-add", "X=1", system.group("Weld"))
        code, said = host.run("plan", "--detailed-exitcode")
        assert code == 3, said
        assert "X" in said
        code, said = host.run("--once")
        assert code == 0, said
        assert host.engine.writes


def test_a_killed_first_convergence_ends_where_an_undisturbed_one_does(system: System) -> None:
    """SIGKILL after any write of a first convergence, then `--once`: the same services, streams and registry."""
    with system.on_this_host() as host:
        before = end_state(system, host)
        for write in (1, 4, 7):
            code, said = host.run("teardown", "--yes")
            assert code == 0, said
            assert (system.services(), system.streams()) == ({}, set())
            kill_after_writes(host, write)
            code, said = host.run("--once")
            assert code == 0, said
            assert end_state(system, host) == before
    eventually(lambda: system.receives("WELD-ROBOT-01"), bool)


def test_an_operator_from_the_stack_file_takes_over(system: System) -> None:
    """Given the same settings through `stack.yml`, it finds everything as it should be and keeps it that way."""
    before = system.services(), system.versions(), system.registry()
    with system.stack_file_instead() as operator:
        eventually(lambda: ready(operator), bool)
        service = system.group("Assembly")
        docker("service", "rm", service)
        eventually(
            lambda: system.services().get(service, before[0][service]), lambda found: found != before[0][service]
        )
        eventually(lambda: system.healthy(service), bool)
        unharmed = {name: version for name, version in before[1].items() if name != service}
        assert unharmed.items() <= system.versions().items()
        assert httpx.get(f"{operator}/registry").json()["groups"] == before[2]


def test_what_is_not_the_demos_outlives_its_end(system: System) -> None:
    """A service with the owner label alone, one of another installation, and a copy with all labels and a name of ours.

    The operator's teardown leaves them, and so does what `make demo-down` removes by itself; it names them.
    """
    paint = json.loads(docker("service", "inspect", system.group("Paint")))[0]["Spec"]
    image = paint["TaskTemplate"]["ContainerSpec"]["Image"]
    owner = {"org.openfactory.owner": system.name}
    foreign = {
        f"their-{system.name}": owner,
        f"{system.name}_group_Theirs": owner | {"org.openfactory.installation": "deadbeef"},
        f"{system.name}_group_Copy": paint["Labels"],
    }
    for name, labels in foreign.items():
        marks = [part for label, value in labels.items() for part in ("--label", f"{label}={value}")]
        docker("service", "create", "-d", "--no-resolve-image", "--replicas", "0", "--name", name, *marks, image)
    try:
        said = system.demo("down")
        assert all(f"service {name} is left alone" in said for name in foreign)
        assert set(docker("service", "ls", "--format", "{{.Name}}").split()) >= foreign.keys()
    finally:
        docker("service", "rm", *foreign)


def test_taking_it_down_leaves_nothing_and_can_be_repeated(system: System) -> None:
    """`make demo-down` leaves no service, config, container, volume or network; the second time it finds nothing."""
    system.demo("down")
    assert system.leftovers() == {}
    assert "nothing of the demo is left" in system.demo("down")


def test_an_operator_that_is_no_demos_is_left_alone(system: System) -> None:
    """One that runs under the demo's names, as after a deployment by `stack.yml`: neither command touches it."""
    docker(
        "service", "create", "-d", "--replicas", "0", "--name", f"{system.name}_reconciler", "--no-resolve-image", "x"
    )
    try:
        for command in ("up", "down"):
            with pytest.raises(AssertionError, match="exists and is not a demo"):
                system.demo(command)
        assert f"{system.name}_reconciler" in docker("service", "ls", "--format", "{{.Name}}").split()
    finally:
        docker("service", "rm", f"{system.name}_reconciler")


def ready(operator: str) -> bool:
    """Whether an operator has read everything and published a registry."""
    with suppress(httpx.TransportError):
        return httpx.get(f"{operator}/readyz").is_success
    return False


def calls(host: Host) -> int:
    """Return how many requests one look cost, without the first connection's question for the API version."""
    return len(host.ksqldb.requests) + sum(not request.path.endswith("/version") for request in host.engine.requests)


def kill_after_writes(host: Host, count: int) -> None:
    """Start a convergence and kill it as soon as it has sent some writes."""
    process = host.start("--once")
    eventually(lambda: len(host.engine.writes) + len(host.ksqldb.writes), lambda writes: writes >= count)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def end_state(system: System, host: Host) -> tuple[set[str], set[str], dict[str, str]]:
    """Return everything that a convergence makes, in which nothing is left to do."""
    code, said = host.run("plan", "--detailed-exitcode")
    assert code == 0, said
    return set(system.services()), system.streams(), host.registry()
