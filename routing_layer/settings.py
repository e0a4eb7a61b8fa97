"""Every setting of the proxy, its variable, its default and what it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator, model_validator

from openfactory_common.edge import check_networks, check_origins
from openfactory_common.patterns import COOKIE, RESOURCE, URL, optional
from openfactory_common.service_settings import KsqldbSettings, lower, without_slash
from openfactory_common.settings_types import CaFile, Limit, LogLevel, RoutingMode, Seconds, TokensFile, Wait


class Settings(KsqldbSettings):
    """The proxy's settings. The name of a variable is the field's name in upper case."""

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
    reconciler_token_file: TokensFile | None = None
    """A file with the operator's token (the first line), which is sent to `RECONCILER_URL`.
    The user and password that may be in that URL are then not used. It is read again when it changes."""
    log_level: LogLevel = LogLevel.INFO
    """Lowest level that is logged; `debug` has a line for each start and end of a stream."""

    auth_jwks_url: str = Field("", pattern=optional(RESOURCE))
    """URL of the JWK set (RFC 7517) that verifies the tokens of clients.
    If it is empty and `AUTH_KEYS_FILE` too, every client may read every asset."""
    auth_keys_file: Path | None = None
    """A file with the JWK set instead; it may have secrets (`oct`), and is read again when it changes."""
    auth_issuer: str = ""
    """`iss` of the tokens; required if one of the two above is set, an error otherwise."""
    auth_audience: str = ""
    """What `aud` of the tokens has to contain; required if one of the two above is set, an error otherwise."""
    auth_cookie: str = Field("openfactory_token", pattern=COOKIE)
    """Cookie that has the token where a client sends no `Authorization` (a browser's EventSource)."""
    auth_claim: str = "openfactory"
    """Claim of the tokens that lists what a client may read: `{"assets": ["WELD-*"], "groups": ["Weld"]}`."""
    auth_leeway: Wait = 60.0
    """Seconds by which the clock of the issuer may be ahead (`nbf`, `iat`); the end of a token (`exp`) is exact."""
    auth_ca_file: CaFile | None = None
    """CA certificates (PEM) to verify the server of `AUTH_JWKS_URL` with; empty: the system's."""

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
    """Connections of one client address (IPv6: one /64 network) for each process; 0: nine tenths of the capacity.
    Set it only for direct clients: a reverse proxy, NAT and Swarm's ingress network show many as one address."""
    cors_origins: Annotated[str, AfterValidator(check_origins)] = ""
    """Origins (`https://plant.example`), separated by commas, whose pages may read the answers, also with cookies.
    `*`: all, without cookies; empty: what services say about it is passed on."""
    max_streams: int = Field(0, ge=0)
    """Streams for each process, those that wait for their service included; 0: as many as there are descriptors for."""
    max_streams_per_client: int = Field(0, ge=0)
    """Streams of one client address (IPv6: one /64 network) for each process; 0: any number.
    Behind `TRUSTED_PROXIES` the address is that of `X-Forwarded-For`. NAT and Swarm's ingress network show many clients
    as one address."""
    trusted_proxies: Annotated[str, AfterValidator(check_networks)] = ""
    """Addresses and networks of the reverse proxies in front, separated by commas.
    Their `X-Forwarded-For` gives the address of the client. It is passed on to services, as are their other
    `X-Forwarded-*`, `X-Real-IP` and `Forwarded`, which is not read. These headers of other peers are dropped."""
    lazy_deploy_wait: Seconds = 10.0
    """Seconds that a request waits for the service of a group that ksqlDB knows and the registry does not.
    A request with `Accept: text/event-stream` waits for `REPLACE_WAIT`."""
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

    tls_cert_file: Path | None = None
    """Certificate (PEM, with its chain) for clients; needs `TLS_KEY_FILE`.
    With both, `ROUTING_LAYER_PORT` accepts only TLS."""
    tls_key_file: Path | None = None
    """Private key of `TLS_CERT_FILE` (PEM, without a password). Both files are read again when they change."""

    @field_validator("routing_mode", mode="before")
    @classmethod
    def _lower_mode(cls, value: Any) -> Any:
        return lower(value)

    @field_validator("auth_jwks_url")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        without_slash(value)  # asked for its errors: a slash at the end is a part of the resource's name
        return value

    @model_validator(mode="after")
    def _whole_authentication(self) -> Settings:
        if self.auth_jwks_url and self.auth_keys_file is not None:
            raise ValueError("AUTH_JWKS_URL and AUTH_KEYS_FILE are both set: the keys have one source")
        on = bool(self.auth_jwks_url) or self.auth_keys_file is not None
        for name, value in (("AUTH_ISSUER", self.auth_issuer), ("AUTH_AUDIENCE", self.auth_audience)):
            if on and not value:
                raise ValueError(f"{name} is required with AUTH_JWKS_URL or AUTH_KEYS_FILE, and not set")
            if value and not on:
                raise ValueError(f"{name} is set without AUTH_JWKS_URL or AUTH_KEYS_FILE: no client would be checked")
        if self.auth_ca_file is not None and not self.auth_jwks_url:
            raise ValueError("AUTH_CA_FILE is set without AUTH_JWKS_URL, whose server it is for")
        return self

    @field_validator("reconciler_url")
    @classmethod
    def _operator_without_slash(cls, value: str) -> str:
        return without_slash(value)

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Settings:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("TLS_CERT_FILE and TLS_KEY_FILE are needed together")
        return self

    @model_validator(mode="after")
    def _separate_ports(self) -> Settings:
        if self.metrics_port is not None and self.metrics_port == self.routing_layer_port:
            raise ValueError("METRICS_PORT must be another port than ROUTING_LAYER_PORT")
        return self
