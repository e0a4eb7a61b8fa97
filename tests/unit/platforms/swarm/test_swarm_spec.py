"""`ServiceSpec` to the engine's words and back."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.domain.services import (
    TASK_SLOT,
    ConfigMount,
    Healthcheck,
    Kind,
    Port,
    Publish,
    SecretMount,
    ServiceSpec,
    drift,
)
from reconciler.platforms.swarm.spec import HARDENED, escape, from_engine, live_image, merge_update, to_engine

DIGEST = "sha256:" + "a" * 64
NETWORK_ID = "n3tw0rk"
_WORD = st.text("abcXYZ019_", min_size=1, max_size=12)


def stored(sent: Mapping[str, Any]) -> dict[str, Any]:
    """What the engine keeps of a spec: ids for network names, zeros left out, empty structures filled in.

    Read from engine 20.10; `tests/swarm/test_platform_drift.py` holds the same property against a real one.
    """
    spec = copy.deepcopy(dict(sent))
    task = spec["TaskTemplate"]
    named = (one["Target"] for one in task["Networks"])
    task["Networks"] = [{"Target": NETWORK_ID if name == "factory-net" else name} for name in named]
    task["Placement"], task["ForceUpdate"], task["Runtime"] = task.get("Placement", {}), 0, "container"
    task["RestartPolicy"] = {name: value for name, value in task["RestartPolicy"].items() if value}
    container = task["ContainerSpec"]
    container |= {"Isolation": "default", "DNSConfig": {}, "Init": False, "Privileges": {"CredentialSpec": None}}
    container["Privileges"] |= sent["TaskTemplate"]["ContainerSpec"].get("Privileges", {})
    for optional in ("Configs", "Secrets", "Env"):
        if not container.get(optional):
            container.pop(optional, None)
    spec["UpdateConfig"] = {name: value for name, value in spec["UpdateConfig"].items() if value or name != "Delay"}
    if not spec["EndpointSpec"].get("Ports"):
        spec["EndpointSpec"].pop("Ports", None)
    return spec


def read(raw: Mapping[str, Any]) -> ServiceSpec:
    """Read a stored spec back, in the one network that there is."""
    spec = from_engine(raw, {NETWORK_ID: "factory-net"})
    assert spec is not None
    return spec


def group_spec(**changes: Any) -> ServiceSpec:
    """Return the service of a group like one in use, with some fields changed."""
    spec = ServiceSpec(
        name="ofa_group_Weld",
        kind=Kind.GROUP,
        group="Weld",
        image="ghcr.io/acme/group:1.2",
        env={"GROUP_NAME": "Weld", "LOG_LEVEL": "info"},
        replicas=1,
        cpu_limit=1.0,
        cpu_reservation=0.5,
        network="factory-net",
    )
    return dataclasses.replace(spec, **changes)


def engine_spec(spec: ServiceSpec, image: str | None = None) -> dict[str, Any]:
    """Return how the engine answers ``spec`` after it was created."""
    mounted = [mount.name for mount in spec.configs] + [mount.name for mount in spec.secrets]
    ids = {name: f"id-{name}" for name in mounted}
    return stored(to_engine(spec, "ofa", ids, image))


_PORTS = st.lists(
    st.builds(Port, st.integers(1, 65535), st.integers(1, 65535), st.sampled_from([Publish.INGRESS, Publish.HOST])),
    max_size=3,
    unique_by=lambda port: port.target,
).map(lambda ports: tuple(sorted(ports, key=lambda port: port.target)))
SPECS = st.builds(
    ServiceSpec,
    name=_WORD,
    kind=st.sampled_from(Kind),
    group=st.none() | st.text(min_size=1, max_size=20),
    image=st.sampled_from(["group:1", "localhost:5000/a/group", "ghcr.io/a/group:2", f"group:1@{DIGEST}"]),
    env=st.dictionaries(_WORD, st.text(max_size=20) | st.text('{} "`-.$%\\\n', max_size=20), max_size=5),
    replicas=st.integers(0, 9),
    cpu_limit=st.integers(0, 8000).map(lambda milli: milli / 1000),
    cpu_reservation=st.integers(0, 8000).map(lambda milli: milli / 1000),
    network=st.just("factory-net"),
    ports=_PORTS,
    configs=st.lists(st.builds(ConfigMount, _WORD, _WORD), max_size=3, unique_by=lambda mount: mount.name).map(
        lambda mounts: tuple(sorted(mounts))
    ),
    secrets=st.lists(st.builds(SecretMount, _WORD, _WORD), max_size=3, unique_by=lambda mount: mount.name).map(
        lambda mounts: tuple(sorted(mounts))
    ),
    start_first=st.booleans(),
    stop_grace=st.integers(0, 120_000).map(lambda milli: milli / 1000),
    installation=st.sampled_from(["", "1a2b3c4d"]),
    hardened=st.booleans(),
    memory_limit=st.integers(0, 1 << 40),
    memory_reservation=st.integers(0, 1 << 40),
    constraints=st.lists(_WORD.map("node.labels.{}==true".format), max_size=3).map(lambda all_: tuple(sorted(all_))),
    labels=st.dictionaries(_WORD, st.text(max_size=9), max_size=3),
    networks=st.lists(_WORD, max_size=3, unique=True).map(lambda names: tuple(sorted(names))),
    log_driver=st.sampled_from(["json-file", "journald"]),
    log_options=st.dictionaries(_WORD, _WORD, max_size=3),
    healthcheck=st.none()
    | st.builds(
        Healthcheck,
        _WORD,
        *(st.integers(0, 99_000).map(lambda milli: milli / 1000) for _ in range(2)),
        retries=st.integers(0, 9),
        start_period=st.integers(0, 99).map(float),
    ),
)


@given(spec=SPECS, pinned=st.booleans())
def test_what_is_written_is_read_back_without_drift(spec: ServiceSpec, pinned: bool) -> None:
    """Whatever a spec says, once the engine has stored it there is nothing to repair, pinned or not."""
    image = f"{spec.image}@{DIGEST}" if pinned and "@" not in spec.image else None
    assert drift(read(engine_spec(spec, image)), spec) == ()


@given(spec=SPECS)
def test_the_bytes_do_not_depend_on_the_order_of_variables(spec: ServiceSpec) -> None:
    """The environment is sorted, so that no difference in order ever replaces a task."""
    turned = dataclasses.replace(spec, env=dict(reversed(list(spec.env.items()))))
    assert engine_spec(turned) == engine_spec(spec)


def _in_container(**settings: Any) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw["TaskTemplate"]["ContainerSpec"].update(settings)


def _in_task(**settings: Any) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw["TaskTemplate"].update(settings)


def _in_spec(**settings: Any) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw.update(settings)


UNEXPECTED = {
    "args": _in_container(Args=["-v"]),
    "command": _in_container(Command=["sh"]),
    "mounts": _in_container(Mounts=[{"Type": "bind", "Source": "/", "Target": "/host"}]),
    "user": _in_container(User="root"),
    "dir": _in_container(Dir="/tmp"),  # noqa: S108 - a working directory in a spec, nothing is written
    "hostname": _in_container(Hostname="h"),
    "secret_file": _in_container(
        Secrets=[{"SecretID": "s", "SecretName": "s", "File": {"Name": "s", "UID": "0", "GID": "0", "Mode": 0o777}}]
    ),
    "healthcheck": _in_container(Healthcheck={"Test": ["NONE"]}),
    "container_labels": _in_container(Labels={"a": "b"}),
    "privileges": _in_container(Privileges={"SELinuxContext": {"Disable": True}}),
    "dns_config": _in_container(DNSConfig={"Nameservers": ["1.1.1.1"]}),
    "read_only": _in_container(ReadOnly=True),
    "env": _in_container(Env=["GROUP_NAME=Weld", "LOG_LEVEL"]),
    "preferences": _in_task(Placement={"Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.rack"}}]}),
    "limit_pids": _in_task(Resources={"Limits": {"NanoCPUs": 10**9, "Pids": 1}}),
    "restart_policy": _in_task(RestartPolicy={"Condition": "none"}),
    "network_aliases": _in_task(Networks=[{"Target": NETWORK_ID, "Aliases": ["x"]}]),
    "update_config": _in_spec(UpdateConfig={"Parallelism": 1, "FailureAction": "rollback", "Order": "start-first"}),
    "rollback_config": _in_spec(RollbackConfig={"Parallelism": 1, "Order": "stop-first"}),
    "endpoint_mode": _in_spec(EndpointSpec={"Mode": "vip"}),
    "brand_new": _in_container(BrandNew=1),
}


@pytest.mark.parametrize("name", UNEXPECTED)
def test_a_setting_that_we_never_set_is_named(name: str) -> None:
    """Anything that a user set outside shows as drift under its own name."""
    raw = engine_spec(group_spec())
    UNEXPECTED[name](raw)
    assert name in read(raw).unexpected


#: What a person can set on a service, and the differences that it makes.
SET_OUTSIDE: Mapping[str, tuple[Callable[[dict[str, Any]], None], list[str]]] = {
    "memory": (
        _in_task(Resources={"Limits": {"NanoCPUs": 10**9, "MemoryBytes": 1}, "Reservations": {"NanoCPUs": 5 * 10**8}}),
        ["memory_limit"],
    ),
    "reservation": (
        _in_task(Resources={"Limits": {"NanoCPUs": 10**9}, "Reservations": {"NanoCPUs": 5 * 10**8, "MemoryBytes": 1}}),
        ["memory_reservation"],
    ),
    "constraint": (_in_task(Placement={"Constraints": ["node.role==worker"]}), ["constraints"]),
    "log driver": (_in_task(LogDriver={"Name": "none"}), ["log_driver"]),
    "log option": (_in_task(LogDriver={"Options": {"max-size": "1m"}}), ["log option max-size"]),
    "healthcheck": (_in_container(Healthcheck={"Test": ["CMD-SHELL", "true"], "Interval": 10**9}), ["healthcheck"]),
    "interval alone": (_in_container(Healthcheck={"Interval": 10**9}), ["unexpected"]),
    "label of the container": (_in_container(Labels={"a": "b"}), ["unexpected"]),
    "label of the service": (_in_spec(Labels={**engine_spec(group_spec())["Labels"], "a": "b"}), []),
    "network": (_in_task(Networks=[{"Target": NETWORK_ID}, {"Target": "other"}]), ["networks"]),
}


@pytest.mark.parametrize("name", SET_OUTSIDE)
def test_what_a_person_sets_outside_is_drift_and_goes_with_an_update(name: str) -> None:
    """Except for a label of the service alone: it is a person's own and stays."""
    mutate, differences = SET_OUTSIDE[name]
    raw = engine_spec(group_spec())
    mutate(raw)
    assert [one.field for one in drift(read(raw), group_spec())] == differences
    repaired = _repair(raw, group_spec())
    assert drift(read(stored(repaired)), group_spec()) == ()
    assert repaired["Labels"].get("a") == ("b" if name == "label of the service" else None)


