"""The liveness check of the images, as a program against a server that answers as told; with shorter times."""

from __future__ import annotations

import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.integration.ksqldb.tls import Authority

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "healthcheck.sh"
DOCKERFILE = SCRIPT.parents[1] / "Dockerfile"


class Server(ThreadingHTTPServer):
    """Answers one status, or keeps silent."""

    daemon_threads = True
    status = 200
    silent = False
    asked: list[str]


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.server.silent:
            time.sleep(10)
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on a free port."""
    made = Server(("127.0.0.1", 0), _Handler)
    made.asked = []
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The script with 2 s for 30, and a mark of the test's own."""
    text = SCRIPT.read_text()
    assert text.count("/dev/shm/alive") == 1  # noqa: S108 - text of the script, nothing is written there
    path = tmp_path / "healthcheck"
    path.write_text(text.replace("30", "2").replace("/dev/shm/alive", str(tmp_path / "alive")))  # noqa: S108 - see above
    return path


def check(script: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the check as the engine does."""
    command = ["/bin/bash", str(script), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=30, env={"PATH": "/bin:/usr/bin", **variables}
    )


def test_a_program_that_answers_is_healthy_at_once(script: Path, server: Server) -> None:
    """The first check does not wait; the next one does, so that there are few; other paths and ports can be asked."""
    done = check(script, "THE_PORT", "1", THE_PORT=str(server.server_port))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert server.asked == ["/healthz"]
    assert check(script, "THE_PORT", str(server.server_port), "/info").returncode == 0
    assert server.asked == ["/healthz", "/info"]


def test_after_a_gap_the_check_does_not_wait(script: Path, server: Server, tmp_path: Path) -> None:
    """A container that was paused, or whose engine was restarted, is unhealthy until a check has succeeded."""
    script.write_text(script.read_text().replace("sleep 2", "exit 9"))
    arguments = (script, "X", str(server.server_port))
    assert [check(*arguments).returncode for _ in range(2)] == [0, 9]
    (tmp_path / "alive").write_text(f"{int(time.time()) - 10}\n")
    assert [check(*arguments).returncode for _ in range(2)] == [0, 9]


def test_a_program_that_comes_up_is_waited_for(script: Path, server: Server) -> None:
    """A check that fails at the start would cost the engine's interval, or the container."""
    server.status = 503
    threading.Timer(0.5, setattr, (server, "status", 200)).start()
    assert check(script, "X", str(server.server_port)).returncode == 0
    assert len(server.asked) > 1


def test_a_program_with_tls_is_asked_by_https(script: Path, server: Server, tmp_path: Path) -> None:
    """With a certificate that is for another name, of an authority that the container does not know."""
    add_tls(server, tmp_path)
    done = check(script, "X", str(server.server_port), TLS_CERT_FILE="/run/secrets/tls_cert")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert server.asked == ["/healthz"]
    server.status = 503
    assert check(script, "X", str(server.server_port), TLS_CERT_FILE="/run/secrets/tls_cert").returncode == 1


def add_tls(server: Server, directory: Path) -> None:
    """Make a server speak TLS; each connection's handshake waits for its own thread."""
    pair = Authority.make(directory / "ca").sign("DNS:plant.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)


@pytest.mark.parametrize(
    ("fault", "tls"),
    [("refused", ""), ("silent", ""), ("unhealthy", ""), ("refused", "x"), ("silent", "x"), ("without TLS", "x")],
)
def test_a_program_that_does_not_answer_is_not_healthy(
    script: Path, server: Server, tmp_path: Path, fault: str, tls: str
) -> None:
    """Whatever it does instead; one line says what was asked."""
    server.silent, server.status = fault == "silent", 500 if fault == "unhealthy" else 200
    if tls and fault == "silent":
        add_tls(server, tmp_path)
    port = "1" if fault == "refused" else str(server.server_port)
    done = check(script, "X", port, TLS_CERT_FILE=tls)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == f"no HTTP 200 from 127.0.0.1:{port}/healthz within 2 s\n"


def test_every_image_has_the_same_check() -> None:
    """No interpreter in any, and more time than the script may take: 30 s of waiting and twice 30 s of asking."""
    checks = [line for line in DOCKERFILE.read_text().splitlines() if line.startswith("HEALTHCHECK")]
    assert len(checks) == 5
    assert {line.partition(" CMD ")[0] for line in checks} == {"HEALTHCHECK --interval=1s --timeout=120s --retries=3"}
    assert all(line.partition(" CMD ")[2].startswith('["healthcheck", "') for line in checks)
