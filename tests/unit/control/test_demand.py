"""How the routing layer's tasks are asked for the demand, and which answers make a complete report."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from openfactory_common.errors import KsqlUnreachable
from reconciler.control import demand
from reconciler.control.demand import (
    DOUBT_SECONDS,
    MOVE_SECONDS,
    DemandReader,
    all_answered,
    ask_task,
    may_drain,
    parse_demand,
)
from reconciler.control.readiness import Endpoint
from reconciler.domain.demand import GroupDemand, TaskDemand
from reconciler.domain.names import names_of
from reconciler.domain.services import LiveService
from reconciler.ksqldb.entities import Consumed
from reconciler.planning.survey import Survey
from reconciler.settings import Environment
from tests.harness.fakes import FakeKsqldb
from tests.harness.tasks import CLOSES, NO_HTTP, NOT_FOUND, Behaviour, answer, task
from tests.unit.planning.tables import (
    NOW,
    document,
    live_registry,
    observed,
    older_shared,
    routing_layer,
    seen,
    settings,
    source,
    topology,
)

TASK = TaskDemand("r1", complete=True, uptime=500.0, groups={"Weld": GroupDemand(2, 1, 0.0)})
ANSWER = {
    "revision": "r1",
    "complete": True,
    "uptime_seconds": 500,
    "groups": {"Weld": {"open": 2, "waiting": 1, "idle_seconds": 0}},
}
LIVE = routing_layer()
assert LIVE is not None


def test_an_answer_is_read() -> None:
    """As the routing layer writes it; fields of a newer one are ignored."""
    assert parse_demand(json.dumps({**ANSWER, "more": 1}).encode()) == TASK


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"nonsense",
        b"[" * 100_000,
        json.dumps({**ANSWER, "complete": 1}).encode(),
        json.dumps({**ANSWER, "revision": None}).encode(),
        json.dumps({**ANSWER, "uptime_seconds": None}).encode(),
        json.dumps({**ANSWER, "groups": []}).encode(),
        json.dumps({**ANSWER, "groups": {"Weld": {"open": "2", "waiting": 1, "idle_seconds": 0}}}).encode(),
        json.dumps({**ANSWER, "groups": {"Weld": {"open": 2}}}).encode(),
    ],
)
def test_anything_else_is_no_answer(body: bytes) -> None:
    """An older routing layer, or something else at that address."""
    assert parse_demand(body) is None


@pytest.mark.parametrize(
    ("changes", "tasks", "expected"),
    [
        ({}, (TASK,), True),
        ({}, (), False),
        ({}, (None,), False),
        ({}, (TASK, TASK), False),  # a task more than the engine counts
        ({}, (replace(TASK, complete=False),), False),
        ({"running": 0}, (), False),
        ({"running": 2}, (TASK, TASK), False),  # another one is on its way
        ({"update_state": "updating"}, (TASK,), False),
    ],
)
def test_all_tasks_that_run_must_answer(
    changes: dict[str, object], tasks: tuple[TaskDemand | None, ...], *, expected: bool
) -> None:
    """With all their workers, while no update is in progress."""
    assert LIVE is not None
    assert all_answered(replace(LIVE, **changes), tasks) is expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "uptime", "before", "expected"),
    [
        (None, 500.0, None, True),
        (29, 500.0, None, True),
        (31, 500.0, None, False),
        (31, 29.0, None, True),
        (31, 500.0, 90.0, True),  # the change has shortened the time: the task of before still has its own
        (91, 500.0, 90.0, False),
        (91, 89.0, 90.0, True),
        (29, 500.0, 10.0, True),
    ],
)
def test_a_replaced_task_has_its_time_to_end(
    changed: int | None, uptime: float, before: float | None, *, expected: bool
) -> None:
    """The grace time is 30 s: until then it may have streams, and its name resolves no more."""
    assert LIVE is not None
    updated = None if changed is None else NOW - timedelta(seconds=changed)
    assert LIVE.spec is not None
    previous = None if before is None else replace(LIVE.spec, stop_grace=before)
    live = replace(LIVE, updated_at=updated, previous=previous)
    assert live.spec is not None
    assert live.spec.stop_grace == 30
    assert may_drain(live, (replace(TASK, uptime=uptime),), NOW) is expected


OPTIONS = settings().model_copy(update={"idle_after": 100.0})
ADDRESSES = {key: ["10.0.0.1", "10.0.0.2"] for key in ("ofa_routing_layer", "tasks.ofa_routing_layer")}


def resolve(host: str, _port: int) -> Sequence[str]:
    """A network with one service, whose tasks have a name of their own where it has a virtual IP."""
    if host not in ADDRESSES:
        raise OSError
    return ADDRESSES[host]


def world(live: LiveService | None) -> Survey:
    """This routing layer, and no group."""
    return seen(observed({}, source({}), [live]))


def at_rest(**changes: object) -> LiveService:
    """A routing layer that was changed long ago."""
    assert LIVE is not None
    return replace(LIVE, updated_at=NOW - timedelta(hours=1), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answers", "complete", "doubtful"),
    [
        # Each second: whether the task answers, whether that is a complete report, whether it is doubtful.
        ({0: True, 1: True}, True, False),
        ({0: False}, False, False),
        ({0: True, DOUBT_SECONDS - 1: False}, False, False),
        # Nothing was asked in between: ksqlDB was away, and no task was silent.
        ({0: True, 10 * DOUBT_SECONDS: False}, False, False),
        ({0: True, 500: False, 499 + DOUBT_SECONDS: False}, False, False),
        ({0: True, 500: False, 500 + DOUBT_SECONDS: False}, False, True),
        ({0: False, DOUBT_SECONDS: False}, False, True),
        ({0: False, DOUBT_SECONDS: True}, True, False),
        ({0: False, 30: True, DOUBT_SECONDS: False}, False, False),
    ],
)
def test_a_task_that_is_silent_for_long_makes_a_doubtful_report(
    monkeypatch: pytest.MonkeyPatch, answers: dict[float, bool], *, complete: bool, doubtful: bool
) -> None:
    """From the first report that is not complete."""
    reader = DemandReader(OPTIONS)
    report = None
    for now, answered in answers.items():
        monkeypatch.setattr(reader, "_ask", lambda _live, found=answered: (TASK if found else None,))
        report = reader.read(world(at_rest()), FakeKsqldb(), 1000 + now, NOW)
    assert report is not None
    assert (report.complete, report.doubtful, report.tasks) == (complete, doubtful, (TASK,) if complete else ())
    assert report.at == int(NOW.timestamp())


@pytest.mark.parametrize(
    "live",
    [None, at_rest(owner="other"), at_rest(running=0), replace(at_rest(), updated_at=NOW)],
    ids=["no service", "another owner's", "no task runs", "just changed"],
)
def test_without_the_word_of_every_task_a_report_is_not_complete(
    monkeypatch: pytest.MonkeyPatch, live: LiveService | None
) -> None:
    """One that is not ours is not asked."""
    asked: list[str] = []

    def ask(address: str, _endpoint: Endpoint) -> TaskDemand:
        asked.append(address)
        return TASK

    monkeypatch.setattr(demand, "ask_task", ask)
    report = DemandReader(OPTIONS, resolve).read(world(live), FakeKsqldb(), 0, NOW)
    assert report is not None
    assert not report.complete
    assert bool(asked) is (live is not None and live.owner == "ofa")


def test_where_no_group_sleeps_nobody_is_asked() -> None:
    """Without `IDLE_AFTER`."""
    assert DemandReader(settings(), resolve).read(world(at_rest()), FakeKsqldb(), 0, NOW) is None


@pytest.mark.parametrize(("end", "caught_up"), [(9, set()), (2, {"Weld"})])
def test_without_idle_after_the_queries_of_what_sleeps_are_read(end: int, caught_up: set[str]) -> None:
    """A stream that is to move waits for its query, whatever the settings say; no task is asked."""
    reader = DemandReader(settings(), lambda *_: pytest.fail("asked"))
    report = reader.read(overdue({"Weld": "moved"}), readings(Weld={"old": Consumed(end, 1)}), 0, NOW)
    assert report is not None
    assert (report.tasks, report.complete, report.caught_up) == ((), False, caught_up)


@pytest.mark.parametrize(
    ("env", "asked"),
    [
        ({}, (5555, False)),
        ({"METRICS_PORT": "9100"}, (9100, False)),
        ({"TLS_CERT_FILE": "/x"}, (5555, True)),
        ({"TLS_CERT_FILE": "/x", "METRICS_PORT": "9100"}, (9100, False)),  # that port never has TLS
    ],
)
def test_every_task_is_asked_where_it_reports(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], asked: tuple[int, bool]
) -> None:
    """By what the live service has, not by what it is to get."""
    found: list[tuple[str, int, bool]] = []

    def ask(address: str, endpoint: Endpoint) -> None:
        found.append((address, endpoint.port, endpoint.tls))

    monkeypatch.setattr(demand, "ask_task", ask)
    live = at_rest()
    assert live.spec is not None
    spec = replace(live.spec, env={**live.spec.env, **env}, ports=())
    DemandReader(OPTIONS, resolve).read(world(replace(live, spec=spec)), FakeKsqldb(), 0, NOW)
    assert sorted(found) == [(address, *asked) for address in ADDRESSES["ofa_routing_layer"]]


def test_a_name_that_is_looked_up_for_long_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cycle goes on; nor has one that does not exist, and locally nothing runs that could be asked."""
    monkeypatch.setattr(demand, "DNS_SECONDS", 0.1)
    release = threading.Event()

    def hang(_host: str, _port: int) -> Sequence[str]:
        release.wait(60)
        return ("127.0.0.1",)

    def fail(_host: str, _port: int) -> Sequence[str]:
        raise OSError

    local = OPTIONS.model_copy(update={"environment": Environment.LOCAL})
    try:
        for reader in (DemandReader(OPTIONS, hang), DemandReader(OPTIONS, fail), DemandReader(local, resolve)):
            report = reader.read(world(at_rest()), FakeKsqldb(), 0, NOW)
            assert report is not None
            assert (report.tasks, report.complete) == ((), False)
    finally:
        release.set()


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (answer("200 OK", ANSWER), TASK),
        (answer("200 OK", "{}"), None),
        (NOT_FOUND, None),  # a routing layer of before there was a demand
        (answer("404 Not Found", ANSWER), None),
        (answer("503 Service Unavailable", ANSWER), None),
        (NO_HTTP, None),
        (CLOSES, None),
    ],
)
def test_a_task_is_asked_over_http(behaviour: Behaviour, expected: TaskDemand | None) -> None:
    """Only 200 with a report is an answer."""
    with task(behaviour) as one:
        endpoint = Endpoint("ofa_routing_layer", "ofa_routing_layer", 1, one.port, "ROUTING_LAYER_PORT", "/ready", None)
        assert ask_task("127.0.0.1", endpoint) == expected
    assert one.requests[0].startswith("GET /demand HTTP/1.1\r\n")
    assert ask_task("127.0.0.1", endpoint) is None, "nothing listens"


