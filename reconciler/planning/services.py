"""What services need: to be created, put right, or left alone. Pure."""

from __future__ import annotations

from dataclasses import replace

from openfactory_common.registry import Registry
from reconciler.domain.actions import CreateService, RemoveService, UpdateService
from reconciler.domain.services import Kind, LiveRegistry, LiveService, ServiceSpec, drift
from reconciler.domain.status import Condition, ObjectStatus
from reconciler.planning.inputs import PlanInputs, PlannedObject, failing
from reconciler.planning.registry import registry_name
from reconciler.planning.specs import is_ours, routing_layer_name, routing_layer_spec, state_api_name
from reconciler.planning.survey import Survey
from reconciler.platforms.advice import advice
from reconciler.settings import Environment, Settings

#: Services that a note names before it says how many more there are.
_NAMED = 5


def plan_service(survey: Survey, inputs: PlanInputs, spec: ServiceSpec) -> PlannedObject:
    """What a service needs: to be created, to be repaired, or to be left alone."""
    spec = replace(spec, installation=inputs.topology.installation.id)
    live = survey.observed.platform.services.get(spec.name.casefold())
    item = ObjectStatus(f"service {spec.name}", Condition.READY, wanted=spec.replicas)
    if live is None:
        busy = replace(item, condition=Condition.PROGRESSING, change="+", detail=f"create service {spec.name}")
        create = (CreateService(spec),)
        return PlannedObject(failing(busy, create, inputs), create)
    conflict = _foreign(live, spec, inputs.settings)
    if conflict:
        return PlannedObject(replace(item, condition=Condition.CONFLICT, change="x", detail=conflict))
    differences = drift(live.spec, spec) if live.spec else ()
    item = replace(item, running=live.running)
    if differences:
        text = "; ".join(f"{d.field} {d.live} -> {d.wanted}" for d in differences)
        busy = replace(item, condition=Condition.PROGRESSING, change="~", detail=f"update service: {text}")
        update = (UpdateService(live, spec, differences),)
        return PlannedObject(failing(busy, update, inputs), update)
    return PlannedObject(_health(item, live, inputs))


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


def _health(item: ObjectStatus, live: LiveService, inputs: PlanInputs) -> ObjectStatus:
    """Say how a service without drift fares, in the engine's own words where it does not run."""
    item = replace(item, serves=live.running >= item.wanted > 0)
    if live.update_state in ("paused", "rollback_paused", "rollback_completed"):
        detail = f"update {live.update_state}: {_advised(live) or 'see docker service ps'}"
        return replace(item, condition=Condition.DEGRADED, change="!", detail=detail)
    if live.running < item.wanted:
        if live.error:
            return replace(item, condition=Condition.DEGRADED, change="!", detail=_advised(live))
        return _waiting(item, live, f"{live.running} of {item.wanted} tasks are running and healthy", inputs)
    if live.update_state == "updating":  # the tasks of before serve meanwhile, and would for ever
        if live.error:
            detail = f"update does not go on: {_advised(live)}"
            return replace(item, condition=Condition.DEGRADED, change="!", detail=detail)
        return _waiting(item, live, "its update is under way", inputs)
    if live.running > item.wanted:  # measured: quick updates one after the other can leave one that nothing stops
        return _waiting(item, live, f"{live.running} tasks run, {item.wanted} wanted: an orphan task", inputs)
    return item


def _advised(live: LiveService) -> str:
    """Return the engine's words, with what helps where nothing else says it: `why` does for groups.

    Which port is taken is said in any case, as the engine leaves it out.
    """
    brief = live.spec is None or live.spec.kind is Kind.GROUP
    if not live.error or (brief and "port already" not in live.error):
        return live.error
    return "; ".join((live.error, *advice(live)))


def _waiting(item: ObjectStatus, live: LiveService, detail: str, inputs: PlanInputs) -> ObjectStatus:
    """Say of a service without an error that it is on its way or, once that takes too long, that it is stuck."""
    detail = f"{detail} ({live.waits})" if live.waits else detail
    if live.name not in inputs.stalled or live.since is None:
        return replace(item, condition=Condition.PROGRESSING, detail=detail)
    causes = advice(live) or (f"look at `docker service ps {live.name}`",)
    text = "; ".join((f"no progress since {live.since:%Y-%m-%d %H:%M:%S} UTC: {detail}", *causes))
    return replace(item, condition=Condition.DEGRADED, change="!", detail=text)


