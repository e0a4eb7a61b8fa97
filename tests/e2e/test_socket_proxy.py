"""The filter between the operator and the Docker socket: all that the operator needs passes, and nothing else."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from reconciler.cli import main as cli
from reconciler.platforms.swarm.spec import HARDENED
from tests.docker_platform.plant import Plant
from tests.e2e.recorder import Recorder, Request, UnixConnection
from tests.e2e.system import ROOT, SOCKET, free_ports
from tests.harness.tools import find_tool
from tests.swarm.sandbox import docker, eventually, remove_network

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]
CONFIGURATION = ROOT / "manifests" / "socket-proxy" / "haproxy.cfg"


@pytest.fixture(scope="module")
def haproxy() -> str:
    """Debian's HAProxy; in CI a machine where it cannot be had fails the tests."""
    return find_tool("haproxy")


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    """What the filter let through to the real engine."""
    with Recorder(lambda: UnixConnection(SOCKET)) as recording:
        yield recording


@pytest.fixture(scope="module")
def proxy(haproxy: str, recorder: Recorder) -> Iterator[str]:
    """The filter as it is in the manifest, on a port of this host; the value is its address."""
    with filtering(haproxy, recorder) as address:
        yield address


@contextmanager
def filtering(haproxy: str, recorder: Recorder, **switches: str) -> Iterator[str]:
    """Run the filter in front of the engine."""
    [port] = free_ports(1)
    places = {"LISTEN": f"127.0.0.1:{port}", "ENGINE": recorder.address}
    process = subprocess.Popen([haproxy, "-db", "-f", str(CONFIGURATION)], env=os.environ | places | switches)
    try:
        eventually(lambda: _answers(port), bool)
        recorder.requests.clear()
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/version").is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def plant(images: None, proxy: str, tmp_path: Path) -> Iterator[Plant]:  # noqa: ARG001 - only that they are there
    """An installation whose operator knows the engine only through the filter."""
    network = f"t{uuid.uuid4().hex[:8]}-net"
    docker("network", "create", "--driver", "overlay", "--attachable", network)
    # Nothing published: two installations can be on one machine. Production is what asks for digests.
    options = {"DOCKER_HOST": f"tcp://{proxy}", "ROUTING_LAYER_PUBLISH": "none", "ENVIRONMENT": "production"}
    try:
        with Plant(tmp_path, network, options) as made:
            try:
                yield made
            finally:
                made.run("teardown", "--yes")
    finally:
        remove_network(network)


def allowed() -> list[str]:
    """Return the patterns of the manifest."""
    return re.findall(r"acl allowed var\(txn\.call\) -m reg '(.*)'$", CONFIGURATION.read_text(), re.MULTILINE)


def call(request: Request) -> str:
    """Return a request as the filter compares it."""
    return f"{request.method} {request.path.partition('?')[0]}"


def test_the_operator_needs_what_the_filter_allows_and_no_more(plant: Plant, recorder: Recorder) -> None:
    """A life from the first group to the teardown through the filter: nothing is refused, and every line is needed."""
    recorder.requests.clear()
    plant.place("WELD-1", workcenter="Weld")
    plant.place("PAINT-1", workcenter="Paint")
    code, said = plant.run("plan")
    assert code == 0, said
    plant.once()
    docker("service", "update", "--detach", "--env-add", "X=1", f"{plant.name}_group_Weld")
    plant.place("PAINT-1", workcenter="Weld")
    plant.options["PRUNE_MAX_FRACTION"] = "1"
    plant.once()
    for question in ("plan", "status"):
        code, said = plant.run(question)
        assert code == 0, said
    code, said = plant.run("teardown", "--yes")
    assert code == 0, said

    used = {call(request) for request in recorder.requests}
    unused = [pattern for pattern in allowed() if not any(re.search(pattern, each) for each in used)]
    assert unused == []
    assert [each for each in used if not any(re.search(pattern, each) for pattern in allowed())] == []


def test_secrets_are_allowed_by_a_switch(haproxy: str, proxy: str, recorder: Recorder) -> None:
    """Services with secrets, and the list that gives the secrets' ids, pass only where `SECRETS=allowed` says so."""
    body = b'{"TaskTemplate": {"ContainerSpec": {"Image": "x", "Secrets": [ {"SecretID": "a"}]}}}'
    recorder.requests.clear()
    path = f"v{docker('version', '--format', '{{.Server.APIVersion}}')}"
    assert httpx.get(f"http://{proxy}/{path}/secrets").status_code == http.HTTPStatus.FORBIDDEN
    assert httpx.post(f"http://{proxy}/{path}/services/create", content=body).status_code == http.HTTPStatus.FORBIDDEN
    assert recorder.requests == []
    with filtering(haproxy, recorder, SECRETS="allowed") as open_one:
        assert httpx.get(f"http://{open_one}/{path}/secrets").is_success
        httpx.post(
            f"http://{open_one}/{path}/services/create", content=body
        )  # the engine refuses it: no name, no secret
        assert [call(each) for each in recorder.requests] == [f"GET /{path}/secrets", f"POST /{path}/services/create"]