#: A value of each field that a spec may leave at its default.
OPTIONAL: Mapping[str, Any] = {
    "memory_limit": 1 << 31,
    "memory_reservation": 1 << 30,
    "constraints": ("node.labels.gpu==true",),
    "labels": {"team": "a", "org.example.x": ""},
    "networks": ("plant-b",),
    "log_driver": "journald",
    "healthcheck": Healthcheck("curl -f localhost"),
}


@pytest.mark.parametrize("name", OPTIONAL)
def test_an_option_that_is_set_is_drift_until_it_is_written_and_after_it_was_taken_back(name: str) -> None:
    """Both ways one update is enough, a label of others stays, and nothing of the option is left."""
    plain, wanted = group_spec(), group_spec(**{name: OPTIONAL[name]})
    before = engine_spec(plain)
    before["Labels"]["theirs"] = "1"
    assert drift(read(before), wanted) != ()
    written = stored(_repair(before, wanted))
    assert read(written) == wanted
    assert _repair(written, wanted)["TaskTemplate"] == written["TaskTemplate"]
    assert stored(_repair(written, plain)) == before


def test_the_labels_of_a_stack_stay_when_its_service_is_adopted() -> None:
    """`docker stack deploy` gives them to the service and its containers; without them the stack has lost it."""
    raw, wanted = engine_spec(group_spec(image="theirs:1")), group_spec(labels={"team": "a"})
    stack = {"com.docker.stack.namespace": "plant", "com.docker.stack.image": "theirs:1"}
    raw["Labels"] |= stack
    raw["TaskTemplate"]["ContainerSpec"]["Labels"] = {"com.docker.stack.namespace": "plant"}
    written = stored(_repair(raw, wanted))
    assert stack.items() <= written["Labels"].items()
    assert drift(read(written), wanted) == ()
    assert _repair(written, group_spec())["Labels"].items() >= stack.items()


