"""What should exist: groups and service specs, from settings and names alone. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from openfactory_common.settings_types import RoutingMode
from reconciler.domain.names import GroupNames, names_of
from reconciler.domain.services import (
    TASK_SLOT,
    ConfigMount,
    Kind,
    LiveService,
    Port,
    Publish,
    SecretMount,
    ServiceSpec,
)
from reconciler.planning.options import GroupOptions, read_variables
from reconciler.settings import Environment, Settings

#: Where the routing layer finds the mounted copy of the registry.
REGISTRY_PATH = "/etc/openfactory/registry.json"
#: Ports that browsers refuse to ask (`ERR_UNSAFE_PORT`): the list of the Fetch standard, section "Port blocking".
REFUSED_BY_BROWSERS = frozenset(
    (
        *(1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109),
        *(110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530),
        *(531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045),
        *(4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
    )
)
#: Seconds that a routing layer has after its drain, for what is still being sent (it takes 2 itself) and a busy node.
_AFTER_DRAIN = 10


def routing_layer_name(settings: Settings) -> str:
    """Name of the routing layer's service."""
    return f"{settings.resource_prefix}_routing_layer"


def state_api_name(settings: Settings) -> str:
    """Name of the state API's service."""
    return f"{settings.resource_prefix}_state_api"


def is_ours(live: LiveService, settings: Settings) -> bool:
    """Whether a service is this installation's: by its labels and by the name that follows from them.

    A copy with all our labels under another name is a person's. A service whose labels say no group any more is ours if
    it has the form of a group's name; one that cannot be read (no kind, or not replicated) is not touched.
    """
    if live.owner != settings.reconciler_owner or live.spec is None:
        return False
    name, kind, group = live.name.casefold(), live.spec.kind, live.spec.group
    if kind is Kind.ROUTING_LAYER:
        return name == routing_layer_name(settings).casefold()
    if kind is Kind.STATE_API:
        return name == state_api_name(settings).casefold()
    if group is None:
        return name.startswith(f"{settings.resource_prefix}_group_".casefold())
    return name == names_of(group, settings.resource_prefix).service.casefold()


def group_spec(
    names: GroupNames, settings: Settings, host_port: int | None, options: GroupOptions | None = None
) -> ServiceSpec:
    """The service of one group; ``host_port`` publishes it on the node (`ENVIRONMENT=local`).

    It has its own ``options`` (`GroupFile.of_service`) in place of those that the variables give to all groups.

    Of several tasks each has a consumer group of its own: of one group, all but one task would get no event, as a topic
    has one partition.
    """
    options = options or read_variables(settings, Kind.GROUP)
    slot = f"_{TASK_SLOT}" if (options.replicas or 0) > 1 else ""
    return ServiceSpec(
        name=names.service,
        kind=Kind.GROUP,
        group=names.group,
        env={
            **options.env,
            "GROUP_NAME": names.group,
            "KAFKA_BROKER": settings.kafka_broker,
            "KAFKA_TOPIC": names.topic,
            "KAFKA_CONSUMER_GROUP_ID": f"{names.consumer_group}{slot}",
            "KSQLDB_URL": settings.url_for_services,
            "KSQLDB_STREAM": names.stream,
            "LOG_LEVEL": settings.log_level.value,
            **_name_port(settings.fastapi_group_port, 8000),
            **_name_files(settings.kafka_secrets),
        },
        **_write_options(options, settings),
        ports=_host_port(settings.fastapi_group_port, host_port),
        secrets=_mount(settings.kafka_secrets),
        start_first=host_port is None,
        hardened=settings.fastapi_group_hardened,
    )


