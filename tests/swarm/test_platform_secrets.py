"""Secrets of a real engine in services of ours: named in the spec, never read by us."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from openfactory_common.errors import PlatformConflict
from reconciler.domain.services import SecretMount

from .sandbox import Sandbox, docker

pytestmark = pytest.mark.engine
_PATH = "/run/secrets/ksqldb_password"


@pytest.fixture
def secrets(sandbox: Sandbox) -> Iterator[tuple[str, str]]:
    """Two secrets of this sandbox's, removed once no service has them any more."""
    names = f"{sandbox.owner}-pw-1", f"{sandbox.owner}-pw-2"
    for name in names:
        docker("secret", "create", name, "-", stdin=f"of {name}".encode())
    yield names
    sandbox.clean_up()
    docker("secret", "rm", *names)


def _read(sandbox: Sandbox) -> str:
    """Return what the newest task finds in the file."""
    label = f"label=com.docker.swarm.service.name={sandbox.owner}_group_Weld"
    [newest, *_] = docker("ps", "-q", "--filter", label).split()
    return docker("exec", newest, "sh", "-c", f"read -r found <{_PATH} || :; echo $found")


def test_a_mounted_secret_is_no_drift_and_another_one_replaces_it(sandbox: Sandbox, secrets: tuple[str, str]) -> None:
    """The engine's own form reads back as it was meant; a rotated secret is an update by its name."""
    first, second = ((SecretMount(name, _PATH),) for name in secrets)
    spec = sandbox.create_running(sandbox.spec(secrets=first))
    assert sandbox.drift(spec) == ()
    assert _read(sandbox) == f"of {secrets[0]}"
    rotated = sandbox.spec(secrets=second)
    assert [item.field for item in sandbox.drift(rotated)] == ["secrets"]
    sandbox.repair(rotated)
    assert sandbox.drift(rotated) == ()


def test_a_secret_taken_away_by_hand_is_put_back(sandbox: Sandbox, secrets: tuple[str, str]) -> None:
    """It shows as drift and is repaired."""
    spec = sandbox.create_running(sandbox.spec(secrets=(SecretMount(secrets[0], _PATH),)))
    sandbox.by_hand(spec, "--secret-rm", secrets[0])
    assert [item.field for item in sandbox.drift(spec)] == ["secrets"]
    sandbox.repair(spec)
    assert sandbox.drift(spec) == ()


def test_a_secret_that_is_not_there_is_named(sandbox: Sandbox) -> None:
    """Nothing is created; anyone who makes the secret has the service at the next look."""
    with pytest.raises(PlatformConflict, match="mounts secret no-such-secret, which does not exist"):
        sandbox.create(sandbox.spec(secrets=(SecretMount("no-such-secret", _PATH),)))
    assert sandbox.platform.observe().services == {}
