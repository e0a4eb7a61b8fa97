"""The server as a process: start, stop, and coming back with its journal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from json import dumps, loads
from pathlib import Path
from typing import Any

from tests.unit.demo.ksqldb.running import TOPOLOGY, event, group_stream, mapping

REPOSITORY = Path(__file__).resolve().parents[4]


class Process:
    """A running `python -m demo.ksqldb`."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        """Keep the process and its port."""
        self.process = process
        self.port = port

    def post(self, path: str, body: dict[str, Any]) -> HTTPResponse:
        """One POST; the answer may stay open."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("POST", path, dumps(body), {"Accept": "application/vnd.ksql.v1+json"})
        return connection.getresponse()

    def get(self, path: str) -> Any:
        """One GET of a JSON document."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path)
        return loads(connection.getresponse().read())

    def ksql(self, statement: str) -> Any:
        """The entities of a statement that must succeed."""
        answer = self.post("/ksql", {"ksql": statement})
        body = loads(answer.read())
        assert answer.status == 200, body
        return body

    def rows(self, sql: str) -> list[list[Any]]:
        """The rows of a pull query."""
        found = loads(self.post("/query", {"ksql": sql}).read())
        return [each["row"]["columns"] for each in found if "row" in each]


@contextmanager
def _started(**environment: str) -> Iterator[Process]:
    process = subprocess.Popen(
        [sys.executable, "-m", "demo.ksqldb", "--host", "127.0.0.1", "--port", "0"],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    port = re.search(r":(\d+) ", process.stdout.readline())
    assert port is not None
    try:
        yield Process(process, int(port[1]))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_sigterm_ends_open_streams_and_exits_0() -> None:
    """An open push query gets its final message, and the process is gone well before a container's grace time."""
    with _started() as server:
        for statement in TOPOLOGY:
            server.ksql(statement)
        stream = server.post("/query", {"ksql": "SELECT * FROM asset_to_uns_map EMIT CHANGES;"})
        assert b"header" in stream.readline()
        server.process.send_signal(signal.SIGTERM)
        assert stream.read() == b'{"finalMessage":"Query Completed"}]'
        assert server.process.wait(5) == 0


def test_a_journal_brings_streams_and_map_back(tmp_path: Path) -> None:
    """After a kill and a restart: the same identity, streams, query ids, map and groups; dropped stays dropped."""
    journal = str(tmp_path / "journal")
    with _started(DATA_FILE=journal) as server:
        for statement in (
            *TOPOLOGY,
            group_stream("asset_stream_Weld", "Weld"),
            group_stream("asset_stream_Gone", "Gone"),
            mapping("A1", "Weld"),
            mapping("A2", "Weld"),
            mapping("A1", "Paint"),
            event("A1", "an event is not kept"),
            "DROP STREAM `asset_stream_Gone`;",
        ):
            server.ksql(statement)
        server.post("/dev/tombstone", {"table": "asset_to_uns_map_raw", "key": "A2"}).read()
        queries, info = server.ksql("LIST QUERIES;"), server.get("/info")
        server.process.kill()
    with _started(DATA_FILE=journal) as server:
        assert (server.ksql("LIST QUERIES;"), server.get("/info")) == (queries, info)
        assert server.rows("SELECT asset_uuid, uns_levels['workcenter'] AS g FROM asset_to_uns_map;") == [
            ["A1", "Paint"]
        ]
        server.ksql(event("A1", "after"))
        assert server.rows("SELECT `value` FROM ofa_assets_with_uns;") == [["after"]]


def test_a_cut_off_last_line_of_the_journal_is_dropped(tmp_path: Path) -> None:
    """A crash in the middle of a write costs that write, not the rest."""
    journal = tmp_path / "journal"
    with _started(DATA_FILE=str(journal)) as server:
        for statement in (*TOPOLOGY, mapping("A1", "Weld"), mapping("A2", "Weld")):
            server.ksql(statement)
        server.process.kill()
    journal.write_bytes(journal.read_bytes()[:-20])
    with _started(DATA_FILE=str(journal)) as server:
        assert server.rows("SELECT asset_uuid FROM asset_to_uns_map;") == [["A1"]]


def test_a_port_in_use_is_told_in_one_line() -> None:
    """Exit code 1 and a sentence, no traceback."""
    with _started() as server:
        again = subprocess.run(
            [sys.executable, "-m", "demo.ksqldb", "--host", "127.0.0.1", "--port", str(server.port)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
    assert again.returncode == 1
    assert again.stderr.startswith("cannot start: ")
    assert "Traceback" not in again.stderr
