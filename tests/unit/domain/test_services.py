"""A plan is read by others: what differs is told without the secrets in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.domain.services import Kind, ServiceSpec, drift

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


def test_the_credentials_of_a_url_are_not_told() -> None:
    """The rest of the address is, because it may be what differs."""
    [found] = drift(SPEC, replace(SPEC, env={**SPEC.env, "KSQLDB_URL": "http://bob:moon@other:8088/"}))
    assert (found.live, found.wanted) == ('"http://***@ksqldb:8088/"', '"http://***@other:8088/"')


@pytest.mark.parametrize("name", ["DB_PASSWORD", "API_TOKEN", "ClientSecret", "API_KEY"])
def test_a_secret_that_a_user_added_is_not_told(name: str) -> None:
    """The variable's name says enough."""
    [found] = drift(replace(SPEC, env={**SPEC.env, name: "sesame"}), SPEC)
    assert (found.field, found.live, found.wanted) == (f"env {name}", "***", "(unset)")


def test_any_other_variable_is_told_as_it_is() -> None:
    """What a person needs to see who changed what."""
    [found] = drift(replace(SPEC, env={**SPEC.env, "LOG_LEVEL": "debug"}), SPEC)
    assert (found.live, found.wanted) == ('"debug"', '"info"')
