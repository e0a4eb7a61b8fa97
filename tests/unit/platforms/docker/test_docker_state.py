"""What the containers of a service mean, in states that a real engine cannot be brought into at will."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfactory_common.errors import PlatformRefused
from reconciler.domain.services import (
    ConfigMount,
    Healthcheck,
    Kind,
    LiveService,
    Port,
    Publish,
    ServiceSpec,
    drift,
)
from reconciler.platforms.docker.platform import DockerPlatform
from reconciler.platforms.docker.spec import ASKED, PREVIOUS, RegistryLocation, label_previous, to_engine
from reconciler.platforms.docker.state import find_ends, group_by_service, read_copies, read_service
from reconciler.platforms.protocol import FAILED, FAILURE, label_failure

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SHELF = RegistryLocation("/state/ofa", "ofa_registry-abc")
SPEC = ServiceSpec("ofa_group_Weld", Kind.GROUP, "Weld", "image:1", {"A": "1"}, 1, 0.5, 0.1, "net")


def container(status: str, age: float, **state: Any) -> dict[str, Any]:
    """Return a container as the engine shows it, made of our own request ``age`` seconds ago."""
    body = to_engine(SPEC, "ofa", SHELF)
    started = (NOW - timedelta(seconds=age)).isoformat().replace("+00:00", "Z")
    config = {name: body[name] for name in ("Image", "Env", "Labels", "StopTimeout")}
    return {
        "Id": f"id{age:g}",
        "Name": "/ofa_group_Weld" if age > 60 else "/ofa_group_Weld.next",
        "Image": "sha256:1",
        "Created": started,
        "Config": config,
        "HostConfig": body["HostConfig"],
        "NetworkSettings": {"Networks": {"net": {"Aliases": ["ofa_group_Weld"]}}},
        "State": {"Status": status, "StartedAt": started, **state},
    }


def observed(*raws: dict[str, Any]) -> LiveService:
    """Return the service that these containers are."""
    [containers] = group_by_service(raws, NOW, 5.0).values()
    return read_service(containers, {"sha256:1": {"Config": {"Env": ["A=1", "PATH=/bin"]}}}, SHELF, NOW)


def left(live: LiveService) -> tuple[str, ...]:
    """Return what is left to be done."""
    assert live.spec is not None
    return live.spec.unexpected


def test_one_that_runs_is_as_it_was_asked_for() -> None:
    """A variable of ours that the image has too is ours; one of the image's alone is not."""
    live = observed(container("running", 100))
    assert live.spec == SPEC
    assert (live.running, live.error, live.update_state) == (1, "", "")


@pytest.mark.parametrize(
    ("age", "restarts", "error"),
    [
        (1, 3, "its program ended, restarted 3 times"),
        (14, 1, "its program ended, restarted 1 times"),
        (15, 3, ""),
        (1, 0, ""),
    ],
)
def test_one_that_was_just_restarted_may_end_again(age: float, restarts: int, error: str) -> None:
    """Between two ends it runs; one that has run for a while has recovered."""
    found = observed({**container("running", age), "RestartCount": restarts, "Name": "/ofa_group_Weld"})
    assert (found.running, found.error) == (1, error)
    assert found.updated_at == NOW - timedelta(seconds=age)


@pytest.mark.parametrize("health", ["starting", "unhealthy"])
def test_after_a_start_of_the_engine_the_old_one_is_kept(health: str) -> None:
    """Everything is unhealthy for a moment then; the newest may be one that never gets well."""
    old = container("running", 100, Health={"Status": health})
    new = container("running", 50, Health={"Status": "starting"})
    live = observed(new, old)
    assert left(live) == ()
    assert (live.running, live.update_state, live.id) == (0, "updating", "id100+id50")


def test_an_old_one_that_does_not_run_is_waited_for_by_no_one() -> None:
    """The new one takes its place at once."""
    assert left(observed(container("exited", 100), container("running", 1))) == ("replaced",)


@pytest.mark.parametrize(("age", "proved"), [(4, False), (6, True), (-30, True)])
def test_without_a_healthcheck_time_is_the_proof(age: float, proved: bool) -> None:
    """Five seconds; where the engine's clock is ahead of ours, time proves nothing and nothing waits for it."""
    live = observed(container("running", 100), container("running", age, Health={"Status": "none"}))
    assert (live.running == 1, left(live) == ("replaced",)) == (proved, proved)


