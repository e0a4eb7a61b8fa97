"""A plan is read by others: what differs is told without the secrets in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.cli.settings import show_value
from reconciler.domain.service_values import LEAST_MEMORY, memory
from reconciler.domain.services import Healthcheck, Kind, ServiceSpec, drift, show_number, spec_hash

SPEC = ServiceSpec(
    name="ofa_group_Weld",
    kind=Kind.GROUP,
    group="Weld",
    image="group:1",
    env={"KSQLDB_URL": "http://alice:sesame@ksqldb:8088/", "LOG_LEVEL": "info"},
    replicas=1,
    cpu_limit=1.0,
    cpu_reservation=0.5,
    network="factory-net",
)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("KSQLDB_URL", "http://bob:moon@other:8088/", "http://***@other:8088/"),
        ("AUTH_JWKS_URL", "https://login.test/jwks?key=moon", "https://login.test/jwks?***"),
        ("AUTH_JWKS_URL", "https://bob:moon@login.test/jwks?key=moon&b=1#moon", "https://***@login.test/jwks?***"),
        ("AUTH_JWKS_URL", "https://login.test/jwks#moon", "https://login.test/jwks?***"),
        ("AUTH_JWKS_URL", "https://login.test/jwks", "https://login.test/jwks"),
        ("KSQLDB_URL", "http://bob:mo/on@other:8088/", "http://***@other:8088/"),
        ("KAFKA_BROKER", "bob:moon@broker:9092", "***@broker:9092"),
        ("KAFKA_BROKER", "one:9092,two:9092", "one:9092,two:9092"),
    ],
)
def test_the_secrets_of_a_url_are_not_told(name: str, value: str, shown: str) -> None:
    """The rest of the address is, because it may be what differs; as `reconciler settings` shows it."""
    for live, wanted in ((value, "other"), ("other", value)):
        spec = replace(SPEC, kind=Kind.ROUTING_LAYER if name.startswith("AUTH") else Kind.GROUP)
        [found] = drift(replace(spec, env={name: live}), replace(spec, env={name: wanted}))
        assert sorted((found.live, found.wanted)) == sorted((f'"{shown}"', '"other"'))
        assert show_value(value) == shown


@pytest.mark.parametrize("name", ["DB_PASSWORD", "PGPW", "DSN", "MEMBERSHIP_RESYNC", "TLS_CERT_FILE"])
def test_a_variable_that_the_operator_does_not_set_is_told_by_its_name(name: str) -> None:
    """Whoever named it chose the name freely: it does not say whether the value is a secret."""
    [found] = drift(replace(SPEC, env={**SPEC.env, name: "sesame"}), SPEC)
    assert (found.field, found.live, found.wanted) == (f"env {name}", "***", "(unset)")


@pytest.mark.parametrize(
    ("name", "live", "wanted", "shown"),
    [
        ("labels", {"a": "sesame"}, {"a": "moon"}, ("label a", "***", "***")),
        ("log_options", {"token": "sesame"}, {}, ("log option token", "***", "(unset)")),
        (
            "healthcheck",
            Healthcheck("curl -u a:sesame"),
            Healthcheck("curl -u a:moon", 1, 2, 4, 0.5),
            (
                "healthcheck",
                "a command every 10 s, timeout 5 s, 3 retries, start period 10 s",
                "a command every 1 s, timeout 2 s, 4 retries, start period 0.5 s",
            ),
        ),
    ],
)
def test_what_a_user_wrote_is_told_without_its_values(name: str, live: object, wanted: object, shown: object) -> None:
    """Plans, the history and the status page are read by others."""
    [found] = drift(replace(SPEC, **{name: live}), replace(SPEC, **{name: wanted}))  # type: ignore[arg-type]
    assert (found.field, found.live, found.wanted) == shown


def test_a_variable_of_the_operator_is_told_as_it_is() -> None:
    """What a person needs to see who changed what."""
    [found] = drift(replace(SPEC, env={**SPEC.env, "LOG_LEVEL": "debug"}), SPEC)
    assert (found.live, found.wanted) == ('"debug"', '"info"')


def test_the_hash_of_a_spec_without_options_is_that_of_earlier_versions() -> None:
    """It is in labels of services: with another one a spec that failed would be tried again after an upgrade."""
    assert spec_hash(SPEC) == "7ac931f3be15"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory_limit", 1),
        ("memory_reservation", 1),
        ("constraints", ("node.role==worker",)),
        ("labels", {"a": "b"}),
        ("networks", ("b",)),
        ("log_driver", "none"),
        ("log_options", {"a": "b"}),
        ("healthcheck", Healthcheck("true")),
    ],
)
def test_an_option_that_is_set_changes_the_hash(name: str, value: object) -> None:
    """And so starts another rollout; two values of it are two specs."""
    assert spec_hash(replace(SPEC, **{name: value})) != spec_hash(SPEC)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (3, "3"),
        (1024, "1024"),
        (6 * 1024**2, "6m"),
        (1536 * 1024**2, "1536m"),
        (2 * 1024**3, "2g"),
        (1024**4, "1t"),
        (2 * 1024**3 + 1, "2147483649"),
    ],
)
def test_bytes_are_shown_as_they_are_written(number: int, shown: str) -> None:
    """What is shown can be written, and is the same number."""
    assert show_number(number) == shown
    assert number < LEAST_MEMORY or memory(shown) == number
