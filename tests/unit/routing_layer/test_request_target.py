"""Targets and hosts, and what is said about those that are refused."""

from __future__ import annotations

import pytest

from routing_layer.request_target import explain_refused_target, find_host_fault, find_target_fault, to_origin_form


@pytest.mark.parametrize(
    ("target", "path", "authority"),
    [
        ("/a?b=http://c/", "/a?b=http://c/", None),
        ("//h/a", "//h/a", None),
        ("http://h:81/a/b?q=1", "/a/b?q=1", "h:81"),
        ("HTTPS://h", "/", "h"),
        ("http://h?q=%2F", "/?q=%2F", "h"),
        ("http://[::1]:5/a%20b", "/a%20b", "[::1]:5"),
        ("http://u:p@h/", "/", "u:p@h"),
        ("http:///a", "http:///a", None),
        ("ftp://h/a", "ftp://h/a", None),
        ("*", "*", None),
        ("h:80", "h:80", None),
    ],
)
def test_absolute_targets(target: str, path: str, authority: str | None) -> None:
    """Their path and query stay as they came; what is no URL of HTTP stays what it is."""
    assert to_origin_form(target) == (path, authority)


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("/", None),
        ("//h/a?b=%23", None),
        ("/a#b", "percent-encode a # as %23"),
        ("/a?b=#", "percent-encode a # as %23"),
        ("*", "not a path"),
        ("h:80", "not a path"),
        ("a", "not a path"),
        ("", "not a path"),
        ("http:///a", "without a host"),
        ("HTTPS://?a", "without a host"),
        ("ftp://h/a", "the scheme ftp"),
        ("ws+unix://h/a", "the scheme ws+unix"),
    ],
)
def test_targets_of_get(target: str, fault: str | None) -> None:
    """Each fault has its words."""
    found = find_target_fault(target)
    assert found is None if fault is None else fault in (found or "")


@pytest.mark.parametrize(
    ("hosts", "required", "accepted"),
    [
        ([], False, True),
        ([], True, False),
        ([""], True, True),
        (["h"], True, True),
        (["ofa_routing_layer:5555"], True, True),
        (["h:"], True, True),
        (["h:65535"], True, True),
        (["[::1]:80"], True, True),
        (["h:65536"], True, False),
        (["h:123456"], True, False),
        (["h:port"], True, False),
        (["a", "a"], False, False),
        (["a,b"], True, False),
        (["u@h"], True, False),
        (["h/"], True, False),
        (["h\xe4"], True, False),
        (["::1"], True, False),
    ],
)
def test_hosts(hosts: list[str], required: bool, accepted: bool) -> None:
    """One host with an optional port, in brackets where it has colons."""
    assert (find_host_fault(hosts, required=required) is None) is accepted


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("GET /a?b=Ofen-ä HTTP/1.1\r\nHost: x\r\n\r\n".encode(), "'ä' in it; percent-encode it: %C3%A4"),
        ("GET /炉?b HTTP/1.1\r\n".encode(), "'炉' in it; percent-encode it: %E7%82%89"),
        ("GET /a?b=\U0001f525 HTTP/1.1\r\n".encode(), "'\U0001f525' in it; percent-encode it: %F0%9F%94%A5"),
        ("GET http://ö/a HTTP/1.1\r\n".encode(), "'ö' in it; percent-encode it: %C3%B6"),
        ("GET /a?b=Ofen-ä".encode(), "'ä' in it; percent-encode it: %C3%A4"),
        (b"GET /a?b=Ofen-\xe4 HTTP/1.1\r\n", "not UTF-8; percent-encode it: %E4"),
        (b"GET /a?b=\xc3", "not UTF-8; percent-encode it: %C3"),
        (b"GET /a?b=Ofen 1 HTTP/1.1\r\n", "' ' in it; percent-encode it: %20"),
        (b"GET /a\x1b[31m HTTP/1.1\r\n", "'\\x1b' in it; percent-encode it: %1B"),
        ("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /ü HTTP/1.1\r\n".encode(), "'ü' in it"),
        (b"GET /a HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n", None),
        ("GET /a HTTP/1.1\r\nX ä\r\n\r\n".encode(), None),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", None),
        (b"", None),
    ],
)
def test_characters_that_no_target_has(data: bytes, words: str | None) -> None:
    """The character and how to write it; None where the parser had another reason."""
    explained = explain_refused_target(data)
    assert explained is None if words is None else words in (explained or "")
