"""Which peers are reverse proxies of our own, and which address a request comes from. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

from openfactory_common.edge import parse_networks

_MAPPED = "::ffff:"
#: An element of X-Forwarded-For: an address, with a port from some load balancers, and no longer than one is.
_ELEMENT = re.compile(r"\s*(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<v4>[0-9.]{7,15}))(?::[0-9]{1,5})?\s*")
_PLAIN_V6 = re.compile(r"\s*[0-9A-Fa-f:.]{2,45}\s*")


class TrustedProxies:
    """The addresses of reverse proxies whose statements about their clients are believed."""

    def __init__(self, setting: str = "") -> None:
        """Read addresses and networks that are separated by commas; without any, no peer is trusted.

        Raises:
            ValueError: what is wrong with the setting, in words.
        """
        self._networks = parse_networks(setting)
        self._known = lru_cache(4096)(self._find)

    def trusts(self, address: str) -> bool:
        """Whether ``address``, of a connection's peer or from a trusted field, is one of them."""
        return bool(self._networks) and self._known(address)

    def find_client(self, peer: str, raw_headers: Sequence[tuple[bytes, bytes]]) -> str:
        """Return the address that a request comes from: the last one that is not a trusted proxy.

        Each proxy adds the address of its own peer at the end of X-Forwarded-For, so what stands before the last
        address that is not trusted may be an invention of the client (RFC 7239, section 8.1, says so of Forwarded).
        Forwarded is not read: a proxy writes one of the two, and a client could write the other. Where an element is
        no address, the client is the proxy that added it.
        """
        client = peer.removeprefix(_MAPPED)
        if not self.trusts(client):
            return client
        fields = [value for name, value in raw_headers if name.lower() == b"x-forwarded-for"]
        for element in reversed(b",".join(fields).decode("latin-1").split(",")):
            address = _parse_element(element)
            if address is None:
                if element.strip():
                    break
                continue
            client = address
            if not self.trusts(client):
                break
        return client

    def _find(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address.removeprefix(_MAPPED).partition("%")[0])
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


def _parse_element(text: str) -> str | None:
    """Return the address of one element, without its port; None if there is none."""
    match = _ELEMENT.fullmatch(text)
    address = (match["v6"] or match["v4"]) if match else text.strip() if _PLAIN_V6.fullmatch(text) else None
    try:
        return str(ipaddress.ip_address(address.removeprefix(_MAPPED))) if address else None
    except ValueError:
        return None