def test_a_label_that_a_person_took_off_the_service_is_given_again_without_new_tasks() -> None:
    """The container still has it."""
    wanted = group_spec(labels={"team": "a"})
    raw = engine_spec(wanted)
    del raw["Labels"]["team"]
    assert "label team" in [one.field for one in drift(read(raw), wanted)]
    body = _repair(raw, wanted)
    assert body["Labels"]["team"] == "a"
    assert body["TaskTemplate"] == raw["TaskTemplate"]


@pytest.mark.parametrize(
    "addition",
    [
        _in_task(ForceUpdate=3),
        _in_task(Placement={"Platforms": [{"Architecture": "amd64", "OS": "linux"}]}),
        _in_container(Init=True),
        _in_container(Isolation="default", DNSConfig={}, OomScoreAdj=0, Hosts=[]),
        _in_spec(RollbackConfig={}),
    ],
)
def test_what_the_engine_and_its_clients_add_is_no_drift(addition: Callable[[dict[str, Any]], None]) -> None:
    """Defaults, empty structures and the counter of forced updates are no one's wish."""
    raw = engine_spec(group_spec())
    addition(raw)
    assert drift(read(raw), group_spec()) == ()


@given(st.text('{}"`-.$ x\\\n', max_size=30))
def test_what_is_escaped_has_no_action_but_ours(text: str) -> None:
    """Two braces open an action in SwarmKit's templates, and every one that is left prints two braces."""
    shown = escape(text)
    pieces = shown.split('{{"{{"}}')
    assert not any("{{" in piece for piece in pieces)
    assert "{{".join(pieces) == text