def test_a_healthcheck_is_proof_enough() -> None:
    """No time is waited on top of it."""
    live = observed(container("running", 100), container("running", 1, Health={"Status": "healthy"}))
    assert left(live) == ("replaced",)


def test_one_that_is_on_its_way_out_is_none() -> None:
    """What is being removed is not repaired."""
    assert group_by_service([container("removing", 100)], NOW, 5.0) == {}


def test_one_that_could_not_be_removed_whole_is_replaced() -> None:
    """No repair of a state can help it."""
    assert left(observed(container("dead", 100))) == ("dead",)


@pytest.mark.parametrize(
    ("status", "state", "said"),
    [
        ("created", {"Error": "port is already allocated"}, "port is already allocated"),
        ("restarting", {"ExitCode": 3}, "exited with code 3, restarted 0 times"),
        ("running", {"Health": {"Status": "unhealthy", "Log": [{"Output": "no\n"}]}}, "unhealthy: no"),
        ("running", {"Health": {"Status": "unhealthy", "Log": None}}, "unhealthy: the healthcheck fails"),
        ("running", {"Health": {"Status": "starting"}}, ""),
    ],
)
def test_why_it_does_not_run_is_said(status: str, state: dict[str, Any], said: str) -> None:
    """In the engine's or the container's own words where there are any."""
    live = observed(container(status, 100, **state))
    assert (live.running, live.error) == (0, said)


@pytest.mark.parametrize(
    "label", ["[broken", "7", '{"env": 5}', '{"env": [{}], "cpu_reservation": "x", "publish": []}', ""]
)
def test_a_label_that_a_user_changed_shows_as_a_difference(label: str) -> None:
    """Nothing that is read makes the operator fall over, or believe what is not so."""
    raw = container("running", 100)
    raw["Config"]["Labels"]["org.openfactory.asked"] = label
    raw["HostConfig"]["PortBindings"] = {"8000/tcp": [{"HostPort": "6000-6010"}, {}]}
    live = observed(raw)
    assert live.spec is not None
    assert live.spec != SPEC
    raw["Config"]["Labels"]["org.openfactory.kind"] = "other"
    assert observed(raw).spec is None


@pytest.mark.parametrize("path", ["/registry.json", "/etc/openfactory/other.json"])
def test_a_registry_has_one_name_in_a_directory(path: str) -> None:
    """The directory is what is mounted, so its name is the one that there is."""
    mounting = ServiceSpec(**{**vars(SPEC), "configs": (ConfigMount("ofa_registry-abc", path),)})
    with pytest.raises(PlatformRefused, match=r"can only be mounted as <directory>/registry.json"):
        to_engine(mounting, "ofa", SHELF)


def test_two_tasks_are_refused() -> None:
    """Also where the settings were not asked."""
    with pytest.raises(PlatformRefused, match="2 tasks"):
        to_engine(ServiceSpec(**{**vars(SPEC), "replicas": 2}), "ofa", SHELF)


def made_of(spec: ServiceSpec) -> dict[str, Any]:
    """Return the container that an engine makes of a spec; it adds what it adds to all."""
    raw, body = container("running", 100), to_engine(spec, "ofa", SHELF)
    raw["Config"] = {name: body[name] for name in ("Image", "Env", "Labels", "StopTimeout")}
    raw["Config"] |= {"Healthcheck": body.get("Healthcheck")}
    log = body["HostConfig"].get("LogConfig", {"Type": "json-file", "Config": {}})
    log = {**log, "Config": {"max-file": "9", **log["Config"]}}  # an option of the engine's own configuration
    raw["HostConfig"] = {**body["HostConfig"], "LogConfig": log}
    joined = {name: {"Aliases": [spec.name]} for name in (spec.network, *spec.networks)}
    return {**raw, "NetworkSettings": {"Networks": joined}}


#: A value of each field that a spec may leave at its default.
OPTIONAL: dict[str, Any] = {
    "memory_limit": 1 << 31,
    "memory_reservation": 1 << 30,
    "labels": {"team": "a", "org.example.x": ""},
    "networks": ("a-net", "plant-b"),
    "log_driver": "journald",
    "healthcheck": Healthcheck("curl -f localhost"),
}


@pytest.mark.parametrize("name", OPTIONAL)
def test_an_option_is_read_back_as_it_was_written(name: str) -> None:
    """It differs from a spec without it, and in nothing else."""
    spec = dataclasses.replace(SPEC, **{name: OPTIONAL[name]})
    live = observed(made_of(spec))
    assert live.spec == spec
    plain = observed(made_of(SPEC))
    assert plain.spec == SPEC
    assert {one.field.partition(" ")[0] for one in drift(live.spec, SPEC)} == {"label" if name == "labels" else name}