def routing_step(survey: Survey, inputs: PlanInputs, registry: Registry | None) -> PlannedObject:
    """What the routing layer needs.

    Its mounted registry is only a copy to start from: a mounted config cannot change without a new task, and a new
    task cuts every stream, so the copy is renewed only with another change, or when it is old.
    """
    settings = inputs.settings
    if settings.environment is Environment.LOCAL:
        return _no_routing_layer(survey, inputs, registry)
    if registry is None:
        return _before_first_registry(survey, settings)
    spec = routing_layer_spec(settings, registry_name(settings, registry))
    live = survey.observed.platform.services.get(spec.name.casefold())
    mounted = live.spec.configs if live and live.spec else ()
    if mounted and mounted != spec.configs and not _stale(survey, inputs, mounted[0].name):
        patient = replace(spec, configs=mounted)
        # Its label restarts nothing, so it is no reason to renew the copy.
        if live and live.spec and not drift(replace(live.spec, installation=""), patient):
            spec = patient
    return plan_service(survey, inputs, spec)


def _before_first_registry(survey: Survey, settings: Settings) -> PlannedObject:
    """Announce the routing layer: it mounts a registry, and the first one is published when a group is ready.

    It is held, not on its way: where no group becomes ready, nothing has to be waited for.
    """
    name = routing_layer_name(settings)
    if not survey.wanted or name.casefold() in survey.observed.platform.services:
        return _hidden(settings)
    detail = f"create service {name}, once a group is ready and the first registry is published"
    return PlannedObject(
        ObjectStatus(f"service {name}", Condition.HELD, "+", detail, wanted=settings.routing_layer_replicas)
    )


def _no_routing_layer(survey: Survey, inputs: PlanInputs, registry: Registry | None) -> PlannedObject:
    """Remove a routing layer that another `ENVIRONMENT` left: beside `reconciler runserver` it only holds the port.

    Only one that is ours by label and kind, and only once the registry with the services' new addresses is published,
    so that clients that are sent away find another one to ask.
    """
    live = survey.observed.platform.services.get(routing_layer_name(inputs.settings).casefold())
    ours = (
        live and live.spec and live.spec.kind is Kind.ROUTING_LAYER and live.owner == inputs.settings.reconciler_owner
    )
    if live is None or not ours:
        return _hidden(inputs.settings)
    detail = f"remove service {live.name}: with ENVIRONMENT=local, `reconciler runserver` routes"
    item = ObjectStatus(f"service {live.name}", Condition.LEAVING, "-", detail, running=live.running)
    if survey.published is None or survey.published.document != registry:
        return PlannedObject(item)
    gone = (RemoveService(live, None),)
    return PlannedObject(failing(item, gone, inputs), gone)


def _hidden(settings: Settings) -> PlannedObject:
    return PlannedObject(ObjectStatus(f"service {routing_layer_name(settings)}", Condition.READY, detail="-"))


def _stale(survey: Survey, inputs: PlanInputs, mounted: str) -> bool:
    """Whether the mounted document is unknown, or has been out of date for `REGISTRY_ROLL_AFTER`."""
    known = [live for live in survey.observed.platform.registries if live.name == mounted]
    if not known or survey.published is None:
        return True
    if survey.published.live.name == mounted:
        return False
    successor = _successor(survey, known[0])
    return successor is not None and successor.name in inputs.aged


def _successor(survey: Survey, mounted: LiveRegistry) -> LiveRegistry | None:
    """The document that made the mounted one out of date.

    None while there is no newer one: then the mounted one cannot be read here, or has the number of the current one,
    and the next publication makes it out of date.
    """
    newer = [live for live in survey.observed.platform.registries if live.sequence > mounted.sequence]
    return min(newer, key=lambda live: live.sequence, default=None)


def left_alone(survey: Survey, settings: Settings) -> tuple[str, ...]:
    """Name the services with our label that no plan touches: copies, or those of an earlier `RESOURCE_PREFIX`.

    Not those that have the name of an object that should exist: a conflict is shown there.
    """
    shown = {names.service.casefold() for names in survey.wanted.values()}
    shown |= {routing_layer_name(settings).casefold(), state_api_name(settings).casefold()}
    names = sorted(
        live.name
        for key, live in survey.observed.platform.services.items()
        if live.owner == settings.reconciler_owner and not is_ours(live, settings) and key not in shown
    )
    if not names:
        return ()
    many = len(names) > 1
    count, verb, they = (f"{len(names)} services carry", "are", "them") if many else ("1 service carries", "is", "it")
    listed = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    text = f"{count} our label under a name that is not ours (a copy, or another RESOURCE_PREFIX) and {verb} left alone"
    return (f"{text}: {listed}; docs/operations.md says how to remove {they}",)


def of_other_installations(survey: Survey, settings: Settings) -> tuple[str, ...]:
    """Name the services that carry our owner's label and the id of another installation."""
    owner = f"{settings.reconciler_owner}, installation "
    names = sorted(
        live.name for live in survey.observed.platform.services.values() if (live.owner or "").startswith(owner)
    )
    if not names:
        return ()
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return (f"of another installation with our owner id, and left alone: {shown}",)
