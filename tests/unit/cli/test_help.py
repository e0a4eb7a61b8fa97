"""``--help`` of every command and shell completion: they name only commands, options and variables that exist."""

from __future__ import annotations

import argparse
import re
import subprocess
from pathlib import Path

import pytest

from reconciler.cli import main as cli
from reconciler.cli.help import EXITS, MAIN, PAGES
from reconciler.control.converge import Exit
from reconciler.settings import Settings


def commands() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of every command."""
    (action,) = (one for one in cli.make_parser()._actions if isinstance(one, argparse._SubParsersAction))
    return dict(action.choices)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what a command line prints that ends at once."""
    try:
        assert cli.main(arguments) == 0
    except SystemExit as exit_:  # argparse's own way out
        if exit_.code:
            raise
    return capsys.readouterr().out


@pytest.mark.parametrize("command", [(), *((name,) for name in sorted(commands()))], ids="".join)
def test_help_fits_a_terminal_and_says_how_it_ends(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """80 columns, whole sentences, exit codes and an example for every command."""
    monkeypatch.setenv("COLUMNS", "80")
    text = printed(capsys, *command, "--help")
    assert max(map(len, text.splitlines())) <= 80
    assert "exit codes:\n  0  " in text
    assert "\nexamples:\n" in text
    assert re.search(r"\.\n\n(options|positional)", text)


def test_every_page_is_of_a_command_that_exists() -> None:
    """Pages, exit codes, variables and options in examples are those that there are."""
    there = commands()
    assert set(PAGES) >= set(there)
    assert set(EXITS) == set(Exit)
    for name, page in {"": MAIN, **{name: PAGES[name] for name in there}}.items():
        assert {variable.lower() for variable in page.variables} <= set(Settings.model_fields), name
        assert page.examples
        for line, _ in page.examples:
            _parse_example(line)


def _parse_example(line: str) -> None:
    """Let the parser itself judge the command line in an example."""
    words = re.split(r" (?:[|>])|\)\"", line)[0].split("reconciler ", 1)
    if len(words) > 1 and "COMMAND" not in words[1]:
        cli.make_parser().parse_args(re.findall(r"'[^']*'|\S+", words[1]))


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("reconciler pla", {"plan"}),
        ("reconciler plan --det", {"--detailed-exitcode"}),
        ("reconciler plan -o ", {"text", "json", "markdown"}),
        ("reconciler schema ", {"plan", "status", "events"}),
        ("reconciler completion z", {"zsh"}),
        ("reconciler --onc", {"--once"}),
        ("reconciler xyz", set()),
    ],
)
def test_bash_completes(typed: str, offered: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real bash, with the script that the command prints, offers what the parser knows."""
    script = tmp_path / "completion"
    script.write_text(printed(capsys, "completion", "bash"))
    words = typed.split(" ")
    asked = (
        f"source {script}; COMP_WORDS=({' '.join(word or chr(39) * 2 for word in words)}); COMP_CWORD={len(words) - 1};"
        f" COMP_LINE={typed!r}; COMP_POINT={len(typed)};"
        " run=$(complete -p reconciler | sed 's/.* -F \\([^ ]*\\) .*/\\1/');"
        f" $run reconciler {words[-1]!r} {words[-2]!r}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered
    assert done.stderr == ""


def complete_group(script: Path, typed: str, shell: str = "bash") -> list[str]:
    """Complete the name of a group; the running operator is a function of the shell."""
    known = "reconciler() { [ \"$1\" = __groups ] && printf '%s\\n' Weld 'Weld 2' \"O'Brien\" '$(pwd)'; }"
    asked = f'{known}; source {script}; _reconciler_groups "$@"'
    done = subprocess.run([shell, "-c", asked, shell, typed], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


def test_bash_completes_the_groups_of_the_running_operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names with blanks, which bash would split, are left out; none is executed; `why` offers them."""
    script = tmp_path / "completion"
    script.write_text(printed(capsys, "completion", "bash"))
    assert complete_group(script, "We") == ["Weld"]
    assert complete_group(script, "") == ["Weld", "O'Brien", "$(pwd)"]
    assert re.search(r"_why\w*_COMPGEN=_reconciler_groups", script.read_text())


def test_without_operator_and_settings_no_group_is_offered(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A shell that completes shows no error."""
    monkeypatch.chdir(tmp_path)
    assert printed(capsys, "__groups") == "\n"
    monkeypatch.setenv("KAFKA_BROKER", "b:9092")
    monkeypatch.setenv("KSQLDB_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("RECONCILER_PORT", "1")
    assert printed(capsys, "__groups") == "\n"
    assert "__groups" not in printed(capsys, "--help")


MISTYPED = [
    (("pln",), "did you mean plan?"),
    (("plan", "-o", "jsn"), "did you mean json?"),
    (("plan", "--detailed-exitcod", "x"), "unrecognized arguments"),
    (("plan", "--detialed-exitcode"), "did you mean --detailed-exitcode?"),
    (("--onec",), "did you mean --once?"),
    (("completion", "bsh"), "did you mean bash?"),
]


@pytest.mark.parametrize(("arguments", "hint"), MISTYPED)
def test_what_may_be_meant_is_named(arguments: tuple[str, ...], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands, values of options, options."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert hint in capsys.readouterr().err


def test_what_is_like_nothing_has_no_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """Rather none than a wrong one."""
    for typed in ("zzzz", "--zzzz"):
        with pytest.raises(SystemExit):
            cli.main([typed])
    assert "did you mean" not in capsys.readouterr().err


def test_zsh_gets_a_script_with_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """The script for zsh names itself and every command."""
    text = printed(capsys, "completion", "zsh")
    assert text.startswith("#compdef reconciler")
    assert all(f"    {name}:'" in text for name in commands())
