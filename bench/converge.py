"""Converging many groups beside the bare statements in sequence.

``python bench/converge.py [--groups 200]`` prints a table and writes ``bench/results/converge.json``.

Both run against the embedded ksqlDB, each against a fresh process of it: once as fast as it is (some 300 times
faster than a real one), and once with 50 ms a statement, a sixth of what a real ksqlDB 7.7 takes (measured: 320 to
470 ms). Bare are the same statements, sent one after the other with nothing but httpx. The platform is in memory, and
the pauses between two cycles of `--once` (1 s each) are left out; the number of cycles is shown.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402 - the path is set above
import structlog  # noqa: E402 - the path is set above
from prometheus_client import CollectorRegistry  # noqa: E402 - the path is set above

from reconciler.app import topology_of  # noqa: E402 - the path is set above
from reconciler.control.controller import Clocks, Controller, Dependencies  # noqa: E402 - the path is set above
from reconciler.control.converge import Exit, converge  # noqa: E402 - the path is set above
from reconciler.control.outcome import CycleOutcome  # noqa: E402 - the path is set above
from reconciler.domain.names import names_of  # noqa: E402 - the path is set above
from reconciler.grouping.unslevel import UNSLevelGroupingStrategy  # noqa: E402 - the path is set above
from reconciler.ksqldb.client import KsqlClient  # noqa: E402 - the path is set above
from reconciler.ksqldb.entities import Statement  # noqa: E402 - the path is set above
from reconciler.metrics import Metrics  # noqa: E402 - the path is set above
from reconciler.settings import Settings  # noqa: E402 - the path is set above
from tests.harness.fakes import NOW, FakePlatform  # noqa: E402 - the path is set above
from tests.harness.serving import MAP_TOPIC, UPSTREAM  # noqa: E402 - the path is set above

RESULTS = ROOT / "bench" / "results" / "converge.json"
TARGET = 1.2
PACE = 0.05


def group(number: int) -> str:
    """Name a group."""
    return f"cell-{number:03}"


@contextmanager
def ksqldb(groups: int, pace: float) -> Iterator[str]:
    """Run a fresh embedded server with one asset in each group; each statement takes ``pace`` seconds more."""
    command = [sys.executable, "-m", "demo.ksqldb", "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        port = re.search(r":(\d+)", process.stdout.readline())
        assert port is not None
        url = f"http://127.0.0.1:{port[1]}"
        try:
            with httpx.Client(base_url=url, timeout=10.0, trust_env=False) as http:
                for sql in UPSTREAM:
                    http.post("/ksql", json={"ksql": sql}).raise_for_status()
                for number in range(groups):
                    value = {"uns_id": "x", "uns_levels": {"workcenter": group(number)}}
                    record = {"topic": MAP_TOPIC, "key": f"a{number}", "value": value}
                    http.post("/dev/produce", json=record).raise_for_status()
                if pace:
                    http.post("/dev/faults", json={"ddl_timeout": pace}).raise_for_status()
            yield url
        finally:
            process.terminate()


def settings_for(url: str) -> Settings:
    """Settings of an operator of that server."""
    given = {"kafka_broker": "k:9092", "ksqldb_url": url, "environment": "devswarm"}
    return Settings(_env_file=None, **given)  # type: ignore[call-arg, arg-type]


def statements(groups: int) -> list[Statement]:
    """Return what the operator sends for so many new groups, in its order."""
    topology = topology_of(settings_for("http://ksqldb:8088"))
    names = (names_of(group(number)) for number in range(groups))
    return [topology.create_shared(), *(topology.create_group(one) for one in names)]


def bare(url: str, wanted: Sequence[Statement]) -> float:
    """Send the statements one after the other; return the seconds."""
    with httpx.Client(base_url=url, timeout=60.0, trust_env=False) as http:
        began = time.perf_counter()
        for one in wanted:
            payload = {"ksql": one.sql, "streamsProperties": dict(one.properties)}
            http.post("/ksql", json=payload).raise_for_status()
        return time.perf_counter() - began


def operated(url: str, groups: int) -> tuple[float, int]:
    """Converge from nothing; return the seconds and the number of cycles."""
    settings = settings_for(url)
    cycles: list[CycleOutcome] = []
    with closing(KsqlClient(url)) as client:
        strategy = UNSLevelGroupingStrategy(settings, client)
        world = Dependencies(settings, client, FakePlatform(), strategy, topology_of(settings))
        controller = Controller(world, Metrics(CollectorRegistry()), clocks=Clocks(wall=lambda: NOW))
        began = time.perf_counter()
        code, last = converge(controller, 600, show=cycles.append, sleep=lambda _: None)
        taken = time.perf_counter() - began
    assert code is Exit.OK, last.sentence
    assert last.plan is not None
    assert sum(item.group is not None for item in last.plan.items) == groups
    sent = httpx.get(f"{url}/dev/requests", trust_env=False).json()["statements"]["CREATE STREAM"]
    assert sent == groups + 2, "not the same statements as the bare ones (one is upstream's)"
    return taken, len(cycles)


def measure(groups: int, pace: float, rounds: int) -> dict[str, Any]:
    """Alternate bare statements and the operator, each with a fresh server; return medians in seconds."""
    wanted = statements(groups)
    calls, converged, cycles = [], [], 0
    for _ in range(rounds):
        with ksqldb(groups, pace) as url:
            calls.append(bare(url, wanted))
        with ksqldb(groups, pace) as url:
            taken, cycles = operated(url, groups)
            converged.append(taken)
    found = {"pace ms": pace * 1000, "bare s": statistics.median(calls), "converged s": statistics.median(converged)}
    return {**found, "ratio": found["converged s"] / found["bare s"], "cycles": cycles, "rounds": rounds}


def main(arguments: Sequence[str]) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=200)
    groups = parser.parse_args(arguments).groups
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    runs = [measure(groups, PACE, rounds=1), measure(groups, 0.0, rounds=3)]
    at = datetime.now(UTC).isoformat(timespec="seconds")
    document = {"at": at, "groups": groups, "target": TARGET, "runs": runs}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"Converging {groups} groups from nothing (target: {TARGET} x the bare statements in sequence)")
    print(f"{'each statement':<18}{'bare s':>8}{'operator s':>12}{'ratio':>7}{'cycles':>8}")
    for one in runs:
        pace = f"{one['pace ms']:.0f} ms and more" if one["pace ms"] else "at once"
        print(f"{pace:<18}{one['bare s']:>8.2f}{one['converged s']:>12.2f}{one['ratio']:>7.2f}{one['cycles']:>8}")


if __name__ == "__main__":
    main(sys.argv[1:])
