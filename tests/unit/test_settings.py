"""Settings: the seed's variables with their defaults, and errors that name the variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from openfactory_common.errors import ConfigurationError
from openfactory_common.settings_types import ROUTING_LAYER_VARIABLES
from reconciler.cli.settings import make_report
from reconciler.settings import Settings, load
from routing_layer.settings import Settings as RoutingLayerSettings

SEED = {
    "KSQLDB_ASSETS_STREAM": "enriched_assets_stream",
    "KSQLDB_ASSETS_TABLE": "assets",
    "KSQLDB_UNS_MAP": "asset_to_uns_map",
    "DOCKER_NETWORK": "factory-net",
    "SWARM_NODE_HOST": "localhost",
    "ROUTING_LAYER_REPLICAS": 1,
    "ROUTING_LAYER_CPU_LIMIT": 1.0,
    "ROUTING_LAYER_CPU_RESERVATION": 0.5,
    "GROUPING_STRATEGY": "workcenter",
    "DEPLOYMENT_PLATFORM": "swarm",
    "FASTAPI_GROUP_REPLICAS": 1,
    "FASTAPI_GROUP_CPU_LIMIT": 1.0,
    "FASTAPI_GROUP_CPU_RESERVATION": 0.5,
    "FASTAPI_GROUP_PORT_BASE": 6000,
    "UNS_FASTAPI_GROUP_GROUPING_LEVEL": "workcenter",
    "STATE_API_REPLICAS": 1,
    "STATE_API_CPU_LIMIT": 0.5,
    "STATE_API_CPU_RESERVATION": 0.25,
    "ENVIRONMENT": "production",
    "LOG_LEVEL": "info",
}


@pytest.fixture
def required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set the two variables that have no default, away from any .env file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_BROKER", "broker:9092")
    monkeypatch.setenv("KSQLDB_URL", "http://ksqldb:8088")


@pytest.mark.usefixtures("required")
def test_the_seeds_defaults() -> None:
    """Every optional variable has the documented default."""
    settings = load()
    assert {name: getattr(settings, name.lower()) for name in SEED} == SEED


@pytest.mark.usefixtures("required")
def test_every_setting_is_explained() -> None:
    """No variable without a sentence about it."""
    assert [name for name, info in Settings.model_fields.items() if not info.description] == []


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both required variables are named in one go."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"(?s)KAFKA_BROKER is required.*KSQLDB_URL is required"):
        load()


@pytest.mark.usefixtures("required")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PRUNE_GRACE", "soon"),
        ("RECONCILE_INTERVAL", "-1"),
        ("LOG_LEVEL", "loud"),
        ("ENVIRONMENT", "moon"),
        ("ROUTING_LAYER_PUBLISH", "x"),
        ("FASTAPI_GROUP_PORT", "70000"),
        ("PRUNE_MAX_FRACTION", "2"),
        ("KSQLDB_URL", "ksqldb:8088"),
        ("KSQLDB_UNS_MAP", "a; DROP TABLE x"),
        ("RESOURCE_PREFIX", "with space"),
    ],
)
def test_a_bad_value_is_one_line_with_its_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The message names the variable and shows the value."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as raised:
        load()
    assert str(raised.value).startswith(f"{name}=")
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("required")
@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("7d", 604800), ("500ms", 0.5)]
)
def test_durations(monkeypatch: pytest.MonkeyPatch, text: str, seconds: float) -> None:
    """A duration is seconds, or a number with a unit."""
    monkeypatch.setenv("PRUNE_GRACE", text)
    assert load().prune_grace == seconds


@pytest.mark.usefixtures("required")
def test_an_env_file_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seed's shared .env file works; a variable of the environment overrides it."""
    Path(".env").write_text("DOCKER_NETWORK=from-file\nLOG_LEVEL=debug\n")
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    settings = load()
    assert (settings.docker_network, settings.log_level) == ("from-file", "error")


