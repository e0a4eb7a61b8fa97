"""Several processes on one port: they are counted as one, and end with the one that started them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.harness.ports import free_port
from tests.integration.routing_layer.proxy_system import start_system


def accepts(port: int) -> bool:
    """Whether the port accepts connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(port: int, *, open_: bool) -> None:
    """Wait until the port is open, or closed."""
    deadline = time.monotonic() + 30
    while accepts(port) is not open_:
        assert time.monotonic() < deadline, f"port {port} should be {'open' if open_ else 'closed'}"
        time.sleep(0.05)


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    """SIGKILL of the parent cannot be caught; its workers notice, drain and give the port back."""
    port = free_port()
    environment = {
        **os.environ,
        "ROUTING_LAYER_PORT": str(port),
        "ROUTING_LAYER_WORKERS": "2",
        "KSQLDB_URL": "http://127.0.0.1:1",
        "REGISTRY_FILE": str(tmp_path / "none.json"),
        "RECONCILER_URL": "http://127.0.0.1:1",
        "DRAIN_SECONDS": "1",
        "LOG_LEVEL": "critical",
    }
    parent = subprocess.Popen(
        [sys.executable, "-m", "routing_layer"], env=environment, cwd=Path(__file__).resolve().parents[3]
    )
    try:
        until(port, open_=True)
        parent.send_signal(signal.SIGKILL)
        parent.wait(timeout=10)
        until(port, open_=False)
    finally:
        parent.kill()


async def test_any_worker_answers_for_all() -> None:
    """Whichever process is asked: streams and counts are those of both, ages the worst."""
    async with start_system(ROUTING_LAYER_WORKERS="2") as system:
        await system.proxy.wait_metric("routing_layer_workers", 2)
        await system.proxy.wait_metric("routing_layer_ready", 1)
        relists = await system.proxy.metric("routing_layer_membership_relists_total")
        assert relists <= 2
        clients = [await system.stream("A1") for _ in range(20)]
        await system.proxy.stale()
        for _ in range(10):
            found = await system.proxy.metrics()
            assert found["routing_layer_streams"] == 20
            assert found["routing_layer_workers"] == 2
            assert found["routing_layer_membership_assets"] == 2
            counted = found['routing_layer_requests_total{code="200",route="asset_stream"}']
            assert counted == 20, "a stream counts when its answer has begun"
        for client in clients:
            client.leave()
        await system.proxy.wait_metric('routing_layer_streams_ended_total{reason="client_left"}', 20)
        assert await system.proxy.metric("routing_layer_streams") == 0