_WORD = st.text("abcXYZ019_", min_size=1, max_size=12)


@given(
    st.fixed_dictionaries(
        {
            "memory_limit": st.integers(0, 1 << 40),
            "memory_reservation": st.integers(0, 1 << 40),
            "labels": st.dictionaries(_WORD, st.text(max_size=9), max_size=3),
            "networks": st.lists(_WORD, max_size=3, unique=True).map(lambda names: tuple(sorted(names))),
            "log_driver": st.sampled_from(["json-file", "journald"]),
            "log_options": st.dictionaries(_WORD, _WORD, max_size=3),
            "healthcheck": st.none() | st.builds(Healthcheck, _WORD, st.integers(0, 99).map(float)),
        }
    )
)
def test_options_are_read_back_without_a_difference(options: dict[str, Any]) -> None:
    """Whatever a spec says, together."""
    spec = dataclasses.replace(SPEC, **options)
    assert observed(made_of(spec)).spec == spec


def test_options_of_a_log_driver_are_those_that_were_asked_for() -> None:
    """The engine adds its own."""
    spec = dataclasses.replace(SPEC, log_driver="json-file", log_options={"max-size": "10m"})
    assert observed(made_of(spec)).spec == spec


IMAGES_CHECKS: dict[str, dict[str, Any]] = {
    "the same": {"Test": ["CMD-SHELL", "true"], "Interval": 10**10, "Timeout": 5 * 10**9, "Retries": 3},
    "with more times": {"Test": ["CMD", "x"], "StartInterval": 10**9, "StartPeriod": 7 * 10**9},
}


@pytest.mark.parametrize("of_image", IMAGES_CHECKS)
def test_a_healthcheck_that_was_asked_is_read_back_beside_that_of_the_image(of_image: str) -> None:
    """Also where the two are the same, and where the engine takes from the image what the spec leaves open."""
    spec = dataclasses.replace(SPEC, healthcheck=Healthcheck("true", start_period=0.0))
    raw, check = made_of(spec), IMAGES_CHECKS[of_image]
    written = {name: value for name, value in raw["Config"]["Healthcheck"].items() if value}
    raw["Config"]["Healthcheck"] = {**check, **written}
    [containers] = group_by_service([raw], NOW, 5.0).values()
    live = read_service(containers, {"sha256:1": {"Config": {"Healthcheck": check}}}, SHELF, NOW)
    assert live.spec == spec


def test_a_healthcheck_of_the_image_is_no_difference() -> None:
    """Every container of it shows it; one that is another's is."""
    check = {"Test": ["CMD", "true"], "Interval": 10**9}
    raw = container("running", 100, Health={"Status": "healthy"})
    raw["Config"]["Healthcheck"] = check
    [containers] = group_by_service([raw], NOW, 5.0).values()
    image = {"Env": ["PATH=/bin"]}
    live = read_service(containers, {"sha256:1": {"Config": {**image, "Healthcheck": check}}}, SHELF, NOW)
    assert live.spec == SPEC
    assert left(read_service(containers, {"sha256:1": {"Config": image}}, SHELF, NOW)) == ("healthcheck",)


def test_constraints_are_refused_in_words() -> None:
    """A plain container has no nodes to choose from."""
    with pytest.raises(PlatformRefused, match=r"no constraints \(node.labels.gpu==true\)"):
        to_engine(dataclasses.replace(SPEC, constraints=("node.labels.gpu==true",)), "ofa", SHELF)


@pytest.mark.parametrize(
    "name", ["ofa_group_Weld_copy", "ofa_group_Paint", "copy", "ofa_group_weld", "ofa_group_Weld.old"]
)
def test_a_container_of_another_name_is_a_copy(name: str) -> None:
    """With all our labels: it is none of the service's containers, and is shown under its own name."""
    ours, copy = container("running", 100), {**container("running", 50), "Id": "copy", "Name": f"/{name}"}
    assert observed(ours, copy) == observed(ours)
    [shown] = read_copies([ours, copy], {"sha256:1": None}, SHELF)
    assert (shown.id, shown.name, shown.owner) == ("copy", name, "ofa")
    assert group_by_service([copy], NOW, 5.0) == {}


