"""By which names the operator's web server is asked: those that no page on the web can have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.settings import Settings
from reconciler.web.csrf import allowed_hosts, is_allowed

ALLOWED = frozenset({"manager-1.plant.example", ".ops.example"})


def settings(**given: str) -> Settings:
    """Settings with some given."""
    return Settings(_env_file=None, **{"kafka_broker": "k:9092", "ksqldb_url": "http://k:8088", **given})  # type: ignore[call-arg, arg-type]


@pytest.mark.parametrize(
    "host",
    [
        "",
        "127.0.0.1",
        "127.0.0.1:8080",
        "10.0.3.7:8080",
        "[::1]",
        "[::1]:8080",
        "[fd00::7]:8080",
        "localhost",
        "LOCALHOST:8080",
        "localhost.",
        "page.localhost:8080",
        "ofa_reconciler:8080",
        "manager-1",
        "manager-1.plant.example:8080",
        "Manager-1.Plant.Example",
        "a.ops.example",
        "a.b.ops.example:80",
    ],
)
def test_hosts_that_are_answered(host: str) -> None:
    """Addresses, names without a dot, localhost, and what the setting names; with and without a port."""
    assert is_allowed(host, ALLOWED)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "manager-1.plant.example.evil.example",
        "xmanager-1.plant.example",
        "ops.example",
        "evilops.example",
        "evil.example.",
        "[::1].evil.example",
        "[::1",
        "::1",
        "[evil.example]",
        "user@127.0.0.1",
        "127.0.0.1:8080:9090",
        "127.0.0.1:",
        "127.0.0.1, evil.example",
        "a b",
        "evil.example#",
        "1.2.3.4.5",
        "\N{FULLWIDTH DIGIT ONE}27.0.0.1",
    ],
)
def test_hosts_that_are_not(host: str) -> None:
    """Names with a dot that are not ours, and what is no host at all."""
    assert not is_allowed(host, ALLOWED)


@given(st.text(max_size=40))
def test_any_header_gets_a_yes_or_a_no(host: str) -> None:
    """Nothing that a client sends is an error here."""
    assert is_allowed(host, ALLOWED) in (True, False)


def test_the_settings_own_hosts_are_answered() -> None:
    """Those of the addresses that the operator is given for itself, and the list."""
    given = settings(
        swarm_node_host="node.plant.example",
        reconciler_url="http://op.plant.example:8080",
        reconciler_allowed_hosts="One.example , .two.example",
    )
    assert allowed_hosts(given) == {"one.example", ".two.example", "node.plant.example", "op.plant.example"}