class Readings(FakeKsqldb):
    """A ksqlDB that says how far the queries of streams have read, by stream and topic; None: it does not answer."""

    positions: dict[str, dict[str, Consumed] | None]
    described: list[str]

    def describe_extended(self, name: str) -> Any:
        """What was set."""
        self.described.append(name)
        found = self.positions.get(name, {})
        if found is None:
            raise KsqlUnreachable("away")
        return type("Described", (), {"consumed": found})


def readings(**positions: dict[str, Consumed] | None) -> Readings:
    """A ksqlDB with these positions, by group."""
    made = Readings()
    made.described, made.positions = [], {names_of(group).stream: found for group, found in positions.items()}
    return made


SHARED = topology().shared_name.lower()


def overdue(words: dict[str, str], partitions: int = 1) -> Survey:
    """Groups whose streams are in these states, which are marked since the beginning of time."""
    marked = document([]).model_copy(update={"asleep": dict.fromkeys(words, 1)})
    read = source(words, partitions={SHARED: partitions})
    if any(word.startswith("moved") for word in words.values()):
        older = older_shared()
        read = replace(
            read, streams={**read.streams, older: replace(read.streams[topology().shared_name], topic="old")}
        )
    return seen(observed(dict.fromkeys(words, 1), read, [at_rest()], [live_registry(marked, 1)]))


