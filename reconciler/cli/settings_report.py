"""Every setting as it is in force, with where its value came from, and what in the environment looks like a typo."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsError

from openfactory_common.settings_types import masked
from openfactory_common.text import printable
from reconciler.settings import IN_FILES, Settings, explain, is_secret, unreadable_lines

#: What Docker's own clients read; from the environment only.
DOCKER = {
    "DOCKER_HOST": "The engine (`unix:///var/run/docker.sock`, `tcp://host:2376`).",
    "DOCKER_TLS_VERIFY": "Not empty: verify the engine's certificate.",
    "DOCKER_CERT_PATH": "Directory with `ca.pem`, `cert.pem` and `key.pem` for it.",
}
DEFAULT, ENVIRONMENT, UNSET = "default", "environment", "not set"
#: How alike a name must be to one of ours to be taken for a misspelt one (1.0: the same).
_ALIKE = 0.85
#: Variables that an earlier version read, each with what to do about it.
_REMOVED = {"GROUPS_TABLE": "groups are always read from the UNS map itself; remove it"}


@dataclass(frozen=True)
class SettingRow:
    """One variable: the value in force fit to be shown, where it came from, and what is wrong with it."""

    name: str
    value: str
    origin: str
    problem: str = ""


@dataclass(frozen=True)
class UnknownVariable:
    """A variable that nothing reads, and what to do about it."""

    name: str
    origin: str
    hint: str


@dataclass(frozen=True)
class SettingsReport:
    """All settings.

    Attributes:
        rows: one for each variable, in the order of the README.
        unknown: variables that look like ours and are not.
        problems: one line each, as the operator would say them before it ends with exit code 2.
    """

    rows: tuple[SettingRow, ...]
    unknown: tuple[UnknownVariable, ...]
    problems: tuple[str, ...]


def report(also: frozenset[str] = frozenset()) -> SettingsReport:
    """Find out where each value comes from, in the environment and the ``.env`` file of this process.

    Args:
        also: names of variables that other programs read from the same place.
    """
    given = _Given.here()
    settings, problems = _checked()
    rows = [_row(name, info, given, settings) for name, info in Settings.model_fields.items()]
    rows = [replace(row, problem=problems.get(row.name.lower(), "")) for row in rows]
    rows += [_docker_row(name) for name in DOCKER]
    return SettingsReport(tuple(rows), tuple(_strays(given, also)), tuple(problems.values()))


@dataclass(frozen=True)
class _Given:
    """What is set and not empty, by the name in lower case."""

    environment: Mapping[str, str]
    file: Mapping[str, str]

    @classmethod
    def here(cls) -> _Given:
        file = Path(".env")
        try:
            lines = dotenv_values(file) if file.is_file() else {}
        except (OSError, UnicodeDecodeError):
            lines = {}
        both = ({name.lower(): value for name, value in some.items() if value} for some in (os.environ, lines))
        return cls(*both)

    def find(self, name: str) -> tuple[str, str] | None:
        """Return the value of a variable and where it stands."""
        if name in self.environment:
            return self.environment[name], ENVIRONMENT
        return (self.file[name], ".env") if name in self.file else None


def _checked() -> tuple[Settings | None, dict[str, str]]:
    """Return the settings, or what is wrong by the field (under the empty name: between fields)."""
    nothing: dict[str, Any] = {}
    if lines := unreadable_lines(Path(".env")):
        return None, {f"line {at}": line for at, line in enumerate(lines)}
    try:
        return Settings(**nothing), {}
    except ValidationError as error:
        return None, {str(item["loc"][0]) if item["loc"] else "": explain(dict(item)) for item in error.errors()}
    except SettingsError as error:
        return None, {"": str(error)}


def _row(name: str, info: FieldInfo, given: _Given, settings: Settings | None) -> SettingRow:
    found, file = given.find(name), given.find(f"{name}_file") if name in IN_FILES else None
    if found is not None:
        text = SecretStr(found[0]) if is_secret(name) else found[0]
        return SettingRow(name.upper(), shown(text if settings is None else getattr(settings, name)), found[1])
    if file is not None:
        return SettingRow(name.upper(), "***", f"file {printable(file[0])}")
    return (
        SettingRow(name.upper(), "", UNSET)
        if info.is_required()
        else SettingRow(name.upper(), shown(info.default), DEFAULT)
    )


def shown(value: Any) -> str:
    """Return a setting's value as it is written in the environment; ``***`` in place of a secret."""
    if isinstance(value, SecretStr):
        return "***" if value.get_secret_value() else ""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else printable(masked(str(value)))


def _docker_row(name: str) -> SettingRow:
    value = os.environ.get(name, "")
    return SettingRow(name, shown(value), ENVIRONMENT if value else DEFAULT)


def _strays(given: _Given, also: frozenset[str]) -> Iterator[UnknownVariable]:
    known = {name.upper() for name in Settings.model_fields} | also
    for variables, origin in ((given.environment, ENVIRONMENT), (given.file, ".env")):
        for name in sorted(name.upper() for name in variables):
            if name in DOCKER and origin == ".env":
                yield UnknownVariable(name, origin, "is read from the environment only")
            elif name in _REMOVED:
                yield UnknownVariable(name, origin, f"is no longer read: {_REMOVED[name]}")
            elif name not in known | DOCKER.keys():
                for meant in get_close_matches(name, sorted(known), 1, _ALIKE):
                    yield UnknownVariable(name, origin, f"is read by nothing; {meant} is meant?")
