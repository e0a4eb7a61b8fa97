"""Removing everything of ours: services, then streams, then the registry.

Nothing else is removed, and the order is one that a second run can finish wherever the first one stopped. The registry
goes last, and not before the streams: it says which cluster they are in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from openfactory_common.errors import GuardRefusal, KsqlError, KsqlNotReady
from reconciler.control.controller import Dependencies
from reconciler.control.executor import Executor
from reconciler.control.observe import observe_source
from reconciler.control.orphans import statement_of
from reconciler.domain.actions import Action, DropStream, RemoveRegistry, RemoveService, Result
from reconciler.domain.installation import NAME, claim, new_id, sift
from reconciler.domain.names import STREAM_PREFIX
from reconciler.domain.observed import MapSnapshot, SourceState
from reconciler.domain.services import Kind, is_named
from reconciler.ksqldb.ownership import Whose
from reconciler.planning.guards import another_cluster
from reconciler.planning.specs import is_ours
from reconciler.planning.survey import current_registry
from reconciler.platforms.protocol import Records

_ORDER = {Kind.ROUTING_LAYER: 0, Kind.STATE_API: 1, Kind.GROUP: 2}


def prove(world: Dependencies, *, accept_identity: bool = False) -> SourceState:
    """Look at ksqlDB, and return what is there if it is the one of our registry and can be believed.

    Behind a wrong `KSQLDB_URL` there may be streams that look like ours and are another installation's, and a server
    that is not well lists fewer queries than it has. Both rules are the loop's (`reconciler.planning.guards`); where no
    registry can be read there is nothing to compare.

    Raises:
        GuardRefusal: another cluster answers, and that is not meant.
        KsqlError: a read failed, or the server is not well.
        PlatformError: the registry cannot be read.
    """
    source, _ = observe_source(world.ksqldb, lambda: MapSnapshot(0, {}, fresh=False))
    published, _ = current_registry(world.platform.observe().registries)
    other = another_cluster(published, source.identity)
    if other and not accept_identity:
        raise GuardRefusal(f"{other}; correct KSQLDB_URL, or if that is meant, give --accept-identity")
    if source.unhealthy_reason:
        raise KsqlNotReady(f"ksqlDB is not well: {source.unhealthy_reason}")
    return source


def claimed(world: Dependencies, adopt: str = "", *, keep_streams: bool = False) -> Dependencies:
    """Return the world with the streams and services of this installation for ours.

    Raises:
        GuardRefusal: no record says which installation this is, and objects of our owner id are here.
        KsqlError: the streams, of which one may have the adopted id, cannot be listed.
        PlatformError: the platform cannot be read.
    """
    streams = [stream.name for stream in world.ksqldb.streams()] if adopt and not keep_streams else []
    now = claim(world.platform.observe(), streams, world.settings.reconciler_owner, fresh=new_id(), adopt=adopt)
    if now.refusal:
        raise GuardRefusal(now.refusal)
    return replace(world, topology=replace(world.topology, installation=now.installation))


def teardown(
    world: Dependencies, *, keep_streams: bool = False, accept_identity: bool = False, adopt: str = ""
) -> Iterator[Result]:
    """Remove our services, streams and registry documents; yield what became of each.

    What is ours, `claimed` tells. Unless the streams are kept, `prove` comes first: here it is asked once more, when
    the services are gone already.

    Raises:
        GuardRefusal: it is not known what is ours.
        PlatformError: the platform cannot be read.
    """
    world = claimed(world, adopt, keep_streams=keep_streams)
    executor = Executor(world.ksqldb, world.platform, world.topology)
    yield from executor.apply(_services(world), lambda _action: False)
    left = False
    for result in () if keep_streams else _drop_streams(world, executor, accept_identity=accept_identity):
        left = left or result.outcome != "ok"
        yield result
    prefix = world.settings.resource_prefix
    documents = world.platform.observe().registries
    registries = [RemoveRegistry(live) for live in documents if is_named(live, prefix)]
    if left:
        why = GuardRefusal("it says which cluster the streams that are left are in")
        yield from (Result(registry, why) for registry in registries)
    else:
        yield from executor.apply(registries, lambda _action: False)


def remove_records(records: Records, *, streams_left: bool) -> None:
    """Remove what operators agreed on; those that still run keep to a pause that they have seen.

    Which installation this is stays known while streams carry its id: nobody else may touch them.

    Raises:
        PlatformError: something is still there.
    """
    for record in records.records().values():
        if record.name == NAME and streams_left:
            continue
        records.remove_record(record)


def _services(world: Dependencies) -> list[RemoveService]:
    there = sift(world.platform.observe(), world.settings.reconciler_owner, world.topology.installation)
    ours = [live for live in there.services.values() if is_ours(live, world.settings)]
    ours.sort(key=lambda live: (_ORDER[live.spec.kind] if live.spec else len(_ORDER), live.name))
    return [RemoveService(live, live.spec.group if live.spec else None) for live in ours]


def _drop_streams(world: Dependencies, executor: Executor, *, accept_identity: bool) -> Iterator[Result]:
    try:
        source = prove(world, accept_identity=accept_identity)
        drops = _drops(world, source, _made(world, source))
    except (GuardRefusal, KsqlError) as error:
        yield Result(DropStream("(all)", None), error)
        return
    yield from executor.apply(drops, lambda _action: False)


def _drops(world: Dependencies, source: SourceState, made: Mapping[str, str]) -> list[Action]:
    """Group streams go before the shared streams that they read; whose a stream is, only its statement says."""
    topology = world.topology
    groups: list[Action] = []
    shared: list[Action] = []
    for name in sorted(source.streams.keys() & made.keys()):
        whose = topology.ownership(name, made[name])
        if whose.whose is Whose.SHARED:  # what is in its topic, the groups' topics have as well
            shared.append(DropStream(name, None, delete_topic=True))
        elif whose.whose is Whose.GROUP:
            groups.append(DropStream(name, name, world.settings.delete_topics))
    return [*groups, *shared]


def _made(world: Dependencies, source: SourceState) -> Mapping[str, str]:
    """Return by what statement each was made: its query's or, where one that may be ours has none, its own."""
    topology, made = world.topology, {name: query.text for name, query in source.queries.items()}
    ours = {name for name in source.streams if name.startswith(STREAM_PREFIX) or topology.is_shared(name)}
    for name in sorted(ours - made.keys()):
        made[name] = statement_of(world.ksqldb, name) or ""
    return made
