"""The rules that every deployment platform must follow: `reconciler.platforms.protocol` as tests."""

# ruff: noqa: S101 - asserts are how these tests test, wherever they are run from

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest

from openfactory_common.errors import PlatformConflict, PlatformRefused
from reconciler.domain.services import ConfigMount, Healthcheck, LiveService, Port, Publish, ServiceSpec, drift
from reconciler.platforms.protocol import Platform, TaskLogs

T = TypeVar("T")

#: Values of a spec's fields, besides those of the bench.
_VARIANTS: tuple[tuple[str, Any], ...] = (
    ("env", {"GROUP_NAME": "a b", "EMPTY": "", "EQUALS": "a=b", "UNICODE": "Söhne"}),
    ("env", {"GROUP_NAME": "{{.Node.Hostname}} {{ x }} }} {{", "OTHER": r'{{"{{"}} %s $HOME \n'}),
    ("env", {}),
    ("cpu_limit", 0.25),
    ("cpu_limit", 0.0),
    ("cpu_reservation", 0.0),
    ("stop_grace", 2.0),
    ("start_first", False),
    ("installation", "1a2b3c4d"),
    ("hardened", True),
)
#: Values of fields that a platform may refuse.
_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("memory_limit", 64 << 20),
    ("memory_reservation", 8 << 20),
    ("constraints", ("node.platform.os==linux",)),
    ("labels", {"team": "Söhne", "com.example/a": ""}),
    ("log_driver", "json-file"),
    ("healthcheck", Healthcheck("true", 5.0)),
)


@dataclass(frozen=True)
class PlatformBench:
    """A platform to test, and what only its author knows.

    Attributes:
        platform: of an owner that nothing else uses; no object of it exists yet.
        spec: a group service of that owner with one task, which becomes healthy within ``patience``.
        stranger: the same platform for another owner.
        disturb: changes the named service without the platform, so that it differs from its spec.
        absent_image: an image that cannot be pulled.
        port: a free port of the host, 0 if ports cannot be tested.
        registry_path: path of a mounted registry in a service.
        patience: seconds to wait for a condition.
    """

    platform: Platform
    spec: ServiceSpec
    stranger: Platform
    disturb: Callable[[str], object]
    absent_image: str = "localhost:1/absent:1"
    port: int = 0
    registry_path: str = "/etc/openfactory/registry.json"
    patience: float = 60.0

    def observe(self, spec: ServiceSpec) -> LiveService:
        """Return a service as observed."""
        services = self.platform.observe().services
        assert spec.name.lower() in services, f"{spec.name} must be observed under its name in lower case"
        return services[spec.name.lower()]

    def list_differences(self, spec: ServiceSpec) -> list[str]:
        """Return the fields that differ, as the plan does."""
        live = self.observe(spec).spec
        assert live is not None, "a service of the owner must have a spec"
        return [item.field for item in drift(live, spec)]

    def wait_until(self, observe: Callable[[], T], is_met: Callable[[T], object]) -> T:
        """Observe until the condition is met, and fail with the last value."""
        deadline = time.monotonic() + self.patience
        while not is_met(value := observe()):
            assert time.monotonic() < deadline, f"after {self.patience:g} s still {value}"
            time.sleep(0.1)
        return value

    def converge(self, spec: ServiceSpec) -> LiveService:
        """Update the service as cycles do, until it runs as specified."""

        def cycle() -> LiveService:
            live = self.observe(spec)
            if live.spec != spec:
                self.platform.update_service(live, spec)
            return live

        return self.wait_until(cycle, lambda live: live.spec == spec and live.running == spec.replicas)


def find_refusal(write: Callable[[], object]) -> str:
    """Do a write and return why the platform refused it, ``""`` if it did not."""
    try:
        write()
    except PlatformRefused as refused:
        return str(refused)
    return ""


