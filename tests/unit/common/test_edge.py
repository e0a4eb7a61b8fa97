"""Lists of origins and of networks: what is taken, and what is said about the rest."""

from __future__ import annotations

import pytest

from openfactory_common.edge import check_networks, check_origins, parse_networks, parse_origins


@pytest.mark.parametrize(
    ("setting", "origins"),
    [
        ("", ()),
        (" ", ()),
        ("*", ("*",)),
        (" https://a.example , http://[fd00::1]:8080", ("https://a.example", "http://[fd00::1]:8080")),
        ("http://hmi_3:8080", ("http://hmi_3:8080",)),
        ("https://a.example:80,http://a.example:443", ("https://a.example:80", "http://a.example:443")),
    ],
)
def test_origins(setting: str, origins: tuple[str, ...]) -> None:
    """As browsers write them."""
    assert parse_origins(setting) == origins
    assert check_origins(setting) == setting


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("https://plant.example/", "without a slash"),
        ("https://plant.example/app", "without a slash"),
        ("https://user@plant.example", "without a slash"),
        ("https://*.example", "is not an origin"),
        ("https://plänt.example", "Punycode"),
        ("https://plant.example https://b.example", "is not an origin"),
        ("https://plant.example,", "begins with http"),
        ("plant.example", "begins with http"),
        ("ftp://plant.example", "begins with http"),
        ("file://", "begins with http"),
        ("null", "begins with http"),
        ("https://", "is not an origin"),
        ("https://Plant.example", "lower case"),
        ("https://plant.example:443", "leave out the port 443"),
        ("http://plant.example:80", "leave out the port 80"),
        ("https://plant.example,*", "stands alone"),
    ],
)
def test_origins_that_are_refused(setting: str, message: str) -> None:
    """What no browser would ever send, or what would allow more than it seems."""
    with pytest.raises(ValueError, match=message):
        check_origins(setting)


@pytest.mark.parametrize(
    ("setting", "networks"),
    [
        ("", []),
        ("10.0.0.5, 10.1.0.0/16 ,fd00::/8", ["10.0.0.5/32", "10.1.0.0/16", "fd00::/8"]),
        ("::1", ["::1/128"]),
    ],
)
def test_networks(setting: str, networks: list[str]) -> None:
    """An address is a network of one."""
    assert [str(network) for network in parse_networks(setting)] == networks
    assert check_networks(setting) == setting


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("*", "is not an address"),
        ("edge.example", "name is not looked up"),
        ("10.0.0.5:80", "is not an address"),
        ("10.0.0.5,", "is not an address"),
        ("10.0.0.5 10.0.0.6", "is not an address"),
        ("10.0.0.5/8", "within 10.0.0.0/8"),
        ("0.0.0.0/0", "is every address"),
        ("::/0", "is every address"),
        ("::ffff:10.0.0.5", "write it as one"),
        ("[::1]", "is not an address"),
        ("010.0.0.5", "is not an address"),
    ],
)
def test_networks_that_are_refused(setting: str, message: str) -> None:
    """What would trust everybody, nobody, or somebody else than it seems."""
    with pytest.raises(ValueError, match=message):
        check_networks(setting)
