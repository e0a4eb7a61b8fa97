"""An idle cycle beside the raw calls that it makes, and the operator's memory.

``python bench/observe.py [--groups 100 1000] [--rounds 9]`` prints a table and writes ``bench/results/observe.json``.

ksqlDB is a process with prepared answers (see ``canned/server.py``): once at the pace of a real server, once with no
time of its own at all, so that every microsecond of the operator shows. With 100,000 assets a scan of the map is
not due in every cycle (scans take at most a twentieth of the time): a cycle with a scan and one between two are shown.
The platform answers at once. Raw calls and cycles alternate within one process; the numbers to look at are ratios of
medians within a run.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import httpx  # noqa: E402 - the path is set above
import structlog  # noqa: E402 - the path is set above
from prometheus_client import CollectorRegistry  # noqa: E402 - the path is set above

from reconciler.app import topology_of  # noqa: E402 - the path is set above
from reconciler.control.controller import Clocks, Controller, Dependencies  # noqa: E402 - the path is set above
from reconciler.domain.services import PlatformState  # noqa: E402 - the path is set above
from reconciler.grouping.unslevel import UNSLevelGroupingStrategy  # noqa: E402 - the path is set above
from reconciler.ksqldb.client import KsqlClient  # noqa: E402 - the path is set above
from reconciler.metrics import Metrics  # noqa: E402 - the path is set above
from reconciler.settings import Settings  # noqa: E402 - the path is set above
from tests.harness.fakes import NOW, FakePlatform  # noqa: E402 - the path is set above

RESULTS = ROOT / "bench" / "results" / "observe.json"
FEW, MANY = 1_000, 100_000
TARGETS = {"cycle/raw": 1.3, "100,000/1,000 assets": 2.0, "memory MB": 120.0}
SCAN = "SELECT `ASSET_UUID`, UNS_LEVELS['workcenter'] AS UNS_GROUP FROM `ASSET_TO_UNS_MAP`;"
CASES = ((FEW, "scan"), (MANY, "between"), (MANY, "scan"))


class Still(FakePlatform):
    """A platform that no longer changes and answers at once."""

    kept: PlatformState | None = None

    def observe(self) -> PlatformState:
        """Return the same state again."""
        if self.kept is None:
            return super().observe()
        return self.kept

    def freeze(self) -> None:
        """Keep the state of now."""
        self.kept = super().observe()


def operator(url: str) -> tuple[Controller, Still]:
    """Make an operator of the canned ksqlDB and let it settle."""
    given = {"kafka_broker": "k:9092", "ksqldb_url": url, "environment": "devswarm"}
    settings = Settings(_env_file=None, **given)  # type: ignore[call-arg, arg-type]
    client, platform = KsqlClient(url), Still()
    world = Dependencies(settings, client, platform, UNSLevelGroupingStrategy(settings, client), topology_of(settings))
    made = Controller(world, Metrics(CollectorRegistry()), clocks=Clocks(wall=lambda: NOW))
    for _ in range(10):
        outcome = made.cycle()
        if outcome.result == "in_sync":
            platform.freeze()
            return made, platform
    raise SystemExit(f"not settled: {outcome.sentence}")


def raw_calls(url: str, reads: str) -> Callable[[], None]:
    """Return what sends the operator's requests and reads their answers, with nothing but httpx."""
    http = httpx.Client(base_url=url, timeout=60.0, trust_env=False)
    rows = {"accept": "application/vnd.ksql.v1+json"}

    def send() -> None:
        http.get("/info").raise_for_status()
        http.get("/healthcheck").raise_for_status()
        if reads == "scan":
            http.post("/query", json={"ksql": SCAN}, headers=rows).raise_for_status()
        http.post("/ksql", json={"ksql": "LIST STREAMS;"}).raise_for_status()
        http.post("/ksql", json={"ksql": "LIST QUERIES;"}).raise_for_status()

    return send


