"""What browsers are told about pages of other origins."""

from __future__ import annotations

import pytest

from routing_layer.cors import Cors

_OURS, _OTHER = b"https://plant.example", b"https://evil.example"
_NAMED = Cors("https://plant.example, http://[fd00::1]:8080")
_ANY = Cors("*")
_OFF = Cors()
_ALLOWED = (
    b"Vary: Origin",
    b"Access-Control-Allow-Origin: https://plant.example",
    b"Access-Control-Allow-Credentials: true",
    b"Access-Control-Expose-Headers: Retry-After, WWW-Authenticate",
)
_STAR = (b"Access-Control-Allow-Origin: *", b"Access-Control-Expose-Headers: Retry-After, WWW-Authenticate")
_HIDDEN = (b"Vary: Origin",)


@pytest.mark.parametrize(
    ("cors", "origins", "fields"),
    [
        (_OFF, [_OURS], ()),
        (_OFF, [], ()),
        (_NAMED, [_OURS], _ALLOWED),
        (_NAMED, [_OTHER], _HIDDEN),
        (_NAMED, [], _HIDDEN),
        (_NAMED, [b"null"], _HIDDEN),
        (_NAMED, [b"*"], _HIDDEN),
        (_NAMED, [b""], _HIDDEN),
        (_NAMED, [b"https://plant.example:8443"], _HIDDEN),
        (_NAMED, [b"http://plant.example"], _HIDDEN),
        (_NAMED, [b"https://plant.example.evil.example"], _HIDDEN),
        (_NAMED, [b"https://plant.example/"], _HIDDEN),
        (_NAMED, [b"HTTPS://plant.example"], _HIDDEN),
        (_NAMED, [_OURS + b" " + _OTHER], _HIDDEN),
        (_NAMED, [_OURS, _OTHER], _HIDDEN),
        (_NAMED, [_OURS, _OURS], _HIDDEN),
        (_ANY, [_OURS], _STAR),
        (_ANY, [b"null"], _STAR),
        (_ANY, [], _STAR),
    ],
)
@pytest.mark.parametrize("name", [b"Origin", b"origin"])
def test_fields_by_origin(cors: Cors, origins: list[bytes], fields: tuple[bytes, ...], name: bytes) -> None:
    """Only an origin that is named, exactly and once, may read with credentials; with ``*`` all may, without."""
    assert cors.fields([(b"Host", b"x"), *((name, origin) for origin in origins)]) == fields


_PREFLIGHT = (
    b"Access-Control-Allow-Methods: GET, HEAD",
    b"Access-Control-Allow-Headers: Authorization, Last-Event-ID, Cache-Control",
    b"Access-Control-Max-Age: 600",
)
_METHOD = (b"access-control-request-method", b"GET")


@pytest.mark.parametrize(
    ("cors", "method", "headers", "answer"),
    [
        (_NAMED, "OPTIONS", [(b"origin", _OURS), _METHOD], _ALLOWED + _PREFLIGHT),
        (_NAMED, "OPTIONS", [(b"origin", _OTHER), _METHOD], _HIDDEN),
        (_ANY, "OPTIONS", [(b"Origin", _OTHER), _METHOD], _STAR + _PREFLIGHT),
        (_OFF, "OPTIONS", [(b"Origin", _OURS), _METHOD], None),
        (_NAMED, "OPTIONS", [(b"Origin", _OURS)], None),
        (_NAMED, "OPTIONS", [_METHOD], None),
        (_ANY, "OPTIONS", [_METHOD], None),
        (_NAMED, "GET", [(b"Origin", _OURS), _METHOD], None),
        (_NAMED, "POST", [(b"Origin", _OURS), _METHOD], None),
    ],
)
def test_preflights(
    cors: Cors, method: str, headers: list[tuple[bytes, bytes]], answer: tuple[bytes, ...] | None
) -> None:
    """One of an origin that is not allowed is answered without the fields, which is a refusal for a browser."""
    assert cors.answer_preflight(method, headers) == answer


def test_what_a_service_says_is_replaced_only_where_origins_are_named() -> None:
    """Two statements of the same kind would be none for a browser."""
    own = (b"Content-Type: x", b"access-control-Allow-Origin: *", b"Access-Control-Max-Age: 5", b"Vary: Accept")
    assert tuple(_OFF.replace(own, ())) == own
    assert tuple(_NAMED.replace(own, _ALLOWED)) == (b"Content-Type: x", b"Vary: Accept", *_ALLOWED)
