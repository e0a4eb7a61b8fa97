"""Plan the services. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from openfactory_common.registry import Registry
from openfactory_common.text import list_some
from reconciler.domain.actions import CreateService, RemoveService, ResubmitService, UpdateService
from reconciler.domain.advice import service_advice
from reconciler.domain.readiness import ReadyState, find_readiness
from reconciler.domain.services import Drift, Kind, LiveService, ServiceSpec, drift
from reconciler.domain.status import Condition, ObjectStatus, Reason
from reconciler.planning.inputs import PlanInputs, PlannedObject, add_failure, make_degraded
from reconciler.planning.options import DEFAULT
from reconciler.planning.registry import registry_name
from reconciler.planning.specs import is_ours, routing_layer_name, routing_layer_spec, state_api_name
from reconciler.planning.survey import Survey
from reconciler.settings import Environment, Settings


def plan_service(
    survey: Survey, inputs: PlanInputs, spec: ServiceSpec, origins: Mapping[str, str] | None = None
) -> PlannedObject:
    """Plan one service: create it, update it, or leave it alone; ``origins`` says where fields of the spec are from."""
    spec = replace(spec, installation=inputs.topology.installation.id)
    live = survey.observed.platform.services.get(spec.name.casefold())
    item = ObjectStatus(f"service {spec.name}", Condition.READY, wanted=spec.replicas)
    action: CreateService | UpdateService
    if live is None:
        action, change, detail = CreateService(spec), "+", f"create service {spec.name}"
    elif (conflict := find_conflict(live, spec, inputs.settings)) and not _is_adopted(live, spec, inputs):
        return PlannedObject(replace(item, condition=Condition.CONFLICT, change="x", detail=conflict))
    else:
        item = replace(item, running=live.running)
        differences = drift(live.spec, spec) if live.spec else ()
        if live.spec and not differences:
            return _plan_surplus(check_health(item, live, inputs), live, spec, inputs)
        # Of one that is not ours there is no spec to compare with.
        text = describe_drift(differences, origins or {}) or "it is adopted"
        action = UpdateService(live, spec, differences, live.failed, live.failure)
        change, detail = "~", f"update service: {text}"
    item = replace(item, condition=Condition.PROGRESSING, change=change, detail=detail)
    return PlannedObject(add_failure(item, (action,), inputs), (action,))


def describe_drift(differences: Iterable[Drift], origins: Mapping[str, str]) -> str:
    """Return what differs, in words; ``origins`` says where fields of the spec are from."""
    sources = {name: f" ({origin})" for name, origin in origins.items() if origin != DEFAULT}
    return "; ".join(f"{one.field} {one.live} -> {one.wanted}{sources.get(one.field, '')}" for one in differences)


def _plan_surplus(item: ObjectStatus, live: LiveService, spec: ServiceSpec, inputs: PlanInputs) -> PlannedObject:
    """Plan a service without drift: where the engine keeps more tasks than wanted, the same spec is written again."""
    if live.name.casefold() not in inputs.surplus:
        return PlannedObject(item)
    cure = (ResubmitService(live, spec, (), live.failed, live.failure),)
    item = replace(item, change="~", detail=f"{item.detail}; its spec is written again")
    return PlannedObject(add_failure(item, cure, inputs), cure)


def _is_adopted(live: LiveService, spec: ServiceSpec, inputs: PlanInputs) -> bool:
    """Whether a person was shown exactly this service and wants it to be ours, and nothing is in the way."""
    adoption = inputs.adoption
    if adoption is None or (adoption.group, adoption.service) != (spec.group, (live.id, live.version)):
        return False
    return not refuse_adoption(live, spec, inputs.settings, inputs.topology.installation.id)


def refuse_adoption(live: LiveService, spec: ServiceSpec, settings: Settings, installation: str) -> str:
    """Return why a service that has the name of one of ours can never become ours; ``""`` where it can.

    One can that has no owner, or our own labels without the rest: what belongs to others says so in its labels.
    """
    if settings.deployment_platform != "swarm":
        return f"{live.name}: only Swarm's services get labels later; remove it, and the operator creates it"
    if live.owner is None and live.installation not in ("", installation):
        return f"service {live.name} has the label of installation {live.installation}"
    if live.owner is None or (live.owner == settings.reconciler_owner and live.spec is None):
        return ""
    return find_conflict(live, spec, settings)


def find_conflict(live: LiveService, spec: ServiceSpec, settings: Settings) -> str:
    """Return why a service that has the name of one of ours is not it; ``""`` where it is."""
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


def check_health(item: ObjectStatus, live: LiveService, inputs: PlanInputs) -> ObjectStatus:
    """Return the status of a service without drift, in the engine's own words where it does not run."""
    found = find_readiness(inputs.readiness, live.name.casefold())
    crashes = live.converged and live.error  # one that runs now has just ended before
    is_ready = not crashes and (found is None or found.state is not ReadyState.NOT_READY)
    item = replace(item, serves=live.running >= item.wanted > 0 and is_ready)
    if live.update_state in ("paused", "rollback_paused", "rollback_completed"):
        return make_degraded(item, f"update {live.update_state}: {_explain_error(live) or 'see docker service ps'}")
    if live.running < item.wanted:
        if live.error:
            return make_degraded(item, _explain_error(live))
        detail = f"{live.running} of {item.wanted} tasks are running and healthy"
    elif live.update_state == "updating":  # the previous tasks still serve, without a limit of time
        if live.error:
            return make_degraded(item, f"update is stuck: {_explain_error(live)}")
        detail = "its update is in progress"
    elif live.running > item.wanted:  # measured: quick updates one after the other can leave one that nothing stops
        detail = f"{live.running} tasks run, {item.wanted} wanted: an orphan task"
    else:
        return _check_readiness(item, live, inputs)
    detail = f"{detail} ({live.waits})" if live.waits else detail
    if live.name not in inputs.stalled or live.since is None:
        return replace(item, condition=Condition.PROGRESSING, detail=detail)
    causes = service_advice(live) or (f"check `docker service ps {live.name}`",)
    return make_degraded(item, "; ".join((f"no progress since {live.since:%Y-%m-%d %H:%M:%S} UTC: {detail}", *causes)))


