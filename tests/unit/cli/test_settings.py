"""`reconciler settings`: what is in force, where it came from, what is wrong, and never a secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli import main as cli
from reconciler.cli.settings import DOCKER
from reconciler.settings import Settings

FORMS = ("text", "json", "markdown")


@pytest.fixture(autouse=True)
def _required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings of an installation that is not there; none of them is asked for anything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_BROKER", "broker:9092")
    monkeypatch.setenv("KSQLDB_URL", "http://ksqldb:8088")
    for name in DOCKER:
        monkeypatch.delenv(name, raising=False)


def shown(capsys: pytest.CaptureFixture[str], form: str = "json", code: int = 0) -> str:
    """Run the command and return its output."""
    assert cli.main(["settings", "-o", form]) == code
    return capsys.readouterr().out


def row(text: str, name: str) -> dict[str, Any]:
    """Return one variable of the JSON form."""
    [found] = [each for each in json.loads(text)["rows"] if each["name"] == name]
    return dict(found)


@pytest.mark.parametrize("form", FORMS)
def test_every_variable_is_shown(capsys: pytest.CaptureFixture[str], form: str) -> None:
    """Ours by their names, and Docker's three."""
    text = shown(capsys, form)
    assert [name for name in (*Settings.model_fields, *DOCKER) if name.upper() not in text] == []


@pytest.mark.parametrize("form", FORMS)
def test_variables_of_services_are_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    """They may have what should be a secret; one that is refused is not shown either."""
    monkeypatch.setenv("FASTAPI_GROUP_ENV", "KEY=sesame")
    monkeypatch.setenv("STATE_API_ENV", "PORT=sesame")
    text = shown(capsys, form, code=2)
    assert "set by the operator itself" in text
    monkeypatch.delenv("STATE_API_ENV")
    text += shown(capsys, form)
    assert "sesame" not in text
    assert "***" in text


def test_the_value_in_force_has_its_origin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The environment wins over `.env`, that over the default; an empty variable is none; durations are seconds."""
    Path(".env").write_text("LOG_LEVEL=debug\nPRUNE_GRACE=2m\nDOCKER_NETWORK=plant\n")
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    monkeypatch.setenv("DOCKER_NETWORK", "")
    found = {one["name"]: (one["value"], one["origin"]) for one in json.loads(shown(capsys))["rows"]}
    assert found["LOG_LEVEL"] == ("error", "environment")
    assert found["PRUNE_GRACE"] == ("120", ".env")
    assert found["DOCKER_NETWORK"] == ("plant", ".env")
    assert found["DRAIN_SECONDS"] == ("10", "default")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [False, True])
def test_no_secret_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str, *, bad: bool
) -> None:
    """Neither the password nor what a URL carries, also where another variable is wrong."""
    monkeypatch.setenv("KSQLDB_USERNAME", "alice")
    monkeypatch.setenv("KSQLDB_PASSWORD", "sesame")
    monkeypatch.setenv("KSQLDB_URL", "http://bob:sesame@ksqldb:8088")
    monkeypatch.setenv("DOCKER_HOST", "tcp://carol:sesame@engine:2375")
    if bad:
        monkeypatch.setenv("KSQLDB_SERVICE_URL", "bob:sesame@nowhere")
    text = shown(capsys, form, code=2 if bad else 0)
    assert "sesame" not in text
    assert "http://***@ksqldb:8088" in text


def test_a_secret_from_a_file_names_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Where it came from is the file, what it is stays there."""
    (tmp_path / "user").write_text("alice\n")
    (tmp_path / "password").write_text("sesame\n")
    monkeypatch.setenv("KSQLDB_USERNAME_FILE", str(tmp_path / "user"))
    monkeypatch.setenv("KSQLDB_PASSWORD_FILE", str(tmp_path / "password"))
    text = shown(capsys)
    assert row(text, "KSQLDB_PASSWORD") == {
        "name": "KSQLDB_PASSWORD",
        "value": "***",
        "origin": f"file {tmp_path / 'password'}",
        "problem": "",
    }
    assert "sesame" not in text


@pytest.mark.parametrize("form", FORMS)
def test_a_bad_value_is_shown_with_its_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    """All the others are still shown; exit code 2, as the operator itself would end."""
    monkeypatch.setenv("PRUNE_GRACE", "soon")
    monkeypatch.delenv("KAFKA_BROKER")
    text = shown(capsys, form, code=2)
    assert "PRUNE_GRACE='soon': 'soon' is not a duration" in text
    assert "KAFKA_BROKER is required and not set" in text
    assert "REGISTRY_ROLL_AFTER" in text


def test_what_looks_like_a_typo_is_pointed_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the environment and in `.env`; the proxy's variables and those of others are none."""
    monkeypatch.setenv("RECONCILE_INTERVALL", "5")
    monkeypatch.setenv("IDLE_TIMEOUT", "5")
    monkeypatch.setenv("ROUTING_LAYER_WORKERS", "2")
    Path(".env").write_text("KSQLDB_UNS_MAPP=x\nDOCKER_HOST=tcp://engine:2375\nPOSTGRES_URL=x\n")
    found = {
        variable["name"]: (variable["origin"], variable["hint"]) for variable in json.loads(shown(capsys))["unknown"]
    }
    assert found == {
        "RECONCILE_INTERVALL": ("environment", "did you mean RECONCILE_INTERVAL?"),
        "KSQLDB_UNS_MAPP": (".env", "did you mean KSQLDB_UNS_MAP?"),
        "DOCKER_HOST": (".env", "it is only read from the environment"),
    }


@pytest.mark.parametrize("value", ["auto", "on", "off", "nonsense"])
def test_a_variable_of_an_earlier_version_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    """It is no error, whatever its value: the operator starts, and says that it is no longer read."""
    monkeypatch.setenv("GROUPS_TABLE", value)
    (variable,) = json.loads(shown(capsys))["unknown"]
    hint = "it is no longer read: groups are always read from the UNS map itself; remove it"
    assert variable == {"name": "GROUPS_TABLE", "origin": "environment", "hint": hint}


@pytest.mark.parametrize("form", FORMS)
def test_a_hostile_value_reaches_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    """Control sequences are refused and shown escaped."""
    monkeypatch.setenv("DOCKER_NETWORK", "\x1b]0;x\x07net")
    text = shown(capsys, form, code=2)
    assert "\x1b" not in text
    assert "\\x1b" in text
