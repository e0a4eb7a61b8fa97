"""From what is and what should be to what is to be done: one pure function.

The order of effects is the order of the actions. A group is created as stream -> service -> running task -> registry,
and removed as registry -> drain time -> service -> stream; each step is decided from what is observed, so an
interruption anywhere is continued by the next cycle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from openfactory_common.registry import revision_of
from reconciler.domain.actions import (
    Action,
    CreateSharedStream,
    CreateStream,
    DropStream,
    Effect,
    RecordInstallation,
    RemoveService,
)
from reconciler.domain.installation import Claim
from reconciler.domain.names import GroupNames
from reconciler.domain.status import Condition, Guard, ObjectStatus, Plan, Reason, Refusal
from reconciler.planning.guards import Verdict
from reconciler.planning.inputs import IsolatedPlanning, PlanInputs, PlannedObject, conflict, failing
from reconciler.planning.registry import fitting, next_registry, old_registries, publish
from reconciler.planning.services import left_alone, of_other_installations, plan_service, routing_step
from reconciler.planning.specs import (
    HostPorts,
    assign_ports,
    group_spec,
    routing_layer_name,
    state_api_name,
    state_api_spec,
)
from reconciler.planning.streams import (
    check_offset,
    kept_for_readers,
    left_tables,
    note_offset,
    old_shared,
    shared_actions,
    shared_step,
    stream_step,
    waiting_for,
)
from reconciler.planning.survey import StreamCheck, StreamVerdict, Survey
from reconciler.settings import Policy, Settings

_ALLOWED = {
    Policy.SYNC: frozenset(Effect),
    Policy.UPSERT_ONLY: frozenset({Effect.CREATE, Effect.UPDATE, Effect.PUBLISH}),
    Policy.CREATE_ONLY: frozenset({Effect.CREATE, Effect.PUBLISH}),
}


def make_plan(survey: Survey, verdict: Verdict, inputs: PlanInputs) -> Plan:
    """Plan one cycle.

    A plan is made whatever was observed: what is planned for one object is isolated from the others.
    """
    parts = IsolatedPlanning(inputs)
    ports = assign_ports(_published_services(survey, inputs), survey.observed.platform.services, inputs.settings)
    shared = check_offset(survey.shared, inputs)
    shared_now = parts.step(
        ObjectStatus(f"stream {inputs.topology.shared_name}", Condition.DEGRADED),
        lambda: shared_step(shared, shared_actions(verdict, shared, survey, inputs), inputs),
    )
    steps = [
        parts.step(
            _described(ObjectStatus("", Condition.DEGRADED), survey, names),
            partial(_group_step, survey, verdict, inputs, ports, shared, shared_now.item, names),
        )
        for names in survey.wanted.values()
    ]
    steps += [conflict(group, reason) for group, reason in survey.losers.items()]
    leaving = [
        parts.step(_leaving_item(survey, verdict, group), partial(_leaving_step, survey, verdict, inputs, group))
        for group in sorted(survey.missing)
    ]
    published = survey.published.document if survey.published else None
    registry, too_large = parts.part(
        "registry", lambda: fitting(next_registry(survey, verdict, inputs, ports, steps), survey), (published, ())
    )
    state_api = parts.step(
        ObjectStatus(f"service {state_api_name(inputs.settings)}", Condition.READY),
        lambda: plan_service(
            survey, inputs, state_api_spec(inputs.settings, ports.of(state_api_name(inputs.settings)))
        ),
    )
    routing = parts.step(
        ObjectStatus(f"service {routing_layer_name(inputs.settings)}", Condition.READY),
        lambda: routing_step(survey, inputs, registry),
    )
    actions = [
        *shared_now.actions,
        *_all(steps),
        *state_api.actions,
        *parts.part("registry's publication", lambda: publish(survey, registry), []),
        *routing.actions,
        *_all(leaving),
        *parts.part("earlier shared streams", lambda: old_shared(survey, inputs, shared, _all(steps)), []),
        *parts.part("earlier registries", lambda: old_registries(survey, inputs, registry), []),
    ]
    full = _no_room(actions, survey, inputs)
    if full:
        actions = [action for action in actions if not isinstance(action, (CreateSharedStream, CreateStream))]
    stopped = verdict.stopped or bool(inputs.claim.refusal)
    kept = () if stopped else _permitted(actions, verdict, inputs.settings, _waiting(full, steps))
    kept = kept if stopped else (*_record(kept, inputs.claim), *kept)
    items = [_held(step, kept, inputs.settings) for step in (*steps, *leaving)]
    items.sort(key=lambda item: item.group or "")
    notes = parts.part("notes", lambda: _notes(survey, kept, (state_api, routing, shared_now), inputs), ())
    before = published.groups if published else {}
    after = registry.groups if registry else before
    return Plan(
        actions=kept,
        items=(
            *items,
            *(_held(step, kept, inputs.settings) for step in (state_api, routing) if step.item.detail != "-"),
            *(_held(shared_now, kept, inputs.settings),)[shared_now.item.condition is Condition.READY :],
        ),
        registry=registry,
        registry_before=revision_of(survey.published.live.data) if survey.published else None,
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        refusals=(*_unclaimed(inputs.claim), *verdict.refusals, *_deaf(shared), *full, *too_large),
        approval=verdict.approval,
        notes=(
            *(f"{name}: {why}" for name, why in survey.unreadable.items()),
            *(f"{key}: {error}" for key, error in parts.left_out.items()),
            *notes,
        ),
        unknown=len(survey.observed.source.unknown_owners),
        bugs=tuple(parts.bugs),
        left_out=frozenset(parts.left_out),
    )


def _notes(
    survey: Survey, kept: Collection[Action], steps: Iterable[PlannedObject], inputs: PlanInputs
) -> tuple[str, ...]:
    return (
        *_failures_of_all(kept, steps, inputs),
        *left_alone(survey, inputs.settings),
        *_unknown_owners(survey.observed.source.unknown_owners),
        *of_other_installations(survey, inputs.settings),
        *kept_for_readers(survey),
        *left_tables(survey, inputs),
        *note_offset(kept, inputs),
    )


def _failures_of_all(actions: Iterable[Action], steps: Iterable[PlannedObject], inputs: PlanInputs) -> Iterator[str]:
    """Say why writes failed that serve all groups and that no item speaks of, such as that of the shared stream."""
    told = {action.key for step in steps for action in step.actions}
    keys = dict.fromkeys(action.key for action in actions if action.group is None and action.key not in told)
    texts = {**inputs.failures, **inputs.contested}
    return (f"{key}: {texts[key]}" for key in keys if key in texts)


def _unknown_owners(unasked: Mapping[str, str]) -> tuple[str, ...]:
    if not unasked:
        return ()
    streams = (
        "1 stream without a running query" if len(unasked) == 1 else f"{len(unasked)} streams without running queries"
    )
    failed = [f"{name}: {error}" for name, error in sorted(unasked.items()) if error]
    why = f" (asking failed: {failed[0]})" if failed else ""
    return (f"Ownership of {streams} is unknown; deletions are suspended until it is determined{why}",)


def _record(kept: Collection[Action], claim: Claim) -> tuple[Action, ...]:
    """Write down which installation this is before anything carries its id; an id that nothing needs is not."""
    if not (claim.due or (claim.provisional and kept)):
        return ()
    return (RecordInstallation(claim.installation, claim.before),)


def _unclaimed(claim: Claim) -> tuple[Refusal, ...]:
    return (Refusal(Guard.INSTALLATION, claim.refusal, stops=True),) if claim.refusal else ()


def _deaf(shared: StreamCheck) -> tuple[Refusal, ...]:
    return (Refusal(Guard.OFFSET, shared.detail),) if shared.verdict is StreamVerdict.REFUSED else ()


def _held(step: PlannedObject, kept: Collection[Action], settings: Settings) -> ObjectStatus:
    """Say of an object whose writes the policy forbids that it is held, not on its way."""
    if settings.reconcile_policy is Policy.SYNC or not step.actions or any(action in kept for action in step.actions):
        return step.item
    text = f"held by RECONCILE_POLICY={settings.reconcile_policy}: {step.item.detail}"
    return replace(step.item, condition=Condition.HELD, detail=text)


def _all(steps: Iterable[PlannedObject]) -> list[Action]:
    return [action for step in steps for action in step.actions]


def _no_room(actions: Iterable[Action], survey: Survey, inputs: PlanInputs) -> tuple[Refusal, ...]:
    """Refuse all new streams before the first of them when ksqlDB's limit on queries would be passed."""
    if inputs.query_limit is None:
        return ()
    new = sum(isinstance(action, (CreateSharedStream, CreateStream)) for action in actions)
    there = len(survey.observed.source.queries)
    if there + new <= inputs.query_limit:
        return ()
    text = (
        f"{new} streams are to be created, but ksqlDB has {there} of {inputs.query_limit} persistent queries: raise "
        "ksql.query.persistent.active.limit, or group by a coarser level"
    )
    return (Refusal(Guard.LIMIT, text),)


