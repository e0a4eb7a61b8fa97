"""Every setting, its variable, its default and what it does.

Values come from the environment, then from a ``.env`` file in the working directory. A variable whose name ends in
``_FILE`` names a file that holds the value (a Swarm secret) and exists for the two that are secret.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from reconciler.errors import ConfigurationError
from reconciler.platforms.base import Publish

_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)\s*")
_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"


def _seconds(value: Any) -> Any:
    """Read ``90``, ``90s``, ``1.5m``, ``168h`` or ``7d`` as seconds."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ValueError(f"{value!r} is not a duration: use seconds, or a number with ms, s, m, h or d")
    return float(match[1]) * _UNITS[match[2]]


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0)]


class Environment(StrEnum):
    """Where the operator runs."""

    LOCAL = "local"
    DEVSWARM = "devswarm"
    PRODUCTION = "production"


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class GroupsTable(StrEnum):
    """When the table that counts each group's members is used between two full scans."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Policy(StrEnum):
    """What the loop may do: everything, everything but removing, or only creating."""

    SYNC = "sync"
    UPSERT_ONLY = "upsert-only"
    CREATE_ONLY = "create-only"


class Settings(BaseSettings):
    """The operator's settings. The name of a variable is the field's name in upper case."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, use_attribute_docstrings=True)

    kafka_broker: str = Field(min_length=1)
    """Kafka bootstrap servers, handed to the group services (`host:port`, comma-separated)."""
    ksqldb_url: str = Field(pattern=r"^https?://[^/\s]+")
    """The ksqlDB server as the operator reaches it (`http://host:8088`)."""
    ksqldb_service_url: str = ""
    """The ksqlDB server as the services in the Swarm reach it; empty: the same as `KSQLDB_URL`."""
    ksqldb_username: str = ""
    """User name for HTTP basic authentication; empty: none is sent."""
    ksqldb_password: SecretStr = SecretStr("")
    """Password for HTTP basic authentication."""
    ksqldb_password_file: Path | None = None
    """A file that holds `KSQLDB_PASSWORD` (a Swarm secret)."""
    ksqldb_ca_file: Path | None = None
    """CA certificates (PEM) to verify an `https` ksqlDB with; empty: the system's."""
    ksqldb_assets_stream: str = Field("enriched_assets_stream", pattern=_NAME)
    """Stream with the events of all assets."""
    ksqldb_assets_table: str = Field("assets", pattern=_NAME)
    """Table with the assets' state, handed to the state API."""
    ksqldb_uns_map: str = Field("asset_to_uns_map", pattern=_NAME)
    """Table that maps assets to UNS levels; groups are read from it."""
    ksqldb_uns_join_table: str = Field("", pattern=r"^$|" + _NAME)
    """Table that events are joined with; empty: `KSQLDB_UNS_MAP`. The raw table loses no event of a new asset."""

    docker_network: str = Field("factory-net", min_length=1)
    """Overlay network that the services join."""
    swarm_node_host: str = Field("localhost", min_length=1)
    """Host name or address of a Swarm node, for URLs when `ENVIRONMENT=local`."""

    routing_layer_image: str = Field("ghcr.io/openfactoryio/routing-layer:latest", min_length=1)
    """Image of the routing layer."""
    routing_layer_replicas: int = Field(1, ge=0)
    """Tasks of the routing layer."""
    routing_layer_cpu_limit: float = Field(1.0, ge=0)
    """Cores a routing layer task may use."""
    routing_layer_cpu_reservation: float = Field(0.5, ge=0)
    """Cores a node must have free for a routing layer task."""
    routing_layer_port: int = Field(5555, ge=1, le=65535)
    """Port of the routing layer, inside and outside."""
    routing_layer_publish: Publish = Publish.INGRESS
    """How that port is published: `ingress`, `host` (one task a node) or `none`."""
    grouping_strategy: str = Field("workcenter", min_length=1)
    """How assets are grouped: the name of an entry point in `openfactory_routing_layer.grouping_strategies`."""
    deployment_platform: str = Field("swarm", min_length=1)
    """Where services run: the name of an entry point in `openfactory_routing_layer.deployment_platforms`."""

    fastapi_group_image: str = Field("ghcr.io/openfactoryio/stream-api-non-replicated:latest", min_length=1)
    """Image of the group services."""
    fastapi_group_replicas: int = Field(1, ge=0)
    """Tasks of each group service."""
    fastapi_group_cpu_limit: float = Field(1.0, ge=0)
    """Cores a group service task may use."""
    fastapi_group_cpu_reservation: float = Field(0.5, ge=0)
    """Cores a node must have free for a group service task."""
    fastapi_group_port: int = Field(8000, ge=1, le=65535)
    """Port that the group image listens on (the existing system's image: 5555)."""
    fastapi_group_port_base: int = Field(6000, ge=1, le=65535)
    """First host port for services when `ENVIRONMENT=local`."""
    uns_fastapi_group_grouping_level: str = Field("workcenter", min_length=1)
    """UNS level whose values are the groups."""

    state_api_image: str = Field("ghcr.io/openfactoryio/state-api:latest", min_length=1)
    """Image of the asset state API."""
    state_api_replicas: int = Field(1, ge=0)
    """Tasks of the state API."""
    state_api_cpu_limit: float = Field(0.5, ge=0)
    """Cores a state API task may use."""
    state_api_cpu_reservation: float = Field(0.25, ge=0)
    """Cores a node must have free for a state API task."""
    state_api_port: int = Field(5555, ge=1, le=65535)
    """Port that the state API image listens on."""

    environment: Environment = Environment.PRODUCTION
    """`production` pins images to digests; `devswarm` uses local images as they are; `local` publishes each service
    on a host port and leaves the routing layer to `reconciler runserver`."""
    log_level: LogLevel = LogLevel.INFO
    """Least severe level that is logged, by the operator and by what it deploys."""

    reconciler_owner: str = Field("ofa", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,38}$")
    """Marks what belongs to this operator (label `org.openfactory.owner`); nothing else is ever changed."""
    resource_prefix: str = Field("ofa", pattern=r"^[A-Za-z0-9]([A-Za-z0-9_-]{0,10}[A-Za-z0-9])?$")
    """Start of the names of services and configs (`<prefix>_group_<Group>`)."""
    reconcile_interval: Seconds = 10.0
    """Seconds between two cycles when nothing happens."""
    resync_interval: Seconds = 300.0
    """Seconds between two full scans of the UNS map where groups are otherwise read from a table of counts."""
    groups_table: GroupsTable = GroupsTable.AUTO
    """Read groups from a table that ksqlDB keeps, with a full scan every `RESYNC_INTERVAL` and before anything is
    removed: `on`, `off`, or `auto` (from 10,000 assets on)."""
    reconcile_policy: Policy = Policy.SYNC
    """`sync`, `upsert-only` (never removes) or `create-only` (never changes either)."""
    reconciler_port: int = Field(8080, ge=1, le=65535)
    """Port of the operator's own HTTP server."""
    reconciler_url: str = Field("http://ofa_reconciler:8080", pattern=r"^https?://[^/\s]+")
    """Where the routing layer follows the registry: the operator as the Swarm's services reach it."""
    prune_reads: int = Field(3, ge=1)
    """Complete, agreeing reads without a group before it may be removed."""
    prune_grace: Seconds = 60.0
    """Seconds these reads must be spread over."""
    prune_max_fraction: float = Field(0.25, ge=0, le=1)
    """Part of the groups that may go missing at once; one always may. More needs `--approve`."""
    drain_seconds: Seconds = 10.0
    """Seconds between a group's leaving the registry and the removal of its service."""
    delete_topics: bool = False
    """Delete a removed group's Kafka topic too."""
    shared_retention: Seconds = 3600.0
    """How long the shared pre-join topic keeps events."""
    group_retention: Seconds = 604800.0
    """How long a group's topic keeps events."""
    registry_keep: int = Field(3, ge=3)
    """Registry documents that are kept (two before the current one make a rollback possible)."""
    registry_roll_after: Seconds = 3600.0
    """Age at which the routing layer's mounted copy of the registry is renewed."""
    registry_dir: Path | None = None
    """Directory of the registry's files when `DEPLOYMENT_PLATFORM=docker`, under the same path for the engine; empty:
    `openfactory` in `XDG_STATE_HOME` or `~/.local/state`."""

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, data: Any) -> Any:
        """Treat ``VAR=`` as unset, as compose files with ``${VAR:-}`` produce it."""
        return {key: value for key, value in data.items() if value != ""} if isinstance(data, dict) else data

    @field_validator(
        "log_level", "environment", "reconcile_policy", "routing_layer_publish", "groups_table", mode="before"
    )
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("ksqldb_url", "ksqldb_service_url", "reconciler_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if value and urlsplit(value).port == 0:  # urlsplit itself raises for brackets and ports that are none
            raise ValueError("port 0 is no port")
        return value

    @field_validator("ksqldb_ca_file")
    @classmethod
    def _is_file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError("there is no such file")
        return value

    @model_validator(mode="after")
    def _read_password_file(self) -> Settings:
        if self.ksqldb_password_file is not None:
            try:
                secret = self.ksqldb_password_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ValueError(f"KSQLDB_PASSWORD_FILE: {error.strerror}: {self.ksqldb_password_file}") from error
            object.__setattr__(self, "ksqldb_password", SecretStr(secret))
        return self

    @property
    def join_table(self) -> str:
        """The table that events are joined with."""
        return self.ksqldb_uns_join_table or self.ksqldb_uns_map

    @property
    def followed_url(self) -> str:
        """Where the routing layer follows the registry; a plain container reads the file unless told otherwise."""
        told = "reconciler_url" in self.model_fields_set
        return self.reconciler_url if told or self.deployment_platform != "docker" else ""

    @property
    def url_for_services(self) -> str:
        """The ksqlDB URL that services get."""
        return self.ksqldb_service_url or self.ksqldb_url


def load(**overrides: Any) -> Settings:
    """Read the settings.

    Raises:
        ConfigurationError: one line a problem, each naming the variable and what it must be.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(dict(item)) for item in error.errors())) from error


def _explain(item: dict[str, Any]) -> str:
    name = "_".join(str(part) for part in item["loc"]).upper()
    if item["type"] == "missing":
        return f"{name} is required and not set ({_doc(name)})"
    message = str(item["msg"]).removeprefix("Value error, ")
    if not name:
        return message
    return f"{name}={item['input']!r}: {message} ({_doc(name)})"


def _doc(variable: str) -> str:
    info = Settings.model_fields.get(variable.lower())
    return (info.description or "").split("\n")[0] if info else "unknown"
