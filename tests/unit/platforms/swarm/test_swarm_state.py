"""What the engine counts and what runs: tasks of nodes that are gone are counted on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from reconciler.platforms.protocol import OWNER
from reconciler.platforms.swarm.state import SEQUENCE, find_ends, group_by_service, read_service, sequence_of

#: When everything here has long been over.
LATER = datetime(2026, 2, 1, tzinfo=UTC)
PENDING = "no suitable node (1 node not available for new tasks)"


def service(counted: int) -> dict[str, Any]:
    """Return a service of one replica as the engine lists it, with as many running tasks as it counts."""
    return {
        "ID": "s1",
        "Version": {"Index": 7},
        "Spec": {
            "Name": "ofa_group_Weld",
            "Labels": {OWNER: "ofa", "org.openfactory.kind": "group", "org.openfactory.group": "Weld"},
            "TaskTemplate": {"ContainerSpec": {"Image": "a:1"}},
            "Mode": {"Replicated": {"Replicas": 1}},
        },
        "ServiceStatus": {"RunningTasks": counted, "DesiredTasks": 1},
    }


def task(state: str, desired: str, error: str = "", created: int = 1) -> dict[str, Any]:
    """Return a task of the service."""
    return {
        "ServiceID": "s1",
        "CreatedAt": f"2026-01-02T03:04:{created:02d}Z",
        "DesiredState": desired,
        "Spec": {"ContainerSpec": {"Image": "a:1"}},
        "Status": {"State": state, "Err": error},
    }


LOST, WAITS, MOVED = task("running", "shutdown"), task("pending", "running", PENDING, 2), task("running", "running")


@pytest.mark.parametrize(
    ("counted", "tasks", "running", "error"),
    [(1, [LOST, WAITS], 0, PENDING), (2, [LOST, MOVED], 1, ""), (1, [MOVED], 1, ""), (0, [WAITS], 0, PENDING)],
    ids=["lost", "lost and moved", "well", "never ran"],
)
def test_a_task_on_a_lost_node_does_not_run(
    counted: int, tasks: list[dict[str, Any]], running: int, error: str
) -> None:
    """It is counted until the node comes back or is removed, whether or not another one runs in its place."""
    live = read_service(service(counted), "ofa", {}, group_by_service(tasks), LATER)
    assert (live.running, live.error) == (running, error)
    assert not live.has_surplus, "writing it again would end nothing"


def test_a_task_that_is_not_listed_as_ours_counts() -> None:
    """It was made while the service had lost its label: the engine's count knows it."""
    failed = task("failed", "shutdown", "task: non-zero exit (1)")
    live = read_service(service(1), "ofa", {}, group_by_service([failed]), LATER)
    assert (live.running, live.error) == (1, "")


def test_an_update_back_to_an_earlier_spec_has_no_error_of_that_time() -> None:
    """Tasks of the same template that failed before the update began are no news of it."""
    back = {**service(1), "UpdateStatus": {"State": "updating", "StartedAt": "2026-01-02T03:04:30Z"}}
    old = task("failed", "shutdown", "No such image: a:1", 10)
    assert read_service(back, "ofa", {}, group_by_service([old, MOVED]), LATER).error == ""
    new = task("failed", "shutdown", "No such image: a:1", 40)
    assert read_service(back, "ofa", {}, group_by_service([old, MOVED, new]), LATER).error == "No such image: a:1"


def test_without_tasks_the_engines_count_has_to_do() -> None:
    """Where nothing is in doubt they are not read."""
    live = read_service(service(1), "ofa", {}, None, LATER)
    assert (live.running, live.error) == (1, "")