def _check_readiness(item: ObjectStatus, live: LiveService, inputs: PlanInputs) -> ObjectStatus:
    """Return the status of a service whose tasks run: whether they serve, they say themselves."""
    if live.error:
        return make_degraded(item, _explain_error(live))
    if item.serves or not item.wanted:
        return item
    key = live.name.casefold()
    found = (inputs.readiness or {}).get(key)
    if found is None:
        return replace(item, condition=Condition.PROGRESSING, detail="its readiness is being checked")
    if key in inputs.starting:
        return replace(item, condition=Condition.PROGRESSING, detail=f"not ready yet: {found.text}")
    return make_degraded(item, f"not ready: {found.text}", Reason.NOT_READY)


def note_no_endpoint(survey: Survey, inputs: PlanInputs) -> Iterator[str]:
    """Name the groups whose image has no readiness endpoint: that their port answers HTTP is all that is known."""
    readiness, services = inputs.readiness or {}, survey.observed.platform.services
    groups = sorted(
        live.spec.group
        for key, found in readiness.items()
        if found.state is ReadyState.READY
        and found.text
        and (live := services.get(key)) is not None
        and live.spec is not None
        and live.spec.group is not None
    )
    if groups:
        yield (
            f"readiness of {list_some(groups)}: the image answers 404 to GET {inputs.settings.fastapi_group_ready_path}"
            " (FASTAPI_GROUP_READY_PATH), so any answer to HTTP counts as ready; set the path of the image's readiness "
            "endpoint, or an empty one if it has none"
        )


def _explain_error(live: LiveService) -> str:
    """Return the engine's words, with advice where nothing else gives it: `why` does for groups.

    Which port is taken is always said, because the engine leaves it out.
    """
    brief = live.spec is None or live.spec.kind is Kind.GROUP
    if not live.error or (brief and "port already" not in live.error):
        return live.error
    return "; ".join((live.error, *service_advice(live)))


