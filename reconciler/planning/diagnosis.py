"""What `doctor` concludes from facts: one finding for each thing that a deployment needs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from openfactory_common.errors import RegistryError
from openfactory_common.ksqldb.wire import fold_name
from openfactory_common.registry import LIMIT_BYTES, GroupLookup, Identity, Registry
from openfactory_common.text import list_some
from reconciler.domain.advice import engine_advice
from reconciler.domain.facts import EngineFacts, KsqldbFacts, SourceFacts
from reconciler.domain.installation import RECORD
from reconciler.domain.names import assign
from reconciler.domain.services import Kind, PlatformState, Publish
from reconciler.leadership.lease import LEASE_RECORD
from reconciler.leadership.pause import DELETIONS_RECORD, GROUP_PAUSES_RECORD, PAUSE_RECORD
from reconciler.planning.options import GroupOptions, read_variables
from reconciler.planning.specs import routing_layer_name, state_api_name
from reconciler.settings import Environment, Settings

#: The oldest API of a Swarm's engine that is supported: Docker 20.10, which lists services with their running tasks.
OLDEST_API = (1, 41)
#: The newest API that the operator speaks; an engine whose oldest is above it is not tested.
_NEWEST_API = (1, 44)
_QUERYABLE = "AS SELECT"
_NAMED = 10
_KEY = "ASSET_UUID"
_RECORDS = (DELETIONS_RECORD, GROUP_PAUSES_RECORD, LEASE_RECORD, PAUSE_RECORD, RECORD)
_MIB = 1 << 20
#: As long as the real ones, which are not known before there is an installation.
_SOME, _SOME_URL = Identity(kafka="x" * 22, ksqldb="default_"), "http://ofa_state_api:5555/asset_state"
_LOOPBACK = ("localhost", "127.", "[::1]")


class Level(StrEnum):
    """How a finding is to be taken; a deployment with one that fails does not serve."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        level: how it is to be taken.
        what: what was found.
        variable: the setting that it is about; ``""`` for none.
        cure: what to do; ``""`` where nothing is to be done.
    """

    level: Level
    what: str
    variable: str = ""
    cure: str = ""


def check_engine(
    facts: EngineFacts, settings: Settings, groups: Sequence[GroupOptions], listening: Collection[int] = ()
) -> Iterator[Finding]:
    """Check the engine, its Swarm, the network, ports and images.

    Args:
        facts: of the engine.
        settings: of the operator.
        groups: what the service of each group has.
        listening: ports of this host at which a program listens.
    """
    api = f"Docker engine {facts.version}, API {_show(facts.api)}"
    if facts.api < OLDEST_API:
        yield Finding(Level.FAIL, api, "DOCKER_HOST", f"API {_show(OLDEST_API)} (Docker 20.10) or newer is needed")
    elif facts.oldest_api > _NEWEST_API:
        yield Finding(Level.WARN, f"{api}, oldest {_show(facts.oldest_api)}", cure="not tested (docs/versions.md)")
    else:
        yield Finding(Level.OK, api)
    if settings.deployment_platform == "docker":
        yield Finding(Level.OK, "Swarm, its nodes and secrets: not checked, services are plain containers")
        yield from _check_bridge(facts, settings)
        options = _list_options(settings, groups)
        if not facts.limits_memory and any(one.memory_limit or one.memory_reservation for one in options):
            what = "the engine's kernel has no memory cgroup: what containers may use of memory is not limited"
            cure = "boot it with cgroup_enable=memory, or limit nothing"
            yield Finding(Level.WARN, what, "FASTAPI_GROUP_MEMORY_LIMIT", cure)
    else:
        yield from _check_swarm(facts, settings, groups)
    yield from _check_ports(facts, settings, listening)
    for image, why in facts.images.items():
        variables = ", ".join(name.upper() for name in _IMAGES if getattr(settings, name) == image)
        if why:
            cures = (*engine_advice(why, None, image=image, image_variable=variables), "push it, or log in")
            yield Finding(Level.FAIL, f"image {image}: {why}", variables, cures[0])
        else:
            yield Finding(Level.OK, f"image {image}", variables)


_IMAGES = ("routing_layer_image", "fastapi_group_image", "state_api_image")


def list_images(settings: Settings) -> tuple[str, ...]:
    """Return the images that are deployed."""
    skipped = "routing_layer_image" if settings.environment is Environment.LOCAL else ""
    return tuple(dict.fromkeys(getattr(settings, name) for name in _IMAGES if name != skipped))


def _check_bridge(facts: EngineFacts, settings: Settings) -> Iterator[Finding]:
    name, network = settings.docker_network, facts.network
    if network is None:
        yield Finding(Level.OK, f"network {name} does not exist and will be created", "DOCKER_NETWORK")
    elif network.scope != "local":
        yield Finding(Level.WARN, f"network {name} is {network.driver}, of a Swarm", "DOCKER_NETWORK", "use a bridge")
    else:
        yield Finding(Level.OK, f"network {name} ({network.driver})", "DOCKER_NETWORK")


def _list_options(settings: Settings, groups: Sequence[GroupOptions]) -> tuple[GroupOptions, ...]:
    """Return what the service of each group has, then the routing layer and the state API."""
    return (*groups, *(read_variables(settings, kind) for kind in (Kind.ROUTING_LAYER, Kind.STATE_API)))


def _check_swarm(facts: EngineFacts, settings: Settings, groups: Sequence[GroupOptions]) -> Iterator[Finding]:
    managers, reachable = facts.managers
    swarm = f"Swarm: {reachable} of {managers} managers reachable, {facts.nodes} nodes take tasks"
    if not facts.nodes:
        yield Finding(Level.FAIL, swarm, cure="no task can run: check `docker node ls`")
    elif reachable < managers:
        yield Finding(Level.WARN, swarm, cure="the Swarm stops when half of its managers are lost: `docker node ls`")
    else:
        yield Finding(Level.OK, swarm)
    options = _list_options(settings, groups)
    yield _check_cores(facts, options)
    yield from _check_memory(facts, options)
    for record in _RECORDS:
        name = f"{settings.resource_prefix}_{record}"
        if name in facts.configs:
            what = f"config {name} is not ours, and the operator keeps a record under its name"
            yield Finding(Level.FAIL, what, "RESOURCE_PREFIX", "use another prefix, or remove that config")
    name, network = settings.docker_network, facts.network
    create = f"docker network create --driver overlay --attachable {name}"
    if network is None:
        yield Finding(Level.FAIL, f"network {name} does not exist", "DOCKER_NETWORK", create)
    elif network.scope != "swarm":
        what = f"network {name} is a {network.driver} of one node"
        yield Finding(Level.FAIL, what, "DOCKER_NETWORK", f"use another name: {create}")
    else:
        yield _check_addresses(facts, settings, groups)


def _check_addresses(facts: EngineFacts, settings: Settings, groups: Sequence[GroupOptions]) -> Finding:
    """Compare free addresses with those of all tasks; an update starts a task before it stops one."""
    network = facts.network
    assert network is not None  # noqa: S101 - checked by the caller
    if network.addresses is None:
        return Finding(Level.WARN, f"network {settings.docker_network}: no IPv4 subnet", "DOCKER_NETWORK", "check it")
    free = network.addresses - network.used
    tasks = _sum(_list_options(settings, groups), lambda _: 1)
    needed = tasks + max(1, int(len(groups) * settings.rollout_max_parallel))
    what = f"network {settings.docker_network}: {free} of {network.addresses} addresses are free, {needed} are needed"
    if free >= needed:
        return Finding(Level.OK, what, "DOCKER_NETWORK")
    cure = "create one with a larger subnet (--subnet 10.20.0.0/20); tasks would stay in state new"
    # What runs already has its addresses: a full network may be ours.
    return Finding(Level.WARN if network.used >= tasks else Level.FAIL, what, "DOCKER_NETWORK", cure)


def _sum(options: Iterable[GroupOptions], of_task: Callable[[GroupOptions], float | None]) -> float:
    """Sum up over all tasks."""
    return sum((one.replicas or 0) * (of_task(one) or 0) for one in options)


def _check_cores(facts: EngineFacts, options: Iterable[GroupOptions]) -> Finding:
    needed = _sum(options, lambda one: one.cpu_reservation)
    free = facts.cores - facts.reserved
    what = f"{needed:g} cores are reserved by the services, {free:g} of {facts.cores:g} are not reserved by others"
    variable = "FASTAPI_GROUP_CPU_RESERVATION"
    if needed > free:
        return Finding(Level.FAIL, what, variable, "lower it, or add nodes: tasks would stay in state pending")
    return Finding(Level.OK, what, variable)


def _check_memory(facts: EngineFacts, options: Iterable[GroupOptions]) -> Iterator[Finding]:
    needed, most = _sum(options, lambda one: one.memory_reservation), _sum(options, lambda one: one.memory_limit)
    free, variable = facts.memory - facts.memory_reserved, "FASTAPI_GROUP_MEMORY_RESERVATION"
    what = f"{needed / _MIB:.0f} MiB are reserved by the services, {free / _MIB:.0f} are not reserved by others"
    if needed > free:
        yield Finding(Level.FAIL, what, variable, "lower it, or add nodes: tasks would stay in state pending")
    else:
        yield Finding(Level.OK, what, variable)
    if most > facts.memory:
        what = f"the services may use {most / _MIB:.0f} MiB together, the nodes have {facts.memory / _MIB:.0f}"
        cure = "lower it, reserve memory, or add nodes: a node without memory kills tasks"
        yield Finding(Level.WARN, what, "FASTAPI_GROUP_MEMORY_LIMIT", cure)


def check_registry(settings: Settings, groups: Collection[str], lookup: GroupLookup) -> Iterator[Finding]:
    """Check that a Swarm config can hold the registry of these groups, as long as their names are what they are."""
    named, _ = assign(groups, settings.resource_prefix)
    urls = {one.group: one.url(settings.fastapi_group_port) for one in named.values()}
    try:
        size = len(
            Registry(identity=_SOME, replaces=(), groups=urls, state_api=_SOME_URL, membership=lookup).canonical()
        )
    except RegistryError as error:
        cure = "group by a coarser level, or shorten the names in the UNS"
        yield Finding(Level.FAIL, str(error), "UNS_FASTAPI_GROUP_GROUPING_LEVEL", cure)
    else:
        yield Finding(Level.OK, f"the registry has {size} bytes, a config takes {LIMIT_BYTES}")


def _check_ports(facts: EngineFacts, settings: Settings, listening: Collection[int]) -> Iterator[Finding]:
    ours = {routing_layer_name(settings).casefold()}
    wanted = {settings.reconciler_port: ("RECONCILER_PORT", {urlsplit(settings.reconciler_url).hostname or ""})}
    if settings.routing_layer_publish is not Publish.NONE or settings.deployment_platform == "docker":
        wanted |= {settings.routing_layer_port: ("ROUTING_LAYER_PORT", ours)}
    for port, (variable, holders) in sorted(wanted.items()):
        holder = facts.ports.get(port, "")
        if not holder and port in listening:
            cure = "free it, unless that is this operator or its routing layer"
            yield Finding(Level.WARN, f"a program of this host listens on port {port}", variable, cure)
        elif not holder:
            yield Finding(Level.OK, f"port {port} is published by nothing", variable)
        elif holder.casefold() in holders:
            yield Finding(Level.OK, f"port {port} is published by {holder}", variable)
        else:
            yield Finding(Level.FAIL, f"port {port} is published by {holder}", variable, "free it, or use another port")


def check_names(platform: PlatformState, settings: Settings, groups: Mapping[str, int]) -> Iterator[Finding]:
    """Check that the names of our services are free, and show what others have with our prefix."""
    named, _ = assign(groups, settings.resource_prefix)
    names = {routing_layer_name(settings), state_api_name(settings), *(one.service for one in named.values())}
    ours = {name.casefold() for name in names}
    foreign = {key: live for key, live in platform.services.items() if live.owner != settings.reconciler_owner}
    for key, live in sorted(foreign.items()):
        if key.casefold() in ours:
            what = f"service {live.name} belongs to {live.owner or 'no owner'}, and ours would have its name"
            yield Finding(Level.FAIL, what, "RESOURCE_PREFIX", "use another prefix, or remove that service")
    others = sorted({live.owner for key, live in foreign.items() if live.owner and key.casefold() not in ours})
    if others:
        what = f"services of {list_some(others)} have the prefix {settings.resource_prefix} too"
        yield Finding(Level.WARN, what, "RESOURCE_PREFIX", "give each installation its own prefix")


def check_ksqldb(facts: KsqldbFacts, settings: Settings) -> Iterator[Finding]:
    """Check the server, its sources, the UNS map and how many queries it takes."""
    server = f"ksqlDB {facts.version}"
    if facts.unhealthy:
        yield Finding(Level.FAIL, f"{server}: {facts.unhealthy}", "KSQLDB_URL", "check the server's log and Kafka")
    else:
        yield Finding(Level.OK, f"{server}: healthy", "KSQLDB_URL")
    for what, error in facts.errors.items():
        yield Finding(Level.FAIL, f"{what} cannot be read: {error}", "KSQLDB_URL", "correct the cause that it names")
    if facts.offset == "latest":
        what = "the server's auto.offset.reset is latest: the join would drop events for good"
        yield Finding(Level.FAIL, what, cure="remove ksql.streams.auto.offset.reset from the server's settings")
    yield from _check_sources(facts, settings)
    if facts.membership is not None:
        yield from _check_map(facts, settings)


def _check_sources(facts: KsqldbFacts, settings: Settings) -> Iterator[Finding]:
    wanted = {
        settings.ksqldb_assets_stream: ("KSQLDB_ASSETS_STREAM", "STREAM", False),
        settings.join_table: ("KSQLDB_UNS_JOIN_TABLE", "TABLE", False),
        settings.ksqldb_uns_map: ("KSQLDB_UNS_MAP", "TABLE", True),
        settings.ksqldb_assets_table: ("KSQLDB_ASSETS_TABLE", "TABLE", True),
    }
    for name, (variable, kind, pulled) in wanted.items():
        found = facts.sources.get(fold_name(name))
        key = "KEY" if variable == "KSQLDB_ASSETS_TABLE" else _KEY
        what = f"{kind.lower()} {name}"
        if found is None:
            yield Finding(Level.FAIL, f"{what} does not exist in ksqlDB", variable, "correct the name, or create it")
        elif found.kind != kind:
            yield Finding(Level.FAIL, f"{name} is a {found.kind.lower()}, no {kind.lower()}", variable, "correct it")
        elif pulled and found.statement and _QUERYABLE not in found.statement.upper():
            cure = "create it by CREATE TABLE ... AS SELECT (docs/ksqldb.md)"
            yield Finding(Level.FAIL, f"{what} cannot be queried: no query writes it", variable, cure)
        elif found.keys and dict(found.keys) != {key: "STRING"}:
            keys = ", ".join(f"{column} {type_}" for column, type_ in found.keys.items())
            yield Finding(Level.FAIL, f"{what} has the key {keys}", variable, f"its key must be {key} STRING")
        else:
            yield Finding(Level.OK, what, variable)
    events, table = (facts.sources.get(fold_name(one)) for one in (settings.ksqldb_assets_stream, settings.join_table))
    yield from _check_partitions(facts.partitions, events, table)


def _check_partitions(
    partitions: Mapping[str, int], events: SourceFacts | None, table: SourceFacts | None
) -> Iterator[Finding]:
    if events is None or table is None or not {events.topic, table.topic} <= partitions.keys():
        return
    ours, theirs = partitions[events.topic], partitions[table.topic]
    what = f"topics {events.topic} and {table.topic} have {ours} and {theirs} partitions"
    variable, cure = "KSQLDB_ASSETS_STREAM", "they must have equally many to be joined: create one of them again"
    yield Finding(Level.OK, what, variable) if ours == theirs else Finding(Level.FAIL, what, variable, cure)


def _check_map(facts: KsqldbFacts, settings: Settings) -> Iterator[Finding]:
    found, variable = facts.membership, "UNS_FASTAPI_GROUP_GROUPING_LEVEL"
    assert found is not None  # noqa: S101 - checked by the caller
    level = f"level {settings.uns_fastapi_group_grouping_level}"
    what = f"{level}: {len(found.groups)} groups of {found.assets} assets, {found.ungrouped} without a value"
    served = sorted(facts.served - {found.fallback})
    alone = bool(found.fallback) and found.groups.keys() == {found.fallback}
    if alone and (found.unknown_level or (served and facts.moves)):
        what = f"{found.unknown_level or 'no asset has a value at the level'}; all are in group {found.fallback}"
        what += f", and the operator stops every write beside {list_some(served, _NAMED)}" if served else ""
        cure = "correct the name; beside other groups it stops every write"
        yield Finding(Level.FAIL if served else Level.WARN, what, variable, cure)
    elif found.unknown_level:
        yield Finding(Level.FAIL, found.unknown_level, variable, "correct the name")
    elif not found.groups:
        cure = "map assets first: an empty map changes nothing"
        yield Finding(Level.FAIL, f"{what}: the map is empty or has no value", "KSQLDB_UNS_MAP", cure)
    else:
        yield Finding(Level.OK, f"{what}: {list_some(sorted(found.groups), _NAMED)}", variable)
    _, losers = assign(found.groups.keys() - found.ambiguous.keys(), settings.resource_prefix)
    for group, holder in losers.items():
        what = f"group {group} cannot be served beside {holder}: their names differ in case only"
        yield Finding(Level.WARN, what, variable, "rename one of them in the UNS")
    for group, why in found.ambiguous.items():
        yield Finding(Level.WARN, f"group {group} cannot be served", variable, why)
    needed = len(found.groups) + 1
    limit = f"{facts.queries} queries of others and {needed} of ours"
    if facts.limit is not None and facts.queries + needed > facts.limit:
        cure = "raise ksql.query.persistent.active.limit in the server's settings, or group by a coarser level"
        yield Finding(Level.FAIL, f"ksqlDB allows {facts.limit} queries: {limit} are more", variable, cure)
    else:
        yield Finding(Level.OK, f"{limit}, ksqlDB allows {facts.limit if facts.limit is not None else 'any number'}")


def check_addresses(reached: Mapping[str, str], settings: Settings) -> Iterator[Finding]:
    """Check the addresses that services get: Kafka's brokers and ksqlDB.

    Args:
        reached: each broker with why it was not reached from here, ``""`` where it was.
        settings: of the operator.
    """
    for broker, why in reached.items():
        if broker.startswith(_LOOPBACK):
            cure = "use a name that services in the network resolve: in a container this is the container itself"
            yield Finding(Level.FAIL, f"Kafka at {broker}", "KAFKA_BROKER", cure)
        elif why:
            cure = "services see it from their own network: check it there (and advertised.listeners of Kafka)"
            yield Finding(Level.WARN, f"Kafka at {broker} is not reached from here: {why}", "KAFKA_BROKER", cure)
        else:
            yield Finding(Level.OK, f"Kafka at {broker} accepts connections from here", "KAFKA_BROKER")
    host = urlsplit(settings.url_for_services).hostname or ""
    if host == "::1" or host.startswith(_LOOPBACK):
        what = f"services get {settings.url_for_services} as ksqlDB's address, which is their own container"
        yield Finding(Level.FAIL, what, "KSQLDB_SERVICE_URL", "set it to the server as services reach it")


def _show(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
