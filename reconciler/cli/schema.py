"""``schema`` and ``completion``: what other programs need to know of this one. Neither needs any setting."""

from __future__ import annotations

import argparse
import json
from typing import Any

import shtab

from reconciler.cli.output import add_command, echo
from reconciler.control.converge import Exit
from reconciler.report.documents import make_schema

#: Functions that the scripts call; shtab asks for candidates in bash, zsh's own function adds them. Names of groups are
#: data: `compgen -W` would execute a $(command) in one.
_PREAMBLE = {
    "bash": """_reconciler_groups() {
  local name
  reconciler __groups 2>/dev/null | while IFS= read -r name; do
    case $name in *[[:space:]]*) ;; "$1"*) printf '%s\n' "$name" ;; esac
  done
}""",
    "zsh": """_reconciler_groups() {
  local -a groups
  groups=("${(@f)$(reconciler __groups 2>/dev/null)}")
  compadd -a groups
}""",
}


def add(commands: Any) -> None:
    """Register ``schema`` and ``completion``."""
    schema = add_command(commands, "schema", _schema, needs_settings=False)
    schema.add_argument("document", choices=("plan", "status", "events"), help="the document")
    completion = add_command(commands, "completion", _completion, needs_settings=False)
    completion.add_argument("shell", choices=("bash", "zsh"), help="the shell")


def _schema(options: argparse.Namespace) -> int:
    """Print the JSON Schema of a document.

    The schema (2020-12) describes what another command prints with -o json; docs/schema has the same files. A field may
    be added; none is renamed or removed without a new schema_version.
    """
    echo(json.dumps(make_schema(options.document), indent=2, ensure_ascii=False))
    return Exit.OK


def _completion(options: argparse.Namespace) -> int:
    """Print a completion script for a shell.

    With it, the shell completes commands, options and names of groups, which the running operator knows; without one,
    or without settings, no group is offered. In bash, names with blanks are left out.
    """
    echo(shtab.complete(options.make_parser(), shell=options.shell, preamble=_PREAMBLE[options.shell]))
    return Exit.OK
