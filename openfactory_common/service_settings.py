"""Settings of the programs that answer clients: read from the environment, checked, and described for `--help`."""

from __future__ import annotations

import textwrap
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from openfactory_common.errors import ConfigurationError
from openfactory_common.patterns import URL, message
from openfactory_common.settings_types import CaFile, LogLevel, SecretFile, mask, read_text

_INDENT = " " * 6


class KsqldbSettings(BaseSettings):
    """What every program that reads ksqlDB needs. The name of a variable is the field's name in upper case."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, use_attribute_docstrings=True)

    ksqldb_url: str = Field(pattern=URL)
    """The ksqlDB server (`http://host:8088`)."""
    ksqldb_username: str = ""
    """User name for HTTP basic authentication; empty: none is sent."""
    ksqldb_password: SecretStr = SecretStr("")
    """Password for HTTP basic authentication."""
    ksqldb_username_file: SecretFile | None = None
    """A file that holds `KSQLDB_USERNAME` (a Swarm secret)."""
    ksqldb_password_file: SecretFile | None = None
    """A file that holds `KSQLDB_PASSWORD` (a Swarm secret)."""
    ksqldb_ca_file: CaFile | None = None
    """CA certificates (PEM) to verify an `https` ksqlDB with; empty: the system's."""
    log_level: LogLevel = LogLevel.INFO
    """Lowest level that is logged."""

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: Any) -> Any:
        """Treat ``VAR=`` as unset. Unlike ``env_ignore_empty``, an empty variable also hides the line of ``.env``."""
        return {key: value for key, value in data.items() if value != ""} if isinstance(data, dict) else data

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return lower(value)

    @field_validator("ksqldb_url")
    @classmethod
    def _no_slash(cls, value: str) -> str:
        return without_slash(value)

    @model_validator(mode="after")
    def _read_secrets(self) -> KsqldbSettings:
        if self.ksqldb_username_file is not None:
            object.__setattr__(self, "ksqldb_username", read_text(self.ksqldb_username_file))
        if self.ksqldb_password_file is not None:
            object.__setattr__(self, "ksqldb_password", SecretStr(read_text(self.ksqldb_password_file)))
        return self


SettingsType = TypeVar("SettingsType", bound=BaseSettings)


def lower(value: Any) -> Any:
    """Return the text of an enumeration's value, which may be written in any case, in lower case."""
    return value.strip().lower() if isinstance(value, str) else value


def without_slash(url: str) -> str:
    """Return a URL without the slashes at its end.

    Raises:
        ValueError: it has no host and port; the message does not repeat the URL, which may have a password.
    """
    try:
        urlsplit(url).port  # noqa: B018 - asked for its errors
    except ValueError:
        raise ValueError("this is not a URL with a host and a port") from None
    return url.rstrip("/")


def load(settings: type[SettingsType], **overrides: Any) -> SettingsType:
    """Read settings from the environment and ``.env``.

    Raises:
        ConfigurationError: one line a problem, each naming the variable and what it must be.
    """
    try:
        return settings(**overrides)
    except ValidationError as error:
        lines = (_explain(settings, dict(item)) for item in error.errors())
        raise ConfigurationError("\n".join(lines)) from None


def describe(settings: type[BaseSettings]) -> str:
    """Return every variable with its default and meaning, one paragraph each, for ``--help``."""
    entries = []
    for name, info in settings.model_fields.items():
        default = "required" if info.is_required() else str(getattr(info.default, "value", info.default))
        shown = "" if default in ("", "None", "**********") else f" [{default}]"
        meaning = textwrap.fill(
            " ".join((info.description or "").split()), 80, initial_indent=_INDENT, subsequent_indent=_INDENT
        )
        entries.append(f"  {name.upper()}{shown}\n{meaning}")
    return "\n".join(entries)


def _explain(settings: type[BaseSettings], item: dict[str, Any]) -> str:
    name = "_".join(str(part) for part in item["loc"])
    info = settings.model_fields.get(name)
    meaning = (info.description or "").split("\n")[0] if info else "unknown"
    if item["type"] == "missing":
        return f"{name.upper()} is required and not set: {meaning}"
    return f"{name.upper()}={mask(str(item['input']))!a}: {message(item)} ({meaning})" if name else message(item)
