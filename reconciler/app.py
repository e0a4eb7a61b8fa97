"""Wiring: settings in, everything that a controller works with out."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from openfactory_common.errors import ConfigurationError
from openfactory_common.ksqldb.levels import Level
from reconciler.control.groups_file import GroupsFile
from reconciler.control.guarded import DryRunLog, withhold_writes
from reconciler.control.observe import Dependencies
from reconciler.control.readiness import ReadinessProber
from reconciler.grouping.base import GroupingStrategy
from reconciler.grouping.unslevel import UNSLevelGroupingStrategy
from reconciler.ksqldb.api import Ksqldb
from reconciler.ksqldb.client import KsqlClient
from reconciler.ksqldb.statements import Topology
from reconciler.metrics import Metrics
from reconciler.platforms.protocol import Platform
from reconciler.settings import Environment, Settings

OnRequest = Callable[[str, str, float], None]


def swarm(settings: Settings, on_request: OnRequest) -> Platform:
    """Make the Docker Swarm platform."""
    from reconciler.platforms.swarm.platform import SwarmPlatform  # noqa: PLC0415 - the Docker SDK takes 200 ms

    return SwarmPlatform(
        settings.reconciler_owner,
        settings.resource_prefix,
        pin_digests=settings.environment is Environment.PRODUCTION,
        on_request=on_request,
    )


def docker(settings: Settings, on_request: OnRequest) -> Platform:
    """Make the platform of plain containers.

    Raises:
        ConfigurationError: a service is to have more or fewer tasks than one.
    """
    from reconciler.platforms.docker.platform import DockerPlatform  # noqa: PLC0415 - the Docker SDK takes 200 ms

    counts = ("routing_layer_replicas", "fastapi_group_replicas", "state_api_replicas")
    wrong = [f"{name.upper()}={getattr(settings, name)}" for name in counts if getattr(settings, name) != 1]
    if wrong:
        raise ConfigurationError(
            f"{', '.join(wrong)}: with DEPLOYMENT_PLATFORM=docker every service is one container: set 1, or use swarm"
        )
    return DockerPlatform(
        settings.reconciler_owner,
        settings.resource_prefix,
        _find_registry_dir(settings),
        on_request=on_request,
    )


def registry_file(settings: Settings) -> Path | None:
    """Return the file that is always the current registry, None on a platform that has none."""
    if settings.deployment_platform != "docker":
        return None
    from reconciler.platforms.docker.spec import REGISTRY_FILE  # noqa: PLC0415 - as above

    return _find_registry_dir(settings) / settings.reconciler_owner / REGISTRY_FILE


def _find_registry_dir(settings: Settings) -> Path:
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return settings.registry_dir or state / "openfactory"


# Built-in ones are named here and not only in the package's metadata, so that a plain copy of the source works too.
_STRATEGIES: dict[str, Callable[[Settings, Ksqldb], GroupingStrategy]] = {"workcenter": UNSLevelGroupingStrategy}
_PLATFORMS: dict[str, Callable[[Settings, OnRequest], Platform]] = {"swarm": swarm, "docker": docker}


def build_dependencies(settings: Settings, metrics: Metrics, withheld: DryRunLog | None = None) -> Dependencies:
    """Make everything that the controller works with; with ``withheld``, writes are recorded there and not done.

    Raises:
        ConfigurationError: `GROUPING_STRATEGY` or `DEPLOYMENT_PLATFORM` names nothing that is installed, or
            `GROUPS_FILE` is wrong.
    """
    password = settings.ksqldb_password.get_secret_value()
    ksqldb = KsqlClient(
        settings.ksqldb_url,
        ca=str(settings.ksqldb_ca_file) if settings.ksqldb_ca_file else None,
        auth=(settings.ksqldb_username, password) if settings.ksqldb_username else None,
        on_request=lambda *request: metrics.request("ksqldb", *request),
    )
    make_strategy = _load_plugin("GROUPING_STRATEGY", "grouping_strategies", settings.grouping_strategy, _STRATEGIES)
    strategy: GroupingStrategy = make_strategy(settings, ksqldb)
    deps = Dependencies(
        settings=settings,
        ksqldb=ksqldb,
        platform=build_platform(settings, metrics),
        strategy=strategy,
        topology=topology_of(settings, strategy.level),
        groups_file=GroupsFile(settings.groups_file),
    )
    return deps if withheld is None else withhold_writes(deps, withheld)


def build_prober(settings: Settings, metrics: Metrics) -> ReadinessProber:
    """Make what asks the services' tasks whether they are ready."""
    return ReadinessProber(settings, lambda result: metrics.probes.labels(result).inc())


def build_platform(settings: Settings, metrics: Metrics) -> Platform:
    """Make one more connection to the platform.

    Raises:
        ConfigurationError: `DEPLOYMENT_PLATFORM` names nothing that is installed.
    """
    make = _load_plugin("DEPLOYMENT_PLATFORM", "deployment_platforms", settings.deployment_platform, _PLATFORMS)
    platform: Platform = make(settings, lambda *request: metrics.request("platform", *request))
    return platform


def topology_of(settings: Settings, level: Level | None = None) -> Topology:
    """Make the SQL side's definitions from the settings and a strategy's level; None for the configured one."""
    return Topology(
        assets_stream=settings.ksqldb_assets_stream,
        join_table=settings.join_table,
        level=level or settings.grouping_level,
        shared_retention_ms=int(settings.shared_retention * 1000),
        group_retention_ms=int(settings.group_retention * 1000),
        owner=settings.reconciler_owner,
    )


def _load_plugin(variable: str, group: str, name: str, built_in: dict[str, Any]) -> Any:
    if name in built_in:
        return built_in[name]
    found = {point.name: point for point in entry_points(group=f"openfactory_routing_layer.{group}")}
    if name not in found:
        known = ", ".join(sorted(built_in.keys() | found.keys()))
        raise ConfigurationError(f"{variable}={name!r}: not installed; installed are: {known}")
    try:
        return found[name].load()
    except (ImportError, AttributeError) as problem:
        raise ConfigurationError(f"{variable}={name!r}: {found[name].value} cannot be loaded: {problem}") from problem
