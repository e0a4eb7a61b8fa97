"""`events`, `wait` and `logs`: what a person asks the day after, of an operator that runs and without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.cli import events, show, task_logs, wait
from reconciler.cli import main as cli
from reconciler.control.journal import Journal
from reconciler.domain.services import LiveService
from reconciler.domain.status import Condition
from reconciler.platforms.protocol import LogLine
from reconciler.web import server
from tests.harness.fake_platform import FakePlatform
from tests.harness.fakes import NOW, Stage, unreachable
from tests.harness.ports import free_port
from tests.integration.web.operator import Operator, operating

TOKEN = "right-" + "a" * 32


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings of an installation whose ksqlDB and engine are not there, and no operator either."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("KAFKA_BROKER", "k:9092"), ("KSQLDB_URL", "http://127.0.0.1:1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    monkeypatch.setenv("RECONCILER_PORT", str(free_port()))


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Operator]:
    """An operator that wants a token for everything, with two groups and a service of another owner."""
    (tmp_path / "tokens").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("RECONCILER_TOKEN_FILE", "tokens")
    stage = Stage(options={"reconciler_token_file": tmp_path / "tokens", "reconciler_protect": "all"})
    stage.ksqldb.assets = {"W": "Weld", "P": "Paint"}
    stage.platform.services["ofa_mine"] = LiveService("id0", 1, "ofa_mine", "other", None, 1)
    with operating(stage) as running:
        monkeypatch.setenv("RECONCILER_PORT", str(running.server.port))
        yield running


def journal_of(operator: Operator) -> Journal:
    """Return its history."""
    return operator.loop.controller.reporter.journal


def test_what_happened_is_shown_line_by_line(operator: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    """With time, object and reason; of one group nothing of another, and nothing of the foreigner."""
    journal_of(operator).warning(
        "task ended", object="service ofa_group_Weld", group="Weld", task="ofa_group_Weld.1", reason="exit (137)\x1b[2J"
    )
    assert cli.main(["events", "Weld"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line[19:24] == " UTC " for line in lines)
    assert lines[-1][24:] == ("warning: task ended: service ofa_group_Weld: exit (137)\\x1b[2J; task ofa_group_Weld.1")
    assert [line[24:] for line in lines if "write done" in line] == [
        "write done: create_stream stream ASSET_STREAM_WELD",
        "write done: create_service service ofa_group_Weld",
    ]
    assert not [line for line in lines if "Paint" in line or "ofa_mine" in line]


def test_as_a_document(operator: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    """The one that the operator serves; from a time on."""
    assert cli.main(["events", "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [event["id"] for event in document["events"]] == [entry.id for entry in journal_of(operator).after()]
    assert cli.main(["events", "--since", "0s", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["events"] == []
    hours = int((datetime.now(UTC) - NOW).total_seconds() / 3600) + 8
    assert cli.main(["events", "--since", f"{hours}h"]) == 0
    said = capsys.readouterr()
    assert "has no events of before" in said.err, "it was started 8 hours later"
    assert len(said.out.splitlines()) == len(document["events"])


@pytest.mark.parametrize("role", ["standby", "leader"])
def test_a_standby_is_said_to_be_one(
    role: str, operator: Operator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it has not written is not in its history; its own events are shown all the same."""
    monkeypatch.setattr(operator.loop.controller.write_gate, "role", role)
    assert cli.main(["events"]) == 0
    said = capsys.readouterr()
    assert ("is on standby: the leader's history has the writes" in said.err) is (role == "standby")
    assert len(said.out.splitlines()) == len(journal_of(operator).after())


def test_without_an_operator_there_is_no_history(capsys: pytest.CaptureFixture[str]) -> None:
    """It says who did not answer."""
    assert cli.main(["events"]) == 1
    assert "only a running operator has a history, and none has answered: http://127.0.0.1" in capsys.readouterr().err
    assert cli.main(["events", "--since", "yesterday"]) == 2
    assert "use 90s, 30m or 8h" in capsys.readouterr().err


