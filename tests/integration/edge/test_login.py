"""The operator's page behind the edge: who gets in, what reaches the operator, and what never does."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from openfactory_common.tokens import read_tokens
from tests.integration.edge.edge_system import (
    CLIENT,
    OLD_TOKEN,
    TOKEN,
    TOKENS,
    Edge,
    RecordingOperator,
    login,
    start_edge,
)


@contextlib.asynccontextmanager
async def start_page(
    haproxy: str, folder: Path, tokens: str | None = TOKENS
) -> AsyncIterator[tuple[RecordingOperator, Edge]]:
    """Run an operator with the edge before it, until its page is served."""
    operator = await RecordingOperator().start()
    try:
        async with start_edge(haproxy, folder, routing_layer=1, operator=operator.port, tokens=tokens) as (edge, _):
            await edge.wait_for("/openfactory/", 200, login())
            operator.requests.clear()
            yield operator, edge
    finally:
        await operator.stop()


async def test_only_a_right_password_gets_in(haproxy: str, tmp_path: Path) -> None:
    """Without one and with a wrong one the browser is asked for it, and the operator gets no request."""
    async with start_page(haproxy, tmp_path) as (operator, edge):
        headers = [(), (login("wrong"),), ("Authorization: Basic !",), (f"Authorization: Bearer {TOKEN}",)]
        for given in headers:
            refused = await edge.get("/openfactory/", *given)
            assert refused.status == 401
            assert refused.header("WWW-Authenticate") == 'Basic realm="OpenFactory operator"'
        assert operator.requests == []
        page = await edge.get("/openfactory/", login())
        assert page.status == 200
        assert await page.rest() == b"the page"


async def test_the_operator_gets_its_token_and_nothing_of_the_users(haproxy: str, tmp_path: Path) -> None:
    """Path and query without the prefix, the operator's token as it is in the file, no password and no cookie."""
    async with start_page(haproxy, tmp_path) as (operator, edge):
        lies = ("X-Forwarded-For: 6.6.6.6", "Cookie: openfactory_token=secret")
        await edge.get("/openfactory/groups/A%2FB%20?q=x%26y&condition=Ready", login(), *lies)
        ((method, target, headers),) = operator.requests
        assert (method, target) == ("GET", "/groups/A%2FB%20?q=x%26y&condition=Ready")
        assert headers["Authorization"] == f"Bearer {TOKEN}"
        assert headers["Host"] == "reconciler"
        assert headers["X-Forwarded-For"] == CLIENT
        assert "Cookie" not in headers


async def test_without_a_token_none_is_sent(haproxy: str, tmp_path: Path) -> None:
    """An operator without protection gets no credentials at all; the stack file always has a token."""
    async with start_page(haproxy, tmp_path, tokens=None) as (operator, edge):
        await edge.get("/openfactory/status", login())
        assert "Authorization" not in operator.requests[0][2]


@pytest.mark.parametrize(
    "tokens",
    [
        TOKEN,
        f"{TOKEN}\r\n{OLD_TOKEN}\r\n",
        f"\n{TOKEN}\n",
        f"\r\n \t\r\n\t  {TOKEN} \t\r\n\r\n{OLD_TOKEN}",
        f"{TOKEN}\r{OLD_TOKEN}\r",
    ],
    ids=["no line end", "CRLF", "blank first line", "blanks around", "CR"],
)
async def test_the_token_file_is_read_as_the_operator_reads_it(haproxy: str, tmp_path: Path, tokens: str) -> None:
    """The first token is sent, whatever editor wrote the file."""
    async with start_page(haproxy, tmp_path, tokens=tokens) as (operator, edge):
        await edge.get("/openfactory/status", login())
        first = read_tokens(tmp_path / "edge" / "reconciler_token")[0]
        assert operator.requests[0][2]["Authorization"] == f"Bearer {first}" == f"Bearer {TOKEN}"


@pytest.mark.parametrize("tokens", ["", "\n", " \t\r\n\r\n"])
def test_without_a_token_in_the_secret_it_does_not_start(haproxy: str, tmp_path: Path, tokens: str) -> None:
    """The task fails and says why, instead of a page that only answers 401."""
    edge = Edge(haproxy, tmp_path / "edge", {}, tokens)
    done = subprocess.run([*edge.command, "-c"], env=edge.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "there is no token in the secret reconciler_token\n"


async def test_nothing_that_writes_reaches_the_operator(haproxy: str, tmp_path: Path) -> None:
    """The edge has the operator's token, so it passes only what reads."""
    async with start_page(haproxy, tmp_path) as (operator, edge):
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            refused = await edge.get("/openfactory/pause?seconds=600", login(), method=method)
            assert refused.status == 405, method
            assert refused.header("Allow") == "GET, HEAD"
        assert operator.requests == []
        assert (await edge.get("/openfactory/", login(), method="HEAD")).status == 200
        assert [request[0] for request in operator.requests] == ["HEAD"]


async def test_guesses_are_limited(haproxy: str, tmp_path: Path) -> None:
    """After some wrong passwords an address waits, whatever it sends; requests without a password do not count."""
    async with start_page(haproxy, tmp_path) as (operator, edge):
        for _ in range(30):
            assert (await edge.get("/openfactory/")).status == 401
        guesses = [(await edge.get("/openfactory/", login(f"{guess}"))).status for guess in range(25)]
        assert guesses == [401] * 20 + [429] * 5
        refused = await edge.get("/openfactory/", login())
        assert refused.status == 429
        assert refused.header("Retry-After") == "60"
        assert operator.requests == []
        assert (await edge.get("/healthz")).status == 200


async def test_a_missing_slash_is_added(haproxy: str, tmp_path: Path) -> None:
    """Relative links of the page need it; what only looks like the prefix is no page."""
    async with start_page(haproxy, tmp_path) as (operator, edge):
        moved = await edge.get("/openfactory")
        assert (moved.status, moved.header("Location")) == (308, "/openfactory/")
        for other in ("/openfactoryx", "/open%66actory/", "/openfactory%2F", "/OPENFACTORY/", "//openfactory/"):
            assert (await edge.get(other, login())).status == 404, other
        assert operator.requests == []
