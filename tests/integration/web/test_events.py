"""The history over HTTP: a document and a stream, what a client resumes with, and clients that are slow or wrong."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from openfactory_common.connections import ConnectionLimits
from openfactory_common.registry import ROLE_HEADER
from reconciler.control.journal import Journal
from reconciler.domain.services import LiveService
from reconciler.web import events
from tests.harness.fakes import Stage
from tests.integration.web.operator import Operator, operating


@pytest.fixture
def operator() -> Iterator[Operator]:
    """Two groups that are in sync, and a service of another owner."""
    with operating(make_stage()) as running:
        yield running


def make_stage() -> Stage:
    """Return the world of `operator`."""
    stage = Stage()
    stage.ksqldb.assets = {"W": "Weld", "P": "Paint"}
    stage.platform.services["ofa_mine"] = LiveService("id0", 1, "ofa_mine", "other", None, 1)
    return stage


def journal_of(operator: Operator) -> Journal:
    """Return its history."""
    return operator.loop.controller.reporter.journal


def read(operator: Operator, query: str = "") -> dict[str, Any]:
    """Return the document."""
    status, headers, body = operator.ask(f"/events{query}")
    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    return dict(json.loads(body))


class Stream:
    """A stream of Server-Sent Events, line by line."""

    def __init__(self, operator: Operator, query: str = "", resume: str = "") -> None:
        """Ask for it, after the event with the id ``resume``."""
        self.connection = http.client.HTTPConnection("127.0.0.1", operator.server.port, timeout=20)
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": resume} if resume else {})}
        self.connection.request("GET", f"/events{query}", headers=headers)
        self.response = self.connection.getresponse()
        self.comments: list[str] = []

    def read(self, number: int) -> list[dict[str, Any]]:
        """Return the next events; their ids are those of their data."""
        found: list[dict[str, Any]] = []
        identity = ""
        while len(found) < number:
            line = self.response.readline().decode()
            assert line, "the stream has ended"
            name, _, value = line.rstrip("\n").partition(":")
            if line.startswith(":"):
                self.comments.append(value.strip())
            elif name == "id":
                identity = value.strip()
            elif name == "data":
                found.append(json.loads(value))
                assert identity == str(found[-1]["id"])
        return found


@contextmanager
def streaming(operator: Operator, query: str = "", resume: str = "") -> Iterator[Stream]:
    """Follow the history until the end of the block."""
    stream = Stream(operator, query, resume)
    try:
        yield stream
    finally:
        stream.connection.close()


def test_the_document_has_what_happened(operator: Operator) -> None:
    """Of all, of one group, after an id, the newest few."""
    document = read(operator)
    kept = journal_of(operator).after()
    assert [event["id"] for event in document["events"]] == [entry.id for entry in kept]
    assert (document["owner"], document["role"], document["missed"]) == ("ofa", None, False)
    assert (document["first"], document["last"]) == (kept[0].id, kept[-1].id)
    weld = read(operator, "?group=Weld")["events"]
    assert {event["group"] for event in weld} == {"Weld"}
    assert [event["fields"].get("action") for event in weld if event["event"] == "write done"] == [
        "create_stream",
        "create_service",
    ]
    assert read(operator, f"?since={kept[-3].id}")["events"] == document["events"][-2:]
    assert read(operator, "?limit=2")["events"] == document["events"][-2:]
    assert read(operator, f"?since={kept[-1].id}")["events"] == []
    assert "ofa_mine" not in json.dumps(document)


def test_what_is_gone_is_said(operator: Operator) -> None:
    """By who asks for what came after an id that is older than the history; not by who asks for all."""
    kept = journal_of(operator).after()
    assert read(operator, "?since=1")["missed"]
    assert not read(operator, f"?since={kept[0].id}")["missed"]
    for number in range(1000):
        journal_of(operator).info(f"event {number}")
    document = read(operator, f"?since={kept[0].id}")
    assert document["missed"]
    assert len(document["events"]) == 1000
    assert not read(operator)["missed"]


WRONG = ("since=x", "since=-1", "since=1.5", "since=99999999999999999999", "limit=1001", "limit=", "since=%D9%A4")


@pytest.mark.parametrize("query", WRONG)
def test_a_wrong_question_is_refused(operator: Operator, query: str) -> None:
    """With what is right."""
    status, _, body = operator.ask(f"/events?{query}")
    assert status == 400
    assert "?since=ID" in json.loads(body)["detail"]
    with streaming(operator, resume="x") as stream:
        assert stream.response.status == 400


def test_a_stream_begins_with_what_is_missed_and_goes_on(operator: Operator) -> None:
    """What a cycle does is in it at once, and of another group nothing is in that of one."""
    journal, kept = journal_of(operator), journal_of(operator).after()
    with streaming(operator) as every, streaming(operator, "?group=Weld", str(kept[-1].id)) as weld:
        assert every.response.getheader("Content-Type") == "text/event-stream"
        assert [event["id"] for event in every.read(len(kept))] == [entry.id for entry in kept]
        operator.stage.ksqldb.assets["N"] = "New"
        operator.until(lambda: bool(journal.after(group="New")))
        assert "New" in {event["group"] for event in every.read(2)}
        journal.info("ready", object="group Weld", group="Weld")
        (event,) = weld.read(1)
        assert (event["event"], event["group"]) == ("ready", "Weld")
        assert "gap" not in str(every.comments + weld.comments)


def test_a_client_resumes_without_loss_and_is_told_of_a_gap(operator: Operator) -> None:
    """With the id of the last event that it has got."""
    journal = journal_of(operator)
    with streaming(operator) as stream:
        last = stream.read(len(journal.after()))[-1]["id"]
    for number in range(5):
        journal.info(f"event {number}")
    with streaming(operator, resume=str(last)) as stream:
        assert [event["event"] for event in stream.read(5)] == [f"event {number}" for number in range(5)]
        assert stream.comments == ["connected"]
    for number in range(1001):
        journal.info(f"later {number}")
    with streaming(operator, resume=str(last)) as stream:
        assert stream.read(1)[0]["event"] == "later 1"
        assert stream.comments == ["connected", "gap: events after this id are gone"]
    with streaming(operator, "?limit=3") as stream:
        assert stream.read(3)[0]["event"] == "later 998"
        assert stream.comments == ["connected"]


def test_a_stream_without_news_shows_that_it_is_alive(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """By comments."""
    monkeypatch.setattr(events, "ALIVE_SECONDS", 0.05)
    with streaming(operator, "?limit=0") as stream:
        lines = [stream.response.readline() for _ in range(6)]
    assert lines[2::2] == [b": alive\n"] * 2


def test_a_standby_answers_and_says_what_it_is(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a history of its own."""
    monkeypatch.setattr(operator.loop.controller.write_gate, "role", "standby")
    status, headers, body = operator.ask("/events")
    assert (status, headers[ROLE_HEADER]) == (200, "standby")
    assert json.loads(body)["role"] == "standby"
    with streaming(operator) as stream:
        assert stream.response.getheader(ROLE_HEADER) == "standby"


def test_a_client_that_reads_nothing_is_cut_and_costs_no_other() -> None:
    """It has no queue; who reads gets everything meanwhile."""
    limits = ConnectionLimits(20, stall=0.5)
    with operating(make_stage(), limits) as operator:
        journal = journal_of(operator)
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", operator.server.port))
            slow.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
            readers = operator.server._history._readers
            operator.until(lambda: len(readers) == 1)
            deadline = time.monotonic() + 30
            while readers:
                assert time.monotonic() < deadline, "it is not cut"
                journal.info("much", reason="x" * 20_000)
                time.sleep(0.01)
        with streaming(operator, "?limit=1") as stream:
            assert stream.read(1)[0]["event"] == "much"


def test_the_server_ends_with_streams_open() -> None:
    """They end with it."""
    with operating(make_stage()) as operator, streaming(operator) as stream:
        stream.read(1)
        operator.stop_serving()
        assert not operator.server._thread.is_alive()
