"""``schema`` and ``completion``: what other programs need to know of this one. Neither needs any setting."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import shtab

from reconciler.cli.output import command, out
from reconciler.control.converge import Exit
from reconciler.report.documents import schema

DOCUMENTS = ("plan", "status")
SHELLS = ("bash", "zsh")


def add(commands: Any, whole: Callable[[], argparse.ArgumentParser]) -> None:
    """Register both; ``whole`` makes the whole command line that is to be completed."""
    schemas = command(commands, "schema", "print the JSON Schema of a document", _schema)
    schemas.add_argument("document", choices=DOCUMENTS, help="which one")
    schemas.set_defaults(without_settings=True)
    completion = command(commands, "completion", "print a completion script for a shell", _completion)
    completion.add_argument("shell", choices=SHELLS, help="which one")
    completion.set_defaults(without_settings=True, whole=whole)


def _schema(options: argparse.Namespace) -> int:
    out(json.dumps(schema(options.document), indent=2, ensure_ascii=False))
    return Exit.OK


def _completion(options: argparse.Namespace) -> int:
    out(shtab.complete(options.whole(), shell=options.shell))
    return Exit.OK
