"""From what is and what should be to what is to be done: one pure function.

The order of effects is the order of the actions. A group is created as stream -> service -> running task -> registry,
and removed as registry -> drain time -> service -> stream; each step is decided from what is observed, so an
interruption anywhere is continued by the next cycle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise

from reconciler.desired import (
    HostPorts,
    assign_ports,
    group_spec,
    routing_layer_name,
    routing_layer_spec,
    state_api_name,
    state_api_spec,
)
from reconciler.errors import RegistryError
from reconciler.guards import Verdict
from reconciler.ksqldb.topology import Topology
from reconciler.model import (
    Action,
    Condition,
    CreateGroupsTable,
    CreateService,
    CreateSharedStream,
    CreateStream,
    DropGroupsTable,
    DropStream,
    Effect,
    Item,
    Plan,
    PublishRegistry,
    RebuildSharedStream,
    RecreateStream,
    Refusal,
    RemoveRegistry,
    RemoveService,
    ReplaceStream,
    ResumeStream,
    UpdateService,
)
from reconciler.names import GroupNames
from reconciler.platforms.base import LiveRegistry, LiveService, ServiceSpec, drift
from reconciler.registry import Membership as Lookup
from reconciler.registry import Registry
from reconciler.settings import Environment, Policy, Settings
from reconciler.survey import StreamCheck, StreamVerdict, Survey, is_shared_name

_ALLOWED = {
    Policy.SYNC: frozenset(Effect),
    Policy.UPSERT_ONLY: frozenset({Effect.CREATE, Effect.UPDATE, Effect.PUBLISH}),
    Policy.CREATE_ONLY: frozenset({Effect.CREATE, Effect.PUBLISH}),
}


@dataclass(frozen=True)
class Facts:
    """What a plan depends on besides the survey and the verdict.

    Attributes:
        settings: of the operator.
        topology: the SQL side's names and definitions.
        lookup: how the proxy finds an asset's group.
        now: wall-clock time, to compare with the engine's.
        failures: the last error of every object whose write failed and is waited for.
        query_limit: how many persistent queries ksqlDB allows; None where it was not asked or does not say.
        groups_table: the table of counts should exist.
        groups_lie: it differs from the map for good and has to be made anew.
    """

    settings: Settings
    topology: Topology
    lookup: Lookup
    now: datetime
    failures: Mapping[str, str] = field(default_factory=dict)
    query_limit: int | None = None
    groups_table: bool = False
    groups_lie: bool = False


@dataclass(frozen=True)
class _Step:
    """What one object needs: actions, and how it fares meanwhile."""

    item: Item
    actions: tuple[Action, ...] = ()


def make_plan(survey: Survey, verdict: Verdict, facts: Facts) -> Plan:
    """Plan one cycle."""
    ports = assign_ports(_published_services(survey, facts), survey.observed.platform.services, facts.settings)
    shared = survey.shared
    steps = [_group_step(survey, verdict, facts, ports, shared, names) for names in survey.wanted.values()]
    steps += [_conflict(group, reason) for group, reason in survey.losers.items()]
    leaving = [_leaving_step(survey, verdict, facts, group) for group in sorted(survey.missing)]
    registry, too_large = _fitting(_registry(survey, verdict, facts, ports, steps), survey)
    state_api = _service_step(survey, facts, state_api_spec(facts.settings, ports.of(state_api_name(facts.settings))))
    routing = _routing_step(survey, facts, registry)
    actions = [
        *_shared_actions(verdict, shared, facts),
        *_all(steps),
        *state_api.actions,
        *_publish(survey, registry),
        *routing.actions,
        *_all(leaving),
        *_groups_tables(survey, facts),
        *_old_shared(survey, facts, shared),
        *_old_registries(survey, facts),
    ]
    full = _no_room(actions, survey, facts)
    if full:
        actions = [action for action in actions if not isinstance(action, (CreateSharedStream, CreateStream))]
    kept = () if verdict.stopped else _permitted(actions, verdict, facts.settings, _waiting(full, steps))
    items = [_held(step, kept, facts.settings) for step in (*steps, *leaving)]
    items.sort(key=lambda item: item.group or "")
    before = survey.published.document.groups if survey.published else {}
    after = registry.groups if registry else before
    return Plan(
        actions=kept,
        items=(*items, _held(state_api, kept, facts.settings), *([] if routing.item.detail == "-" else [routing.item])),
        registry=registry,
        registry_before=survey.published.document.revision if survey.published else None,
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        refusals=(*verdict.refusals, *full, *too_large),
        approval=verdict.approval,
        notes=tuple(f"{name}: {why}" for name, why in survey.unreadable.items()),
    )


def _held(step: _Step, kept: Collection[Action], settings: Settings) -> Item:
    """Say of an object whose writes the policy forbids that it is held, not on its way."""
    if settings.reconcile_policy is Policy.SYNC or not step.actions or any(action in kept for action in step.actions):
        return step.item
    text = f"held by RECONCILE_POLICY={settings.reconcile_policy}: {step.item.detail}"
    return replace(step.item, condition=Condition.HELD, detail=text)


def _all(steps: Iterable[_Step]) -> list[Action]:
    return [action for step in steps for action in step.actions]


def _no_room(actions: Iterable[Action], survey: Survey, facts: Facts) -> tuple[Refusal, ...]:
    """Refuse all new streams before the first of them when ksqlDB's limit on queries would be passed."""
    if facts.query_limit is None:
        return ()
    new = sum(isinstance(action, (CreateSharedStream, CreateStream)) for action in actions)
    there = len(survey.observed.source.queries)
    if there + new <= facts.query_limit:
        return ()
    text = (
        f"{new} streams are to be created, but ksqlDB has {there} of {facts.query_limit} persistent queries: raise "
        "ksql.query.persistent.active.limit, or group by a coarser level"
    )
    return (Refusal("limit", text),)


