"""The proxy beside HAProxy, in one run: interleaved rounds on pinned cores, medians, ratios.

``python bench/routing/run.py [--rounds 3] [--streams 2000] [--seconds 10]`` prints a table and writes
``bench/results/routing.json``. Needs ``haproxy`` (Debian's package) and two cores: the proxy under test has the first,
the service and the clients share the second. Latencies are from the service to the client. Beside the proxied streams
a quarter as many go straight from the service to the same client: what these take is the harness's own, so
``added_p99_us`` is the difference of the two 99th percentiles, of one round and one moment. The rate of states is
bounded by the one core of the clients.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from load import Streams, states  # noqa: E402 - the path is set above

from tests.integration.routing_layer.fake_sources import FakeKsqldb, free_port, registry  # noqa: E402 - the path is set above

_TICK = os.sysconf("SC_CLK_TCK")
_HAPROXY = """
global
  maxconn 8000
  nbthread 1
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  option http-keep-alive
  option http-no-delay
  http-reuse safe
frontend front
  bind 127.0.0.1:{port} backlog 8192
  acl known url_param(asset_uuid),map_str({map}) -m found
  http-request deny deny_status 404 unless known
  use_backend %[url_param(asset_uuid),map_str({map})]
backend Weld
  server one 127.0.0.1:{service} maxconn 8000
"""

Results = dict[str, list[float]]


def pinned(core: int, *command: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start a program on one core."""
    env = {**os.environ, **environment}
    return subprocess.Popen(["taskset", "-c", str(core), *command], cwd=ROOT, env=env)


def cpu(process: subprocess.Popen[bytes]) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def memory(process: subprocess.Popen[bytes]) -> float:
    """Return the resident KiB of a process."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1024


async def answering(port: int) -> None:
    """Wait until a port takes streams."""
    async with asyncio.timeout(20):
        while True:
            try:
                one = Streams()
                await one.open(port, 1)
            except (OSError, AssertionError, TimeoutError):
                await asyncio.sleep(0.2)
            else:
                one.close()
                return


async def measure(
    start: Callable[[int], Awaitable[tuple[int, subprocess.Popen[bytes]]]], plan: argparse.Namespace
) -> dict[str, float]:
    """Run every load against a freshly started proxy."""
    silent, busy = free_port(), free_port()
    services = [
        pinned(1, sys.executable, str(Path(__file__).with_name("service.py")), str(port), rate)
        for port, rate in ((silent, "0"), (busy, "1"))
    ]
    found: dict[str, float] = {}
    try:
        port, process = await start(silent)
        await answering(port)
        before = memory(process)
        idle = Streams()
        found["storm_seconds"] = await idle.open(port, plan.streams)
        await asyncio.sleep(1)
        found["kib_per_idle_stream"] = (memory(process) - before) / plan.streams
        idle.close()
        found["states_per_second"] = await states(port, 64, min(plan.seconds, 5))
        process.terminate()
        process.wait()
        port, process = await start(busy)
        await answering(port)
        await events(port, busy, process, plan, found)
        process.terminate()
        process.wait()
    finally:
        for service in services:
            service.kill()
    return found


async def events(
    port: int, service: int, process: subprocess.Popen[bytes], plan: argparse.Namespace, found: dict[str, float]
) -> None:
    """Measure streams with an event a second each, some of them without a proxy."""
    streams, direct = Streams(), Streams()
    await streams.open(port, plan.streams)
    await direct.open(service, max(plan.streams // 4, 1))
    await asyncio.sleep(2)
    streams.latencies.clear()
    direct.latencies.clear()
    used = cpu(process)
    await asyncio.sleep(plan.seconds)
    found["cpu_us_per_event"] = (cpu(process) - used) / len(streams.latencies) * 1e6
    for name, measured in (("", streams), ("direct_", direct)):
        found[f"{name}p50_us"] = statistics.median(measured.latencies) * 1e6
        found[f"{name}p99_us"] = statistics.quantiles(measured.latencies, n=100)[98] * 1e6
        measured.close()
    for part in ("p50_us", "p99_us"):
        found[f"added_{part}"] = found[part] - found[f"direct_{part}"]


async def main(plan: argparse.Namespace) -> None:
    """Measure both in turns and show the medians."""
    ksql = await FakeKsqldb().start()
    await ksql.put("A1", "Weld")
    folder = Path(tempfile.mkdtemp())

    async def ours(service: int) -> tuple[int, subprocess.Popen[bytes]]:
        port, copy = free_port(), folder / "registry.json"
        copy.write_bytes(
            registry({"Weld": f"http://127.0.0.1:{service}/asset_stream"}, f"http://127.0.0.1:{service}/asset_state")
        )
        environment = {"ROUTING_LAYER_PORT": str(port), "KSQLDB_URL": ksql.url, "REGISTRY_FILE": str(copy)}
        quiet = {"LOG_LEVEL": "error", "DRAIN_SECONDS": "0"}
        return port, pinned(0, sys.executable, "-m", "routing_layer", **environment, **quiet)

    async def haproxy(service: int) -> tuple[int, subprocess.Popen[bytes]]:
        port, groups, config = free_port(), folder / "groups.map", folder / "haproxy.cfg"
        groups.write_text("A1 Weld\n")
        config.write_text(_HAPROXY.format(port=port, map=groups, service=service))
        return port, pinned(0, "haproxy", "-f", str(config), "-db")

    results: dict[str, Results] = {"routing_layer": {}, "haproxy": {}}
    for number in range(plan.rounds):
        for name, start in (("routing_layer", ours), ("haproxy", haproxy)):
            for key, value in (await measure(start, plan)).items():
                results[name].setdefault(key, []).append(value)
        print(f"round {number + 1} of {plan.rounds} done", file=sys.stderr)
    await ksql.stop()
    show(results, plan)


def show(results: dict[str, Results], plan: argparse.Namespace) -> None:
    """Print the medians and keep them."""
    medians = {
        name: {key: statistics.median(values) for key, values in found.items()} for name, found in results.items()
    }
    print(f"{plan.streams} streams, medians of {plan.rounds} interleaved rounds, {time.strftime('%Y-%m-%d')}")
    print(f"{'':24}{'routing layer':>16}{'HAProxy':>12}{'ratio':>8}")
    ratios: dict[str, float | None] = {}
    for key, mine in medians["routing_layer"].items():
        other = medians["haproxy"][key]
        # Less than nothing is noise of the direct path, and no ratio.
        ratios[key] = mine / other if other > 0 else None
        print(f"{key:24}{mine:16.2f}{other:12.2f}{f'{ratios[key]:.2f}' if other > 0 else '-':>8}")
    target = ROOT / "bench" / "results" / "routing.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    document = {"plan": vars(plan), "medians": medians, "ratios": ratios, "rounds": results}
    target.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=10)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(main(parser.parse_args()))