def test_the_spec_before_the_last_update_and_what_failed_are_read_back() -> None:
    """Of our services alone; the engine keeps the previous spec itself."""
    raw = service(1)
    earlier = {**raw["Spec"], "TaskTemplate": {"ContainerSpec": {"Image": "a:0"}}}
    labels = {**raw["Spec"]["Labels"], "org.openfactory.failed": "0123456789ab", "org.openfactory.failure": "it ended"}
    updated = {**raw, "Spec": {**raw["Spec"], "Labels": labels}, "PreviousSpec": earlier}
    live = read_service(updated, "ofa", {}, None, LATER)
    assert live.spec is not None
    assert live.previous == replace(live.spec, image="a:0")
    assert (live.failed, live.failure) == ("0123456789ab", "it ended")
    assert read_service(raw, "ofa", {}, None, LATER).previous is None
    assert read_service(updated, "other", {}, None, LATER).previous is None


def at(second: int) -> datetime:
    """Return a moment of the tasks here."""
    return datetime(2026, 1, 2, 3, 4, second, tzinfo=UTC)


def stands(state: str, desired: str = "running", created: int = 1, moved: int = 0) -> dict[str, Any]:
    """Return a task that came to its state at a second of its own."""
    made = task(state, desired, created=created)
    made["Status"]["Timestamp"] = f"2026-01-02T03:04:{moved or created:02d}Z"
    return made


def rolling(counted: int) -> dict[str, Any]:
    """Return the service with an update that began at second 30."""
    return {**service(counted), "UpdateStatus": {"State": "updating", "StartedAt": "2026-01-02T03:04:30Z"}}


CRASH = "task: non-zero exit (1)"


def ended(second: int, error: str = CRASH, state: str = "failed") -> dict[str, Any]:
    """Return a task that ended at a second."""
    return {
        **stands(state, "shutdown", moved=second),
        "Status": {**stands(state, moved=second)["Status"], "Err": error},
    }


def runs(second: int) -> dict[str, Any]:
    """Return a task that began to run at a second."""
    return stands("running", created=second, moved=second)


def stopped(second: int, *, ran: bool = True) -> dict[str, Any]:
    """Return a task that the engine ended at a second."""
    made = stands("shutdown", "shutdown", created=2, moved=second)
    return {**made, "Status": {**made["Status"], "ContainerStatus": {"ContainerID": "c1"} if ran else {}}}


HISTORY: list[tuple[str, list[dict[str, Any]], str]] = [
    ("it had recovered", [ended(3), stopped(9)], ""),
    ("and crashed again", [ended(3), stopped(9), ended(20)], CRASH),
    ("what was stopped never ran", [ended(3), stopped(9, ran=False)], CRASH),
    ("the engine kept the other of two, which crashed later", [stopped(9), ended(12)], CRASH),
    ("in another place", [{**ended(3), "Slot": 2}, stopped(9)], CRASH),
]


@pytest.mark.parametrize(("name", "tasks", "error"), HISTORY, ids=[row[0] for row in HISTORY])
def test_an_error_of_before_a_task_that_worked_is_history(name: str, tasks: list[dict[str, Any]], error: str) -> None:
    """Scaled to 0 after it had recovered from a crash: the crash is not why it has no task."""
    del name
    starts = task("starting", "running", created=30)
    assert read_service(service(0), "ofa", {}, group_by_service([*tasks, starts]), LATER).error == error


CRASHES: list[tuple[str, list[dict[str, Any]], int, str]] = [
    ("between two ends", [ended(20), runs(23)], 25, CRASH),
    ("it runs steadily", [ended(20), runs(23)], 38, ""),
    ("a moment before", [ended(20), runs(23)], 37, CRASH),
    ("the first task", [runs(23)], 25, ""),
    ("the node's clock is ahead", [ended(20), runs(55)], 25, ""),
    ("the clock of the end's node is ahead", [ended(58), runs(23)], 25, ""),
    ("an end long ago", [ended(1), runs(40)], 41, ""),
    ("two ends with exit code 0", [ended(18, "", "complete"), ended(21, "", "complete"), runs(23)], 25, "exit code 0"),
    ("one of them", [ended(21, "", "complete"), runs(23)], 25, ""),
    ("no task runs that should", [ended(20), stands("running", "shutdown", moved=23)], 25, ""),
]


