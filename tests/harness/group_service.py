"""The group service as a process, and a client that keeps every event that it gets."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.harness.ports import free_port

PATIENCE = 40.0


@dataclass(frozen=True)
class Received:
    """One block of a stream that has a kind: an event of an asset, or a gap."""

    id: str
    event: str
    data: str


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Return the first true value of ``condition``."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)
    return value


class StreamClient:
    """Reads one stream in a thread.

    Attributes:
        blocks: what came, in order.
        last_id: as an EventSource would send it.
        comments: lines that begin with a colon.
        ended: how the stream ended: "" while it is open.
    """

    def __init__(self, port: int, asset: str | None, last_id: str = "", **query: str) -> None:
        """Open the stream, and return when its head has come."""
        self.blocks: list[Received] = []
        self.comments: list[str] = []
        self.last_id, self.ended = last_id, ""
        asked = query if asset is None else {"asset_uuid": asset, **query}
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._connection.request(
            "GET", f"/asset_stream?{urlencode(asked)}", headers={"Last-Event-ID": last_id} if last_id else {}
        )
        self._sock = self._connection.sock
        self._response = self._connection.getresponse()
        self.status, self.headers = self._response.status, self._response.headers
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def values(self) -> list[str]:
        """The data of the events, without gaps."""
        return [block.data for block in self.blocks if block.event == "asset_update"]

    @property
    def gaps(self) -> list[dict[str, str]]:
        """The data of the gaps."""
        return [json.loads(block.data) for block in self.blocks if block.event == "gap"]

    def wait_live(self) -> StreamClient:
        """Wait until everything that was before is here."""
        wait_for(lambda: ": live" in self.comments or self.ended, "the stream is live")
        return self

    def wait_values(self, expected: list[str]) -> None:
        """Wait until as many events are here, and compare them."""
        wait_for(lambda: len(self.values) >= len(expected) or self.ended, f"{len(expected)} events: {self.values[-3:]}")
        assert self.values == expected

    def close(self) -> None:
        """Leave."""
        self._sock.close()
        self._connection.close()

    def _read(self) -> None:
        fields: dict[str, list[str]] = {}
        try:
            for raw in self._response:
                line = raw.decode().rstrip("\n")
                name, _, value = line.partition(": ")
                if line.startswith(":"):
                    self.comments.append(line)
                elif line:
                    fields.setdefault(name, []).append(value)
                else:
                    self.last_id = fields.get("id", [self.last_id])[-1]
                    if "data" in fields:
                        kind = fields.get("event", ["message"])[-1]
                        self.blocks.append(Received(self.last_id, kind, "\n".join(fields["data"])))
                    fields = {}
            self.ended = "clean"
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            self.ended = f"broken: {error!r}"


class GroupService:
    """One replica."""

    def __init__(self, log: Path, **settings: Any) -> None:
        """Start it with settings by their variables' names in lower case; its log goes to a file."""
        self.port = free_port()
        self.log = log
        variables = {name.upper(): str(value) for name, value in {"port": self.port, **settings}.items()}
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "HOME", "LANG")}
        root = Path(__file__).resolve().parents[2]
        kept["PYTHONPATH"] = os.pathsep.join([str(root), *filter(None, [kept.get("PYTHONPATH")])])
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "group_service"],
                cwd=log.parent,
                env={**kept, **variables},
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def get(self, path: str) -> tuple[int, str]:
        """Return the status and the body of an answer; status 0 while nothing listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def wait_ready(self) -> GroupService:
        """Wait until it is ready."""
        wait_for(lambda: self.process.poll() is not None or self.get("/ready")[0] == 200, "the service is ready")
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        return self

    def wait_issue(self, text: str) -> None:
        """Wait until it is not ready for a reason that has a text in it."""
        wait_for(lambda: text in self.get("/ready")[1], f"an issue with {text!r}: {self.get('/ready')}")

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of a metric."""
        shown = ",".join(f'{key}="{value}"' for key, value in labels.items())
        wanted = f"group_service_{name}{{{shown}}} " if labels else f"group_service_{name} "
        [line] = [line for line in self.get("/metrics")[1].splitlines() if line.startswith(wanted)]
        return float(line.rpartition(" ")[2])

    def stream(self, asset: str | None, last_id: str = "", **query: str) -> StreamClient:
        """Open a stream."""
        return StreamClient(self.port, asset, last_id, **query)

    def end(self) -> int:
        """Ask it to end, and return its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


@contextmanager
def group_service(log: Path, **settings: Any) -> Iterator[GroupService]:
    """Run a replica for the block."""
    service = GroupService(log, **settings)
    try:
        yield service
    finally:
        service.kill()


def kafka_settings(bootstrap: str, slug: str, **settings: Any) -> Mapping[str, Any]:
    """Return what a replica needs for a group's topic."""
    return {"group_name": slug, "kafka_broker": bootstrap, "kafka_topic": f"asset_stream_{slug}", **settings}
