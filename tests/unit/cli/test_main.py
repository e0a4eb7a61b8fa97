"""The command line: options that exclude each other, exit codes, messages that name the variable."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.cli import main as cli
from reconciler.cli.runserver import make_environment
from reconciler.settings import load


@pytest.fixture(autouse=True)
def _required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings of an installation that does not exist."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_BROKER", "broker:9092")
    monkeypatch.setenv("KSQLDB_URL", "http://user:secret@127.0.0.1:1")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")


def parsed(*arguments: str) -> argparse.Namespace:
    """Return the options of a command line."""
    return cli.make_parser().parse_args(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--dry-run", "teardown"),
        ("--dry-run", "runserver"),
        ("--allow-empty",),
        ("--accept-identity",),
        ("--approve", "abc"),
        ("bogus",),
        ("plan", "-o", "xml"),
        ("--once", "--timeout", "nan"),
        ("--once", "--timeout", "inf"),
        ("deploy", "--timeout", "-1"),
        ("migrate", "--timeout", "soon"),
    ],
    ids=" ".join,
)
def test_an_invalid_combination_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    """A dry run never writes, and an approval is for one run."""
    try:
        code = cli.main(arguments)
    except SystemExit as exit_:  # argparse's own way out
        code = int(exit_.code or 0)
    assert code == 2


def test_an_option_before_the_command_is_kept() -> None:
    """--no-prune deploy does not prune, and the command's own value wins where both are given."""
    assert parsed("--no-prune", "--timeout", "9", "deploy").no_prune
    assert parsed("--no-prune", "--timeout", "9", "deploy").timeout == 9
    assert parsed("--timeout", "9", "deploy", "--timeout", "8").timeout == 8
    assert parsed("plan").detailed_exitcode is False
    assert parsed("-o", "json", "status").output == "json"


@pytest.mark.parametrize("command", ["plan", "status"])
def test_an_unreachable_server_is_a_runtime_error(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, one line, nothing on standard output, no password."""
    assert cli.main([command]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "secret" not in printed.err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KSQLDB_URL", "http://[bad"),
        ("KSQLDB_CA_FILE", "/nonexistent"),
        ("GROUPING_STRATEGY", "x"),
        ("KAFKA_BROKER", ""),
        ("GROUPS_FILE", "/no/such/groups.toml"),
        ("GROUPS_FILE", __file__),  # a text that is no TOML
    ],
)
def test_a_bad_setting_is_exit_2_with_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    """One line that names the variable, no traceback."""
    monkeypatch.setenv(name, value)
    assert cli.main(["plan"]) == 2
    assert name in capsys.readouterr().err


def test_help_names_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """Each code has its meaning in --help."""
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "3  changes are pending" in capsys.readouterr().out


def test_runserver_hands_over_the_routing_layers_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A routing layer in a terminal has the same limits and mode as a deployed one."""
    monkeypatch.setenv("DEPLOYMENT_PLATFORM", "docker")
    monkeypatch.setenv("REGISTRY_DIR", str(tmp_path))
    monkeypatch.setenv("ROUTING_MODE", "redirect")
    monkeypatch.setenv("ROUTING_LAYER_IDLE_TIMEOUT", "90")
    monkeypatch.setenv("DRAIN_SECONDS", "60")
    given = make_environment(load())
    assert given["ROUTING_MODE"] == "redirect"
    assert given["IDLE_TIMEOUT"] == "90"
    assert given["DRAIN_SECONDS"] == "", "the operator's own means something else to the routing layer"
    assert "CONNECT_TIMEOUT" not in given
    assert given["REGISTRY_FILE"].startswith(str(tmp_path))


def test_a_command_loads_only_what_it_needs() -> None:
    """The web server and the engine's SDK are half of the processor time of a start; most commands need one or none."""
    program = (
        "import sys, reconciler.cli.main; print(sorted({'docker', 'aiohttp', 'jinja2', 'structlog'} & {*sys.modules}))"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "['structlog']\n"
