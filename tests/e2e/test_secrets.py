"""A password is nowhere but in the request that needs it: not in specs, documents, logs, pages or answers."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from demo.factory.settings import FactorySettings
from demo.factory.statements import definitions
from tests.docker_platform.plant import built
from tests.e2e.system import ROOT, free_ports
from tests.integration.ksqldb.tls import Guarded, ksqldb
from tests.swarm.sandbox import docker, eventually, remove_network

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]
USER = ("alice-7f3a", "sesame-91c4")
NEVER = (USER[1], base64.b64encode(":".join(USER).encode()).decode(), base64.b64encode(USER[1].encode()).decode())


@pytest.fixture
def server() -> Iterator[Guarded]:
    """A ksqlDB with a password, upstream's tables and one asset."""
    with ksqldb(None, USER) as guarded:
        place = "INSERT INTO asset_to_uns_map_raw (asset_uuid, uns_id, uns_levels) VALUES "
        statements = [sql for _, sql in definitions(FactorySettings())]
        for sql in [*statements, f"{place} ('W-1', 'x', MAP('workcenter' := 'Weld'));"]:
            body = {"ksql": sql}
            httpx.post(f"http://127.0.0.1:{guarded.port}/ksql", json=body, auth=USER, timeout=30).raise_for_status()
        yield guarded


@pytest.fixture
def name() -> Iterator[str]:
    """An owner and a network of this test's own."""
    chosen = f"s{uuid.uuid4().hex[:7]}"
    docker("network", "create", "--driver", "overlay", "--attachable", f"{chosen}-net")
    yield chosen
    remove_network(f"{chosen}-net")


@pytest.fixture
def environment(images: None, server: Guarded, name: str, tmp_path: Path) -> dict[str, str]:  # noqa: ARG001 - only that they are there
    """Settings with the password in a file, and again in the URL, where it does not belong."""
    (tmp_path / "password").write_text(USER[1])
    given = {
        "KAFKA_BROKER": "embedded:9092",
        "KSQLDB_URL": f"http://{USER[0]}:{USER[1]}@127.0.0.1:{server.port}",
        "KSQLDB_USERNAME": USER[0],
        "KSQLDB_PASSWORD_FILE": str(tmp_path / "password"),
        "KSQLDB_UNS_JOIN_TABLE": "asset_to_uns_map_raw",
        "LOG_LEVEL": "debug",
        "ENVIRONMENT": "devswarm",
        "DOCKER_NETWORK": f"{name}-net",
        "RECONCILER_OWNER": name,
        "RESOURCE_PREFIX": name,
        "ROUTING_LAYER_PUBLISH": "none",
        "ROUTING_LAYER_IMAGE": built("ROUTING_LAYER_IMAGE"),
        "FASTAPI_GROUP_IMAGE": built("FASTAPI_GROUP_IMAGE"),
        "STATE_API_IMAGE": built("STATE_API_IMAGE"),
        "FASTAPI_GROUP_CPU_RESERVATION": "0.01",
        "STATE_API_CPU_RESERVATION": "0.01",
        "ROUTING_LAYER_CPU_RESERVATION": "0.01",
        "RECONCILE_INTERVAL": "1s",
        "RECONCILE_INTERVALL": "1s",
        "PYTHONPATH": str(ROOT),
    }
    return {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ} | given


def run(environment: dict[str, str], where: Path, *arguments: str) -> str:
    """Run the command line; return everything it said."""
    program = [sys.executable, "-m", "reconciler", *arguments]
    done = subprocess.run(program, env=environment, cwd=where, capture_output=True, text=True, check=False, timeout=90)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def pages(environment: dict[str, str], where: Path) -> str:
    """Run the loop until it has a registry; return its pages and its log."""
    [port] = free_ports(1)
    program, variables = [sys.executable, "-m", "reconciler"], environment | {"RECONCILER_PORT": str(port)}
    process = subprocess.Popen(program, env=variables, cwd=where, stderr=subprocess.PIPE, text=True)

    def registered() -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{port}/registry").is_success
        return False

    try:
        eventually(registered, bool)
        shown = [httpx.get(f"http://127.0.0.1:{port}{path}") for path in ("/", "/metrics", "/readyz", "/registry")]
    finally:
        process.terminate()
        _, log = process.communicate(timeout=60)
    return "\n".join([*(f"{each.url} {each.headers} {each.text}" for each in shown), log])


def in_the_swarm(name: str) -> str:
    """All that the engine would tell about what the operator made."""
    said = ""
    for kind in ("service", "config"):
        ids = docker(kind, "ls", "-q", "--filter", f"label=org.openfactory.owner={name}").split()
        documents = json.loads(docker(kind, "inspect", *ids))
        said += json.dumps(documents)
        said += "".join(base64.b64decode(each["Spec"]["Data"]).decode() for each in documents if kind == "config")
    return said


def test_a_password_is_nowhere(environment: dict[str, str], server: Guarded, name: str, tmp_path: Path) -> None:
    """Every command, the loop's pages and its log at level debug, every service, every document."""
    try:
        seen = {"loop": pages(environment, tmp_path)}
        for command in ("plan", "status -o json", "settings -o markdown", "why Weld", "--dry-run -o json"):
            seen[command] = run(environment, tmp_path, *command.split())
        seen["engine"] = in_the_swarm(name)
        wrong = environment | {"KSQLDB_URL": f"http://{USER[0]}:{USER[1]}@127.0.0.1:1"}
        seen["not reached"] = run(wrong, tmp_path, "status")
        refused = environment | {"KSQLDB_URL": f"{USER[0]}:{USER[1]}@127.0.0.1:1"}
        seen["bad URL"] = run(refused, tmp_path, "status")
    finally:
        seen["teardown"] = run(environment, tmp_path, "teardown", "--yes")
    assert "Weld" in seen["status -o json"]
    assert f"{name}_group_Weld" in seen["engine"]
    assert "KSQLDB_URL" in seen["bad URL"]
    assert "did you mean RECONCILE_INTERVAL?" in seen["loop"]
    assert {given for given in server.authorizations if given} == {f"Basic {NEVER[1]}"}
    assert [(where, secret) for where, text in seen.items() for secret in NEVER if secret in text] == []