def _waiting(full: tuple[Refusal, ...], steps: Iterable[PlannedObject]) -> frozenset[str]:
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


def _group_step(
    survey: Survey,
    verdict: Verdict,
    inputs: PlanInputs,
    ports: HostPorts,
    shared: StreamCheck,
    shared_item: ObjectStatus,
    names: GroupNames,
) -> PlannedObject:
    stream = stream_step(survey, verdict, shared, names)
    service = plan_service(survey, inputs, group_spec(names, inputs.settings, ports.of(names.service)))
    if stream.item.condition is Condition.CONFLICT or service.item.condition is Condition.CONFLICT:
        worst = stream.item if stream.item.condition is Condition.CONFLICT else service.item
        return PlannedObject(_described(worst, survey, names))
    actions = stream.actions + _after_stream(stream, service, proven=_is_proven(survey, stream, names))
    if stream.item.condition is Condition.DEGRADED and not stream.actions:
        item = replace(stream.item, running=service.item.running, wanted=service.item.wanted)
    elif stream.item.condition is not Condition.READY:
        item = replace(service.item, condition=Condition.PROGRESSING, change=stream.item.change, serves=False)
        item = replace(item, detail=_joined(stream.item.detail, service.item.detail))
    else:
        item = service.item
    item = failing(item, actions, inputs)
    if stream.item.condition is Condition.PROGRESSING:
        item = waiting_for(item, shared_item)
    return PlannedObject(_described(_flowing(item, survey, inputs, names), survey, names), actions)


