"""The way to ksqlDB: certificates, credentials, watches that die in silence, lists that lack most of it."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from tests.routing.sources import Ksql
from tests.routing.world import until, world

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
    async with world(
        ksql=Ksql(context, "proxy:p: ss wörd "),
        KSQLDB_CA_FILE=ca,
        KSQLDB_USERNAME_FILE=str(user),
        KSQLDB_PASSWORD_FILE=str(password),
    ) as around:
        client = await around.stream("A1")
        await around.proxy.wait_current()
        await around.ksql.put("A1", "Paint")
        assert await client.rest() == b""
        around.ksql.table["A3"] = "Weld"
        await around.stream("A3")
        assert around.ksql.refused == 0


async def test_a_server_that_nobody_vouches_for_is_not_believed(authority: tuple[str, ssl.SSLContext]) -> None:
    """Without the CA nothing is sent: not ready, alive, and the reason is counted."""
    async with world(ready=False, ksql=Ksql(authority[1])) as around:
        await around.proxy.wait_metric(_ERRORS, 2)
        assert not await around.proxy.ready()
        assert around.ksql.questions == []
        assert (await around.proxy.get("/asset_stream?asset_uuid=A1")).status == 503


async def test_a_wrong_password_is_not_death() -> None:
    """Refused is refused: not ready, alive; with nobody's assets unknown."""
    ksql = Ksql(credentials="proxy:right")
    async with world(ready=False, ksql=ksql, KSQLDB_USERNAME="proxy", KSQLDB_PASSWORD="wrong") as around:
        await until(lambda: around.ksql.refused > 1, "it was asked again")
        assert not await around.proxy.ready()
        assert (await around.proxy.get("/asset_stream?asset_uuid=A1")).status == 503


async def test_a_watch_that_died_in_silence_is_found_by_comparing() -> None:
    """A change that the watch never shows: it is opened again, and the stream of the moved asset ends."""
    async with world(MEMBERSHIP_RESYNC="500ms") as around:
        moved, other = await around.stream("A1"), await around.stream("A2")
        await around.proxy.wait_current()
        around.ksql.mute = True
        await around.ksql.put("A1", "Paint")
        assert await moved.rest() == b""
        await around.proxy.wait_metric(_RELISTS, 2)
        await (await around.stream("A1")).writer.drain()
        assert len(around.paint.open) == 2
        await around.paint.open[0].event("untouched")
        assert (await other.event()).data == "untouched"


async def test_a_list_that_lacks_most_assets_drops_nobody() -> None:
    """One of ten is listed after the watch broke: it is asked again, and meanwhile everybody is served as before."""
    async with world() as around:
        for number in range(10, 20):
            await around.ksql.put(f"A{number}", "Weld")
        await around.proxy.wait_metric("routing_layer_membership_assets", 12)
        await around.proxy.wait_current()
        client = await around.stream("A15")
        around.ksql.hides = {f"A{number}" for number in range(11, 20)} | {"A1", "A2"}
        before = await around.proxy.metric(_ERRORS)
        await around.ksql.end_watches()
        await around.proxy.wait_metric(_ERRORS, before + 3)
        assert await around.proxy.metric("routing_layer_membership_assets") == 12
        await around.stream("A16")
        around.ksql.hides = set()
        await around.proxy.wait_metric(_RELISTS, 2)
        await around.weld.open[0].event("untouched")
        assert (await client.event()).data == "untouched"


async def test_a_table_that_did_lose_most_assets_is_believed_in_the_end() -> None:
    """List and watch say the same for five reads: what both lack is gone."""
    async with world() as around:
        for number in range(10, 20):
            await around.ksql.put(f"A{number}", "Weld")
        await around.proxy.wait_current()
        client = await around.stream("A15")
        around.ksql.mute = True
        for number in range(10, 20):
            await around.ksql.drop(f"A{number}")
        await around.ksql.drop("A2")
        around.ksql.mute = False
        await around.ksql.end_watches()
        assert await client.rest() == b""
        await around.proxy.wait_metric(_RELISTS, 2)
        assert await around.proxy.metric("routing_layer_membership_assets") == 1
        assert (await around.proxy.get("/asset_stream?asset_uuid=A15")).status == 404
