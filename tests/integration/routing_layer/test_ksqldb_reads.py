"""The way to ksqlDB: certificates, credentials, watches that die in silence, lists that lack most of it."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from tests.harness.coroutines import until
from tests.integration.routing_layer.fake_sources import FakeKsqldb
from tests.integration.routing_layer.proxy_system import start_system

_RELISTS = "routing_layer_membership_relists_total"
_ERRORS = "routing_layer_membership_errors_total"


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], capture_output=True, check=True)


def _certificate(folder: Path, name: str, *signer: str) -> tuple[str, str]:
    """Make a key and a certificate for 127.0.0.1; without a signer it signs itself, as a CA does."""
    key, certificate = str(folder / f"{name}.key"), str(folder / f"{name}.pem")
    extensions = ("-addext", "subjectAltName=IP:127.0.0.1") if signer else ()
    new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}")
    _openssl(*new, "-keyout", key, "-out", certificate, *extensions, *signer)
    return key, certificate


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ssl.SSLContext]:
    """The certificate of a CA of one's own, and a server's context that it has signed for."""
    folder = tmp_path_factory.mktemp("ca")
    ca_key, ca = _certificate(folder, "plant-ca")
    key, request, certificate = (str(folder / f"ksqldb.{end}") for end in ("key", "csr", "pem"))
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    _openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=ksqldb", "-keyout", key, "-out", request)
    signed = ("-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", str(folder / "names"))
    _openssl("x509", "-req", "-in", request, "-out", certificate, *signed)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return ca, context


async def test_ksqldb_behind_tls_and_a_password(authority: tuple[str, ssl.SSLContext], tmp_path: Path) -> None:
    """With the CA and the credentials in files everything is as without: list, watch and question."""
    ca, context = authority
    user, password = tmp_path / "user", tmp_path / "password"
    user.write_text("proxy\n")
    password.write_text("p: ss wörd \n")
    async with start_system(
        ksql=FakeKsqldb(context, "proxy:p: ss wörd "),
        KSQLDB_CA_FILE=ca,
        KSQLDB_USERNAME_FILE=str(user),
        KSQLDB_PASSWORD_FILE=str(password),
    ) as system:
        client = await system.stream("A1")
        await system.proxy.wait_current()
        await system.ksql.put("A1", "Paint")
        assert await client.rest() == b""
        system.ksql.table["A3"] = "Weld"
        await system.stream("A3")
        assert system.ksql.refused == 0


async def test_a_server_without_a_trusted_certificate_is_refused(authority: tuple[str, ssl.SSLContext]) -> None:
    """Without the CA nothing is sent: not ready, alive, and the reason is counted."""
    async with start_system(ready=False, ksql=FakeKsqldb(authority[1])) as system:
        await system.proxy.wait_metric(_ERRORS, 2)
        assert not await system.proxy.ready()
        assert system.ksql.questions == []
        assert (await system.proxy.get("/asset_stream?asset_uuid=A1")).status == 503


async def test_a_wrong_password_is_not_death() -> None:
    """The proxy is alive and not ready, and no asset is unknown."""
    ksql = FakeKsqldb(credentials="proxy:right")
    async with start_system(ready=False, ksql=ksql, KSQLDB_USERNAME="proxy", KSQLDB_PASSWORD="wrong") as system:
        await until(lambda: system.ksql.refused > 1, "it was asked again")
        assert not await system.proxy.ready()
        assert (await system.proxy.get("/asset_stream?asset_uuid=A1")).status == 503


async def test_a_watch_that_died_in_silence_is_found_by_comparing() -> None:
    """A change that the watch never shows: it is opened again, and the stream of the moved asset ends."""
    async with start_system(MEMBERSHIP_RESYNC="500ms") as system:
        moved, other = await system.stream("A1"), await system.stream("A2")
        await system.proxy.wait_current()
        system.ksql.mute = True
        await system.ksql.put("A1", "Paint")
        assert await moved.rest() == b""
        await system.proxy.wait_metric(_RELISTS, 2)
        await (await system.stream("A1")).writer.drain()
        assert len(system.paint.open) == 2
        await system.paint.open[0].event("untouched")
        assert (await other.event()).data == "untouched"


async def test_a_list_without_most_assets_drops_no_asset() -> None:
    """One of ten is listed after the watch broke: it is read again, and until then all are served as before."""
    async with start_system() as system:
        for number in range(10, 20):
            await system.ksql.put(f"A{number}", "Weld")
        await system.proxy.wait_metric("routing_layer_membership_assets", 12)
        await system.proxy.wait_current()
        client = await system.stream("A15")
        system.ksql.hides = {f"A{number}" for number in range(11, 20)} | {"A1", "A2"}
        before = await system.proxy.metric(_ERRORS)
        await system.ksql.end_watches()
        await system.proxy.wait_metric(_ERRORS, before + 3)
        assert await system.proxy.metric("routing_layer_membership_assets") == 12
        await system.stream("A16")
        system.ksql.hides = set()
        await system.proxy.wait_metric(_RELISTS, 2)
        await system.weld.open[0].event("untouched")
        assert (await client.event()).data == "untouched"


async def test_a_table_that_did_lose_most_assets_is_believed_in_the_end() -> None:
    """List and watch say the same for five reads: what both lack is gone."""
    async with start_system() as system:
        for number in range(10, 20):
            await system.ksql.put(f"A{number}", "Weld")
        await system.proxy.wait_current()
        client = await system.stream("A15")
        system.ksql.mute = True
        for number in range(10, 20):
            await system.ksql.drop(f"A{number}")
        await system.ksql.drop("A2")
        system.ksql.mute = False
        await system.ksql.end_watches()
        assert await client.rest() == b""
        await system.proxy.wait_metric(_RELISTS, 2)
        assert await system.proxy.metric("routing_layer_membership_assets") == 1
        assert (await system.proxy.get("/asset_stream?asset_uuid=A15")).status == 404
