"""What each way of not answering becomes, against a real HTTP server that answers as told."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from openfactory_common.errors import PlatformConflict, PlatformError, PlatformRefused, PlatformUnreachable
from reconciler.domain.services import Kind, LiveService, ServiceSpec
from reconciler.platforms.answers import parse_time
from reconciler.platforms.engine import split_output
from reconciler.platforms.inspection import find_images
from reconciler.platforms.protocol import Reference
from reconciler.platforms.swarm.platform import SwarmPlatform
from reconciler.platforms.swarm.spec import to_engine

NOT_A_MANAGER = 'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join"'
STARTING = "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster."
SPEC = ServiceSpec("t_group_Weld", Kind.GROUP, "Weld", "image:1", {}, 0, 1.0, 0.5, network="id-of-the-network")
PROXY = Path(__file__).parents[3] / "manifests" / "socket-proxy" / "haproxy.cfg"
SERVICE = LiveService("id1", 7, "t_group_Weld", "t", None, 1)


class ScriptedEngine(ThreadingHTTPServer):
    """Answers the version, and everything else with one status and body; a status of 0 hangs up half-way."""

    daemon_threads = True

    def __init__(self) -> None:
        """Listen on a free port."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.body = 200, b"[]"
        self.lists: dict[str, Any] = {}
        self.silent = threading.Event()
        self.resumed = threading.Event()
        self.seen: list[str] = []
        self.bodies: list[bytes] = []
        self.version: Any = {"ApiVersion": "1.43", "MinAPIVersion": "1.12"}

    def says(self, status: int, answer: Any) -> None:
        """Answer with ``status`` from now on; bytes go out as they are."""
        self.status = status
        self.body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedEngine

    def do_GET(self) -> None:
        if self.path == "/version":
            self._answer(200, json.dumps(self.server.version).encode())
            return
        self.server.seen.append(f"{self.command} {self.path}")
        if self.server.silent.is_set():
            self.server.resumed.wait(20)
            return
        listed = self.server.lists.get(self.path.partition("?")[0].rpartition("/")[2])
        self._answer(self.server.status, self.server.body if listed is None else json.dumps(listed).encode())

    do_POST = do_GET  # noqa: N815 - the name that http.server asks for
    do_DELETE = do_GET  # noqa: N815 - the name that http.server asks for

    def _answer(self, status: int, body: bytes) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self.send_response(status or 200)
        self.send_header("Content-Length", str(len(body) if status else len(body) + 100))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    """A server on a free port."""
    server = ScriptedEngine()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.resumed.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def platform(engine: ScriptedEngine) -> Iterator[SwarmPlatform]:
    """A platform that asks the scripted engine."""
    made = SwarmPlatform("t", "t", pin_digests=False, base_url=f"http://127.0.0.1:{engine.server_port}", timeout=1)
    yield made
    made.close()


ANSWERS = [
    (503, {"message": NOT_A_MANAGER}, PlatformRefused, "docker swarm init"),
    (
        500,
        {"message": "rpc error: code = Unknown desc = The swarm does not have a leader"},
        PlatformUnreachable,
        "the Swarm has no leader, too few of its managers",
    ),
    (
        500,
        {"message": "rpc error: code = Unknown desc = raft: failed to process the request: node lost leader status"},
        PlatformUnreachable,
        "the Swarm has no leader",
    ),
    (503, {"message": STARTING}, PlatformUnreachable, "does not reach the Swarm's leader; it is starting"),
    (
        500,
        {"message": "rpc error: code = Unavailable desc = connection error: desc = transport"},
        PlatformUnreachable,
        "does not reach the Swarm's leader",
    ),
    (500, {"message": "rpc error: code = Canceled desc = context canceled"}, PlatformUnreachable, "context canceled"),
    (
        500,
        {"message": "rpc error: code = DeadlineExceeded desc = context deadline exceeded"},
        PlatformUnreachable,
        "deadline exceeded",
    ),
    (502, b"<html>bad gateway</html>", PlatformUnreachable, "bad gateway"),
    (400, {"message": "client version 1.41 is too old"}, PlatformRefused, "too old"),
    (403, {"message": "authorization denied by plugin"}, PlatformRefused, "denied"),
    (500, {"message": "something else"}, PlatformRefused, "something else"),
    (0, b'[{"ID": "x"', PlatformUnreachable, "did not answer"),
    (200, b'[{"ID": "x"', PlatformUnreachable, "did not answer"),
    (200, b"", PlatformError, "incomplete"),
    (200, {"message": "not a list"}, PlatformError, "incomplete"),
    (200, [{"ID": "x"}], PlatformError, "incomplete"),
    (200, [None], PlatformError, "incomplete"),
]


