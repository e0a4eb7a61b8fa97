"""The loop around the cycles, and the operator's own HTTP server, over a real socket."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry

from openfactory_common.errors import ConfigurationError, KsqlUnreachable, PlatformUnreachable
from reconciler.control.loop import Loop, Pace
from reconciler.leadership.elector import AlwaysLeader, WriteBlock
from reconciler.metrics import Metrics
from reconciler.web.server import RegistryCache, Server
from tests.harness.fakes import Stage


class Running:
    """A loop with its server, both in threads."""

    def __init__(self, stage: Stage, gap: float = 0.01) -> None:
        """Start both, with so many seconds between cycles at least; the interval is longer than any test."""
        self.stage = stage
        self.board = RegistryCache()
        self.metrics_registry = CollectorRegistry()
        controller = stage.controller()
        controller.reporter.metrics = Metrics(self.metrics_registry)
        controller.reporter.on_registry = self.board.put
        self.loop = Loop(controller, 3600.0, pace=Pace(gap=gap))
        self.server = Server(self.loop, self.board, 0, host="127.0.0.1", registry=self.metrics_registry)
        self.server.start()
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), body

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, for at most 20 seconds."""
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "it did not come about"
            time.sleep(0.02)

    def close(self) -> None:
        """End both."""
        self.loop.stop()
        self.thread.join(timeout=10)
        self.server.stop()
        assert not self.thread.is_alive()


