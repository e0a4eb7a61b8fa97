"""Removing everything of ours: services, then streams, then the registry.

Nothing else is removed, and the order is one that a second run can finish wherever the first one stopped.
"""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.apply import Executor, Result
from reconciler.controller import World
from reconciler.errors import KsqlError
from reconciler.model import Action, DropGroupsTable, DropStream, RemoveRegistry, RemoveService
from reconciler.names import STREAM_PREFIX
from reconciler.platforms.base import Kind, Records

_ORDER = {Kind.ROUTING_LAYER: 0, Kind.STATE_API: 1, Kind.GROUP: 2}


def teardown(world: World, *, keep_streams: bool = False) -> Iterator[Result]:
    """Remove our services, streams and registry documents; yield what became of each.

    Raises:
        PlatformError: the platform cannot be read.
    """
    executor = Executor(world.ksqldb, world.platform, world.topology)
    yield from executor.apply(_services(world), lambda _action: False)
    if not keep_streams:
        yield from _drop_streams(world, executor)
    registries = [RemoveRegistry(live) for live in world.platform.observe().registries]
    yield from executor.apply(registries, lambda _action: False)


def remove_records(records: Records) -> None:
    """Remove what operators agreed on; those that still run keep to a pause that they have seen.

    Raises:
        PlatformError: something is still there.
    """
    for record in records.records().values():
        records.remove_record(record)


def _services(world: World) -> list[RemoveService]:
    owner = world.settings.reconciler_owner
    ours = [live for live in world.platform.observe().services.values() if live.owner == owner]
    ours.sort(key=lambda live: (_ORDER[live.spec.kind] if live.spec else len(_ORDER), live.name))
    return [RemoveService(live, live.spec.group if live.spec else None) for live in ours]


def _drop_streams(world: World, executor: Executor) -> Iterator[Result]:
    """Drop group streams before the shared streams they read; what a stream is, only its lineage says."""
    try:
        streams = world.ksqldb.streams()
        queries = {sink: query for query in world.ksqldb.queries() for sink in query.sinks}
    except KsqlError as error:
        yield Result(DropStream("(all)", None), error)
        return
    tables = sorted(name for name in queries if world.topology.is_groups_table(name))
    groups: list[Action] = [DropGroupsTable(name) for name in tables]
    shared: list[Action] = []
    for stream in streams:
        query = queries.get(stream.name)
        definition = world.topology.definition_of(query.text) if query else None
        if world.topology.is_shared(stream.name):
            shared.append(DropStream(stream.name, None))
        elif stream.name.startswith(STREAM_PREFIX) and definition and world.topology.is_shared(definition.source):
            groups.append(DropStream(stream.name, stream.name, world.settings.delete_topics))
    yield from executor.apply([*groups, *shared], lambda _action: False)
