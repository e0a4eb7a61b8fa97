"""The factory's side: a ksqlDB with assets that report, and clients that follow them through the routing layer."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from demo.factory.plant import Placement, Reading
from demo.factory.settings import FactorySettings
from demo.factory.statements import definitions, insert_mapping, insert_reading
from tests.e2e.system import events
from tests.harness.processes import WITH_US
from tests.swarm.sandbox import eventually

ROOT = Path(__file__).resolve().parents[2]
#: Seconds between two events of an asset.
PULSE = 0.5


class Plant:
    """An embedded ksqlDB on this host, one asset for each group, and their events.

    Attributes:
        url: of ksqlDB, as this host and the containers reach it.
    """

    def __init__(self, host: str) -> None:
        """Start ksqlDB on ``host`` with the sources that a factory has, and the assets' pulse."""
        command = [*WITH_US, sys.executable, "-m", "demo.ksqldb", "--host", host, "--port", "0"]
        self._server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._server.stdout is not None
        self.url = next(word for word in self._server.stdout.readline().split() if word.startswith("http://"))
        self._http = httpx.Client(base_url=self.url, timeout=30)
        self._settings = FactorySettings(ksqldb_url=self.url)
        self._sent: Counter[str] = Counter()
        self._closed = threading.Event()
        for _, statement in definitions(self._settings):
            self.ksql(statement)
        self._pulse = threading.Thread(target=self._beat)
        self._pulse.start()

    def close(self) -> None:
        """End the pulse and ksqlDB."""
        self._closed.set()
        self._pulse.join(10)
        self._http.close()
        self._server.kill()
        self._server.communicate()

    def ksql(self, statement: str) -> Any:
        """Execute one statement."""
        answer = self._http.post("/ksql", json={"ksql": statement}, headers={"Accept": "application/json"})
        assert answer.status_code == httpx.codes.OK, answer.text
        return answer.json()

    def add(self, *groups: str) -> None:
        """Place an asset in each of the groups, which makes them exist; it reports from now on."""
        for group in groups:
            self.ksql(insert_mapping(self._settings, Placement(asset_of(group), group), datetime.now(UTC)))
            self._sent[asset_of(group)] = 0

    def remove(self, group: str) -> None:
        """Delete the group's asset from the map; it goes on reporting to no one."""
        body = {"table": "asset_to_uns_map_raw", "key": asset_of(group)}
        assert self._http.post("/dev/tombstone", json=body).status_code == httpx.codes.OK

    def queries(self) -> dict[str, str]:
        """Return the id of the query behind every derived stream: one that was created again has another."""
        listed = self.ksql("LIST QUERIES;")[0]["queries"]
        return {sink: query["id"] for query in listed for sink in query["sinks"] if "STREAM" in query["queryString"]}

    def sent(self, group: str) -> int:
        """Return the number of the newest event of the group's asset."""
        return self._sent[asset_of(group)]

    def _beat(self) -> None:
        while not self._closed.wait(PULSE):
            for asset in list(self._sent):
                self._sent[asset] += 1
                number, now = str(self._sent[asset]), datetime.now(UTC).isoformat()
                reading = Reading(asset, "count", number, type="Samples", tag="Count", timestamp=now)
                self.ksql(insert_reading(self._settings, reading))


class Follower:
    """A client that follows a group's asset on one connection for as long as it lives.

    Attributes:
        numbers: of the events, in the order in which they came.
        ended: why the connection ended; empty while it lives.
    """

    def __init__(self, address: str, group: str, plant: Plant) -> None:
        """Connect to the routing layer's task on the machine with this address and wait for an event."""
        self.group, self._plant = group, plant
        self.numbers: list[int] = []
        self.ended = ""
        url = f"http://{address}:5555/asset_stream?asset_uuid={asset_of(group)}"
        threading.Thread(target=self._follow, args=(url,), daemon=True).start()
        eventually(lambda: self.ended or self.numbers, bool)
        assert not self.ended, self.ended

    def assert_undisturbed(self) -> None:
        """The connection lives, and every event since the first came once and in order, up to the newest."""
        newest = self._plant.sent(self.group)
        eventually(lambda: self.ended or self.numbers[-1] >= newest, bool)
        assert not self.ended, f"the stream of {self.group} was lost: {self.ended}"
        assert self.numbers == list(range(self.numbers[0], self.numbers[0] + len(self.numbers)))

    def _follow(self, url: str) -> None:
        try:
            for event in events(url, silence=30):
                self.numbers.append(int(event["value"]))
            self.ended = "closed"
        except httpx.HTTPError as error:
            self.ended = repr(error)


def why_not_served(address: str, group: str) -> str:
    """Return why a client that asks the routing layer at this address for the group's asset gets no event of it.

    Empty if it gets one.
    """
    url = f"http://{address}:5555/asset_stream?asset_uuid={asset_of(group)}"
    try:
        event = next(events(url, silence=5))
    except (httpx.HTTPError, StopIteration, json.JSONDecodeError) as error:
        return f"{group}: {error!r}"
    return "" if event["asset_uuid"] == asset_of(group) else f"{group}: {event}"


def asset_of(group: str) -> str:
    """Return the name of the group's one asset."""
    return f"{group.upper()}-01"