class PlatformConformance:
    """Subclass it as ``Test...`` with a fixture ``bench`` that provides a new `PlatformBench` for each test."""

    def test_nothing_is_there_at_first(self, bench: PlatformBench) -> None:
        """A new owner observes nothing."""
        state = bench.platform.observe()
        assert (dict(state.services), state.registries) == ({}, ())

    def test_what_its_tasks_write_is_read_where_the_platform_keeps_it(self, bench: PlatformBench) -> None:
        """Whole lines, each with its task; nothing of a service that has written nothing, and never without end."""
        bench.platform.create_service(bench.spec)
        live = bench.observe(bench.spec)
        if isinstance(bench.platform, TaskLogs):
            lines = list(bench.platform.task_logs(live, 5, follow=False))
            assert all(line.task.startswith(live.name) and "\n" not in line.text for line in lines), lines
            assert list(bench.platform.task_logs(live, 0, follow=False)) == []

    def test_what_was_created_is_read_back_as_it_was_asked_for(self, bench: PlatformBench) -> None:
        """Equality means no drift: an unchanged service is never written again."""
        bench.platform.create_service(bench.spec)
        live = bench.wait_until(lambda: bench.observe(bench.spec), lambda live: live.running == 1)
        assert live.name == bench.spec.name
        assert live.error == ""
        assert bench.list_differences(bench.spec) == []
        assert live.owner is not None

    def test_observing_changes_nothing(self, bench: PlatformBench) -> None:
        """Two observations of a settled service are equal, including its version."""
        bench.platform.create_service(bench.spec)
        before = bench.wait_until(lambda: bench.observe(bench.spec), lambda live: live.running == 1)
        assert bench.observe(bench.spec) == before

    def test_every_field_comes_back(self, bench: PlatformBench) -> None:
        """A field that differs is reported by its name, and no other field is."""
        wanted = [
            replace(bench.spec, name=f"{bench.spec.name}{number}", **{field: value})
            for number, (field, value) in enumerate(_VARIANTS)
        ]
        for spec in wanted:
            bench.platform.create_service(spec)
        services = bench.platform.observe().services
        for spec, (field, _) in zip(wanted, _VARIANTS, strict=True):
            live = services[spec.name.lower()].spec
            assert live is not None
            assert drift(live, spec) == (), f"{field} was read back as another value"
            usual = replace(bench.spec, name=spec.name)
            assert {item.field.partition(" ")[0] for item in drift(live, usual)} == {field}

    def test_an_option_comes_back_or_is_refused_in_words(self, bench: PlatformBench) -> None:
        """What a platform cannot run must not be left out in silence: it would be written again in each cycle."""
        for number, (field, value) in enumerate(_OPTIONS):
            spec = replace(bench.spec, name=f"{bench.spec.name}{number}", **{field: value})
            if find_refusal(lambda spec=spec: bench.platform.create_service(spec)):  # type: ignore[misc]
                continue
            assert bench.list_differences(spec) == [], f"{field} was read back as another value"
            assert bench.list_differences(replace(bench.spec, name=spec.name)) != [], f"{field} is not read"

    def test_a_port_of_the_host_comes_back(self, bench: PlatformBench) -> None:
        """As with `ENVIRONMENT=local`; the port is read from the service, it is not stored elsewhere."""
        spec = replace(bench.spec, ports=(Port(8000, bench.port or 6000, Publish.HOST),), start_first=False)
        bench.platform.create_service(spec)
        assert bench.list_differences(spec) == []

    def test_a_taken_name_is_a_conflict(self, bench: PlatformBench) -> None:
        """Creating never replaces an existing service."""
        bench.platform.create_service(bench.spec)
        with pytest.raises(PlatformConflict):
            bench.platform.create_service(replace(bench.spec, env={"OTHER": "1"}))
        assert bench.list_differences(bench.spec) == []

    def test_an_update_completes(self, bench: PlatformBench) -> None:
        """Repeated cycles lead to the desired spec, running, whatever the number of steps."""
        bench.platform.create_service(bench.spec)
        bench.wait_until(lambda: bench.observe(bench.spec), lambda live: live.running == 1)
        changed = replace(bench.spec, env={"CHANGED": "1"})
        assert bench.converge(changed).name == bench.spec.name

    def test_drift_is_reverted(self, bench: PlatformBench) -> None:
        """It is observed as a difference, and an update reverts it."""
        bench.platform.create_service(bench.spec)
        bench.wait_until(lambda: bench.observe(bench.spec), lambda live: live.running == 1)
        bench.disturb(bench.spec.name)
        assert bench.list_differences(bench.spec) != []
        bench.converge(bench.spec)

    def test_a_write_on_what_has_changed_since_is_a_conflict(self, bench: PlatformBench) -> None:
        """A concurrent write is never overwritten without having been read."""
        bench.platform.create_service(bench.spec)
        live = bench.observe(bench.spec)
        bench.platform.update_service(live, replace(bench.spec, env={"FIRST": "1"}))
        with pytest.raises(PlatformConflict):
            bench.platform.update_service(live, replace(bench.spec, env={"SECOND": "1"}))

    def test_what_failed_is_kept_until_the_next_update_or_not_at_all(self, bench: PlatformBench) -> None:
        """So is the spec before the last update; without them a rollout halts and nothing is rolled back."""
        bench.platform.create_service(bench.spec)
        bench.wait_until(lambda: bench.observe(bench.spec), lambda live: live.running == 1)
        changed = replace(bench.spec, env={"CHANGED": "1"})
        live = bench.converge(changed)
        assert live.previous in (None, bench.spec)
        assert (live.failed, live.failure) == ("", "")
        failed = ("0123456789ab", "Söhne: a=b, {{.Node}}")
        bench.platform.update_service(live, bench.spec, *failed)
        live = bench.converge(bench.spec)
        assert live.previous in (None, changed)
        assert (live.failed, live.failure) in (("", ""), failed)
        live = bench.converge(changed)
        assert (live.failed, live.failure) == ("", ""), "an update must clear what failed before it"

    def test_an_update_of_what_is_gone_is_a_conflict(self, bench: PlatformBench) -> None:
        """It is not recreated."""
        bench.platform.create_service(bench.spec)
        live = bench.observe(bench.spec)
        bench.platform.remove_service(live)
        with pytest.raises(PlatformConflict):
            bench.platform.update_service(live, bench.spec)

    def test_removing_is_final_and_can_be_repeated(self, bench: PlatformBench) -> None:
        """The second removal finds nothing, and a new service of the same name is another one."""
        bench.platform.create_service(bench.spec)
        live = bench.observe(bench.spec)
        bench.platform.remove_service(live)
        bench.platform.remove_service(live)
        assert bench.platform.observe().services == {}
        bench.platform.create_service(bench.spec)
        bench.platform.remove_service(live)
        assert bench.list_differences(bench.spec) == []

    def test_an_absent_image_is_an_error_with_a_reason(self, bench: PlatformBench) -> None:
        """Either the creation is refused, or the service has the reason why it does not run."""
        spec = replace(bench.spec, image=bench.absent_image)
        reason = find_refusal(lambda: bench.platform.create_service(spec))
        assert reason or bench.wait_until(lambda: bench.observe(spec), lambda live: live.error).running == 0

    def test_a_bad_update_keeps_the_running_task(self, bench: PlatformBench) -> None:
        """While the new image cannot be pulled, a task of the old one continues to run."""
        bench.platform.create_service(bench.spec)
        bench.wait_until(lambda: bench.observe(bench.spec), lambda live: live.running == 1)
        bad = replace(bench.spec, image=bench.absent_image)
        reason = find_refusal(lambda: bench.platform.update_service(bench.observe(bench.spec), bad))
        assert bench.observe(bench.spec).running == 1
        assert bench.list_differences(bench.spec if reason else bad) == []

    def test_documents_are_published_newest_first(self, bench: PlatformBench) -> None:
        """Each has the bytes and the number with which it was published, and a name from its content."""
        bench.platform.publish_registry(b"one\n", "aaaaaaaaaaaa", 1)
        bench.platform.publish_registry(b"two\n", "bbbbbbbbbbbb", 2)
        found = [(live.data, live.sequence) for live in bench.platform.observe().registries]
        assert found == [(b"two\n", 2), (b"one\n", 1)]
        assert all(live.name.endswith(("aaaaaaaaaaaa", "bbbbbbbbbbbb")) for live in bench.platform.observe().registries)

    def test_an_earlier_document_can_be_current_again(self, bench: PlatformBench) -> None:
        """The same content is one document, renewed."""
        bench.platform.publish_registry(b"one\n", "aaaaaaaaaaaa", 1)
        bench.platform.publish_registry(b"two\n", "bbbbbbbbbbbb", 2)
        bench.platform.publish_registry(b"one\n", "aaaaaaaaaaaa", 3)
        found = [(live.data, live.sequence) for live in bench.platform.observe().registries]
        assert found == [(b"one\n", 3), (b"two\n", 2)]

    def test_a_document_is_removed_once(self, bench: PlatformBench) -> None:
        """A second removal is not an error."""
        bench.platform.publish_registry(b"one\n", "aaaaaaaaaaaa", 1)
        [live] = bench.platform.observe().registries
        bench.platform.remove_registry(live)
        bench.platform.remove_registry(live)
        assert bench.platform.observe().registries == ()

    def test_a_mounted_document_is_kept(self, bench: PlatformBench) -> None:
        """It is in the spec of the service that mounts it, and cannot be removed."""
        bench.platform.publish_registry(b"one\n", "aaaaaaaaaaaa", 1)
        [live] = bench.platform.observe().registries
        spec = replace(bench.spec, configs=(ConfigMount(live.name, bench.registry_path),))
        bench.platform.create_service(spec)
        assert bench.list_differences(spec) == []
        [live] = bench.platform.observe().registries
        assert live.mounted
        with pytest.raises(PlatformRefused):
            bench.platform.remove_registry(live)

    def test_a_service_that_mounts_what_is_not_there_is_a_conflict(self, bench: PlatformBench) -> None:
        """Nothing is created."""
        spec = replace(bench.spec, configs=(ConfigMount("no-such-document", bench.registry_path),))
        with pytest.raises(PlatformConflict):
            bench.platform.create_service(spec)
        assert bench.platform.observe().services == {}

    def test_another_owner_sees_nothing_of_ours(self, bench: PlatformBench) -> None:
        """Two operators on one platform do not observe each other."""
        bench.platform.create_service(bench.spec)
        bench.platform.publish_registry(b"one\n", "aaaaaaaaaaaa", 1)
        state = bench.stranger.observe()
        assert (dict(state.services), state.registries) == ({}, ())

    def test_a_record_is_written_by_compare_and_swap(self, bench: PlatformBench) -> None:
        """Of two operators that read the same version, one gets a conflict; also at the first write."""
        bench.platform.write_record("lease", {"holder": "a", "text": "Söhne, a=b"}, None)
        with pytest.raises(PlatformConflict):
            bench.platform.write_record("lease", {"holder": "b"}, None)
        first = bench.platform.records()["lease"]
        assert first.fields == {"holder": "a", "text": "Söhne, a=b"}
        bench.platform.write_record("lease", {"holder": "b"}, first)
        with pytest.raises(PlatformConflict):
            bench.platform.write_record("lease", {"holder": "c"}, first)
        assert bench.platform.records()["lease"].fields == {"holder": "b"}

    def test_records_are_observed_and_kept_apart(self, bench: PlatformBench) -> None:
        """An observation has them, each under its name, and another owner does not observe them."""
        bench.platform.write_record("lease", {"holder": "a"}, None)
        bench.platform.write_record("pause", {"until": "1"}, None)
        found = bench.platform.observe()
        assert {name: record.fields for name, record in found.records.items()} == {
            "lease": {"holder": "a"},
            "pause": {"until": "1"},
        }
        assert (found.services, found.registries) == ({}, ())
        assert bench.stranger.records() == {}

    def test_a_removed_record_can_be_written_again(self, bench: PlatformBench) -> None:
        """Removing is final and can be repeated; a write on a removed record is a conflict."""
        bench.platform.write_record("pause", {"until": "1"}, None)
        record = bench.platform.records()["pause"]
        bench.platform.remove_record(record)
        bench.platform.remove_record(record)
        assert bench.platform.records() == {}
        with pytest.raises(PlatformConflict):
            bench.platform.write_record("pause", {"until": "2"}, record)
        bench.platform.write_record("pause", {"until": "3"}, None)
        assert bench.platform.records()["pause"].fields == {"until": "3"}

    def test_a_closed_platform_can_be_used_again(self, bench: PlatformBench) -> None:
        """Closing only releases connections."""
        bench.platform.close()
        bench.platform.close()
        assert bench.platform.observe().services == {}
