"""``settings``: every variable with its value and origin, and variables that look misspelt; works with bad values."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import SecretStr

from openfactory_common.settings_types import ROUTING_LAYER_VARIABLES, mask
from openfactory_common.text import printable, printable_json
from reconciler.cli.output import add_command, add_output_option, echo
from reconciler.control.converge import Exit
from reconciler.report.text import escape_markdown, make_code_span, make_markdown_table
from reconciler.settings import IN_FILES, SET_BY_EMPTY, Settings, is_secret, read

#: Variables of Docker's own client; from the environment only.
DOCKER = {
    "DOCKER_HOST": "The engine (`unix:///var/run/docker.sock`, `tcp://host:2376`).",
    "DOCKER_TLS_VERIFY": "Not empty: verify the engine's certificate.",
    "DOCKER_CERT_PATH": "Directory with `ca.pem`, `cert.pem` and `key.pem` for it.",
}
DEFAULT, ENVIRONMENT, DOTENV, UNSET = "default", "environment", ".env", "not set"
#: How similar an unknown name must be to one of ours to be reported as misspelt (1.0: equal).
_SIMILARITY = 0.85
#: Variables of an earlier version, each with what to do about it.
_REMOVED = {"GROUPS_TABLE": "groups are always read from the UNS map itself; remove it"}


@dataclass(frozen=True)
class SettingRow:
    """One variable: its value as it may be shown, its origin, and what is wrong with it."""

    name: str
    value: str
    origin: str
    problem: str = ""


@dataclass(frozen=True)
class UnknownVariable:
    """A variable that is not read, and what to do about it."""

    name: str
    origin: str
    hint: str


@dataclass(frozen=True)
class SettingsReport:
    """All settings.

    Attributes:
        rows: one for each variable, in the order of `Settings`.
        unknown: variables that look like ours and are not read.
        problems: one line each, as the operator reports them before it exits with code 2.
    """

    rows: tuple[SettingRow, ...]
    unknown: tuple[UnknownVariable, ...]
    problems: tuple[str, ...]


def add(commands: Any) -> None:
    """Register ``settings``."""
    add_output_option(add_command(commands, "settings", _settings, needs_settings=False))


def _settings(options: argparse.Namespace) -> int:
    """Show every setting, its value and its origin.

    Secrets are not shown. It also works with invalid values, and names variables that look misspelt.
    """
    report = make_report()
    render = {"text": _render_text, "json": _render_json, "markdown": _render_markdown}
    echo(render[options.output](report))
    return Exit.USAGE if report.problems else Exit.OK


def make_report() -> SettingsReport:
    """Read the settings as the operator does, from the environment and the ``.env`` file of this process."""
    found = read()
    settings, problems = (found, []) if isinstance(found, Settings) else (None, found)
    of_field = dict(problems)
    given = {ENVIRONMENT: _drop_empty(os.environ), DOTENV: _drop_empty(_read_dotenv())}
    rows = [
        SettingRow(name.upper(), *_find_value(name, given, settings), of_field.get(name, ""))
        for name in Settings.model_fields
    ]
    for name in DOCKER:
        value = os.environ.get(name, "")
        rows.append(SettingRow(name, show_value(value), ENVIRONMENT if value else DEFAULT))
    return SettingsReport(tuple(rows), tuple(_find_unknown(given)), tuple(problem for _, problem in problems))


def describe_unknown() -> tuple[str, ...]:
    """Return a line for each variable that looks like ours and is not read."""
    return tuple(f"unknown variable {printable(one.name)} ({one.origin}): {one.hint}" for one in make_report().unknown)


def _read_dotenv() -> Mapping[str, str | None]:
    try:
        return dotenv_values(DOTENV) if Path(DOTENV).is_file() else {}
    except (OSError, UnicodeDecodeError):
        return {}


def _drop_empty(variables: Mapping[str, str | None]) -> dict[str, str]:
    """Return the variables by the name in lower case; an empty one is unset, with few exceptions."""
    lower = ((name.lower(), value or "") for name, value in variables.items())
    return {name: value for name, value in lower if value or name in SET_BY_EMPTY}


def _find_value(name: str, given: Mapping[str, Mapping[str, str]], settings: Settings | None) -> tuple[str, str]:
    """Return the value of a setting as it may be shown, and its origin."""
    for origin, variables in given.items():
        if name in variables:
            value = variables[name] if settings is None else getattr(settings, name)
            return show_value(SecretStr(value) if is_secret(name) and isinstance(value, str) else value), origin
    for variables in given.values():
        if name in IN_FILES and f"{name}_file" in variables:
            return "***", f"file {printable(variables[f'{name}_file'])}"
    info = Settings.model_fields[name]
    return ("", UNSET) if info.is_required() else (show_value(info.default), DEFAULT)


def show_value(value: Any) -> str:
    """Return a setting's value as the environment has it; ``***`` for a secret."""
    match value:
        case None:
            return ""
        case SecretStr():
            return "***" if value.get_secret_value() else ""
        case Enum():
            return show_value(value.value)
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return str(int(value))
    return printable(mask(str(value)))


def _find_unknown(given: Mapping[str, Mapping[str, str]]) -> Iterator[UnknownVariable]:
    known = {name.upper() for name in Settings.model_fields} | ROUTING_LAYER_VARIABLES
    for origin, variables in given.items():
        for name in sorted(name.upper() for name in variables):
            if name in DOCKER and origin == DOTENV:
                yield UnknownVariable(name, origin, "it is only read from the environment")
            elif name in _REMOVED:
                yield UnknownVariable(name, origin, f"it is no longer read: {_REMOVED[name]}")
            elif name not in known | DOCKER.keys():
                for meant in get_close_matches(name, sorted(known), 1, _SIMILARITY):
                    yield UnknownVariable(name, origin, f"did you mean {meant}?")


def _render_text(report: SettingsReport) -> str:
    name, origin = (max(len(getattr(row, part)) for row in report.rows) for part in ("name", "origin"))
    lines = [f"{row.name:{name}}  {row.origin:{origin}}  {row.value}" for row in report.rows]
    lines += [""] if report.unknown or report.problems else []
    lines += [f"? {one.name} ({one.origin}): {one.hint}" for one in report.unknown]
    lines += [f"! {problem}" for problem in report.problems]
    return "\n".join(printable(line.rstrip()) for line in lines)


def _render_json(report: SettingsReport) -> str:
    return printable_json(json.dumps(asdict(report), indent=2, ensure_ascii=False))


def _render_markdown(report: SettingsReport) -> str:
    rows = [(make_code_span(row.name), make_code_span(row.value), escape_markdown(row.origin)) for row in report.rows]
    unknown = [f"- {make_code_span(one.name)} ({one.origin}): {escape_markdown(one.hint)}" for one in report.unknown]
    problems = [f"- **{escape_markdown(problem)}**" for problem in report.problems]
    blocks = [[make_markdown_table(("Variable", "Value", "From"), rows)], unknown, problems]
    return "\n\n".join("\n".join(block) for block in blocks if block)
