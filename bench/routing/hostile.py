"""Good streams beside 10,000 hostile connections: what the others notice, and what it costs the proxy.

``[HOSTILE_PAUSE=5] python bench/routing/hostile.py [--connections 10000] [--phases 3] [--seconds 6]``. 200 good streams
with an event each 100 ms go through the proxy (core 0), 50 more straight from the service. Quiet phases and phases with
the hostile ones take turns; the hostile ones are a process of their own on the other core, with the lowest priority, so
that they disturb the proxy rather than the good clients. Half of them come from one address and exceed its limit, the
other half from a hundred addresses and do not. Prints the latencies with and without them, the ratio, the proxy's
memory, and how many connections it ended for which reason; writes ``bench/results/hostile.json``. First it prints what
one act of each kind costs the proxy in CPU: also on a busy machine this says how many of them a second take a core.
HAProxy goes through the same after it, without a limit for an address and with a fixed list of assets.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import uvloop
from load import Streams
from system import ROOT, Bench, cpu, memory, percentile, pinned, raise_limit

_GOOD, _DIRECT = 200, 50
_PER_ADDRESS = 1000
_STREAM = b"GET /asset_stream?asset_uuid=F%d HTTP/1.1\r\nHost: x\r\n\r\n"
#: With large events, so that its buffers fill: small ones stay in the kernel's for an hour, and are delivered like
#: those of a good client.
_LARGE = b"GET /asset_stream?asset_uuid=L%d HTTP/1.1\r\nHost: x\r\n\r\n"
_UNKNOWN = b"GET /asset_stream?asset_uuid=NONE-%d HTTP/1.1\r\nHost: x\r\n\r\n"
#: Seconds between two acts of one hostile connection: with 5, 10,000 of them act 2,000 times a second.
_PAUSE = float(os.environ.get("HOSTILE_PAUSE", "5"))
_RESET = b"\1\0\0\0\0\0\0\0"


async def _slow_head(port: int, number: int) -> None:
    sock, loop = await _connect(port, number), asyncio.get_running_loop()
    for byte in itertools.chain(b"GET / HTTP/1.1\r\nX: ", itertools.repeat(ord("x"))):
        await loop.sock_sendall(sock, bytes([byte]))
        await asyncio.sleep(_PAUSE)


async def _slow_reader(port: int, number: int) -> None:
    sock = await _connect(port, number, receive=4096)
    await asyncio.get_running_loop().sock_sendall(sock, _LARGE % (number % 200))
    await asyncio.Event().wait()


async def _flood(port: int, number: int) -> None:
    sock, loop = await _connect(port, number), asyncio.get_running_loop()
    for asset in itertools.count(number * 1_000_000):
        await loop.sock_sendall(sock, _UNKNOWN % asset)
        if not await loop.sock_recv(sock, 4096):
            return
        await asyncio.sleep(_PAUSE)


async def _half_closed(port: int, number: int) -> None:
    sock, loop = await _connect(port, number), asyncio.get_running_loop()
    await loop.sock_sendall(sock, _STREAM % (number % 200))
    sock.shutdown(socket.SHUT_WR)
    while await loop.sock_recv(sock, 65536):
        pass


async def _reset(port: int, number: int) -> None:
    sock = await _connect(port, number)
    await asyncio.get_running_loop().sock_sendall(sock, _STREAM[: 10 + number % 50])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


_KINDS: tuple[Callable[[int, int], Awaitable[None]], ...] = (_slow_head, _slow_reader, _flood, _half_closed, _reset)


async def _connect(port: int, number: int, receive: int | None = None) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    if receive is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    one_address = number // len(_KINDS) % 2
    sock.bind(("127.0.1.1" if one_address else f"127.0.2.{1 + number % 100}", 0))
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return sock


async def _attack(port: int, count: int) -> None:
    """Be hostile with ``count`` connections until killed; each comes again after a pause when it was ended."""

    async def one(number: int) -> None:
        await asyncio.sleep(number / count)
        while True:
            with contextlib.suppress(OSError):
                await _KINDS[number % len(_KINDS)](port, number)
            await asyncio.sleep(_PAUSE)

    await asyncio.gather(*(one(number) for number in range(count)))


async def _costs(port: int, process: subprocess.Popen[bytes], seconds: float = 2.0) -> dict[str, float]:
    """Return the proxy's CPU in microseconds for one act of each kind, one after the other."""
    loop = asyncio.get_running_loop()
    asking, slow = await _connect(port, 0), await _connect(port, 0)

    async def byte(number: int) -> None:
        nonlocal slow
        if number % 4000 == 0:  # a field has 8 KiB at most
            slow.close()
            slow = await _connect(port, number)
            await loop.sock_sendall(slow, b"GET / HTTP/1.1\r\nX: ")
        await loop.sock_sendall(slow, b"x")
        await asyncio.sleep(0.001)  # otherwise bytes are read together

    async def unknown(number: int) -> None:
        await loop.sock_sendall(asking, _UNKNOWN % number)
        await loop.sock_recv(asking, 4096)

    async def reset(number: int) -> None:
        await _reset(port, number)

    async def stream(number: int) -> None:
        sock = await _connect(port, number)
        await loop.sock_sendall(sock, _STREAM % (number % 200))
        sock.shutdown(socket.SHUT_WR)
        await loop.sock_recv(sock, 4096)
        sock.close()

    acts: dict[str, Callable[[int], Awaitable[None]]] = {
        "a byte of a head": byte,
        "an unknown asset": unknown,
        "a connection that is reset": reset,
        "a half-closed stream": stream,
    }
    found: dict[str, float] = {}
    for name, act in acts.items():
        used, started, number = cpu(process), time.monotonic(), 0
        while time.monotonic() < started + seconds:
            await act(number)
            number += 1
        found[name] = (cpu(process) - used) / number * 1e6
    return found


