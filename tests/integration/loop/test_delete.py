"""`delete GROUP`: the count and the time are left out, and every other rule holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from openfactory_common.errors import PlatformUnreachable
from reconciler.cli import groups as groups_command
from reconciler.cli import main as cli
from reconciler.cli import why as why_command
from reconciler.control.controller import Controller
from reconciler.domain.services import LiveService
from reconciler.leadership.pause import (
    DELETION_SECONDS,
    DELETIONS_RECORD,
    GROUP_PAUSES_RECORD,
    read_marks,
    start_pause,
    write_mark,
)
from tests.harness.fakes import WELL, Stage, unreachable

NINE = {f"a{n}": f"g{n}" for n in range(9)}


@pytest.fixture
def stage() -> Stage:
    """Ten groups settled, of which Paint has lost its asset just now, beside a service of a user."""
    stage = Stage(options={"prune_grace": 86400.0, "drain_seconds": 10.0, "delete_topics": False})
    stage.ksqldb.assets = {**NINE, "p": "Paint"}
    stage.platform.services["ofa_group_users"] = LiveService("u", 1, "ofa_group_users", None, None, 1)
    stage.settle(stage.controller())
    del stage.ksqldb.assets["p"]
    return stage


def ask(stage: Stage, group: str = "Paint") -> None:
    """Ask for the removal, as the command does."""
    mark = start_pause(stage.wall, DELETION_SECONDS, "ana@shell")
    write_mark(stage.platform, DELETIONS_RECORD, group, mark, stage.wall)


def asked(stage: Stage) -> set[str]:
    """Return the groups whose removal is asked for."""
    return set(read_marks(DELETIONS_RECORD, stage.platform.records(), stage.wall))


def run(stage: Stage, controller: Controller | None = None) -> list[str]:
    """Run cycles for two minutes and return what was removed, in order."""
    done: list[str] = []
    controller = controller or stage.controller()
    for _ in range(24):
        outcome = controller.cycle()
        if outcome.plan is not None and outcome.plan.removed:
            done.append("registry")
        done += [
            result.action.key for result in outcome.results if result.action.verb in ("remove_service", "drop_stream")
        ]
        stage.now += 5.0
    return done


def test_it_goes_at_once_and_in_the_usual_order(stage: Stage) -> None:
    """Registry, drain time, service, stream; the request ends with it, so a later absence has its grace time."""
    ask(stage)
    started = stage.now
    controller = stage.controller()
    assert run(stage, controller) == ["registry", "service ofa_group_Paint", "stream ASSET_STREAM_PAINT"]
    assert stage.now - started == 120
    assert asked(stage) == set()
    stage.ksqldb.assets["p"] = "Paint"
    stage.settle(controller)
    del stage.ksqldb.assets["p"]
    assert run(stage, controller) == []
    assert "ofa_group_users" in stage.platform.services


def test_without_a_request_it_waits(stage: Stage) -> None:
    """The grace time is a day here."""
    assert run(stage) == []


def mapped_again(stage: Stage) -> None:
    """An asset comes back."""
    stage.ksqldb.assets["q"] = "Paint"


def paused(stage: Stage) -> None:
    """The group is paused."""
    mark = start_pause(stage.wall, 600, "ana@shell")
    write_mark(stage.platform, GROUP_PAUSES_RECORD, "Paint", mark, stage.wall)


def kept_by_policy(stage: Stage) -> None:
    """Nothing may be removed."""
    stage.options["reconcile_policy"] = "upsert-only"


def unhealthy(stage: Stage) -> None:
    """It says itself that it cannot reach Kafka."""
    stage.ksqldb.well = replace(WELL, kafka=False)


def unanswered(stage: Stage) -> None:
    """The direct read of the map fails."""
    stage.ksqldb.fault = unreachable("members_directly")


def others_missing_too(stage: Stage) -> None:
    """Too many groups are missing at once."""
    for n in range(4):
        del stage.ksqldb.assets[f"a{n}"]


def expired(stage: Stage) -> None:
    """The request is older than an hour."""
    stage.wall += timedelta(seconds=DELETION_SECONDS)


def refused_without_answer(stage: Stage) -> None:
    """An asset comes back, and the record cannot be written."""

    def refuse(call: str) -> None:
        if call == "write_record":
            raise PlatformUnreachable("no leader")

    mapped_again(stage)
    stage.platform.fault = refuse


KEEPS: list[Callable[[Stage], None]] = [
    *(mapped_again, paused, kept_by_policy, unhealthy, unanswered, others_missing_too, expired, refused_without_answer)
]


@pytest.mark.parametrize("trouble", KEEPS)
def test_no_rule_but_the_count_and_the_time_is_left_out(stage: Stage, trouble: Callable[[Stage], None]) -> None:
    """Each of these keeps the group, with everything of it."""
    ask(stage)
    trouble(stage)
    assert run(stage) == []
    assert "ofa_group_paint" in stage.platform.services
    assert "ASSET_STREAM_PAINT" in stage.ksqldb.made


def test_the_direct_read_has_the_last_word(stage: Stage) -> None:
    """The table lacks an asset that Kafka has: the group stays for as long as the two differ."""
    ask(stage)
    controller = stage.controller()
    read = controller.deps.strategy.read_directly
    both = lambda at_least: replace(read(at_least), groups={**read(at_least).groups, "Paint": 1})  # noqa: E731
    controller.deps.strategy.read_directly = both  # type: ignore[method-assign]
    assert run(stage, controller) == []
    assert asked(stage) == {"Paint"}


@pytest.fixture
def shell(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Controller:
    """The command beside a running operator, which does a cycle whenever the command waits."""
    stage.wall = datetime.now(UTC)
    operator = stage.controller()

    def wait(_: float) -> None:
        operator.cycle()
        stage.now += 5.0

    for name, value in {"KAFKA_BROKER": "k:9092", "KSQLDB_URL": "http://k:8088", "RECONCILER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(groups_command, "build_platform", lambda *_: stage.platform)
    monkeypatch.setattr(why_command, "make_reader", lambda _: stage.controller())
    monkeypatch.setattr(groups_command.SIGNALS, "sleep", wait)
    return operator


@pytest.mark.usefixtures("shell")
def test_the_command_waits_until_it_is_gone(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """It shows the steps, and takes no answer for granted: without a terminal it needs --yes."""
    assert cli.main(["delete", "Paint"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert asked(stage) == set()
    assert cli.main(["delete", "Paint", "--yes"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "group Paint is removed\n"
    assert "waiting: drop stream ASSET_STREAM_PAINT" in shown.err
    assert "without a running operator nothing is removed" in shown.err
    assert asked(stage) == set()


REFUSED: list[tuple[Callable[[Stage], None], str]] = [
    (mapped_again, "it has 1 asset: move its assets first"),
    (paused, "`reconciler resume GROUP` comes first"),
    (kept_by_policy, "RECONCILE_POLICY=upsert-only"),
    (others_missing_too, "--approve"),
]


@pytest.mark.usefixtures("shell")
@pytest.mark.parametrize(("trouble", "text"), REFUSED)
def test_the_command_refuses_and_says_what_to_do(
    stage: Stage, capsys: pytest.CaptureFixture[str], trouble: Callable[[Stage], None], text: str
) -> None:
    """Exit code 4, and nothing is asked of the operator."""
    trouble(stage)
    assert cli.main(["delete", "Paint", "--yes"]) == 4
    assert text in capsys.readouterr().err
    assert asked(stage) == set()


@pytest.mark.usefixtures("shell")
def test_the_request_outlives_a_command_that_gave_up(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 5, and until when the operator still does it; an asset that comes meanwhile takes it back."""
    stage.ksqldb.well = replace(WELL, kafka=False)
    assert cli.main(["delete", "Paint", "--yes", "--timeout", "0"]) == 5
    assert "the request is valid until" in capsys.readouterr().err
    assert asked(stage) == {"Paint"}
    stage.ksqldb.well = WELL
    mapped_again(stage)
    assert cli.main(["delete", "Paint", "--yes"]) == 4
    stage.run(stage.controller(), 2)
    assert asked(stage) == set()


def test_an_older_scan_does_not_end_a_request(stage: Stage) -> None:
    """A first read that still has the asset is no reason: it goes all the same. Two in a row are."""
    ask(stage)
    controller = stage.controller()
    stage.ksqldb.assets["p"] = "Paint"
    controller.cycle()
    assert asked(stage) == {"Paint"}
    del stage.ksqldb.assets["p"]
    assert run(stage, controller)[-1] == "stream ASSET_STREAM_PAINT"
    ask(stage)
    stage.run(controller, 2)
    assert asked(stage) == set()