@pytest.mark.parametrize(("status", "answer", "error", "words"), ANSWERS)
def test_a_read_that_is_not_complete_raises(
    engine: ScriptedEngine,
    platform: SwarmPlatform,
    status: int,
    answer: Any,
    error: type[PlatformError],
    words: str,
) -> None:
    """No answer but a complete one becomes a state; the engine's own words are in the error, its cause behind it."""
    engine.says(status, answer)
    with pytest.raises(error, match=words) as caught:
        platform.observe()
    assert type(caught.value) is error


def test_a_list_of_networks_without_those_of_the_swarm_is_not_complete(
    engine: ScriptedEngine, platform: SwarmPlatform
) -> None:
    """A manager that lost its leader between two lists answers 200 with its local networks: no drift follows."""
    service = to_engine(SPEC, "t", {}, SPEC.image)
    engine.lists["services"] = [{"ID": "id1", "Version": {"Index": 7}, "Spec": service}]
    local = {"Id": "n0", "Name": "bridge", "Scope": "local"}
    engine.lists["networks"] = [local]
    with pytest.raises(PlatformUnreachable, match="lacks networks"):
        platform.observe()
    engine.lists["networks"] = [local, {"Id": SPEC.network, "Name": "factory-net", "Scope": "swarm"}]
    live = platform.observe().services["t_group_weld"]
    assert live.spec is not None
    assert live.spec.network == "factory-net"


