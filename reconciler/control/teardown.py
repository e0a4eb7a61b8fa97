"""Removes everything of ours: services, then streams, then the registry.

Nothing else is removed, and a second run can finish what the first one left, wherever it stopped. The registry is
removed last, and only after the streams: it says which cluster they are in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from openfactory_common.errors import GuardRefusal, KsqlError, KsqlNotReady
from reconciler.control.executor import Executor
from reconciler.control.observe import Dependencies, observe_source
from reconciler.control.orphans import read_statement
from reconciler.domain.actions import Action, DropStream, RemoveRegistry, RemoveService, Result, WriteResult
from reconciler.domain.installation import RECORD, claim, new_id, sift
from reconciler.domain.names import STREAM_PREFIX
from reconciler.domain.observed import MapSnapshot, SourceState
from reconciler.domain.services import Kind, is_named
from reconciler.ksqldb.ownership import Whose
from reconciler.planning.guards import another_cluster
from reconciler.planning.specs import is_ours
from reconciler.planning.survey import current_registry
from reconciler.platforms.protocol import Records

_ORDER = {Kind.ROUTING_LAYER: 0, Kind.STATE_API: 1, Kind.GROUP: 2}


def prove(deps: Dependencies, *, accept_identity: bool = False) -> SourceState:
    """Read ksqlDB, and return its state if it is the one of our registry and can be believed.

    Behind a wrong `KSQLDB_URL` there may be streams that look like ours and are another installation's, and an
    unhealthy server lists fewer queries than it has. Both rules are the loop's (`reconciler.planning.guards`); where no
    registry can be read there is nothing to compare.

    Raises:
        GuardRefusal: another cluster answers, and ``accept_identity`` is not given.
        KsqlError: a read failed, or the server is unhealthy.
        PlatformError: the registry cannot be read.
    """
    source, _ = observe_source(deps.ksqldb, lambda: MapSnapshot(0, {}, fresh=False))
    published, _ = current_registry(deps.platform.observe().registries)
    other = another_cluster(published, source.identity)
    if other and not accept_identity:
        raise GuardRefusal(f"{other}; correct KSQLDB_URL, or if this is intended, give --accept-identity")
    if source.unhealthy_reason:
        raise KsqlNotReady(f"ksqlDB is unhealthy: {source.unhealthy_reason}")
    return source


def claim_objects(deps: Dependencies, adopt: str = "", *, keep_streams: bool = False) -> Dependencies:
    """Return the dependencies with the topology of this installation, which says what is ours.

    Raises:
        GuardRefusal: no record says which installation this is, and objects of our owner id exist.
        KsqlError: the streams, of which one may have the adopted id, cannot be listed.
        PlatformError: the platform cannot be read.
    """
    streams = [stream.name for stream in deps.ksqldb.streams()] if adopt and not keep_streams else []
    now = claim(deps.platform.observe(), streams, deps.settings.reconciler_owner, fresh=new_id(), adopt=adopt)
    if now.refusal:
        raise GuardRefusal(now.refusal)
    return replace(deps, topology=replace(deps.topology, installation=now.installation))


def teardown(
    deps: Dependencies, *, keep_streams: bool = False, accept_identity: bool = False, adopt: str = ""
) -> Iterator[Result]:
    """Remove our services, streams and registry documents; yield what became of each.

    Unless the streams are kept, call `prove` first: here it is called when the services have been removed already.

    Raises:
        GuardRefusal: what is ours is unknown.
        PlatformError: the platform cannot be read.
    """
    deps = claim_objects(deps, adopt, keep_streams=keep_streams)
    settings, executor = deps.settings, Executor(deps.ksqldb, deps.platform, deps.topology)

    def apply(actions: Iterable[Action]) -> Iterator[Result]:
        return executor.apply(actions, lambda _action: False)

    there = sift(deps.platform.observe(), settings.reconciler_owner, deps.topology.installation)
    services = [live for live in there.services.values() if is_ours(live, settings)]
    services.sort(key=lambda live: (_ORDER[live.spec.kind] if live.spec else len(_ORDER), live.name))
    yield from apply(RemoveService(live, live.spec.group if live.spec else None) for live in services)
    left = False
    if not keep_streams:
        try:
            drops = _plan_drops(deps, prove(deps, accept_identity=accept_identity))
        except (GuardRefusal, KsqlError) as error:
            left = True
            yield Result(DropStream("(all)", None), error)
        else:
            for result in apply(drops):
                left = left or result.outcome is not WriteResult.OK
                yield result
    documents = deps.platform.observe().registries
    registries = [RemoveRegistry(live) for live in documents if is_named(live, settings.resource_prefix)]
    if left:
        why = GuardRefusal("it says which cluster the streams that are left are in")
        yield from (Result(registry, why) for registry in registries)
    else:
        yield from apply(registries)


def remove_records(records: Records, *, streams_left: bool) -> None:
    """Remove what operators agreed on; those that still run keep to a pause that they have read.

    Which installation this is stays recorded while streams carry its id: no other one may touch them.

    Raises:
        PlatformError: a record could not be removed.
    """
    for record in records.records().values():
        if record.name == RECORD and streams_left:
            continue
        records.remove_record(record)


def _plan_drops(deps: Dependencies, source: SourceState) -> list[Action]:
    """Plan group streams before the shared streams that they read; only its statement says whose a stream is.

    That is its query's statement or, where one that may be ours has no query, its own.
    """
    topology, made = deps.topology, {name: query.text for name, query in source.queries.items()}
    for name in sorted(source.streams.keys() - made.keys()):
        if name.startswith(STREAM_PREFIX) or topology.is_shared(name):
            made[name] = read_statement(deps.ksqldb, name) or ""
    groups: list[Action] = []
    shared: list[Action] = []
    for name in sorted(source.streams.keys() & made.keys()):
        whose = topology.ownership(name, made[name]).whose
        if whose is Whose.SHARED:  # what is in its topic, the groups' topics have as well
            shared.append(DropStream(name, None, delete_topic=True))
        elif whose is Whose.GROUP:
            groups.append(DropStream(name, name, deps.settings.delete_topics))
    return [*groups, *shared]