def seconds(what: Callable[[], object]) -> float:
    """Return how long ``what`` takes."""
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def measure(url: str, reads: str, rounds: int) -> dict[str, float]:
    """Alternate raw calls and idle cycles; return their medians in milliseconds."""
    made, platform = operator(url)

    def cycle() -> None:
        if reads == "scan":
            made.nudge()
        made.cycle()

    raw = raw_calls(url, reads)
    raw()
    pairs = [(seconds(raw), seconds(cycle)) for _ in range(rounds)]
    assert platform.writes == platform.calls["create_service"] + platform.calls["publish_registry"]
    raws, cycles = zip(*pairs, strict=True)
    return {"raw ms": 1000 * statistics.median(raws), "cycle ms": 1000 * statistics.median(cycles)}


def footprint(url: str, reads: str, rounds: int) -> dict[str, float]:
    """Run idle cycles alone; return the peak of resident memory in MB (of the whole process, libraries included)."""
    made, _ = operator(url)
    for _ in range(rounds):
        if reads == "scan":
            made.nudge()
        made.cycle()
    return {"memory MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}


@contextmanager
def canned(groups: int, assets: int, *, paced: bool) -> Iterator[str]:
    """Run the canned ksqlDB; yield where it is."""
    sizes = ["--groups", str(groups), "--assets", str(assets), *(["--paced"] if paced else [])]
    command = [sys.executable, str(ROOT / "bench" / "canned" / "server.py"), *sizes]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def in_a_process(what: str, url: str, reads: str, rounds: int) -> dict[str, float]:
    """Measure in a fresh process, so that nothing that came before counts."""
    command = [sys.executable, __file__, "--worker", what, "--url", url, "--reads", reads, "--rounds", str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def run(groups: int, rounds: int, *, paced: bool) -> list[dict[str, Any]]:
    """Measure every case with one number of groups at one pace."""
    runs: list[dict[str, Any]] = []
    for assets, reads in CASES:
        one: dict[str, Any] = {"groups": groups, "paced": paced, "assets": assets, "reads": reads}
        with canned(groups, assets, paced=paced) as url:
            one |= in_a_process("measure", url, reads, rounds)
            if not paced:
                one |= in_a_process("footprint", url, reads, rounds)
        one["cycle/raw"] = one["cycle ms"] / one["raw ms"]
        if runs:
            one["100,000/1,000 assets"] = one["cycle ms"] / runs[0]["cycle ms"]
        runs.append(one)
    return runs


def show(runs: list[dict[str, Any]]) -> None:
    """Print the table."""
    print(f"One idle cycle (targets: {TARGETS})")
    titles = f"{'ksqlDB':<22}{'groups':>7}{'assets':>8}{'reads':>8}{'raw ms':>9}{'cycle ms':>10}{'ratio':>7}"
    print(f"{titles}{'100k/1k':>9}{'memory MB':>11}")
    for one in runs:
        pace = "at a real one's pace" if one["paced"] else "with no time at all"
        line = f"{pace:<22}{one['groups']:>7}{one['assets']:>8}{one['reads']:>8}"
        line += f"{one['raw ms']:>9.1f}{one['cycle ms']:>10.1f}{one['cycle/raw']:>7.2f}"
        growth, memory = one.get("100,000/1,000 assets"), one.get("memory MB")
        print(line + (f"{growth:>9.2f}" if growth else " " * 9) + (f"{memory:>11.1f}" if memory else ""))


def main(arguments: Sequence[str]) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--worker", choices=("measure", "footprint"), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--reads", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.worker:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        work = measure if given.worker == "measure" else footprint
        print(json.dumps(work(given.url, given.reads, given.rounds)))
        return
    runs = [one for paced in (True, False) for groups in given.groups for one in run(groups, given.rounds, paced=paced)]
    document = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "targets": TARGETS, "runs": runs}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    show(runs)


if __name__ == "__main__":
    main(sys.argv[1:])
