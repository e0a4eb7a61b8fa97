"""What an engine says of itself, as 20.10 and 28 answer; and what of it counts."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from openfactory_common.errors import PlatformError, PlatformRefused
from reconciler.domain.facts import NetworkFacts
from reconciler.platforms.engine import NotFound
from reconciler.platforms.inspection import inspect_docker, inspect_swarm

NET = {
    "Id": "n1",
    "Name": "factory-net",
    "Scope": "swarm",
    "Driver": "overlay",
    "IPAM": {"Config": [{"Subnet": "10.0.1.0/24"}, {"Subnet": "fd00::/64"}]},
}
SIMILAR = {**NET, "Id": "n2", "Name": "factory-net-2", "IPAM": {"Config": [{"Subnet": "10.0.2.0/28"}]}}


def node(state: str = "ready", availability: str = "active", reachability: str = "") -> dict[str, Any]:
    """Return a node of four cores."""
    manager = {"ManagerStatus": {"Reachability": reachability}} if reachability else {}
    resources = {"Resources": {"NanoCPUs": 4_000_000_000, "MemoryBytes": 1 << 30}}
    return {
        "Status": {"State": state},
        "Spec": {"Availability": availability},
        "Description": resources,
        **manager,
    }


def service(name: str, owner: str, port: int | None = None) -> dict[str, Any]:
    """Return a service that reserves half a core a task and has a virtual address in each of two networks."""
    ports = [{"PublishedPort": port}] if port else None
    return {
        "ID": name,
        "Spec": {
            "Name": name,
            "Labels": {"org.openfactory.owner": owner} if owner else None,
            "TaskTemplate": {"Resources": {"Reservations": {"NanoCPUs": 500_000_000, "MemoryBytes": 1 << 20}}},
        },
        "Endpoint": {"Ports": ports, "VirtualIPs": [{"NetworkID": "n1"}, {"NetworkID": "ingress"}]},
    }


def task(service_id: str, *networks: str) -> dict[str, Any]:
    """Return a running task with an address in each of these networks."""
    attached = [{"Network": {"ID": one}, "Addresses": ["10.0.1.5/24"]} for one in networks]
    return {"ServiceID": service_id, "NetworksAttachments": attached or None}


SWARM = {
    "/nodes": [
        node(reachability="reachable"),
        node(reachability="unreachable", state="down"),
        node(availability="drain"),
        node(),
    ],
    "/services": [service("web", "", 80), service("ofa_group_Weld", "ofa", 6000), service("theirs", "acme")],
    "/tasks": [task("web", "ingress"), task("ofa_group_Weld", "n1", "ingress"), task("theirs", "n1"), task("theirs")],
    "/networks": [SIMILAR, NET],
}


class Answers:
    """An engine that answers each request with what stands in a table, or raises it."""

    about: ClassVar = {"Version": "28.5.2", "ApiVersion": "1.51", "MinAPIVersion": "1.24"}

    def __init__(self, table: dict[str, Any]) -> None:
        """Answer from ``table``; an image that is not in it is unknown here."""
        self.table = table
        self.asked: list[str] = []

    def get(self, path: str, *ids: str, **_: object) -> Any:
        """Return or raise."""
        where = path.format(*ids)
        self.asked.append(where)
        found = self.table.get(where, NotFound(f"{where} (HTTP 404)"))
        if isinstance(found, PlatformError):
            raise found
        return found

    def credentials(self, _: str) -> dict[str, str]:
        """None are known."""
        return {}


def test_a_swarm_is_described() -> None:
    """Nodes that take tasks, cores that others reserve by running tasks, addresses of this network alone."""
    found = inspect_swarm(Answers(SWARM), "ofa", "factory-net", ())  # type: ignore[arg-type]
    assert (found.version, found.api, found.oldest_api) == ("28.5.2", (1, 51), (1, 24))
    assert (found.managers, found.nodes, found.cores) == ((2, 1), 2, 8.0)
    assert (found.reserved, found.memory, found.memory_reserved) == (1.5, 2 << 30, 3 << 20)
    assert found.ports == {80: "web", 6000: "ofa_group_Weld"}
    assert found.network == NetworkFacts("overlay", "swarm", 253, 2 + 3 + 2)
    other = inspect_swarm(Answers(SWARM), "acme", "factory", ())  # type: ignore[arg-type]
    assert (other.reserved, other.network) == (1.0, None)


@pytest.mark.parametrize(
    ("config", "addresses"),
    [
        ([{"Subnet": "10.0.1.5/24"}], 253),
        ([{"Subnet": "10.0.1.0/24"}, {"Subnet": "10.0.2.9/28"}], 253 + 13),
        ([{"Gateway": "10.0.1.1"}], None),
        (None, None),
    ],
)
def test_the_addresses_of_a_network(config: list[dict[str, str]] | None, addresses: int | None) -> None:
    """Also where its subnet was written with an address in it, which an engine keeps as it is."""
    table = {**SWARM, "/networks": [{**NET, "IPAM": {"Config": config}}]}
    found = inspect_swarm(Answers(table), "ofa", "factory-net", ())  # type: ignore[arg-type]
    assert found.network is not None
    assert found.network.addresses == addresses


@pytest.mark.parametrize("words", ["This node is not a swarm manager.", "the Swarm has no leader"])
def test_a_swarm_that_cannot_be_asked_is_an_error(words: str) -> None:
    """Nothing that it lists could be believed."""
    engine = Answers({**SWARM, "/nodes": PlatformRefused(words)})
    with pytest.raises(PlatformRefused, match=words):
        inspect_swarm(engine, "ofa", "factory-net", ())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("info", "limits"), [({"MemoryLimit": False}, False), ({"MemoryLimit": True}, True), ({}, True)]
)
def test_plain_containers(info: dict[str, bool], limits: bool) -> None:
    """Ports by the names of containers; the network has no Swarm's addresses."""
    bridge = {"Id": "b", "Name": "factory-net", "Scope": "local", "Driver": "bridge", "IPAM": {"Config": None}}
    containers = [
        {"Names": ["/web"], "Ports": [{"PublicPort": 80}, {"PrivatePort": 1}]},
        {"Names": None, "Ports": None},
    ]
    engine = Answers({**SWARM, "/networks": [bridge], "/containers/json": containers, "/info": info})
    found = inspect_docker(engine, "factory-net", ())  # type: ignore[arg-type]
    assert (found.version, found.ports) == ("28.5.2", {80: "web"})
    assert found.network == NetworkFacts("bridge", "local", None, 0)
    assert found.limits_memory is limits


def test_an_image_is_here_or_in_its_repository() -> None:
    """Nothing is pulled; the engine's words say why one cannot be had."""
    answers = {
        **SWARM,
        "/images/here:1/json": {},
        "/images/there:1/json": PlatformRefused("the filter does not allow it (HTTP 403)"),
        "/distribution/there:1/json": {"Descriptor": {"digest": "sha256:1"}},
        "/distribution/closed:1/json": PlatformRefused("denied: requested access to the resource is denied"),
    }
    engine = Answers(answers)
    found = inspect_swarm(engine, "ofa", "x", ("here:1", "there:1", "closed:1", "gone:1"))  # type: ignore[arg-type]
    assert found.images["here:1"] == found.images["there:1"] == ""
    assert "denied" in found.images["closed:1"]
    assert "HTTP 404" in found.images["gone:1"]
    assert "/distribution/here:1/json" not in engine.asked