async def _metrics(port: int) -> dict[str, float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    return {name: float(value) for name, value in re.findall(r"^([a-z]\S*) ([\d.e+]+)$", text, re.MULTILINE)}


async def _phase(good: Streams, direct: Streams, process: subprocess.Popen[bytes], seconds: float) -> dict[str, float]:
    """Measure for some seconds."""
    good.latencies.clear()
    direct.latencies.clear()
    used = cpu(process)
    await asyncio.sleep(seconds)
    found = {
        f"{name}_{part}_us": percentile(streams.latencies, hundredth)
        for name, streams in (("good", good), ("direct", direct))
        for part, hundredth in (("p50", 50), ("p99", 99))
    }
    return {
        **found,
        "events": len(good.latencies),
        "cores_used": (cpu(process) - used) / seconds,
        "memory_mib": memory(process) / 1024,
    }


def _descriptors(process: subprocess.Popen[bytes]) -> int:
    return sum(1 for _ in Path(f"/proc/{process.pid}/fd").iterdir())


async def _measure_one(bench: Bench, kind: str, plan: argparse.Namespace) -> dict[str, object]:
    """Measure one proxy: phases without and with the hostile connections in turns."""
    results: dict[str, list[dict[str, float]]] = {"quiet": [], "hostile": []}
    limit = {"CONNECTIONS_PER_ADDRESS": str(_PER_ADDRESS)}
    ours = kind == "routing layer"
    port, process = await (bench.routing_layer(shareable=False, **limit) if ours else bench.haproxy())
    costs = await _costs(port, process)
    good, direct = Streams(), Streams()
    await good.open(port, [f"F{number}" for number in range(_GOOD)], until="events")
    await direct.open(bench.services[False], [f"F{number}" for number in range(_DIRECT)], until="events")
    await asyncio.sleep(1)
    for number in range(plan.phases):
        quiet = await _phase(good, direct, process, plan.seconds)
        results["quiet"].append({**quiet, "descriptors": _descriptors(process)})
        script = str(Path(__file__))
        attack = pinned(1, "nice", "-n", "19", sys.executable, script, "--attack", str(port), str(plan.connections))
        await asyncio.sleep(plan.warm)
        phase = await _phase(good, direct, process, plan.seconds)
        # Asked for it, a busy proxy answers late.
        phase["descriptors"] = _descriptors(process)
        results["hostile"].append(phase)
        attack.kill()
        attack.wait()
        await asyncio.sleep(plan.warm / 2)
        print(f"{kind}: phase {number + 1} of {plan.phases} done", file=sys.stderr)
    ended = {
        name.removeprefix("routing_layer_"): value
        for name, value in (await _metrics(port) if ours else {}).items()
        if value and name.startswith(("routing_layer_connections_ended", "routing_layer_streams_ended"))
    }
    left = {"memory_mib_at_the_end": memory(process) / 1024, "good_streams_lost": good.lost}
    good.close()
    direct.close()
    bench.stop(process)
    medians = {
        kind: {key: statistics.median(phase[key] for phase in phases) for key in phases[0]}
        for kind, phases in results.items()
    }
    costs_ = {f"CPU us for {name}": value for name, value in costs.items()}
    return {"costs": costs_, "medians": medians, "ended": ended, "left": left, "phases": results}


async def _measure(plan: argparse.Namespace) -> dict[str, object]:
    async with Bench() as bench:
        found = {kind: await _measure_one(bench, kind, plan) for kind in ("routing layer", "haproxy")}
    return {"plan": {**vars(plan), "pause": _PAUSE}, **found}


def _show(found: dict[str, object]) -> None:
    for kind in ("routing layer", "haproxy"):
        part = found[kind]
        assert isinstance(part, dict)
        print(f"{kind}: {_GOOD} good streams, medians of the phases, {time.strftime('%Y-%m-%d')}")
        print(f"{'':18}{'quiet':>12}{'hostile':>12}{'ratio':>8}")
        for key, quiet in part["medians"]["quiet"].items():
            hostile = part["medians"]["hostile"][key]
            print(f"{key:18}{quiet:12.2f}{hostile:12.2f}{hostile / quiet if quiet else 0:8.2f}")
        for name in ("costs", "left", "ended"):
            for key, value in part[name].items():
                print(f"{key:50} {value:.0f}")
    (ROOT / "bench" / "results" / "hostile.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    raise_limit()
    if sys.argv[1:2] == ["--attack"]:
        uvloop.run(_attack(int(sys.argv[2]), int(sys.argv[3])))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--phases", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument(
        "--warm", type=float, default=10, help="seconds for the hostile ones to come, and half to leave"
    )
    _show(uvloop.run(_measure(parser.parse_args())))
