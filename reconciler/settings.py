"""Every setting, its variable, its default and what it does.

Values come from the environment, then from a ``.env`` file in the working directory; an empty variable is unset, unless
`SET_BY_EMPTY` names it. A variable whose name ends in ``_FILE`` names a file that holds the value (a Swarm secret).

These values reach SQL, service specs, URLs and a terminal, so each variable accepts only what can be valid there: a bad
value is refused in one line before any request is sent.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from dotenv.parser import parse_stream
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from openfactory_common import patterns
from openfactory_common.edge import check_networks, check_origins
from openfactory_common.errors import ConfigurationError
from openfactory_common.ksqldb.levels import Level, parse_level
from openfactory_common.settings_types import (
    CaFile,
    Cores,
    Limit,
    LogLevel,
    Retention,
    RoutingMode,
    Seconds,
    SecretFile,
    Tasks,
    TcpPort,
    TokensFile,
    Wait,
    mask,
    read_text,
    strip_user,
)
from reconciler.domain import service_values
from reconciler.domain.services import Kind, Publish

#: Variables whose value can be in a file, named by a variable with ``_FILE`` after the name.
IN_FILES = ("ksqldb_username", "ksqldb_password")
#: Fields that an empty variable sets. All others are unset by it: ``VAR=`` is what a stack file's ${VAR:-} makes.
SET_BY_EMPTY = frozenset({"fastapi_group_ready_path"})
_SHOWN = 80
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")

Image = Annotated[str, AfterValidator(patterns.image)]
Memory = Annotated[int, BeforeValidator(service_values.memory), Field(ge=0)]


def _check_parts(check: Callable[[Any], object], split: Callable[[str], Any]) -> AfterValidator:
    """Check a text by its parts, and keep it as it is."""

    def validate(text: str) -> str:
        check(split(text))
        return text

    return AfterValidator(validate)


def _check_variables(kind: Kind) -> Callable[[str], str]:
    def validate(text: str) -> str:
        service_values.variables(service_values.split_pairs(text), kind)
        return text

    return validate


Constraints = Annotated[str, _check_parts(service_values.constraints, service_values.split_list)]
Networks = Annotated[str, _check_parts(service_values.networks, service_values.split_list)]
Labels = Annotated[str, _check_parts(service_values.labels, service_values.split_pairs)]
LogOptions = Annotated[str, _check_parts(service_values.log_options, service_values.split_pairs)]


class Environment(StrEnum):
    """Where the operator runs."""

    LOCAL = "local"
    DEVSWARM = "devswarm"
    PRODUCTION = "production"


class Policy(StrEnum):
    """What the loop may do: everything, everything but removing, or only creating."""

    SYNC = "sync"
    UPSERT_ONLY = "upsert-only"
    CREATE_ONLY = "create-only"


class Protect(StrEnum):
    """Which requests to the operator's HTTP server need a token: those that write, or all."""

    WRITES = "writes"
    ALL = "all"


class OnFailure(StrEnum):
    """What happens to a group that does not become ready after an update."""

    ROLLBACK = "rollback"
    HALT = "halt"


