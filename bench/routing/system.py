"""What a measurement needs around it: programs on one core each, their CPU and memory, and both proxies."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from load import Streams  # noqa: E402 - the path is set above

from tests.harness.processes import WITH_US  # noqa: E402 - the path is set above
from tests.integration.routing_layer.fake_sources import FakeKsqldb, free_port, registry  # noqa: E402 - the path is set above

#: Assets by how often they have an event, see `service.py`.
ASSETS = {letter: [f"{letter}{number}" for number in range(200)] for letter in "SELBF"}
_STATE = '{"asset_uuid":"S0","id":"temperature","value":1E3,"tag":"x"}'
_COMMON = """
global
  maxconn 9000
  nbthread 1
defaults
  mode http
  timeout connect 20s
  timeout client 60s
  timeout server 60s
  option http-keep-alive
  option http-no-delay
  http-reuse safe
"""
#: HAProxy takes the group from a map, which is its fastest way and cannot follow a moving asset.
_PROXY = """
frontend front
  bind 127.0.0.1:{port} backlog 8192
  use_backend states if {{ path /asset_state }}
  acl known url_param(asset_uuid),map_str({map}) -m found
  http-request deny deny_status 404 unless known
  use_backend %[url_param(asset_uuid),map_str({map})]
backend Weld
  server one 127.0.0.1:{service} maxconn 9000
backend states
  server one 127.0.0.1:{states} maxconn 9000
"""
#: The state API is an HAProxy, too: a service in Python would be the bottleneck.
_STATES = """
frontend states
  bind 127.0.0.1:{port} backlog 8192
  http-request return status 200 content-type application/json lf-string "{text}"
"""


def pinned(core: int, *command: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start a program on one core; it ends with this process, also when that is killed."""
    env = {**os.environ, **environment}
    return subprocess.Popen([*WITH_US, "taskset", "-c", str(core), *command], cwd=ROOT, env=env)


def cpu(process: subprocess.Popen[bytes]) -> float:
    """Return the CPU seconds that a process has used."""
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def memory(process: subprocess.Popen[bytes]) -> float:
    """Return the resident KiB of a process."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1024


def raise_limit() -> None:
    """Allow as many descriptors as there may be."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def answering(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a port takes streams."""
    async with asyncio.timeout(20):
        while True:
            assert process.poll() is None, "the proxy did not start"
            try:
                one = Streams()
                await one.open(port, ["S0"])
            except (OSError, AssertionError, TimeoutError):
                await asyncio.sleep(0.2)
            else:
                one.close()
                return


class Bench:
    """Services on core 1 and the sources of the routing layer; proxies on core 0 are started one after the other.

    Attributes:
        services: ports of the services, by whether they say that their streams are shareable.
    """

    async def __aenter__(self) -> Self:
        """Start the services and the sources."""
        self.folder = Path(tempfile.mkdtemp())
        self.services = {False: free_port(), True: free_port()}
        self._states, self._running = free_port(), list[subprocess.Popen[bytes]]()
        script = str(Path(__file__).with_name("service.py"))
        for shareable, port in self.services.items():
            more = ["shareable"] if shareable else []
            self._running.append(pinned(1, sys.executable, script, str(port), *more))
        text = _STATE.replace('"', '\\"')
        self._running.append(self._haproxy(1, "states", _STATES.format(port=self._states, text=text)))
        self._ksql = await FakeKsqldb().start()
        for asset in (asset for assets in ASSETS.values() for asset in assets):
            await self._ksql.put(asset, "Weld")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop everything."""
        for process in self._running:
            process.kill()
            process.wait()
        await self._ksql.stop()

    async def routing_layer(self, *, shareable: bool, **settings: str) -> tuple[int, subprocess.Popen[bytes]]:
        """Start the routing layer; return its port and process."""
        port, copy, service = free_port(), self.folder / "registry.json", f"http://127.0.0.1:{self.services[shareable]}"
        copy.write_bytes(registry({"Weld": f"{service}/asset_stream"}, f"http://127.0.0.1:{self._states}/asset_state"))
        environment = {"ROUTING_LAYER_PORT": str(port), "KSQLDB_URL": self._ksql.url, "REGISTRY_FILE": str(copy)}
        # A busy machine makes the service late, for both proxies; that is no failure here.
        quiet = {"LOG_LEVEL": "critical", "DRAIN_SECONDS": "0", "CONNECT_TIMEOUT": "20", "HEAD_TIMEOUT": "30"}
        process = pinned(0, sys.executable, "-m", "routing_layer", **environment, **quiet, **settings)
        return await self._started(port, process)

    async def haproxy(self) -> tuple[int, subprocess.Popen[bytes]]:
        """Start HAProxy in the place of the routing layer; return its port and process."""
        port, groups = free_port(), self.folder / "groups.map"
        groups.write_text("".join(f"{asset} Weld\n" for assets in ASSETS.values() for asset in assets))
        text = _PROXY.format(port=port, map=groups, service=self.services[False], states=self._states)
        return await self._started(port, self._haproxy(0, "proxy", text))

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Stop a proxy."""
        process.terminate()
        process.wait()
        self._running.remove(process)

    def _haproxy(self, core: int, name: str, text: str) -> subprocess.Popen[bytes]:
        config = self.folder / f"{name}.cfg"
        config.write_text(_COMMON + text)
        return pinned(core, "haproxy", "-f", str(config), "-db", "-q")

    async def _started(self, port: int, process: subprocess.Popen[bytes]) -> tuple[int, subprocess.Popen[bytes]]:
        self._running.append(process)
        await answering(port, process)
        return port, process


def spread(letter: str, count: int) -> list[str]:
    """Return the assets of ``count`` streams, as many of each."""
    assets = ASSETS[letter]
    return [assets[number % len(assets)] for number in range(count)]


def percentile(values: Iterable[float], hundredth: int) -> float:
    """Return a percentile of latencies in microseconds."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * hundredth // 100)] * 1e6
