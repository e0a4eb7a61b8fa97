"""A group for which no client asks falls asleep, and its next client has missed nothing.

Beside it are a group whose client stays, a group that a person paused before, a user's service, and a user's query that
reads the same shared stream: it says what the client must have got.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.e2e import conftest as e2e
from tests.e2e.system import IMAGE, Client, System
from tests.swarm.sandbox import docker, eventually

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]
images, system = e2e.images, e2e.system

#: Seconds: `IDLE_AFTER` twice (a task of the routing layer must have run for it, too), the two phases, a busy machine.
_UNTIL_ASLEEP = 180.0
#: Seconds without a record after which a stream that nothing fills has been read.
_QUIET = 2.0
#: Events that the group's machines produce while it sleeps.
_MISSED = 40
#: A user's own stream of everything that the groups' queries read.
_COPY = "USERS_COPY"


class Reader:
    """A client that follows all events of a group, and knows the last id when it comes back.

    Attributes:
        last: the last id.
        events: the data of each event, in order.
        others: other events than those of assets, such as gaps.
    """

    def __init__(self, system: System, group: str) -> None:
        """Follow nothing yet."""
        self._url = f"http://127.0.0.1:{system.routing}/group/{group}/asset_stream"
        self.last = ""
        self.events: list[dict[str, Any]] = []
        self.others: list[str] = []

    def read(self, count: int) -> None:
        """Read until there are ``count`` more events, and leave; connect again as browsers do."""
        wanted = len(self.events) + count
        for _ in range(20):
            with suppress(httpx.HTTPError):
                self._follow(wanted)
            if len(self.events) >= wanted:
                return
        raise AssertionError(f"{len(self.events)} of {wanted} events")

    def _follow(self, wanted: int) -> None:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self.last} if self.last else {})
        with httpx.stream("GET", self._url, headers=headers, timeout=60) as answer:
            answer.raise_for_status()
            kind = ""
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "id":
                    self.last = value
                elif name == "data" and kind == "asset_update":
                    self.events.append(json.loads(value))
                elif name == "data":
                    self.others.append(f"{kind} {value}")
                if not line:
                    kind = ""
                    if len(self.events) >= wanted:
                        return


def rows_of(system: System, stream: str, **values: str) -> list[dict[str, Any]]:
    """Return the records that a stream has now and that have these values, by a push query that begins at the first."""
    where = " AND ".join(f"{name} = '{value}'" for name, value in values.items())
    sql = f"SELECT *, ROWTIME FROM {stream}{where and f' WHERE {where}'} EMIT CHANGES;"
    body = {"sql": sql, "properties": {"auto.offset.reset": "earliest"}}
    url, accept = f"http://127.0.0.1:{system.ksqldb}/query-stream", {"Accept": "application/vnd.ksqlapi.delimited.v1"}
    now, names, rows = time.time() * 1000, list[str](), list[dict[str, Any]]()
    with suppress(httpx.ReadTimeout), httpx.stream("POST", url, json=body, headers=accept, timeout=_QUIET) as answer:
        for line in answer.iter_lines():
            said = json.loads(line)
            if not names:
                names = said["columnNames"]
                continue
            rows.append(dict(zip(names, said, strict=True)))
            if rows[-1]["ROWTIME"] >= now:
                break
    return rows


def identify(event: dict[str, Any]) -> tuple[str, ...]:
    """Return what tells an event from any other."""
    return tuple(str(event[name]) for name in ("timestamp", "asset_uuid", "id", "value"))


def shared_stream(system: System) -> str:
    """Return the name of the stream that all groups' queries read."""
    listed = [stream["name"] for stream in system.ksql("LIST STREAMS;")[0]["streams"]]
    [found] = [name for name in listed if name.startswith(f"{system.name.upper()}_ASSETS_WITH_UNS")]
    return str(found)


def queries(system: System) -> dict[str, str]:
    """Return the state of the query that fills each stream."""
    listed = system.ksql("SHOW QUERIES;")[0]["queries"]
    return {query["sinks"][0]: ",".join(query["statusCount"]) for query in listed if query["sinks"]}


def states(system: System, *groups: str) -> dict[str, tuple[str, str]]:
    """Return the tasks of each group's service, as running/wanted, and the state of its query."""
    lines = docker("service", "ls", "--format", "{{.Name}} {{.Replicas}}").splitlines()
    tasks, found = dict(line.split()[:2] for line in lines), queries(system)
    return {group: (tasks[system.group(group)], found[f"ASSET_STREAM_{group.upper()}"]) for group in groups}


def test_a_group_without_clients_sleeps_and_its_next_client_has_missed_nothing(system: System) -> None:
    """Paint sleeps and wakes; Weld has a client and Assembly is paused: both run on, and what is a user's stays."""
    users = f"{system.name}-users"
    image = docker("service", "inspect", system.group("Paint"), "--format", IMAGE)
    docker("service", "create", "--detach", "--name", users, "--entrypoint", "sleep", image, "infinity")
    try:
        system.ksql(f"CREATE STREAM {_COPY} AS SELECT * FROM {shared_stream(system)} EMIT CHANGES;")
        before = docker("service", "inspect", users)
        reader = Reader(system, "Paint")
        reader.read(20)
        stays = Client(system.stream_url(system.asset_of("Weld")))
        eventually(lambda: stays.events, bool)
        system.cli("pause", "Assembly", "--for", "1h", "--reason", "audit")
        system.set(IDLE_AFTER="60s")

        eventually(lambda: states(system, "Paint")["Paint"], lambda state: state == ("0/0", "PAUSED"), _UNTIL_ASLEEP)
        assert "asleep since" in system.cli("why", "Paint")
        assert set(states(system, "Weld", "Assembly").values()) == {("1/1", "RUNNING")}
        assert queries(system)[_COPY] == "RUNNING"
        # What happens meanwhile is kept for the client by the shared stream alone.
        count, copied = len(rows_of(system, "ASSET_STREAM_PAINT")), len(rows_of(system, _COPY, UNS_GROUP="Paint"))
        eventually(lambda: len(rows_of(system, _COPY, UNS_GROUP="Paint")), lambda now: now > copied + _MISSED)
        assert len(rows_of(system, "ASSET_STREAM_PAINT")) == count

        reader.read(2 * _MISSED)
        assert states(system, "Paint") == {"Paint": ("1/1", "RUNNING")}
        got = list(map(identify, reader.events))
        there = list(map(identify, rows_of(system, _COPY, UNS_GROUP="Paint")))
        first = there.index(got[0])
        assert (got, reader.others) == (there[first : first + len(got)], [])
        assert stays.connected
        assert docker("service", "inspect", users) == before
        assert queries(system)[_COPY] == "RUNNING"
    finally:
        docker("service", "rm", users)
