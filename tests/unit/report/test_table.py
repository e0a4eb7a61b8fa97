"""What `status` shows on terminals of different widths, and in a pipe."""

from __future__ import annotations

import os
import pty
import sys

import pytest
from rich.cells import cell_len

from reconciler.cli.output import echo_status
from reconciler.domain.names import names_of
from reconciler.domain.status import Condition, ObjectStatus, Plan
from reconciler.report.table import status_table
from reconciler.report.text import plan_text, status_text
from tests.harness.fakes import FakeKsqldb, Stage

LONG = "GroupLongName_with_exactly_40_characters"
ERROR = "no suitable node (insufficient resources on 2 nodes; 1 down)"


def item(group: str, detail: str = "", condition: Condition = Condition.READY) -> ObjectStatus:
    """Return a group that is served."""
    names = names_of(group)
    url = f"http://{names.service}:8000/asset_stream"
    return ObjectStatus(f"group {group}", condition, "", detail, group, names, 12, 1, 1, url)


def shown(plan: Plan, width: int) -> list[str]:
    """Return the lines of a terminal of this width."""
    return status_table(plan, width).plain.splitlines()


PLAN = Plan(items=(item("Fit"), item(LONG, ERROR, Condition.DEGRADED), item("Painting Line 7")))


def test_a_wide_terminal_shows_every_column() -> None:
    """One line a group, in the order of the pipe, and nothing is said to be missing."""
    lines = shown(PLAN, 400)
    assert lines[0].split() == ["group", "condition", "members", "stream", "service", "tasks", "URL", "detail"]
    assert len(lines) == 4
    assert lines[2].endswith(ERROR)


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160, 200])
def test_no_name_and_no_word_is_broken(width: int) -> None:
    """Every group's line begins with its whole name; every word of a detail stands whole in a line that fits."""
    lines = shown(PLAN, width)
    for one in PLAN.items:
        assert any(line.startswith(f"{one.group}  ") and one.condition.value in line for line in lines)
    assert " ".join(" ".join(lines).split()).count("1/1") == 3
    assert all(any(word in line.split() for line in lines) for word in ERROR.split())
    assert max(map(cell_len, lines)) <= width


def test_80_columns_keep_what_does_not_follow_from_the_name() -> None:
    """Condition, members, tasks and the reason stay; what is left out is named, with where it is shown."""
    lines = shown(PLAN, 80)
    assert lines[0].split() == ["group", "condition", "members", "tasks"]
    assert lines[2:4] == [f"{LONG}  Degraded   12       1/1", f"    {ERROR}"]
    assert lines[-1] == "(no room for stream, service, URL: status -o json)"


def test_short_names_keep_their_details_beside_them() -> None:
    """Where there is room, a detail goes on under its own column."""
    lines = shown(Plan(items=(item("Fit"), item("Weld", ERROR, Condition.DEGRADED))), 80)
    assert lines[0].split() == ["group", "condition", "members", "tasks", "detail"]
    column = lines[0].index("detail")
    assert " ".join(line[column:] for line in lines[2:4]) == ERROR
    assert lines[3][:column].strip() == ""


def test_one_column_too_wide_costs_one_column() -> None:
    """No more is left out than has to be."""
    plan = Plan(items=(item("Fit"), item("Weld")))
    width = max(map(len, shown(plan, 400)))
    assert "stream" in shown(plan, width)[0].split()
    assert shown(plan, width - 1)[0].split() == ["group", "condition", "members", "service", "tasks", "URL"]


def test_members_go_before_a_line_is_longer_than_the_terminal() -> None:
    """Condition and tasks are the last to stay."""
    assert shown(PLAN, 60)[0].split() == ["group", "condition", "tasks"]
    assert LONG in shown(PLAN, 20)[2].split()


def test_what_is_empty_anyway_is_not_said_to_be_left_out() -> None:
    """A service of no group has no stream and no URL, on any terminal."""
    plan = Plan(items=(ObjectStatus("service ofa_state_api", Condition.READY, running=1, wanted=1),))
    assert shown(plan, 30)[1:] == ["service ofa_state_api  Ready      1/1"]


def test_columns_are_aligned_where_signs_take_two_cells() -> None:
    """A group with a Japanese name does not shift its row, on a terminal or in a pipe."""
    lines = shown(Plan(items=(item("溶接"), item("Weld"))), 80)
    assert cell_len(lines[1].partition("Ready")[0]) == cell_len(lines[2].partition("Ready")[0])


def test_a_pipe_has_every_column_whatever_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line a group with its whole name, for grep and awk; COLUMNS is for terminals."""
    monkeypatch.setenv("COLUMNS", "40")
    seen, _ = Stage(ksqldb=FakeKsqldb()).controller().observe()
    lines = status_text(PLAN, seen).splitlines()
    assert [line.split("  ")[0] for line in lines[1:4]] == ["Fit", LONG, "Painting Line 7"]
    assert all(f"http://ofa_group_{name}:8000" in line for name, line in zip(("Fit", LONG), lines[1:3], strict=True))


def test_a_real_terminal_gets_the_table_in_its_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """COLUMNS decides, a condition is coloured, and no line is broken by the table."""
    seen, _ = Stage(ksqldb=FakeKsqldb()).controller().observe()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        echo_status("text", PLAN, seen)
        terminal.flush()
        printed = os.read(ours, 65536).decode()
    os.close(ours)
    assert f"{LONG}  \x1b[31mDegraded\x1b[0m   12       1/1\r\n    {ERROR}\r\n" in printed
    assert "ASSET_STREAM_FIT" not in printed


def test_the_lines_of_a_plan_are_aligned_unless_a_name_is_very_long() -> None:
    """A long name shifts its own line, and not those of all the others."""
    names = ("Fit", "Final-Assembly-Hall-2", LONG)
    fit, hall, long, _ = plan_text(Plan(items=tuple(item(name, "why", Condition.HELD) for name in names))).splitlines()
    assert fit.index("why") == hall.index("why") == len(" group Final-Assembly-Hall-2 ")
    assert long.endswith(f"group {LONG} why")
