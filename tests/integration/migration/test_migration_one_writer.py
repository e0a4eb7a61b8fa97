"""A step writes as every operator does: not through a pause, and only while it holds the lease."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from openfactory_common.errors import LeaseLost
from reconciler.cli.migrate import repeat_until_leader, run_step
from reconciler.control.controller import Controller
from reconciler.control.converge import Exit
from reconciler.control.guarded import guard_by_lease
from reconciler.leadership.elector import Elector
from reconciler.leadership.lease import LEASE_RECORD, Candidate, parse
from reconciler.leadership.pause import start_pause, write_pause
from reconciler.migration.legacy import PORT
from reconciler.migration.migrate import StepRefused
from tests.harness.fakes import Stage
from tests.integration.migration.old import FakeOldServices
from tests.integration.migration.test_port import has_port, ports, side_by_side
from tests.integration.migration.test_shape import old_plant

STEPS = ("start", "switch", "back", "remove_old")


def leadership(stage: Stage, name: str = "me", *, lazy: bool = False) -> Elector:
    """Return the elector of a command that preempts, by the clock of the stage."""
    me = Candidate(name, 15.0, preempts=name == "me")
    return Elector(stage.platform, me, lazy=lazy, clock=lambda: stage.now, wall=lambda: stage.wall)


def behind(stage: Stage, lease: Elector) -> Controller:
    """Return a controller that writes only while the lease is held."""
    controller = stage.controller()
    controller.deps = guard_by_lease(controller.deps, lease.writing)
    controller.write_gate = lease
    return controller


def run(chosen: str, stage: Stage, old: FakeOldServices, converge: Callable[[], int], seconds: float = 20.0) -> int:
    """Do a step as the command does, with a lease that ``converge`` shares."""
    lease = leadership(stage, lazy=True)
    try:
        return repeat_until_leader(
            lambda: run_step(chosen, behind(stage, lease), old, converge, writing=lease.writing), lease, seconds
        )
    finally:
        lease.stop()


def done() -> int:
    """Converge at once."""
    return Exit.OK


@pytest.mark.parametrize("chosen", STEPS)
def test_no_step_writes_through_a_pause(chosen: str) -> None:
    """Who paused, until when and why is the reason that the step gives; it does not ask for the lease either."""
    stage, old = old_plant() if chosen == "start" else side_by_side()
    write_pause(stage.platform, start_pause(stage.wall, 1800, "someone", "the floor is wet"))
    writes, services = stage.writes, dict(old.services)
    with pytest.raises(StepRefused, match=r"paused until .*the floor is wet"):
        run(chosen, stage, old, done)
    assert (stage.writes, old.services) == (writes, services)
    assert LEASE_RECORD not in stage.platform.kept_records


@pytest.mark.parametrize("chosen", ["start", "switch"])
def test_no_step_writes_while_another_holds_the_lease(chosen: str) -> None:
    """One that does not give it up is named, and both systems are as they were."""
    stage, old = old_plant() if chosen == "start" else side_by_side()
    leadership(stage, "rival").renew()
    writes, services = stage.writes, dict(old.services)
    with pytest.raises(StepRefused, match="rival holds the lease; run it again"):
        run(chosen, stage, old, done, seconds=0.0)
    assert (stage.writes, old.services) == (writes, services)


def test_a_step_holds_the_lease_until_its_end() -> None:
    """Also while the operator converges: no other can come in between; then it is free."""
    stage, old = side_by_side()
    during: list[str] = []

    def converge() -> int:
        during.append(parse(stage.platform.kept_records[LEASE_RECORD].fields).holder)
        stage.settle(stage.controller())
        return Exit.OK

    assert run("switch", stage, old, converge) == Exit.OK
    assert has_port(stage, old)
    assert during == ["me"]
    assert parse(stage.platform.kept_records[LEASE_RECORD].fields).holder == ""


def test_a_step_that_has_nothing_to_do_takes_no_lease() -> None:
    """A way back from where no one went changes nothing, the lease's record included."""
    stage, old = old_plant()
    assert run("back", stage, old, done) == Exit.OK
    assert stage.platform.kept_records.keys() == {"installation"}


def test_a_lease_that_was_lost_does_not_keep_the_port_from_coming_back() -> None:
    """What the switch took is given back at the version that was read; no operator writes to that service."""
    stage, old = side_by_side()

    def lose() -> int:
        assert ports(old) == ()
        stage.now += 3600  # it could not be renewed
        return Exit.NOT_CONVERGED

    assert run("switch", stage, old, lose) == Exit.NOT_CONVERGED
    assert ports(old) == (PORT,)


def test_services_of_the_old_system_are_behind_the_fence_too() -> None:
    """The first write that may not be done ends the removal, whichever side it is on."""
    stage, old = side_by_side()

    def converge() -> int:
        stage.settle(stage.controller())
        return Exit.OK

    assert run("switch", stage, old, converge) == Exit.OK
    allowed = iter([True, False])

    @contextmanager
    def writing() -> Iterator[None]:
        if not next(allowed):
            raise LeaseLost("not written")
        yield

    with pytest.raises(LeaseLost):
        run_step("remove_old", stage.controller(), old, done, writing=writing)
    assert len(old.services) == 2
