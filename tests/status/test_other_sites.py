"""A page of another site cannot make a browser pause the operator."""

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
)


def test_what_another_page_sends_is_refused() -> None:
    """403 for each thing that can be done here, and nothing is paused."""
    with operating(Stage()) as operator:
        for headers, path in product(FOREIGN, ("pause?seconds=600", "resume", "reconcile")):
            answer = httpx.post(f"{operator.url}{path}", headers=headers)
            assert answer.status_code == http.HTTPStatus.FORBIDDEN, (headers, path)
        assert not operator.loop.paused


def test_programs_and_its_own_page_are_not() -> None:
    """curl, the routing layer and the command line send neither header; a page of the operator's own has its origin."""
    with operating(Stage()) as operator:
        own = {"Origin": operator.url.rstrip("/"), "Sec-Fetch-Site": "same-origin"}
        for headers in ({}, own):
            assert httpx.post(f"{operator.url}reconcile", headers=headers).is_success
            assert httpx.post(f"{operator.url}pause?seconds=60", headers=headers).is_success
            assert operator.loop.paused
            assert httpx.post(f"{operator.url}resume", headers=headers).is_success


def test_everybody_may_read() -> None:
    """What only shows something is not refused."""
    with operating(Stage()) as operator:
        assert httpx.get(f"{operator.url}healthz", headers={"Origin": "http://evil.example"}).is_success
