"""What `doctor` reads before anything is deployed: the engine, ksqlDB, and addresses. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.domain.observed import MapSnapshot


@dataclass(frozen=True)
class NetworkFacts:
    """The network of the services.

    Attributes:
        driver: ``overlay``, ``bridge``, ...
        scope: ``swarm`` or ``local``.
        addresses: that its subnets have for tasks and services; None where it has no IPv4 subnet.
        used: addresses of running tasks and of services.
    """

    driver: str
    scope: str
    addresses: int | None
    used: int


@dataclass(frozen=True)
class EngineFacts:
    """A Docker engine and, if it is in one, its Swarm.

    Attributes:
        version: of the engine.
        api: the newest version of its API, ``(1, 41)``.
        oldest_api: the oldest that it accepts.
        managers: of its Swarm, how many there are, and how many of them are reachable.
        nodes: that can run tasks.
        cores: of these nodes.
        reserved: cores that services of others reserve.
        memory: bytes of these nodes.
        memory_reserved: bytes that services of others reserve.
        limits_memory: its kernel has a memory cgroup; without one a container's limits have no effect.
        configs: names of the Swarm's configs that are no records of this owner.
        network: the services' network; None where there is none of this name.
        ports: who publishes each host port: a service or a container.
        images: why each image cannot be had, ``""`` if it can.
    """

    version: str
    api: tuple[int, int]
    oldest_api: tuple[int, int] = (0, 0)
    managers: tuple[int, int] = (0, 0)
    nodes: int = 1
    cores: float = 0.0
    reserved: float = 0.0
    memory: int = 0
    memory_reserved: int = 0
    limits_memory: bool = True
    configs: frozenset[str] = frozenset()
    network: NetworkFacts | None = None
    ports: Mapping[int, str] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceFacts:
    """A stream or table that others make: its kind, key columns with their types, topic and statement."""

    kind: str
    keys: Mapping[str, str]
    topic: str
    statement: str = ""


@dataclass(frozen=True)
class KsqldbFacts:
    """A ksqlDB server and what of it the operator needs.

    Attributes:
        version: of the server.
        unhealthy: what its health report complains of; ``""`` for nothing.
        sources: those that settings name, by the name as stored; None for one that does not exist.
        partitions: of topics, by name; empty where they could not be read.
        queries: persistent queries of others.
        limit: how many persistent queries the server allows; None where it does not report it.
        offset: ``auto.offset.reset`` of the server; ``""`` for Kafka's default.
        membership: the UNS map; None where it could not be read.
        errors: the reads that failed, each with the error.
        served: groups of which this installation has a stream or a service.
        moves: no shared stream of ours has the level of the settings, so that all that is served would move to it.
    """

    version: str
    unhealthy: str = ""
    sources: Mapping[str, SourceFacts | None] = field(default_factory=dict)
    partitions: Mapping[str, int] = field(default_factory=dict)
    queries: int = 0
    limit: int | None = None
    offset: str = ""
    membership: MapSnapshot | None = None
    errors: Mapping[str, str] = field(default_factory=dict)
    served: frozenset[str] = frozenset()
    moves: bool = False
