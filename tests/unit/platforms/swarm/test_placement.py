"""Constraints against nodes as the engine lists them."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.platforms.swarm.placement import find_unmet


def node(name: str, state: str = "ready", availability: str = "active", **labels: str) -> dict[str, Any]:
    """Return a node with labels of its own; its engine has one label, too."""
    return {
        "ID": f"id-{name}",
        "Status": {"State": state},
        "Spec": {"Role": "worker", "Availability": availability, "Labels": labels or None},
        "Description": {
            "Hostname": name,
            "Platform": {"OS": "linux", "Architecture": "x86_64"},
            "Engine": {"Labels": {"disk": "ssd"}},
        },
    }


NODES = [
    node("one"),
    node("two", gpu="yes", hall="b"),
    node("away", "down", hall="c"),
    node("drained", availability="drain", hall="d"),
    node("paused", availability="pause", hall="e"),
]
CASES = [
    ([], ""),
    (["node.labels.gpu==yes"], ""),
    (["node.labels.gpu==YES"], ""),
    (["node.labels.gpu!=yes"], ""),
    (["node.labels.other!=x"], ""),
    (["node.labels.gpu==yes", "node.labels.hall==b"], ""),
    (["node.labels.gpu==nope"], "none of the 3 nodes that may have tasks fulfils node.labels.gpu==nope"),
    (
        ["node.labels.gpu==yes", "node.labels.no==1"],
        "none of the 3 nodes that may have tasks fulfils node.labels.no==1",
    ),
    (
        ["node.hostname==one", "node.labels.gpu==yes"],
        "none of the 3 nodes that may have tasks fulfils node.hostname==one and node.labels.gpu==yes",
    ),
    (["node.labels.hall==c"], "none of the 3 nodes that may have tasks fulfils node.labels.hall==c"),
    (["node.labels.hall==d"], "none of the 3 nodes that may have tasks fulfils node.labels.hall==d"),
    (["node.role==worker", "node.platform.os==linux", "node.id==id-one"], ""),
    (["node.role==manager"], "none of the 3 nodes that may have tasks fulfils node.role==manager"),
    (["engine.labels.disk==ssd"], ""),
    (["engine.labels.disk==hdd"], "none of the 3 nodes that may have tasks fulfils engine.labels.disk==hdd"),
    (["node.labels.hall==e"], ""),
    (["node.platform.arch==x86_64"], ""),
    (["node.platform.arch==amd64"], "none of the 3 nodes that may have tasks fulfils node.platform.arch==amd64"),
    (["node.ip==10.0.0.1"], ""),
]


@pytest.mark.parametrize(("constraints", "why"), CASES, ids=[" ".join(row[0]) or "none" for row in CASES])
def test_which_constraints_no_node_fulfils(constraints: list[str], why: str) -> None:
    """Nodes that may have tasks count, also one that takes no more; addresses are left to the engine."""
    assert find_unmet(constraints, NODES) == why


def test_a_swarm_whose_nodes_are_all_away_fulfils_nothing() -> None:
    """Also no constraint that every node fulfils."""
    assert find_unmet(["node.role!=manager"], [node("x", "down")]) == (
        "none of the 0 nodes that may have tasks fulfils node.role!=manager"
    )