def _waiting(full: tuple[Refusal, ...], steps: Iterable[_Step]) -> frozenset[str]:
    """Groups whose stream may not be created now: nothing else is made for them either."""
    if not full:
        return frozenset()
    return frozenset(a.group for step in steps for a in step.actions if isinstance(a, CreateStream))


def _permitted(
    actions: Iterable[Action], verdict: Verdict, settings: Settings, waiting: frozenset[str]
) -> tuple[Action, ...]:
    """Leave out what the policy or the health of ksqlDB forbids, and what would follow from it for that group."""
    effects = _ALLOWED[settings.reconcile_policy]
    kept: list[Action] = []
    blocked: set[str] = set(waiting)
    for action in actions:
        if action.effect not in effects or (action.on_ksqldb and not verdict.ddl) or action.group in blocked:
            if action.group is not None:
                blocked.add(action.group)
        else:
            kept.append(action)
    return tuple(kept)


# ---- groups that should exist


def _group_step(
    survey: Survey, verdict: Verdict, facts: Facts, ports: HostPorts, shared: StreamCheck, names: GroupNames
) -> _Step:
    stream = _stream_step(survey, verdict, shared, names)
    service = _service_step(survey, facts, group_spec(names, facts.settings, ports.of(names.service)))
    if stream.item.condition is Condition.CONFLICT or service.item.condition is Condition.CONFLICT:
        worst = stream.item if stream.item.condition is Condition.CONFLICT else service.item
        return _Step(_described(worst, survey, names))
    actions = stream.actions + _after_stream(stream, service, absent=names.stream not in survey.observed.source.streams)
    if stream.item.condition is Condition.DEGRADED and not stream.actions:
        item = replace(stream.item, running=service.item.running, wanted=service.item.wanted)
    elif stream.actions:
        item = replace(service.item, condition=Condition.PROGRESSING, mark=stream.item.mark)
        item = replace(item, detail=_joined(stream.item.detail, service.item.detail))
    else:
        item = service.item
    return _Step(_described(_failing(item, actions, facts), survey, names), actions)


def _failing(item: Item, actions: Iterable[Action], facts: Facts) -> Item:
    """Say why a write that is still wanted failed the last time; a failure of what is done meanwhile is history."""
    for action in actions:
        if action.key in facts.failures:
            return replace(item, condition=Condition.DEGRADED, detail=facts.failures[action.key])
    return item


def _after_stream(stream: _Step, service: _Step, *, absent: bool) -> tuple[Action, ...]:
    """A service is created only once its stream exists or is created just before it."""
    if absent and not stream.actions:
        return tuple(action for action in service.actions if action.effect is not Effect.CREATE)
    return service.actions


def _described(item: Item, survey: Survey, names: GroupNames) -> Item:
    owned = survey.owned.get(names.group)
    return replace(
        item,
        title=f"group {names.group}",
        group=names.group,
        names=names,
        members=survey.observed.membership.groups.get(names.group, 0),
        url=owned.url if owned else None,
    )