@pytest.mark.usefixtures("required")
def test_a_secret_comes_from_a_file_and_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A Swarm secret is read; neither repr nor an error shows it."""
    (tmp_path / "secret").write_text("open sesame\n")
    monkeypatch.setenv("KSQLDB_USERNAME", "ali")
    monkeypatch.setenv("KSQLDB_PASSWORD_FILE", str(tmp_path / "secret"))
    settings = load()
    assert settings.ksqldb_password.get_secret_value() == "open sesame"
    assert "sesame" not in repr(settings)


@pytest.mark.usefixtures("required")
@pytest.mark.parametrize("name", ["KSQLDB_USERNAME_FILE", "KSQLDB_PASSWORD_FILE"])
@pytest.mark.parametrize("content", ["a\nb\n", "\ufeffsesame", "a\x00b", "a\tb", "", "\n"])
def test_a_file_holds_what_its_variable_may(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, content: str
) -> None:
    """What the variable itself may not have in it, a file may not either; what it holds is not said."""
    (tmp_path / "user").write_text("ali\r\n")
    monkeypatch.setenv("KSQLDB_USERNAME_FILE", str(tmp_path / "user"))
    (tmp_path / "odd").write_text(content)
    assert load().ksqldb_username == "ali"
    monkeypatch.setenv(name, str(tmp_path / "odd"))
    with pytest.raises(ConfigurationError, match=name) as refused:
        load()
    assert "sesame" not in str(refused.value)


@pytest.mark.usefixtures("required")
def test_a_users_name_in_a_file_has_no_colon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in the variable: the server would take what follows for the password."""
    (tmp_path / "user").write_text("ali:sesame\n")
    monkeypatch.setenv("KSQLDB_USERNAME_FILE", str(tmp_path / "user"))
    with pytest.raises(ConfigurationError, match=r"KSQLDB_USERNAME_FILE: .* no : in a user's name") as refused:
        load()
    assert "sesame" not in str(refused.value)


@pytest.mark.usefixtures("required")
def test_a_directory_that_cannot_be_looked_at_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the variable, whatever the file system says of the path."""
    monkeypatch.setenv("REGISTRY_DIR", "/" + "x" * 5000)
    with pytest.raises(ConfigurationError, match=r"REGISTRY_DIR=.*File name too long"):
        load()


@pytest.mark.usefixtures("required")
def test_an_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack file's ${VAR:-} leaves the default in force."""
    monkeypatch.setenv("FASTAPI_GROUP_IMAGE", "")
    assert load().fastapi_group_image.startswith("ghcr.io/")


@pytest.mark.usefixtures("required")
@pytest.mark.parametrize(
    ("environment", "file", "path"),
    [
        (None, None, "/ready"),
        ("", None, ""),
        (None, "", ""),
        ("", "/x", ""),
        ("/x", "", "/x"),
    ],
)
def test_an_empty_readiness_path_is_a_value(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: str | None, file: str | None, path: str
) -> None:
    """It means that the image has no readiness endpoint; no other empty variable means anything."""
    monkeypatch.chdir(tmp_path)
    if environment is not None:
        monkeypatch.setenv("FASTAPI_GROUP_READY_PATH", environment)
    if file is not None:
        (tmp_path / ".env").write_text(f"FASTAPI_GROUP_IMAGE=\nFASTAPI_GROUP_READY_PATH={file}\n")
    settings = load()
    assert settings.fastapi_group_ready_path == path
    assert settings.fastapi_group_image.startswith("ghcr.io/")
    origin = "environment" if environment is not None else ".env" if file is not None else "default"
    (row,) = [row for row in make_report().rows if row.name == "FASTAPI_GROUP_READY_PATH"]
    assert (row.value, row.origin) == (path, origin)


def test_the_operator_knows_all_variables_of_the_routing_layer() -> None:
    """None of them is reported as misspelt."""
    assert {name.upper() for name in RoutingLayerSettings.model_fields} == ROUTING_LAYER_VARIABLES


_TOKENS = {
    "routing_layer_auth_jwks_url": "https://issuer/keys",
    "routing_layer_auth_issuer": "i",
    "routing_layer_auth_audience": "a",
}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"idle_after": 59}, "IDLE_AFTER=.59"),
        ({"idle_after": 60, "routing_mode": "redirect"}, "ROUTING_MODE=redirect"),
        ({"idle_after": 60, "deployment_platform": "docker"}, "DEPLOYMENT_PLATFORM=swarm"),
        ({"idle_after": 60, "reconcile_policy": "create-only"}, "RECONCILE_POLICY=create-only"),
        ({"idle_after": 60, **_TOKENS}, "ROUTING_LAYER_METRICS_PORT"),
    ],
)
def test_sleep_is_refused_where_it_cannot_be(given: dict[str, object], named: str) -> None:
    """One line that names the variable; each alone is accepted."""
    with pytest.raises(ConfigurationError, match=named):
        load(_env_file=None, kafka_broker="k:9092", ksqldb_url="http://k:8088", **given)
    others = {name: value for name, value in given.items() if name != "idle_after"}
    assert load(_env_file=None, kafka_broker="k:9092", ksqldb_url="http://k:8088", **others).idle_after == 0
