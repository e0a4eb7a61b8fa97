"""A laptop's set-up: an embedded ksqlDB in a container, and the command line on this host."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import httpx

from demo.factory.settings import FactorySettings
from demo.factory.statements import definitions
from openfactory_common.ksqldb.wire import literal
from tests.e2e.system import ROOT, events, free_ports
from tests.swarm.sandbox import PATIENCE, docker, eventually

#: Seconds that the command line may take to converge, and a client to get its event.
LONG = 100.0


@lru_cache  # an image that is built meanwhile is for the next run
def built(variable: str) -> str:
    """Return an image that `make images` built."""
    lines = (ROOT / "build" / "images.env").read_text().split()
    return dict(line.split("=", 1) for line in lines)[variable]


@dataclass
class Plant:
    """One installation under names of its own.

    Attributes:
        state: a directory for what the operator keeps in files.
        network: that everything joins; made by the test.
        options: environment variables of the command line, beside those that every test needs.
        name: owner and prefix.
    """

    state: Path
    network: str
    options: dict[str, str] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"p{uuid.uuid4().hex[:7]}")

    def __enter__(self) -> Self:
        """Start ksqlDB in the network, with upstream's stream and tables in it."""
        [port] = free_ports(1)
        self.ksqldb = f"http://127.0.0.1:{port}"
        where = ("--name", f"{self.name}-ksqldb", "--network", self.network, "--publish", f"127.0.0.1:{port}:8088")
        docker("run", "--detach", *where, built("KSQLDB_IMAGE"))
        eventually(self._answers, bool)
        for _, statement in definitions(FactorySettings()):
            self.sql(statement)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove ksqlDB; what the operator made is for the test to remove."""
        docker("rm", "--force", "--volumes", f"{self.name}-ksqldb")

    def _answers(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.ksqldb}/info", timeout=2).is_success
        return False

    def sql(self, statement: str) -> None:
        """Execute one statement."""
        answer = httpx.post(f"{self.ksqldb}/ksql", json={"ksql": statement}, timeout=30)
        assert answer.is_success, answer.text

    def place(self, asset: str, **levels: str) -> None:
        """Map an asset, or move it."""
        pairs = ", ".join(f"{literal(name)} := {literal(value)}" for name, value in levels.items())
        values = f"{literal(asset)}, 'plant', MAP({pairs})"
        self.sql(f"INSERT INTO asset_to_uns_map_raw (asset_uuid, uns_id, uns_levels) VALUES ({values});")

    @property
    def environment(self) -> dict[str, str]:
        """Return the command line's environment: this machine's, without any setting that is in it by chance."""
        given = {
            "KAFKA_BROKER": "embedded:9092",
            "KSQLDB_URL": self.ksqldb,
            "KSQLDB_SERVICE_URL": f"http://{self.name}-ksqldb:8088",
            "KSQLDB_UNS_JOIN_TABLE": "asset_to_uns_map_raw",
            "DOCKER_NETWORK": self.network,
            "RECONCILER_OWNER": self.name,
            "RESOURCE_PREFIX": self.name,
            "REGISTRY_DIR": str(self.state),
            "PRUNE_GRACE": "1s",
            "PRUNE_READS": "2",
            "DRAIN_SECONDS": "1s",
            "ROUTING_LAYER_IMAGE": built("ROUTING_LAYER_IMAGE"),
            "FASTAPI_GROUP_IMAGE": built("FASTAPI_GROUP_IMAGE"),
            "STATE_API_IMAGE": built("STATE_API_IMAGE"),
            "ROUTING_LAYER_CPU_RESERVATION": "0.01",
            "FASTAPI_GROUP_CPU_RESERVATION": "0.01",
            "STATE_API_CPU_RESERVATION": "0.01",
            "PYTHONPATH": str(ROOT),
        }
        return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | given | self.options

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `reconciler` with some arguments, away from any `.env` file."""
        program = [sys.executable, "-m", "reconciler", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(program, env=self.environment, cwd=self.state, stdout=pipe, stderr=pipe, text=True)

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run it to its end; return the exit code and everything it said."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=LONG)
        return process.returncode, out + err

    def once(self) -> str:
        """Converge, which must succeed; return what was said."""
        code, said = self.run("--once", "--timeout", "90")
        assert code == 0, said
        return said

    def tear_down(self) -> None:
        """Remove everything that the operator made; if that fails, remove it by label, and fail."""
        code, said = self.run("teardown", "--yes")
        label = f"label=org.openfactory.owner={self.name}"
        for listing, removing in ((("ps", "--all"), ("rm", "--force")), (("service", "ls"), ("service", "rm"))):
            if left := docker(*listing, "--quiet", "--filter", label).split():
                docker(*removing, *left)
        assert code == 0, said

    def event(self, port: int, asset: str) -> dict[str, Any]:
        """Follow an asset's stream at the routing layer, while events of it are made; return the first."""
        url = f"http://127.0.0.1:{port}/asset_stream?asset_uuid={asset}"
        deadline = time.monotonic() + PATIENCE
        with self._producing(asset):
            while time.monotonic() < deadline:
                with suppress(httpx.HTTPError):
                    for event in events(url, silence=10):
                        return event
                time.sleep(0.2)
        raise AssertionError(f"no event at {url}")

    @contextmanager
    def _producing(self, asset: str) -> Iterator[None]:
        stop = threading.Event()
        names = "key, asset_uuid, id, value, type, tag, timestamp"
        values = f"'{asset}|Temp', '{asset}', 'Temp', '20', 'Samples', 'Temperature', '2026-01-01T00:00:00Z'"

        def produce() -> None:
            while not stop.wait(0.2):
                self.sql(f"INSERT INTO enriched_assets_stream ({names}) VALUES ({values});")

        thread = threading.Thread(target=produce)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
