"""What the platform of plain containers asks of the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from openfactory_common.errors import ConfigurationError
from reconciler.app import docker
from reconciler.settings import Settings


def settings(**options: object) -> Settings:
    """Return settings of the platform of plain containers."""
    given: dict[str, object] = {
        "kafka_broker": "k:9092",
        "ksqldb_url": "http://k:8088",
        "deployment_platform": "docker",
    }
    return Settings(_env_file=None, **{**given, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variable", "count"),
    [
        *((name, count) for name in ("ROUTING_LAYER_REPLICAS", "STATE_API_REPLICAS") for count in (0, 2)),
        *(("FASTAPI_GROUP_REPLICAS", count) for count in (2, 3)),  # 0 is refused everywhere
    ],
)
def test_another_number_of_tasks_than_one_is_refused(variable: str, count: int) -> None:
    """A container is one task: the variable is named before anything is asked of an engine."""
    with pytest.raises(ConfigurationError, match=f"{variable}={count}: .* one container"):
        docker(settings(**{variable.lower(): count}), lambda *_: None)


def test_the_registrys_files_are_in_the_users_state_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Unless `REGISTRY_DIR` says otherwise, each owner has a directory where programs keep their state."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    docker(settings(reconciler_owner="line4"), lambda *_: None).publish_registry(b"{}\n", "abc", 1)
    assert (tmp_path / "openfactory" / "line4" / "registry.json").read_bytes() == b"{}\n"


def test_a_plain_container_reads_the_registrys_file_unless_told_whom_to_follow() -> None:
    """The operator on the host is not reachable by the name that it has in a Swarm."""
    assert settings().followed_url == ""
    assert settings(reconciler_url="http://host:1").followed_url == "http://host:1"
    assert settings(deployment_platform="swarm").followed_url == "http://ofa_reconciler:8080"