class Settings(BaseSettings):
    """The operator's settings. The name of a variable is the field's name in upper case."""

    model_config = SettingsConfigDict(
        env_file=".env",
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    kafka_broker: Annotated[str, AfterValidator(patterns.brokers)]
    """Kafka bootstrap servers, handed to the group services (`host:port`, comma-separated)."""
    ksqldb_url: Annotated[str, Field(pattern=patterns.URL), AfterValidator(patterns.url)]
    """The ksqlDB server as the operator reaches it (`http://host:8088`)."""
    ksqldb_service_url: Annotated[str, Field(pattern=patterns.optional(patterns.URL)), AfterValidator(patterns.url)] = (
        ""
    )
    """The ksqlDB server as the services in the Swarm reach it; empty: `KSQLDB_URL` without user and password."""
    ksqldb_username: str = Field("", pattern=patterns.USERNAME)
    """User name for HTTP basic authentication; empty: none is sent."""
    ksqldb_username_file: SecretFile | None = None
    """A file that holds `KSQLDB_USERNAME` (a Swarm secret)."""
    ksqldb_password: SecretStr = SecretStr("")
    """Password for HTTP basic authentication."""
    ksqldb_password_file: SecretFile | None = None
    """A file that holds `KSQLDB_PASSWORD` (a Swarm secret)."""
    ksqldb_ca_file: CaFile | None = None
    """CA certificates (PEM) to verify an `https` ksqlDB with; empty: the system's."""
    ksqldb_assets_stream: str = Field("enriched_assets_stream", pattern=patterns.NAME)
    """Stream with the events of all assets."""
    ksqldb_assets_table: str = Field("assets", pattern=patterns.NAME)
    """Table with the assets' state, handed to the state API."""
    ksqldb_uns_map: str = Field("asset_to_uns_map", pattern=patterns.NAME)
    """Table that maps assets to UNS levels; groups are read from it."""
    ksqldb_uns_join_table: str = Field("", pattern=patterns.optional(patterns.NAME))
    """Table that events are joined with; empty: `KSQLDB_UNS_MAP`. The raw table loses no event of a new asset."""

    docker_network: str = Field("factory-net", pattern=patterns.NETWORK)
    """Network that the services join: an overlay network; with `DEPLOYMENT_PLATFORM=docker` a bridge network, which is
    created if it is missing."""
    swarm_node_host: Annotated[str, AfterValidator(patterns.host)] = "localhost"
    """Host name or address of a Swarm node, for URLs when `ENVIRONMENT=local`."""

    routing_layer_image: Image = "ghcr.io/openfactoryio/routing-layer:latest"
    """Image of the routing layer."""
    routing_layer_replicas: Tasks = 1
    """Tasks of the routing layer."""
    routing_layer_cpu_limit: Cores = 1.0
    """Cores a routing layer task may use."""
    routing_layer_cpu_reservation: Cores = 0.5
    """Cores a node must have free for a routing layer task."""
    routing_layer_memory_limit: Memory = 0
    """Memory a routing layer task may use (`512m`, `2g`); it is killed where it needs more. 0: no limit."""
    routing_layer_memory_reservation: Memory = 0
    """Memory a node must have free for a routing layer task (`256m`). 0: none."""
    routing_layer_constraints: Constraints = ""
    """Nodes that may run routing layer tasks, comma-separated (`node.labels.gpu==true`): only in a Swarm."""
    routing_layer_labels: Labels = ""
    """Further labels of the routing layer service and its containers (`a=b,c=d`)."""
    routing_layer_env: Annotated[str, AfterValidator(_check_variables(Kind.ROUTING_LAYER))] = ""
    """Further variables of routing layer tasks (`A=b,C=d`), without those that the operator sets itself. Everyone who
    may inspect a service can read them: no passwords."""
    routing_layer_networks: Networks = ""
    """Networks that routing layer tasks join besides `DOCKER_NETWORK`, comma-separated."""
    routing_layer_log_driver: Annotated[str, AfterValidator(service_values.log_driver)] = ""
    """Log driver of routing layer tasks (`json-file`, `journald`); empty: the engine's default."""
    routing_layer_log_options: LogOptions = ""
    """Options of that log driver (`max-size=10m,max-file=3`)."""
    routing_layer_healthcheck: str = ""
    """Shell command by which the engine checks each routing layer task, every 10 s; empty: the image's own check."""
    routing_layer_hardened: bool = True
    """Run the routing layer with a read-only root, a `/tmp` of 64 MiB in memory and no capabilities."""
    routing_layer_port: TcpPort = 5555
    """Port of the routing layer, inside and outside."""
    routing_layer_publish: Publish = Publish.INGRESS
    """How that port is published: `ingress`, `host` (one task a node) or `none`."""
    routing_layer_workers: int = Field(1, ge=1, le=64)
    """Processes of a routing layer task, all on its one port."""
    routing_mode: RoutingMode = RoutingMode.PROXY
    """`proxy`, or `redirect`: the routing layer sends clients on to their group's path."""
    routing_layer_connect_timeout: Limit | None = None
    """Seconds that the routing layer tries to reach a service (its own default: 2)."""
    routing_layer_head_timeout: Limit | None = None
    """Seconds that a service has for the head of its answer (the routing layer's default: 10)."""
    routing_layer_idle_timeout: Limit | None = None
    """Seconds of silence after which the routing layer cuts a stream (its own default: 45)."""
    routing_layer_lazy_deploy_wait: Wait | None = None
    """Seconds that a request waits for a new group's service (the routing layer's default: 10)."""
    routing_layer_replace_wait: Wait | None = None
    """Seconds that a browser's request waits for the service of a new group, or for the next task of one that is gone
    (the routing layer's default: 30)."""
    routing_layer_drain_seconds: Wait | None = None
    """Seconds over which a routing layer that is stopped spreads the ends of its streams (its own default: 10); it is
    killed 10 s later, after 30 s at the earliest. `DRAIN_SECONDS` is another thing: it is about a group's service."""
    routing_layer_metrics_port: TcpPort | None = None
    """Port of its own for the routing layer's `/metrics`, inside the network alone; empty: `ROUTING_LAYER_PORT`."""
    routing_layer_client_head_timeout: Limit | None = None
    """Seconds for the head of a client's request (the routing layer's default: 10)."""
    routing_layer_client_idle_timeout: Limit | None = None
    """Seconds that a client's connection may be idle between two requests (the routing layer's default: 75)."""
    routing_layer_connections_per_address: int | None = Field(None, ge=0)
    """Connections of one client address for each process (the routing layer's default, 0: as many as leave a tenth of
    the room to others)."""
    routing_layer_max_streams: int | None = Field(None, ge=0)
    """Streams of each process of the routing layer (its own default, 0: as many as its descriptors allow)."""
    routing_layer_max_streams_per_client: int | None = Field(None, ge=0)
    """Streams of one client address at the routing layer, for each process (its own default, 0: no limit). With
    `ROUTING_LAYER_PUBLISH=ingress` many clients have one address: leave it at 0."""
    routing_layer_trusted_proxies: Annotated[str, AfterValidator(check_networks)] = ""
    """Addresses and networks of reverse proxies in front of the routing layer, comma-separated. Their `X-Forwarded-For`
    gives the address of the client; it, `Forwarded` (which is not read) and `X-Real-IP` are passed on to services."""
    routing_layer_cors_origins: Annotated[str, AfterValidator(check_origins)] = ""
    """Origins whose pages may read the routing layer's answers, comma-separated (`https://hmi.plant.example`), or `*`;
    empty: what services say about it is passed on."""
    routing_layer_auth_jwks_url: str = Field("", pattern=patterns.optional(patterns.RESOURCE))
    """Where the routing layer reads the keys of clients' tokens (a JWK set). This, or `ROUTING_LAYER_AUTH_KEYS_SECRET`,
    switches authentication on."""
    routing_layer_auth_keys_secret: str = Field("", pattern=patterns.LABEL)
    """Name of a Swarm secret with the keys of clients' tokens (a JWK set), mounted into the routing layer."""
    routing_layer_auth_ca_secret: str = Field("", pattern=patterns.LABEL)
    """Name of a Swarm secret with the CA certificates (PEM) for `ROUTING_LAYER_AUTH_JWKS_URL`, mounted into the routing
    layer."""
    routing_layer_auth_issuer: str = ""
    """The issuer (`iss`) that clients' tokens must have; required for authentication."""
    routing_layer_auth_audience: str = ""
    """The audience (`aud`) that clients' tokens must have; required for authentication."""
    routing_layer_auth_cookie: str = Field("", pattern=patterns.optional(patterns.COOKIE))
    """The cookie that may have a client's token (the routing layer's default: `openfactory_token`)."""
    routing_layer_auth_claim: str = ""
    """The claim that names a client's assets and groups (the routing layer's default: `openfactory`)."""
    routing_layer_tls_cert_secret: str = Field("", pattern=patterns.LABEL)
    """Name of a Swarm secret with the routing layer's certificate chain (PEM): its port then accepts only TLS."""
    routing_layer_tls_key_secret: str = Field("", pattern=patterns.LABEL)
    """Name of a Swarm secret with the key (PEM) of that certificate."""
    reconciler_token_secret: str = Field("", pattern=patterns.LABEL)
    """Name of a Swarm secret with the operator's token (`RECONCILER_TOKEN_FILE`), mounted into the routing layer, which
    sends it to the operator."""
    ksqldb_username_secret: str = Field("", pattern=patterns.LABEL)
    """Name of a Swarm secret with the user name for ksqlDB, mounted into the routing layer and the state API."""
    ksqldb_password_secret: str = Field("", pattern=patterns.LABEL)
    """Name of a Swarm secret with the password for ksqlDB, mounted into the routing layer and the state API."""
    ksqldb_ca_secret: str = Field("", pattern=patterns.LABEL)
    """Name of a Swarm secret with the CA certificates (PEM) for an `https` ksqlDB, mounted into the routing layer and
    the state API."""
    kafka_config_secret: str = Field("", pattern=patterns.LABEL)
    """Name of a Swarm secret with properties of Kafka's client library (SASL, TLS), mounted into the group services,
    which find its path in `KAFKA_CONFIG_FILE`."""
    kafka_ca_secret: str = Field("", pattern=patterns.LABEL)
    """Name of a Swarm secret with the CA certificates (PEM) of Kafka's brokers, mounted into the group services, which
    find its path in `KAFKA_CA_FILE`."""
    grouping_strategy: str = Field("workcenter", pattern=patterns.PLUGIN)
    """How assets are grouped: `workcenter` (by one UNS level), or the name of an entry point in
    `openfactory_routing_layer.grouping_strategies`."""
    deployment_platform: str = Field("swarm", pattern=patterns.PLUGIN)
    """Where services run: `swarm`, `docker` (plain containers of one engine), or the name of an entry point in
    `openfactory_routing_layer.deployment_platforms`."""

    fastapi_group_image: Image = "ghcr.io/openfactoryio/stream-api-non-replicated:latest"
    """Image of the group services."""
    fastapi_group_replicas: Annotated[Tasks, Field(ge=1)] = 1
    """Tasks of each group service."""
    fastapi_group_cpu_limit: Cores = 1.0
    """Cores a group service task may use."""
    fastapi_group_cpu_reservation: Cores = 0.5
    """Cores a node must have free for a group service task."""
    fastapi_group_memory_limit: Memory = 0
    """Memory a group service task may use (`512m`, `2g`); it is killed where it needs more. 0: no limit."""
    fastapi_group_memory_reservation: Memory = 0
    """Memory a node must have free for a group service task (`256m`). 0: none."""
    fastapi_group_constraints: Constraints = ""
    """Nodes that may run group service tasks, comma-separated (`node.labels.gpu==true`): only in a Swarm."""
    fastapi_group_labels: Labels = ""
    """Further labels of the group services and their containers (`a=b,c=d`)."""
    fastapi_group_env: Annotated[str, AfterValidator(_check_variables(Kind.GROUP))] = ""
    """Further variables of group service tasks (`A=b,C=d`), without those that the operator sets itself. Everyone who
    may inspect a service can read them: no passwords."""
    fastapi_group_networks: Networks = ""
    """Networks that group service tasks join besides `DOCKER_NETWORK`, comma-separated."""
    fastapi_group_log_driver: Annotated[str, AfterValidator(service_values.log_driver)] = ""
    """Log driver of group service tasks (`json-file`, `journald`); empty: the engine's default."""
    fastapi_group_log_options: LogOptions = ""
    """Options of that log driver (`max-size=10m,max-file=3`)."""
    fastapi_group_healthcheck: str = ""
    """Shell command by which the engine checks each group service task, every 10 s; empty: the image's own check."""
    fastapi_group_hardened: bool = False
    """Run the group services with a read-only root, a `/tmp` of 64 MiB in memory and no capabilities; off, as not
    every image runs like that."""
    fastapi_group_port: TcpPort = 8000
    """Port that the group image listens on (the existing system's image: 5555)."""
    fastapi_group_ready_path: str = Field("/ready", pattern=patterns.optional(patterns.PATH))
    """Path that says whether a group service's task is ready: 200, or 503 with the reasons. Empty: any answer to HTTP
    at the port counts. The existing system's image hangs for good when it is asked at `/ready`: an image of its name
    (`stream-api-…`) is never asked there, and at any other path it is."""
    fastapi_group_port_base: TcpPort = 6000
    """First host port for services when `ENVIRONMENT=local`."""
    groups_file: Path | None = None
    """A file (groups.toml) with what single groups, or groups by a pattern, have of their own: image, tasks, CPU,
    memory, nodes, and more; it is read again when it changes. Empty: all groups have the same."""
    uns_fastapi_group_grouping_level: Annotated[str, AfterValidator(patterns.levels)] = "workcenter"
    """UNS level whose values are the groups; several with `/` between them (`area/workcenter`) give groups like
    `A1/Weld`."""
    uns_fallback_group: Annotated[str, AfterValidator(lambda value: value and patterns.level(value))] = ""
    """Group of the assets that are in the map without a value at the level; empty: they are in no group."""

    state_api_image: Image = "ghcr.io/openfactoryio/state-api:latest"
    """Image of the asset state API."""
    state_api_replicas: Tasks = 1
    """Tasks of the state API."""
    state_api_cpu_limit: Cores = 0.5
    """Cores a state API task may use."""
    state_api_cpu_reservation: Cores = 0.25
    """Cores a node must have free for a state API task."""
    state_api_memory_limit: Memory = 0
    """Memory a state API task may use (`512m`, `2g`); it is killed where it needs more. 0: no limit."""
    state_api_memory_reservation: Memory = 0
    """Memory a node must have free for a state API task (`256m`). 0: none."""
    state_api_constraints: Constraints = ""
    """Nodes that may run state API tasks, comma-separated (`node.labels.gpu==true`): only in a Swarm."""
    state_api_labels: Labels = ""
    """Further labels of the state API service and its containers (`a=b,c=d`)."""
    state_api_env: Annotated[str, AfterValidator(_check_variables(Kind.STATE_API))] = ""
    """Further variables of state API tasks (`A=b,C=d`), without those that the operator sets itself. Everyone who may
    inspect a service can read them: no passwords."""
    state_api_networks: Networks = ""
    """Networks that state API tasks join besides `DOCKER_NETWORK`, comma-separated."""
    state_api_log_driver: Annotated[str, AfterValidator(service_values.log_driver)] = ""
    """Log driver of state API tasks (`json-file`, `journald`); empty: the engine's default."""
    state_api_log_options: LogOptions = ""
    """Options of that log driver (`max-size=10m,max-file=3`)."""
    state_api_healthcheck: str = ""
    """Shell command by which the engine checks each state API task, every 10 s; empty: the image's own check."""
    state_api_hardened: bool = False
    """Run the state API with a read-only root, a `/tmp` of 64 MiB in memory and no capabilities; off, as not every
    image runs like that."""
    state_api_port: TcpPort = 5555
    """Port that the state API image listens on."""

    environment: Environment = Environment.PRODUCTION
    """`production` pins images to digests; `devswarm` uses local images as they are; `local` publishes each service
    on a host port and leaves the routing layer to `reconciler runserver`."""
    log_level: LogLevel = LogLevel.INFO
    """Least severe level that is logged, by the operator and by what it deploys."""

    reconciler_owner: str = Field("ofa", pattern=patterns.OWNER)
    """Marks what belongs to this operator (label `org.openfactory.owner`); nothing else is ever changed.
    The shared stream's name begins with it."""
    resource_prefix: str = Field("ofa", pattern=patterns.PREFIX)
    """Start of the names of services and configs (`<prefix>_group_<Group>`)."""
    reconcile_interval: Limit = 10.0
    """Seconds between two cycles when nothing happens."""
    resync_interval: Limit = 300.0
    """Seconds between two lists of the Kafka topics, which find a stream whose topic was deleted."""
    flow_interval: Seconds = 60.0
    """Seconds between two checks whether events come through the streams; `0s` switches them off."""
    progress_deadline: Seconds = 600.0
    """Seconds after which an object that makes no progress, and reports no error, is `Degraded`; 0: never."""
    ready_interval: Limit = 30.0
    """Seconds between two checks whether a service that was ready still is; one that is not is checked each cycle."""
    rollout_bake: Seconds = 10.0
    """Seconds for which a group must be ready after an update before the next groups are updated."""
    rollout_max_parallel: float = Field(0.25, gt=0, le=1)
    """Fraction of the groups (0 to 1) that are updated at once after the first one; at least one."""
    rollout_timeout: Annotated[Seconds, Field(ge=1)] = 120.0
    """Seconds within which an updated group must become ready; after them the rollout halts."""
    rollout_on_failure: OnFailure = OnFailure.ROLLBACK
    """What happens to a group that does not become ready after an update: `rollback` to its previous spec, or `halt`,
    which leaves it as it is."""
    reconcile_policy: Policy = Policy.SYNC
    """`sync`, `upsert-only` (never removes) or `create-only` (never changes either)."""
    lease_seconds: Annotated[Seconds, Field(ge=1, le=600)] = 15.0
    """How long the lease must not have been renewed before another operator of the same owner takes over."""
    reconciler_port: TcpPort = 8080
    """Port of the operator's own HTTP server."""
    reconciler_url: Annotated[str, Field(pattern=patterns.URL), AfterValidator(patterns.url)] = (
        "http://ofa_reconciler:8080"
    )
    """Where the routing layer follows the registry: the operator as the Swarm's services reach it. With
    `DEPLOYMENT_PLATFORM=docker` only if it is set; otherwise the routing layer reads the registry's file. `plan` and
    `why` also ask the operator there, if it is set."""
    reconciler_allowed_hosts: str = Field("", pattern=patterns.optional(patterns.HOSTS))
    """Host names with a dot by which the operator's HTTP server is asked, comma-separated; one that begins with a dot
    stands for all names below it. Addresses, `localhost`, names without a dot, and the hosts of `RECONCILER_URL` and
    `SWARM_NODE_HOST` are always answered."""
    reconciler_token_file: TokensFile | None = None
    """A file with tokens of at least 16 characters, one a line. Requests to the operator's HTTP server need one of them
    (`Authorization: Bearer <token>`); the command line sends the first. It is read again when it changes. Empty:
    everyone who reaches the port may pause the operator."""
    reconciler_protect: Protect = Protect.WRITES
    """What needs one of these tokens: `writes` (reconcile, pause, resume), or `all` but `/healthz`, `/readyz` and
    `/metrics`."""
    prune_reads: int = Field(3, ge=1, le=10_000)
    """Complete, agreeing reads without a group before it may be removed."""
    prune_grace: Seconds = 60.0
    """Seconds these reads must be spread over."""
    prune_max_fraction: float = Field(0.25, ge=0, le=1)
    """Fraction of the groups (0 to 1) that may be missing at once; one always may. More needs `--approve`."""
    drain_seconds: Wait = 10.0
    """Seconds between a group's leaving the registry and the removal of its service. For the routing layer's own
    shutdown see `ROUTING_LAYER_DRAIN_SECONDS`."""
    delete_topics: bool = False
    """Delete a removed group's Kafka topic too."""
    idle_after: Annotated[Seconds, AfterValidator(service_values.idle_time)] = 0.0
    """Seconds without a client after which a group sleeps: no task, and its query is paused, until a client asks for
    it. At least 60; 0: never."""
    shared_retention: Retention = 3600.0
    """How long the shared pre-join topic keeps events."""
    group_retention: Retention = 604800.0
    """How long a group's topic keeps events."""
    registry_keep: int = Field(3, ge=3, le=1_000)
    """Registry documents that are kept (two before the current one make a rollback possible)."""
    registry_roll_after: Seconds = 3600.0
    """Age at which the routing layer's mounted copy of the registry is renewed."""
    registry_dir: Path | None = None
    """Directory of the registry's files when `DEPLOYMENT_PLATFORM=docker`, under the same path for the engine; empty:
    `openfactory` in `XDG_STATE_HOME` or `~/.local/state`."""

    @classmethod
    def settings_customise_sources(cls, _: type[BaseSettings], **sources: Any) -> tuple[Any, ...]:  # type: ignore[override]
        """Leave out empty variables, except those of `SET_BY_EMPTY`; the order of the sources stays."""
        for source in (sources["env_settings"], sources["dotenv_settings"]):
            given = source.env_vars.items()
            source.env_vars = {name: value for name, value in given if value or name in SET_BY_EMPTY}
        return tuple(sources.values())

    @field_validator("*", mode="before")
    @classmethod
    def _is_printable(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.isprintable():
            raise ValueError("characters that cannot be printed are not allowed")
        return value

    @field_validator(
        *(
            "log_level",
            "environment",
            "reconcile_policy",
            "rollout_on_failure",
            "reconciler_protect",
            "routing_layer_publish",
            "routing_mode",
        ),
        mode="before",
    )
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("registry_dir")
    @classmethod
    def _is_absolute(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_absolute():
            raise ValueError("it must begin with /: the engine has another working directory")
        try:
            if value is not None and value.exists() and not value.is_dir():
                raise ValueError("this is no directory")
        except OSError as error:  # a name that is too long, or a directory above it that may not be entered
            raise ValueError(error.strerror or "it cannot be read") from error
        return value

    @model_validator(mode="after")
    def _take_from_files(self) -> Settings:
        for name in IN_FILES:
            path = getattr(self, f"{name}_file")
            if path is None:
                continue
            if name in self.model_fields_set:
                raise ValueError(f"{name.upper()} and {name.upper()}_FILE are both set: use one of them")
            value = read_text(path)
            if name == "ksqldb_username" and not re.match(patterns.USERNAME, value):
                raise ValueError(f"{name.upper()}_FILE: HTTP basic authentication knows no : in a user's name")
            object.__setattr__(self, name, SecretStr(value) if is_secret(name) else value)
        if self.ksqldb_password.get_secret_value() and not self.ksqldb_username:
            raise ValueError("KSQLDB_PASSWORD is set and KSQLDB_USERNAME is not: nothing would be sent")
        return self

    @model_validator(mode="after")
    def _fits_the_platform(self) -> Settings:
        if self.deployment_platform == "docker" and self.secrets:
            raise ValueError(f"{', '.join(self.secrets.values())}: plain containers have no Swarm secrets")
        kinds = ("routing_layer", "fastapi_group", "state_api")
        for kind in kinds:
            if self.deployment_platform == "docker" and getattr(self, f"{kind}_constraints"):
                raise ValueError(f"{kind.upper()}_CONSTRAINTS: plain containers have no nodes to choose from")
            if getattr(self, f"{kind}_log_options") and not getattr(self, f"{kind}_log_driver"):
                raise ValueError(f"{kind.upper()}_LOG_OPTIONS is set and {kind.upper()}_LOG_DRIVER is not")
        if self.ksqldb_password_secret and not self.ksqldb_username_secret:
            raise ValueError("KSQLDB_PASSWORD_SECRET is set and KSQLDB_USERNAME_SECRET is not")
        return self

    @model_validator(mode="after")
    def _is_protected(self) -> Settings:
        """Refuse what would leave open what is meant to be closed."""
        if self.reconciler_protect is Protect.ALL and self.reconciler_token_file is None:
            raise ValueError("RECONCILER_PROTECT=all needs RECONCILER_TOKEN_FILE")
        if bool(self.routing_layer_tls_cert_secret) != bool(self.routing_layer_tls_key_secret):
            raise ValueError("ROUTING_LAYER_TLS_CERT_SECRET and ROUTING_LAYER_TLS_KEY_SECRET: both or none")
        url, keys = self.routing_layer_auth_jwks_url, self.routing_layer_auth_keys_secret
        if url and keys:
            raise ValueError("ROUTING_LAYER_AUTH_JWKS_URL and ROUTING_LAYER_AUTH_KEYS_SECRET: only one of them")
        if self.routing_layer_auth_ca_secret and not url:
            raise ValueError("ROUTING_LAYER_AUTH_CA_SECRET is set and ROUTING_LAYER_AUTH_JWKS_URL is not")
        for name in ("routing_layer_auth_issuer", "routing_layer_auth_audience"):
            if bool(getattr(self, name)) != bool(url or keys):
                one = "ROUTING_LAYER_AUTH_JWKS_URL or ROUTING_LAYER_AUTH_KEYS_SECRET"
                raise ValueError(f"{one}, and {name.upper()}: both or none, or no client would be checked")
        return self

    @model_validator(mode="after")
    def _may_sleep(self) -> Settings:
        """Refuse sleep where nothing knows of the clients, or where it could not be."""
        if self.idle_after and self.routing_mode is RoutingMode.REDIRECT:
            raise ValueError("IDLE_AFTER and ROUTING_MODE=redirect: streams past the routing layer are not known to it")
        if self.idle_after and self.reconcile_policy is Policy.CREATE_ONLY:
            raise ValueError("IDLE_AFTER and RECONCILE_POLICY=create-only: sleep changes services and queries")
        if self.idle_after and self.deployment_platform == "docker":
            raise ValueError("IDLE_AFTER needs DEPLOYMENT_PLATFORM=swarm: a plain container has no number of tasks")
        tokens = self.routing_layer_auth_jwks_url or self.routing_layer_auth_keys_secret
        if self.idle_after and tokens and self.routing_layer_metrics_port is None:
            raise ValueError(
                "IDLE_AFTER with ROUTING_LAYER_AUTH_* needs ROUTING_LAYER_METRICS_PORT: /demand names groups, and the "
                "clients' port would show them to everyone"
            )
        return self

    @property
    def routing_layer_secrets(self) -> dict[str, str]:
        """The secrets of the routing layer, by its variable for each."""
        named = {
            "AUTH_KEYS": self.routing_layer_auth_keys_secret,
            "AUTH_CA": self.routing_layer_auth_ca_secret,
            "TLS_CERT": self.routing_layer_tls_cert_secret,
            "TLS_KEY": self.routing_layer_tls_key_secret,
            "RECONCILER_TOKEN": self.reconciler_token_secret,
        }
        return self.ksqldb_secrets | {variable: secret for variable, secret in named.items() if secret}

    @property
    def kafka_secrets(self) -> dict[str, str]:
        """The secrets of the group services, by their variable for each."""
        named = {"KAFKA_CONFIG": self.kafka_config_secret, "KAFKA_CA": self.kafka_ca_secret}
        return {variable: secret for variable, secret in named.items() if secret}

    @property
    def secrets(self) -> dict[str, str]:
        """The variable that names each Swarm secret, by the secret's name."""
        fields = [field for field in type(self).model_fields if field.endswith("_secret")]
        return {name: field.upper() for field in fields if (name := getattr(self, field))}

    @property
    def ksqldb_secrets(self) -> dict[str, str]:
        """The secrets for ksqlDB, by the variable of a service for each."""
        named = {
            "KSQLDB_USERNAME": self.ksqldb_username_secret,
            "KSQLDB_PASSWORD": self.ksqldb_password_secret,
            "KSQLDB_CA": self.ksqldb_ca_secret,
        }
        return {variable: secret for variable, secret in named.items() if secret}

    def ready_path(self, image: str) -> str:
        """Where a task of a group service with this image is asked; ``""``: any answer at its port counts.

        The image of the 0.4 system touches its Kafka consumer from two threads when it is asked whether it is ready,
        and then never answers anything again (measured with confluent-kafka 2.16).
        """
        is_old = image.rpartition("/")[2].startswith("stream-api-")
        return "" if is_old and self.fastapi_group_ready_path == "/ready" else self.fastapi_group_ready_path

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """The names of `RECONCILER_ALLOWED_HOSTS`."""
        return tuple(name.strip() for name in self.reconciler_allowed_hosts.split(",") if name.strip())

    @property
    def grouping_level(self) -> Level:
        """By what assets are grouped, unless a plug-in says otherwise."""
        return parse_level(self.uns_fastapi_group_grouping_level, self.uns_fallback_group)

    @property
    def join_table(self) -> str:
        """The table that events are joined with."""
        return self.ksqldb_uns_join_table or self.ksqldb_uns_map

    @property
    def followed_url(self) -> str:
        """Where the routing layer follows the registry; a plain container reads the file unless this is set."""
        is_set = "reconciler_url" in self.model_fields_set
        return self.reconciler_url if is_set or self.deployment_platform != "docker" else ""

    @property
    def url_for_services(self) -> str:
        """The ksqlDB URL that services get; it is visible to everyone who may inspect a service."""
        return self.ksqldb_service_url or strip_user(self.ksqldb_url)


def load(**overrides: Any) -> Settings:
    """Read the settings.

    Raises:
        ConfigurationError: one line a problem, each naming the variable and what it must be.
    """
    found = read(**overrides)
    if isinstance(found, Settings):
        return found
    raise ConfigurationError("\n".join(problem for _, problem in found))


def read(**overrides: Any) -> Settings | list[tuple[str, str]]:
    """Return the settings, or what is wrong with them: the field, ``""`` for none, and one line."""
    file = overrides.get("_env_file", Settings.model_config.get("env_file"))
    if file and (lines := find_unreadable_lines(Path(file))):
        return [("", line) for line in lines]
    try:
        return Settings(**overrides)
    except ValidationError as error:
        return [(str(item["loc"][0]) if item["loc"] else "", explain(dict(item))) for item in error.errors()]
    except SettingsError as error:  # a .env file that cannot be read
        return [("", str(error))]


def find_unreadable_lines(file: Path) -> list[str]:
    """Return what is wrong with a ``.env`` file, one message for each line that sets nothing, never the line's text.

    Otherwise such a line would be ignored, and the default would apply.
    """
    try:
        if not file.is_file():
            return [f"{file} is no file"] if file.exists() else []
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        return [f"{file} cannot be read: {error.strerror}"]
    except UnicodeDecodeError:
        return [f"{file} is no UTF-8 text"]
    problems = []
    for binding in parse_stream(io.StringIO(text)):
        sets = binding.key is None or (binding.value is not None and _NAME.fullmatch(binding.key))
        if binding.error or not sets:
            string = binding.original.string
            empty = string[: len(string) - len(string.lstrip())].count("\n")  # lines before its own
            number = binding.original.line + empty
            problems.append(
                f"{file} line {number} cannot be read: NAME=value is expected, with a value of several lines in quotes"
            )
    return problems


def explain(item: dict[str, Any]) -> str:
    """Return one of pydantic's errors as a line that names the variable, without a secret."""
    name = "_".join(str(part) for part in item["loc"]).upper()
    info = Settings.model_fields.get(name.lower())
    purpose = " ".join((info.description or "").split()) if info else "unknown"
    if item["type"] == "missing":
        return f"{name} is required and not set ({purpose})"
    said = patterns.message(item)
    if not name:
        return said
    value = "***" if is_secret(name.lower()) else ascii(mask(str(item["input"])))
    value = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}...{value[0]}"
    return f"{name}={value}: {said} ({purpose})"


def is_secret(name: str) -> bool:
    """Whether a field's value must not be shown: also variables of services, which may have what they should not."""
    info = Settings.model_fields.get(name)
    return info is not None and (info.annotation is SecretStr or name.endswith("_env"))
