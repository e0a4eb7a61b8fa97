"""No page can make a browser pause the operator."""

from __future__ import annotations

import http
import socket
from itertools import product

import httpx

from tests.harness.fakes import Stage
from tests.integration.web.operator import operating

FOREIGN = (
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://["},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    # A page whose name was made to lead here (DNS rebinding) has the origin that it asks.
    {"Host": "evil.example:8080", "Origin": "http://evil.example:8080", "Sec-Fetch-Site": "same-origin"},
)


def test_what_a_page_sends_is_refused() -> None:
    """403 for each thing that can be done here, and nothing is paused."""
    with operating(Stage()) as operator:
        for headers, path in product(FOREIGN, ("pause?seconds=600", "resume", "reconcile")):
            answer = httpx.post(f"{operator.url}{path}", headers=headers)
            assert answer.status_code == http.HTTPStatus.FORBIDDEN, (headers, path)
        assert not operator.loop.paused


def test_programs_are_not() -> None:
    """curl, the routing layer and the command line send neither header."""
    with operating(Stage()) as operator:
        assert httpx.post(f"{operator.url}reconcile").is_success
        assert httpx.post(f"{operator.url}pause?seconds=60").is_success
        assert operator.loop.paused
        assert httpx.post(f"{operator.url}resume").is_success


def test_a_page_whose_name_leads_here_reads_nothing() -> None:
    """DNS rebinding: whatever is asked for, by a name that a page on the web can have, the answer is 421."""
    with operating(Stage()) as operator:
        for path in ("", "status", "registry", "metrics", "groups/Weld", "counters", "readyz", "healthz", "nowhere"):
            answer = httpx.get(f"{operator.url}{path}", headers={"Host": "evil.example:8080"})
            assert answer.status_code == http.HTTPStatus.MISDIRECTED_REQUEST, path
            assert "RECONCILER_ALLOWED_HOSTS" in answer.json()["detail"]
        for head in (
            b"GET /status HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
            b"GET http://evil.example/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", operator.server.port), 10) as client:
                client.sendall(head)
                assert client.recv(65536).split()[1][:1] == b"4", head


def test_no_answer_is_taken_for_something_else() -> None:
    """Every answer says what it is, and that nothing in it runs."""
    with operating(Stage()) as operator:
        for path in ("", "status", "metrics", "groups/Weld", "counters", "healthz", "nowhere", "?condition=Bogus"):
            headers = httpx.get(f"{operator.url}{path}").headers
            assert headers["X-Content-Type-Options"] == "nosniff", path
            assert headers["Content-Security-Policy"].startswith("default-src 'none'"), path


def test_everybody_may_read() -> None:
    """What only shows something is not refused."""
    with operating(Stage()) as operator:
        assert httpx.get(f"{operator.url}healthz", headers={"Origin": "http://evil.example"}).is_success
