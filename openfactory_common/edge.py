"""Lists of origins and of networks: what the routing layer takes, and the operator passes on to it. Pure."""

from __future__ import annotations

import ipaddress
import re

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED_NETWORK = ipaddress.IPv6Network("::ffff:0:0/96")
#: An origin as browsers write it: scheme and host in lower case, no default port, nothing behind.
_ORIGIN = re.compile(r"(https?)://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def parse_origins(setting: str) -> tuple[str, ...]:
    """Return the origins of a setting, which are separated by commas, or ``*`` alone; empty without any.

    Raises:
        ValueError: what is wrong with it, in words.
    """
    if not setting.strip():
        return ()
    origins = tuple(part.strip() for part in setting.split(","))
    if origins != ("*",):
        for origin in origins:
            _check_origin(origin)
    return origins


def check_origins(setting: str) -> str:
    """Return a setting of origins as it is.

    Raises:
        ValueError: what is wrong with it, in words.
    """
    parse_origins(setting)
    return setting


def parse_networks(setting: str) -> tuple[Network, ...]:
    """Return the addresses and networks of a setting, which are separated by commas; empty without any.

    Raises:
        ValueError: what is wrong with it, in words.
    """
    return tuple(_parse_network(part.strip()) for part in setting.split(",")) if setting.strip() else ()


def check_networks(setting: str) -> str:
    """Return a setting of networks as it is.

    Raises:
        ValueError: what is wrong with it, in words.
    """
    parse_networks(setting)
    return setting


def _check_origin(origin: str) -> None:
    match = _ORIGIN.fullmatch(origin)
    shown = repr(origin[:80])
    if origin == "*":
        raise ValueError("* allows every origin: it stands alone")
    if not origin.lower().startswith(("http://", "https://")):
        raise ValueError(f"{shown} is not an origin: it begins with http:// or https://, as https://plant.example")
    if match is None and _ORIGIN.fullmatch(origin.lower()):
        raise ValueError(f"{shown} never comes: browsers write an origin in lower case")
    if match is None:
        raise ValueError(
            f"{shown} is not an origin: it is scheme, host and port alone, without a slash behind (and Punycode where "
            "the host has other letters)"
        )
    if match[2] == _DEFAULT_PORTS[match[1]]:
        raise ValueError(f"{shown} never comes: browsers leave out the port {match[2]}, which is the scheme's")


def _parse_network(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            nearest = ipaddress.ip_network(text, strict=False)
            raise ValueError(f"{text} is an address within {nearest}: write one of them alone") from None
        raise ValueError(
            f"{text[:60]!r} is not an address or a network (10.0.0.5, 10.1.0.0/16, fd00::/8); a host's name is not "
            "looked up"
        ) from None
    if network.prefixlen == 0:
        raise ValueError(f"{text} is every address: each client could claim to be another one")
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED_NETWORK):
        raise ValueError(f"{text} is an IPv4 address: write it as one")
    return network
