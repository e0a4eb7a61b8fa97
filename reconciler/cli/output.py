"""What commands share: how a parser is made, and where output goes."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console

from openfactory_common.text import printable, printable_lines
from reconciler.cli.help import PAGES
from reconciler.control.converge import Exit
from reconciler.control.outcome import CycleOutcome
from reconciler.report import text as render
from reconciler.report.table import status_table

#: Longest time to converge in, in seconds.
_LONGEST = 7 * 24 * 3600.0


class OutputFailed(Exception):
    """Standard output does not take more.

    Attributes:
        nobody_reads: the reader has left, as `head` does.
    """

    def __init__(self, error: OSError) -> None:
        """Keep why."""
        super().__init__(f"the output cannot be written: {error.strerror}")
        self.nobody_reads = isinstance(error, BrokenPipeError)


def command(commands: Any, name: str, text: str, run: Callable[..., int]) -> argparse.ArgumentParser:
    """Register the command ``name``, which ``run(options, settings)`` carries out and returns the exit code of.

    Its page stands in the manual; ``text`` is the line about it in the list of commands.
    """
    page = PAGES[name]
    parser: argparse.ArgumentParser = commands.add_parser(
        # Without defaults of its own: an option that stands before the command must not be undone by it.
        name,
        help=text,
        description=page.description,
        epilog=page.epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.set_defaults(run=run)
    return parser


def output_option(parser: argparse.ArgumentParser) -> None:
    """Give a command ``-o``."""
    parser.add_argument(
        "-o",
        "--output",
        choices=("text", "json", "markdown"),
        help="format: for people, for machines, for a comment (text)",
    )


def adopt_option(parser: argparse.ArgumentParser) -> None:
    """Give a parser ``--adopt``, which names one installation and no more, so a loop takes it too."""
    parser.add_argument(
        "--adopt",
        metavar="ID",
        help="this is the installation ID, where no record says so; 'legacy': objects made before there were ids",
    )


def timeout_option(parser: argparse.ArgumentParser) -> None:
    """Give a parser ``--timeout``."""
    parser.add_argument("--timeout", type=_seconds, metavar="S", help="seconds to converge in (300)")


def _seconds(text: str) -> float:
    """Read a number of seconds that comes to an end.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!a} is no number of seconds from 0 to {_LONGEST:.0f}")
    return seconds


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Write to standard output inside.

    Raises:
        OutputFailed: it does not take it; nothing else in the program is the cause.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        raise OutputFailed(error) from None


def out(text: str) -> None:
    """Write to standard output, which is for what was asked for and nothing else."""
    with writing():
        print(text)  # noqa: T201 - this is the output


@contextlib.contextmanager
def telling() -> Iterator[Callable[[str], None]]:
    """Give what says on standard output what was done, inside, where more has to be done whoever listens.

    Raises:
        OutputFailed: at the end, where something could not be said.
    """
    lost: list[OutputFailed] = []

    def say(text: str) -> None:
        if not lost:
            try:
                out(text)
            except OutputFailed as failed:
                lost.append(failed)

    yield say
    if lost:
        raise lost[0]


def complain(text: str) -> None:
    """Say something on standard error; where that is closed there is nobody to tell."""
    with contextlib.suppress(OSError):
        print(f"reconciler: {printable_lines(text)}", file=sys.stderr, flush=True)  # noqa: T201 - the summary


def summary(code: Exit, outcome: CycleOutcome) -> None:
    """Say in one line on standard error how it ended."""
    complain(f"{printable(outcome.sentence)} (exit {code})")


def show_status(output: str, outcome: CycleOutcome) -> None:
    """Show every group as it is, in the format that ``-o`` asked for."""
    if outcome.plan is None or outcome.survey is None:
        return
    if output == "json":
        out(render.status_json(outcome.plan, outcome.survey))
    elif output == "markdown":
        out(render.status_markdown(outcome.plan, outcome.survey))
    elif sys.stdout.isatty():
        console = Console()
        with writing():
            console.print(status_table(outcome.plan, console.width), soft_wrap=True)
        out("\n".join(render.status_notes(outcome.plan, outcome.survey)))
    else:
        out(render.status_text(outcome.plan, outcome.survey))
