"""Which peers are believed, and which address a request is taken to come from."""

from __future__ import annotations

import pytest

from routing_layer.trusted_proxies import TrustedProxies

_EDGE = "10.0.0.5, 10.1.0.0/16 ,fd00::/8"


@pytest.mark.parametrize(
    ("setting", "address", "trusted"),
    [
        ("", "10.0.0.5", False),
        (" ", "", False),
        (_EDGE, "10.0.0.5", True),
        (_EDGE, "::ffff:10.0.0.5", True),
        (_EDGE, "10.0.0.6", False),
        (_EDGE, "10.1.255.255", True),
        (_EDGE, "10.2.0.0", False),
        (_EDGE, "fd12::1", True),
        (_EDGE, "fd12::1%eth0", True),
        (_EDGE, "fe80::1", False),
        (_EDGE, "unknown", False),
        (_EDGE, "", False),
        ("::1", "::1", True),
    ],
)
def test_peers(setting: str, address: str, trusted: bool) -> None:
    """Addresses as a socket shows them; what is no address is not trusted."""
    assert TrustedProxies(setting).trusts(address) is trusted


@pytest.mark.parametrize(
    ("peer", "fields", "client"),
    [
        ("1.2.3.4", [], "1.2.3.4"),
        ("::ffff:1.2.3.4", [], "1.2.3.4"),
        ("1.2.3.4", ["9.9.9.9"], "1.2.3.4"),
        ("10.0.0.5", [], "10.0.0.5"),
        ("10.0.0.5", ["1.2.3.4"], "1.2.3.4"),
        ("10.0.0.5", ["9.9.9.9, 1.2.3.4"], "1.2.3.4"),
        ("10.0.0.5", ["9.9.9.9", "1.2.3.4 , 10.1.2.3"], "1.2.3.4"),
        ("10.0.0.5", ["1.2.3.4", ""], "1.2.3.4"),
        ("10.0.0.5", ["1.2.3.4,,"], "1.2.3.4"),
        ("10.0.0.5", ["1.2.3.4:5678"], "1.2.3.4"),
        ("10.0.0.5", ["[2001:db8::1]:5678"], "2001:db8::1"),
        ("10.0.0.5", ["2001:DB8:0::1"], "2001:db8::1"),
        ("10.0.0.5", ["::ffff:1.2.3.4"], "1.2.3.4"),
        ("10.0.0.5", ["10.1.0.1"], "10.1.0.1"),
        ("10.0.0.5", ["1.2.3.4, unknown"], "10.0.0.5"),
        ("10.0.0.5", ["1.2.3.4, 10.1.0.1, 999.1.1.1"], "10.0.0.5"),
        ("10.0.0.5", ["1.2.3.4, " + "1" * 30_000], "10.0.0.5"),
        ("10.0.0.5", ["\xff"], "10.0.0.5"),
        ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
    ],
)
def test_the_client_is_the_last_address_that_is_not_ours(peer: str, fields: list[str], client: str) -> None:
    """Whatever a client writes before it; where a proxy wrote no address, the client is that proxy."""
    headers = [(b"X-Forwarded-For", field.encode("latin-1")) for field in fields]
    headers.append((b"Forwarded", b"for=8.8.8.8"))
    assert TrustedProxies(_EDGE).find_client(peer, headers) == client
