"""Who may write to the operator, and read from it, with a token and without: every route, over a real socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from reconciler.web.server import Server
from tests.harness.fakes import Stage
from tests.integration.web.operator import Operator, operating

FIRST, SECOND, OTHER = "first-" + "a" * 32, "second-" + "b" * 32, "other-installation-" + "c" * 32
OFF, WRITES, ALL = "off", "writes", "all"
OPEN = ("/healthz", "/readyz", "/metrics")
REQUESTS = (
    *(
        ("GET", path)
        for path in ("/", "/status", "/registry", "/counters", "/events", "/groups/Weld", "/groups/", *OPEN)
    ),
    *(("HEAD", path) for path in ("/", "/status", *OPEN)),
    ("POST", "/reconcile"),
    ("POST", "/pause?seconds=600"),
    ("POST", "/resume"),
    ("POST", "/pause?group=Weld&seconds=600"),
    ("POST", "/resume?group=Weld"),
    # What no route serves, and other spellings of what one does.
    *(
        ("GET", path)
        for path in ("/nothing", "//status", "/healthz/../status", "/healthz/", "/%73tatus", "/?q=/healthz")
    ),
    *(("POST", path) for path in ("/nothing", "/status", "/healthz", "/metrics", "//pause?seconds=600")),
    *((method, "/pause?seconds=600") for method in ("PUT", "DELETE", "OPTIONS", "PATCH")),
)
CREDENTIALS: dict[str, tuple[Sequence[str], bool]] = {
    "no token": ((), False),
    "wrong": (("Authorization: Bearer wrong",), False),
    "of another installation": ((f"Authorization: Bearer {OTHER}",), False),
    "empty": (("Authorization: Bearer ",), False),
    "an empty field": (("Authorization:",), False),
    "half of it": ((f"Authorization: Bearer {FIRST[:-1]}",), False),
    "two at once": ((f"Authorization: Bearer {FIRST} {SECOND}",), False),
    "two headers": ((f"Authorization: Bearer {FIRST}", f"Authorization: Bearer {SECOND}"), False),
    "right and wrong": ((f"Authorization: Bearer {FIRST}", "Authorization: Bearer wrong"), False),
    "another scheme": ((f"Authorization: Basic {FIRST}",), False),
    "no scheme": ((f"Authorization: {FIRST}",), False),
    "a cookie": ((f"Cookie: token={FIRST}; Authorization=Bearer {FIRST}",), False),
    "not ASCII": (("Authorization: Bearer \xfc\xff",), False),
    "first": ((f"Authorization: Bearer {FIRST}",), True),
    "second": ((f"Authorization: Bearer {SECOND}",), True),
    "lower case": ((f"authorization: bearer {FIRST}",), True),
}


@pytest.fixture(scope="module", params=[OFF, WRITES, ALL])
def protected(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Operator]]:
    """An operator with each kind of protection."""
    file = tmp_path_factory.mktemp("token") / "tokens"
    file.write_text(f"{FIRST}\n{SECOND}\n")
    stage = Stage(
        options={} if request.param == OFF else {"reconciler_token_file": file, "reconciler_protect": request.param}
    )
    stage.ksqldb.assets = {"a": "Weld"}
    with operating(stage) as running:
        yield request.param, running


def ask(operator: Operator, method: str, target: str, *fields: str) -> tuple[int, dict[str, str], bytes]:
    """Send a request as it is; return status, fields by name in lower case, and body."""
    lines = (
        f"{method} {target} HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        "Content-Length: 0",
        *fields,
        "",
        "",
    )
    with socket.create_connection(("127.0.0.1", operator.server.port), 10) as client:
        client.sendall("\r\n".join(lines).encode("latin-1"))
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    return (
        int(first.split()[1]),
        {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)},
        body,
    )


@pytest.mark.parametrize("credentials", CREDENTIALS)
def test_every_request_needs_what_it_should(protected: tuple[str, Operator], credentials: str) -> None:
    """401 or not, and nothing is paused by a request that was refused."""
    protect, operator = protected
    fields, valid = CREDENTIALS[credentials]
    for method, target in REQUESTS:
        reads = method in ("GET", "HEAD")
        needed = protect != OFF and not (reads and (protect == WRITES or target in OPEN))
        status, _, body = ask(operator, method, target, *fields)
        assert (status == 401) == (needed and not valid), (method, target, status)
        assert operator.loop.paused == (target.startswith("/pause?seconds") and method == "POST" and status == 200)
        assert not [token for token in (FIRST, SECOND, OTHER) if token.encode() in body]


def test_every_route_is_in_the_table() -> None:
    """A route that the server gains has to show what it needs."""
    stage = Stage()
    with operating(stage) as operator:
        server: Server = operator.server
        routes = server._make_app().router.routes()
    served = {(route.method, route.resource.canonical) for route in routes if route.resource is not None}
    tried = {
        (method, target.partition("?")[0].replace("/groups/Weld", "/groups/{group}")) for method, target in REQUESTS
    }
    assert {one for one in served if one[0] != "HEAD"} <= tried
    assert len(served) > 10


@pytest.mark.parametrize(
    ("credentials", "challenge"),
    [
        ("no token", 'Bearer realm="reconciler"'),
        ("wrong", 'Bearer realm="reconciler", error="invalid_token"'),
        ("two headers", 'Bearer realm="reconciler", error="invalid_token"'),
    ],
)
def test_a_refusal_says_what_is_wanted(tmp_path: Path, credentials: str, challenge: str) -> None:
    """A problem document (RFC 9457) with a challenge (RFC 6750), kept by no cache."""
    (tmp_path / "t").write_text(FIRST)
    with operating(Stage(options={"reconciler_token_file": tmp_path / "t"})) as operator:
        status, fields, body = ask(operator, "POST", "/pause?seconds=9", *CREDENTIALS[credentials][0])
    problem = json.loads(body)
    assert (status, fields["content-type"]) == (401, "application/problem+json; charset=utf-8")
    assert (fields["www-authenticate"], fields["cache-control"]) == (challenge, "no-store")
    assert problem["type"] == "urn:openfactory:reconciler:unauthorized"
    assert (problem["status"], problem["owner"]) == (401, "ofa")
    assert "RECONCILER_TOKEN_FILE" in problem["detail"]


def test_a_token_is_rotated_without_a_restart(tmp_path: Path) -> None:
    """Old, both, new; a file that is broken meanwhile changes nothing."""
    file = tmp_path / "t"
    file.write_text(FIRST)
    with operating(Stage(options={"reconciler_token_file": file})) as operator:

        def accepted(token: str) -> bool:
            return ask(operator, "POST", "/reconcile", f"Authorization: Bearer {token}")[0] != 401

        seen = []
        for content in (FIRST, f"{SECOND}\n{FIRST}\n", "broken by a hand", SECOND, ""):
            file.write_text(content)
            seen.append((accepted(FIRST), accepted(SECOND)))
        file.unlink()
        seen.append((accepted(FIRST), accepted(SECOND)))
    both, new = (True, True), (False, True)
    assert seen == [(True, False), both, both, new, new, new]


def test_a_browser_may_not_write_with_a_token(tmp_path: Path) -> None:
    """A reverse proxy that adds the token for people who have logged in must not make a page's request a write."""
    (tmp_path / "t").write_text(FIRST)
    with operating(Stage(options={"reconciler_token_file": tmp_path / "t", "reconciler_protect": ALL})) as operator:
        token = f"Authorization: Bearer {FIRST}"
        for origin in ("Origin: http://localhost", "Sec-Fetch-Site: same-origin"):
            assert ask(operator, "POST", "/pause?seconds=9", token, origin)[0] == 403
        assert ask(operator, "GET", "/", token, "Sec-Fetch-Site: same-origin")[0] == 200
        assert not operator.loop.paused


def test_a_name_that_leads_here_by_dns_needs_more_than_a_token(tmp_path: Path) -> None:
    """421 comes first, whatever a proxy says about the host that was asked."""
    (tmp_path / "t").write_text(FIRST)
    with operating(Stage(options={"reconciler_token_file": tmp_path / "t"})) as operator:
        token = f"Authorization: Bearer {FIRST}"
        for fields in ((), (token,), (token, "X-Forwarded-Host: localhost"), ("Forwarded: host=localhost",)):
            assert ask(operator, "GET", "http://evil.example/status", *fields)[0] == 421
        assert ask(operator, "GET", "/status", "X-Forwarded-Host: evil.example")[0] == 200