@pytest.mark.parametrize(
    ("word", "partitions", "readings_", "expected"),
    [
        # What is described in each cycle: of which topic, records that exist and are read.
        ("ok", 1, [(SHARED, 10, 10)], True),
        ("ok", 1, [(SHARED, 10, 9)], True),  # one marker of a transaction
        ("ok", 1, [(SHARED, 10, 8)], False),
        ("ok", 4, [(SHARED, 10, 6)], True),  # one in each partition
        ("ok", 4, [(SHARED, 10, 5)], False),
        ("ok", 1, [(SHARED, 10, 2), (SHARED, 20, 8)], False),
        ("ok", 1, [(SHARED, 10, 2), (SHARED, 20, 9)], True),  # what came after it was seen to run does not count
        ("ok", 1, [None, (SHARED, 10, 9)], True),
        ("ok", 1, [(SHARED, 10, 9), None], False),
        ("ok", 1, [("old", 10, 10)], False),
        ("moved", 1, [("old", 10, 10)], True),  # it has read the stream that it reads, not the one that it is to read
        ("moved", 1, [(SHARED, 10, 10)], False),
        ("paused", 1, [(SHARED, 10, 10)], False),
        ("silent", 1, [(SHARED, 10, 10)], False),
    ],
)
def test_a_query_has_caught_up_when_it_has_read_what_there_was(
    word: str, partitions: int, readings_: list[tuple[str, int, int] | None], *, expected: bool
) -> None:
    """Of the topic that it reads. Mill's never answers, which is no obstacle."""
    reader, found = DemandReader(OPTIONS.model_copy(update={"shared_retention": 3600.0}), resolve), frozenset[str]()
    for reading in readings_:
        told = None if reading is None else {reading[0]: Consumed(*reading[1:])}
        report = reader.read(overdue({"Weld": word, "Mill": "ok"}, partitions), readings(Weld=told, Mill=None), 0, NOW)
        assert report is not None
        found = report.caught_up
    assert ("Weld" in found, "Mill" in found) == (expected, False)


