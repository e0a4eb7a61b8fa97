"""T33: a pause holds writes back on every operator and over restarts; it ends, and says who, how long and why."""

from __future__ import annotations

from datetime import timedelta

import pytest

from openfactory_common.errors import PlatformConflict
from reconciler.control.converge import Exit, converge
from reconciler.domain.services import Record
from reconciler.leadership.pause import LONGEST_PAUSE, Pause, end_pause, parse, read_pause, start_pause, write_pause
from tests.harness.fakes import NOW, Stage


@pytest.fixture
def stage() -> Stage:
    """Two groups settled, and a third that is new."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "Weld", "b": "Paint"}
    stage.settle(stage.controller())
    stage.ksqldb.assets["c"] = "Laser"
    return stage


def test_it_survives_a_restart_and_ends_by_itself(stage: Stage) -> None:
    """Each fresh operator finds it, looks, plans, exports and says so; after its end the next cycle writes."""
    write_pause(stage.platform, start_pause(stage.wall, 1800, "ana@shell", "press maintenance"))
    before = stage.writes
    for _ in range(3):
        controller = stage.controller()
        outcome = controller.cycle()
        assert outcome.result == "paused"
        assert "paused until 2026-01-01 00:30:00 UTC by ana@shell: press maintenance" in outcome.sentence
        assert outcome.plan is not None
        assert "2 writes wait" in outcome.sentence
        assert outcome.plan.notes == ("paused until 2026-01-01 00:30:00 UTC by ana@shell: press maintenance",)
        assert _shown(controller.reporter.metrics.paused) == 1
        assert _shown(controller.reporter.metrics.desired) == 3
    assert stage.writes == before
    stage.wall += timedelta(seconds=1800)
    assert controller.cycle().result == "changed"
    assert _shown(controller.reporter.metrics.paused) == 0


def test_resume_ends_it_and_a_vanished_record_does_not(stage: Stage) -> None:
    """Teardown removes the record while operators run: those keep to it. An end is said, not guessed."""
    write_pause(stage.platform, start_pause(stage.wall, 1800, "ana@shell"))
    controller = stage.controller()
    assert controller.cycle().result == "paused"
    stage.platform.kept_records.clear()
    assert controller.cycle().result == "paused"
    write_pause(stage.platform, end_pause("ben@shell"))
    assert controller.cycle().result == "changed"


def test_once_is_refused_and_names_who_why_and_until(stage: Stage) -> None:
    """Exit code 4 at once, not after the time limit."""
    write_pause(stage.platform, start_pause(stage.wall, 60, "ana@shell", "audit"))
    before = stage.writes
    code, outcome = converge(stage.controller(), 300, sleep=lambda _: pytest.fail("it waits"))
    assert code is Exit.REFUSED
    assert "paused until 2026-01-01 00:01:00 UTC by ana@shell: audit" in outcome.sentence
    assert stage.writes == before


def test_a_jump_of_the_wall_clock_ends_a_pause_and_no_grace_time(stage: Stage) -> None:
    """T37: the end of a pause is a time of day and may come early; a removal waits by the monotonic clock."""
    controller = stage.controller()
    stage.settle(controller)
    write_pause(stage.platform, start_pause(stage.wall, 3600, "ana@shell"))
    del stage.ksqldb.assets["b"]
    for _ in range(4):
        assert controller.cycle().result == "paused"
        stage.now += 1.0
    stage.wall += timedelta(days=365)
    stage.run(controller, 20, 1.0)
    assert "ofa_group_paint" in stage.platform.services
    assert "ASSET_STREAM_PAINT" in stage.ksqldb.made
    stage.wall -= timedelta(days=730)
    stage.run(controller, 20, 1.0)
    assert "ofa_group_paint" in stage.platform.services


def test_grace_goes_on_while_paused(stage: Stage) -> None:
    """A paused operator goes on reading: a group that was missing all the time may go as soon as the pause ends."""
    controller = stage.controller()
    stage.settle(controller)
    write_pause(stage.platform, start_pause(stage.wall, 3600, "ana@shell"))
    del stage.ksqldb.assets["b"]
    stage.run(controller, 30)
    assert "ofa_group_paint" in stage.platform.services
    write_pause(stage.platform, end_pause("ana@shell"))
    stage.settle(controller)
    assert "ofa_group_paint" not in stage.platform.services


@pytest.mark.parametrize(
    "fields", [{}, {"until": "for ever"}, {"until": "9999-12-31T00:00:00Z"}, {"until": "2026-01-03T00:00:00Z"}]
)
def test_a_record_that_was_spoilt_by_hand_pauses_nothing_for_ever(fields: dict[str, str]) -> None:
    """No command can set an end more than a day ahead, so such an end counts for nothing."""
    assert not parse(fields).active(NOW)


def test_it_is_read_as_it_was_written() -> None:
    """To the second; texts are cut to what a label should hold."""
    pause = start_pause(NOW, 90, "ana@shell", "x" * 999)
    again = parse(pause.fields)
    assert again == Pause(NOW + timedelta(seconds=90), "ana@shell", "x" * 200)
    assert start_pause(NOW, 1e12, "ana@shell").until == NOW + timedelta(seconds=LONGEST_PAUSE)
    assert "\x1b" not in Pause(NOW, "ana\x1b[2J", "\x07").text


def test_writers_at_the_same_time_do_not_lose_a_pause() -> None:
    """Another party changes the record between the look and the write: it is looked at again."""
    stage = Stage()
    write_pause(stage.platform, start_pause(NOW, 60, "ana@shell"))
    interfered = []

    def interfere(call: str) -> None:
        if call == "write_record" and not interfered:
            interfered.append(call)
            write_pause(stage.platform, end_pause("ben@shell"))

    stage.platform.fault = interfere
    write_pause(stage.platform, start_pause(NOW, 90, "cleo@shell"))
    seen = read_pause(None, stage.platform.records())
    assert seen == Pause(NOW + timedelta(seconds=90), "cleo@shell")


def test_a_record_that_is_always_taken_is_an_error() -> None:
    """It is not tried for ever."""
    stage = Stage()

    def take(call: str) -> None:
        if call == "write_record":
            raise PlatformConflict("update out of sequence")

    stage.platform.fault = take
    stage.platform.kept_records["pause"] = Record("x", 1, "pause", {})
    with pytest.raises(PlatformConflict):
        write_pause(stage.platform, end_pause("ana@shell"))


def _shown(gauge: object) -> float:
    return float(gauge._value.get())  # type: ignore[attr-defined]
