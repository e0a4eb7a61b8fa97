"""The proxy beside HAProxy, in one run: interleaved rounds on pinned cores, medians, ratios.

``python bench/routing/run.py [--rounds 3] [--streams 2000] [--seconds 8]`` prints a table and writes
``bench/results/routing.json`` (3 minutes). Needs ``haproxy`` (Debian's package) and two cores: the proxy under test has
the first, services and clients share the second; with ``wrk`` (Debian's package) the clients of states cost less.

The streams are of 200 assets. ``shared`` is the routing layer with a service that says that all clients of an asset
may have one stream, ``unshared`` the same without; HAProxy cannot share. What clients and services can do bounds every
rate, so each load also has the CPU of the proxy for one request or event: its capacity is one by that, and the ratio of
capacities is the inverse. Latencies are from the service to the client. A quarter as many streams go straight from the
service to the same client: what these take is the harness's own, so ``added_p99_us`` is the difference of the two 99th
percentiles of one round and one moment. The storm ends with the last first event; each asset has five a
second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import uvloop
from load import Streams, states
from system import ROOT, Bench, cpu, memory, percentile, raise_limit, spread

_KINDS = ("unshared", "shared", "haproxy")
Found = dict[str, float]


async def measure(bench: Bench, kind: str, plan: argparse.Namespace) -> Found:
    """Run every load against a freshly started proxy."""
    shareable = kind == "shared"
    start = bench.haproxy() if kind == "haproxy" else bench.routing_layer(shareable=shareable)
    port, process = await start
    found: Found = {}
    before, idle = memory(process), Streams()
    await idle.open(port, spread("S", plan.streams))
    await asyncio.sleep(1)
    found["kib_per_idle_stream"] = (memory(process) - before) / plan.streams
    idle.close()
    await asyncio.sleep(1)
    used, storm = cpu(process), Streams()
    await storm.open(port, spread("B", plan.streams), until="events")
    found["storm_heads_seconds"], found["storm_seconds"] = storm.seconds["heads"], storm.seconds["events"]
    found["storm_cpu_us_per_stream"] = (cpu(process) - used) / plan.streams * 1e6
    storm.close()
    await asyncio.sleep(1)
    used = cpu(process)
    answers, seconds = await states(port, 64, min(plan.seconds, 4))
    found["states_per_second"] = answers / seconds
    found["states_cpu_us_each"] = (cpu(process) - used) / answers * 1e6
    await _events(port, bench.services[shareable], process, plan, found)
    bench.stop(process)
    return found


async def _events(
    port: int, service: int, process: subprocess.Popen[bytes], plan: argparse.Namespace, found: Found
) -> None:
    """Measure streams with an event a second each, some of them without a proxy."""
    streams, direct = Streams(), Streams()
    await streams.open(port, spread("E", plan.streams))
    await direct.open(service, spread("E", max(plan.streams // 4, 1)))
    await asyncio.sleep(1)
    streams.latencies.clear()
    direct.latencies.clear()
    used = cpu(process)
    await asyncio.sleep(plan.seconds)
    found["cpu_us_per_event"] = (cpu(process) - used) / len(streams.latencies) * 1e6
    for part, hundredth in (("p50_us", 50), ("p99_us", 99)):
        through, past = percentile(streams.latencies, hundredth), percentile(direct.latencies, hundredth)
        found[part], found[f"direct_{part}"], found[f"added_{part}"] = through, past, through - past
    assert not streams.lost
    streams.close()
    direct.close()


async def main(plan: argparse.Namespace) -> None:
    """Measure all kinds in turns and show the medians."""
    results: dict[str, dict[str, list[float]]] = {kind: {} for kind in _KINDS}
    async with Bench() as bench:
        for number in range(plan.rounds):
            for kind in _KINDS:
                for key, value in (await measure(bench, kind, plan)).items():
                    results[kind].setdefault(key, []).append(value)
            print(f"round {number + 1} of {plan.rounds} done", file=sys.stderr)
    show(results, plan)


def show(results: dict[str, dict[str, list[float]]], plan: argparse.Namespace) -> None:
    """Print the medians and keep them."""
    medians = {kind: {key: statistics.median(values) for key, values in of.items()} for kind, of in results.items()}
    ratios: dict[str, dict[str, float | None]] = {"unshared": {}, "shared": {}}
    print(f"{plan.streams} streams, medians of {plan.rounds} interleaved rounds, {time.strftime('%Y-%m-%d')}")
    print(f"{'':26}" + "".join(f"{kind:>12}" for kind in _KINDS) + f"{'u/HAProxy':>12}{'s/HAProxy':>12}")
    for key, other in medians["haproxy"].items():
        line = f"{key:26}" + "".join(f"{medians[kind][key]:12.2f}" for kind in _KINDS)
        for kind, of in ratios.items():
            # Less than nothing is noise of the direct path, and no ratio.
            of[key] = medians[kind][key] / other if other > 0 else None
            line += f"{of[key]:12.2f}" if other > 0 else f"{'-':>12}"
        print(line)
    target = ROOT / "bench" / "results" / "routing.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    document = {"plan": vars(plan), "medians": medians, "ratios": ratios, "rounds": results}
    target.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=8)
    raise_limit()
    uvloop.run(main(parser.parse_args()))
