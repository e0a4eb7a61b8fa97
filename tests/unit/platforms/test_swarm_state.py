"""What the engine counts and what runs: tasks of nodes that are gone are counted on."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.platforms.swarm_spec import OWNER
from reconciler.platforms.swarm_state import down_nodes, live_service, lost_tasks

NODES = [{"ID": "n1", "Status": {"State": "ready"}}, {"ID": "n2", "Status": {"State": "down"}}]


def service(counted: int) -> dict[str, Any]:
    """Return a service of one replica as the engine lists it, with as many running tasks as it counts."""
    container = {"ContainerSpec": {"Image": "a:1"}}
    return {
        "ID": "s1",
        "Version": {"Index": 7},
        "Spec": {
            "Name": "ofa_group_Weld",
            "Labels": {OWNER: "ofa", "org.openfactory.kind": "group", "org.openfactory.group": "Weld"},
            "TaskTemplate": container,
            "Mode": {"Replicated": {"Replicas": 1}},
        },
        "ServiceStatus": {"RunningTasks": counted, "DesiredTasks": 1},
    }


def task(state: str, error: str = "", created: int = 1) -> dict[str, Any]:
    """Return a task of the service."""
    return {
        "ServiceID": "s1",
        "CreatedAt": f"2026-01-02T03:04:{created:02d}Z",
        "Spec": {"ContainerSpec": {"Image": "a:1"}},
        "Status": {"State": state, "Err": error},
    }


@pytest.mark.parametrize(
    ("counted", "running", "error"), [(1, 0, "no suitable node"), (2, 1, ""), (0, 0, "no suitable node")]
)
def test_a_task_on_a_lost_node_does_not_run(counted: int, running: int, error: str) -> None:
    """It is counted until the node comes back or is removed, whether or not another one runs in its place."""
    lost = lost_tasks([task("running")] if counted else [task("orphaned")])
    tasks = [task("running"), task("pending", "no suitable node", 2)]
    live = live_service(service(counted), "ofa", {}, tasks, lost)
    assert (live.running, live.error) == (running, error)


def test_only_nodes_that_the_swarm_has_given_up_are_down() -> None:
    """One that is silent for a moment still counts."""
    silent = {"ID": "n3", "Status": {"State": "unknown"}}
    assert down_nodes([*NODES, silent]) == ["n2"]
