"""From observed and desired state to the actions of a cycle: one pure function.

Actions run in the order of the plan. A group is created as stream -> service -> running task -> registry, and removed
as registry -> drain time -> service -> stream. Each step is decided from what is observed, so the next cycle continues
an interrupted one.
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
    QueryAction,
    RecordInstallation,
    RemoveService,
    ResumeStream,
    UpdateService,
)
from reconciler.domain.names import GroupNames
from reconciler.domain.services import LiveService, apply_in_place, drift
from reconciler.domain.status import Condition, Guard, ObjectStatus, Plan, Reason, Refusal
from reconciler.planning.guards import Verdict, may_lack_level
from reconciler.planning.inputs import (
    IsolatedPlanning,
    PlanInputs,
    PlannedObject,
    add_failure,
    hold,
    make_conflict,
    make_degraded,
)
from reconciler.planning.registry import keep_within_limits, make_registry, plan_publication, plan_registry_cleanup
from reconciler.planning.rollout import leave_out_updates, plan_rollout
from reconciler.planning.services import (
    check_health,
    describe_drift,
    note_no_endpoint,
    note_other_installations,
    note_unmanaged,
    plan_routing_layer,
    plan_service,
)
from reconciler.planning.sleep import Sleep, plan_sleep
from reconciler.planning.specs import (
    HostPorts,
    assign_ports,
    group_spec,
    routing_layer_name,
    state_api_name,
    state_api_spec,
)
from reconciler.planning.streams import (
    add_shared_problem,
    check_offset,
    note_left_tables,
    note_offset,
    note_readers,
    plan_shared_cleanup,
    plan_shared_stream,
    plan_stream,
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

    Every observation gives a plan: the planning of each object is isolated from that of the others.
    """
    settings, claim = inputs.settings, inputs.claim
    parts = IsolatedPlanning(inputs)
    services = [names.service for names in survey.wanted.values()]
    services += [owned.service.name for owned in survey.owned.values() if owned.service]
    ports = assign_ports([*services, state_api_name(settings)], survey.observed.platform.services, settings)
    check = check_offset(survey.shared, inputs)
    shared = parts.plan_object(
        ObjectStatus(f"stream {inputs.topology.shared_name}", Condition.DEGRADED),
        lambda: plan_shared_stream(check, survey, verdict, inputs),
    )
    asleep: Mapping[str, Sleep] = parts.plan_part("sleep", lambda: plan_sleep(survey, inputs), {})
    groups = [
        parts.plan_object(
            _add_group(ObjectStatus("", Condition.DEGRADED), survey, names),
            partial(_plan_group, survey, verdict, inputs, ports, check, shared.item, names, asleep.get(names.group)),
        )
        for names in survey.wanted.values()
    ]
    free = [one for one in groups if one.item.group not in inputs.held]
    waves = parts.plan_part("rollouts", partial(plan_rollout, free, survey, inputs), leave_out_updates(free))
    groups = [*waves, *(one for one in groups if one.item.group in inputs.held)]
    groups += [make_conflict(group, reason) for group, reason in survey.losers.items()]
    leaving = [
        parts.plan_object(item, partial(_plan_leaving, survey, verdict, inputs, item))
        for item in (_make_leaving(survey, verdict, group) for group in sorted(survey.missing))
    ]
    groups, leaving = (
        [
            _hold_group(one, held, survey, inputs, asleep.get(one.item.group or ""))
            if (held := inputs.held.get(one.item.group or "")) is not None
            else one
            for one in some
        ]
        for some in (groups, leaving)
    )
    published = survey.published.document if survey.published else None
    registry, too_large = parts.plan_part(
        "registry",
        lambda: keep_within_limits(make_registry(survey, verdict, inputs, ports, groups, asleep), survey),
        (published, ()),
    )
    state_api = parts.plan_object(
        ObjectStatus(f"service {state_api_name(settings)}", Condition.READY),
        lambda: plan_service(survey, inputs, state_api_spec(settings, ports.of(state_api_name(settings)))),
    )
    routing = parts.plan_object(
        ObjectStatus(f"service {routing_layer_name(settings)}", Condition.READY),
        lambda: plan_routing_layer(survey, inputs, registry),
    )
    of_groups = [action for group in groups for action in group.actions]
    actions = [
        *shared.actions,
        *of_groups,
        *state_api.actions,
        *parts.plan_part("registry's publication", lambda: plan_publication(survey, registry), []),
        *routing.actions,
        *(action for group in leaving for action in group.actions),
        *parts.plan_part("earlier shared streams", lambda: plan_shared_cleanup(survey, inputs, check, of_groups), []),
        *parts.plan_part("earlier registries", lambda: plan_registry_cleanup(survey, inputs, registry), []),
    ]
    full = _check_query_limit(actions, survey, inputs)
    kept = () if verdict.stopped or claim.refusal else _select_permitted(actions, verdict, settings, full=bool(full))
    if not (verdict.stopped or claim.refusal) and (claim.due or (claim.provisional and kept)):
        # Before anything carries the installation's id it is recorded; an id that nothing needs is not.
        kept = (RecordInstallation(claim.installation, claim.before), *kept)
    others = [one for one in (state_api, routing) if one.item.detail != "-"]
    others += [shared] if shared.item.condition is not Condition.READY else []
    later = sum(one.later != "" for one in groups)
    notes = parts.plan_part(
        "notes", lambda: tuple(_make_notes(survey, kept, (state_api, routing, shared), inputs, later)), ()
    )
    before = published.groups if published else {}
    after = registry.groups if registry else before
    return Plan(
        actions=kept,
        items=(
            *sorted((_mark_held(one, kept, settings) for one in (*groups, *leaving)), key=lambda one: one.group or ""),
            *(_mark_held(one, kept, settings) for one in others),
        ),
        registry=registry,
        registry_before=revision_of(survey.published.live.data) if survey.published else None,
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        refusals=(
            *((Refusal(Guard.INSTALLATION, claim.refusal, stops=True),) if claim.refusal else ()),
            *verdict.refusals,
            *((Refusal(Guard.OPTIONS, inputs.options_problem),) if inputs.options_problem else ()),
            *((Refusal(Guard.OFFSET, check.detail),) if check.verdict is StreamVerdict.REFUSED else ()),
            *full,
            *too_large,
        ),
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


def _make_notes(
    survey: Survey, kept: Collection[Action], objects: Iterable[PlannedObject], inputs: PlanInputs, later: int
) -> Iterator[str]:
    # Writes that serve all groups and that no item speaks of, such as that of the registry.
    shown = {action.key for one in objects for action in one.actions}
    texts = {**inputs.failures, **inputs.contested}
    keys = dict.fromkeys(action.key for action in kept if action.group is None and action.key not in shown)
    yield from (f"{key}: {texts[key]}" for key in keys if key in texts)
    if later:
        yield f"{later} {'group that sleeps is' if later == 1 else 'groups that sleep are'} updated after waking"
    yield from note_unmanaged(survey, inputs.settings)
    unknown = survey.observed.source.unknown_owners
    if unknown:
        many = len(unknown) > 1
        streams = f"{len(unknown)} streams without running queries" if many else "1 stream without a running query"
        failed = [f"{name}: {error}" for name, error in sorted(unknown.items()) if error]
        why = f" (asking failed: {failed[0]})" if failed else ""
        yield f"Ownership of {streams} is unknown; deletions are suspended until it is determined{why}"
    membership = survey.observed.membership
    if membership.unknown_level and may_lack_level(survey):
        yield f"{membership.unknown_level}; until one has, all are in group {membership.fallback} (UNS_FALLBACK_GROUP)"
    yield from note_other_installations(survey, inputs.settings)
    yield from note_no_endpoint(survey, inputs)
    yield from note_readers(survey)
    yield from note_left_tables(survey, inputs)
    yield from note_offset(kept, inputs)
    yield from inputs.options.find_unmatched(survey.wanted.keys() | survey.losers.keys() | survey.missing)


def _mark_held(planned: PlannedObject, kept: Collection[Action], settings: Settings) -> ObjectStatus:
    """Say of an object whose writes the policy forbids that it is held, not progressing."""
    item = planned.item
    writes = any(action in kept for action in planned.actions)
    if settings.reconcile_policy is Policy.SYNC or not planned.actions or writes:
        return item
    text = f"held by RECONCILE_POLICY={settings.reconcile_policy}: {item.detail}"
    return replace(item, condition=Condition.HELD, detail=text)


def _check_query_limit(actions: Iterable[Action], survey: Survey, inputs: PlanInputs) -> tuple[Refusal, ...]:
    """Refuse all new streams before the first of them if they would exceed ksqlDB's limit on queries."""
    new = sum(isinstance(action, (CreateSharedStream, CreateStream)) for action in actions)
    there = len(survey.observed.source.queries)
    if inputs.query_limit is None or there + new <= inputs.query_limit:
        return ()
    text = (
        f"{new} streams are to be created, but ksqlDB has {there} of {inputs.query_limit} persistent queries: raise "
        "ksql.query.persistent.active.limit, or group by a coarser level"
    )
    return (Refusal(Guard.LIMIT, text),)


def _select_permitted(
    actions: Iterable[Action], verdict: Verdict, settings: Settings, *, full: bool
) -> tuple[Action, ...]:
    """Leave out what policy, ksqlDB's health or its limit on queries forbids, and what follows from it for a group."""
    effects = _ALLOWED[settings.reconcile_policy]
    kept: list[Action] = []
    # A group whose stream may not be created now gets nothing else either.
    blocked = {action.group for action in actions if full and isinstance(action, CreateStream)}
    for action in actions:
        if full and isinstance(action, (CreateSharedStream, CreateStream)):
            continue
        if action.effect not in effects or (action.on_ksqldb and not verdict.ddl) or action.group in blocked:
            if action.group is not None and not isinstance(action, ResumeStream):  # as in `Executor.apply`
                blocked.add(action.group)
        else:
            kept.append(action)
    return tuple(kept)


def _plan_group(  # noqa: PLR0913, PLR0917 - what a group depends on
    survey: Survey,
    verdict: Verdict,
    inputs: PlanInputs,
    ports: HostPorts,
    shared: StreamCheck,
    shared_item: ObjectStatus,
    names: GroupNames,
    sleep: Sleep | None,
) -> PlannedObject:
    paused = sleep is not None and sleep.paused
    caught_up = inputs.demand.caught_up if inputs.demand is not None else frozenset()
    behind = sleep is not None and names.group not in caught_up
    stream = plan_stream(survey, verdict, shared, names, inputs.adoption, paused=paused, behind=behind)
    options = inputs.options.of_service(names.group, inputs.settings)
    spec = group_spec(names, inputs.settings, ports.of(names.service), options)
    origins = options.origins
    if sleep is not None and sleep.origin:
        spec = replace(spec, replicas=0 if sleep.stopped else spec.replicas)
        origins = {**origins, "replicas": sleep.origin}
    live, later = survey.owned[names.group].service if names.group in survey.owned else None, ""
    if live is not None and live.spec is not None and (sleep is not None or not live.spec.replicas):
        # Only tasks show whether a spec works: it keeps the one that it has, and is updated when it is awake.
        wanted, spec = spec, apply_in_place(live.spec, spec)
        later = describe_drift(drift(spec, wanted), origins)
    service = plan_service(survey, inputs, spec, origins)
    for one in (stream, service):
        if one.item.condition is Condition.CONFLICT:
            return PlannedObject(_add_group(one.item, survey, names))
    actions = (*stream.actions, *service.actions)
    if not stream.actions and not _is_proven(survey, stream, names):
        actions = tuple(action for action in service.actions if action.effect is not Effect.CREATE)
    if stream.item.condition is Condition.DEGRADED and not stream.actions:
        item = replace(stream.item, running=service.item.running, wanted=service.item.wanted)
    elif stream.item.condition is not Condition.READY:
        detail = ", ".join(filter(None, (stream.item.detail, service.item.detail)))
        item = replace(service.item, condition=Condition.PROGRESSING, change=stream.item.change, serves=False)
        item = replace(item, detail=detail, reason=None)
    else:
        item = service.item
    if sleep is not None and item.condition is Condition.READY:
        detail = f"{sleep.describe()}; updated after its wake: {later}" if later else sleep.describe()
        item = replace(item, condition=Condition.ASLEEP, detail=detail, serves=False)
    item = add_failure(item, actions, inputs)
    if stream.item.condition is Condition.PROGRESSING:
        item = add_shared_problem(item, shared_item)
    return PlannedObject(_add_group(_add_silence(item, survey, inputs, names), survey, names), actions, later)


def _hold_group(
    planned: PlannedObject, why: str, survey: Survey, inputs: PlanInputs, sleep: Sleep | None
) -> PlannedObject:
    """Return a group of which nothing may be written, except what wakes it or keeps its events while it sleeps."""
    item, group = hold(planned, why).item, planned.item.group or ""
    live = survey.owned[group].service if group in survey.owned else None
    if survey.published is None or group not in survey.published.document.asleep.keys() & survey.wanted.keys():
        return PlannedObject(_tell_outage(item, live, survey, inputs))
    actions: list[Action] = [one for one in planned.actions if isinstance(one, QueryAction)]
    if live is not None and live.spec is not None:
        health = check_health(replace(planned.item, wanted=live.spec.replicas), live, inputs)
        item = replace(item, serves=health.serves and not actions)
        update = next((one for one in planned.actions if isinstance(one, UpdateService)), None)
        if update is not None and not live.spec.replicas and update.spec.replicas:
            spec = replace(live.spec, replicas=update.spec.replicas)
            actions.append(replace(update, spec=spec, drift=drift(live.spec, spec)))
    if actions:
        cause = f" ({sleep.wakes})" if sleep is not None and sleep.wakes else ""
        item = replace(item, detail=f"{why}; {', '.join(one.verb.replace('_', ' ') for one in actions)}{cause}")
    return PlannedObject(add_failure(_tell_outage(item, live, survey, inputs), actions, inputs), tuple(actions))


def _tell_outage(item: ObjectStatus, live: LiveService | None, survey: Survey, inputs: PlanInputs) -> ObjectStatus:
    """Say of a paused group that clients ask for, and that cannot serve: a pause hides no outage."""
    document = survey.published.document if survey.published else None
    if document is None or item.group not in (document.groups.keys() | document.asleep.keys()) & survey.wanted.keys():
        return item
    if live is None or live.spec is None:
        return make_degraded(item, f"{item.detail}; it has no service of ours", Reason.PAUSED)
    health = check_health(replace(item, wanted=live.spec.replicas), live, inputs)
    if not live.spec.replicas and item.group not in document.asleep:
        health = make_degraded(item, "its service has no task")
    if item.group in document.asleep and live.spec.replicas and not health.serves:  # it wakes
        return replace(item, condition=health.condition, detail=f"{item.detail}; {health.detail}")
    some = 0 < live.running < live.spec.replicas
    if health.condition is not Condition.DEGRADED or health.serves or some:
        return item
    return make_degraded(item, f"{item.detail}; clients are not served: {health.detail}", Reason.PAUSED)


def _add_silence(item: ObjectStatus, survey: Survey, inputs: PlanInputs, names: GroupNames) -> ObjectStatus:
    """Say of a group that is ready otherwise that no events come out of its stream, or of the shared one."""
    text = inputs.silent.get("") or inputs.silent.get(names.group)
    if item.condition is not Condition.READY or not text:
        return item
    stream = inputs.topology.shared_name if "" in inputs.silent else names.stream
    query = survey.observed.source.queries.get(stream)
    cure = f"`TERMINATE {query.id};` in ksqlDB lets the operator create it again" if query else "it is created again"
    return make_degraded(item, f"Silent: stream {stream}: {text}; {cure}", Reason.SILENT)


def _is_proven(survey: Survey, stream: PlannedObject, names: GroupNames) -> bool:
    """Whether the group's stream exists and is ours; where its query is not listed, only the registry can tell."""
    if names.stream not in survey.observed.source.streams:
        return False
    silent = survey.streams[names.group].verdict is StreamVerdict.SILENT
    owned = survey.owned.get(names.group)
    served = owned is not None and owned.url is not None
    return served or not (silent or stream.item.condition is Condition.DEGRADED)


def _add_group(item: ObjectStatus, survey: Survey, names: GroupNames) -> ObjectStatus:
    owned = survey.owned.get(names.group)
    return replace(
        item,
        title=f"group {names.group}",
        group=names.group,
        names=names,
        members=survey.observed.membership.groups.get(names.group, 0),
        url=owned.url if owned else None,
    )


def _make_leaving(survey: Survey, verdict: Verdict, group: str) -> ObjectStatus:
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


def _plan_leaving(survey: Survey, verdict: Verdict, inputs: PlanInputs, item: ObjectStatus) -> PlannedObject:
    """Remove what is left of a group without assets, one step a cycle: registry, drain time, service, stream."""
    group = item.group or ""
    owned = survey.owned[group]
    if group not in verdict.retire:
        held = verdict.held or group in verdict.kept
        return PlannedObject(replace(item, condition=Condition.HELD) if held else item)
    action: Action
    if owned.url is not None:
        return PlannedObject(replace(item, change="-", detail="leaves the registry"))
    if owned.service is not None:
        if group not in verdict.drained:
            return PlannedObject(replace(item, change="-", detail="is being drained"))
        action, detail = RemoveService(owned.service, group), f"remove service {owned.service.name}"
    elif owned.stream is not None:
        action = DropStream(owned.stream, group, inputs.settings.delete_topics)
        detail = f"drop stream {owned.stream}"
    else:
        return PlannedObject(item)
    item = add_failure(replace(item, change="-", detail=detail), (action,), inputs)
    return PlannedObject(replace(item, condition=Condition.LEAVING), (action,))
