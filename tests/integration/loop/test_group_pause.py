"""A pause of one group: its objects stay as they are, the others go on, and it ends by itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from reconciler.cli import main as cli
from reconciler.cli import pause as pause_command
from reconciler.cli import why as why_command
from reconciler.control.converge import Exit, converge
from reconciler.control.loop import next_due
from reconciler.domain.services import LiveService, Record
from reconciler.domain.status import Condition
from reconciler.leadership.pause import (
    GROUP_PAUSES_RECORD,
    LONGEST_GROUP_PAUSE,
    read_marks,
    start_pause,
    write_mark,
)
from tests.harness.fakes import NOW, Stage

WEEK = 7 * 86400.0


@pytest.fixture
def stage() -> Stage:
    """Two groups settled, beside a service of a user."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "Weld", "b": "Paint"}
    stage.platform.services["ofa_group_users"] = LiveService("u", 1, "ofa_group_users", None, None, 1)
    stage.settle(stage.controller())
    return stage


def pause(stage: Stage, group: str = "Paint", seconds: float = WEEK) -> None:
    """Pause one group, as the command does."""
    mark = start_pause(stage.wall, seconds, "ana@shell", "audit", LONGEST_GROUP_PAUSE)
    write_mark(stage.platform, GROUP_PAUSES_RECORD, group, mark, stage.wall)


def condition(stage: Stage, group: str) -> Condition:
    """Look once more."""
    outcome = stage.controller().cycle()
    assert outcome.plan is not None
    return next(item.condition for item in outcome.plan.items if item.group == group)


def test_what_was_changed_by_hand_stays_so_until_it_ends(stage: Stage) -> None:
    """Paint is left alone, Weld is repaired; at the end of the pause the next cycle repairs Paint."""
    pause(stage)
    for name in ("ofa_group_weld", "ofa_group_paint"):
        stage.platform.touch(name, replicas=7)
    controller = stage.controller()
    outcome = controller.cycle()
    stage.run(controller, 5)
    specs = {name: live.spec for name, live in stage.platform.services.items() if live.spec}
    assert (specs["ofa_group_weld"].replicas, specs["ofa_group_paint"].replicas) == (1, 7)
    assert "paused: Paint" in outcome.sentence
    assert controller.reporter.metrics.paused_groups._value.get() == 1
    stage.wall += timedelta(seconds=WEEK)
    assert controller.cycle().result == "changed"
    assert controller.reporter.metrics.paused_groups._value.get() == 0
    assert stage.platform.services["ofa_group_users"].owner is None


def test_the_next_cycle_is_at_its_end(stage: Stage) -> None:
    """Time alone can change what is done then."""
    pause(stage, seconds=90)
    controller = stage.controller()
    outcome = controller.cycle()
    assert outcome.plan is not None
    assert next_due(controller.memory, outcome.plan, (), stage.settings, stage.now, stage.wall) == 90


def test_once_does_not_wait_for_it_and_says_so(stage: Stage) -> None:
    """A new group that is paused before it exists stays away; exit code 0."""
    pause(stage)
    stage.platform.touch("ofa_group_paint", image="other:1")
    before = stage.writes
    code, outcome = converge(stage.controller(), 300, sleep=lambda _: pytest.fail("it waits"))
    assert (code, stage.writes) == (Exit.OK, before)
    assert "paused: Paint" in outcome.sentence


@pytest.mark.parametrize("fault", ["removed", "stopped", "broken"])
def test_once_ends_at_once_where_a_paused_group_is_down(stage: Stage, fault: str) -> None:
    """Only a person can end that, so it waits for nothing, and its exit code says that not all is well."""
    pause(stage)
    key = "ofa_group_paint"
    if fault == "removed":
        del stage.platform.services[key]
    elif fault == "stopped":
        stage.platform.touch(key, replicas=0)
    else:
        stage.platform.services[key] = replace(stage.platform.services[key], running=0, error="No such image: g:1")
    before = stage.writes
    code, outcome = converge(stage.controller(), 300, sleep=lambda _: pytest.fail("it waits"))
    assert (code, stage.writes) == (Exit.NOT_CONVERGED, before)
    assert outcome.plan is not None
    found = {item.group: item.condition for item in outcome.plan.items if item.group}
    assert found == {"Paint": Condition.DEGRADED, "Weld": Condition.READY}


