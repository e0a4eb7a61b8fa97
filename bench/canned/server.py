"""A ksqlDB that answers the operator's five reads with prepared bytes, as a process of its own.

``python bench/canned/server.py --groups 1000 --assets 100000 [--paced]`` prints its port and serves until it is ended.
With ``--paced`` each answer takes the time that a real ksqlDB 7.7 took for it (measured on two cores: a pull query of
66 rows 4 ms, of 1,000 rows 30 ms, of 20,000 rows 204 ms; LIST STREAMS 5 ms, LIST QUERIES 7 ms), else it comes at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from reconciler.domain.names import names_of
from reconciler.ksqldb.statements import Topology
from tests.harness.fake_platform import INSTALLATION

SHARED_MS, GROUP_MS = 3_600_000, 604_800_000
TOPOLOGY = Topology(
    "enriched_assets_stream",
    "asset_to_uns_map",
    "workcenter",
    SHARED_MS,
    GROUP_MS,
    installation=INSTALLATION,
)
ROWS_AT_ONCE = 500
MEASURED_ROWS = ((0, 0.0022), (1_000, 0.030), (20_000, 0.204))  # seconds of a pull query; in between it is linear
SECONDS = {"info": 0.002, "healthcheck": 0.002, "streams": 0.005, "queries": 0.007}


@dataclass(frozen=True)
class Answer:
    """One prepared answer: its pieces, and the seconds before each of them."""

    pieces: tuple[bytes, ...]
    pauses: tuple[float, ...]


def group(number: int) -> str:
    """Name a group."""
    return f"cell-{number:04}"


def answers(groups: int, assets: int) -> dict[str, Answer]:
    """Prepare what is answered to the five reads."""
    names = [names_of(group(number)) for number in range(groups)]
    statements = [(TOPOLOGY.shared_name, TOPOLOGY.shared_name.lower(), TOPOLOGY.create_shared().sql)]
    statements += [(one.stream, one.topic, TOPOLOGY.create_group(one).sql) for one in names]
    healthy = {"isHealthy": True}
    documents: dict[str, Any] = {
        "info": {"KsqlServerInfo": _info()},
        "healthcheck": {
            "isHealthy": True,
            "details": {"metastore": healthy, "kafka": healthy, "commandRunner": healthy},
            "serverState": "READY",
        },
        "streams": _listed("streams", [_stream(name, topic) for name, topic, _ in statements]),
        "queries": _listed("queries", [_query(name, topic, sql) for name, topic, sql in statements]),
    }
    scanned = ((f"asset-{n:06}", group(n % groups)) for n in range(assets))
    pulls = {
        "scan": _rows("`ASSET_UUID` STRING KEY, `UNS_GROUP` STRING", scanned),
    }
    whole = {what: Answer((_whole(document),), (SECONDS[what],)) for what, document in documents.items()}
    return {**whole, **pulls}


def _info() -> dict[str, str]:
    identity = {"kafkaClusterId": "kafka-1", "ksqlServiceId": "default_"}
    return {"version": "7.7.0", **identity, "serverStatus": "RUNNING"}


def _listed(kind: str, members: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"@type": kind, "statementText": "", kind: members, "warnings": []}]


def _stream(name: str, topic: str) -> dict[str, Any]:
    formats = {"keyFormat": "KAFKA", "valueFormat": "JSON"}
    return {"type": "STREAM", "name": name, "topic": topic, **formats, "isWindowed": False}


def _query(name: str, topic: str, sql: str) -> dict[str, Any]:
    return {
        "queryString": sql,
        "sinks": [name],
        "sinkKafkaTopics": [topic],
        "id": f"CSAS_{name}_7",
        "statusCount": {"RUNNING": 1},
        "queryType": "PERSISTENT",
        "state": "RUNNING",
    }


def _whole(document: Any) -> bytes:
    body = json.dumps(document, separators=(",", ":")).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def _rows(schema: str, rows: Iterable[tuple[Any, ...]]) -> Answer:
    """Prepare the answer to a pull query, in chunks as ksqlDB sends it."""
    items = [json.dumps({"header": {"queryId": "query_1", "schema": schema}})]
    items += [json.dumps({"row": {"columns": row}}, separators=(",", ":")) for row in rows]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.ksql.v1+json\r\ntransfer-encoding: chunked\r\n\r\n"
    pieces, pauses = [head], [_seconds(0)]
    for start in range(0, len(items), ROWS_AT_ONCE):
        end = min(start + ROWS_AT_ONCE, len(items))
        last = "]" if end == len(items) else ",\n"
        text = ("[" if start == 0 else "") + ",\n".join(items[start:end]) + last
        pieces.append(b"%x\r\n%s\r\n" % (len(text), text.encode()))
        pauses.append(_seconds(end) - _seconds(start))
    return Answer((*pieces, b"0\r\n\r\n"), (*pauses, 0.0))


def _seconds(rows: int) -> float:
    """Return when a real server has sent so many rows: between the measured points, or beyond the last two."""
    at = min(bisect_right(MEASURED_ROWS, (rows, 0.0)), len(MEASURED_ROWS) - 1)
    (few, soon), (many, late) = MEASURED_ROWS[max(at, 1) - 1], MEASURED_ROWS[max(at, 1)]
    return soon + (rows - few) * (late - soon) / (many - few)


def _asked(head: bytes, body: bytes) -> str:
    if head.startswith(b"GET"):
        return "info" if b"/info" in head[:40] else "healthcheck"
    if head.startswith(b"POST /query"):
        return "scan"
    return "streams" if b"STREAMS" in body else "queries"


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, all_: dict[str, Answer]) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await _send(writer, all_[_asked(head, await reader.readexactly(int(length or 0)))])
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _send(writer: asyncio.StreamWriter, answer: Answer) -> None:
    """Send the pieces at their times: late ones catch up, so that a whole answer takes what it should."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    for piece, pause in zip(answer.pieces, answer.pauses, strict=True):
        due += pause
        if due > loop.time():
            await asyncio.sleep(due - loop.time())
        writer.write(piece)
        await writer.drain()


async def _main(groups: int, assets: int, *, paced: bool) -> None:
    all_ = answers(groups, assets)
    if not paced:
        all_ = {name: Answer((b"".join(one.pieces),), (0.0,)) for name, one in all_.items()}
    server = await asyncio.start_server(lambda reader, writer: _serve(reader, writer, all_), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main(arguments: Sequence[str]) -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--groups", type=int, required=True)
    parser.add_argument("--assets", type=int, required=True)
    parser.add_argument("--paced", action="store_true")
    given = parser.parse_args(arguments)
    asyncio.run(_main(given.groups, given.assets, paced=given.paced))


if __name__ == "__main__":
    main(sys.argv[1:])
