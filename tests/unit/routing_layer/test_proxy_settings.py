"""Every variable of the routing layer has a test that changes it and sees what it does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from openfactory_common import logs
from openfactory_common.errors import ConfigurationError
from openfactory_common.service_settings import load
from routing_layer.app.proxy import Proxy
from routing_layer.settings import Settings
from routing_layer.workers import create_peers
from tests.harness.certificates import Authority

#: Where a real process is run with another value and its effect is seen by a client, a service or ksqlDB.
PROVEN = {
    "ROUTING_LAYER_PORT": "test_worker_processes.py::test_workers_do_not_outlive_a_killed_parent",
    "ROUTING_LAYER_WORKERS": "test_drain.py::test_workers_share_the_port_and_stop_together",
    "ROUTING_MODE": "test_moves.py::test_redirect_mode_names_the_group",
    "REGISTRY_FILE": "test_registry_client.py::test_it_starts_from_the_boot_copy_while_the_operator_is_down",
    "RECONCILER_URL": "test_registry_client.py::test_without_an_operator_the_file_is_followed",
    "RECONCILER_TOKEN_FILE": "test_operators_token.py::test_with_the_token_it_reads_and_nudges",
    "KSQLDB_URL": "test_embedded_ksqldb.py::test_an_asset_is_routed_moved_and_made_up_for_over_a_restart",
    "KSQLDB_USERNAME": "test_ksqldb_reads.py::test_a_wrong_password_is_not_death",
    "KSQLDB_PASSWORD": "test_ksqldb_reads.py::test_a_wrong_password_is_not_death",
    "KSQLDB_USERNAME_FILE": "test_ksqldb_reads.py::test_ksqldb_behind_tls_and_a_password",
    "KSQLDB_PASSWORD_FILE": "test_ksqldb_reads.py::test_ksqldb_behind_tls_and_a_password",
    "KSQLDB_CA_FILE": "test_ksqldb_reads.py::test_ksqldb_behind_tls_and_a_password",
    "HEAD_TIMEOUT": "test_upstreams.py::test_a_service_that_never_answers",
    "IDLE_TIMEOUT": "test_streams.py::test_a_silent_service_is_cut",
    "LAZY_DEPLOY_WAIT": "test_moves.py::test_a_service_that_does_not_come_in_time",
    "REPLACE_WAIT": "test_upstreams.py::test_an_event_source_is_not_held_for_ever",
    "DRAIN_SECONDS": "test_drain.py::test_sigterm_ends_every_stream_cleanly_and_exits_with_0",
    "REGISTRY_POLL": "test_registry_client.py::test_the_operator_is_asked_for_changes_only",
    "NEGATIVE_CACHE_SECONDS": "test_moves.py::test_a_miss_asks_once_and_remembers_the_answer",
    "METRICS_PORT": "test_scrapes.py::test_metrics_have_a_port_of_their_own",
    "CLIENT_HEAD_TIMEOUT": "test_client_connections.py::test_a_head_has_its_time",
    "CLIENT_IDLE_TIMEOUT": "test_client_connections.py::test_an_idle_connection_has_its_time",
    "CONNECTIONS_PER_ADDRESS": "test_client_connections.py::test_an_address_has_its_number",
    "TLS_CERT_FILE": "test_tls.py::test_files_that_cannot_be_used_are_named_at_the_start",
    "TLS_KEY_FILE": "test_tls.py::test_files_that_cannot_be_used_are_named_at_the_start",
    "CORS_ORIGINS": "test_cross_origin.py::test_every_answer_to_an_allowed_origin_can_be_read",
    "MAX_STREAMS": "test_stream_limits.py::test_a_worker_has_its_number_of_streams",
    "MAX_STREAMS_PER_CLIENT": "test_stream_limits.py::test_a_client_has_its_number_of_streams",
    "TRUSTED_PROXIES": "test_upstreams.py::test_a_service_gets_only_what_trusted_proxies_state",
    "AUTH_JWKS_URL": "test_key_sources.py::test_a_server_with_a_password",
    "AUTH_KEYS_FILE": "test_key_sources.py::test_keys_of_a_file_are_followed",
    "AUTH_ISSUER": "test_access.py::test_the_issuer_and_the_audience_are_settings",
    "AUTH_AUDIENCE": "test_access.py::test_the_issuer_and_the_audience_are_settings",
    "AUTH_COOKIE": "test_access.py::test_the_leeway_and_the_names_are_settings",
    "AUTH_CLAIM": "test_access.py::test_the_leeway_and_the_names_are_settings",
    "AUTH_LEEWAY": "test_access.py::test_the_leeway_and_the_names_are_settings",
    "AUTH_CA_FILE": "test_key_sources.py::test_a_server_with_a_certificate_of_the_plant",
    "MEMBERSHIP_RESYNC": "test_ksqldb_reads.py::test_a_watch_that_died_in_silence_is_found_by_comparing",
}
#: What is not visible outside of the process without a clock: checked where it is used.
WIRED: dict[str, tuple[str, Callable[[Proxy], Any], Any, Any]] = {
    "CONNECT_TIMEOUT": ("300ms", lambda proxy: proxy.forwarder._dialer._timeout, 2.0, 0.3),
    "NEGATIVE_CACHE_SIZE": ("7", lambda proxy: proxy.lookup._unknown._size, 10_000, 7),
    "LOG_LEVEL": ("DEBUG", lambda proxy: level_of(proxy.settings), "FilteringAtInfo", "FilteringAtDebug"),
}
_PROCESS_TESTS = Path(__file__).resolve().parents[2] / "integration" / "routing_layer"


def level_of(settings: Settings) -> str:
    """Configure the log and return what it filters."""
    logs.configure(settings.log_level)
    kind: type[Any] = structlog.get_config()["wrapper_class"]
    structlog.reset_defaults()
    [name] = re.findall(r"FilteringAt[A-Z][a-z]+", kind.__name__)
    return str(name)


async def built(read: Callable[[Proxy], Any]) -> Any:
    """Put a proxy together from the environment and look at it."""
    [alone] = create_peers(1)
    proxy = Proxy(load(Settings), alone)
    try:
        return read(proxy)
    finally:
        await proxy.close()


@pytest.mark.parametrize("variable", sorted(WIRED))
def test_a_variable_reaches_where_it_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str) -> None:
    """The default without it, the value with it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KSQLDB_URL", "http://127.0.0.1:1")
    value, read, before, after = WIRED[variable]
    monkeypatch.delenv(variable, raising=False)
    assert asyncio.run(built(read)) == before
    monkeypatch.setenv(variable, value)
    assert asyncio.run(built(read)) == after


