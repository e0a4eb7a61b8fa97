"""How names, addresses and images are spelled, and the same in words for whoever misspells one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNSET = "^$|"

NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
HOST = r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])$"
IMAGE = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$"
NETWORK = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
LABEL = r"^$|^[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?$"
PLUGIN = r"^[A-Za-z0-9_.-]+$"
URL = r"^https?://[^/\s?#]+(/[^\s?#]*)?$"
OWNER = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,38}$"
PREFIX = r"^[A-Za-z0-9]([A-Za-z0-9_-]{0,10}[A-Za-z0-9])?$"
USERNAME = r"^[^:]*$"

_IN_WORDS: Mapping[str, str] = {
    NAME: "it must be a name as ksqlDB takes it: letters, digits and _, not a digit first",
    HOST: "it must be a host's name or address, without scheme and port",
    IMAGE: "it must be an image such as registry:5000/name:tag, without spaces",
    NETWORK: "it must be a network's name: letters, digits, _, . and -",
    LABEL: "it must be a secret's name: at most 64 letters, digits, _, . and -",
    PLUGIN: "it must be the name of a plug-in: letters, digits, _, . and -",
    URL: "it must be a URL such as http://host:8088, without ? and #",
    OWNER: "it must have 1 to 39 letters, digits, _, . and -, and begin with a letter or digit",
    PREFIX: "it must have 1 to 12 letters, digits, _ and -, and begin and end with a letter or digit",
    USERNAME: "HTTP basic authentication knows no : in a user's name",
}


def optional(pattern: str) -> str:
    """Return the pattern with nothing at all as well."""
    return f"{_UNSET}{pattern}"


def message(item: Mapping[str, Any]) -> str:
    """Return what one of pydantic's errors says, in words where a pattern says it."""
    pattern = item.get("ctx", {}).get("pattern", "")
    return _IN_WORDS.get(pattern) or _IN_WORDS.get(pattern.removeprefix(_UNSET)) or _said(item)


def _said(item: Mapping[str, Any]) -> str:
    return str(item["msg"]).removeprefix("Value error, ")
