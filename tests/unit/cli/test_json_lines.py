"""What `pause`, `resume` and `teardown` say to programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli import main as cli
from reconciler.cli import pause, teardown
from reconciler.domain.actions import DropStream, Result
from reconciler.leadership.lease import LEASE_RECORD
from tests.harness.fakes import FakePlatform


@pytest.fixture(autouse=True)
def platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakePlatform:
    """Settings of an installation without an operator, and its platform."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("KAFKA_BROKER", "k:9092"), ("KSQLDB_URL", "http://127.0.0.1:1"), ("RECONCILER_PORT", "1")):
        monkeypatch.setenv(name, value)
    made = FakePlatform()
    made.close = lambda: None  # type: ignore[method-assign]
    monkeypatch.setattr(pause, "build_platform", lambda *_: made)
    return made


def printed(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> dict[str, Any]:
    """Run a command; return the one document that it prints."""
    assert cli.main([*arguments, "-o", "json"]) == code
    return dict(json.loads(capsys.readouterr().out))


def test_a_pause_and_its_end(capsys: pytest.CaptureFixture[str], platform: FakePlatform) -> None:
    """With what is recorded; what was paused before is known from the record."""
    made = printed(capsys, 0, "pause", "--for", "30m", "--reason", "half \u202e")
    assert made["unconfirmed"] is None
    assert made["pause"] == platform.kept_records["pause"].fields
    assert made["pause"]["reason"] == "half \u202e"
    assert printed(capsys, 0, "resume") == {"was": made["pause"], "known": True}
    assert printed(capsys, 0, "resume") == {"was": None, "known": True}
    del platform.kept_records["pause"]
    assert printed(capsys, 0, "resume") == {"was": None, "known": False}


def test_an_operator_that_does_not_confirm(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, platform: FakePlatform
) -> None:
    """It is named, and the exit code says it."""
    monkeypatch.setattr(pause, "wait_for_release", lambda *_: "op-1")
    assert printed(capsys, 5, "pause", "--for", "30m")["unconfirmed"] == "op-1"
    assert LEASE_RECORD not in platform.kept_records


@pytest.mark.parametrize(
    ("error", "result", "why"), [(None, "removed", None), (ValueError("has\nreaders"), "kept", "has\nreaders")]
)
def test_what_became_of_each_object(error: Exception | None, result: str, why: str | None) -> None:
    """A line for each."""
    line = teardown._describe(Result(DropStream("A", "Weld"), error), "json")
    assert "\n" not in line
    assert json.loads(line) == {"object": "stream A", "result": result, "error": why}
