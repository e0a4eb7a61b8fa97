"""Reads everything that a first deployment depends on, and writes nothing: for ``doctor``.

Each read is isolated: what cannot be read is a finding, and the rest is checked all the same.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from openfactory_common.errors import KsqlError, ReconcilerError
from openfactory_common.ksqldb.wire import fold_name
from reconciler.control.observe import Dependencies
from reconciler.control.outcome import explain_error
from reconciler.domain.advice import engine_advice
from reconciler.domain.facts import KsqldbFacts, SourceFacts
from reconciler.domain.installation import Claim, claim, new_id, sift
from reconciler.domain.services import PlatformState
from reconciler.ksqldb.entities import Health, QueryInfo, ServerInfo, StreamInfo
from reconciler.ksqldb.ownership import Whose
from reconciler.planning.diagnosis import (
    Finding,
    Level,
    check_addresses,
    check_engine,
    check_ksqldb,
    check_names,
    check_registry,
    list_images,
)
from reconciler.planning.specs import is_ours
from reconciler.platforms.protocol import Checkable, Inspectable, Reference

T = TypeVar("T")
#: Seconds to look up one address and to connect to it.
_CONNECT_SECONDS = 3.0

Reach = Callable[[str, int], str]


def diagnose(deps: Dependencies, reach: Reach | None = None) -> Iterator[Finding]:
    """Check ksqlDB, the engine and addresses.

    Args:
        deps: what the operator works with.
        reach: returns why a host and port cannot be connected to, ``""`` if they can; None for a real connection.
    """
    settings, reach = deps.settings, reach or connect
    facts, streams = _read_ksqldb(deps)
    groups = facts.membership.groups if isinstance(facts, KsqldbFacts) and facts.membership else {}
    state, claimed = _read_platform(deps, streams)
    if isinstance(facts, KsqldbFacts):
        yield from check_ksqldb(_tell_ours(facts, deps, claimed, state, streams), settings)
    else:
        yield Finding(Level.FAIL, facts, "KSQLDB_URL", "start it, or correct the address")
    yield from _check_engine(deps, groups, reach)
    if isinstance(state, PlatformState):
        yield from check_names(state, settings, groups)
    else:
        yield _explain_platform(state)
    if claimed is not None and claimed.refusal:
        yield Finding(Level.FAIL, claimed.refusal, "RECONCILER_OWNER", "adopt it, or use another owner")
    yield from _check_secrets(deps)
    brokers = {one: _reach_broker(one, reach) for one in settings.kafka_broker.split(",")}
    yield from check_addresses(brokers, settings)


def connect(host: str, port: int) -> str:
    """Return why no TCP connection is accepted there, ``""`` if one is."""
    try:
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _reach_broker(broker: str, reach: Reach) -> str:
    host, _, port = broker.rpartition(":")
    return reach(host.strip("[]"), int(port))


def _read_ksqldb(deps: Dependencies) -> tuple[KsqldbFacts | str, dict[str, str]]:
    """Return the facts, or why there are none; and every stream's statement by its name."""
    settings, ksqldb, errors = deps.settings, deps.ksqldb, dict[str, str]()

    def read(what: str, call: Callable[[], T]) -> T | None:
        found = _attempt(call)
        if isinstance(found, Exception):
            errors[what] = _name_error(found)
            return None
        return found

    info = _attempt(ksqldb.info)
    if isinstance(info, Exception):
        return explain_error(info, settings) if isinstance(info, KsqlError) else _name_error(info), {}
    streams = read("the list of streams", ksqldb.streams) or ()
    queries = read("the list of queries", ksqldb.queries) or ()
    names = (
        settings.ksqldb_assets_stream,
        settings.ksqldb_uns_map,
        settings.join_table,
        settings.ksqldb_assets_table,
    )
    facts = KsqldbFacts(
        version=info.version,
        unhealthy=_explain_health(info, read("the health report", ksqldb.health)),
        sources={fold_name(name): read(name, lambda name=name: _describe(deps, fold_name(name))) for name in names},  # type: ignore[misc]
        partitions=read("the list of topics", ksqldb.topics) or {},
        limit=read("the limit of queries", ksqldb.query_limit),
        offset=read("the server's properties", ksqldb.offset_reset) or "",
        membership=read("the UNS map", deps.strategy.read),
        errors=errors,
    )
    return facts, _list_statements(streams, queries)