def test_the_number_of_a_task_is_the_only_template() -> None:
    """It is read back as what it was written from; data that reads like it stays data."""
    spec = group_spec(env={"PORT": f"group_{TASK_SLOT}", "OTHER": "{{.Task.Slot}}"})
    raw = engine_spec(spec)
    variables = raw["TaskTemplate"]["ContainerSpec"]["Env"]
    assert variables == ['OTHER={{"{{"}}.Task.Slot}}', "PORT=group_{{.Task.Slot}}"]
    assert drift(read(raw), spec) == ()
    (difference,) = drift(group_spec(env={**spec.env, "PORT": "x"}), spec)
    assert difference.wanted == '"group_<slot>"'


@pytest.mark.parametrize("value", ["{{.Node.Hostname}}", "{{ x }}", '{{"a"}}', "{{", '{{"{{"}}{{.Task.Slot}}'])
def test_a_template_that_a_user_set_is_drift(value: str) -> None:
    """Read back, it may look like what is wanted; in the container it is something else."""
    spec = group_spec(env={"GROUP_NAME": value})
    raw = engine_spec(spec)
    assert drift(read(raw), spec) == ()
    raw["TaskTemplate"]["ContainerSpec"]["Env"] = [f"GROUP_NAME={value}"]
    assert drift(read(raw), spec)
    assert read(_repair(raw, spec) | {"TaskTemplate": stored(_repair(raw, spec))["TaskTemplate"]}) == spec


