"""The head that a service gets: what of a client's fields it sees, and what the proxy states itself."""

from __future__ import annotations

import pytest

from routing_layer.trusted_proxies import TrustedProxies
from routing_layer.upstream.dialer import Target
from routing_layer.upstream.request_head import RequestHeads

_TARGET = Target.parse("http://ofa_state_api:5555/asset_stream")
_PLAIN = RequestHeads(TrustedProxies())
_EDGE = RequestHeads(TrustedProxies("10.0.0.5"))
_ACCESS = RequestHeads(TrustedProxies(), b"token")


def build(
    *fields: str,
    heads: RequestHeads = _PLAIN,
    remote: str | None = "10.0.0.5",
    raw_path: str = "/asset_stream?asset_uuid=A1",
    resume: bytes | None = None,
) -> list[str]:
    """Return the lines of the head for these fields of a client."""
    raw_headers = [
        (name.encode("latin-1"), value.strip().encode("latin-1"))
        for name, _, value in (field.partition(":") for field in fields)
    ]
    data = heads.build(raw_path, _TARGET, raw_headers, remote, "http", resume)
    assert data.endswith(b"\r\n\r\n")
    return data.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")


def values(lines: list[str], name: str) -> list[str]:
    """Return the values of the fields of that name."""
    pairs = [line.partition(": ") for line in lines[1:]]
    return [value for key, _, value in pairs if key.lower() == name]


@pytest.mark.parametrize(
    ("raw_path", "line"),
    [
        ("/group/Weld/asset_stream", "GET /asset_stream HTTP/1.1"),
        ("/x?", "GET /asset_stream HTTP/1.1"),
        ("/x?a=%2f?b&&c=/+%41", "GET /asset_stream?a=%2f?b&&c=/+%41 HTTP/1.1"),
        ("/x?a=\udcff", "GET /asset_stream?a=\xff HTTP/1.1"),
    ],
)
def test_the_query_is_as_it_came(raw_path: str, line: str) -> None:
    """Byte for byte, behind the path of the service."""
    assert build("Host: plant", raw_path=raw_path)[0] == line


@pytest.mark.parametrize(
    ("fields", "host"),
    [
        (["Host: plant.example:5555"], "plant.example:5555"),
        (["hOST: plant.example"], "plant.example"),
        (["Host:"], "ofa_state_api:5555"),
        ([], "ofa_state_api:5555"),
        (["Host: plant", "Connection: host"], "ofa_state_api:5555"),
    ],
)
def test_host_is_the_clients(fields: list[str], host: str) -> None:
    """A service sees the name that its client used; without one, its own."""
    lines = build(*fields)
    assert lines[1] == f"Host: {host}"
    assert values(lines, "host") == values(lines, "x-forwarded-host") == [host]


