"""Exit codes of the command line when the reader leaves, the disk is full, or the input ends."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler import __version__
from reconciler.cli.output import OutputFailed, tolerant_echo

ROOT = Path(__file__).resolve().parents[3]


def environment(directory: Path) -> dict[str, str]:
    """Return an environment in which nothing answers."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HOME": str(directory),
        "KAFKA_BROKER": "b:9092",
        "KSQLDB_URL": "http://127.0.0.1:1",
        "DOCKER_HOST": "tcp://127.0.0.1:1",
    }


def shell(line: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a line with ``reconciler`` in it by a real shell; the exit codes of its parts are the last line of output."""
    program = f'reconciler() {{ {sys.executable} -m reconciler "$@"; }}; {line}; echo "${{PIPESTATUS[@]}}" >&2'
    done = subprocess.run(
        ["bash", "-c", program], env=environment(directory), cwd=directory, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done


@pytest.mark.parametrize("command", ["settings", "settings -o json", "--help", "completion bash", "schema status"])
def test_a_reader_that_leaves_is_no_error(command: str, tmp_path: Path) -> None:
    """`| head -1`: no word about it; the exit code is the one of a program that SIGPIPE ends, or 0."""
    done = shell(f"reconciler {command} | true", tmp_path)
    assert done.stderr.split()[0] in ("0", "141"), done.stderr


def test_a_disk_that_is_full_is_said(tmp_path: Path) -> None:
    """One line, exit code 1."""
    done = shell("reconciler settings >/dev/full", tmp_path)
    assert done.stderr.splitlines() == ["reconciler: the output cannot be written: No space left on device", "1"]


def test_a_lost_log_does_not_change_the_exit_code(tmp_path: Path) -> None:
    """What standard error does not take is dropped; the exit code is of what was done."""
    assert shell("reconciler plan 2>/dev/full", tmp_path).stderr == "1\n"


def test_closed_outputs_are_no_error(tmp_path: Path) -> None:
    """As under a supervisor that gives none."""
    assert shell("reconciler settings >&- 2>/dev/null", tmp_path).stderr == "0\n"
    assert shell("reconciler plan 2>&-", tmp_path).stderr == "1\n"


def test_a_terminal_that_cannot_show_a_sign_gets_it_escaped(tmp_path: Path) -> None:
    """PYTHONIOENCODING, or an old locale."""
    line = (
        "DOCKER_NETWORK=x KSQLDB_USERNAME=溶接 KSQLDB_PASSWORD=x PYTHONIOENCODING=ascii reconciler settings | grep 6eb6"
    )
    assert "\\u6eb6\\u63a5" in shell(line, tmp_path).stdout


@pytest.mark.parametrize("typed", [b"\x04", b"n\n", b"\n"], ids=["ctrl-d", "no", "enter"])
def test_a_question_that_is_not_answered_with_yes_is_a_no(typed: bytes, tmp_path: Path) -> None:
    """Ctrl-D at teardown's question: nothing was removed, exit code 0."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "reconciler", "teardown"]
    process = subprocess.Popen(
        command, env=environment(tmp_path), cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    printed = b""
    while b"[y/N]" not in printed:
        printed += os.read(ours, 1024)
    os.write(ours, typed)
    assert process.wait(30) == 0
    os.set_blocking(ours, False)
    with contextlib.suppress(OSError):  # all of it is read, or the other end is closed
        printed += os.read(ours, 65536)
    os.close(ours)
    assert b"Traceback" not in printed
    assert b"removed" not in printed


@pytest.mark.parametrize("program", ["reconciler", "routing_layer"])
def test_the_version_is_the_packages(program: str, tmp_path: Path) -> None:
    """One place says it, and no setting is needed."""
    done = subprocess.run(
        [sys.executable, "-m", program, "--version"],
        env={"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == __version__


def test_a_closed_input_is_no_error(tmp_path: Path) -> None:
    """As under a supervisor without one: the command asks nothing and ends as usual."""
    assert shell("reconciler teardown <&-", tmp_path).stderr.splitlines()[-1] == "1"


def test_output_that_is_lost_ends_nothing_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has to be done is done, and afterwards the command ends as one whose output is lost."""
    said: list[str] = []

    def lost(text: str) -> None:
        said.append(text)
        raise OutputFailed(BrokenPipeError(32, "Broken pipe"))

    monkeypatch.setattr("reconciler.cli.output.echo", lost)
    done = []

    def work() -> None:
        with tolerant_echo() as say:
            for number in range(3):
                done.append(number)
                say(str(number))

    with pytest.raises(OutputFailed):
        work()
    assert (done, said) == ([0, 1, 2], ["0"])
