"""Plan the registry: which document should be current, and which may be removed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

from openfactory_common.errors import RegistryError
from openfactory_common.registry import Registry, list_replaced
from reconciler.domain.actions import Action, PublishRegistry, RemoveRegistry
from reconciler.domain.services import is_named
from reconciler.domain.status import Guard, Refusal
from reconciler.planning.guards import Verdict
from reconciler.planning.inputs import PlanInputs, PlannedObject
from reconciler.planning.sleep import Sleep
from reconciler.planning.specs import HostPorts, state_api_name
from reconciler.planning.survey import Survey, sort_newest_first
from reconciler.settings import Settings


def make_registry(
    survey: Survey,
    verdict: Verdict,
    inputs: PlanInputs,
    ports: HostPorts,
    groups: Iterable[PlannedObject],
    asleep: Mapping[str, Sleep],
) -> Registry | None:
    """Return the document that should be current: what was published and may stay, and what has become ready.

    A ready group stays while its service restarts, so a short restart disconnects no client. One that is to sleep is
    only marked, and one that has no asset keeps its mark until it is retired. The entry of a group of which nothing is
    written stays as it is, and one that is not there is not added; but one that wakes gets its own back.
    """
    settings = inputs.settings
    document = survey.published.document if survey.published else None
    published, marks = (document.groups, document.asleep) if document else ({}, {})
    held = inputs.held.keys()
    stay = held | (survey.missing - verdict.retire)
    kept = {group: since for group, since in marks.items() if group in stay - survey.wanted.keys()}
    urls = {group: url for group, url in published.items() if group in stay}
    for group in groups:
        names = group.item.names
        if names is None or names.group in asleep:
            continue
        wakes = names.group in held and names.group in marks
        if wakes and not group.item.serves:
            kept[names.group] = marks[names.group]
        elif (wakes or names.group not in held) and (group.item.serves or names.group in published):
            port = ports.of(names.service)
            local = f"http://{settings.swarm_node_host}:{port}/asset_stream"
            urls[names.group] = names.url(settings.fastapi_group_port) if port is None else local
    if not urls and survey.published is None:
        return None
    state_api = state_api_name(settings)
    port = ports.of(state_api)
    host = f"{state_api}:{settings.state_api_port}" if port is None else f"{settings.swarm_node_host}:{port}"
    return Registry(
        identity=survey.identity,
        replaces=list_replaced(survey.published.document if survey.published else None, survey.identity),
        groups=urls,
        asleep=kept | {group: sleep.since for group, sleep in asleep.items()},
        state_api=f"http://{host}/asset_state",
        membership=inputs.lookup,
        installation=inputs.topology.installation.id,
    )


def keep_within_limits(registry: Registry | None, survey: Survey) -> tuple[Registry | None, tuple[Refusal, ...]]:
    """Keep the published document where no proxy would accept the next one, or no config could hold it."""
    refusals: tuple[Refusal, ...] = ()
    for document in (registry, survey.published.document if survey.published else None):
        try:
            if document is not None:
                document.canonical()
        except RegistryError as error:
            refusals = refusals or (Refusal(Guard.SIZE, str(error)),)
        else:
            return document, refusals
    return None, refusals


def plan_publication(survey: Survey, registry: Registry | None) -> list[Action]:
    """Publish the document unless it is the only current one.

    Also over a newer one that cannot be read, and over another one of an equal or higher number, which a program that
    was rolled back or a late write has left: otherwise it would be undefined which of the two is current.
    """
    if registry is None:
        return []
    registries, published = survey.observed.platform.registries, survey.published
    # By its bytes: one that has fields of a newer operator, or an older form, is another document.
    if published is not None and published.live.data == registry.canonical():
        current = published.live
        if not any(live.sequence >= current.sequence for live in registries if live.name != current.name):
            return []
    newest = max((live.sequence for live in registries), default=0)
    woken = published.document.asleep.keys() - registry.asleep.keys() - survey.missing if published else ()
    return [PublishRegistry(registry, max(newest, 0) + 1, len(woken))]


def plan_registry_cleanup(survey: Survey, inputs: PlanInputs, registry: Registry | None) -> list[Action]:
    """Remove all but the newest documents.

    Never the current one or the next, one that a service mounts, or the one that made that outdated.
    """
    registries = sort_newest_first(survey.observed.platform.registries)
    needed = {live.name for live in registries if live.mounted}
    needed |= {newer.name for newer, older in pairwise(registries) if older.mounted}
    if survey.published is not None:
        needed.add(survey.published.live.name)
    if registry is not None:
        needed.add(registry_name(inputs.settings, registry))
    prefix = inputs.settings.resource_prefix
    stale = (live for live in registries[inputs.settings.registry_keep :] if is_named(live, prefix))
    return [RemoveRegistry(live) for live in stale if live.name not in needed]


def registry_name(settings: Settings, registry: Registry) -> str:
    """Return the name under which a document is published."""
    return f"{settings.resource_prefix}_registry-{registry.revision}"