@contextmanager
def operator(gap: float = 0.01) -> Iterator[Running]:
    """An operator with two groups, whose cycles are as quick as a test wants them."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "Weld", "b": "Paint"}
    made = Running(stage, gap)
    yield made
    made.close()


@pytest.fixture
def running() -> Iterator[Running]:
    """An operator with two groups."""
    with operator() as made:
        yield made


def test_ready_once_a_registry_is_published(running: Running) -> None:
    """/readyz turns 200 after the first full read and the first document; /registry has an ETag."""
    running.until(lambda: running.ask("GET", "/readyz")[0] == 200)
    status, headers, body = running.ask("GET", "/registry")
    assert status == 200
    running.until(lambda: set(json.loads(running.ask("GET", "/registry")[2])["groups"]) == {"Weld", "Paint"})
    status, headers, body = running.ask("GET", "/registry")
    assert running.ask("GET", "/registry", {"If-None-Match": headers["ETag"]})[0] == 304
    assert running.ask("GET", "/registry", {"If-None-Match": '"other"'})[2] == body


def test_a_dead_ksqldb_is_no_reason_to_die(running: Running) -> None:
    """T38: /healthz stays 200 while reads fail, and the last registry is still served."""
    running.until(lambda: running.ask("GET", "/readyz")[0] == 200)

    def refuse(_: str) -> None:
        raise KsqlUnreachable("refused")

    running.stage.ksqldb.fault = refuse
    running.ask("POST", "/reconcile")
    running.until(lambda: running.ask("GET", "/readyz")[0] == 503)
    assert running.ask("GET", "/healthz")[0] == 200
    assert running.ask("GET", "/registry")[0] == 200


def test_a_nudge_makes_a_cycle_and_a_thousand_make_few() -> None:
    """T10: events only shorten the sleep; however many come, cycles keep their least gap."""
    with operator(gap=0.5) as running:
        running.until(lambda: (last := running.loop.history.last) is not None and last.result == "in_sync")
        before = running.stage.ksqldb.calls["info"]
        for _ in range(1000):
            running.loop.nudge()
        running.until(lambda: running.stage.ksqldb.calls["info"] > before)
        assert running.stage.ksqldb.calls["info"] <= before + 2


def test_paused_it_looks_and_does_not_write(running: Running) -> None:
    """T33: a pause holds writes back, is shown, and ends."""
    running.until(lambda: (last := running.loop.history.last) is not None and last.result == "in_sync")
    assert running.ask("POST", "/pause?seconds=600")[0] == 200
    running.stage.ksqldb.assets["c"] = "Laser"
    running.ask("POST", "/reconcile")
    running.until(lambda: (last := running.loop.history.last) is not None and last.result == "paused")
    assert "ofa_group_laser" not in running.stage.platform.services
    assert "by a request from 127.0.0.1" in json.loads(running.ask("GET", "/readyz")[2])["paused"]
    assert running.stage.platform.kept_records["pause"].fields["until"] != ""
    assert b"reconciler_paused 1.0" in running.ask("GET", "/metrics")[2]
    assert running.ask("GET", "/healthz")[0] == 200
    running.ask("POST", "/resume")
    running.until(lambda: "ofa_group_laser" in running.stage.platform.services)


def test_one_group_is_paused_by_a_request(running: Running) -> None:
    """It says until when and by whom, another group goes on, and an unknown one is named with those that are meant."""
    running.until(lambda: (last := running.loop.history.last) is not None and last.result == "in_sync")
    status, _, body = running.ask("POST", "/pause?group=paint&seconds=600")
    assert (status, json.loads(body)["close"]) == (404, ["Paint"])
    assert running.ask("POST", "/pause?group=Paint&seconds=2678401")[0] == 400
    assert running.ask("POST", "/pause?group=Paint&seconds=604800&reason=audit")[0] == 200
    for name in ("ofa_group_weld", "ofa_group_paint"):
        running.stage.platform.touch(name, replicas=7)
    running.ask("POST", "/reconcile")
    services = running.stage.platform.services
    running.until(lambda: (spec := services["ofa_group_weld"].spec) is not None and spec.replicas == 1)
    paint = json.loads(running.ask("GET", "/groups/Paint")[2])
    assert (paint["condition"], paint["reason"]) == ("Held", "Paused")
    assert "by a request from 127.0.0.1: audit" in paint["plan"]
    assert b"reconciler_paused_groups 1.0" in running.ask("GET", "/metrics")[2]
    assert json.loads(running.ask("POST", "/resume")[2])["paused"] is None
    assert (spec := services["ofa_group_paint"].spec) is not None
    assert spec.replicas == 7
    assert "audit" in json.loads(running.ask("POST", "/resume?group=Paint")[2])["before"]
    running.until(lambda: (spec := services["ofa_group_paint"].spec) is not None and spec.replicas == 1)


@pytest.mark.parametrize("query", ["", "?seconds=", "?seconds=-1", "?seconds=inf", "?seconds=1e9", "?seconds=nan"])
def test_a_pause_needs_an_end(running: Running, query: str) -> None:
    """A pause that no one ends must end by itself: without a sane duration it is refused."""
    assert running.ask("POST", f"/pause{query}")[0] == 400
    assert not running.loop.paused


def test_a_pause_that_cannot_be_written_down_is_no_success(running: Running) -> None:
    """The answer says that others do not know of it; here it holds."""
    running.until(lambda: (last := running.loop.history.last) is not None and last.result == "in_sync")

    def refuse(call: str) -> None:
        if call == "write_record":
            raise PlatformUnreachable("no leader")

    running.stage.platform.fault = refuse
    status, _, body = running.ask("POST", "/pause?seconds=600")
    assert status == 503
    assert "no leader" in json.loads(body)["detail"]
    assert running.loop.paused


class Waiting(AlwaysLeader):
    """The write gate of an operator on standby."""

    role = "standby"

    def write_block(self) -> WriteBlock | None:
        """It may never write."""
        return WriteBlock("standby", "other holds the lease")


def test_a_standby_sends_followers_on(running: Running) -> None:
    """What it knows is older than what the one that writes says; while paused everybody knows the same."""
    running.until(lambda: running.ask("GET", "/readyz")[0] == 200)
    running.loop.controller.write_gate = Waiting()
    for question in (("GET", "/registry"), ("POST", "/reconcile")):
        status, headers, body = running.ask(*question)
        assert (status, headers["X-Operator-Role"], headers["Connection"]) == (503, "standby", "close")
        assert "This replica is on standby" in json.loads(body)["detail"]
    assert running.ask("POST", "/pause?seconds=600")[0] == 200
    assert running.ask("GET", "/registry")[0] == 200


def test_why_is_answered_from_memory(running: Running) -> None:
    """GET /groups/<Group> has the counters of this operator; an unknown group gets names that are close."""
    running.until(lambda: (last := running.loop.history.last) is not None and last.result == "in_sync")
    status, _, body = running.ask("GET", "/groups/Weld")
    answer = json.loads(body)
    assert (status, answer["condition"], answer["members"]) == (200, "Ready", 1)
    assert answer["read"]["last_cycle"].startswith("2 of 2 groups ready")
    status, _, body = running.ask("GET", "/groups/weld")
    assert (status, json.loads(body)["close"]) == (404, ["Weld"])
    running.stage.ksqldb.assets["c"] = "Line 1/A"
    running.loop.nudge()
    running.until(lambda: running.ask("GET", "/groups/Line%201%2FA")[0] == 200)


def test_metrics_exist_from_the_start(running: Running) -> None:
    """Every known label value is there at 0, so a rate is right from the first event on."""
    text = running.ask("GET", "/metrics")[2].decode()
    for line in (
        'reconciler_source_read_errors_total{kind="truncated",source="ksqldb"} 0.0',
        'reconciler_guard_active{guard="identity"} 0.0',
        'reconciler_actions_total{action="drop_stream",result="error"} 0.0',
        'reconciler_reconcile_total{result="bug"} 0.0',
    ):
        assert line in text


def test_a_port_that_is_taken_is_a_clear_error(running: Running) -> None:
    """The message names the variable."""
    second = Server(running.loop, running.board, running.server.port, host="127.0.0.1")
    with pytest.raises(ConfigurationError, match="RECONCILER_PORT"):
        second.start()


def test_no_path_and_no_query_is_an_internal_error(running: Running) -> None:
    """Bytes that are no text, halves of characters, zeros and numbers without end: an answer, and never a 500."""
    running.until(lambda: running.loop.history.read is not None)
    odd = ("%ff", "%ED%A0%80", "%00", "%e4", "%2e%2e", "%25zz", "x" * 5000, "9" * 5000, "%C3%28", "nan", "")
    for one in odd:
        paths = (f"/groups/{one}", f"/?q={one}&all={one}&condition={one}", f"/status?q={one}", f"/{one}")
        for method, path in (*(("GET", path) for path in paths), ("POST", f"/pause?seconds={one}&reason={one}")):
            assert running.ask(method, path)[0] in (200, 400, 404), (method, path)
    assert running.ask("GET", "/groups/%ff")[0] == 404


def test_a_server_that_cannot_begin_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it fails with: the program ends with a reason, and does not wait for ever."""

    async def broken(_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("reconciler.web.server.GuardedAppRunner.setup", broken)
    stage = Stage()
    loop = Loop(stage.controller(), 1.0)
    server = Server(loop, RegistryCache(), 0, host="127.0.0.1", registry=CollectorRegistry())
    with pytest.raises(ConfigurationError, match=r"RECONCILER_PORT=0 .*RuntimeError: boom"):
        server.start()