def test_a_task_that_is_counted_on_a_lost_node_is_found_out(
    engine: ScriptedEngine, platform: SwarmPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that counts on says nothing of it; the nodes do, and then the tasks are read until counts agree."""
    monkeypatch.setattr("reconciler.platforms.swarm.platform.NODES_EVERY", 0.0)
    service = to_engine(dataclasses.replace(SPEC, replicas=1), "t", {}, SPEC.image)
    status = {"RunningTasks": 1, "DesiredTasks": 1}
    engine.lists["services"] = [{"ID": "id1", "Version": {"Index": 7}, "Spec": service, "ServiceStatus": status}]
    network = {"Network": {"ID": SPEC.network, "Spec": {"Name": "factory-net"}}}
    runs = {"ServiceID": "id1", "CreatedAt": "2026-01-02T03:04:05Z", "Spec": {}, "Status": {"State": "running"}}
    runs["DesiredState"] = "running"
    engine.lists["tasks"] = [{**runs, "NetworksAttachments": [network]}]
    seen = []
    for node in ("ready", "ready", "down", "down", "down", "ready", "ready"):
        engine.lists["nodes"] = [{"ID": "n1", "Status": {"State": node}}]
        engine.lists["tasks"][0]["DesiredState"] = "shutdown" if node == "down" else "running"
        seen.append(platform.observe().services["t_group_weld"].running)
    assert seen == [1, 1, 1, 0, 0, 1, 1]
    reads = [path.partition("?")[0].rpartition("/")[2] for path in engine.seen]
    thirds = [read for read in reads if read in ("tasks", "nodes", "networks")]
    assert thirds == ["tasks", "nodes", "nodes", "tasks", "tasks", "tasks", "nodes"]


def test_a_network_is_not_missing_from_such_a_list(engine: ScriptedEngine, platform: SwarmPlatform) -> None:
    """A list without any network of the Swarm says nothing; one with others says that it is not there."""
    engine.lists["networks"] = [{"Id": "n0", "Name": "bridge", "Scope": "local"}]
    with pytest.raises(PlatformUnreachable, match="no network of the Swarm"):
        platform.missing_references(Reference.NETWORK, ("factory-net",))
    engine.lists["networks"].append({"Id": "n1", "Name": "ingress", "Scope": "swarm"})
    assert set(platform.missing_references(Reference.NETWORK, ("factory-net",))) == {"factory-net"}


def test_secrets_that_may_not_be_listed_are_not_missing(engine: ScriptedEngine, platform: SwarmPlatform) -> None:
    """The filter's words are the error; an answer without names is none."""
    engine.says(403, {"message": "the socket proxy does not allow GET /v1.41/secrets"})
    with pytest.raises(PlatformRefused, match="the socket proxy does not allow"):
        platform.missing_references(Reference.SECRET, ("ofa-pw",))
    engine.says(200, [{"ID": "s1"}])
    with pytest.raises(PlatformError, match="incomplete"):
        platform.missing_references(Reference.SECRET, ("ofa-pw",))


IMAGES = ("group:1", "registry.example:5000/plant/group_a:1.2-b", f"registry.example/group@sha256:{'0' * 64}")


def test_what_doctor_and_adopt_ask_passes_the_socket_proxy(engine: ScriptedEngine, platform: SwarmPlatform) -> None:
    """All but whether an image is on the node: a refusal is no finding, and the image's repository is asked."""
    network = {"Id": "n", "Name": "net", "Scope": "swarm", "Driver": "overlay"}
    engine.lists = {"networks": [network], "nodes": [], "services": [], "tasks": [], "configs": [], "secrets": []}
    platform.observe()
    platform.missing_references(Reference.SECRET, ["user"])
    platform.inspect("net", ())
    engine.says(403, {"message": "the socket proxy does not allow it"})
    find_images(platform._engine, IMAGES)
    engine.says(200, {"ID": "id1", "Version": {"Index": 7}, "Spec": to_engine(SPEC, "t", {})})
    assert platform.read_foreign(SERVICE) is not None
    asked = {one.partition("?")[0] for one in engine.seen}
    patterns = re.findall(r"-m reg '(.*)'$", PROXY.read_text(encoding="utf-8"), re.MULTILINE)
    assert sum("/distribution/" in one for one in asked) == len(IMAGES)
    refused = {one for one in asked if not any(re.search(pattern, one) for pattern in patterns)}
    assert all("/images/" in one for one in refused), refused


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("unix:///nowhere/docker.sock", "No such file or directory"),
        ("unix:///etc/hostname", "Connection refused"),
        ("tcp://127.0.0.1:1", "Connection refused"),
        ("tcp://localhost.invalid:2375", "not known|name resolution"),
    ],
)
def test_an_engine_that_is_not_there_is_named_with_the_systems_words(address: str, words: str) -> None:
    """One line says where it was looked for and why that failed, not how libraries wrap it."""
    absent = SwarmPlatform("t", "t", pin_digests=False, base_url=address, timeout=1)
    with pytest.raises(
        PlatformUnreachable, match=f"^no Docker engine answers at {address}: .*({words}); is it"
    ) as caught:
        absent.observe()
    assert "Error(" not in str(caught.value)


def test_a_connection_that_breaks_is_told_without_the_libraries_frames(
    engine: ScriptedEngine, platform: SwarmPlatform
) -> None:
    """What was received and what was missing, once."""
    engine.says(0, b'[{"ID": "x"')
    with pytest.raises(PlatformUnreachable, match="did not answer: IncompleteRead") as caught:
        platform.observe()
    assert str(caught.value).count("IncompleteRead") == 1


