"""What commands share: the parser of a command, common options, output, and the progress display."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from openfactory_common.errors import ConfigurationError
from openfactory_common.text import printable, printable_json, printable_lines
from reconciler.cli.help import PAGES, wrap
from reconciler.control.converge import Exit
from reconciler.control.outcome import CycleOutcome
from reconciler.domain.status import Condition, CycleResult, Plan
from reconciler.planning.survey import Survey
from reconciler.report.text import show_titles, status_json, status_markdown, status_notes, status_text

#: Longest time to converge, in seconds.
_MAX_TIMEOUT = 7 * 24 * 3600.0
#: Objects that a progress line names.
_NAMED = 5


class OutputFailed(Exception):
    """Standard output cannot be written.

    Attributes:
        reader_left: the reader has closed its end, as `head` does.
    """

    def __init__(self, error: OSError) -> None:
        """Keep the reason."""
        super().__init__(f"the output cannot be written: {error.strerror}")
        self.reader_left = isinstance(error, BrokenPipeError)


def add_command(
    commands: Any, name: str, run: Callable[..., int], *, needs_settings: bool = True
) -> argparse.ArgumentParser:
    """Register the command ``name``, which ``run`` executes with the options and, unless not needed, the settings.

    The docstring of ``run`` is the command's help; its first line stands in the list of commands.
    """
    text = inspect.getdoc(run) or ""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text.partition("\n")[0].rstrip("."),
        description=wrap(text),
        epilog=PAGES[name].epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # a default here would undo an option before the command
    )
    parser.set_defaults(run=run, needs_settings=needs_settings)
    return parser


def add_output_option(parser: argparse.ArgumentParser, *choices: str) -> None:
    """Add ``-o`` with these formats."""
    text = "output format (text)"
    parser.add_argument("-o", "--output", choices=choices or ("text", "json", "markdown"), help=text)


def complete_groups(argument: argparse.Action) -> None:
    """Let a shell complete the names of groups, which the running operator knows."""
    argument.complete = dict.fromkeys(("bash", "zsh"), "_reconciler_groups")  # type: ignore[attr-defined]


def add_adopt_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--adopt``; it names exactly one installation, so a loop may have it too."""
    text = "adopt objects of installation ID when its record is missing; 'legacy': objects from before there were ids"
    parser.add_argument("--adopt", metavar="ID", help=text)


def add_timeout_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--timeout``."""
    parser.add_argument("--timeout", type=_parse_timeout, metavar="S", help="seconds to converge within (300)")


def _parse_timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _MAX_TIMEOUT:
        raise argparse.ArgumentTypeError(f"{text!a} is not a number of seconds from 0 to {_MAX_TIMEOUT:.0f}")
    return seconds


@contextlib.contextmanager
def checked_stdout() -> Iterator[None]:
    """Write to standard output inside; only its own failure raises `OutputFailed`."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        raise OutputFailed(error) from None


def echo(text: str) -> None:
    """Write to standard output, which has what was asked for and nothing else."""
    with checked_stdout():
        print(text)  # noqa: T201 - this is the output


def make_json(**document: object) -> str:
    """Return a small document for programs, in one line."""
    return printable_json(json.dumps(document, ensure_ascii=False))


@contextlib.contextmanager
def tolerant_echo() -> Iterator[Callable[[str], None]]:
    """Give an `echo` for work that must be completed even if standard output fails.

    Raises:
        OutputFailed: at the end, if something could not be written.
    """
    failures: list[OutputFailed] = []

    def echo_until_failure(text: str) -> None:
        if not failures:
            try:
                echo(text)
            except OutputFailed as failed:
                failures.append(failed)

    yield echo_until_failure
    if failures:
        raise failures[0]


def echo_error(text: str) -> None:
    """Write a message to standard error, if it is open."""
    with contextlib.suppress(OSError):
        print(f"reconciler: {printable_lines(text)}", file=sys.stderr, flush=True)  # noqa: T201 - this is the output


def echo_summary(code: Exit, outcome: CycleOutcome) -> None:
    """Write to standard error how the command ended, in one line."""
    echo_error(f"{printable(outcome.sentence)} (exit {code})")


def echo_status(output: str, plan: Plan | None, survey: Survey | None, first: str = "") -> None:
    """Write the status in the format of ``-o``, after ``first`` on a terminal; nothing without a full read."""
    if plan is None or survey is None:
        return
    if output == "text" and sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415 - 70 ms of processor time, for terminals only

        from reconciler.report.table import status_table  # noqa: PLC0415

        console = Console()
        with checked_stdout():
            sys.stdout.write(first)
            console.print(status_table(plan, console.width), soft_wrap=True)
        echo("\n".join(status_notes(plan, survey)))
    else:
        render = {"text": status_text, "json": status_json, "markdown": status_markdown}[output]
        echo(render(plan, survey))


def ask_to_go_on(question: str, *, yes: bool) -> bool:
    """Ask on a terminal, unless ``--yes`` was given; an end of the input (Ctrl-D) is a no.

    Raises:
        ConfigurationError: there is no terminal to ask on.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigurationError("there is no terminal to ask on: --yes goes on without the question")
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        echo("")
        return False


@contextlib.contextmanager
def show_progress() -> Iterator[Callable[[CycleOutcome], None]]:
    """Show each cycle on standard error: a table on a terminal, otherwise a line when the reason to wait changes."""
    if not sys.stderr.isatty():
        yield ProgressLines(echo_error).show
        return
    from rich.console import Console, Group  # noqa: PLC0415 - 70 ms of processor time, for terminals only
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from reconciler.report.table import status_table  # noqa: PLC0415

    console = Console(stderr=True)
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield lambda outcome: live.update(
            Group(
                *([status_table(outcome.plan, console.width)] if outcome.plan else []),
                Text(printable(outcome.sentence), style="dim"),
            )
        )


class ProgressLines:
    """Writes what a command waits for, when that changes; a number that changes is no news."""

    def __init__(self, write: Callable[[str], None]) -> None:
        """Write lines with ``write``."""
        self._write = write
        self._before = ""

    def show(self, outcome: CycleOutcome) -> None:
        """Show one more cycle."""
        text = describe_waiting(outcome)
        kind = re.sub(r"\b\d+(\.\d+)?\b", "0", text)
        if text and kind != self._before:
            self._write(text)
        self._before = kind


def describe_waiting(outcome: CycleOutcome) -> str:
    """Return what is not settled after a cycle, with the reasons; ``""`` for nothing."""
    if outcome.plan is None:
        return f"waiting: {printable(outcome.sentence)}"
    titles = show_titles(outcome.plan.items)
    fine = (Condition.READY, Condition.HELD, Condition.ASLEEP)
    waiting = [item for item in outcome.plan.items if item.condition not in fine]
    parts = [printable(outcome.sentence)] if outcome.result in (CycleResult.PAUSED, CycleResult.STANDBY) else []
    parts += [f"refused by {refusal.guard}: {printable(refusal.text)}" for refusal in outcome.plan.refusals]
    for item in waiting[:_NAMED]:
        reason = printable(item.detail) or f"{item.running} of {item.wanted} tasks are running and healthy"
        parts.append(f"{titles[item.title]}: {reason}")
    if len(waiting) > _NAMED:
        parts.append(f"and {len(waiting) - _NAMED} more")
    return f"waiting: {'; '.join(parts)}" if parts else ""
