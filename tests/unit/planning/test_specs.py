"""What the operator's settings make of its services."""

from __future__ import annotations

from typing import Any

import pytest

from openfactory_common.errors import ConfigurationError
from reconciler.domain.names import names_of
from reconciler.domain.service_values import RESERVED_VARIABLES, variables
from reconciler.domain.services import TASK_SLOT, Healthcheck, SecretMount, ServiceSpec
from reconciler.planning.specs import group_spec, routing_layer_spec, state_api_spec
from reconciler.settings import Settings, load
from routing_layer.settings import Settings as ProxySettings
from tests.unit.planning import tables

_NEEDED = {"kafka_broker": "k:9092", "ksqldb_url": "http://k:8088"}
_SECRETS = {
    "ksqldb_username_secret": "user-1",
    "ksqldb_password_secret": "pw-2",
    "ksqldb_ca_secret": "ca-1",
}
_AUTH = {
    "routing_layer_auth_jwks_url": "https://login.example/keys",
    "routing_layer_auth_issuer": "https://login.example",
    "routing_layer_auth_audience": "plant",
}


def spec(**given: Any) -> ServiceSpec:
    """Return the spec that some settings lead to."""
    return routing_layer_spec(load(_env_file=None, **{**_NEEDED, **given}), "ofa_registry-1")


def test_only_what_was_asked_for_is_in_the_environment() -> None:
    """The program's own defaults are not repeated: an upgrade of the operator replaces no task for them."""
    assert set(spec().env) == {"ROUTING_LAYER_PORT", "REGISTRY_FILE", "RECONCILER_URL", "KSQLDB_URL", "LOG_LEVEL"}
    assert spec().secrets == ()


@pytest.mark.parametrize(("replicas", "end"), [(1, ""), (2, f"_{TASK_SLOT}")])
def test_several_tasks_of_a_group_do_not_share_a_consumer_group(replicas: int, end: str) -> None:
    """Of one consumer group only one task would get the events of a topic with one partition."""
    options = load(_env_file=None, **_NEEDED, fastapi_group_replicas=replicas)
    made = group_spec(names_of("Weld"), options, None)
    assert made.env["KAFKA_CONSUMER_GROUP_ID"] == f"asset_stream_Weld_consumer_group{end}"


def test_mode_workers_and_limits_reach_the_program() -> None:
    """Each under the name that the program reads, as a value that it takes."""
    given = {
        "routing_mode": "Redirect",
        "routing_layer_workers": 4,
        "routing_layer_connect_timeout": "500ms",
        "routing_layer_head_timeout": "1m",
        "routing_layer_idle_timeout": 90,
        "routing_layer_lazy_deploy_wait": 0,
        "routing_layer_replace_wait": "2m",
        "routing_layer_drain_seconds": 0.25,
    }
    env = spec(**given).env
    read = ProxySettings(_env_file=None, **{name.lower(): value for name, value in env.items()})  # type: ignore[call-arg,arg-type]
    assert (read.routing_mode, read.routing_layer_workers) == ("redirect", 4)
    assert (read.connect_timeout, read.head_timeout, read.idle_timeout, read.lazy_deploy_wait) == (0.5, 60.0, 90.0, 0)
    assert (read.replace_wait, read.drain_seconds) == (120.0, 0.25)


@pytest.mark.parametrize(("drain", "grace"), [(None, 30), (0, 30), (20, 30), (20.5, 31), ("2m", 130)])
def test_it_is_not_killed_while_its_streams_end(drain: float | str | None, grace: float) -> None:
    """Some seconds more than the drain, whole ones, and never less than every service has."""
    assert spec(routing_layer_drain_seconds=drain).stop_grace == grace


def test_a_program_with_its_own_drain_time_is_not_killed_meanwhile() -> None:
    """What the operator does not set must fit, too."""
    assert spec().stop_grace > ProxySettings(_env_file=None, **_NEEDED).drain_seconds  # type: ignore[call-arg,arg-type]


