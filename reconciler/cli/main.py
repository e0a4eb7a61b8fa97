"""Keep ksqlDB streams and services in sync with the groups of the UNS map, and publish where each group is served.

A group is a value at one level of the Unified Namespace (UNS), for example a workcenter, or at several
(area/workcenter); the UNS map is the ksqlDB table of the assets and their levels.

Without a command, the operator runs as a loop until SIGTERM, as the Swarm service does: every RECONCILE_INTERVAL
seconds, a cycle reads everything, plans, and writes what differs. Settings are environment variables or lines of a .env
file; KAFKA_BROKER and KSQLDB_URL are required. Standard output has what was asked for, standard error has logs and a
one-line summary.

A command that is ended by a signal first releases what it holds (the lease, teardown's pause) and exits with 128 plus
the signal's number: 143 for SIGTERM, 130 for Ctrl-C. The loop exits with 0.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn, TextIO

from openfactory_common import __version__, logs
from openfactory_common.errors import ConfigurationError, ReconcilerError
from reconciler.cli import (
    adopt,
    doctor,
    events,
    groups,
    migrate,
    pause,
    run,
    runserver,
    schema,
    settings,
    show,
    task_logs,
    teardown,
    wait,
    why,
)
from reconciler.cli.help import MAIN, wrap
from reconciler.cli.output import OutputFailed, checked_stdout, echo, echo_error
from reconciler.cli.running_operator import list_groups
from reconciler.control.converge import Exit
from reconciler.control.outcome import explain_error
from reconciler.settings import Policy, Settings, load

_COMMANDS = (
    *(doctor, show, why, events, wait, task_logs, run, pause, groups, adopt),
    *(teardown, runserver, migrate, settings, schema),
)
#: The hidden command that a shell's completion calls.
_GROUPS = "__groups"
_REFUSED_CHOICE = re.compile(r"invalid choice: '(?P<typed>[^']*)' \(choose from (?P<choices>.*)\)")
_UNRECOGNIZED = re.compile(r"unrecognized arguments: (?P<typed>--[\w-]+)")
_DEFAULTS = {
    "timeout": 300.0,
    "approve": "",
    "adopt": "",
    "adoption": None,
    "replace": False,
    "output": "text",
    "detailed_exitcode": False,
    "keep_streams": False,
    "yes": False,
    "reason": "",
    "needs_settings": True,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    if sys.stdin is None:  # closed by the parent process: no one can answer a question
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - for the whole process
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent process
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - for the whole process
        elif hasattr(stream, "reconfigure"):  # a character that the terminal's encoding lacks is shown escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            if list(sys.argv[1:] if arguments is None else arguments) == [_GROUPS]:
                echo("\n".join(list_groups()))
                return Exit.OK
            return _run(make_parser().parse_args(arguments))
        finally:
            with checked_stdout():
                sys.stdout.flush()
    except OutputFailed as failed:
        _discard(sys.stdout)
        if failed.reader_left:
            return 128 + signal.SIGPIPE
        echo_error(str(failed))
        return Exit.ERROR
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        try:
            sys.stderr.flush()
        except OSError:
            _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    """Discard what a stream has not written: at the interpreter's end that would fail again, with exit code 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(options: argparse.Namespace) -> int:
    if not options.needs_settings:
        return int(options.run(options))
    loaded: Settings
    try:
        loaded = load()
        if options.no_prune and loaded.reconcile_policy is Policy.SYNC:
            loaded = load(reconcile_policy=Policy.UPSERT_ONLY)
        logs.configure(loaded.log_level)
        run.check(options)
        return int(options.run(options, loaded))
    except ConfigurationError as error:
        echo_error(str(error))
        return Exit.USAGE
    except ReconcilerError as error:
        echo_error(explain_error(error, loaded))
        return Exit.ERROR


class _Parser(argparse.ArgumentParser):
    """A parser that names what may have been meant."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        refused, unknown = _REFUSED_CHOICE.search(message), _UNRECOGNIZED.search(message)
        known: list[str] = []
        if refused is not None:
            known = re.findall(r"[\w-]+", refused["choices"])
        elif unknown is not None:
            known = self._list_options()
        typed = refused or unknown
        close = get_close_matches(typed["typed"], known, 1) if typed else []
        super().error(f"{message}; did you mean {close[0]}?" if close else message)

    def _list_options(self) -> list[str]:
        """Return the long options of this parser and of its commands."""
        subparsers = [one.choices.values() for one in self._actions if isinstance(one, argparse._SubParsersAction)]  # noqa: SLF001 - argparse has no other way
        parsers = [self, *(parser for some in subparsers for parser in some)]
        return [name for parser in parsers for name in parser._option_string_actions if name.startswith("--")]  # noqa: SLF001


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = _Parser(
        prog="reconciler",
        description=wrap(__doc__ or ""),
        epilog=MAIN.epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run.run, make_parser=make_parser, **_DEFAULTS)
    parser.add_argument("--version", action="version", version=f"reconciler {__version__}")
    parser.add_argument("--once", action="store_true", help="apply, wait until ready, exit")
    parser.add_argument("--dry-run", action="store_true", help="one cycle that prints every write and sends none")
    run.add_once_options(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for module in _COMMANDS:
        module.add(commands)
    return parser