def test_a_switch_lets_only_reads_through(haproxy: str, recorder: Recorder) -> None:
    """With `WRITES=refused` a pipeline can show a plan and change nothing."""
    path = f"v{docker('version', '--format', '{{.Server.APIVersion}}')}"
    with filtering(haproxy, recorder, WRITES="refused") as reading:
        assert httpx.get(f"http://{reading}/{path}/services").is_success
        assert httpx.post(f"http://{reading}/{path}/services/create", json={}).status_code == http.HTTPStatus.FORBIDDEN
        assert httpx.delete(f"http://{reading}/{path}/configs/abc").status_code == http.HTTPStatus.FORBIDDEN
        assert [call(each) for each in recorder.requests] == [f"GET /{path}/services"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1.41/containers/create"),
        ("GET", "/v1.41/containers/json"),
        ("POST", "/v1.41/containers/abc/exec"),
        ("POST", "/v1.41/exec/abc/start"),
        ("POST", "/v1.41/build"),
        ("GET", "/v1.41/secrets"),
        ("POST", "/v1.41/secrets/create"),
        ("GET", "/v1.41/swarm"),
        ("GET", "/v1.41/swarm/unlockkey"),
        ("POST", "/v1.41/swarm/leave"),
        ("GET", "/v1.41/nodes/abc"),
        ("POST", "/v1.41/nodes/abc/update"),
        ("POST", "/v1.41/images/create"),
        ("POST", "/v1.41/plugins/pull"),
        ("GET", "/v1.41/volumes"),
        ("GET", "/v1.41/services/abc/logs"),
        ("GET", "/services"),
        ("PUT", "/v1.41/services/abc"),
        ("POST", "/v1.41/services"),
        ("GET", "/v1.41/services/../secrets"),
        ("GET", "/v1.41/distribution/a/../../secrets/json"),
        ("GET", "/v1.41/distribution/a%2f..%2f../json"),
        ("GET", "//v1.41/services"),
        ("GET", "/version/"),
    ],
)
def test_anything_else_is_refused(proxy: str, recorder: Recorder, method: str, path: str) -> None:
    """403 with the engine's form of an error, and the engine is never asked."""
    recorder.requests.clear()
    connection = http.client.HTTPConnection(proxy)  # sends a path as it is
    connection.request(method, path, body=b"{}" if method != "GET" else None)
    answer = connection.getresponse()
    said = json.loads(answer.read())
    connection.close()
    assert answer.status == http.HTTPStatus.FORBIDDEN
    assert f"does not allow {method} {path}" in said["message"]
    assert recorder.requests == []


#: The one mount that the filter knows, in a service that the engine refuses: it has no name.
TMP = json.dumps({"TaskTemplate": {"ContainerSpec": dict(HARDENED)}}).encode()


@pytest.mark.parametrize("privileges", [{}, {"Privileges": {"NoNewPrivileges": True}}], ids=["old", "new"])
def test_a_hardened_service_is_let_through(proxy: str, recorder: Recorder, privileges: dict[str, object]) -> None:
    """What makes a service weaker is no power."""
    recorder.requests.clear()
    body = json.dumps({"TaskTemplate": {"ContainerSpec": {**HARDENED, **privileges}}}).encode()
    httpx.post(f"http://{proxy}/v1.41/services/create", content=body)
    assert [call(each) for each in recorder.requests] == ["POST /v1.41/services/create"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"TaskTemplate": {"ContainerSpec": {"Image": "x", "Mounts": []}}}',
        b'{"TaskTemplate": {"ContainerSpec": {"Image": "x", "mounts"\n : []}}}',
        b'{"TaskTemplate": {"ContainerSpec": {"Image": "x", "\\u004dounts": []}}}',
        b'{"TaskTemplate": {"ContainerSpec": {"Image": "x", "Privileges": {}}}}',
        b'{"TaskTemplate": {"PluginSpec": {}}}',
        TMP.replace(b"}}]", b'}}, {"Type": "bind", "Source": "/", "Target": "/x"}]'),
        TMP.replace(b'"tmpfs"', b'"bind", "Source": "/"'),
        TMP.replace(b'"/tmp"', b'"/etc"'),
        TMP.replace(b'"tmpfs"', b'"tmpfs", "type": "bind", "source": "/"'),
        TMP.replace(b"}}}", b'}, "mounts": [{"Type": "bind", "Source": "/", "Target": "/x"}]}}'),
        b'{"TaskTemplate": {"ContainerSpec": {"Privileges": {"NoNewPrivileges": false}}}}',
        b'{"TaskTemplate": {"ContainerSpec": {"Privileges": {"NoNewPrivileges": true, "AppArmor": {"Mode": "x"}}}}}',
        b" " * 130_000,
    ],
    ids=[
        *("mounts", "another case", "escaped", "privileges", "plug-in", "a second mount", "a file", "another place"),
        *("twice a type", "twice mounts", "new privileges", "another profile", "too large"),
    ],
)
@pytest.mark.parametrize("path", ["create", "abc/update"])
def test_a_powerful_service_is_refused(proxy: str, recorder: Recorder, path: str, body: bytes) -> None:
    """Anyone who may create services may not reach a node's files or a secret with one."""
    recorder.requests.clear()
    answer = httpx.post(f"http://{proxy}/v1.41/services/{path}", content=body)
    assert answer.status_code == http.HTTPStatus.FORBIDDEN
    assert recorder.requests == []


def test_the_operator_shows_the_filters_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, proxy: str
) -> None:
    """What is not let through ends as an engine's refusal does: one line with the reason, exit code 1."""
    monkeypatch.chdir(tmp_path)
    variables = {"KAFKA_BROKER": "b:9092", "KSQLDB_URL": "http://127.0.0.1:1", "DOCKER_HOST": f"tcp://{proxy}"}
    for name, value in (variables | {"DEPLOYMENT_PLATFORM": "docker", "REGISTRY_DIR": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    assert cli.main(["plan"]) == 1
    said = capsys.readouterr().err
    assert re.search(r"the socket proxy does not allow GET /v1\.\d+/containers/json", said), said
