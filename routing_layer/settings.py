"""Every setting of the proxy, its variable, its default and what it does."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from openfactory_common.errors import ConfigurationError
from openfactory_common.patterns import URL, message, optional
from openfactory_common.settings_types import CaFile, Limit, LogLevel, RoutingMode, Seconds, SecretFile, mask, read_text

_INDENT = " " * 6


class Settings(BaseSettings):
    """The proxy's settings. The name of a variable is the field's name in upper case."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, use_attribute_docstrings=True)

    routing_layer_port: int = Field(5555, ge=0, le=65535)
    """Port to listen on, on every address (0: any free one, see the log)."""
    routing_layer_workers: int = Field(1, ge=1, le=64)
    """Processes that share the port; each keeps its own copy of the membership."""
    metrics_port: int | None = Field(None, ge=1, le=65535)
    """Separate port for /metrics, which `ROUTING_LAYER_PORT` then does not answer; empty: `ROUTING_LAYER_PORT`."""
    routing_mode: RoutingMode = RoutingMode.PROXY
    """`proxy`, or `redirect`: /asset_stream answers 307 to /group/<Group>/asset_stream."""
    registry_file: Path = Path("/etc/openfactory/registry.json")
    """Boot copy of the registry: used until the operator answers; it may be missing."""
    reconciler_url: str = Field("", pattern=optional(URL))
    """URL of the operator, which is polled for the registry; empty: only the file is used."""
    ksqldb_url: str = Field(pattern=URL)
    """The ksqlDB server (`http://host:8088`)."""
    ksqldb_username: str = ""
    """User name for HTTP basic authentication; empty: none is sent."""
    ksqldb_password: SecretStr = SecretStr("")
    """Password for HTTP basic authentication."""
    ksqldb_username_file: SecretFile | None = None
    """A file that holds `KSQLDB_USERNAME` (a Swarm secret)."""
    ksqldb_password_file: SecretFile | None = None
    """A file that holds `KSQLDB_PASSWORD` (a Swarm secret)."""
    ksqldb_ca_file: CaFile | None = None
    """CA certificates (PEM) to verify an `https` ksqlDB with; empty: the system's."""
    log_level: LogLevel = LogLevel.INFO
    """Lowest level that is logged; `debug` has a line for each start and end of a stream."""

    connect_timeout: Limit = 2.0
    """Seconds to reach a service, its name lookup included."""
    head_timeout: Limit = 10.0
    """Seconds from the request to the head of a service's response."""
    idle_timeout: Limit = 45.0
    """Seconds after which a silent stream (group services ping every 15 s) or a client that reads nothing is cut."""
    client_head_timeout: Limit = 10.0
    """Seconds for the head of a client's request, from the start of the connection and from the head's first byte."""
    client_idle_timeout: Limit = 75.0
    """Seconds of idleness between two requests of a connection; longer than in a reverse proxy in front."""
    connections_per_address: int = Field(0, ge=0)
    """Connections of one client address (IPv6: one /64 network) for each process; 0: at most nine tenths of the
    capacity. Only for direct clients: a reverse proxy, NAT and Swarm's ingress network show many as one address."""
    lazy_deploy_wait: Seconds = 10.0
    """Seconds that a request waits for the service of a group that ksqlDB knows and the registry does not; one with
    `Accept: text/event-stream` waits for `REPLACE_WAIT`."""
    replace_wait: Seconds = 30.0
    """Seconds that a request with `Accept: text/event-stream` waits for its service: a new group's, or one replaced."""
    drain_seconds: Seconds = 10.0
    """Seconds over which SIGTERM spreads the ends of the streams; its end may take 2 s more."""
    registry_poll: Limit = 1.0
    """Seconds between two polls of the operator's registry."""
    negative_cache_seconds: Seconds = 2.0
    """Seconds for which an asset that ksqlDB did not know is not looked up again."""
    negative_cache_size: int = Field(10_000, ge=1)
    """Unknown assets that are cached at most."""
    membership_resync: Limit = 300.0
    """Seconds between two comparisons of the watched membership with a full read."""

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: Any) -> Any:
        """Treat ``VAR=`` as unset. Unlike ``env_ignore_empty``, an empty variable also hides the line of ``.env``."""
        return {key: value for key, value in data.items() if value != ""} if isinstance(data, dict) else data

    @field_validator("log_level", "routing_mode", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("reconciler_url", "ksqldb_url")
    @classmethod
    def _no_slash(cls, value: str) -> str:
        try:
            urlsplit(value).port  # noqa: B018 - asked for its errors
        except ValueError:  # its text may repeat the password
            raise ValueError("this is not a URL with a host and a port") from None
        return value.rstrip("/")

    @model_validator(mode="after")
    def _complete(self) -> Settings:
        if self.metrics_port is not None and self.metrics_port == self.routing_layer_port:
            raise ValueError("METRICS_PORT must be another port than ROUTING_LAYER_PORT")
        if self.ksqldb_username_file is not None:
            object.__setattr__(self, "ksqldb_username", read_text(self.ksqldb_username_file))
        if self.ksqldb_password_file is not None:
            object.__setattr__(self, "ksqldb_password", SecretStr(read_text(self.ksqldb_password_file)))
        return self


def load(**overrides: Any) -> Settings:
    """Read the settings from the environment and ``.env``.

    Raises:
        ConfigurationError: one line a problem, each naming the variable and what it must be.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(dict(item)) for item in error.errors())) from None


def describe() -> str:
    """Return every variable with its default and meaning, one paragraph each, for ``--help``."""
    entries = []
    for name, info in Settings.model_fields.items():
        default = "required" if info.is_required() else str(getattr(info.default, "value", info.default))
        shown = "" if default in ("", "None", "**********") else f" [{default}]"
        meaning = textwrap.fill(
            " ".join((info.description or "").split()), 80, initial_indent=_INDENT, subsequent_indent=_INDENT
        )
        entries.append(f"  {name.upper()}{shown}\n{meaning}")
    return "\n".join(entries)


def _explain(item: dict[str, Any]) -> str:
    name = "_".join(str(part) for part in item["loc"])
    info = Settings.model_fields.get(name)
    meaning = (info.description or "").split("\n")[0] if info else "unknown"
    if item["type"] == "missing":
        return f"{name.upper()} is required and not set: {meaning}"
    return f"{name.upper()}={mask(str(item['input']))!a}: {message(item)} ({meaning})" if name else message(item)
