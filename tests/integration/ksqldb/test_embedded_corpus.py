"""The embedded ksqlDB against traffic recorded from a real one: the same requests, the same answers.

Each chain of scenarios runs from an empty server, over a real socket, in the order recorded. Compared are status,
content-type and body, after masking what differs between two runs of the real server too (ids of pull and push
queries, epochs, object hashes, the order of rows and of lists). What remains different stands in
`test_embedded_differences.py` with its reason; an unexpected difference fails, and so does an entry that no longer
differs.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPResponse
from typing import Any

import pytest

from demo.ksqldb.server import Config
from tests.integration.ksqldb.corpus import corpus_path
from tests.integration.ksqldb.test_embedded_differences import (
    AWAITED,
    BAD_DAYS,
    BETWEEN,
    CHAINS,
    DIFFERENCES,
    MEANWHILE,
)
from tests.unit.demo.ksqldb.running import Answer, Running, running

if not corpus_path().exists() and os.environ.get("CI") != "true":
    pytest.skip(f"no recorded corpus at {corpus_path()}: set KSQLDB_CORPUS", allow_module_level=True)

Recorded = dict[str, Any]
CONFIG = Config(host="127.0.0.1", port=0, cluster_id="q1Sh-9_ISia_zwGINzRvyQ", command_timeout=0.05)
SORTED = frozenset(
    {"streams", "tables", "queries", "topics", "readQueries", "sourceConstraints", "sourceDescriptions",
     "queryDescriptions"}
)  # fmt: skip
MASKS = (
    (re.compile(r"transient_(\w+?)_\d{10,}", re.IGNORECASE), r"transient_\1_#"),
    (re.compile(r"query_\d{10,}"), "query_#"),
    (re.compile(r"epoch=\d+"), "epoch=#"),
    (re.compile(r"KsqlConfig@[0-9a-f]+"), "KsqlConfig@#"),
    (re.compile(r"rowtime: [^,]* Z"), "rowtime: #"),
    (re.compile(r"127\.0\.0\.1:\d+"), "host:#"),
)
PATIENCE = 3.0


def recorded() -> dict[str, list[Recorded]]:
    """The cases by scenario, in the order recorded."""
    found: dict[str, list[Recorded]] = {}
    for line in corpus_path().read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        found.setdefault(case["scenario"], []).append(case)
    return found


def comparable(body: str) -> Any:
    """A body with everything volatile masked, as JSON where it is JSON."""
    for pattern, mask in MASKS:
        body = pattern.sub(mask, body)
    lines = _json(body)
    if lines is None:
        lines = [item if (item := _json(each.rstrip(","))) is not None else each for each in _lines(body)]
    return _ordered(lines)


def _lines(body: str) -> list[str]:
    """The items of a body that is no JSON document: delimited rows, or an array that was left open."""
    if body.startswith("[") and body.rstrip().endswith(","):
        return body[1:].rstrip().split("\n")
    whole = _json(body + "]")
    if isinstance(whole, list):
        return [json.dumps(each) for each in whole]
    return body.split("\n")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _sorted(_ordered(each)) if name in SORTED and isinstance(each, list) else _ordered(each)
            for name, each in value.items()
        }
    if isinstance(value, list):
        ordered = [_ordered(each) for each in value]
        # The rows of a pull query come in any order; its header stays first.
        if ordered and _is_header(ordered[0], "query_"):
            return [ordered[0], *_sorted(ordered[1:])]
        return _opening_sorted(ordered) if ordered and _is_header(ordered[0], "transient_") else ordered
    return value


def _opening_sorted(items: list[Any]) -> list[Any]:
    """The rows with which a push query on a table begins come in any order: up to the first key that repeats."""
    keys: list[Any] = []
    for item in items[1:]:
        row = item.get("row", {}).get("columns") if isinstance(item, dict) else item
        if not isinstance(row, list) or row[0] in keys:
            break
        keys.append(row[0])
    return [items[0], *_sorted(items[1 : len(keys) + 1]), *items[len(keys) + 1 :]]


def _sorted(items: list[Any]) -> list[Any]:
    return sorted(items, key=lambda each: json.dumps(each, sort_keys=True))


def _is_header(item: Any, kind: str) -> bool:
    if not isinstance(item, dict):
        return False
    return str(item.get("queryId", item.get("header", {}).get("queryId", ""))).startswith(kind)


def differences(case: Recorded, answer: Answer | None) -> list[str]:
    """What differs between the recorded answer and ours, in words."""
    wanted = case["response"]
    if answer is None or wanted["status"] is None:
        return [] if answer is None and wanted["status"] is None else [f"{answer} instead of {wanted['status']}"]
    found = []
    if answer.status != wanted["status"]:
        found.append(f"status {answer.status} instead of {wanted['status']}")
    content_type = {name.lower(): each for name, each in (wanted["headers"] or {}).items()}.get("content-type")
    if answer.content_type != content_type:
        found.append(f"content-type {answer.content_type} instead of {content_type}")
    ours, theirs = comparable(answer.body), comparable(wanted["body"] or "")
    if ours != theirs:
        found.append(f"body\n  ours:   {json.dumps(ours)[:3000]}\n  theirs: {json.dumps(theirs)[:3000]}")
    return found


def replay(server: Running, case: Recorded) -> Answer | None:
    """Do what was done when the case was recorded, and give our answer; None when none came."""
    name = f"{case['scenario']}/{case['case']}"
    for statement in BETWEEN.get(name, ()):
        server.ksql(statement)  # a dead runner may refuse it, as it did when this was recorded
    for step in case.get("before", ()):
        if "produce" in step:
            _produce(server, step["produce"])
    if name in AWAITED:
        _await(server, AWAITED[name])
    server.faults(**BAD_DAYS.get(name, {}))
    if (case.get("closed_by") or case.get("during")) and name not in MEANWHILE:
        return _replay_open(server, case)
    request = case["request"]
    if case["response"]["status"] is None:
        return _unanswered(server, request)
    if name not in MEANWHILE:
        return server.ask(request["method"], request["path"], request["body"], request["headers"])
    with server.push(MEANWHILE[name]) as stream:
        opened = re.search(r"transient_\w+?_\d+", stream.readline().decode())
        assert opened is not None
        sent = re.sub(r"transient_\w+?_\d+", opened[0], json.dumps(request["body"]))
        return server.ask(request["method"], request["path"], sent, request["headers"])


def _unanswered(server: Running, request: dict[str, Any]) -> Answer | None:
    """A client that gives up: None when no answer came, as recorded."""
    connection = server.connection(timeout=0.3)
    connection.request(request["method"], request["path"], json.dumps(request["body"]), request["headers"])
    try:
        response = connection.getresponse()
        return Answer(response.status, response.headers.get("Content-Type"), response.read().decode())
    except TimeoutError:
        return None
    finally:
        connection.close()


def _await(server: Running, path: str) -> None:
    deadline = time.monotonic() + 10
    while server.ask("GET", path).json.get("status") != "SUCCESS":
        assert time.monotonic() < deadline, f"{path} did not end"
        time.sleep(0.02)


def _produce(server: Running, record: dict[str, Any]) -> None:
    server.inside(lambda: server.server.produce(record["topic"], record["key"], record["value"]))


def _replay_open(server: Running, case: Recorded) -> Answer:
    """A stream: produce once it is open, read until the server ends it or all that was recorded has come."""
    request, wanted = case["request"], case["response"]["body"] or ""
    connection = server.connection(timeout=PATIENCE)
    body = request["body"] if isinstance(request["body"], str) else json.dumps(request["body"])
    connection.putrequest(request["method"], request["path"], skip_accept_encoding=True)
    for name, value in {**request["headers"], "Content-Length": str(len(body.encode()))}.items():
        connection.putheader(name, value)
    connection.endheaders(body.encode())
    response = connection.getresponse()
    for step in case.get("during", ()):
        _produce(server, step["produce"])
    text = b""
    deadline = time.monotonic() + PATIENCE
    by_client = str(case.get("closed_by", "")).startswith("client")
    while time.monotonic() < deadline:
        if by_client and comparable(text.decode()) == comparable(wanted) and connection.sock is not None:
            connection.sock.settimeout(0.3)  # all has come; what comes on top of it now is a difference
        piece = _piece(response)
        if not piece:
            break
        text += piece
    connection.close()
    return Answer(response.status, response.headers.get("Content-Type"), text.decode())


def _piece(response: HTTPResponse) -> bytes:
    try:
        return response.read1(65536)
    except TimeoutError:
        return b""


def _results() -> Iterator[tuple[str, list[str]]]:
    cases = recorded()
    for chain, settings in CHAINS:
        with running(replace(CONFIG, **settings)) as server:
            for scenario in chain:
                for case in cases.get(scenario, []):
                    if case["http"] != "1.1":
                        continue  # HTTP/2 is not spoken here
                    yield f"{scenario}/{case['case']}", differences(case, replay(server, case))


@pytest.fixture(scope="module")
def results() -> dict[str, list[str]]:
    """All differences by case."""
    return dict(_results())


def test_answers_differ_only_where_the_table_says_so(results: dict[str, list[str]]) -> None:
    """Every recorded answer is given again, but for the listed differences."""
    unexpected = {name: found for name, found in results.items() if found and name not in DIFFERENCES}
    report = "\n\n".join(f"{name}: " + "\n".join(found) for name, found in unexpected.items())
    assert not unexpected, f"{len(unexpected)} unexpected differences\n{report}"


def test_every_listed_difference_is_still_one(results: dict[str, list[str]]) -> None:
    """An entry of the table whose answer has become the recorded one is out of date."""
    stale = sorted(name for name in DIFFERENCES if not results.get(name))
    assert not stale, f"no longer different: {stale}"