@pytest.mark.parametrize("variable", sorted(PROVEN))
def test_a_variable_is_changed_in_a_test_of_the_process(variable: str) -> None:
    """The named test is there and sets the variable."""
    file, _, name = PROVEN[variable].partition("::")
    text = (_PROCESS_TESTS / file).read_text()
    body = re.search(rf"^(?:async )?def {name}\(.*?(?=^(?:async )?def |^@|\Z)", text, re.MULTILINE | re.DOTALL)
    assert body is not None
    assert variable in body[0]


def test_every_variable_is_covered() -> None:
    """A setting that the routing layer gains has to show its effect."""
    assert PROVEN.keys() | WIRED.keys() == {name.upper() for name in Settings.model_fields}
    assert not PROVEN.keys() & WIRED.keys()


@pytest.mark.parametrize(
    "url", ["http://bob:sesame@[bad", "bob:sesame@ksqldb:8088", "ftp://bob:sesame@ksqldb", "http://bob:sesame@k:x"]
)
def test_a_refused_url_is_repeated_without_its_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str
) -> None:
    """One line that names the variable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KSQLDB_URL", url)
    with pytest.raises(ConfigurationError, match="KSQLDB_URL=") as raised:
        load(Settings)
    assert "sesame" not in str(raised.value)
    assert "\n" not in str(raised.value)


_WHOLE = {"AUTH_KEYS_FILE": "/keys.json", "AUTH_ISSUER": "i", "AUTH_AUDIENCE": "a"}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"AUTH_ISSUER": ""}, "AUTH_ISSUER is required"),
        ({"AUTH_AUDIENCE": ""}, "AUTH_AUDIENCE is required"),
        ({"AUTH_JWKS_URL": "https://issuer/keys"}, "AUTH_JWKS_URL and AUTH_KEYS_FILE are both set"),
        ({"AUTH_JWKS_URL": "issuer/keys", "AUTH_KEYS_FILE": ""}, "AUTH_JWKS_URL="),
        ({"AUTH_JWKS_URL": "https://bob:sesame@issuer:x/", "AUTH_KEYS_FILE": ""}, "AUTH_JWKS_URL="),
        ({"AUTH_JWKS_URL": "https://issuer/keys", "AUTH_KEYS_FILE": "", "AUTH_ISSUER": ""}, "AUTH_ISSUER is required"),
        ({"AUTH_KEYS_FILE": ""}, "AUTH_ISSUER is set without"),
        ({"AUTH_KEYS_FILE": "", "AUTH_ISSUER": ""}, "AUTH_AUDIENCE is set without"),
        ({"AUTH_COOKIE": "a b"}, "AUTH_COOKIE="),
        ({"AUTH_COOKIE": "a=b"}, "AUTH_COOKIE="),
        ({"AUTH_LEEWAY": "-1"}, "AUTH_LEEWAY="),
        ({"AUTH_LEEWAY": "2d"}, "AUTH_LEEWAY="),
        ({"AUTH_CA_FILE": "/none"}, "AUTH_CA_FILE="),
    ],
    ids=str,
)
def test_authentication_is_whole_or_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: dict[str, str], named: str
) -> None:
    """Half of it is an error that names the variable, never an open proxy; the password of a URL is not repeated."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"KSQLDB_URL": "http://ksqldb:8088", **_WHOLE}.items():
        monkeypatch.setenv(name, value)
    assert load(Settings).auth_keys_file == Path("/keys.json")
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as raised:
        load(Settings)
    assert str(raised.value).startswith(named)
    assert "sesame" not in str(raised.value)


