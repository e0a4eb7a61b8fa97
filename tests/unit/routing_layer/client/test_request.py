"""Which requests are refused, and what becomes of an absolute target."""

from __future__ import annotations

import pytest

from routing_layer.client.request import LONGEST_TARGET, Field, Framing, check
from routing_layer.problems import Problem, ProblemType

_CODING = (b"Transfer-Encoding", b"chunked")
_BAD, _VERSION = ProblemType.BAD_REQUEST, ProblemType.UNSUPPORTED_VERSION


def _fields(*hosts: str) -> list[Field]:
    return [(b"Host", host.encode()) for host in hosts]


@pytest.mark.parametrize(
    ("method", "target", "version", "fields", "refused"),
    [
        ("GET", "/x", "1.1", _fields("h"), None),
        ("GET", "/x", "1.1", _fields("h:80"), None),
        ("GET", "/x", "1.1", _fields("[::1]:80"), None),
        ("GET", "/x", "1.1", _fields(""), None),
        ("GET", "/x?a=%23", "1.1", _fields("h"), None),
        ("GET", "/x", "1.0", [], None),
        ("OPTIONS", "*", "1.1", _fields("h"), None),
        ("CONNECT", "h:1", "1.1", _fields("h"), None),
        ("GET", "/x", "1.1", [*_fields("h"), _CODING], None),
        ("GET", "/" + "x" * (LONGEST_TARGET - 1), "1.1", _fields("h"), None),
        ("GET", "/" + "x" * LONGEST_TARGET, "1.1", _fields("h"), _BAD),
        ("GET", "/x", "1.1", [], _BAD),
        ("GET", "/x", "1.1", _fields("a", "b"), _BAD),
        ("GET", "/x", "1.1", [*_fields("a"), (b"hOST", b"a")], _BAD),
        ("GET", "/x", "1.0", _fields("a", "b"), _BAD),
        ("GET", "/x", "1.1", _fields("a,b"), _BAD),
        ("GET", "/x", "1.1", _fields("user@h"), _BAD),
        ("GET", "/x", "1.1", _fields("h/"), _BAD),
        ("GET", "/x", "1.1", _fields("h:port"), _BAD),
        ("GET", "/x", "1.1", _fields("h:123456"), _BAD),
        ("GET", "/x", "1.0", [_CODING], _BAD),
        ("GET", "/x", "1.1", [*_fields("h"), _CODING, _CODING], _BAD),
        ("GET", "/x", "1.1", [*_fields("h"), (b"Transfer-Encoding", b"gzip, chunked")], _BAD),
        ("GET", "x", "1.1", _fields("h"), _BAD),
        ("GET", "/x#y", "1.1", _fields("h"), _BAD),
        ("GET", "*", "1.1", _fields("h"), _BAD),
        ("GET", "ftp://h/x", "1.1", _fields("h"), _BAD),
        ("GET", "/x", "0.9", _fields("h"), _BAD),
        ("GET", "/x", "2.0", _fields("h"), _VERSION),
        ("GET", "/x", "3.7", _fields("h"), _VERSION),
    ],
)
def test_requests_that_are_refused(
    method: str, target: str, version: str, fields: list[Field], refused: ProblemType | None
) -> None:
    """By RFC 9112; all others keep their target and their fields."""
    if refused is None:
        assert check(method, target, version, fields)[:2] == (target, fields)
    else:
        with pytest.raises(Problem) as raised:
            check(method, target, version, fields)
        assert raised.value.type is refused


@pytest.mark.parametrize(
    ("fields", "framing"),
    [
        ([], Framing()),
        ([(b"Content-Length", b"0")], Framing()),
        ([(b"content-length", b"17")], Framing(length=17)),
        ([(b"TRANSFER-encoding", b"Chunked")], Framing(chunked=True)),
    ],
)
def test_what_follows_the_head(fields: list[Field], framing: Framing) -> None:
    """So many bytes, or chunks."""
    assert check("GET", "/x", "1.1", [*_fields("h"), *fields])[2] == framing


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        ("http://other:81/a/b?q=1", "/a/b?q=1", "other:81"),
        ("HTTPS://other", "/", "other"),
        ("http://other?q=%2F", "/?q=%2F", "other"),
        ("http://[::1]:5/a%20b", "/a%20b", "[::1]:5"),
    ],
)
def test_an_absolute_target_replaces_the_host(target: str, path: str, host: str) -> None:
    """The path and the query stay as they came; only one Host is left."""
    found, fields, _ = check("GET", target, "1.1", [*_fields("first"), (b"Accept", b"x")])
    assert (found, fields) == (path, [(b"Accept", b"x"), (b"Host", host.encode())])


@pytest.mark.parametrize("target", ["http://user@other/", "http://a,b/", "http:///x", "http://other/#f"])
def test_an_absolute_target_is_checked_like_a_host(target: str) -> None:
    """A user, a list, nothing, or a fragment is refused."""
    with pytest.raises(Problem) as raised:
        check("GET", target, "1.1", _fields("first"))
    assert raised.value.type is _BAD