def test_an_engine_that_is_silent_is_unreachable(engine: ScriptedEngine, platform: SwarmPlatform) -> None:
    """The time limit ends a request that is never answered, with the library's own error as the cause."""
    engine.silent.set()
    with pytest.raises(PlatformUnreachable, match="within 1 s") as caught:
        platform.observe()
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "unix:///nowhere/docker.sock"])
def test_no_engine_at_all_is_unreachable(url: str) -> None:
    """A refused connection and a missing socket say what to look at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        platform = SwarmPlatform("t", "t", pin_digests=False, base_url=url.format(port=free.getsockname()[1]))
        with pytest.raises(PlatformUnreachable, match="DOCKER_HOST"):
            platform.observe()


def test_a_url_that_is_none_is_refused() -> None:
    """A wrong setting is not something to wait for."""
    platform = SwarmPlatform("t", "t", pin_digests=False, base_url="gopher://engine")
    with pytest.raises(PlatformRefused, match="DOCKER_HOST"):
        platform.observe()


def test_an_engine_that_comes_back_is_used_again(engine: ScriptedEngine, platform: SwarmPlatform) -> None:
    """One lost answer does not spoil the connections after it."""
    engine.says(0, b"[")
    with pytest.raises(PlatformUnreachable):
        platform.observe()
    engine.says(200, [])
    assert platform.observe().services == {}


def test_a_removal_of_what_is_gone_is_no_error(engine: ScriptedEngine, platform: SwarmPlatform) -> None:
    """Another party was faster: the end is the same."""
    engine.says(404, {"message": "service id1 not found"})
    platform.remove_service(SERVICE)
    assert engine.seen == ["DELETE /v1.43/services/id1"]


def test_an_update_of_what_is_gone_is_a_conflict(engine: ScriptedEngine, platform: SwarmPlatform) -> None:
    """The service went since it was read: look again, do not repeat."""
    engine.says(404, {"message": "service id1 not found"})
    with pytest.raises(PlatformConflict, match="not found"):
        platform.update_service(SERVICE, None)  # type: ignore[arg-type]  # the spec is never reached


def test_every_request_is_told_with_its_code(engine: ScriptedEngine) -> None:
    """Metrics see the request without ids, the status, or that no answer came."""
    told: list[tuple[str, str]] = []
    platform = SwarmPlatform(
        "t",
        "t",
        pin_digests=False,
        base_url=f"http://127.0.0.1:{engine.server_port}",
        on_request=lambda request, code, _seconds: told.append((request, code)),
    )
    platform.observe()
    engine.says(0, b"[")
    with pytest.raises(PlatformUnreachable):
        platform.remove_service(SERVICE)
    platform.close()
    reads = ("GET /version", "GET /services", "GET /configs", "GET /nodes")
    assert told[:4] == [(read, "200") for read in reads]
    assert told[4][0] == "DELETE /services/{}"


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        ("2026-01-02T03:04:05.123456789Z", 123456),
        ("2026-01-02T03:04:05.1Z", 100000),
        ("2026-01-02T03:04:05Z", 0),
    ],
)
def test_times_of_the_engine_are_parsed(text: str, microsecond: int) -> None:
    """The engine writes up to nine digits and cuts off zeros."""
    assert parse_time(text) == datetime(2026, 1, 2, 3, 4, 5, microsecond, UTC)


def frame(text: bytes, stream: int = 1) -> bytes:
    """Return a part of an output as the engine sends it."""
    return bytes([stream, 0, 0, 0]) + len(text).to_bytes(4) + text


OUTPUT = frame(b"one\n") + frame(b"two\nthree\n", 2) + frame(b"") + frame("vier \u00e4\n".encode()) + frame(b"\xff end")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 1000])
def test_an_output_is_the_same_lines_however_it_is_cut(size: int) -> None:
    """Frames come in parts of any length; the last, incomplete one is none."""
    whole = OUTPUT + frame(b"never complete")[:-1]
    parts = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert list(split_output(parts)) == ["one", "two", "three", "", "vier \u00e4", "\ufffd end"]
    assert list(split_output([])) == []