@pytest.mark.parametrize(("word", "expected"), [("moved", True), ("ok", False), ("moved-paused", False)])
def test_a_stream_that_is_to_move_waits_for_its_query_for_some_minutes(word: str, *, expected: bool) -> None:
    """It may have failed, and clients wait. One that only must read before the shared topic forgets reads on."""
    reader = DemandReader(OPTIONS.model_copy(update={"shared_retention": 3600.0}), resolve)
    found = []
    for now in (5, 4 + MOVE_SECONDS, 5 + MOVE_SECONDS):
        report = reader.read(overdue({"Weld": word, "Mill": "ok"}), readings(Weld={"old": Consumed(9, 1)}), now, NOW)
        assert report is not None
        found.append("Weld" in report.caught_up)
    assert found == [False, False, expected]


def test_what_a_stream_had_to_read_before_it_moved_says_nothing_of_its_new_source() -> None:
    """Another topic counts from its own beginning."""
    reader = DemandReader(OPTIONS.model_copy(update={"shared_retention": 3600.0}), resolve)
    reader.read(overdue({"Weld": "moved"}), readings(Weld={"old": Consumed(1000, 500)}), 0, NOW)
    report = reader.read(overdue({"Weld": "ok"}), readings(Weld={SHARED: Consumed(10, 10)}), 0, NOW)
    assert report is not None
    assert report.caught_up == {"Weld"}


def test_only_a_stream_that_is_to_move_is_asked_where_the_shared_topic_keeps_all() -> None:
    """Without a limit nothing is overdue."""
    ksqldb = readings(Weld={"old": Consumed(9, 9)})
    report = DemandReader(OPTIONS.model_copy(update={"shared_retention": None}), resolve).read(
        overdue({"Weld": "moved", "Mill": "ok"}), ksqldb, 0, NOW
    )
    assert report is not None
    assert (report.caught_up, ksqldb.described) == ({"Weld"}, [names_of("Weld").stream])


def test_few_queries_are_asked_in_one_cycle_and_all_in_turn() -> None:
    """Others ask ksqlDB too; one that never catches up holds up no other."""
    groups = [f"G{number}" for number in range(25)]
    reader = DemandReader(OPTIONS.model_copy(update={"shared_retention": 3600.0}), resolve)
    asked: list[set[str]] = []
    for _ in range(3):
        ksqldb = readings(**dict.fromkeys(groups))
        reader.read(overdue(dict.fromkeys(groups, "ok")), ksqldb, 0, NOW)
        asked.append(set(ksqldb.described))
        assert len(ksqldb.described) == 10
    assert set.union(*asked) == {names_of(group).stream for group in groups}
