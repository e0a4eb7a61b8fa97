"""Clients that speak TLS with the proxy itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness.certificates import Authority
from tests.harness.coroutines import PATIENCE, until
from tests.integration.routing_layer.proxy_system import Connection, Proxy, ProxySystem, start_system
from tests.integration.routing_layer.quick_proxy import QUICK


class Secured:
    """The files of a proxy with a certificate, and their authority."""

    def __init__(self, folder: Path) -> None:
        """Write a first certificate."""
        self.authority = Authority()
        self.certificate, self.key = folder / "cert.pem", folder / "key.pem"
        self.authority.sign().write(self.certificate, self.key)
        self.trust = ssl.create_default_context(cadata=self.authority.pem.decode())
        self.variables = {"TLS_CERT_FILE": str(self.certificate), "TLS_KEY_FILE": str(self.key)}

    @contextlib.asynccontextmanager
    async def start(self, **options: Any) -> AsyncIterator[ProxySystem]:
        """Start a system with it."""
        constants = {**QUICK, "routing_layer.client.tls:_LOOK_SECONDS": 0.05}
        async with start_system(
            state=_state, tls=self.trust, constants=constants, **self.variables, **options
        ) as system:
            yield system

    async def serial(self, system: ProxySystem) -> str:
        """Return the serial number of the certificate that a new connection gets."""
        _, writer = await asyncio.open_connection("127.0.0.1", system.proxy.port, ssl=self.trust)
        found = writer.get_extra_info("peercert")["serialNumber"]
        writer.transport.abort()
        return str(found)


async def _state(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


@pytest.fixture
def secured(tmp_path: Path) -> Secured:
    """The files of a proxy."""
    return Secured(tmp_path)


async def _changes(read: Callable[[], Awaitable[str]], before: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while await read() == before:  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.05)


async def test_streams_and_states_over_tls(secured: Secured) -> None:
    """Events, a move, two requests on one connection; the service is told the scheme."""
    async with secured.start() as system:
        client = await system.stream("A1")
        [source] = system.weld.open
        assert source.header("X-Forwarded-Proto") == ["https"]
        await source.event("one")
        assert (await client.event()).data == "one"
        await system.ksql.put("A1", "Paint")
        assert await client.rest() == b""
        answer = await system.proxy.get("/asset_state?asset_uuid=A1")
        assert await answer.rest() == b"{}"
        answer.writer.write(b"GET /asset_state?asset_uuid=A1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await answer.reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200")
        await until(lambda: not system.weld.open, "the service is free")


async def test_a_client_that_leaves_frees_its_service(secured: Secured) -> None:
    """Also where the service says nothing; and nothing is left of the connection."""
    async with secured.start() as system:
        descriptors = system.proxy.descriptors()
        client = await system.stream("A1")
        client.writer.transport.abort()
        await until(lambda: not system.weld.open, "the service is free")
        await until(lambda: system.proxy.descriptors() <= descriptors, "so is the connection")
        assert await system.proxy.metric("routing_layer_connections") == 1


async def test_a_new_certificate_is_used_for_new_connections(secured: Secured, tmp_path: Path) -> None:
    """Open streams go on; files that do not fit, or are gone, change nothing and are logged once."""
    errors = tmp_path / "log"
    async with secured.start(errors=errors, LOG_LEVEL="info") as system:
        before = await secured.serial(system)
        client = await system.stream("A1")
        good = secured.authority.sign()
        for certificate, key in ((good.certificate, secured.authority.sign().key), (b"no certificate", good.key)):
            secured.certificate.write_bytes(certificate)
            secured.key.write_bytes(key)
            await asyncio.sleep(0.3)
            assert await secured.serial(system) == before
        secured.key.unlink()
        await asyncio.sleep(0.3)
        assert await secured.serial(system) == before
        good.write(secured.certificate, secured.key)
        await _changes(lambda: secured.serial(system), before)
        await system.weld.open[0].event("still")
        assert (await client.event()).data == "still"
    log = errors.read_text()
    assert 1 <= log.count("the new certificate is not used") <= 5
    assert log.count("a new certificate is in use") == 1


async def test_a_replaced_certificate_is_served_to_no_one(secured: Secured) -> None:
    """Also where its key is of another type: a client that asks for the old type gets no connection."""
    secured.authority.sign(with_rsa=True).write(secured.certificate, secured.key)
    only_rsa = ssl.create_default_context(cadata=secured.authority.pem.decode())
    only_rsa.maximum_version = ssl.TLSVersion.TLSv1_2
    only_rsa.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    async with secured.start() as system:
        before = await secured.serial(system)
        _, writer = await asyncio.open_connection("127.0.0.1", system.proxy.port, ssl=only_rsa)
        writer.transport.abort()
        secured.authority.sign().write(secured.certificate, secured.key)
        await _changes(lambda: secured.serial(system), before)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", system.proxy.port, ssl=only_rsa)


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_what_is_no_handshake_has_its_time(secured: Secured, sent: bytes) -> None:
    """Silence, a part of a handshake, plain HTTP: the connection ends, and others are served meanwhile."""
    async with secured.start(CLIENT_HEAD_TIMEOUT="1") as system:
        reader, writer = await asyncio.open_connection("127.0.0.1", system.proxy.port)
        writer.write(sent)
        assert (await system.proxy.get("/healthz")).status == 200
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                await reader.read()
        writer.close()
        late = 'routing_layer_connections_ended_total{reason="head_timeout"}'
        assert await system.proxy.metric(late) == (0 if sent.startswith(b"GET") else 1)


async def test_silent_connections_make_room_before_their_handshake(secured: Secured) -> None:
    """They are counted from the start: more of them than descriptors, and a stream is still served."""
    async with secured.start(descriptors=200) as system:
        held = [await asyncio.open_connection("127.0.0.1", system.proxy.port) for _ in range(150)]
        await asyncio.sleep(1)
        held += [await asyncio.open_connection("127.0.0.1", system.proxy.port) for _ in range(100)]
        await asyncio.sleep(1)
        await system.stream("A1")
        for _, writer in held:
            writer.transport.abort()


async def test_silent_connections_leave_nothing_after_their_handshake(secured: Secured) -> None:
    """A client that does not answer the end of TLS keeps no descriptor: the next ones need it."""
    async with secured.start(descriptors=200, CLIENT_HEAD_TIMEOUT="1") as system:
        before, held = system.proxy.descriptors(), []
        for _ in range(3):
            held += [_Silent(system.proxy.port, secured.trust) for _ in range(40)]
            await until(lambda: system.proxy.descriptors() <= before, "they have ended")
        await system.stream("A1")
        for client in held:
            client.close()


class _Silent:
    """A client that makes a handshake, and reads and writes nothing after it."""

    def __init__(self, port: int, trust: ssl.SSLContext) -> None:
        self._sock = trust.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1")

    def close(self) -> None:
        """Leave."""
        self._sock.close()


async def test_an_idle_client_does_not_hold_up_the_end(secured: Secured) -> None:
    """The process does not wait for its part of the end of TLS."""
    async with secured.start(DRAIN_SECONDS="60") as system:
        idle = _Silent(system.proxy.port, secured.trust)
        system.proxy.terminate()
        assert await system.proxy.exit_code() == 0
        idle.close()


@pytest.mark.parametrize("lacks", ["certificate", "key"])
async def test_files_that_cannot_be_used_are_named_at_the_start(secured: Secured, lacks: str) -> None:
    """Exit code 2, with both variables."""
    getattr(secured, lacks).write_text("nonsense")
    files = {"TLS_CERT_FILE": str(secured.certificate), "TLS_KEY_FILE": str(secured.key)}
    proxy = Proxy({"KSQLDB_URL": "http://127.0.0.1:1", **files})
    process = await proxy.spawn(capture=True)
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"TLS_CERT_FILE=" in said
    assert b"not a certificate and its key in PEM" in said