def test_credentials_are_mounted_and_only_their_files_are_named() -> None:
    """Neither the operator's own user nor its password is in the service."""
    made = spec(ksqldb_username="operator", ksqldb_password="s3cret", **_SECRETS)
    assert made.secrets == (
        SecretMount("ca-1", "/run/secrets/ksqldb_ca"),
        SecretMount("pw-2", "/run/secrets/ksqldb_password"),
        SecretMount("user-1", "/run/secrets/ksqldb_username"),
    )
    assert {name: value for name, value in made.env.items() if name.endswith("_FILE") and "KSQLDB" in name} == {
        "KSQLDB_USERNAME_FILE": "/run/secrets/ksqldb_username",
        "KSQLDB_PASSWORD_FILE": "/run/secrets/ksqldb_password",
        "KSQLDB_CA_FILE": "/run/secrets/ksqldb_ca",
    }
    assert not {"operator", "s3cret"} & set(made.env.values())


def test_the_routing_layers_own_secrets_are_not_the_state_apis() -> None:
    """Each is a file under the name that the program reads; only ksqlDB's are shared."""
    given = {
        **_SECRETS,
        "routing_layer_auth_keys_secret": "keys-1",
        "routing_layer_auth_issuer": "i",
        "routing_layer_auth_audience": "a",
        "routing_layer_tls_cert_secret": "cert-1",
        "routing_layer_tls_key_secret": "key-1",
        "reconciler_token_secret": "token-1",
    }
    made = spec(**given)
    other = state_api_spec(load(_env_file=None, **{**_NEEDED, **given}), None)
    own = {"AUTH_KEYS": "keys-1", "TLS_CERT": "cert-1", "TLS_KEY": "key-1", "RECONCILER_TOKEN": "token-1"}
    for variable, name in own.items():
        path = f"/run/secrets/{variable.lower()}"
        assert made.env[f"{variable}_FILE"] == path
        assert SecretMount(name, path) in made.secrets
    assert {mount.name for mount in made.secrets} - {mount.name for mount in other.secrets} == set(own.values())
    assert not {f"{variable}_FILE" for variable in own} & set(other.env)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"deployment_platform": "docker", **_SECRETS},
            "KSQLDB_USERNAME_SECRET, .*have no Swarm secrets",
        ),
        (
            {"deployment_platform": "docker", "reconciler_token_secret": "t"},
            "RECONCILER_TOKEN_SECRET: plain containers",
        ),
        ({"reconciler_protect": "all"}, "RECONCILER_PROTECT=all needs RECONCILER_TOKEN_FILE"),
        ({"reconciler_token_file": "/dev/null"}, "RECONCILER_TOKEN_FILE=.*not a regular file"),
        ({"reconciler_token_file": "/nonexistent/token"}, "RECONCILER_TOKEN_FILE=.*No such file"),
        (
            {"routing_layer_tls_cert_secret": "c"},
            "ROUTING_LAYER_TLS_CERT_SECRET and ROUTING_LAYER_TLS_KEY_SECRET: both",
        ),
        ({"routing_layer_tls_key_secret": "k"}, "ROUTING_LAYER_TLS_CERT_SECRET and ROUTING_LAYER_TLS_KEY_SECRET: both"),
        ({**_AUTH, "routing_layer_auth_keys_secret": "k"}, "ROUTING_LAYER_AUTH_KEYS_SECRET: only one"),
        ({**_AUTH, "routing_layer_auth_issuer": ""}, "ROUTING_LAYER_AUTH_ISSUER: both or none"),
        ({**_AUTH, "routing_layer_auth_audience": ""}, "ROUTING_LAYER_AUTH_AUDIENCE: both or none"),
        ({**_AUTH, "routing_layer_auth_jwks_url": ""}, "ROUTING_LAYER_AUTH_ISSUER: both or none"),
        ({"routing_layer_auth_ca_secret": "ca"}, "ROUTING_LAYER_AUTH_CA_SECRET is set"),
        ({"ksqldb_password_secret": "pw"}, "KSQLDB_USERNAME_SECRET is not"),
        ({"ksqldb_ca_secret": "a/b"}, "KSQLDB_CA_SECRET='a/b'"),
        ({"routing_layer_workers": 0}, "ROUTING_LAYER_WORKERS='?0"),
        ({"routing_mode": "mirror"}, "ROUTING_MODE='mirror'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_deployed(given: dict[str, Any], message: str) -> None:
    """One line that names the variable."""
    with pytest.raises(ConfigurationError, match=message):
        spec(**given)


FULL = {
    "memory_limit": "2g",
    "memory_reservation": "1g",
    "constraints": "node.labels.gpu == true, node.role!=manager",
    "labels": "team=a",
    "env": "OWN=1",
    "networks": "plant-b, net-a, factory-net",
    "log_driver": "json-file",
    "log_options": "max-size=10m",
    "healthcheck": "curl -f localhost",
}


@pytest.mark.parametrize("kind", ["fastapi_group", "routing_layer", "state_api"])
def test_what_the_variables_of_a_kind_say_is_in_its_services(kind: str) -> None:
    """And in no other kind's; a network that is joined anyway is joined once."""
    given = tables.settings(docker_network="net-a", **{f"{kind}_{name}": value for name, value in FULL.items()})
    made = {
        "fastapi_group": group_spec(names_of("Weld"), given, None),
        "state_api": state_api_spec(given, None),
        "routing_layer": routing_layer_spec(given, "r"),
    }
    spec = made.pop(kind)
    assert (spec.memory_limit, spec.memory_reservation) == (1 << 31, 1 << 30)
    assert spec.constraints == ("node.labels.gpu==true", "node.role!=manager")
    assert (spec.labels, spec.env["OWN"], spec.networks) == ({"team": "a"}, "1", ("factory-net", "plant-b"))
    assert (spec.log_driver, spec.log_options) == ("json-file", {"max-size": "10m"})
    assert spec.healthcheck == Healthcheck("curl -f localhost")
    for other in made.values():
        assert (other.memory_limit, other.constraints, other.labels, other.networks) == (0, (), {}, ())
        assert (other.memory_reservation, other.log_driver, other.log_options, other.healthcheck) == (0, "", {}, None)
        assert "OWN" not in other.env


def test_every_variable_that_the_operator_sets_is_refused_as_an_option() -> None:
    """Otherwise one of the two values would be lost without a word."""
    secrets = {name: "s" for name in Settings.model_fields if name.endswith("_secret")}
    more = {"routing_layer_auth_keys_secret": "", "routing_layer_auth_jwks_url": "https://a/k"}
    routing = {"auth_issuer": "i", "auth_audience": "a", "auth_cookie": "c", "auth_claim": "c", "workers": 2}
    routing |= {"trusted_proxies": "::1", "cors_origins": "*", "metrics_port": 1, "connections_per_address": 1}
    routing |= dict.fromkeys(("max_streams", "max_streams_per_client"), 1)
    times = "connect_timeout head_timeout idle_timeout lazy_deploy_wait replace_wait drain_seconds"
    routing |= dict.fromkeys((*times.split(), "client_head_timeout", "client_idle_timeout"), 1)
    given = tables.settings(
        **{**secrets, **more, **{f"routing_layer_{name}": value for name, value in routing.items()}},
        fastapi_group_port=1,
        state_api_port=1,
        routing_mode="redirect",
    )
    keys = tables.settings(
        routing_layer_auth_keys_secret="k", routing_layer_auth_issuer="i", routing_layer_auth_audience="a"
    )
    for spec in (
        group_spec(names_of("Weld"), given, None),
        state_api_spec(given, None),
        routing_layer_spec(given, "r"),
        routing_layer_spec(keys, "r"),
    ):
        assert spec.env.keys() <= RESERVED_VARIABLES[spec.kind]
        for name in spec.env:
            with pytest.raises(ValueError, match="set by the operator itself"):
                variables({name: "1"}, spec.kind)