def test_the_whole_grace_time_begins_after_the_pause(stage: Stage) -> None:
    """A group that lost its assets meanwhile is not removed as soon as the pause ends by itself."""
    pause(stage, seconds=3600)
    del stage.ksqldb.assets["b"]
    controller = stage.controller()
    stage.run(controller, 40, 60.0)
    stage.wall += timedelta(seconds=3600)
    controller.cycle()
    assert condition(stage, "Paint") is Condition.LEAVING
    assert "ofa_group_paint" in stage.platform.services
    assert controller.memory.guards.missing["Paint"].reads == 1
    stage.settle(controller)
    assert "ofa_group_paint" not in stage.platform.services
    assert "ofa_group_users" in stage.platform.services


RECORDS: list[tuple[dict[str, object], list[str]]] = [
    ({}, []),
    ({"groups": ""}, []),
    ({"groups": 7}, []),
    ({"groups": "[" * 9999}, []),
    ({"groups": "[1]"}, []),
    ({"groups": '{"Weld": 1, "Paint": {"until": "2026-01-01T00:10:00Z"}}'}, ["Paint"]),
    ({"groups": '{"Weld": {"until": "2026-02-20T00:00:00Z"}, "Paint": {"until": "2026-01-31T00:00:00Z"}}'}, ["Paint"]),
    ({"groups": '{"Weld": {"until": "2025-12-31T00:00:00Z"}}'}, []),
    ({"groups": '{"\\ud800": {"until": "2026-01-01T00:10:00Z"}}'}, ["\ud800"]),
]


@pytest.mark.parametrize(("fields", "groups"), RECORDS)
def test_any_record_is_read(fields: dict[str, str], groups: list[str]) -> None:
    """Nonsense pauses nothing, and no end that a command could not have set is respected."""
    assert list(read_marks(GROUP_PAUSES_RECORD, {GROUP_PAUSES_RECORD: Record("1", 1, "x", fields)}, NOW)) == groups


def test_writers_at_the_same_time_lose_no_pause(stage: Stage) -> None:
    """Another party pauses another group between the read and the write."""
    interfered = []

    def interfere(call: str) -> None:
        if call == "write_record" and not interfered:
            interfered.append(call)
            pause(stage, "Weld")

    stage.platform.fault = interfere
    pause(stage)
    assert read_marks(GROUP_PAUSES_RECORD, stage.platform.records(), stage.wall).keys() == {"Paint", "Weld"}


def test_commands_pause_and_resume_one_group(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several at once; a name that no group has is refused with those that may be meant."""
    stage.wall = datetime.now(UTC)
    monkeypatch.setenv("KAFKA_BROKER", "k:9092")
    monkeypatch.setenv("KSQLDB_URL", "http://k:8088")
    monkeypatch.setenv("RECONCILER_PORT", "1")
    monkeypatch.setattr(pause_command, "build_platform", lambda *_: stage.platform)
    monkeypatch.setattr(why_command, "make_reader", lambda _: stage.controller())
    assert cli.main(["pause", "Pant", "--for", "7d"]) == Exit.USAGE
    assert "similar names: 'Paint'" in capsys.readouterr().err
    assert cli.main(["pause", "Paint", "--for", "32d"]) == Exit.USAGE
    assert cli.main(["pause", "--for", "7d"]) == Exit.USAGE
    assert cli.main(["pause", "Paint", "--for", "7d", "--reason", "audit"]) == Exit.OK
    assert cli.main(["pause", "Weld", "--for", "31d"]) == Exit.OK
    capsys.readouterr()
    assert cli.main(["why", "Paint"]) == Exit.OK
    shown = capsys.readouterr().out
    assert "Paint: Held" in shown
    assert "`reconciler resume GROUP` ends the pause" in shown
    assert cli.main(["resume", "Pain"]) == Exit.OK
    assert capsys.readouterr().out == "group Pain is not paused; paused are Paint, Weld\n"
    assert cli.main(["resume", "Paint"]) == Exit.OK
    assert "Paint resumed; it was paused until" in capsys.readouterr().out
    assert cli.main(["resume"]) == Exit.OK
    assert read_marks(GROUP_PAUSES_RECORD, stage.platform.records(), stage.wall).keys() == {"Weld"}