def test_an_operator_of_another_owner_is_not_asked(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does it get the token."""
    monkeypatch.setenv("RECONCILER_OWNER", "other")
    assert cli.main(["events"]) == 1
    assert "belongs to owner ofa" in capsys.readouterr().err
    assert operator.loop.history.last is not None


def test_it_goes_on_with_each_new_event_until_it_is_interrupted(operator: Operator) -> None:
    """Over a stream; each line is one event, none twice."""
    program = [sys.executable, "-m", "reconciler", "events", "-w", "-o", "json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    journal = journal_of(operator)
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None

        def read() -> dict[str, Any]:
            assert process.stdout is not None
            return dict(json.loads(process.stdout.readline()))

        before = [entry.id for entry in journal.after()]
        assert [read()["id"] for _ in before] == before
        journal.info("ready", object="group Weld", group="Weld")
        assert read()["event"] == "ready"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == ""
    assert process.returncode == 130


def test_an_operator_that_was_away_is_asked_for_what_is_missed(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the last event on that was shown."""
    journal, asked = journal_of(operator), []
    before = journal.after()

    def follow(_settings: object, _url: str, since: int) -> Iterator[str]:
        asked.append(since)
        if len(asked) > 1:
            raise KeyboardInterrupt
        yield f'data: {{"id": {since + 7}, "at": "2026-01-01T00:00:00Z", "level": "info", "event": "streamed",'
        raise OSError("cut")

    def streamed(settings: object, url: str, since: int) -> Iterator[str]:
        for line in follow(settings, url, since):
            yield line + ' "object": null, "group": null, "reason": null, "fields": {}}'
            journal.info("one before it")
            for _ in range(7):
                journal.info("missed")

    monkeypatch.setattr(events, "follow", streamed)
    monkeypatch.setattr(events, "_RETRY_SECONDS", 0.0)
    assert cli.main(["events", "-w"]) == 130
    said = capsys.readouterr()
    assert [line[24:] for line in said.out.splitlines()[len(before) :]] == ["streamed", "missed"]
    assert "does not answer any more (cut), trying again" in said.err
    assert asked == [before[-1].id, journal.last]


@pytest.mark.parametrize(
    ("group", "goal", "code"),
    [("Weld", "Ready", 0), ("elsewhere", "Gone", 0), ("Weld", "Gone", 5), ("elsewhere", "Ready", 5)],
)
@pytest.mark.parametrize("asked", [True, False], ids=["asks", "reads"])
def test_a_group_is_waited_for(
    group: str,
    goal: str,
    code: int,
    asked: bool,
    operator: Operator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By asking the operator, and by reading where there is none; what it is in the end is said."""
    operator.until(lambda: all(item.condition == "Ready" for item in operator.loop.history.read.plan.items))  # type: ignore[union-attr]
    if not asked:
        operator.stop_serving()
        monkeypatch.setattr(wait, "make_reader", lambda _settings: operator.stage.controller())
    assert cli.main(["wait", group, "--for", goal, "--timeout", "0", "-o", "json"]) == code
    said = capsys.readouterr()
    condition = "Ready" if group == "Weld" else "Gone"
    assert json.loads(said.out) == {
        "group": group,
        "goal": goal,
        "met": code == 0,
        "condition": condition,
        "reason": None,
    }
    assert (f"not {goal} within 0 s: group {group}: {condition}" in said.err) == (code == 5)


@pytest.mark.parametrize(
    ("now", "goal", "code", "condition"),
    [
        ("as before", "Ready", 0, "Ready"),
        ("silent", "Ready", 5, "Degraded"),
        ("asleep", "Ready", 0, "Asleep"),
        ("asleep", "Gone", 5, "Asleep"),
    ],
)
def test_what_the_operator_knew_before_does_not_end_the_wait(
    now: str,
    goal: str,
    code: int,
    condition: str,
    operator: Operator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is asked to read again, with the token, and that counts; a group that sleeps is in order."""
    operator.until(lambda: all(item.condition == "Ready" for item in _items(operator)))
    controller, naps = operator.loop.controller, list[float]()
    controller.clocks = replace(controller.clocks, wall=lambda: datetime.now(UTC))
    if now == "silent":
        operator.stage.ksqldb.terminated.add("ASSET_STREAM_WELD")

    def explain(*given: Any) -> Any:
        found = real(*given)
        return found.model_copy(update={"condition": Condition.ASLEEP})

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        time.sleep(0.05)

    real = server.explain_group
    if now == "asleep":
        monkeypatch.setattr(server, "explain_group", explain)
    monkeypatch.setattr(wait, "time", SimpleNamespace(monotonic=lambda: sum(naps), sleep=sleep))
    assert cli.main(["wait", "Weld", "--for", goal, "--timeout", "60", "-o", "json"]) == code
    assert json.loads(capsys.readouterr().out)["condition"] == condition
    assert naps


def test_an_operator_that_reads_nothing_ends_no_wait(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever it knew, of a group or of none; only --timeout 0 takes that."""
    operator.loop.stop()
    for group, goal in (("Weld", "Ready"), ("elsewhere", "Gone")):
        naps: list[float] = []
        monkeypatch.setattr(wait, "time", SimpleNamespace(monotonic=lambda naps=naps: sum(naps), sleep=naps.append))
        assert cli.main(["wait", group, "--for", goal, "--timeout", "2"]) == 5
        assert "has read nothing since this command began" in capsys.readouterr().err


def test_waiting_ends_when_the_group_is_there(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not exist at first."""
    naps = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        operator.stage.ksqldb.assets["N"] = "New"
        operator.stage.wall += timedelta(seconds=1)
        operator.until(lambda: any(one.group == "New" and one.condition == "Ready" for one in _items(operator)))

    monkeypatch.setattr(wait, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    assert cli.main(["wait", "New", "--for", "Ready"]) == 0
    assert naps == [1.0]


def _items(operator: Operator) -> tuple[Any, ...]:
    read = operator.loop.history.read
    return read.plan.items if read is not None and read.plan is not None else ()


def test_what_cannot_be_read_is_not_waited_for_without_end(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither an operator nor ksqlDB is there: in the end it says so."""
    assert cli.main(["wait", "Weld", "--for", "Gone", "--timeout", "0"]) == 5
    said = capsys.readouterr()
    assert said.out == ""
    assert "not Gone within 0 s: group Weld: unknown: " in said.err
    assert cli.main(["wait", " ", "--for", "Gone"]) == 2


class Writing(FakePlatform):
    """A platform that keeps what its tasks write."""

    def task_logs(self, live: LiveService, tail: int, *, follow: bool) -> Iterator[LogLine]:
        """Return lines."""
        for number in range(tail):
            yield LogLine(f"{live.name}.1", f"line {number} of {tail}, {follow}\t\x1b[2J")


def test_logs_show_each_line_with_its_task(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of our service, whatever service of another owner, installation or name says that it is of this group."""
    ours = operator.stage.platform.services["ofa_group_weld"]
    copies = {
        "ofa_aaa": replace(ours, name="theirs_Weld", owner="other"),
        "ofa_aab": replace(ours, name="ofa_aab"),  # with all our labels: a person's
    }
    services = {**copies, **operator.stage.platform.services}
    records = operator.stage.platform.kept_records
    monkeypatch.setattr(task_logs, "build_platform", lambda *_: Writing(services=services, kept_records=records))
    assert cli.main(["logs", "Weld", "--tail", "2"]) == 0
    assert capsys.readouterr().out == "".join(
        f"ofa_group_Weld.1 | line {number} of 2, False\t\\x1b[2J\n" for number in range(2)
    )
    assert cli.main(["logs", "Weld", "-f", "--tail", "1", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "task": "ofa_group_Weld.1",
        "text": "line 0 of 1, True\t\x1b[2J",
    }
    services["ofa_group_weld"] = replace(ours, installation="99999999")
    assert cli.main(["logs", "Weld"]) == 2
    services["ofa_group_weld"] = ours
    assert cli.main(["logs", "elsewhere"]) == 2
    assert "group 'elsewhere' has no service of ours" in capsys.readouterr().err
    monkeypatch.setattr(task_logs, "build_platform", lambda *_: FakePlatform(services=services))
    assert cli.main(["logs", "Weld"]) == 2
    assert "DEPLOYMENT_PLATFORM=swarm cannot show logs" in capsys.readouterr().err


@pytest.mark.parametrize("asked", [True, False], ids=["asks", "reads"])
def test_the_status_is_shown_again_when_it_changes(
    asked: bool, operator: Operator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a pipe a line for each object that has changed; without news the operator alone is asked."""
    stage, naps, reads = operator.stage, [], []
    operator.until(lambda: all(item.condition == "Ready" for item in _items(operator)))
    if not asked:
        operator.stop_serving()

    def make_reader(_settings: object) -> object:
        reads.append(len(naps))
        return stage.controller()

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        match len(naps):
            case 2:
                stage.ksqldb.assets["N"] = "New"
                operator.until(lambda: any(one.group == "New" and one.condition == "Ready" for one in _items(operator)))
            case 3:
                stage.platform.fault = unreachable("observe")
                journal_of(operator).info("something")
            case 4:
                raise KeyboardInterrupt

    monkeypatch.setattr(show, "make_reader", make_reader)
    monkeypatch.setattr(show, "time", SimpleNamespace(sleep=sleep))
    assert cli.main(["status", "-w"]) == 130
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert {line for line in lines if line.startswith("group")} == {
        f"group {name}: Ready 1/1 tasks" for name in ("Paint", "Weld", "New")
    }
    assert [line for line in lines if "New" in line] == [lines[-1]]
    assert len(lines) == len(set(lines))
    assert "observe" in said.err
    assert reads == ([0, 2, 3] if asked else [0, 1, 2, 3])
    assert set(naps) == ({1.0} if asked else {5.0})