@pytest.mark.parametrize(
    "name",
    [
        *("Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "TE", "Trailer", "Upgrade", "upgrade"),
        *("Transfer-Encoding", "Content-Length", "Expect", "tRANSFER-eNCODING"),
        *("X_Forwarded_For", "x-forwarded_proto", "X_FORWARDED-HOST", "X_Forwarded_Port", "X_Real_IP", "x-real_ip"),
        *("X-Forwarded-Port", "X-Forwarded-Prefix", "x-forwarded-anything", "X-Real-IP", "x-rEAL-ip"),
    ],
)
def test_fields_that_a_service_does_not_get(name: str) -> None:
    """What concerns one connection, and what only a trusted proxy may state; in every spelling."""
    lines = build("Host: plant", f"{name}: 1", "X-After: 2")
    assert values(lines, name.lower()) == []
    assert values(lines, "x-after") == ["2"]


@pytest.mark.parametrize(
    "name", ["Accept", "aCCEPT", "X_Mine", "X-Mine", "Via", "X-Forwarded", "Last-Event-ID", "Cookie"]
)
def test_fields_that_a_service_gets(name: str) -> None:
    """All others, each in its order, with its bytes."""
    lines = build(f"{name}: \xe4 1", "Host: plant", f"{name}: 2")
    assert values(lines, name.lower()) == ["\xe4 1", "2"]


@pytest.mark.parametrize(
    ("connection", "left"),
    [
        (["keep-alive"], ["X-One", "X-Two", "X-Forwarded-For"]),
        (["close"], ["X-One", "X-Two", "X-Forwarded-For"]),
        (["keep-alive, x-ONE"], ["X-Two", "X-Forwarded-For"]),
        (["X-Two", "Keep-Alive,X-One ,\xff"], ["X-Forwarded-For"]),
        (["X-Forwarded-For, X-Two"], ["X-One", "X-Forwarded-For"]),
    ],
)
def test_fields_that_connection_names(connection: list[str], left: list[str]) -> None:
    """They are the connection's; a client cannot hide in that way what a proxy states about it."""
    fields = ["X-One: 1", "X-Two: 2", "X-Forwarded-For: 1.2.3.4"]
    lines = build("Host: plant", *(f"Connection: {value}" for value in connection), *fields, heads=_EDGE)
    assert [name for name in ("X-One", "X-Two", "X-Forwarded-For") if values(lines, name.lower())] == left
    assert values(lines, "x-forwarded-for") == ["1.2.3.4, 10.0.0.5"]


_CLAIMS = (
    "X-Forwarded-For: 6.6.6.6",
    "x-forwarded-for: 7.7.7.7, 8.8.8.8",
    "X-Forwarded-For:",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: outside.example",
    "X-Forwarded-Port: 443",
    "X-Real-IP: 6.6.6.6",
    "Forwarded: for=1.1.1.1",
    'Forwarded: for="2.2.2.2',
    'Forwarded: for="[2::2]:2";by="\\""',
)


@pytest.mark.parametrize(
    ("heads", "remote", "forwarded"),
    [
        (_PLAIN, "10.0.0.5", "for=10.0.0.5"),
        (_EDGE, "10.0.0.6", "for=10.0.0.6"),
        (_EDGE, "2001:db8::1", 'for="[2001:db8::1]"'),
        (_EDGE, None, "for=unknown"),
    ],
)
def test_what_others_state_is_replaced(heads: RequestHeads, remote: str | None, forwarded: str) -> None:
    """A service that believes the fields gets only what the proxy itself saw."""
    lines = build("Host: plant", *_CLAIMS, heads=heads, remote=remote)
    assert values(lines, "x-forwarded-for") == [remote or "unknown"]
    assert values(lines, "x-forwarded-proto") == ["http"]
    assert values(lines, "x-forwarded-host") == ["plant"]
    assert values(lines, "forwarded") == [forwarded]
    assert values(lines, "x-forwarded-port") == values(lines, "x-real-ip") == []


@pytest.mark.parametrize("remote", ["10.0.0.5", "::ffff:10.0.0.5"])
def test_what_a_trusted_proxy_states_is_kept(remote: str) -> None:
    """In order, with the proxy's address behind it; an element of Forwarded that never ends is left out."""
    lines = build("Host: plant", *_CLAIMS, heads=_EDGE, remote=remote)
    assert values(lines, "x-forwarded-for") == ["6.6.6.6, 7.7.7.7, 8.8.8.8, 10.0.0.5"]
    assert values(lines, "x-forwarded-proto") == ["https"]
    assert values(lines, "x-forwarded-host") == ["outside.example"]
    assert values(lines, "forwarded") == ['for=1.1.1.1, for="[2::2]:2";by="\\"", for=10.0.0.5']
    assert values(lines, "x-forwarded-port") == ["443"]
    assert values(lines, "x-real-ip") == ["6.6.6.6"]


@pytest.mark.parametrize("heads", [_PLAIN, _EDGE])
def test_without_a_proxy_in_front_the_proxy_states_the_client(heads: RequestHeads) -> None:
    """Also where its peer would be believed; Forwarded is there only if it came."""
    lines = build("Host: plant", "Cookie: a=1", heads=heads)
    assert values(lines, "x-forwarded-for") == ["10.0.0.5"]
    assert values(lines, "x-forwarded-proto") == ["http"]
    assert values(lines, "x-forwarded-host") == ["plant"]
    assert values(lines, "forwarded") == []


def test_events_are_asked_for_since_the_request() -> None:
    """The line takes the place of an empty field of the client; without it the client's field is passed on."""
    assert values(build("Last-Event-ID:", resume=b"Last-Event-ID: @5"), "last-event-id") == ["@5"]
    assert values(build(resume=b"Last-Event-ID: @5"), "last-event-id") == ["@5"]
    assert values(build("last-event-id: 7"), "last-event-id") == ["7"]


@pytest.mark.parametrize(
    ("field", "off", "on"),
    [
        ("Authorization: Bearer t", "Bearer t", None),
        ("authorization: bEARER t", "bEARER t", None),
        ("Authorization: Basic dTpw", "Basic dTpw", "Basic dTpw"),
        ("Cookie: token=t", "token=t", None),
        ("Cookie: a=1; token=t; b=2", "a=1; token=t; b=2", "a=1; b=2"),
        ("Cookie: token=t;token=u;  b=token", "token=t;token=u;  b=token", "b=token"),
        ("Cookie: mytoken=t; Token=u; token2=v", "mytoken=t; Token=u; token2=v", "mytoken=t; Token=u; token2=v"),
        ("Cookie: a=1;b=2", "a=1;b=2", "a=1;b=2"),
    ],
)
def test_tokens_are_for_the_proxy(field: str, off: str, on: str | None) -> None:
    """Where it checks them, a service gets none; where it does not, all credentials are the service's."""
    name = field.partition(":")[0].lower()
    assert values(build("Host: plant", field), name) == [off]
    assert values(build("Host: plant", field, heads=_ACCESS), name) == ([] if on is None else [on])