def _attempt(call: Callable[[], T]) -> T | Exception:
    """Do one read; what cannot be read is a finding, and the rest is checked."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - whatever it is, it has a line
        return error


def _describe(deps: Dependencies, name: str) -> SourceFacts | None:
    found = deps.ksqldb.describe_or_none(name)
    return None if found is None else SourceFacts(found.kind, found.keys, found.topic, found.statement)


def _explain_health(info: ServerInfo, health: Health | None) -> str:
    if info.status != "RUNNING":
        return f"its state is {info.status}"
    parts = () if health is None or health.ready else ("kafka", "metastore", "command_runner")
    bad = [part for part in parts if not getattr(health, part)]
    return f"not healthy: {', '.join(bad) or health.server_state}" if parts and health is not None else ""


def _list_statements(streams: tuple[StreamInfo, ...], queries: tuple[QueryInfo, ...]) -> dict[str, str]:
    texts = {sink: query.text for query in queries if query.type != "PUSH" for sink in query.sinks}
    return {one.name: "" for one in streams} | texts


def _tell_ours(
    facts: KsqldbFacts,
    deps: Dependencies,
    claimed: Claim | None,
    state: PlatformState | Exception,
    streams: Mapping[str, str],
) -> KsqldbFacts:
    """Count the persistent queries that are not of this installation, and find the groups that it serves."""
    ours = replace(deps.topology, installation=claimed.installation) if claimed else deps.topology
    mine = (Whose.SHARED, Whose.GROUP)
    queries = _attempt(deps.ksqldb.queries)
    if isinstance(queries, Exception):  # reported already
        return facts
    others = [
        query
        for query in queries
        if query.type != "PUSH" and not any(ours.ownership(sink, query.text).whose in mine for sink in query.sinks)
    ]
    made = {group for name, text in streams.items() if (group := ours.ownership(name, text).group) is not None}
    services = state.services.values() if isinstance(state, PlatformState) else ()
    made |= {one.spec.group for one in services if one.spec and one.spec.group and is_ours(one, deps.settings)}
    moves = ours.current({name: text or None for name, text in streams.items()}).shared_name not in streams
    return replace(facts, queries=len(others), served=frozenset(made), moves=moves)


def _read_platform(deps: Dependencies, streams: dict[str, str]) -> tuple[PlatformState | Exception, Claim | None]:
    """Return what services there are, those of other installations marked as foreign; and whose all that is."""
    owner = deps.settings.reconciler_owner
    state = _attempt(deps.platform.observe)
    if isinstance(state, Exception):
        return state, None
    claimed = claim(state, streams, owner, fresh=new_id())
    return sift(state, owner, claimed.installation), claimed


def _check_engine(deps: Dependencies, groups: Collection[str], reach: Reach) -> Iterator[Finding]:
    settings, platform, file = deps.settings, deps.platform, deps.groups_file.current
    if not isinstance(platform, Inspectable):
        yield Finding(Level.OK, f"platform {settings.deployment_platform} does not describe its engine: not checked")
        return
    facts = _attempt(lambda: platform.inspect(settings.docker_network, list_images(settings)))
    if isinstance(facts, Exception):
        yield _explain_platform(facts)
        return
    is_local = os.environ.get("DOCKER_HOST", "unix://").startswith("unix://")
    ports = (settings.reconciler_port, settings.routing_layer_port) if is_local else ()
    options = [file.of_service(group, settings) for group in groups]
    yield from check_engine(facts, settings, options, [port for port in ports if not reach("127.0.0.1", port)])
    if settings.deployment_platform == "swarm":
        yield from check_registry(settings, groups, deps.strategy.lookup())


def _explain_platform(error: Exception) -> Finding:
    return Finding(Level.FAIL, _name_error(error), "DOCKER_HOST", "; ".join(engine_advice(str(error), None)[:1]))


def _name_error(error: Exception) -> str:
    """Return an error in its own words; one that is none of ours with its kind, for a report."""
    return str(error) if isinstance(error, ReconcilerError) else f"unexpected {type(error).__name__}: {error}"


def _check_secrets(deps: Dependencies) -> Iterator[Finding]:
    secrets, platform = deps.settings.secrets, deps.platform
    if not secrets or not isinstance(platform, Checkable):
        return
    missing = _attempt(lambda: platform.missing_references(Reference.SECRET, tuple(secrets)))
    if isinstance(missing, Exception):
        yield _explain_platform(missing)
        return
    for name, variable in secrets.items():
        if name in missing:
            what, _, cure = missing[name].partition("; ")
            yield Finding(Level.FAIL, f"secret {name} {what}", variable, cure)
        else:
            yield Finding(Level.OK, f"secret {name}", variable)