def _stream_step(survey: Survey, verdict: Verdict, shared: StreamCheck, names: GroupNames) -> _Step:
    """What the group's stream needs."""
    check = survey.streams[names.group]
    if check.verdict is StreamVerdict.FOREIGN:
        return _conflict(names.group, f"{check.detail}, not touched")
    blocked = _shared_trouble(shared)
    if blocked and check.verdict is not StreamVerdict.IN_SYNC:
        return _Step(Item("", Condition.DEGRADED, "!", blocked))
    if check.verdict in (StreamVerdict.MOVED, StreamVerdict.SILENT) and shared.verdict is not StreamVerdict.IN_SYNC:
        # A stream is dropped only when what it is to be made from anew is seen to be there.
        return _Step(_busy("~", f"waits for the shared stream: {check.detail}"))
    if check.verdict is StreamVerdict.SILENT and names.stream not in verdict.silent:
        return _Step(Item("", Condition.DEGRADED, "?", "its query is not listed; waiting to be sure"))
    repair = _stream_repair(check, names)
    if repair is not None:
        return repair
    if check.detail or blocked:
        return _Step(Item("", Condition.DEGRADED, "!", check.detail or blocked))
    return _Step(Item("", Condition.READY))


def _stream_repair(check: StreamCheck, names: GroupNames) -> _Step | None:
    """What puts a stream in order; None where it is in order already."""
    match check.verdict:
        case StreamVerdict.ABSENT:
            return _Step(_busy("+", f"create stream {names.topic}"), (CreateStream(names),))
        case StreamVerdict.CHANGED:
            replacement = ReplaceStream(names, check.detail, retention_ms=check.retention_ms)
            return _Step(_busy("~", f"replace stream: {check.detail}"), (replacement,))
        case StreamVerdict.MOVED:
            move = RecreateStream(names, check.detail, check.retention_ms)
            return _Step(_busy("~", f"move stream: {check.detail}"), (move,))
        case StreamVerdict.PAUSED:
            resume = ResumeStream(names.stream, check.query_id, names.group)
            return _Step(_busy("!", "resume its paused query"), (resume,))
        case StreamVerdict.SILENT:
            again = ReplaceStream(names, check.detail, prove=True)
            return _Step(_busy("!", f"replace stream: {check.detail}"), (again,))
    return None


def _busy(mark: str, detail: str) -> Item:
    return Item("", Condition.PROGRESSING, mark, detail)


def _conflict(group: str, detail: str) -> _Step:
    return _Step(Item(f"group {group}", Condition.CONFLICT, "x", detail, group=group))


def _shared_trouble(shared: StreamCheck) -> str:
    failed = shared.verdict is StreamVerdict.IN_SYNC and shared.detail
    if failed or shared.verdict in (StreamVerdict.FOREIGN, StreamVerdict.SILENT):
        return f"the shared stream: {shared.detail}"
    return ""


def _joined(*details: str) -> str:
    return ", ".join(detail for detail in details if detail)


# ---- services


def _service_step(survey: Survey, facts: Facts, spec: ServiceSpec) -> _Step:
    """What a service needs: to be created, to be repaired, or to be left alone."""
    live = survey.observed.platform.services.get(spec.name.casefold())
    item = Item(f"service {spec.name}", Condition.READY, wanted=spec.replicas)
    if live is None:
        busy = replace(item, condition=Condition.PROGRESSING, mark="+", detail=f"create service {spec.name}")
        create = (CreateService(spec),)
        return _Step(_failing(busy, create, facts), create)
    conflict = _foreign(live, spec, facts.settings)
    if conflict:
        return _Step(replace(item, condition=Condition.CONFLICT, mark="x", detail=conflict))
    differences = drift(live.spec, spec) if live.spec else ()
    item = replace(item, running=live.running)
    if differences:
        text = "; ".join(f"{d.field} {d.live} -> {d.wanted}" for d in differences)
        busy = replace(item, condition=Condition.PROGRESSING, mark="~", detail=f"update service: {text}")
        update = (UpdateService(live, spec, differences),)
        return _Step(_failing(busy, update, facts), update)
    return _Step(_health(item, live))


