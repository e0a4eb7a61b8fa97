"""The history: which line makes an entry, that both have the same words, and that it stays small; a line a case."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from openfactory_common.errors import PlatformConflict
from reconciler.control.controller import Controller
from reconciler.control.journal import Entry, Journal
from reconciler.domain.services import LiveService, TaskEnd
from reconciler.domain.status import Part
from reconciler.leadership.pause import end_pause, start_pause
from tests.harness.fakes import Stage, unreachable

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
START = int(AT.timestamp() * 1000)


@pytest.fixture(autouse=True)
def _log_from_information_up() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))


class Clock:
    """A time of day that a test moves."""

    def __init__(self) -> None:
        """Begin at a fixed time."""
        self.now = AT

    def __call__(self) -> datetime:
        """The time."""
        return self.now


def events(journal: Journal) -> list[str]:
    """Return what happened, oldest first."""
    return [entry.event for entry in journal.after()]


WELD = {"object": "group Weld", "group": "Weld"}
LINES: list[tuple[str, list[tuple[str, str, dict[str, Any]]], int]] = [
    ("an event", [("info", "ready", WELD)], 1),
    ("equal events", [("info", "write done", WELD)] * 3, 3),
    ("an equal problem", [("warning", "degraded", {**WELD, "reason": "no image"})] * 3, 1),
    ("a number differs", [("warning", "write failed", {**WELD, "error": f"attempt {n}"}) for n in range(9)], 1),
    ("other words", [("warning", "degraded", {**WELD, "reason": word}) for word in ("a", "b", "a")], 3),
    ("two objects", [("warning", "degraded", {"object": f"group {n}"}) for n in "ab" * 3], 2),
    ("two problems in turn", [("warning", event, WELD) for event in ("degraded", "write failed") * 3], 2),
    (
        "after something good",
        [("warning", "write failed", WELD), ("info", "write done", WELD), ("warning", "write failed", WELD)],
        3,
    ),
    (
        "after something good of another",
        [("warning", "write failed", WELD), ("info", "ready", {"object": "group Paint"})] * 2,
        3,
    ),
    ("of no object", [("warning", "kept", {"groups": ["a"]})] * 3, 1),
    ("of no object, others", [("warning", "kept", {"groups": [name]}) for name in "ab"], 2),
    ("a sentence with numbers", [("warning", f"a read failed after {n} s", {}) for n in range(5)], 1),
    ("a bug", [("error", "bug", {"part": "plan", "object": None, "error": "boom", "exc_info": None})] * 3, 1),
]


@pytest.mark.parametrize(("name", "lines", "entries"), LINES, ids=[row[0] for row in LINES])
def test_what_makes_an_entry(name: str, lines: list[tuple[str, str, dict[str, Any]]], entries: int) -> None:
    """Every line is logged; a problem that repeats is one entry."""
    del name
    journal = Journal(Clock())
    with capture_logs() as logged:
        for level, event, fields in lines:
            getattr(journal, level)(event, **fields)
    assert len(logged) == len(lines)
    assert len(journal.after()) == entries


def test_the_entry_has_the_words_and_fields_of_the_line() -> None:
    """Credentials in a URL are in neither."""
    journal = Journal(Clock())
    with capture_logs() as logged:
        journal.warning(
            "write failed",
            object="stream X",
            group="Weld",
            action="create_stream",
            error="sent by anna@plant: http://user:hunter2@ksqldb:8088 is away",
            drift=["image", "http://a:hunter2@b"],
        )
    (line,), (entry,) = logged, journal.after()
    assert entry == Entry(
        id=START + 1,
        at=AT,
        level="warning",
        event="write failed",
        object="stream X",
        group="Weld",
        reason="sent by anna@plant: http://***@ksqldb:8088 is away",
        fields={"action": "create_stream", "drift": ["image", "http://***@b"]},
    )
    assert (line["event"], line["log_level"], line["error"]) == (entry.event, entry.level, entry.reason)
    assert "hunter2" not in f"{line}{entry}"


def test_a_problem_that_comes_back_much_later_is_news() -> None:
    """While it is repeated it is not; after a quarter of an hour in which nothing was said, it is."""
    clock = Clock()
    journal = Journal(clock)
    for _ in range(20):
        journal.warning("groups are kept", groups=["Weld"])
        clock.now += timedelta(minutes=14)
    assert len(journal.after()) == 1
    clock.now += timedelta(minutes=2)
    journal.warning("groups are kept", groups=["Weld"])
    assert len(journal.after()) == 2


def test_it_is_bounded_and_says_what_it_has_lost() -> None:
    """The oldest go; who asks for what came after one that is gone is told so."""
    journal = Journal(Clock(), kept=10)
    assert (journal.first, journal.has_lost(START - 1), journal.has_lost(START)) == (None, True, False)
    for number in range(10):
        journal.info(f"event {number}")
    assert (journal.first, journal.last, journal.has_lost(START)) == (START + 1, START + 10, False)
    journal.info("event 10")
    assert (journal.first, journal.last) == (START + 2, START + 11)
    assert (journal.has_lost(START), journal.has_lost(START + 1)) == (True, False)
    assert [entry.id for entry in journal.after(START + 9)] == [START + 10, START + 11]
    assert [entry.id for entry in journal.after(limit=1)] == [START + 11]
    assert journal.after(limit=0) == ()
    for number in range(6000):
        journal.warning("degraded", object=f"group {number}")
    assert len(journal.after()) == 10
    assert len(journal._problems) == 5000


def test_ids_grow_over_a_restart_and_a_clock_that_goes_back() -> None:
    """They begin with the time; within one millisecond they count."""
    clock = Clock()
    before = Journal(clock)
    for _ in range(3):
        before.info("ready")
    clock.now -= timedelta(hours=1)
    before.info("ready")
    assert [entry.id for entry in before.after()] == [START + 1, START + 2, START + 3, START + 4]
    clock.now = AT + timedelta(seconds=1)
    after = Journal(clock)
    after.info("ready")
    assert after.last > before.last
    assert after.has_lost(before.last)


def test_it_can_be_asked_for_one_group() -> None:
    """Also for what happened to several groups at once, and never for a foreigner of a similar name."""
    journal = Journal(Clock())
    journal.info("ready", object="group Weld", group="Weld")
    journal.info("ready", object="group Weld2", group="Weld2")
    journal.info("operator started")
    journal.warning("groups are kept by the last question", groups=["Paint", "Weld"])
    assert [entry.id - START for entry in journal.after(group="Weld")] == [1, 4]
    assert [entry.id - START for entry in journal.after(START + 1, "Weld")] == [4]
    assert journal.after(group="elsewhere") == ()


def test_many_threads_lose_nothing() -> None:
    """Each entry has an id of its own, and readers see whole entries in order."""
    journal, calls, seen = Journal(), [], []
    journal.on_entry = lambda: calls.append(journal.last)

    def write() -> None:
        for _ in range(100):
            journal.info("ready")
            ids = [entry.id for entry in journal.after()]
            seen.append(ids == sorted(ids))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({entry.id for entry in journal.after()}) == 400
    assert len(calls) == 400
    assert seen == [True] * 400


# ---- what an operator records


@pytest.fixture
def stage() -> Stage:
    """Two groups, and a service of another owner."""
    stage = Stage()
    stage.ksqldb.assets = {"W": "Weld", "P": "Paint"}
    stage.platform.services["ofa_mine"] = LiveService("id0", 1, "ofa_mine", "other", None, 1)
    return stage


def run(stage: Stage, controller: Controller, cycles: int = 3) -> list[Entry]:
    """Run cycles; return the new entries."""
    last = controller.reporter.journal.last
    stage.run(controller, cycles)
    return list(controller.reporter.journal.after(last))


def test_a_group_from_its_mapping_to_its_end(stage: Stage) -> None:
    """Writes with their causes, in order, and nothing of the foreigner."""
    controller = stage.controller()
    run(stage, controller, 5)
    stage.settle(controller)
    entries = controller.reporter.journal.after(group="Weld")
    assert [one.event for one in entries if one.object == "group Weld"] == ["progressing", "ready"]
    done = [one.fields["action"] for one in entries if one.event == "write done"]
    assert done == ["create_stream", "create_service"]
    assert run(stage, controller, 100) == []
    del stage.ksqldb.assets["W"]
    gone = run(stage, controller, 60)
    assert [one.fields["action"] for one in gone if one.event == "write done" and one.group == "Weld"] == [
        "remove_service",
        "drop_stream",
    ]
    assert [one.event for one in gone if one.object == "group Weld"] == ["leaving", "gone"]
    assert not [one for one in controller.reporter.journal.after() if "ofa_mine" in str(one)]


def test_an_update_names_the_fields_and_no_value(stage: Stage) -> None:
    """What stood in them may be a secret."""
    controller = stage.controller()
    stage.settle(controller)
    live = stage.platform.services["ofa_group_weld"]
    assert live.spec is not None
    changed = replace(live.spec, env={**live.spec.env, "PASSWORD": "hunter2"})
    stage.platform.services["ofa_group_weld"] = replace(live, spec=changed)
    entries = run(stage, controller)
    (done,) = [one for one in entries if one.event == "write done"]
    assert done.fields == {"action": "update_service", "drift": ["env PASSWORD"]}
    assert "hunter2" not in str(entries)


def test_a_write_that_fails_is_one_entry_until_it_succeeds(stage: Stage) -> None:
    """However often it is tried."""

    def fault(call: str) -> None:
        if call == "create_service":
            raise PlatformConflict(f"no room, attempt {stage.now}")

    controller = stage.controller()
    stage.platform.fault = fault
    entries = run(stage, controller, 40)
    failed = [one for one in entries if one.event == "write failed" and one.group == "Weld"]
    assert [one.reason for one in failed] == [failed[0].reason]
    assert "no room" in str(failed[0].reason)
    stage.platform.fault = lambda _call: None
    stage.now += 600
    assert "write done" in [one.event for one in run(stage, controller) if one.group == "Weld"]


def test_reads_that_fail_are_one_entry_and_their_end_another(stage: Stage) -> None:
    """Whatever happened to be read in between by a cycle that was on standby."""
    controller = stage.controller()
    stage.settle(controller)
    stage.ksqldb.fault = unreachable("members")
    (entry,) = run(stage, controller, 50)
    assert entry.level == "warning"
    assert entry.event.startswith("nothing changed, a read failed:")
    stage.ksqldb.fault = lambda _call: None
    assert [one.event for one in run(stage, controller, 10)] == ["reads succeed again"]


def _end_by_record(controller: Controller) -> None:
    controller.memory.pause = end_pause("anna@plant")


PAUSES: list[tuple[str, Callable[[Controller], None], float, str]] = [
    ("by somebody", _end_by_record, 0, "anna@plant"),
    ("by its time", lambda _controller: None, 600, "its time"),
]


@pytest.mark.parametrize(("name", "end", "seconds", "by"), PAUSES, ids=[row[0] for row in PAUSES])
def test_a_pause_begins_and_ends(
    name: str, end: Callable[[Controller], None], seconds: float, by: str, stage: Stage
) -> None:
    """With who did it."""
    del name
    controller = stage.controller()
    stage.settle(controller)
    controller.memory.pause = start_pause(stage.wall, 300, "otto@plant", "new cables")
    (begun,) = run(stage, controller, 10)
    assert (begun.event, begun.fields) == ("writes are paused", {"by": "otto@plant"})
    assert "new cables" in str(begun.reason)
    end(controller)
    stage.wall += timedelta(seconds=seconds)
    (ended,) = run(stage, controller, 10)
    assert (ended.event, ended.fields) == ("writes are resumed", {"by": by})


def test_a_map_that_is_emptied_is_refused_once(stage: Stage) -> None:
    """And that it no longer is."""
    controller = stage.controller()
    stage.settle(controller)
    kept, stage.ksqldb.assets = stage.ksqldb.assets, {}
    refused = [one for one in run(stage, controller, 50) if "refused" in one.event]
    assert [(one.event, one.fields["guard"]) for one in refused] == [("refused", "empty"), ("refused", "budget")]
    stage.ksqldb.assets = kept
    ended = [one for one in run(stage, controller, 10) if "refused" in one.event]
    assert {(one.event, one.fields["guard"]) for one in ended} == {
        ("no longer refused", "empty"),
        ("no longer refused", "budget"),
    }


def test_a_bug_in_every_cycle_is_one_entry(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its traceback stays in the log."""
    controller = stage.controller()
    stage.settle(controller)

    def broken(*_: object) -> None:
        raise AttributeError("boom")

    monkeypatch.setattr("reconciler.control.memory.has_collapsed", broken)
    with capture_logs() as logged:
        (entry,) = run(stage, controller, 30)
    assert sum(line["event"] == "bug" for line in logged) == 30
    assert (entry.level, entry.event, entry.reason, entry.fields) == ("error", "bug", "boom", {"part": Part.REPORT})


