"""Which requests are refused, and what becomes of an absolute target."""

from __future__ import annotations

import pytest
from aiohttp.http import HttpVersion, HttpVersion10, HttpVersion11, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from routing_layer.problems import ProblemType
from routing_layer.request_line import prepare

_HTTP2 = HttpVersion(2, 0)


def message(
    path: str = "/x", *hosts: str, method: str = "GET", version: HttpVersion = HttpVersion11, **headers: str
) -> RawRequestMessage:
    """Return a request as aiohttp's parser gives it."""
    fields = CIMultiDict([*(("Host", host) for host in hosts), *headers.items()])
    raw = tuple((name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in fields.items())
    return RawRequestMessage(
        method, path, version, CIMultiDictProxy(fields), raw, False, None, False, False, URL("/x", encoded=True)
    )


_CODING = {"Transfer-Encoding": "chunked"}


@pytest.mark.parametrize(
    ("request_message", "refused"),
    [
        (message("/x", "h"), None),
        (message("/x", "h:80"), None),
        (message("/x", "[::1]:80"), None),
        (message("/x", ""), None),
        (message("/x?a=%23", "h"), None),
        (message("/x", version=HttpVersion10), None),
        (message("*", "h", method="OPTIONS"), None),
        (message("h:1", "h", method="CONNECT"), None),
        (message("/x", "h", **_CODING), None),
        (message("/x"), ProblemType.BAD_REQUEST),
        (message("/x", "a", "b"), ProblemType.BAD_REQUEST),
        (message("/x", "a", "b", version=HttpVersion10), ProblemType.BAD_REQUEST),
        (message("/x", "a,b"), ProblemType.BAD_REQUEST),
        (message("/x", "user@h"), ProblemType.BAD_REQUEST),
        (message("/x", "h/"), ProblemType.BAD_REQUEST),
        (message("/x", "h:port"), ProblemType.BAD_REQUEST),
        (message("/x", "h:123456"), ProblemType.BAD_REQUEST),
        (message("/x", "h", version=HttpVersion10, **_CODING), ProblemType.BAD_REQUEST),
        (message("x", "h"), ProblemType.BAD_REQUEST),
        (message("/x#y", "h"), ProblemType.BAD_REQUEST),
        (message("*", "h"), ProblemType.BAD_REQUEST),
        (message("ftp://h/x", "h"), ProblemType.BAD_REQUEST),
        (message("/x", "h", version=HttpVersion(0, 9)), ProblemType.BAD_REQUEST),
        (message("/x", "h", version=HttpVersion(1, 2)), None),
        (message("/x", "h", version=_HTTP2), ProblemType.UNSUPPORTED_VERSION),
    ],
    ids=lambda value: f"{value.method} {value.path} {value.version}" if isinstance(value, tuple) else "",
)
def test_requests_that_are_refused(request_message: RawRequestMessage, refused: ProblemType | None) -> None:
    """By RFC 9112; a refused one becomes HTTP/1.0 and ends its connection, so that its answer can be written."""
    prepared, problem = prepare(request_message)
    assert (problem and problem.type) == refused
    if refused is None:
        assert prepared == request_message
    else:
        assert (prepared.version, prepared.should_close) == (HttpVersion10, True)


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
    """The path and the query stay as they came; only one Host is left, in both forms of the headers."""
    prepared, problem = prepare(message(target, "first", Accept="x"))
    assert problem is None
    assert (prepared.path, prepared.headers.getall("Host")) == (path, [host])
    assert [value for name, value in prepared.raw_headers if name.lower() == b"host"] == [host.encode()]
    assert str(prepared.url) == path
    assert prepared.headers["Accept"] == "x"


@pytest.mark.parametrize("target", ["http://user@other/", "http://a,b/", "http:///x", "http://other/#f"])
def test_an_absolute_target_is_checked_like_a_host(target: str) -> None:
    """A user, a list, nothing, or a fragment is refused."""
    _, problem = prepare(message(target, "first"))
    assert problem is not None
    assert problem.type is ProblemType.BAD_REQUEST
