"""The command line. Machine output goes to standard output, logs and the one-line summary to standard error."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from openfactory_common import __version__, logs
from openfactory_common.errors import ConfigurationError, ReconcilerError
from reconciler.cli import migrate, pause, run, runserver, show, teardown, why
from reconciler.cli import schema as interface
from reconciler.cli import settings as settings_command
from reconciler.cli.help import MAIN
from reconciler.cli.output import OutputFailed, complain, writing
from reconciler.control.converge import Exit
from reconciler.control.outcome import explain_error
from reconciler.settings import Policy, Settings, load

_DEFAULTS = {
    "timeout": 300.0,
    "approve": "",
    "adopt": "",
    "output": "text",
    "detailed_exitcode": False,
    "keep_streams": False,
    "yes": False,
    "reason": "",
    "without_settings": False,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    if sys.stdin is None:  # closed by who started us: nobody answers a question
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - for the whole process
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started us
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - for the whole process
        elif hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks is shown escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(_parser().parse_args(arguments))
        finally:
            with writing():
                sys.stdout.flush()
    except OutputFailed as failed:
        _drop(sys.stdout)
        if failed.nobody_reads:
            return 128 + signal.SIGPIPE
        complain(str(failed))
        return Exit.ERROR
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        try:
            sys.stderr.flush()
        except OSError:
            _drop(sys.stderr)


def _drop(stream: TextIO) -> None:
    """Drop what a stream has not taken: at the interpreter's end that would fail again, with exit code 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(options: argparse.Namespace) -> int:
    if options.without_settings:
        return int(options.run(options))
    settings: Settings
    try:
        settings = load()
        if options.no_prune and settings.reconcile_policy is Policy.SYNC:
            settings = load(reconcile_policy=Policy.UPSERT_ONLY)
        logs.configure(settings.log_level)
        run.check(options)
        return int(options.run(options, settings))
    except ConfigurationError as error:
        complain(str(error))
        return Exit.USAGE
    except ReconcilerError as error:
        complain(explain_error(error, settings))
        return Exit.ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reconciler",
        description=MAIN.description,
        epilog=MAIN.epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run.run, **_DEFAULTS)
    parser.add_argument("--version", action="version", version=f"reconciler {__version__}")
    parser.add_argument("--once", action="store_true", help="converge, then exit")
    parser.add_argument("--dry-run", action="store_true", help="with --once or alone: one cycle that writes nothing")
    run.once_options(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for family in (show, why, run, pause, teardown, runserver, migrate, settings_command):
        family.add(commands)
    interface.add(commands, _parser)
    return parser
