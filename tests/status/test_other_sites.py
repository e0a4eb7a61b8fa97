"""No page can make a browser pause the operator."""

from __future__ import annotations

import http
from itertools import product

import httpx

from tests.fakes import Stage
from tests.status.operator import operating

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


def test_everybody_may_read() -> None:
    """What only shows something is not refused."""
    with operating(Stage()) as operator:
        assert httpx.get(f"{operator.url}healthz", headers={"Origin": "http://evil.example"}).is_success
