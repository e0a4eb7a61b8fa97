"""Managers that fail: no stream of an unaffected group is lost, no object is deleted, nothing is created again.

Real engines in namespaces, the real operator as a process, real services, and clients that follow real streams
through an overlay network. Services, streams and tasks are identified past the operator, by the ids that the engine
and ksqlDB gave them; a client's stream is undisturbed if every event came once and in order on one connection.
"""

from __future__ import annotations

import time

import pytest

from tests.managers.operators import command
from tests.managers.site import PRUNE_READS, Site
from tests.swarm.sandbox import eventually

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
#: Seconds without a quorum.
OUTAGE = 30.0


def test_the_leader_is_lost_during_a_convergence(site: Site) -> None:
    """The operator, at another manager, waits for the next leader and finishes what it had begun."""
    leader = site.rack.leader()
    operator = site.operator(site.rack.others(leader)[0])
    operator.wait_until_in_sync(len(site.groups))
    followers, before = site.follow(lost=leader), site.inventory()

    mark = operator.said()
    new = site.add(6)
    eventually(lambda: any(write.startswith("create_service") for write in operator.writes(mark)), bool)
    leader.kill_engine()

    operator.wait_until_in_sync(len(site.groups), operator.said())
    before.assert_kept(site.inventory(), lost=leader)
    assert operator.disturbances() == []
    assert operator.registry() == set(site.groups)
    site.wait_until_served(new, lost=leader)
    for follower in followers:
        follower.assert_undisturbed()


def test_the_minority_writes_nothing_while_the_majority_goes_on(site: Site) -> None:
    """The leader is cut off with an operator beside it: that one says so and waits, one elsewhere adds groups."""
    minority = site.rack.leader()
    # Routing layers follow only the one elsewhere here, and a standby tells them nothing: it leads once beforehand.
    site.operator(site.rack.others(minority)[0]).wait_until_in_sync(len(site.groups))
    site.wait_until_served(site.groups, lost=minority)
    site.dismiss()
    cut_off = site.operator(minority, reached=False)
    cut_off.wait_until_in_sync(len(site.groups))
    there = site.operator(site.rack.others(minority)[0])
    there.wait_for("standby", "holds the lease")
    followers, before = site.follow(lost=minority), site.inventory()

    mark, there_mark = cut_off.said(), there.said()
    minority.unplug()
    eventually(minority.leads, lambda leads: not leads)  # until then it answers with what it knew
    new = site.add(2)
    there.wait_until_in_sync(len(site.groups), there_mark)
    cut_off.wait_for("read_error", "the Swarm has no leader", mark)
    assert there.registry() == set(site.groups)
    assert (cut_off.registry(), cut_off.health(), cut_off.writes(mark)) == (set(), 200, [])  # what it knows is old
    code, said = command(minority, site.settings(), "plan")
    assert (code, "the Swarm has no leader" in said) == (1, True), said

    minority.replug()
    cut_off.wait_for("standby", f"{len(site.groups)} of {len(site.groups)} groups ready", cut_off.said())
    site.wait_until_served(new, lost=minority)
    before.assert_kept(site.inventory(), lost=minority)
    assert (cut_off.writes(mark), there.disturbances()) == ([], [])
    for follower in followers:
        follower.assert_undisturbed()


def test_without_a_quorum_everything_waits(site: Site) -> None:
    """Nothing is written, streams go on, and a group that went meanwhile is removed after as many reads as ever."""
    leader = site.rack.leader()
    operator = site.operator(leader)
    operator.wait_until_in_sync(len(site.groups))
    followers, before = site.follow(), site.inventory()

    mark, began = operator.said(), time.monotonic()
    for machine in site.rack.others(leader):
        machine.close_control_port()
    operator.wait_for("read_error", "the Swarm has no leader", mark)
    gone = site.remove()
    while time.monotonic() - began < OUTAGE:
        assert operator.health() == 200
        time.sleep(1)
    assert operator.writes(mark) == []

    back, counted = operator.said(), operator.complete_cycles()  # before the first port opens: two are a majority
    for machine in site.rack.others(leader):
        machine.open_control_port()
    reads = operator.complete_cycles_before_a_write(back) - counted
    operator.wait_until_in_sync(len(site.groups), back)
    assert reads >= PRUNE_READS - 1, "the removal begins in the cycle of the last of these reads"
    before.without(gone).assert_kept(site.inventory())
    for follower in followers:
        if follower.group != gone:
            follower.assert_undisturbed()


def test_the_operator_starts_elsewhere_with_nothing_in_memory(site: Site) -> None:
    """Its node loses power: another one deletes and makes nothing, and Swarm moves the tasks that were there.

    Until there is room for them it says what does not run, although the engine goes on counting those tasks.
    """
    others = site.rack.others(site.rack.leader())
    lost = next((one for one in others if site.serves(one)), others[0])
    first = site.operator(lost)
    first.wait_until_in_sync(len(site.groups))
    followers, before = site.follow(lost=lost), site.inventory()
    left = site.rack.others(lost)
    for machine in left:
        left[0].takes_tasks(machine.name, new=False)

    lost.power_off()
    first.die()
    second = site.operator(left[0])
    second.wait_for("progressing", f"{len(followers)} of {len(site.groups)} groups ready")
    for machine in left:
        left[0].takes_tasks(machine.name, new=True)
    second.wait_until_in_sync(len(site.groups), second.said())
    published = second.registry()

    def moved() -> bool:
        nonlocal published
        published &= second.registry()
        return before.tasks.keys() <= site.rack.tasks().keys() and lost.name not in {
            where for _, where in site.rack.tasks().values()
        }

    eventually(moved, bool)
    site.wait_until_served(site.groups, lost=lost)
    assert published == set(site.groups)
    assert second.writes() == []
    before.assert_kept(site.inventory(), lost=lost)
    for follower in followers:
        follower.assert_undisturbed()
