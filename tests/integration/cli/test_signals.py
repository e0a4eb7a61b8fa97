"""SIGTERM, Ctrl-C and SIGHUP at many moments: what was held is given back, and the exit code says what ended it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from openfactory_common import signals
from reconciler.leadership.lease import Lease
from reconciler.leadership.pause import parse
from tests.harness.ports import free_port
from tests.harness.serving import Plant as Serving
from tests.harness.serving import Served
from tests.integration.cli.file_platform import FilePlatform

ROOT = Path(__file__).resolve().parents[3]
_PATIENCE = 170.0
#: Number of a call at which something has been written.
_LATE = 9
TERM, INT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


@dataclass
class Plant:
    """A directory of platforms, each of an installation of its own with its ksqlDB on a real socket."""

    directory: Path
    served: dict[str, Served] = field(default_factory=dict)

    def ksqldb(self, name: str) -> Served:
        """Return the server of an installation, with three groups."""
        if name not in self.served:
            self.served[name] = Served()
            self.served[name].assign({"a": "Weld", "b": "Paint", "c": "Pack"})
        return self.served[name]

    def environment(self, name: str, extra: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of a process whose platform has this name."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}:{self.directory}",
            "FILE_PLATFORM": str(self.directory / name),
            "DEPLOYMENT_PLATFORM": "file",
            "KAFKA_BROKER": "k:9092",
            "KSQLDB_URL": self.ksqldb(name).url,
            "ENVIRONMENT": "devswarm",
            "LEASE_SECONDS": "6",  # a busy machine must not be late for it: a lease that is lost ends a teardown
            "RECONCILER_PORT": str(free_port()),
            **extra,
        }

    def start(self, name: str, *arguments: str, stdout: int = subprocess.PIPE, **extra: str) -> subprocess.Popen[str]:
        """Start the operator's program."""
        return subprocess.Popen(
            [sys.executable, "-m", "reconciler", *arguments],
            cwd=self.directory,
            env=self.environment(name, extra),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, name: str, *arguments: str, **extra: str) -> tuple[int, str]:
        """Run it to its end; return the exit code and what it said."""
        process = self.start(name, *arguments, **extra)
        out, err = process.communicate(timeout=_PATIENCE)
        return process.returncode, out + err

    def settle(self, name: str) -> None:
        """Bring up an installation, here."""
        made = Serving(self.ksqldb(name), platform=self.platform(name))  # type: ignore[arg-type]  # passes all calls on
        made.settle(made.operator())

    def platform(self, name: str) -> FilePlatform:
        """Return a process's platform."""
        return FilePlatform(self.directory / name)

    def nothing_is_held(self, name: str) -> bool:
        """Return whether the lease is neither held nor requested, and no pause is active."""
        records = self.platform(name).state().kept_records
        lease = records["lease"].fields if "lease" in records else {"holder": "", "wanted": ""}
        pause = records.get("pause")
        return not lease["holder"] and not lease["wanted"] and (pause is None or parse(pause.fields).until is None)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """Three groups; the platform is found as any installed plug-in is."""
    directory = tmp_path_factory.mktemp("plant")
    info = directory / "file_platform-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: file-platform\nVersion: 1\n")
    group = "openfactory_routing_layer.deployment_platforms"
    (info / "entry_points.txt").write_text(f"[{group}]\nfile = tests.integration.cli.file_platform:make\n")
    made = Plant(directory)
    yield made
    for ksqldb in made.served.values():
        ksqldb.stop()


def _signalled(plant: Plant, name: str, arguments: tuple[str, ...], at: int, number: signal.Signals) -> tuple[int, str]:
    return plant.run(name, *arguments, SIGNAL_AT=str(at), SIGNAL=str(int(number)))


pytestmark = pytest.mark.timeout(400)
ONCE, TEARDOWN = ("--once", "--timeout", "110"), ("teardown", "--yes")


@pytest.mark.parametrize("arguments", [ONCE, TEARDOWN], ids=["once", "teardown"])
def test_a_command_that_a_signal_ends_holds_nothing_afterwards(plant: Plant, arguments: tuple[str, ...]) -> None:
    """At each of many calls of the platform: exit code 128 + N, no lease, no pause, and a second run finishes."""

    def ended(at: int) -> None:
        number = (TERM, INT, HUP)[at % 3]
        name = f"{arguments[0]}-{at}"
        if arguments is TEARDOWN:
            plant.settle(name)
        code, said = _signalled(plant, name, arguments, at, number)
        assert code == 128 + number, (at, said)
        assert "Traceback" not in said
        assert plant.nothing_is_held(name), (at, plant.platform(name).state().kept_records)
        if at == _LATE:
            code, said = plant.run(name, *arguments)
            assert (code, plant.nothing_is_held(name)) == (0, True), said

    with ThreadPoolExecutor(2) as several:
        list(several.map(ended, (1, 2, 4, _LATE)))


