"""Registry documents as configs of a real engine."""

from __future__ import annotations

import dataclasses
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from openfactory_common.errors import PlatformConflict, PlatformRefused
from reconciler.domain.services import LiveRegistry

from .sandbox import Sandbox, docker

pytestmark = pytest.mark.engine


def published(sandbox: Sandbox) -> list[tuple[str, int]]:
    """Return revision and sequence of what is published, newest first."""
    return [(registry.name.rpartition("-")[2], registry.sequence) for registry in sandbox.registries()]


def newest(sandbox: Sandbox) -> LiveRegistry:
    """Return the current document."""
    return sandbox.registries()[0]


def test_a_published_document_is_read_back(sandbox: Sandbox) -> None:
    """Its bytes, number and the engine's time of it."""
    sandbox.publish('{"groups": {"Weld": "ü"}}', "aa", 3)
    registry = newest(sandbox)
    assert (registry.data.decode(), registry.sequence, registry.mounted) == ('{"groups": {"Weld": "ü"}}', 3, False)
    assert registry.name == f"{sandbox.owner}_registry-aa"
    assert abs(datetime.now(UTC) - registry.updated_at) < timedelta(hours=1)


def test_an_older_document_becomes_current_again(sandbox: Sandbox) -> None:
    """The content flips back: the config that has it is renewed, because its name is taken by itself."""
    sandbox.publish("a", "aa", 1)
    sandbox.publish("b", "bb", 2)
    before = newest(sandbox).updated_at
    sandbox.publish("a", "aa", 3)
    assert published(sandbox) == [("aa", 3), ("bb", 2)]
    assert newest(sandbox).updated_at > before


def test_publishing_twice_writes_once(sandbox: Sandbox) -> None:
    """A publication whose answer was lost is simply published again."""
    sandbox.publish("a", "aa", 1)
    version = newest(sandbox).version
    sandbox.publish("a", "aa", 1)
    assert newest(sandbox).version == version


def test_a_renewal_at_a_stale_version_is_a_conflict(sandbox: Sandbox) -> None:
    """Two publishers at once: the second looks again."""
    sandbox.publish("a", "aa", 1)
    stale = newest(sandbox)
    sandbox.publish("a", "aa", 2)
    with pytest.raises(PlatformConflict, match="out of sequence"):
        sandbox.platform._engine.post(
            "/configs/{}/update", stale.id, body={"Name": stale.name, "Labels": {"x": "y"}}, version=stale.version
        )


def test_a_strangers_config_of_that_name_is_not_touched(sandbox: Sandbox) -> None:
    """Neither its labels nor its data change, and it is not among ours."""
    docker("config", "create", f"{sandbox.owner}_registry-aa", "-", stdin=b"a")
    with pytest.raises(PlatformRefused, match="not touched"):
        sandbox.publish("a", "aa", 1)
    assert sandbox.registries() == ()


def test_other_content_under_the_name_is_refused(sandbox: Sandbox) -> None:
    """A name stands for its content; something else under it is not made current."""
    sandbox.publish("a", "aa", 1)
    with pytest.raises(PlatformRefused, match="other content"):
        sandbox.publish("tampered", "aa", 2)
    assert published(sandbox) == [("aa", 1)]


def test_a_sequence_that_is_no_number_counts_as_none(sandbox: Sandbox) -> None:
    """A damaged label makes a document the oldest, it does not end the reading."""
    labels = [f"org.openfactory.owner={sandbox.owner}", "org.openfactory.kind=registry", "org.openfactory.sequence=x"]
    options = [part for label in labels for part in ("--label", label)]
    docker("config", "create", *options, f"{sandbox.owner}_registry-zz", "-", stdin=b"z")
    sandbox.publish("a", "aa", 1)
    assert published(sandbox) == [("aa", 1), ("zz", 0)]


def test_a_mounted_document_says_so_and_cannot_be_removed(sandbox: Sandbox) -> None:
    """What a current spec mounts stays; the engine refuses in its own words."""
    mount = sandbox.publish("a", "aa", 1)
    sandbox.create(sandbox.spec(configs=(mount,), replicas=0))
    assert newest(sandbox).mounted
    with pytest.raises(PlatformRefused, match="in use"):
        sandbox.platform.remove_registry(newest(sandbox))


def test_a_document_that_only_the_previous_spec_mounts_is_not_mounted(sandbox: Sandbox) -> None:
    """The service moved on to the next document."""
    first, second = sandbox.publish("a", "aa", 1), sandbox.publish("b", "bb", 2)
    spec = sandbox.create(sandbox.spec(configs=(first,), replicas=0))
    sandbox.repair(dataclasses.replace(spec, configs=(second,)))
    assert {registry.name: registry.mounted for registry in sandbox.registries()} == {
        first.name: False,
        second.name: True,
    }


def test_a_document_is_removed_once_and_again(sandbox: Sandbox) -> None:
    """One that is gone already is no error."""
    sandbox.publish("a", "aa", 1)
    registry = newest(sandbox)
    sandbox.platform.remove_registry(registry)
    sandbox.platform.remove_registry(registry)
    assert sandbox.registries() == ()


def test_a_document_that_is_too_large_is_refused(sandbox: Sandbox) -> None:
    """The engine's limit is reported as it is, nothing is published."""
    with pytest.raises(PlatformRefused):
        sandbox.publish("a" * 1_100_000, "aa", 1)
    assert sandbox.registries() == ()


def test_a_running_task_reads_the_document(sandbox: Sandbox) -> None:
    """The mount is a file in the container with exactly the published bytes."""
    mount = sandbox.publish("boot copy", "aa", 1)
    spec = sandbox.create_running(sandbox.spec(configs=(mount,)))
    container = docker("ps", "--quiet", "--filter", f"name={spec.name}")
    shown = subprocess.run(
        ["docker", "exec", container, "/bin/sh", "-c", 'read -r line < /registry.json; echo "$line"'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.stdout.strip() == "boot copy"
