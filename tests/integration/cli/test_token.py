"""The command line and an operator that wants a token: who gets to know it, and what is said without the right one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli import main as cli
from reconciler.cli import runserver
from reconciler.cli.running_operator import NoResponse, OperatorResponse, ask
from reconciler.settings import Settings, load
from tests.harness.fakes import Stage
from tests.harness.ports import free_port
from tests.integration.web.operator import Operator, operating

TOKEN, OTHER = "right-" + "a" * 32, "wrong-" + "b" * 32


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings of an installation whose ksqlDB and engine are not there."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("KAFKA_BROKER", "k:9092"), ("KSQLDB_URL", "http://127.0.0.1:1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Operator]:
    """An operator that wants a token for everything, to which the settings point."""
    (tmp_path / "operators").write_text(f"{OTHER}-of-before\n{TOKEN}\n")
    stage = Stage(options={"reconciler_token_file": tmp_path / "operators", "reconciler_protect": "all"})
    stage.ksqldb.assets = {"a": "Weld"}
    with operating(stage) as running:
        monkeypatch.setenv("RECONCILER_PORT", str(running.server.port))
        yield running


def with_token(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """Give the command line a token."""
    Path("mine").write_text(f"{token}\nthe-second-line-is-not-sent\n")
    monkeypatch.setenv("RECONCILER_TOKEN_FILE", "mine")


@pytest.mark.usefixtures("closed")
def test_with_the_token_the_operator_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As without protection; nothing is read directly, which would fail here."""
    with_token(monkeypatch, TOKEN)
    assert cli.main(["why", "Weld"]) == 0
    assert "read by   the operator at http://127.0.0.1:" in capsys.readouterr().out
    assert isinstance(ask(load(), "/counters"), OperatorResponse)


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", "needs a token: RECONCILER_TOKEN_FILE is not set here"),
        (OTHER, "does not accept the first token of RECONCILER_TOKEN_FILE"),
    ],
)
def test_without_the_right_token_the_variable_is_named(monkeypatch: pytest.MonkeyPatch, token: str, words: str) -> None:
    """The command reads directly and says why; the token is in no message."""
    if token:
        with_token(monkeypatch, token)
    answer = ask(load(), "/groups/Weld")
    assert isinstance(answer, NoResponse)
    assert words in answer.why
    assert OTHER not in answer.why


class Stranger:
    """A program that answers 401 at the operator's address, and whom it was shown."""

    def __init__(self, answers: Sequence[tuple[int, dict[str, str], dict[str, Any]]]) -> None:
        """Give one answer after the other, then the last."""
        self.answers = answers
        self.authorizations: list[str | None] = []


@contextmanager
def serving(stranger: Stranger) -> Iterator[int]:
    """Serve on a port of this host."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number = min(len(stranger.authorizations), len(stranger.answers) - 1)
            status, fields, document = stranger.answers[number]
            stranger.authorizations.append(self.headers.get("Authorization"))
            body = json.dumps(document).encode()
            self.send_response(status)
            for name, value in {**fields, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def settings(port: int, **more: Any) -> Settings:
    """Settings with a token and an operator on this port."""
    Path("mine").write_text(TOKEN)
    return load(reconciler_port=port, reconciler_token_file=Path("mine"), **more)


@pytest.mark.parametrize(
    "answer",
    [
        (401, {}, {"owner": "another", "title": "unauthorized"}),
        (401, {}, {"title": "who are you"}),
        (401, {}, {}),
        (200, {}, {"owner": "another"}),
        (302, {"Location": "http://127.0.0.1:1/"}, {}),
    ],
    ids=["another installation", "another program", "nothing", "open", "a redirect"],
)
def test_a_stranger_on_the_port_is_shown_no_token(answer: tuple[int, dict[str, str], dict[str, Any]]) -> None:
    """Only an operator of this owner that asks for a token gets it."""
    stranger = Stranger([answer])
    with serving(stranger) as port:
        assert isinstance(ask(settings(port), "/counters"), NoResponse)
    assert stranger.authorizations == [None]


def test_a_token_is_not_sent_on_by_a_redirect() -> None:
    """Not even where an operator of this owner redirects."""
    trap = Stranger([(200, {}, {"owner": "ofa"})])
    with serving(trap) as elsewhere:
        redirect = {"Location": f"http://127.0.0.1:{elsewhere}/counters"}
        operator = Stranger([(401, {}, {"owner": "ofa"}), (307, redirect, {})])
        with serving(operator) as port:
            assert isinstance(ask(settings(port), "/counters"), NoResponse)
    assert operator.authorizations == [None, f"Bearer {TOKEN}"]
    assert trap.authorizations == []


def test_the_address_of_the_settings_gets_it_like_the_port() -> None:
    """`RECONCILER_URL` is asked where nothing answers on this host."""
    operator = Stranger([(401, {}, {"owner": "ofa"}), (200, {}, {"owner": "ofa"})])
    with serving(operator) as port:
        answer = ask(settings(free_port(), reconciler_url=f"http://user:secret@127.0.0.1:{port}"), "/counters")
    assert isinstance(answer, OperatorResponse)
    assert operator.authorizations == [None, f"Bearer {TOKEN}"]


@pytest.mark.parametrize("variable", ["AUTH_KEYS", "TLS_CERT"])
@pytest.mark.parametrize("place", ["", "environment", ".env"])
def test_runserver_opens_nothing_that_is_meant_to_be_closed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, place: str
) -> None:
    """A secret of the Swarm is no file here: without one in its place the command ends, and names it."""
    given = {
        "AUTH_KEYS": {"AUTH_KEYS_SECRET": "k", "AUTH_ISSUER": "i", "AUTH_AUDIENCE": "a"},
        "TLS_CERT": {"TLS_CERT_SECRET": "c", "TLS_KEY_SECRET": "k"},
    }[variable]
    for name, value in given.items():
        monkeypatch.setenv(f"ROUTING_LAYER_{name}", value)
    if place == "environment":
        monkeypatch.setenv(f"{variable}_FILE", "here")
    elif place:
        Path(".env").write_text(f"{variable}_FILE=here\n")

    def start(_: Settings) -> dict[str, str]:
        raise AssertionError("started")

    monkeypatch.setattr(runserver, "make_environment", start)
    if place:
        with pytest.raises(AssertionError, match="started"):
            cli.main(["runserver"])
    else:
        assert cli.main(["runserver"]) == 2
        words = f"ROUTING_LAYER_{variable}_SECRET is set, and runserver has no Swarm secrets: set {variable}_FILE"
        assert words in capsys.readouterr().err