def _foreign(live: LiveService, spec: ServiceSpec, settings: Settings) -> str:
    if live.owner is None:
        return f"service {live.name} exists without our label, not touched"
    if live.owner != settings.reconciler_owner:
        return f"service {live.name} belongs to owner {live.owner}, not touched"
    if live.spec is None:
        return f"service {live.name} is not a replicated service, or lost its label org.openfactory.kind; not touched"
    if live.spec.kind is not spec.kind:
        return f"service {live.name} is a {live.spec.kind}"
    if live.spec.group not in (None, spec.group):
        return f"service {live.name} still serves group {live.spec.group}"
    return ""


def _health(item: Item, live: LiveService) -> Item:
    """Say how a service without drift fares, in the engine's own words where it does not run."""
    if live.update_state in ("paused", "rollback_paused", "rollback_completed"):
        detail = f"update {live.update_state}: {live.error or 'see docker service ps'}"
        return replace(item, condition=Condition.DEGRADED, mark="!", detail=detail)
    if live.running < item.wanted:
        condition = Condition.DEGRADED if live.error else Condition.PROGRESSING
        waits = live.error or f"{live.running} of {item.wanted} tasks are running and healthy"
        return replace(item, condition=condition, mark="!" if live.error else " ", detail=waits)
    return item


def _published_services(survey: Survey, facts: Facts) -> list[str]:
    services = [names.service for names in survey.wanted.values()]
    services += [owned.service.name for owned in survey.owned.values() if owned.service]
    return [*services, state_api_name(facts.settings)]


def _routing_step(survey: Survey, facts: Facts, registry: Registry | None) -> _Step:
    """What the routing layer needs.

    Its mounted registry is only a copy to start from: a mounted config cannot change without a new task, and a new
    task cuts every stream, so the copy is renewed only with another change, or when it is old.
    """
    settings = facts.settings
    hidden = _Step(Item(f"service {routing_layer_name(settings)}", Condition.READY, detail="-"))
    if settings.environment is Environment.LOCAL or registry is None:
        return hidden
    current = f"{settings.resource_prefix}_registry-{registry.revision}"
    spec = routing_layer_spec(settings, current)
    live = survey.observed.platform.services.get(spec.name.casefold())
    mounted = live.spec.configs if live and live.spec else ()
    if mounted and mounted != spec.configs and not _stale(survey, facts, mounted[0].name):
        patient = replace(spec, configs=mounted)
        if live and live.spec and not drift(live.spec, patient):
            spec = patient
    return _service_step(survey, facts, spec)


def _stale(survey: Survey, facts: Facts, mounted: str) -> bool:
    """Whether the mounted document is unknown, or has been out of date for `REGISTRY_ROLL_AFTER`."""
    known = {live.name for live in survey.observed.platform.registries}
    if mounted not in known or survey.published is None:
        return True
    if survey.published.live.name == mounted:
        return False
    age = (facts.now - _successor(survey, mounted).updated_at).total_seconds()
    return age >= facts.settings.registry_roll_after


def _successor(survey: Survey, mounted: str) -> LiveRegistry:
    """The document that made the mounted one out of date."""
    registries = survey.observed.platform.registries
    (sequence,) = (live.sequence for live in registries if live.name == mounted)
    return min((live for live in registries if live.sequence > sequence), key=lambda live: live.sequence)


# ---- groups that should go


def _leaving_step(survey: Survey, verdict: Verdict, facts: Facts, group: str) -> _Step:
    """What is left of a group without assets, one step a cycle: registry, drain time, service, stream."""
    owned = survey.owned[group]
    item = Item(
        f"group {group}",
        Condition.LEAVING,
        "?",
        verdict.waiting.get(group, ""),
        group=group,
        url=owned.url,
        running=owned.service.running if owned.service else 0,
    )
    if group not in verdict.retire:
        return _Step(replace(item, condition=Condition.HELD) if verdict.held else item)
    if owned.url is not None:
        return _Step(replace(item, mark="-", detail="leaves the registry"))
    if owned.service is not None:
        if group not in verdict.drained:
            return _Step(replace(item, mark="-", detail="is being drained"))
        gone = RemoveService(owned.service, group)
        return _Step(replace(item, mark="-", detail=f"remove service {owned.service.name}"), (gone,))
    if owned.stream is None:
        return _Step(item)
    failure = facts.failures.get(f"stream {owned.stream}")
    drop = DropStream(owned.stream, group, facts.settings.delete_topics)
    return _Step(replace(item, mark="-", detail=failure or f"drop stream {owned.stream}"), (drop,))


# ---- what all groups share