def state_api_spec(settings: Settings, host_port: int | None) -> ServiceSpec:
    """The service of the asset state API."""
    options = read_variables(settings, Kind.STATE_API)
    return ServiceSpec(
        name=state_api_name(settings),
        kind=Kind.STATE_API,
        group=None,
        env={
            **options.env,
            "KSQLDB_URL": settings.url_for_services,
            "KSQLDB_ASSETS_TABLE": settings.ksqldb_assets_table,
            "LOG_LEVEL": settings.log_level.value,
            "DEPLOYMENT_PLATFORM": settings.deployment_platform,
            **_name_port(settings.state_api_port, 5555),
            **_name_files(settings.ksqldb_secrets),
        },
        **_write_options(options, settings),
        ports=_host_port(settings.state_api_port, host_port),
        secrets=_mount(settings.ksqldb_secrets),
        start_first=host_port is None,
        hardened=settings.state_api_hardened,
    )


def routing_layer_spec(settings: Settings, registry_name: str) -> ServiceSpec:
    """The service of the routing layer, with the named registry document mounted as its boot copy.

    A port that is published on the node itself is busy until the old task is gone, so an update has to stop it
    first (measured: start-first never finishes there).
    """
    options = read_variables(settings, Kind.ROUTING_LAYER)
    port = settings.routing_layer_port
    published = settings.routing_layer_publish
    return ServiceSpec(
        name=routing_layer_name(settings),
        kind=Kind.ROUTING_LAYER,
        group=None,
        env={
            **options.env,
            "ROUTING_LAYER_PORT": str(port),
            "REGISTRY_FILE": REGISTRY_PATH,
            "RECONCILER_URL": settings.followed_url,
            "KSQLDB_URL": settings.url_for_services,
            "LOG_LEVEL": settings.log_level.value,
            **routing_layer_options(settings),
            **_name_files(settings.routing_layer_secrets),
        },
        **_write_options(options, settings),
        ports=() if published is Publish.NONE else (Port(port, port, published),),
        configs=(ConfigMount(registry_name, REGISTRY_PATH),),
        secrets=_mount(settings.routing_layer_secrets),
        start_first=published is not Publish.HOST,
        stop_grace=_stop_grace(settings.routing_layer_drain_seconds),
        hardened=settings.routing_layer_hardened,
    )


def _write_options(options: GroupOptions, settings: Settings) -> dict[str, Any]:
    """Return the fields of a spec that options are about, except for its variables."""
    check = options.healthcheck
    return {
        "image": options.image,
        "replicas": options.replicas,
        "cpu_limit": options.cpu_limit,
        "cpu_reservation": options.cpu_reservation,
        "memory_limit": options.memory_limit,
        "memory_reservation": options.memory_reservation,
        "constraints": options.constraints,
        "labels": options.labels,
        "network": settings.docker_network,
        "networks": tuple(name for name in options.networks or () if name != settings.docker_network),
        "log_driver": options.log_driver,
        "log_options": options.log_options,
        "healthcheck": check if check is not None and check.command else None,
    }


