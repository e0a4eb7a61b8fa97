"""Patterns of names, addresses and images, and messages for values that do not match."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

_UNSET = "^$|"

NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,199}$"
HOSTS = r"^\.?[A-Za-z0-9][A-Za-z0-9._-]*(\s*,\s*\.?[A-Za-z0-9][A-Za-z0-9._-]*)*$"
NETWORK = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
LABEL = r"^$|^[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?$"
PLUGIN = r"^[A-Za-z0-9_.-]+$"
URL = r"^https?://[^/\s?#]+(/[^\s?#]*)?$"
RESOURCE = r"^https?://[^/\s?#]+(/[^\s#]*)?$"
OWNER = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,38}$"
PREFIX = r"^[A-Za-z0-9]([A-Za-z0-9_-]{0,10}[A-Za-z0-9])?$"
USERNAME = r"^[^:]*$"
PATH = r"^/[!-~]*$"
COOKIE = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
STORED_NAME = r"^[A-Za-z0-9_-]*$"
GROUP_TOPIC = r"^asset_stream_[A-Za-z0-9_-]{1,200}$"

_IN_WORDS: Mapping[str, str] = {
    NAME: "it must be a name as ksqlDB takes it: at most 200 letters, digits and _, not a digit first",
    HOSTS: "it must be host names without scheme and port, separated by commas",
    NETWORK: "it must be a network's name: at most 63 letters, digits, _, . and -",
    LABEL: "it must be a secret's name: at most 64 letters, digits, _, . and -",
    PLUGIN: "it must be the name of a plug-in: letters, digits, _, . and -",
    URL: "it must be a URL such as http://host:8088, without ? and #",
    RESOURCE: "it must be a URL such as https://host/path, without #",
    OWNER: "it must have 1 to 39 letters, digits, _, . and -, and begin with a letter or digit",
    PREFIX: "it must have 1 to 12 letters, digits, _ and -, and begin and end with a letter or digit",
    PATH: "it must be a path such as /ready, of printable ASCII characters without blanks",
    COOKIE: "it must be a cookie's name (RFC 6265): no blanks, commas, semicolons, quotes or =",
    STORED_NAME: "it must be a name as ksqlDB stores it: letters, digits, _ and -",
    GROUP_TOPIC: "it must be asset_stream_ and the group's slug: letters, digits, _ and -",
    USERNAME: "HTTP basic authentication knows no : in a user's name",
}


_LABEL_LIMIT, _NAME_LIMIT, _PORTS = 63, 253, 65_535
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_QUOTES = "\"'`"
#: The characters of a URL (RFC 3986), without the quotes that a shell or a stack file should have removed.
_IN_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&()*+,;=%-]*")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DOMAIN = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
#: A reference as the engine accepts it (distribution's grammar).
_IMAGE = re.compile(
    rf"(?:(?:localhost|{_DOMAIN}(?:\.{_DOMAIN})+)(?::[0-9]+)?/|{_DOMAIN}:[0-9]+/)?{_PART}(?:/{_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*:[0-9a-fA-F]{32,})?"
)
_IMAGE_LIMIT = 512
_LEVEL_LIMIT = 200
_LEVELS = 8
_SHOWN = 40


def brokers(value: str) -> str:
    """Check Kafka's bootstrap servers: ``host:port``, separated by commas, with an IPv6 address in brackets.

    Raises:
        ValueError: with what is wrong.
    """
    if any(quote in value for quote in _QUOTES):
        raise ValueError("it has quotes in it: write host:port without them")
    if any(char.isspace() for char in value):
        raise ValueError("it has a blank in it: write host:port,host:port without any")
    if "://" in value:
        raise ValueError("it has a scheme: write host:port without it")
    if ";" in value:
        raise ValueError("its servers are separated by ; : use commas")
    for one in value.split(","):
        name, colon, port = one.rpartition(":")
        if not one:
            raise ValueError("there is a comma with nothing beside it")
        if not colon or one.endswith("]"):
            raise ValueError(f"{_shorten(one)} has no port: write host:port")
        if not _is_port(port):
            raise ValueError(f"{_shorten(one)}: its port must be a number from 1 to {_PORTS}")
        if not _is_host(name):
            raise ValueError(f"{_shorten(one)}: this is no host (an IPv6 address stands in brackets)")
    return value


def host(value: str) -> str:
    """Check a host's name or address, without scheme and port.

    Raises:
        ValueError: with what is expected.
    """
    if not _is_host(value):
        raise ValueError("it must be a host's name or address, without scheme and port")
    return value


def url(value: str) -> str:
    """Check the URL of a server; it may be empty. The messages never repeat it: it may have a password.

    Raises:
        ValueError: with what is wrong.
    """
    if not value:
        return value
    if any(quote in value for quote in _QUOTES) or any(char.isspace() for char in value):
        raise ValueError("it has quotes or blanks in it: write http://host:port without them")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("this is no URL with a host and a port") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it must be a URL such as http://host:8088")
    if not _IN_URL.fullmatch(value):
        raise ValueError("it has characters in it that stand in no URL")
    at = parts.netloc.rpartition("@")[2]
    if port == 0 or at.endswith(":") or not _is_host(at if port is None else at.rpartition(":")[0]):
        raise ValueError("this is no URL with a host and a port from 1 to 65535")
    if parts.query or parts.fragment or "?" in value or "#" in value:
        raise ValueError("it has a ? or a # in it: write the server's address alone")
    return value


def image(value: str) -> str:
    """Check an image as the engine takes it.

    Raises:
        ValueError: with what is expected.
    """
    if len(value) > _IMAGE_LIMIT or not _IMAGE.fullmatch(value):
        raise ValueError("it must be an image such as registry:5000/name:tag: no scheme, no blanks, lower-case")
    return value


def levels(value: str) -> str:
    """Check the name of a UNS level, or the names of several with ``/`` between them.

    Raises:
        ValueError: with what is wrong.
    """
    names = value.split("/")
    if len(names) > _LEVELS:
        raise ValueError(f"it names more than {_LEVELS} levels")
    if not all(names):
        raise ValueError("a name is missing before, after or between /")
    for name in names:
        level(name)
    return value


def level(value: str) -> str:
    """Check the name of a UNS level or of a group, which is data and may have any other characters in it.

    Raises:
        ValueError: with what is wrong.
    """
    if value != value.strip() or not value:
        raise ValueError("it begins or ends with a blank")
    if value[0] in _QUOTES or value[-1] in _QUOTES:
        raise ValueError("it begins or ends with a quote: write the name without")
    if len(value) > _LEVEL_LIMIT:
        raise ValueError(f"it has more than {_LEVEL_LIMIT} characters")
    return value


def _shorten(text: str) -> str:
    return ascii(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len(str(_PORTS)) and 1 <= int(text) <= _PORTS


def _is_host(name: str) -> bool:
    try:
        if name.startswith("["):
            ipaddress.IPv6Address(name.removeprefix("[").removesuffix("]"))
            return name.endswith("]")
        if re.fullmatch(r"[0-9.]+", name):
            ipaddress.IPv4Address(name)
            return True
    except ValueError:
        return False
    labels = name.split(".")
    fits = len(name) <= _NAME_LIMIT and all(0 < len(label) <= _LABEL_LIMIT for label in labels)
    return fits and _HOST_NAME.fullmatch(name) is not None


def optional(pattern: str) -> str:
    """Return the pattern that accepts an empty text as well."""
    return f"{_UNSET}{pattern}"


def message(item: Mapping[str, Any]) -> str:
    """Return the message of one of pydantic's errors, in words where it is about a pattern."""
    pattern = item.get("ctx", {}).get("pattern", "")
    words = _IN_WORDS.get(pattern) or _IN_WORDS.get(pattern.removeprefix(_UNSET))
    return words or str(item["msg"]).removeprefix("Value error, ")