def plan_routing_layer(survey: Survey, inputs: PlanInputs, registry: Registry | None) -> PlannedObject:
    """Plan the routing layer.

    Its mounted registry is only a copy to start from: a mounted config cannot change without a new task, and a new
    task cuts every stream, so the copy is renewed only with another change, or when it is old.
    """
    settings = inputs.settings
    name = routing_layer_name(settings)
    live = survey.observed.platform.services.get(name.casefold())
    hidden = PlannedObject(ObjectStatus(f"service {name}", Condition.READY, detail="-"))
    if settings.environment is Environment.LOCAL:
        return _remove_routing_layer(live, survey, inputs, registry) if live is not None else hidden
    if registry is None:
        # It mounts a registry, and the first one is published when a group is ready. Held, not progressing: where no
        # group becomes ready, there is nothing to wait for.
        if not survey.wanted or live is not None:
            return hidden
        detail = f"create service {name}, once a group is ready and the first registry is published"
        wanted = settings.routing_layer_replicas
        return PlannedObject(ObjectStatus(f"service {name}", Condition.HELD, "+", detail, wanted=wanted))
    spec = routing_layer_spec(settings, registry_name(settings, registry))
    mounted = live.spec.configs if live and live.spec else ()
    if live and live.spec and mounted and mounted != spec.configs and not _is_outdated(survey, inputs, mounted[0].name):
        unchanged = replace(spec, configs=mounted)
        # The installation's label restarts nothing, so it is no reason to renew the copy.
        if not drift(replace(live.spec, installation=""), unchanged):
            spec = unchanged
    return plan_service(survey, inputs, spec)


def _remove_routing_layer(
    live: LiveService, survey: Survey, inputs: PlanInputs, registry: Registry | None
) -> PlannedObject:
    """Remove a routing layer that another `ENVIRONMENT` left: beside `reconciler runserver` it only occupies the port.

    Only one that is ours by label and kind, and only once the registry with the services' new addresses is published,
    so that disconnected clients find another one to ask.
    """
    if live.spec is None or live.spec.kind is not Kind.ROUTING_LAYER or live.owner != inputs.settings.reconciler_owner:
        return PlannedObject(ObjectStatus(f"service {live.name}", Condition.READY, detail="-"))
    detail = f"remove service {live.name}: with ENVIRONMENT=local, `reconciler runserver` routes"
    item = ObjectStatus(f"service {live.name}", Condition.LEAVING, "-", detail, running=live.running)
    if survey.published is None or survey.published.document != registry:
        return PlannedObject(item)
    remove = (RemoveService(live, None),)
    return PlannedObject(add_failure(item, remove, inputs), remove)


def _is_outdated(survey: Survey, inputs: PlanInputs, mounted: str) -> bool:
    """Whether the mounted document is unknown, or has been outdated for `REGISTRY_ROLL_AFTER`.

    None is while there is no newer one: then the mounted one cannot be read here, or has the number of the current
    one, and the next publication makes it outdated.
    """
    registries = survey.observed.platform.registries
    known = next((live for live in registries if live.name == mounted), None)
    if known is None or survey.published is None:
        return True
    newer = [live for live in registries if live.sequence > known.sequence]
    successor = min(newer, key=lambda live: live.sequence, default=None)
    return survey.published.live.name != mounted and successor is not None and successor.name in inputs.aged


def note_unmanaged(survey: Survey, settings: Settings) -> Iterator[str]:
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
    if names:
        many = len(names) > 1
        count, verb, they = (
            (f"{len(names)} services carry", "are", "them") if many else ("1 service carries", "is", "it")
        )
        yield (
            f"{count} our label under a name that is not ours (a copy, or another RESOURCE_PREFIX) and {verb} left "
            f"alone: {list_some(names)}; docs/operations.md says how to remove {they}"
        )


def note_other_installations(survey: Survey, settings: Settings) -> Iterator[str]:
    """Name the services that carry our owner's label and the id of another installation."""
    owner = f"{settings.reconciler_owner}, installation "
    services = survey.observed.platform.services.values()
    names = sorted(live.name for live in services if (live.owner or "").startswith(owner))
    if names:
        yield f"of another installation with our owner id, and left alone: {list_some(names)}"