@pytest.mark.parametrize("arguments", [ONCE, TEARDOWN], ids=["once", "teardown"])
def test_a_lease_that_is_asked_for_is_asked_for_no_more(plant: Plant, arguments: tuple[str, ...]) -> None:
    """Another operator holds it and does not give it up; the command ends while it waits."""
    name = f"wanted-{arguments[0]}"
    plant.settle(name)
    plant.ksqldb(name).assign({"d": "Laser"})  # something to write
    platform = plant.platform(name)
    before = platform.records().get("lease")
    platform.write_record("lease", Lease("other", 7, 0, 600.0).fields, before)
    process = plant.start(name, *arguments)
    deadline = time.monotonic() + _PATIENCE
    while not platform.state().kept_records["lease"].fields["wanted"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(TERM)
    _, said = process.communicate(timeout=_PATIENCE)
    lease = platform.state().kept_records["lease"].fields
    assert (process.returncode, lease["holder"], lease["wanted"]) == (143, "other", ""), said
    pause = platform.state().kept_records.get("pause")
    assert pause is None or parse(pause.fields).until is None


def test_a_platform_that_does_not_answer_does_not_keep_the_process(plant: Plant) -> None:
    """The command hangs in a read with the lease wanted or held: it is given back all the same."""
    name = "hanging"
    process = plant.start(name, *ONCE, HANG_AT="6")
    platform = plant.platform(name)
    deadline = time.monotonic() + _PATIENCE
    while "lease" not in platform.state().kept_records:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(TERM)
    _, said = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 143, said
    assert plant.nothing_is_held(name) or "a write is under way" in said


def test_a_teardown_whose_reader_leaves_removes_everything(plant: Plant) -> None:
    """`| head -1` or a full disk does not interrupt a teardown, which would leave its pause behind."""
    name = "unread"
    plant.settle(name)
    reading, writing = os.pipe()
    os.close(reading)
    process = plant.start(name, *TEARDOWN, stdout=writing)
    os.close(writing)
    _, said = process.communicate(timeout=_PATIENCE)
    state = plant.platform(name).state()
    assert process.returncode == 141, said
    assert (state.services, state.registries, state.kept_records) == ({}, {}, {}), said


def test_a_signal_is_heeded_where_no_thread_is_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's limit of threads: what would be done beside is done all the same."""

    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    heeded: list[int] = []
    monkeypatch.setattr(threading.Thread, "start", none_left)
    signals._start_thread(heeded.append, TERM)
    assert heeded == [TERM]


def test_a_failure_to_cut_short_leaves_the_end_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held is given back when its time is over, and the process ends with the signal's code."""
    said: list[object] = []
    monkeypatch.setattr(os, "_exit", said.append)

    def broken() -> None:
        raise RuntimeError("boom")

    mine = signals.Signals()
    with mine.orderly(lambda: said.append("given back"), on_ask=broken, grace=0.0):
        mine.tell(TERM)
    assert said == ["given back", 128 + TERM]


def test_the_loop_ends_in_order(plant: Plant) -> None:
    """At many moments from its first cycle on: exit code 0, the lease is free, and its log says that it has ended."""

    def ended(at: int) -> None:
        name = f"loop-{at}"
        code, said = _signalled(plant, name, (), at, (TERM, INT, HUP)[at % 3])
        assert (code, "Traceback" in said) == (0, False), said
        assert "operator stopped" in said
        assert plant.nothing_is_held(name)

    with ThreadPoolExecutor(2) as several:
        list(several.map(ended, (1, 4, 15)))


@pytest.mark.parametrize("arguments", [(), ONCE, ("plan",)], ids=["loop", "once", "plan"])
def test_a_signal_while_the_program_starts_ends_it(plant: Plant, arguments: tuple[str, ...]) -> None:
    """As soon as the interpreter runs our first line, a signal is heeded: also by the first process of a container."""
    name = f"start-{arguments[0] if arguments else 'loop'}"
    for delay in (0.0, 0.2):
        process = plant.start(name, *arguments)
        while not _mask(process.pid, "SigCgt") >> (TERM - 1) & 1:
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(TERM)
        _, said = process.communicate(timeout=_PATIENCE)
        assert process.returncode in (0, 143), said
        assert "Traceback" not in said
        assert plant.nothing_is_held(name)


def _mask(pid: int, which: str) -> int:
    """Return the set of signals that a process catches or ignores, a bit each."""
    found = re.search(rf"{which}:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1], 16)


def test_what_is_ignored_stays_ignored(plant: Plant) -> None:
    """`nohup` and shells set signals aside for their children; that is theirs to decide."""
    program = f"trap '' INT HUP; exec {sys.executable} -m reconciler settings"
    environment = plant.environment("ignored", {})
    process = subprocess.Popen(["bash", "-c", program], env=environment, stdout=subprocess.PIPE, cwd=plant.directory)
    while not _mask(process.pid, "SigIgn") >> (HUP - 1) & 1:
        time.sleep(0.005)
    process.send_signal(INT)
    process.send_signal(HUP)
    assert process.communicate(timeout=_PATIENCE)[0].startswith(b"KAFKA_BROKER")
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "everyone who reaches the port may pause the operator"),
        ({"RECONCILER_TOKEN_FILE": "token"}, "the routing layer has no token for the operator"),
        ({"RECONCILER_TOKEN_FILE": "token", "RECONCILER_PROTECT": "all"}, "it cannot read the registry"),
        ({"RECONCILER_TOKEN_FILE": "token", "RECONCILER_TOKEN_SECRET": "t"}, ""),
        ({"RECONCILER_TOKEN_FILE": "token", "ENVIRONMENT": "local", "LOG_LEVEL": "warning"}, ""),
    ],
)
def test_the_operator_says_at_its_start_what_is_open(plant: Plant, given: dict[str, str], said: str) -> None:
    """One line, where something is; never the token."""
    (plant.directory / "token").write_text("s3same-" + "a" * 32)
    code, log = plant.run(f"start-{len(given)}-{said[:3]}", SIGNAL_AT="3", SIGNAL=str(int(TERM)), **given)
    assert code == 0, log
    found = [line for line in log.splitlines() if '"level": "warning"' in line and ("token" in line or "port" in line)]
    assert [said in line for line in found] == [True] * bool(said)
    assert "s3same" not in log
