"""Values that services may have besides what the operator sets itself: how they are written, and which are refused.

They come from variables and from groups.toml, and reach an engine, so each accepts only what an engine takes. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from openfactory_common import patterns
from reconciler.domain.services import RESERVED_VARIABLES, Healthcheck, Kind

#: The smallest memory limit of a container (engine 20.10 and later).
LEAST_MEMORY = 6 * 1024 * 1024
_MOST_MEMORY = 1 << 50
#: Seconds: a browser that reloads its page, or a proxy that is replaced, is back sooner.
LEAST_IDLE = 60.0
#: Seconds of a healthcheck (engine 20.10 and later).
_LEAST_CHECK_TIME = 0.001
_SHOWN = 40
_MEMORY = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
#: SwarmKit's grammar of constraints, without what it accepts and never finds.
_CONSTRAINT = re.compile(
    r"((?:node\.(?:id|ip|hostname|role|platform\.os|platform\.arch|labels\.[\w.-]+)|engine\.labels\.[\w.-]+))"
    r"\s*(==|!=)\s*([\w:.*()?+\[\]\\^$|/ -]+)",
    re.ASCII,
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?")
_NETWORK = re.compile(patterns.NETWORK)
#: What Swarm calls a network; in a spec it is read back as the network's name.
_NETWORK_ID = re.compile(r"(?=[a-z]*[0-9])[0-9a-z]{25}")
_OPTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
#: Labels with these beginnings say whose a service is: `docker stack deploy --prune` removes by the second.
RESERVED_LABELS = ("org.openfactory.", "com.docker.")


def memory(value: Any) -> Any:
    """Read ``512m``, ``2g`` or ``1.5GiB`` (powers of 1024) as bytes; 0 for none.

    Raises:
        ValueError: it is no amount of memory, or one that no engine takes.
    """
    if isinstance(value, str):
        match = _MEMORY.fullmatch(value.strip())
        if match is None:
            raise ValueError("it must be an amount of memory: bytes, or a number with k, m, g or t, such as 512m")
        value = round(float(match[1]) * 1024 ** _UNITS[match[2].lower()])
    if isinstance(value, int) and not isinstance(value, bool) and value and not LEAST_MEMORY <= value <= _MOST_MEMORY:
        raise ValueError("it must be 0 (none) or at least 6m (and less than 1024t): the engine takes no less")
    return value


def split_list(text: str) -> tuple[str, ...]:
    """Return what stands between commas, without blanks around it."""
    return tuple(part for one in text.split(",") if (part := one.strip()))


def split_pairs(text: str) -> dict[str, str]:
    """Read ``a=b,c=d``.

    Raises:
        ValueError: a part has no ``=``, or a name is there twice.
    """
    pairs = [part.partition("=") for part in split_list(text)]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError("it must be name=value, separated by commas; a value with a comma only fits into GROUPS_FILE")
    found = {name.strip(): value.strip() for name, _, value in pairs}
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def constraints(values: Iterable[str]) -> tuple[str, ...]:
    """Return constraints in their usual form, sorted.

    Raises:
        ValueError: one is none.
    """
    found = set()
    for value in values:
        match = _CONSTRAINT.fullmatch(value.strip())
        if match is None:
            raise ValueError(
                f"{_shorten(value)} is no constraint: write node.labels.NAME==VALUE, or != (also node.hostname, "
                "node.id, node.ip, node.role, node.platform.os, node.platform.arch, engine.labels.NAME)"
            )
        found.add(f"{match[1]}{match[2]}{match[3].strip()}")
    return tuple(sorted(found))


def networks(values: Iterable[str]) -> tuple[str, ...]:
    """Return names of networks, sorted.

    Raises:
        ValueError: one is no network's name.
    """
    found = tuple(sorted(set(values)))
    for name in found:
        if not _NETWORK.fullmatch(name):
            raise ValueError(f"{_shorten(name)} is no network's name: at most 63 letters, digits, _, . and -")
        if _NETWORK_ID.fullmatch(name):
            raise ValueError(f"{_shorten(name)} is a network's id: write its name (`docker network ls`)")
    return found


def labels(values: Mapping[str, str]) -> dict[str, str]:
    """Return labels.

    Raises:
        ValueError: a name cannot be one, or is reserved.
    """
    for name in values:
        if name.startswith(RESERVED_LABELS):
            raise ValueError(f"label {_shorten(name)} is reserved: it says whose a service is")
    return _check(values, _LABEL, "no label's name: letters, digits, ., _, / and -")


def variables(values: Mapping[str, str], kind: Kind) -> dict[str, str]:
    """Return environment variables of a kind of service.

    Raises:
        ValueError: a name cannot be one, or the operator sets it itself.
    """
    for name in values:
        if name in RESERVED_VARIABLES[kind]:
            raise ValueError(f"variable {name} is set by the operator itself")
    return _check(values, _VARIABLE, "no variable's name: letters, digits and _, not a digit first")


def log_options(values: Mapping[str, str]) -> dict[str, str]:
    """Return options of a log driver.

    Raises:
        ValueError: a name cannot be one.
    """
    return _check(values, _OPTION, "no option's name: letters, digits, ., _ and -")


def log_driver(value: str) -> str:
    """Return the name of a log driver, which may be a plug-in's; ``""`` for the engine's default.

    Raises:
        ValueError: it is no name.
    """
    if value and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:-]*", value):
        raise ValueError("it must be the name of a log driver, such as json-file or journald")
    return value


def healthcheck(value: Any) -> Any:
    """Return a healthcheck from its command; one without a command stands for the image's own."""
    return Healthcheck(value.strip()) if isinstance(value, str) else value


def check_time(value: float) -> float:
    """Return a time of a healthcheck as the engine keeps it: in nanoseconds.

    Raises:
        ValueError: it is too short.
    """
    if 0 < value < _LEAST_CHECK_TIME:
        raise ValueError(f"{value:g}: it must be at least 1ms: the engine takes no less")
    return round(value, 9)


def idle_time(value: float) -> float:
    """Return after how many seconds without demand a group may sleep; 0 for never.

    Raises:
        ValueError: it is too short.
    """
    if 0 < value < LEAST_IDLE:
        raise ValueError(f"{value:g}: it must be at least {LEAST_IDLE:g} seconds, or 0 for never")
    return value


def _shorten(text: str) -> str:
    shown = ascii(text)  # whose length counts: a character can be ten
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}...'"


def _check(values: Mapping[str, str], name: re.Pattern[str], words: str) -> dict[str, str]:
    for key, value in values.items():
        if not name.fullmatch(key):
            raise ValueError(f"{_shorten(key)} is {words}")
        if not value.isprintable():
            raise ValueError(f"the value of {_shorten(key)} has characters that cannot be printed")
    return dict(values)