def _shared_actions(verdict: Verdict, shared: StreamCheck, facts: Facts) -> list[Action]:
    name = facts.topology.shared_name
    if shared.verdict is StreamVerdict.SILENT and name in verdict.silent:
        return [RebuildSharedStream(name)]
    if shared.verdict is StreamVerdict.ABSENT:
        return [CreateSharedStream(facts.topology.shared_name)]
    if shared.verdict is StreamVerdict.PAUSED:
        return [ResumeStream(facts.topology.shared_name, shared.query_id, None)]
    return []


def _old_shared(survey: Survey, facts: Facts, shared: StreamCheck) -> list[Action]:
    """Drop the shared streams of earlier definitions that nothing reads any more; their topics run dry."""
    source, topology = survey.observed.source, facts.topology
    if shared.verdict is not StreamVerdict.IN_SYNC:
        return []
    read = set()
    for query in source.queries.values():
        definition = topology.definition_of(query.text)
        if definition is not None:
            read.add(definition.source)
    return [
        DropStream(name, None)
        for name, query in sorted(source.queries.items())
        if is_shared_name(name, topology)
        and name in source.streams
        and name != topology.shared_name
        and name not in read
        and topology.is_shared_form(query.text)
    ]


def _registry(
    survey: Survey, verdict: Verdict, facts: Facts, ports: HostPorts, steps: Iterable[_Step]
) -> Registry | None:
    """The document that should be current: what was published and may stay, and what has become ready.

    A ready group stays while its service restarts, so no client is sent away for a moment's unreadiness.
    """
    published = survey.published.document.groups if survey.published else {}
    urls = {group: url for group, url in published.items() if group in survey.missing and group not in verdict.retire}
    for step in steps:
        names = step.item.names
        if names is None:
            continue
        ready = step.item.condition is Condition.READY and step.item.running > 0
        if ready or names.group in published:
            urls[names.group] = _url(names, facts.settings, ports)
    if not urls and survey.published is None:
        return None
    return Registry(
        identity=survey.identity,
        groups=urls,
        state_api=_state_url(facts.settings, ports),
        membership=facts.lookup,
    )


def _fitting(registry: Registry | None, survey: Survey) -> tuple[Registry | None, tuple[Refusal, ...]]:
    """Keep the published document where the next one would be larger than any config can be."""
    try:
        if registry is not None:
            registry.canonical()
    except RegistryError as error:
        return (survey.published.document if survey.published else None), (Refusal("size", str(error)),)
    return registry, ()


def _url(names: GroupNames, settings: Settings, ports: HostPorts) -> str:
    port = ports.of(names.service)
    if port is None:
        return names.url(settings.fastapi_group_port)
    return f"http://{settings.swarm_node_host}:{port}/asset_stream"


def _state_url(settings: Settings, ports: HostPorts) -> str:
    name = state_api_name(settings)
    port = ports.of(name)
    host = f"{name}:{settings.state_api_port}" if port is None else f"{settings.swarm_node_host}:{port}"
    return f"http://{host}/asset_state"


def _publish(survey: Survey, registry: Registry | None) -> list[Action]:
    if registry is None:
        return []
    if survey.published and survey.published.document == registry and not survey.unreadable:
        return []
    newest = max((live.sequence for live in survey.observed.platform.registries), default=0)
    return [PublishRegistry(registry, newest + 1)]


def _groups_tables(survey: Survey, facts: Facts) -> list[Action]:
    """Keep the table of counts: one where it is wanted, none of another definition, and none that lies."""
    topology, queries = facts.topology, survey.observed.source.queries
    ours = sorted(name for name, query in queries.items() if _counts_groups(name, query.text, topology))
    drop = [name for name in ours if name != topology.groups_table or facts.groups_lie]
    actions: list[Action] = [DropGroupsTable(name) for name in drop]
    if facts.groups_table and topology.groups_table not in queries:
        actions.append(CreateGroupsTable(topology.groups_table))
    return actions


def _counts_groups(name: str, text: str, topology: Topology) -> bool:
    return topology.is_groups_table(name) and topology.is_groups_form(text)


def _old_registries(survey: Survey, facts: Facts) -> list[Action]:
    """Forget all but the newest documents; never one that a service mounts, nor the one that made it out of date."""
    registries = survey.observed.platform.registries
    successors = {newer.name for newer, older in pairwise(registries) if older.mounted}
    stale = registries[facts.settings.registry_keep :]
    return [RemoveRegistry(live) for live in stale if not live.mounted and live.name not in successors]