@pytest.mark.parametrize(("name", "tasks", "now", "error"), CRASHES, ids=[row[0] for row in CRASHES])
def test_one_that_just_began_to_run_has_the_error_of_the_one_before(
    name: str, tasks: list[dict[str, Any]], now: int, error: str
) -> None:
    """An image that ends right after its start is counted as running whenever it is read between two ends."""
    counted = sum(one["Status"]["State"] == "running" for one in tasks)
    raw = service(counted if name != "no task runs that should" else 2)
    live = read_service(raw, "ofa", {}, group_by_service(tasks), at(now))
    assert live.running == 1
    assert error in live.error
    assert bool(error) == bool(live.error)
    assert (live.since, live.waits) == (None, "")


STANDING: list[tuple[str, dict[str, Any], list[dict[str, Any]], int, str, datetime | None]] = [
    ("well", service(1), [stands("running")], 1, "", None),
    ("new", service(0), [stands("new")], 0, "1 task in state new", at(1)),
    ("pending", service(0), [stands("pending", moved=5)], 0, "1 task in state pending", at(5)),
    ("pulls", service(0), [stands("preparing", moved=5)], 0, "1 task in state preparing", at(5)),
    (
        "two",
        service(0),
        [stands("new"), stands("new"), stands("starting", moved=9)],
        0,
        "2 tasks in state new, 1 task in state starting",
        at(9),
    ),
    (
        "after a stop",
        service(0),
        [stands("ready"), stands("shutdown", "shutdown", moved=40)],
        0,
        "1 task in state ready",
        at(1),
    ),
    ("no task", service(0), [], 0, "", None),
    (
        "update",
        rolling(1),
        [stands("running"), stands("preparing", created=31)],
        1,
        "1 task in state preparing",
        at(31),
    ),
    ("update without a task", rolling(1), [stands("running")], 1, "", at(30)),
    ("orphan", service(2), [stands("running"), stands("running", created=7)], 2, "", at(7)),
    ("about to end", service(2), [stands("running"), stands("running", "shutdown")], 1, "", None),
]


@pytest.mark.parametrize(("name", "raw", "tasks", "running", "waits", "since"), STANDING, ids=[r[0] for r in STANDING])
def test_what_is_not_as_it_should_be_says_what_it_waits_for(
    name: str,
    raw: dict[str, Any],
    tasks: list[dict[str, Any]],
    running: int,
    waits: str,
    since: datetime | None,
) -> None:
    """And since when nothing has moved, both from the engine alone: a process that has just started knows as much."""
    del name
    live = read_service(raw, "ofa", {}, group_by_service(tasks), LATER)
    assert (live.running, live.error, live.waits, live.since) == (running, "", waits, since)


def test_a_change_of_the_service_itself_is_a_move() -> None:
    """Its time counts where that is later than what its tasks say."""
    changed = {**service(0), "UpdatedAt": "2026-01-02T03:04:50.5Z"}
    live = read_service(changed, "ofa", {}, group_by_service([stands("new")]), LATER)
    assert live.since == at(50).replace(microsecond=500_000)


@pytest.mark.parametrize(("ends", "told"), [(0, False), (1, False), (2, True), (5, True)])
def test_tasks_that_end_without_an_error_are_one(ends: int, told: bool) -> None:
    """The engine starts them again for ever and reports nothing; one alone may have been told to stop."""
    tasks = [stands("complete", "shutdown", created=number + 1) for number in range(ends)]
    live = read_service(service(0), "ofa", {}, group_by_service([*tasks, stands("ready")]), LATER)
    assert ("end by themselves" in live.error) is told


