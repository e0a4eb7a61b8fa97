"""What services need: to be created, put right, or left alone. Pure."""

from __future__ import annotations

from dataclasses import replace

from reconciler.desired import routing_layer_name, routing_layer_spec, state_api_name
from reconciler.model import Condition, CreateService, Item, RemoveService, UpdateService
from reconciler.platforms.base import Kind, LiveRegistry, LiveService, ServiceSpec, drift
from reconciler.registry import Registry
from reconciler.settings import Environment, Settings
from reconciler.steps import Facts, Step, failing
from reconciler.survey import Survey

#: Services that a note names before it says how many more there are.
_NAMED = 5


def service_step(survey: Survey, facts: Facts, spec: ServiceSpec) -> Step:
    """What a service needs: to be created, to be repaired, or to be left alone."""
    live = survey.observed.platform.services.get(spec.name.casefold())
    item = Item(f"service {spec.name}", Condition.READY, wanted=spec.replicas)
    if live is None:
        busy = replace(item, condition=Condition.PROGRESSING, mark="+", detail=f"create service {spec.name}")
        create = (CreateService(spec),)
        return Step(failing(busy, create, facts), create)
    conflict = _foreign(live, spec, facts.settings)
    if conflict:
        return Step(replace(item, condition=Condition.CONFLICT, mark="x", detail=conflict))
    differences = drift(live.spec, spec) if live.spec else ()
    item = replace(item, running=live.running)
    if differences:
        text = "; ".join(f"{d.field} {d.live} -> {d.wanted}" for d in differences)
        busy = replace(item, condition=Condition.PROGRESSING, mark="~", detail=f"update service: {text}")
        update = (UpdateService(live, spec, differences),)
        return Step(failing(busy, update, facts), update)
    return Step(_health(item, live))


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
    item = replace(item, serves=live.running >= item.wanted > 0)
    if live.update_state in ("paused", "rollback_paused", "rollback_completed"):
        detail = f"update {live.update_state}: {live.error or 'see docker service ps'}"
        return replace(item, condition=Condition.DEGRADED, mark="!", detail=detail)
    if live.running < item.wanted:
        condition = Condition.DEGRADED if live.error else Condition.PROGRESSING
        waits = live.error or f"{live.running} of {item.wanted} tasks are running and healthy"
        return replace(item, condition=condition, mark="!" if live.error else " ", detail=waits)
    if live.update_state == "updating":  # the tasks of before serve meanwhile, and would for ever
        if live.error:
            return replace(item, condition=Condition.DEGRADED, mark="!", detail=f"update does not go on: {live.error}")
        return replace(item, condition=Condition.PROGRESSING, detail="its update is under way")
    return item


def routing_step(survey: Survey, facts: Facts, registry: Registry | None) -> Step:
    """What the routing layer needs.

    Its mounted registry is only a copy to start from: a mounted config cannot change without a new task, and a new
    task cuts every stream, so the copy is renewed only with another change, or when it is old.
    """
    settings = facts.settings
    if settings.environment is Environment.LOCAL:
        return _no_routing_layer(survey, facts, registry)
    if registry is None:
        return _before_first_registry(survey, settings)
    current = f"{settings.resource_prefix}_registry-{registry.revision}"
    spec = routing_layer_spec(settings, current)
    live = survey.observed.platform.services.get(spec.name.casefold())
    mounted = live.spec.configs if live and live.spec else ()
    if mounted and mounted != spec.configs and not _stale(survey, facts, mounted[0].name):
        patient = replace(spec, configs=mounted)
        if live and live.spec and not drift(live.spec, patient):
            spec = patient
    return service_step(survey, facts, spec)


def _before_first_registry(survey: Survey, settings: Settings) -> Step:
    """Announce the routing layer: it mounts a registry, and the first one is published when a group is ready.

    It is held, not on its way: where no group becomes ready, nothing has to be waited for.
    """
    name = routing_layer_name(settings)
    if not survey.wanted or name.casefold() in survey.observed.platform.services:
        return _hidden(settings)
    detail = f"create service {name}, once a group is ready and the first registry is published"
    return Step(Item(f"service {name}", Condition.HELD, "+", detail, wanted=settings.routing_layer_replicas))


def _no_routing_layer(survey: Survey, facts: Facts, registry: Registry | None) -> Step:
    """Remove a routing layer that another `ENVIRONMENT` left: beside `reconciler runserver` it only holds the port.

    Only one that is ours by label and kind, and only once the registry with the services' new addresses is published,
    so that clients that are sent away find another one to ask.
    """
    live = survey.observed.platform.services.get(routing_layer_name(facts.settings).casefold())
    ours = live and live.spec and live.spec.kind is Kind.ROUTING_LAYER and live.owner == facts.settings.reconciler_owner
    if live is None or not ours:
        return _hidden(facts.settings)
    detail = f"remove service {live.name}: with ENVIRONMENT=local, `reconciler runserver` routes"
    item = Item(f"service {live.name}", Condition.LEAVING, "-", detail, running=live.running)
    if survey.published is None or survey.published.document != registry:
        return Step(item)
    gone = (RemoveService(live, None),)
    return Step(failing(item, gone, facts), gone)


def _hidden(settings: Settings) -> Step:
    return Step(Item(f"service {routing_layer_name(settings)}", Condition.READY, detail="-"))


def _stale(survey: Survey, facts: Facts, mounted: str) -> bool:
    """Whether the mounted document is unknown, or has been out of date for `REGISTRY_ROLL_AFTER`."""
    known = {live.name for live in survey.observed.platform.registries}
    if mounted not in known or survey.published is None:
        return True
    if survey.published.live.name == mounted:
        return False
    return _successor(survey, mounted).name in facts.aged


def _successor(survey: Survey, mounted: str) -> LiveRegistry:
    """The document that made the mounted one out of date."""
    registries = survey.observed.platform.registries
    (sequence,) = (live.sequence for live in registries if live.name == mounted)
    return min((live for live in registries if live.sequence > sequence), key=lambda live: live.sequence)


def left_alone(survey: Survey, settings: Settings) -> tuple[str, ...]:
    """Name the services of ours that no plan touches, as a rule because `RESOURCE_PREFIX` was another one.

    Those of a group without assets go with the group.
    """
    names = sorted(
        live.name
        for live in survey.observed.platform.services.values()
        if live.owner == settings.reconciler_owner
        and not _has_our_prefix(live, settings)
        and not (live.spec and live.spec.group in survey.missing)
    )
    if not names:
        return ()
    many = len(names) > 1
    count, verb, they = (f"{len(names)} services carry", "are", "them") if many else ("1 service carries", "is", "it")
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    text = f"{count} our label under a name of another RESOURCE_PREFIX or none and {verb} left alone: {shown}"
    return (f"{text}; docs/operations.md says how to remove {they}",)


def _has_our_prefix(live: LiveService, settings: Settings) -> bool:
    """Whether it is called as we call services today; another prefix may begin with ours (``ofa``, ``ofa_old``)."""
    name, group = live.name.casefold(), f"{settings.resource_prefix}_group_".casefold()
    others = (routing_layer_name(settings), state_api_name(settings))
    return name.startswith(group) or name in (other.casefold() for other in others)
