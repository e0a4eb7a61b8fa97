"""The stack files name what the code reads, and Docker's own client accepts them."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

import pytest
import yaml

from reconciler.settings import Settings
from tests.e2e.system import ROOT

#: Settings that a stack file cannot offer as a variable: secrets and files, and what has meaning on a host only.
_ELSEWHERE = {
    "KSQLDB_PASSWORD",
    "KSQLDB_USERNAME_FILE",
    "KSQLDB_PASSWORD_FILE",
    "KSQLDB_CA_FILE",
    "RECONCILER_TOKEN_FILE",
    "GROUPS_FILE",
    "RECONCILER_PORT",
    "SWARM_NODE_HOST",
    "FASTAPI_GROUP_PORT_BASE",
    "REGISTRY_DIR",
}
_SETTINGS = {name.upper() for name in Settings.model_fields}
_REQUIRED = {
    "KAFKA_BROKER": "broker:9092",
    "KSQLDB_URL": "http://ksqldb:8088",
    "DOCKER_SOCK_GID": "998",
    "KAFKA_CLUSTER_ID": "MkU3OEVBNTcwNTJENDM2Qg",
}


def environment(manifest: str) -> set[str]:
    """Return the names of the variables that a stack file gives to the operator."""
    text = (ROOT / "manifests" / manifest).read_text()
    operator = text[text.index("  reconciler:") :]
    block = operator[operator.index("    environment:") : operator.index("    volumes:")]
    return set(re.findall(r"^      ([A-Z_]+):", block, re.MULTILINE))


def rendered(*manifests: str) -> dict[str, Any]:
    """Return what Docker's client makes of stack files, one laid over the other; a fault in them fails here."""
    files = [part for each in manifests for part in ("-c", str(ROOT / "manifests" / each))]
    done = subprocess.run(
        ["docker", "stack", "config", *files], env=os.environ | _REQUIRED, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = yaml.safe_load(done.stdout)
    return document


def test_every_setting_can_be_set_in_the_stack_file() -> None:
    """A setting that the operator gains has to appear in `stack.yml`, or beside it for a reason."""
    assert environment("stack.yml") == _SETTINGS - _ELSEWHERE


@pytest.mark.parametrize("manifest", ["stack.yml", "demo.yml"])
def test_a_stack_file_sets_nothing_that_the_operator_does_not_read(manifest: str) -> None:
    """A misspelt variable would be ignored in silence."""
    assert environment(manifest) <= _SETTINGS


def test_every_program_of_ours_runs_as_its_own_user() -> None:
    """No target of the Dockerfile that starts something is left as root."""
    targets = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    users: dict[str, str] = {}
    for target in targets:
        base, name = re.match(r"(\S+) AS (\S+)", target).groups()  # type: ignore[union-attr]  # every FROM has a name
        said = re.findall(r"^USER (\S+)", target, re.MULTILINE)
        users[name] = said[-1] if said else users.get(base, "root")
        assert "ENTRYPOINT" not in target or users[name] == "openfactory", name


@pytest.mark.engine
def test_the_operator_is_not_root_and_has_one_group() -> None:
    """The image's user with the socket's group, no capability, nothing to write to."""
    operator = rendered("stack.yml")["services"]["reconciler"]
    assert operator["user"] == "10001:998"
    assert operator["read_only"]
    assert operator["cap_drop"] == ["ALL"]
    assert operator["deploy"]["placement"]["constraints"] == ["node.role == manager"]


@pytest.mark.engine
def test_behind_the_socket_proxy_the_operator_has_no_socket() -> None:
    """The overlay takes socket and group away, and the proxy alone has them, in a network of these two."""
    services = rendered("stack.yml", "socket-proxy/stack.yml")["services"]
    operator, proxy = services["reconciler"], services["socket-proxy"]
    assert operator["user"] == "10001:10001"
    assert [volume["source"] for volume in operator["volumes"]] == ["/dev/null"]
    assert operator["environment"]["DOCKER_HOST"] == "tcp://socket-proxy:2375"
    assert [volume["source"] for volume in proxy["volumes"]] == ["/var/run/docker.sock"]
    assert list(proxy["networks"]) == ["socket"]
    assert "ports" not in proxy
    configuration = rendered("stack.yml", "socket-proxy/stack.yml")["configs"]["socket-proxy"]["file"]
    assert configuration == str(ROOT / "manifests" / "socket-proxy" / "haproxy.cfg")


@pytest.mark.engine
def test_the_operators_token_is_laid_over_the_stack_file() -> None:
    """The operator reads the secret that it mounts into the routing layer; with the passwords of ksqlDB, too."""
    for files, others in (("stack.yml", "token.yml"), 0), (("stack.yml", "secrets.yml", "token.yml"), 2):
        document = rendered(*files)
        operator = document["services"]["reconciler"]
        [mount] = [each for each in operator["secrets"] if each["source"] == "reconciler_token"]
        assert operator["environment"]["RECONCILER_TOKEN_FILE"] == f"/run/secrets/{mount['target']}"
        secret = document["secrets"]["reconciler_token"]["name"]
        assert operator["environment"]["RECONCILER_TOKEN_SECRET"] == secret
        assert len(document["secrets"]) == 1 + others
        assert set(operator["environment"]) <= _SETTINGS


@pytest.mark.engine
def test_what_groups_have_of_their_own_is_laid_over_the_stack_file() -> None:
    """The config is a file in the operator's container, and the operator reads that one."""
    document = rendered("stack.yml", "groups.yml")
    operator = document["services"]["reconciler"]
    [mount] = operator["configs"]
    assert operator["environment"]["GROUPS_FILE"] == mount["target"]
    assert document["configs"][mount["source"]]["external"]
    assert set(operator["environment"]) <= _SETTINGS


@pytest.mark.engine
def test_secrets_are_laid_over_the_stack_file() -> None:
    """The operator reads them as files, and names them for the routing layer."""
    document = rendered("stack.yml", "secrets.yml")
    operator = document["services"]["reconciler"]
    mounted = {f"/run/secrets/{each['target']}" for each in operator["secrets"]}
    files = {value for name, value in operator["environment"].items() if name.endswith("_FILE")}
    named = {value for name, value in operator["environment"].items() if name.endswith("_SECRET") and value}
    assert files == mounted == {"/run/secrets/ksqldb_username", "/run/secrets/ksqldb_password"}
    assert named == {secret["name"] for secret in document["secrets"].values()}
    assert set(operator["environment"]) - {"DOCKER_HOST"} <= _SETTINGS


@pytest.mark.engine
def test_behind_the_edge_the_routing_layer_has_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """The edge alone has a port, as a user without rights; its token is the operator's, each file a secret."""
    monkeypatch.setenv("ROUTING_LAYER_TRUSTED_PROXIES", "10.0.1.0/24")
    document = rendered("stack.yml", "token.yml", "edge/stack.yml")
    operator, edge = document["services"]["reconciler"], document["services"]["edge"]
    assert set(operator["environment"]) <= _SETTINGS
    assert operator["environment"]["ROUTING_LAYER_PUBLISH"] == "none"
    assert operator["environment"]["ROUTING_LAYER_TRUSTED_PROXIES"] == "10.0.1.0/24"
    assert operator["environment"]["RECONCILER_PROTECT"] == "all"
    assert [each["source"] for each in operator["secrets"]] == ["reconciler_token"]
    assert [(port["target"], port["published"], port["mode"]) for port in edge["ports"]] == [(8443, 443, "host")]
    assert (edge["user"], edge["read_only"], edge["cap_drop"]) == ("65534:65534", True, ["ALL"])
    assert "volumes" not in edge
    assert {each["target"] for each in edge["secrets"]} == {
        "edge.pem",
        "edge.pem.key",
        "edge_users",
        "reconciler_token",
    }
    assert document["configs"]["edge"]["file"] == str(ROOT / "manifests" / "edge" / "haproxy.cfg")


@pytest.mark.engine
def test_the_ksqldb_of_the_manifest_is_as_the_operator_needs_it() -> None:
    """What docs/ksqldb.md asks of a server: scans, no limit on queries, time to stop; and an identity that stays."""
    services = rendered("kafka-ksqldb.yml")["services"]
    given = {
        name.removeprefix("KSQL_").lower().replace("_", "."): value
        for name, value in services["ksqldb"]["environment"].items()
    }
    assert given["ksql.query.pull.table.scan.enabled"] == "true"
    assert "ksql.query.persistent.active.limit" not in given
    assert given["ksql.service.id"]
    assert given["bootstrap.servers"] in services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert services["kafka"]["environment"]["CLUSTER_ID"] == _REQUIRED["KAFKA_CLUSTER_ID"]
    assert services["ksqldb"]["stop_grace_period"] == "2m0s"  # half a second for each of 200 groups, and some


@pytest.mark.engine
@pytest.mark.usefixtures("images")
def test_the_images_run_as_their_own_user() -> None:
    """What was built has the user that the Dockerfile says."""
    images = [line.partition("=")[2] for line in (ROOT / "build" / "images.env").read_text().split()]
    command = ["docker", "image", "inspect", "-f", "{{.Config.User}}", *images]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["openfactory"] * len(images)