def _end(number: int, stage: Stage, service: str = "ofa_group_Weld", reason: str = "exit (1)") -> TaskEnd:
    return TaskEnd(f"t{number}", service, f"{service}.{number}", stage.wall - timedelta(hours=number), reason)


def test_a_task_that_ended_is_an_entry_although_another_one_runs_already(stage: Stage) -> None:
    """Once, with the reason and its group; what ended more than a day before the start is no news."""
    controller = stage.controller()
    stage.settle(controller)
    restarted = stage.controller()
    stage.platform.ended = (_end(25, stage), _end(3, stage), _end(2, stage), _end(1, stage, "ofa_state_api"))
    weld, state_api = run(stage, restarted, 20)
    assert (weld.event, weld.object, weld.group, weld.reason) == (
        "task ended",
        "service ofa_group_Weld",
        "Weld",
        "exit (1)",
    )
    assert weld.fields == {"task": "ofa_group_Weld.2", "ended": f"{stage.wall - timedelta(hours=2):%F %T} UTC"}
    assert (state_api.object, state_api.group) == ("service ofa_state_api", None)
    stage.platform.ended += (_end(0, stage, reason="task: non-zero exit (137)"),)
    assert [one.reason for one in run(stage, restarted, 20)] == ["task: non-zero exit (137)"]
    stage.platform.ended = ()
    run(stage, restarted, 5)
    stage.platform.ended = (_end(0, stage, reason="task: non-zero exit (137)"),)
    assert run(stage, restarted, 5) == []


def test_a_task_that_ends_in_every_cycle_fills_no_history(stage: Stage) -> None:
    """Its service is degraded, which has an entry of its own."""
    controller = stage.controller()
    stage.settle(controller)
    entries = []
    for number in range(200):
        stage.platform.ended = (replace(_end(0, stage), id=f"t{number}"),)
        entries += run(stage, controller, 1)
    assert [one.event for one in entries] == ["task ended"]


def test_a_command_that_shows_what_it_has_read_logs_nothing_of_it() -> None:
    """Above its table, a line with the present time looked like something new; the command has the entries."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    journal = Journal()
    journal.logs = False
    with capture_logs() as captured:
        journal.warning("task ended", object="group Weld", reason="killed")
    assert captured == []
    assert [one.event for one in journal.after()] == ["task ended"]