def _flowing(item: ObjectStatus, survey: Survey, inputs: PlanInputs, names: GroupNames) -> ObjectStatus:
    """Say of a group that is in order otherwise that no events come out of its stream, or of the shared one."""
    text = inputs.silent.get("") or inputs.silent.get(names.group)
    if item.condition is not Condition.READY or not text:
        return item
    stream = inputs.topology.shared_name if "" in inputs.silent else names.stream
    query = survey.observed.source.queries.get(stream)
    cure = f"`TERMINATE {query.id};` in ksqlDB lets the operator make it again" if query else "it is made again"
    return replace(
        item,
        condition=Condition.DEGRADED,
        change="!",
        detail=f"Silent: stream {stream}: {text}; {cure}",
        reason=Reason.SILENT,
    )


def _is_proven(survey: Survey, stream: PlannedObject, names: GroupNames) -> bool:
    """Whether the group's stream is there and ours; where its query is not listed, only the registry can tell."""
    if names.stream not in survey.observed.source.streams:
        return False
    silent = survey.streams[names.group].verdict is StreamVerdict.SILENT
    owned = survey.owned.get(names.group)
    served = owned is not None and owned.url is not None
    return served or not (silent or stream.item.condition is Condition.DEGRADED)


def _after_stream(stream: PlannedObject, service: PlannedObject, *, proven: bool) -> tuple[Action, ...]:
    """A service is created only once its stream is proven or is put in order just before it."""
    if not proven and not stream.actions:
        return tuple(action for action in service.actions if action.effect is not Effect.CREATE)
    return service.actions


def _described(item: ObjectStatus, survey: Survey, names: GroupNames) -> ObjectStatus:
    owned = survey.owned.get(names.group)
    return replace(
        item,
        title=f"group {names.group}",
        group=names.group,
        names=names,
        members=survey.observed.membership.groups.get(names.group, 0),
        url=owned.url if owned else None,
    )


def _joined(*details: str) -> str:
    return ", ".join(detail for detail in details if detail)


def _published_services(survey: Survey, inputs: PlanInputs) -> list[str]:
    services = [names.service for names in survey.wanted.values()]
    services += [owned.service.name for owned in survey.owned.values() if owned.service]
    return [*services, state_api_name(inputs.settings)]


def _leaving_item(survey: Survey, verdict: Verdict, group: str) -> ObjectStatus:
    owned = survey.owned[group]
    return ObjectStatus(
        f"group {group}",
        Condition.LEAVING,
        "?",
        verdict.waiting.get(group, ""),
        group=group,
        url=owned.url,
        running=owned.service.running if owned.service else 0,
    )


def _leaving_step(survey: Survey, verdict: Verdict, inputs: PlanInputs, group: str) -> PlannedObject:
    """What is left of a group without assets, one step a cycle: registry, drain time, service, stream."""
    owned, item = survey.owned[group], _leaving_item(survey, verdict, group)
    if group not in verdict.retire:
        return PlannedObject(replace(item, condition=Condition.HELD) if verdict.held else item)
    if owned.url is not None:
        return PlannedObject(replace(item, change="-", detail="leaves the registry"))
    if owned.service is not None:
        if group not in verdict.drained:
            return PlannedObject(replace(item, change="-", detail="is being drained"))
        gone: Action = RemoveService(owned.service, group)
        item = replace(item, change="-", detail=f"remove service {owned.service.name}")
    elif owned.stream is not None:
        gone = DropStream(owned.stream, group, inputs.settings.delete_topics)
        item = replace(item, change="-", detail=f"drop stream {owned.stream}")
    else:
        return PlannedObject(item)
    return PlannedObject(replace(failing(item, (gone,), inputs), condition=Condition.LEAVING), (gone,))