HARDER = {
    "not read-only": {"ReadOnly": False},
    "a capability": {"CapabilityAdd": ["CAP_NET_ADMIN"]},
    "fewer dropped": {"CapabilityDrop": ["CAP_CHOWN"]},
    "no tmp": {"Mounts": []},
    "another mount": {"Mounts": [*HARDENED["Mounts"], {"Type": "bind", "Source": "/", "Target": "/host"}]},
    "a larger tmp": {"Mounts": [{**HARDENED["Mounts"][0], "TmpfsOptions": {"SizeBytes": 1 << 40}}]},
    "another profile": {"Privileges": {"AppArmor": {"Mode": "disabled"}, "NoNewPrivileges": True}},
    "new privileges and another profile": {"Privileges": {"SELinuxContext": {"Disable": True}}},
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", HARDER)
def test_a_hardened_service_that_was_changed_is_drift(name: str, old: bool) -> None:
    """Anything taken from it, and anything added to it, on engines with and without `NoNewPrivileges`."""
    spec = group_spec(hardened=True)
    raw = stored(to_engine(spec, "ofa", {}, new_privileges=old))
    assert drift(read(raw), spec) == ()
    raw["TaskTemplate"]["ContainerSpec"] |= HARDER[name]
    assert drift(read(raw), spec) != ()
    merged = stored(
        merge_update(raw, spec, to_engine(spec, "ofa", {}, new_privileges=old), {NETWORK_ID: "factory-net"})
    )
    assert drift(read(merged), spec) == ()


def test_an_engine_that_takes_privileges_is_told_to() -> None:
    """From API 1.44 on; an older one would store a field that it does not know."""
    containers = [
        to_engine(group_spec(hardened=True), "ofa", {}, new_privileges=old)["TaskTemplate"]["ContainerSpec"]
        for old in (False, True)
    ]
    assert [container.get("Privileges") for container in containers] == [{"NoNewPrivileges": True}, None]


def test_a_service_is_pinned_again_in_its_template() -> None:
    """The template alone cannot stay as it is: the digest is what is missing in it."""
    raw = engine_spec(group_spec())
    fresh = to_engine(group_spec(), "ofa", {}, f"ghcr.io/acme/group:1.2@{DIGEST}")
    body = merge_update(raw, group_spec(), fresh, {NETWORK_ID: "factory-net"})
    assert body["TaskTemplate"]["ContainerSpec"]["Image"] == f"ghcr.io/acme/group:1.2@{DIGEST}"


def test_a_publish_mode_that_is_not_known_is_drift() -> None:
    """A later engine may have another one; ours is asked for again."""
    spec = group_spec(ports=(Port(80, 80, Publish.HOST),))
    raw = engine_spec(spec)
    raw["EndpointSpec"]["Ports"][0]["PublishMode"] = "mesh"
    assert [item.field for item in drift(read(raw), spec)] == ["ports"]


def test_a_secret_that_a_user_mounted_or_took_away_is_drift() -> None:
    """Secrets are compared by name and path, as configs are."""
    mounted = group_spec(secrets=(SecretMount("pw-2", "/run/secrets/ksqldb_password"),))
    assert drift(read(engine_spec(mounted)), mounted) == ()
    assert [item.field for item in drift(read(engine_spec(mounted)), group_spec())] == ["secrets"]
    rotated = group_spec(secrets=(SecretMount("pw-3", "/run/secrets/ksqldb_password"),))
    [item] = drift(read(engine_spec(mounted)), rotated)
    assert (item.live, item.wanted) == ("[pw-2]", "[pw-3]")


def test_a_digest_changed_by_hand_under_a_wanted_digest_is_drift() -> None:
    """Where the wanted image names a digest itself, another digest of the same tag is not the same image."""
    spec = group_spec(image=f"group:1@{DIGEST}")
    raw = engine_spec(spec)
    raw["TaskTemplate"]["ContainerSpec"]["Image"] = "group:1@sha256:" + "b" * 64
    assert [item.field for item in drift(read(raw), spec)] == ["image"]


def test_a_service_without_our_kind_has_no_spec() -> None:
    """What cannot be ours is not read as if it were."""
    raw = engine_spec(group_spec())
    del raw["Labels"]["org.openfactory.kind"]
    assert from_engine(raw, {}) is None


def test_a_service_of_another_mode_has_no_spec() -> None:
    """The engine refuses to change a mode, so there is nothing that an update could repair."""
    raw = engine_spec(group_spec())
    raw["Mode"] = {"Global": {}}
    assert from_engine(raw, {}) is None


def test_a_second_network_is_drift() -> None:
    """All networks are shown, also one that is not known by name."""
    raw = engine_spec(group_spec())
    raw["TaskTemplate"]["Networks"].append({"Target": "other"})
    assert (read(raw).network, read(raw).networks) == ("factory-net", ("other",))


def _repair(raw: Mapping[str, Any], spec: ServiceSpec) -> dict[str, Any]:
    fresh = to_engine(spec, "ofa", {}, live_image(raw, spec))
    return merge_update(raw, spec, fresh, {NETWORK_ID: "factory-net"})


def test_a_repair_of_labels_and_replicas_leaves_the_task_template_untouched() -> None:
    """Any difference in the template replaces tasks, so it goes back as it came, order and additions included."""
    raw = engine_spec(group_spec(replicas=3, group="Wrong"))
    raw["TaskTemplate"]["ContainerSpec"]["Env"].reverse()
    raw["TaskTemplate"]["ForceUpdate"] = 2
    body = _repair(raw, group_spec())
    assert body["TaskTemplate"] == raw["TaskTemplate"]
    assert body["Mode"]["Replicated"]["Replicas"] == 1


@pytest.mark.parametrize("before", ["", "99999999"])
def test_the_label_of_the_installation_restarts_nothing(before: str) -> None:
    """A service that is adopted gets it at an update that leaves the task template as it is."""
    raw = engine_spec(group_spec(installation=before))
    wanted = group_spec(installation="1a2b3c4d")
    assert [one.field for one in drift(read(raw), wanted)] == ["installation"]
    body = _repair(raw, wanted)
    assert body["Labels"]["org.openfactory.installation"] == "1a2b3c4d"
    assert body["TaskTemplate"] == raw["TaskTemplate"]


def test_a_repair_keeps_labels_of_others_and_removes_stale_ones_of_ours() -> None:
    """Foreign labels stay; a pinned image's label goes when the wanted image has no digest any more."""
    raw = engine_spec(group_spec(), f"ghcr.io/acme/group:1.2@{DIGEST}")
    raw["Labels"]["traefik.enable"] = "true"
    body = _repair(raw, group_spec(image="group:2"))
    assert body["Labels"]["traefik.enable"] == "true"
    assert "org.openfactory.image" not in body["Labels"]


def test_a_repair_of_the_template_keeps_the_digest_and_the_counter_of_forced_updates() -> None:
    """What stands in the template beside the repaired field stays what it is."""
    raw = engine_spec(group_spec(env={}), f"ghcr.io/acme/group:1.2@{DIGEST}")
    raw["TaskTemplate"]["ForceUpdate"] = 7
    task = _repair(raw, group_spec())["TaskTemplate"]
    assert (task["ForceUpdate"], task["ContainerSpec"]["Image"]) == (7, f"ghcr.io/acme/group:1.2@{DIGEST}")


def test_a_port_through_ingress_needs_a_virtual_ip() -> None:
    """Every other service resolves to the addresses of its tasks."""
    modes = {
        publish: engine_spec(group_spec(ports=(Port(80, 80, publish),)))["EndpointSpec"]["Mode"]
        for publish in (Publish.INGRESS, Publish.HOST)
    }
    assert modes == {Publish.INGRESS: "vip", Publish.HOST: "dnsrr"}