def test_the_set_of_a_server_may_need_a_query(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And a slash at the end: it is the name of a resource."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"KSQLDB_URL": "http://ksqldb:8088", **_WHOLE, "AUTH_KEYS_FILE": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AUTH_JWKS_URL", "https://issuer/keys/?policy=a/")
    assert load(Settings).auth_jwks_url == "https://issuer/keys/?policy=a/"


def test_an_empty_variable_hides_the_line_of_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`reconciler runserver` empties DRAIN_SECONDS: in the operator's .env it means something else."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(
        "KSQLDB_URL=http://ksqldb:8088\nDRAIN_SECONDS=600\nRECONCILER_URL=http://reconciler\n"
    )
    monkeypatch.setenv("DRAIN_SECONDS", "")
    monkeypatch.setenv("RECONCILER_URL", "")
    settings = load(Settings)
    assert (settings.drain_seconds, settings.reconciler_url) == (10.0, "")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "https://plant.example, http://[fd00::1]:8080,http://hmi_3:8080"),
        ("TRUSTED_PROXIES", "10.0.0.5"),
        ("TRUSTED_PROXIES", "10.0.0.0/24, fd00::/8,::1"),
    ],
)
def test_values_that_are_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str) -> None:
    """As they are written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KSQLDB_URL", "http://127.0.0.1:1")
    monkeypatch.setenv(variable, value)
    assert getattr(load(Settings), variable.lower()) == value


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("CORS_ORIGINS", "https://plant.example/", "without a slash behind"),
        ("CORS_ORIGINS", "null", "it begins with http:// or https://"),
        ("CORS_ORIGINS", "*,https://plant.example", "it stands alone"),
        ("MAX_STREAMS", "-1", "greater than or equal to 0"),
        ("MAX_STREAMS_PER_CLIENT", "many", "valid integer"),
        ("TRUSTED_PROXIES", "*", "is not an address or a network"),
        ("TRUSTED_PROXIES", "edge.example", "a host's name is not looked up"),
        ("TRUSTED_PROXIES", "0.0.0.0/0", "is every address"),
    ],
)
def test_values_that_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str, message: str
) -> None:
    """One line that names the variable and what is wrong with it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KSQLDB_URL", "http://127.0.0.1:1")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=f"{variable}=") as raised:
        load(Settings)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_certificates_for_a_key_server_need_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A forgotten AUTH_JWKS_URL is named."""
    (tmp_path / "ca.pem").write_bytes(Authority().pem)
    monkeypatch.chdir(tmp_path)
    for name, value in {"KSQLDB_URL": "http://ksqldb:8088", **_WHOLE, "AUTH_CA_FILE": "ca.pem"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="AUTH_CA_FILE is set without AUTH_JWKS_URL"):
        load(Settings)