@pytest.mark.parametrize("state", ["created", "restarting", "paused", "running"])
def test_a_container_that_does_not_run_says_what_it_waits_for(state: str) -> None:
    """And since when nothing has moved, from the engine alone."""
    health = {"Health": {"Status": "starting"}} if state == "running" else {}
    live = observed(container(state, 100, **health))
    assert live.waits == f"1 task in state {'starting' if health else state}"
    assert live.since == NOW - timedelta(seconds=100)
    well = observed(container("running", 100))
    assert (well.waits, well.since) == ("", None)


ASKED_LABELS = (
    "",
    "{",
    "[]",
    "[" * 100_000,
    "9" * 5000,
    '{"env": ["A"], "cpu_reservation": 0.1, "publish": {"80": []}}',
    '{"env": [[]], "cpu_reservation": 0.1, "publish": {}}',
    '{"env": ["A"], "cpu_reservation": NaN, "publish": {"80": "mesh"}}',
    '{"env": {}, "cpu_reservation": 0.1, "publish": []}',
    '{"env": ["A"], "cpu_reservation": "x", "publish": {}}',
    '{"env": ["A"], "cpu_reservation": 0.1, "publish": {}, "labels": 1}',
    '{"env": ["A"], "cpu_reservation": 0.1, "publish": {}, "log_driver": "x", "log_options": [{}]}',
    '{"env": ["A"], "cpu_reservation": 0.1, "publish": {}, "healthcheck": {"command": 1}}',
)


@pytest.mark.parametrize("label", ASKED_LABELS)
def test_a_label_with_any_text_is_read(label: str) -> None:
    """Whatever a person wrote there: it differs from what is wanted, and nothing ends in an exception."""
    raw = container("running", 100)
    raw["Config"]["Labels"][ASKED] = label
    raw["HostConfig"]["PortBindings"] = {"80/tcp": [{"HostPort": "80"}], "9/udp": None, "x": [{}]}
    live = observed(raw)
    assert live.spec is not None
    assert live.spec != SPEC


HARDER = {
    "root can be written": {"ReadonlyRootfs": False},
    "a capability": {"CapAdd": ["NET_ADMIN"]},
    "fewer dropped": {"CapDrop": ["CHOWN"]},
    "new privileges": {"SecurityOpt": None},
    "no tmp": {"Tmpfs": None},
    "another tmp": {"Tmpfs": {"/x": ""}},
    "privileged": {"Privileged": True},
}


@pytest.mark.parametrize("name", HARDER)
def test_a_hardened_container_that_was_made_otherwise_differs(name: str) -> None:
    """Each part of it is compared."""
    spec = dataclasses.replace(SPEC, hardened=True)
    raw = container("running", 100)
    raw["HostConfig"] = to_engine(spec, "ofa", SHELF)["HostConfig"]
    assert observed(raw).spec == spec
    raw["HostConfig"] = {**raw["HostConfig"], **HARDER[name]}
    assert observed(raw).spec not in (spec, SPEC)


def test_the_installation_is_read_from_the_containers_label() -> None:
    """Of a service of ours it shows twice: in its spec, so that it can differ, and beside it, whatever the spec."""
    raw = container("running", 100)
    assert (observed(raw).installation, SPEC.installation) == ("", "")
    raw["Config"]["Labels"]["org.openfactory.installation"] = "1a2b3c4d"
    live = observed(raw)
    assert live.spec == dataclasses.replace(SPEC, installation="1a2b3c4d")
    assert live.installation == "1a2b3c4d"
    assert to_engine(live.spec, "ofa", SHELF)["Labels"]["org.openfactory.installation"] == "1a2b3c4d"


def test_a_container_keeps_the_spec_of_the_one_before() -> None:
    """Whole, but for what was found wrong with it; the container that had it is gone."""
    port = (Port(8000, 6001, Publish.HOST),)
    before = dataclasses.replace(SPEC, image="image:0", env={"A": "Söhne"}, ports=port, unexpected=("stopped",))
    raw = container("running", 100)
    raw["Config"]["Labels"] |= {**label_previous(before), **label_failure("0123456789ab", "it ended")}
    live = observed(raw)
    assert live.previous == dataclasses.replace(before, unexpected=())
    assert (live.failed, live.failure) == ("0123456789ab", "it ended")
    assert live.spec == SPEC
    plain = observed(container("running", 100))
    assert (plain.previous, plain.failed, plain.failure) == (None, "", "")