def routing_layer_options(settings: Settings) -> dict[str, str]:
    """What differs from the program's defaults, in its own variables; one more replaces its tasks at an upgrade."""
    options: dict[str, object] = {
        "CONNECT_TIMEOUT": settings.routing_layer_connect_timeout,
        "HEAD_TIMEOUT": settings.routing_layer_head_timeout,
        "IDLE_TIMEOUT": settings.routing_layer_idle_timeout,
        "LAZY_DEPLOY_WAIT": settings.routing_layer_lazy_deploy_wait,
        "REPLACE_WAIT": settings.routing_layer_replace_wait,
        "DRAIN_SECONDS": settings.routing_layer_drain_seconds,
        "METRICS_PORT": settings.routing_layer_metrics_port,
        "CLIENT_HEAD_TIMEOUT": settings.routing_layer_client_head_timeout,
        "CLIENT_IDLE_TIMEOUT": settings.routing_layer_client_idle_timeout,
        "CONNECTIONS_PER_ADDRESS": settings.routing_layer_connections_per_address,
        "MAX_STREAMS": settings.routing_layer_max_streams,
        "MAX_STREAMS_PER_CLIENT": settings.routing_layer_max_streams_per_client,
        "TRUSTED_PROXIES": settings.routing_layer_trusted_proxies or None,
        "CORS_ORIGINS": settings.routing_layer_cors_origins or None,
        "AUTH_JWKS_URL": settings.routing_layer_auth_jwks_url or None,
        "AUTH_ISSUER": settings.routing_layer_auth_issuer or None,
        "AUTH_AUDIENCE": settings.routing_layer_auth_audience or None,
        "AUTH_COOKIE": settings.routing_layer_auth_cookie or None,
        "AUTH_CLAIM": settings.routing_layer_auth_claim or None,
    }
    if settings.routing_layer_workers > 1:
        options["ROUTING_LAYER_WORKERS"] = settings.routing_layer_workers
    if settings.routing_mode is not RoutingMode.PROXY:
        options["ROUTING_MODE"] = settings.routing_mode.value
    return {
        # Without an exponent, which no program of ours reads in a duration.
        name: f"{Decimal(str(value)).normalize():f}" if isinstance(value, float) else str(value)
        for name, value in options.items()
        if value is not None
    }


def _stop_grace(drain: float | None) -> float:
    """Leave the streams their time to end; in whole seconds, as not every engine has parts of them."""
    return max(ServiceSpec.stop_grace, math.ceil((drain or 0) + _AFTER_DRAIN))


def _mount(secrets: Mapping[str, str]) -> tuple[SecretMount, ...]:
    """Mount secrets, given by the variable that each is the value of."""
    return tuple(sorted(SecretMount(name, _secret_path(variable)) for variable, name in secrets.items()))


def _name_port(port: int, default: int) -> dict[str, str]:
    """Tell an image of ours the port to listen on; left out where it is the image's own default."""
    return {} if port == default else {"PORT": str(port)}


def _name_files(variables: Iterable[str]) -> dict[str, str]:
    """Return the variables that name the files of mounted secrets."""
    return {f"{variable}_FILE": _secret_path(variable) for variable in variables}


def _secret_path(variable: str) -> str:
    return f"/run/secrets/{variable.lower()}"


def _host_port(target: int, published: int | None) -> tuple[Port, ...]:
    return () if published is None else (Port(target, published, Publish.HOST),)


@dataclass(frozen=True)
class HostPorts:
    """Which host port each service has when `ENVIRONMENT=local`; empty in every other environment."""

    by_service: Mapping[str, int]

    def of(self, service: str) -> int | None:
        """The port of ``service``, None where services are not published."""
        return self.by_service.get(service.casefold())


def assign_ports(wanted: Iterable[str], live: Mapping[str, LiveService], settings: Settings) -> HostPorts:
    """Give every wanted service a stable host port.

    A live service keeps the port it has; a new one gets the lowest free port from `FASTAPI_GROUP_PORT_BASE` up that
    browsers do not refuse, in the order of names. So a port never moves while its service exists, and nothing has to be
    remembered. One that browsers refuse, as 6000 was given out once, moves: no page could ever read from it.
    """
    if settings.environment is not Environment.LOCAL:
        return HostPorts({})
    base = settings.fastapi_group_port_base
    held = {
        name: port.published
        for name, service in live.items()
        if service.spec is not None
        for port in service.spec.ports
        if port.mode is Publish.HOST
    }
    ports: dict[str, int] = {}
    for name in sorted({service.casefold() for service in wanted}):
        own = held.get(name)
        taken = set(ports.values()) | {port for holder, port in held.items() if holder != name}
        kept = own is not None and own >= base and own not in REFUSED_BY_BROWSERS
        ports[name] = own if own is not None and kept else _lowest_free(base, taken | REFUSED_BY_BROWSERS)
    return HostPorts(ports)


def _lowest_free(base: int, taken: set[int]) -> int:
    port = base
    while port in taken:
        port += 1
    return port
