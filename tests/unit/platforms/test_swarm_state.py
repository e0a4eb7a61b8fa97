"""What the engine counts and what runs: tasks of nodes that are gone are counted on."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.platforms.swarm_spec import OWNER
from reconciler.platforms.swarm_state import by_service, live_service

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
    live = live_service(service(counted), "ofa", {}, by_service(tasks))
    assert (live.running, live.error) == (running, error)


def test_a_task_that_is_not_listed_as_ours_counts() -> None:
    """It was made while the service had lost its label: the engine's count knows it."""
    failed = task("failed", "shutdown", "task: non-zero exit (1)")
    live = live_service(service(1), "ofa", {}, by_service([failed]))
    assert (live.running, live.error) == (1, "")


def test_an_update_back_to_an_earlier_spec_has_no_error_of_that_time() -> None:
    """Tasks of the same template that failed before the update began are no news of it."""
    back = {**service(1), "UpdateStatus": {"State": "updating", "StartedAt": "2026-01-02T03:04:30Z"}}
    old = task("failed", "shutdown", "No such image: a:1", 10)
    assert live_service(back, "ofa", {}, by_service([old, MOVED])).error == ""
    new = task("failed", "shutdown", "No such image: a:1", 40)
    assert live_service(back, "ofa", {}, by_service([old, MOVED, new])).error == "No such image: a:1"


def test_without_tasks_the_engines_count_has_to_do() -> None:
    """Where nothing is in doubt they are not read."""
    live = live_service(service(1), "ofa", {}, None)
    assert (live.running, live.error) == (1, "")