@pytest.mark.parametrize("label", ["", "x", "[]", "{}", '{"name": 1}', "9" * 5000, "[" * 100_000])
def test_a_previous_spec_that_a_person_changed_is_none(label: str) -> None:
    """Nothing is rolled back to it."""
    raw = container("running", 100)
    raw["Config"]["Labels"][PREVIOUS] = label
    assert observed(raw).previous is None


def test_a_spec_that_is_too_large_for_a_label_is_not_kept() -> None:
    """The engine shows all labels of all containers in one list."""
    assert label_previous(dataclasses.replace(SPEC, env={"A": "x" * 20_000})) == {}
    assert label_previous(None) == {}


@pytest.mark.parametrize("failed", ["", "0123456789ab"])
def test_a_rollback_makes_a_container_also_where_the_old_one_serves(
    failed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a new container can have the label: without it the failed spec would be tried again."""
    platform = DockerPlatform("ofa", "ofa", tmp_path, base_url="http://127.0.0.1:1")
    old, new = container("running", 100), container("restarting", 10)
    new["Config"]["Image"] = "image:2"
    [containers] = group_by_service((old, new), NOW, 5.0).values()
    done: list[object] = []
    monkeypatch.setattr(platform, "_find_containers", lambda _: containers)
    monkeypatch.setattr(platform, "_images_of", lambda _: {"sha256:1": None})
    monkeypatch.setattr(platform, "_read_image", lambda _: None)
    monkeypatch.setattr(platform, "_remove", lambda raw: done.append(raw["Id"]))
    monkeypatch.setattr(platform, "_replace", lambda _one, _spec, labels: done.append(labels))
    live = read_service(containers, {"sha256:1": None}, SHELF, NOW)
    platform.update_service(live, dataclasses.replace(SPEC, env={"A": "1"}), failed, "it ended")
    if not failed:
        assert done == ["id10"]
        return
    [labels] = done
    assert isinstance(labels, dict)
    assert (labels[FAILED], labels[FAILURE]) == (failed, "it ended")
    assert '"image:2"' in labels[PREVIOUS]


@pytest.mark.parametrize(("restarts", "reasons"), [(0, []), (3, ["its program ended, restarted 3 times"])])
def test_a_container_that_was_started_again_has_ended(restarts: int, reasons: list[str]) -> None:
    """Each restart is another end, at the time of the new start."""
    raw = {**container("running", 500), "RestartCount": restarts, "Name": "/ofa_group_Weld"}
    ends = find_ends(group_by_service([raw], NOW, 5).values())
    assert [one.reason for one in ends] == reasons
    assert [(one.service, one.task) for one in ends] == [("ofa_group_Weld", "ofa_group_Weld")] * len(ends)
    again = find_ends(group_by_service([{**raw, "RestartCount": restarts + 1}], NOW, 5).values())
    assert not {one.id for one in ends} & {one.id for one in again}


@pytest.mark.parametrize(
    ("asked", "kept", "drifts"), [(1 << 29, 0, False), (1 << 29, 1 << 28, True), (0, 1 << 28, True)]
)
def test_a_limit_that_the_engine_discards_is_no_drift(asked: int, kept: int, drifts: bool) -> None:
    """An engine without the memory cgroup creates the container with a warning; one that a person set is drift."""
    spec = dataclasses.replace(SPEC, memory_limit=asked, memory_reservation=asked)
    body = to_engine(spec, "ofa", SHELF)
    raw = container("running", 100)
    raw["Config"]["Labels"] = body["Labels"]
    raw["HostConfig"] = {**body["HostConfig"], "Memory": kept, "MemoryReservation": kept}
    live = observed(raw)
    assert live.spec is not None
    assert bool(drift(live.spec, spec)) is drifts
    assert (live.spec.memory_limit, live.spec.memory_reservation) == (kept or asked, kept or asked)
    wanted = dataclasses.replace(spec, memory_limit=1 << 27)
    assert drift(live.spec, wanted), "another limit is written all the same"


def test_a_label_with_a_limit_that_is_no_number_counts_as_none() -> None:
    """The container then differs and is replaced."""
    raw = container("running", 100)
    text = raw["Config"]["Labels"][ASKED]
    raw["Config"]["Labels"][ASKED] = text.replace("{", '{"memory_limit":"1g",', 1)
    live = observed(raw)
    assert live.spec is not None
    assert drift(live.spec, SPEC)
