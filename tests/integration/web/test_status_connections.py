"""Connections to the operator's server over real sockets: none lives for ever, and none keeps others out."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from openfactory_common import connections
from openfactory_common.connections import ConnectionLimits
from tests.harness.fakes import Stage
from tests.integration.web.operator import Operator, operating

#: Seconds within which everything here happens, and a limit that is never reached in that time.
_PATIENCE, NEVER = 20.0, 3600.0
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
ROOT = Path(__file__).resolve().parents[3]
#: One client for all: making one takes longer than what is asked. Each question has a connection of its own.
asking = httpx.Client(timeout=_PATIENCE, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


def serving(limits: ConnectionLimits) -> Iterator[Operator]:
    """An operator with these limits."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "Weld"}
    with operating(stage, limits) as operator:
        yield operator


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    """One that waits for nothing for longer than a moment."""
    monkeypatch.setattr(connections, "_TICK_SECONDS", 0.05)
    monkeypatch.setattr(connections, "REST_SECONDS", 0.0)
    yield from serving(ConnectionLimits(50, head=0.3, idle=0.3, stall=0.3))


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    """One with room for four connections, for as long as they like."""
    monkeypatch.setattr(connections, "REST_SECONDS", 0.0)
    yield from serving(ConnectionLimits(4, head=NEVER, idle=NEVER))


def connected(operator: Operator, sent: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
    """Return a connection on which something was sent."""
    made = socket.create_connection(("127.0.0.1", operator.server.port), _PATIENCE, (source, 0))
    made.sendall(sent)
    return made


def asked(url: str, method: str = "GET") -> int:
    """Return the status of an answer."""
    return asking.request(method, url).status_code


def is_closed(one: socket.socket) -> bool:
    """Wait until the server has closed it."""
    try:
        while one.recv(65536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: y", GET, GET + b"GET /healthz HTTP"],
    ids=["silent", "half a line", "half a head", "idle", "half a second head"],
)
def test_a_connection_that_says_nothing_is_closed(hasty: Operator, sent: bytes) -> None:
    """At whatever point its client stops."""
    with connected(hasty, sent) as one:
        assert is_closed(one)


def test_a_head_that_comes_in_drips_is_closed(hasty: Operator) -> None:
    """A byte now and then does not prolong it."""
    with connected(hasty, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ") as one:
        deadline = time.monotonic() + _PATIENCE
        try:
            while time.monotonic() < deadline:
                one.sendall(b"y")
                time.sleep(0.02)
        except (ConnectionResetError, BrokenPipeError):
            return
        raise AssertionError("it is still open")


def test_answers_that_are_not_read_are_no_work(hasty: Operator) -> None:
    """A client that asks and does not read is closed like one that says nothing."""
    with connected(hasty) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.settimeout(0.2)
        deadline = time.monotonic() + _PATIENCE
        try:
            while time.monotonic() < deadline:
                try:
                    one.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
                except TimeoutError:
                    continue
        except (ConnectionResetError, BrokenPipeError):
            return
        raise AssertionError("it is still open")


def test_a_client_that_sends_no_more_gets_its_answer(hasty: Operator) -> None:
    """It has closed its half before the answer, as `nc -N` does; then the connection goes."""
    with connected(hasty, GET) as one:
        one.shutdown(socket.SHUT_WR)
        assert one.recv(65536).startswith(b"HTTP/1.1 200")
        assert is_closed(one)


def test_the_oldest_idle_connection_makes_room(narrow: Operator) -> None:
    """A new client is answered, whatever number of silent ones there is, and those go in the order they came."""
    silent = [connected(narrow) for _ in range(4)]
    clients = []
    for at in range(4):
        clients.append(connected(narrow, GET))
        assert clients[-1].recv(65536).startswith(b"HTTP/1.1 200")
        assert is_closed(silent[at])
    for one in (*silent, *clients):
        one.close()


def test_an_address_has_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections of one address displace only each other."""
    monkeypatch.setattr(connections, "_TICK_SECONDS", 0.05)
    monkeypatch.setattr(connections, "REST_SECONDS", 0.0)
    for operator in serving(ConnectionLimits(100, per_address=3, head=NEVER, idle=NEVER)):
        with connected(operator, GET, "127.0.0.2") as other:
            assert other.recv(65536)
            many = [connected(operator) for _ in range(20)]
            assert all(is_closed(one) for one in many[:17])
            other.sendall(GET)
            assert other.recv(65536).startswith(b"HTTP/1.1 200")
            for one in many:
                one.close()


def test_reads_are_answered_while_pauses_wait_for_a_cycle() -> None:
    """However many wait for a slow cycle to end, one thread does; the page, the status and the health do not."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "Weld"}
    goes_on, slow = threading.Event(), threading.Event()
    with operating(stage) as operator, ThreadPoolExecutor(64) as clients:

        def hang(call: str) -> None:
            if call == "streams":
                slow.set()
                assert goes_on.wait(_PATIENCE)

        stage.ksqldb.fault = hang
        operator.loop.nudge()
        assert slow.wait(_PATIENCE)
        waiting = [
            clients.submit(asked, f"{operator.url}{path}", "POST")
            for path in ["resume"] * 20 + ["pause?seconds=60"] * 20 + ["resume"] * 20
        ]
        try:
            for path in ("status", "", "healthz", "readyz", "metrics", "groups/Weld", "counters") * 3:
                assert asked(f"{operator.url}{path}") == 200
            assert not any(one.done() for one in waiting)
        finally:
            goes_on.set()
        assert all(one.result(_PATIENCE) == 200 for one in waiting)
        assert not operator.loop.paused


_UNDER_A_LIMIT = """
import resource, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
from openfactory_common import logs
from openfactory_common.settings_types import LogLevel
from tests.harness.fakes import Stage
from tests.integration.web.operator import operating
logs.configure(LogLevel.INFO)
stage = Stage()
stage.ksqldb.assets = {"a": "Weld"}
opened = lambda _: open("/dev/null").close()  # as its own sockets would be
stage.ksqldb.fault = stage.platform.fault = opened
with operating(stage) as operator:
    operator.loop.interval = 0.2
    operator.loop.nudge()
    print(operator.server.port, flush=True)
    sys.stdin.read()
    last = operator.loop.history.last
    print(last.result, flush=True)
"""


def test_more_clients_than_descriptors_hurt_no_one(tmp_path: Path) -> None:
    """300 descriptors and 400 silent clients: health and status are answered, cycles go on, the log stays small."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    log = tmp_path / "log"
    try:
        with log.open("wb") as stderr:
            operator = subprocess.Popen(
                [sys.executable, "-c", _UNDER_A_LIMIT],
                cwd=ROOT,
                env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert operator.stdin is not None
        assert operator.stdout is not None
        port = int(operator.stdout.readline())
        silent = [socket.create_connection(("127.0.0.1", port), _PATIENCE) for _ in range(400)]
        for path in ("healthz", "status", "metrics", "") * 5:
            assert asked(f"http://127.0.0.1:{port}/{path}") == 200
        last = asking.get(f"http://127.0.0.1:{port}/status").json()["operator"]
        assert last["last_result"] == "in_sync"
        operator.stdin.close()
        assert operator.stdout.readline() == "in_sync\n"
        assert operator.wait(_PATIENCE) == 0
        for one in silent:
            one.close()
        assert log.stat().st_size < 50_000, log.read_text()[-2000:]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