MODES = [{"Global": {}}, {"ReplicatedJob": {"MaxConcurrent": 1}}, {"GlobalJob": {}}, {}, {"Replicated": None}]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "labels",
    [None, {}, {OWNER: "ofa"}, *({OWNER: "ofa", "org.openfactory.kind": kind} for kind in ("nonsense", "", "group"))],
)
def test_a_service_of_any_mode_can_be_shown(mode: dict[str, Any], labels: dict[str, str] | None) -> None:
    """Whatever a user made under our name or label: it is read, and it is none of ours."""
    raw = service(3)
    raw["Spec"] |= {"Mode": mode, "Labels": labels}
    live = read_service(raw, "ofa", {}, group_by_service([stands("complete", "complete"), stands("pending")]), LATER)
    assert live.spec is None
    assert live.owner in (None, "ofa")


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), ("", 0), ("-7", 0), ("\u0667", 0), ("7.0", 0), (" 7", 0), ("9" * 18, int("9" * 18)), ("9" * 5000, 0)],
)
def test_a_label_with_any_text_is_a_number_or_none(text: str, number: int) -> None:
    """Python refuses to read a number of thousands of digits: a person's label must not end the reading."""
    assert sequence_of({"Spec": {"Labels": {SEQUENCE: text}}}) == number


def ended(
    state: str, error: str = "", at: int = 50, image: str = "a:1", desired: str = "shutdown", created: int = 1
) -> dict[str, Any]:
    """Return a task that is no more, as the engine lists it."""
    raw = task(state, desired, error, created)
    raw["Status"]["Timestamp"] = f"2026-01-02T03:04:{at:02d}Z"
    return {**raw, "ID": f"t-{state}", "Slot": 2, "Spec": {"ContainerSpec": {"Image": image}}}


def follows(created: int, image: str = "a:1", slot: int = 2) -> dict[str, Any]:
    """Return a task that runs."""
    return {**task("running", "running", created=created), "Slot": slot, "Spec": {"ContainerSpec": {"Image": image}}}


STOPPED = "stopped by the engine, not by an update: a node was drained, or lost"
ENDS = [
    ("failed", [ended("failed", "task: non-zero exit (1)")], "task: non-zero exit (1)"),
    (
        "killed",
        [ended("failed", "task: non-zero exit (137)")],
        "task: non-zero exit (137): killed, often because its memory was used up",
    ),
    ("of before an update", [ended("failed", "task: non-zero exit (1)", image="a:0")], "task: non-zero exit (1)"),
    ("rejected", [ended("rejected", "No such image: a:1")], "No such image: a:1"),
    ("complete", [ended("complete")], "ended by itself, with exit code 0"),
    ("orphaned", [ended("orphaned")], "orphaned"),
    ("a node was drained", [ended("shutdown"), follows(40)], STOPPED),
    ("of two nodes", [ended("shutdown"), follows(30), follows(40)], STOPPED),
    ("fewer tasks are wanted", [ended("shutdown"), follows(40, slot=1)], ""),
    ("and more again", [ended("shutdown", created=20), follows(1), follows(15)], ""),
    ("an update", [ended("shutdown", image="a:0"), follows(40)], ""),
    ("an update and one back", [ended("shutdown", at=5), follows(6)], ""),
    ("and one back before it ended", [ended("shutdown"), follows(9, "a:0"), follows(11)], ""),
    ("one that is to start again", [ended("failed", "task: non-zero exit (1)", desired="ready")], ""),
    ("one that runs", [MOVED], ""),
    ("on a node that is down", [LOST], ""),
]


@pytest.mark.parametrize(("name", "found", "reason"), ENDS, ids=[row[0] for row in ENDS])
def test_what_ended_and_should_not_have(name: str, found: list[dict[str, Any]], reason: str) -> None:
    """Not what a change stopped, and not a task of another service; ``found`` begins with the task in question."""
    del name
    raw = {**service(1), "UpdatedAt": "2026-01-02T03:04:10Z"}
    foreign = {**ended("failed", "no"), "ServiceID": "s2"}
    ends = find_ends([raw], group_by_service([*found, foreign]))
    assert [one.reason for one in ends] == ([reason] if reason else [])
    for one in ends:
        assert (one.id, one.service, one.task) == (found[0]["ID"], "ofa_group_Weld", "ofa_group_Weld.2")
        assert one.at == datetime(2026, 1, 2, 3, 4, 50, tzinfo=UTC)
