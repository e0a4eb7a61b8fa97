"""``settings``: every variable with its value and where that came from; it works with bad values, too."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from openfactory_common.settings_types import ROUTING_LAYER_VARIABLES
from openfactory_common.text import printable, printable_json
from reconciler.cli.output import command, out, output_option
from reconciler.cli.settings_report import SettingsReport, report
from reconciler.control.converge import Exit


def add(commands: Any) -> None:
    """Register ``settings``."""
    parser = command(commands, "settings", "show every setting, its value and where it comes from", run)
    parser.set_defaults(without_settings=True)
    output_option(parser)


def in_force() -> SettingsReport:
    """Return all settings; the proxy's variables, which often stand in the same file, are no strays."""
    return report(also=ROUTING_LAYER_VARIABLES)


def misspelt() -> tuple[str, ...]:
    """Return a line for each variable that looks like ours and is not read."""
    return tuple(f"variable {printable(one.name)} ({one.origin}) {one.hint}" for one in in_force().unknown)


def run(options: argparse.Namespace) -> int:
    """Show all settings; exit code 2 where the operator would not start with them."""
    found = in_force()
    forms = {"text": _text, "json": _json, "markdown": _markdown}
    out(forms[options.output](found))
    return Exit.USAGE if found.problems else Exit.OK


def _text(found: SettingsReport) -> str:
    name, origin = (max(len(getattr(row, part)) for row in found.rows) for part in ("name", "origin"))
    lines = [f"{row.name:{name}}  {row.origin:{origin}}  {row.value}" for row in found.rows]
    lines += [""] if found.unknown or found.problems else []
    lines += [f"? {stray.name} ({stray.origin}) {stray.hint}" for stray in found.unknown]
    lines += [f"! {problem}" for problem in found.problems]
    return "\n".join(printable(line.rstrip()) for line in lines)


def _json(found: SettingsReport) -> str:
    return printable_json(json.dumps(asdict(found), indent=2, ensure_ascii=False))


def _markdown(found: SettingsReport) -> str:
    lines = ["| Variable | Value | From |", "|---|---|---|"]
    lines += [f"| `{row.name}` | {_code(row.value)} | {row.origin} |" for row in found.rows]
    lines += (
        ["", *(f"- {_code(stray.name)} ({stray.origin}) {stray.hint}" for stray in found.unknown)]
        if found.unknown
        else []
    )
    lines += ["", *(f"- **{_plain(problem)}**" for problem in found.problems)] if found.problems else []
    return "\n".join(lines)


def _code(text: str) -> str:
    return f"`{_plain(text)}`" if text else ""


def _plain(text: str) -> str:
    return printable(text).replace("|", "\\|").replace("`", "'")
