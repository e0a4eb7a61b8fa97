"""Which registry document should be current, and which may be forgotten. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from reconciler.desired import HostPorts, state_api_name
from reconciler.errors import RegistryError
from reconciler.guards import Verdict
from reconciler.model import Action, PublishRegistry, Refusal, RemoveRegistry
from reconciler.names import GroupNames
from reconciler.platforms.base import is_named
from reconciler.registry import Registry, replaced
from reconciler.settings import Settings
from reconciler.steps import Facts, Step
from reconciler.survey import Survey


def next_registry(
    survey: Survey, verdict: Verdict, facts: Facts, ports: HostPorts, steps: Iterable[Step]
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
        ready = step.item.serves
        if ready or names.group in published:
            urls[names.group] = _url(names, facts.settings, ports)
    if not urls and survey.published is None:
        return None
    return Registry(
        identity=survey.identity,
        replaces=replaced(survey.published.document if survey.published else None, survey.identity),
        groups=urls,
        state_api=_state_url(facts.settings, ports),
        membership=facts.lookup,
    )


def fitting(registry: Registry | None, survey: Survey) -> tuple[Registry | None, tuple[Refusal, ...]]:
    """Keep the published document where no proxy would take the next one, or no config could hold it."""
    refusals: tuple[Refusal, ...] = ()
    for document in (registry, survey.published.document if survey.published else None):
        try:
            if document is not None:
                document.canonical()
        except RegistryError as error:
            refusals = refusals or (Refusal("size", str(error)),)
        else:
            return document, refusals
    return None, refusals


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


def publish(survey: Survey, registry: Registry | None) -> list[Action]:
    """Publish the document unless it is the current one; also over a newer one that cannot be read."""
    if registry is None:
        return []
    # By its bytes: one that was read without the fields of a newer operator, or in an older form, is another document.
    if survey.published and survey.published.live.data == registry.canonical() and not survey.unreadable:
        return []
    newest = max((live.sequence for live in survey.observed.platform.registries), default=0)
    return [PublishRegistry(registry, newest + 1)]


def old_registries(survey: Survey, facts: Facts) -> list[Action]:
    """Forget all but the newest documents; never one that a service mounts, nor the one that made it out of date."""
    registries = survey.observed.platform.registries
    successors = {newer.name for newer, older in pairwise(registries) if older.mounted}
    prefix = facts.settings.resource_prefix
    stale = (live for live in registries[facts.settings.registry_keep :] if is_named(live, prefix))
    return [RemoveRegistry(live) for live in stale if not live.mounted and live.name not in successors]
