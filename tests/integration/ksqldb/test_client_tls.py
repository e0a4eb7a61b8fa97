"""ksqlDB over TLS and with a password, on real sockets: what works, and what a person reads when it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from openfactory_common.errors import KsqlError, KsqlRefused, KsqlUnreachable
from reconciler.app import build_dependencies
from reconciler.cli import main as cli
from reconciler.ksqldb.client import KsqlClient
from reconciler.metrics import Metrics
from reconciler.settings import load
from tests.integration.ksqldb.tls import Authority, Guarded, ksqldb

USER = ("alice", "open: sesame")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that signed the server's certificate."""
    return Authority.make(tmp_path_factory.mktemp("right") / "ca")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that signed nothing here."""
    return Authority.make(tmp_path_factory.mktemp("wrong") / "ca")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[Guarded]:
    """A server with a certificate for 127.0.0.1 and a password."""
    with ksqldb(authority.sign("IP:127.0.0.1"), USER) as running:
        yield running


def refused(url: str, ca: Path | None, auth: tuple[str, str] | None = USER) -> KsqlError:
    """Return why a first question is not answered."""
    with closing(KsqlClient(url, ca=str(ca) if ca else None, auth=auth)) as client, pytest.raises(KsqlError) as raised:
        client.info()
    return raised.value


def test_settings_lead_to_a_trusted_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Guarded, authority: Authority
) -> None:
    """https, the authority's file, and user and password from files: every kind of question is answered."""
    monkeypatch.chdir(tmp_path)
    for name, secret in zip(("KSQLDB_USERNAME_FILE", "KSQLDB_PASSWORD_FILE"), USER, strict=True):
        (tmp_path / name).write_text(f"{secret}\n")
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("KAFKA_BROKER", "broker:9092")
    monkeypatch.setenv("KSQLDB_URL", f"https://127.0.0.1:{server.port}")
    monkeypatch.setenv("KSQLDB_CA_FILE", str(authority.certificate))
    with closing(build_dependencies(load(), Metrics()).ksqldb) as client:
        assert client.info().status == "RUNNING"
        assert client.streams() == ()
        assert client.health().healthy


def test_another_authority_is_refused_with_the_settings_name(server: Guarded, stranger: Authority) -> None:
    """One line that says what is wrong with the certificate and which variable is about it."""
    error = refused(f"https://127.0.0.1:{server.port}", stranger.certificate)
    assert isinstance(error, KsqlUnreachable)
    assert "certificate is not accepted" in str(error)
    assert "KSQLDB_CA_FILE" in str(error)
    assert "\n" not in str(error)


def test_the_systems_authorities_do_not_know_it(server: Guarded) -> None:
    """Without `KSQLDB_CA_FILE` a certificate of one's own authority is not trusted, and the message names the way."""
    assert "KSQLDB_CA_FILE" in str(refused(f"https://127.0.0.1:{server.port}", None))


def test_a_certificate_for_another_host_is_refused(authority: Authority) -> None:
    """The right authority does not make it the right server."""
    with ksqldb(authority.sign("DNS:other.example")) as running:
        error = refused(f"https://127.0.0.1:{running.port}", authority.certificate)
    assert "KSQLDB_URL the host that it is for" in str(error)


@pytest.mark.parametrize("auth", [None, ("alice", "wrong"), ("bob", USER[1])])
def test_a_wrong_password_names_the_variables(
    server: Guarded, authority: Authority, auth: tuple[str, str] | None
) -> None:
    """A 401 is permanent, says which settings are about it, and repeats no password."""
    error = refused(f"https://127.0.0.1:{server.port}", authority.certificate, auth)
    assert isinstance(error, KsqlRefused)
    assert error.status == 401
    assert "KSQLDB_USERNAME and KSQLDB_PASSWORD" in str(error)
    assert "wrong" not in str(error)
    assert USER[1] not in str(error)


def test_https_to_a_server_without_tls_says_so() -> None:
    """The other end does not speak TLS at all."""
    with ksqldb(None) as running:
        error = refused(f"https://127.0.0.1:{running.port}", None)
    assert "TLS handshake failed" in str(error)
    assert "KSQLDB_URL" in str(error)


def test_nothing_is_sent_before_the_certificate_is_accepted(authority: Authority, stranger: Authority) -> None:
    """A password goes to no one whom the authority does not know."""
    with ksqldb(authority.sign("IP:127.0.0.1")) as running:
        refused(f"https://127.0.0.1:{running.port}", stranger.certificate)
        assert running.authorizations == []


def test_a_file_without_a_certificate_is_refused_before_anybody_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and one line that names `KSQLDB_CA_FILE`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.pem").write_text("nothing\n")
    monkeypatch.setenv("KAFKA_BROKER", "broker:9092")
    monkeypatch.setenv("KSQLDB_URL", "https://127.0.0.1:1")
    monkeypatch.setenv("KSQLDB_CA_FILE", str(tmp_path / "empty.pem"))
    assert cli.main(["plan"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("reconciler: KSQLDB_CA_FILE=")
    assert said.count("\n") == 1
