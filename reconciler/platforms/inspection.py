"""What an engine says of itself and of what services will need; reads only. For `doctor`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from ipaddress import IPv4Network, ip_network
from typing import Any

from openfactory_common.errors import PlatformError, PlatformRefused
from reconciler.domain.facts import EngineFacts, NetworkFacts
from reconciler.platforms.engine import Engine, NotFound, parse_version
from reconciler.platforms.protocol import OWNER

Raw = Mapping[str, Any]
_NANO = 1e9
#: Of each subnet: its own address, the broadcast address, the gateway.
_TAKEN_OF_SUBNET = 3


def inspect_swarm(engine: Engine, owner: str, network: str, images: Collection[str]) -> EngineFacts:
    """Read the engine and its Swarm.

    Raises:
        PlatformError: it does not answer, it is no manager of a Swarm, or the Swarm has no leader.
    """
    nodes, services = engine.get("/nodes"), engine.get("/services")
    tasks = engine.get("/tasks", params={"filters": {"desired-state": ["running"]}})
    reachability = [raw["ManagerStatus"].get("Reachability") for raw in nodes if raw.get("ManagerStatus")]
    ready = [
        raw
        for raw in nodes
        if raw["Status"]["State"] == "ready" and raw.get("Spec", {}).get("Availability", "active") == "active"
    ]
    resources = [raw.get("Description", {}).get("Resources", {}) for raw in ready]
    ports = {
        port["PublishedPort"]: str(raw["Spec"]["Name"])
        for raw in services
        for port in raw.get("Endpoint", {}).get("Ports") or ()
        if port.get("PublishedPort")
    }
    return EngineFacts(
        **_read_version(engine.about),
        managers=(len(reachability), reachability.count("reachable")),
        nodes=len(ready),
        cores=sum(one.get("NanoCPUs", 0) for one in resources) / _NANO,
        reserved=_count_reserved(services, tasks, owner, "NanoCPUs") / _NANO,
        memory=sum(one.get("MemoryBytes", 0) for one in resources),
        memory_reserved=_count_reserved(services, tasks, owner, "MemoryBytes"),
        network=_read_network(engine, network, services, tasks, len(ready)),
        ports=ports,
        images=find_images(engine, images),
    )


def inspect_docker(engine: Engine, network: str, images: Collection[str]) -> EngineFacts:
    """Read an engine that runs plain containers.

    Raises:
        PlatformError: it does not answer.
    """
    containers = engine.get("/containers/json")
    return EngineFacts(
        **_read_version(engine.about),
        limits_memory=engine.get("/info").get("MemoryLimit") is not False,
        network=_read_network(engine, network, (), (), 0),
        ports={
            port["PublicPort"]: str((raw.get("Names") or ["?"])[0]).lstrip("/")
            for raw in containers
            for port in raw.get("Ports") or ()
            if port.get("PublicPort")
        },
        images=find_images(engine, images),
    )


def find_images(engine: Engine, images: Collection[str]) -> dict[str, str]:
    """Return why each image cannot be had: it is neither here nor does its repository have it for us."""
    return {image: _find_image(engine, image) for image in images}


def _find_image(engine: Engine, image: str) -> str:
    with suppress(NotFound, PlatformRefused):  # a filter before the engine may refuse the question
        engine.get("/images/{}/json", image)
        return ""
    try:
        engine.get("/distribution/{}/json", image, headers=engine.credentials(image))
    except PlatformError as error:
        return str(error)
    return ""


def _read_version(answer: Raw) -> dict[str, Any]:
    return {
        "version": str(answer.get("Version") or "?"),
        "api": parse_version(answer.get("ApiVersion")) or (0, 0),
        "oldest_api": parse_version(answer.get("MinAPIVersion")) or (0, 0),
    }


def _count_reserved(services: Collection[Raw], tasks: Collection[Raw], owner: str, resource: str) -> int:
    running = Counter(raw["ServiceID"] for raw in tasks)
    total = 0
    for raw in services:
        reserved = raw["Spec"]["TaskTemplate"].get("Resources", {}).get("Reservations", {}).get(resource, 0)
        if (raw["Spec"].get("Labels") or {}).get(OWNER) != owner:
            total += reserved * running[raw["ID"]]
    return total


def _read_network(
    engine: Engine, name: str, services: Collection[Raw], tasks: Collection[Raw], nodes: int
) -> NetworkFacts | None:
    raw = next((raw for raw in engine.get("/networks") if raw["Name"] == name), None)
    if raw is None:
        return None
    configs = (raw.get("IPAM") or {}).get("Config") or ()
    # An engine keeps what a person wrote, also an address within the subnet: 10.0.1.1/24.
    subnets = [ip_network(one["Subnet"], strict=False) for one in configs if one.get("Subnet")]
    sizes = [net.num_addresses - _TAKEN_OF_SUBNET for net in subnets if isinstance(net, IPv4Network)]
    attached = [one for task in tasks for one in task.get("NetworksAttachments") or ()]
    used = sum(len(one.get("Addresses") or ()) for one in attached if one["Network"]["ID"] == raw["Id"])
    virtual = [one for service in services for one in service.get("Endpoint", {}).get("VirtualIPs") or ()]
    used += sum(one.get("NetworkID") == raw["Id"] for one in virtual)
    used += nodes  # an address for the balancer of each
    return NetworkFacts(str(raw.get("Driver") or ""), str(raw["Scope"]), sum(sizes) if sizes else None, used)
